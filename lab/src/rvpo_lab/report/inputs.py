"""What the page of a suite is made from: finished cells, and the logs of training runs beside them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rvpo.errors import ConfigError
from rvpo.report.runs import METRICS_FILE, TrainingRun, contents, differing_names, read_run, unique_folders
from rvpo_lab.suite.cell_file import CellRecord
from rvpo_lab.suite.folder import finished, read_cells
from rvpo_lab.suite.plan import CONTENDERS

__all__ = ["FinishedSuite", "SuiteInputs", "read_inputs", "uses_k"]


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
