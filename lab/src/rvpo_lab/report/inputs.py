"""What the page of a suite is made from: finished cells, and the logs of training runs beside them; and how the cells
were made: settings, versions, the command that makes them again."""

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rvpo.errors import ConfigError
from rvpo.report.runs import METRICS_FILE, TrainingRun, contents, differing_names, read_run, unique_folders
from rvpo_lab.suite.plan import CONTENDERS, OPTIONS, SuiteSettings
from rvpo_lab.suite.storage import CellRecord, finished, read_cells
from rvpo_lab.tasks.catalog import TASKS

__all__ = ["FinishedSuite", "SuiteInputs", "command", "read_inputs", "settings", "uses_k", "versions"]


@dataclass(frozen=True)
class FinishedSuite:
    """A folder with finished cells."""

    name: str
    folder: Path
    records: tuple[CellRecord, ...]
    """With `task` in `about` made unique among the suites of a page, and the task's own name as `catalog_task`."""


@dataclass(frozen=True)
class SuiteInputs:
    """Everything that a page shows."""

    suites: tuple[FinishedSuite, ...]
    training: tuple[TrainingRun, ...] = ()

    @property
    def records(self) -> list[CellRecord]:
        """The cells of all suites."""
        return [record for suite in self.suites for record in suite.records]

    @property
    def contenders(self) -> dict[str, str]:
        """The contenders of the suites and what they are called, in the catalogue's order, unknown ones last."""
        present = dict.fromkeys(record.about["contender"] for record in self.records)
        known = {name: contender.label for name, contender in CONTENDERS.items() if name in present}
        return {**known, **{name: name for name in present if name not in known}}


def uses_k(contender: str) -> bool:
    """Return False where it is known that k has no effect."""
    return contender not in CONTENDERS or "k" in CONTENDERS[contender].options


def read_inputs(folders: Sequence[Path], tasks: Sequence[str] = ()) -> SuiteInputs:
    """Read the folders of suites and of training runs; `tasks` limits the suites to these.

    A folder given twice counts once. Raises ConfigError for a folder that is neither, or an unknown task.
    """
    unique = unique_folders(folders)
    names = dict(zip(unique, differing_names(unique), strict=True))
    training = [folder for folder in unique if (folder / METRICS_FILE).is_file()]
    if len(training) == len(unique):
        raise ConfigError("none of these folders is a suite's; the page of training runs is made by `rvpo report`")
    suites = _suites({folder: name for folder, name in names.items() if folder not in training}, tasks)
    return SuiteInputs(tuple(suites), tuple(read_run(folder, names[folder]) for folder in training))


def _suites(folders: Mapping[Path, str], tasks: Sequence[str]) -> list[FinishedSuite]:
    """Read the cells of the folders; where several have a task, the suite's name is added to the task's."""
    cells = {folder: _records(folder) for folder in folders}
    known = Counter(task for records in cells.values() for task in {record.about["task"] for record in records})
    missing = [task for task in tasks if task not in known]
    if missing:
        raise ConfigError(f"there are no cells of task {', '.join(missing)} there; found: {', '.join(sorted(known))}")

    def renamed(record: CellRecord, suite: str) -> CellRecord:
        task = record.about["task"]
        label = f"{task} ({suite})" if known[task] > 1 else task
        return replace(record, about={**record.about, "task": label, "catalog_task": task})

    chosen = {
        folder: tuple(
            renamed(record, folders[folder]) for record in records if not tasks or record.about["task"] in tasks
        )
        for folder, records in cells.items()
    }
    return [FinishedSuite(folders[folder], folder, records) for folder, records in chosen.items() if records]


def _records(folder: Path) -> list[CellRecord]:
    if not finished(folder):
        raise ConfigError(
            "a page is made from folders of suites, with finished cells, and output folders of `rvpo train`, with "
            f"{METRICS_FILE}; got {folder}: {contents(folder)}"
        )
    return read_cells(folder)


QUICKSTART = (["rubric"], ["gdpo", "grpo", "maxrl", "rvpo"])
"""Tasks and methods, sorted, of `rvpo quickstart`."""


def _united(tables: Iterable[dict[str, Any]]) -> dict[str, str]:
    """Return each key with its value, or with all its values where the tables differ."""
    united: dict[str, dict[str, None]] = {}
    for table in tables:
        for key, value in table.items():
            united.setdefault(key, {})[str(value)] = None
    return {key: " or ".join(values) for key, values in united.items()}


def settings(suite: FinishedSuite) -> dict[str, str]:
    """Return the settings of a suite's cells."""
    return _united(record.about.get("settings", {}) for record in suite.records)


def versions(suite: FinishedSuite) -> dict[str, str]:
    """Return the versions of the packages that the cells were made with."""
    return _united(record.about.get("versions", {}) for record in suite.records)


def command(suite: FinishedSuite) -> str:
    """Return the command line that trains these cells, empty where the settings are no command's."""
    tasks, methods, seeds = (
        list(dict.fromkeys(record.about[key] for record in suite.records))
        for key in ("catalog_task", "contender", "seed")
    )
    first, *others = (record.about.get("settings") for record in suite.records)
    known = set(tasks) <= set(TASKS) and set(methods) <= set(CONTENDERS)
    if (
        not known
        or not first
        or any(other != first for other in others)
        or not set(first) <= set(asdict(SuiteSettings()))
    ):
        return ""
    made = SuiteSettings(**first)
    common = f"--seeds {_seeds(sorted(seeds))} --steps {made.steps}"
    out = f"--out {shlex.quote(str(suite.folder))}"
    if (tasks, sorted(methods)) == QUICKSTART and made == _quickstart_settings(made):
        is_usual = made.warm_start_steps == SuiteSettings.warm_start_steps
        return f"rvpo quickstart {common} {'' if is_usual else f'--warm-start-steps {made.warm_start_steps} '}{out}"
    usual = asdict(SuiteSettings())
    unusual = {name: value for name, value in asdict(made).items() if value != usual[name]}
    if unusual.keys() - OPTIONS.keys():
        return ""
    given = {"beta": made.beta, "learning_rate": made.learning_rate} | unusual
    given.pop("steps", None)
    options = " ".join(f"--{name.replace('_', '-')} {value!r}" for name, value in given.items())
    return f"rvpo bench neglect --tasks {','.join(tasks)} --methods {','.join(methods)} {common} {options} {out}"


def _quickstart_settings(made: SuiteSettings) -> SuiteSettings:
    """Return the settings of a quickstart of as many steps."""
    steps = made.steps
    return SuiteSettings(steps=steps, evaluate_every=max(steps // 10, 1), warm_start_steps=made.warm_start_steps)


def _seeds(seeds: list[int]) -> str:
    """Return seeds as the command line takes them: "0-4" or "1,5"."""
    first, last = seeds[0], seeds[-1]
    return f"{first}-{last}" if seeds == list(range(first, last + 1)) else ",".join(map(str, seeds))
