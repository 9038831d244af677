"""What a report is made from: finished cells of suites, and the logs of `rvpo train`. The only module that reads."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rvpo.errors import ConfigError

if TYPE_CHECKING:
    from rvpo_lab.suite.cell_file import CellRecord

__all__ = ["Inputs", "Method", "Suite", "TrainingRun", "differing_names", "read_runs"]

METRICS_FILE = "metrics.jsonl"
CELLS = "cells"


@dataclass(frozen=True)
class Method:
    """What is compared: a contender of a suite, or a training run of its own."""

    name: str
    label: str
    uses_k: bool = True
    """False where it is known that k has no effect."""


@dataclass(frozen=True)
class Suite:
    """A folder with finished cells."""

    name: str
    folder: Path
    records: "tuple[CellRecord, ...]"
    """With `task` in `about` made unique among the suites of a report, and the task's own name as `catalog_task`."""


@dataclass(frozen=True)
class TrainingRun:
    """What one training run logged."""

    method: str
    steps: tuple[int, ...]
    log: Mapping[str, Sequence[float]]
    """Metric -> value at each step, NaN for none."""


@dataclass(frozen=True)
class Inputs:
    """Everything a report shows."""

    suites: tuple[Suite, ...] = ()
    training: tuple[TrainingRun, ...] = ()
    methods: Mapping[str, Method] = field(default_factory=dict)
    """In the order of the report; the training runs last."""

    @property
    def records(self) -> "list[CellRecord]":
        """The cells of all suites."""
        return [record for suite in self.suites for record in suite.records]


def read_runs(folders: Sequence[Path], tasks: Sequence[str] = ()) -> Inputs:
    """Read the folders of a report; `tasks` limits suites to these. Raises ConfigError for anything else."""
    given = {folder.resolve(): folder for folder in reversed(folders)}
    unique = list(reversed(given))
    if not unique:
        raise ConfigError("a report needs at least one RUN: a folder of a suite, of the quickstart or of `rvpo train`")
    names = dict(zip(unique, differing_names(unique), strict=True))
    suites = [folder for folder in unique if _is_suite(folder)]
    training = [_training_run(folder, names[folder]) for folder in unique if folder not in suites]
    read = _suites({given[folder]: names[folder] for folder in suites}, tasks)
    methods = _methods(read)
    for run in training:
        methods.setdefault(run.method, Method(run.method, run.method))
    return Inputs(tuple(read), tuple(training), methods)


def differing_names(folders: Sequence[Path]) -> list[str]:
    """Return a short name for each folder: what is left between the parts that all paths begin and end with.

    >>> differing_names([Path("/runs/gdpo/out"), Path("/runs/rvpo/out")])
    ['gdpo', 'rvpo']
    """
    if len(folders) == 1:
        return [folders[0].name or str(folders[0])]
    parts = [folder.parts for folder in folders]
    shortest = min(map(len, parts))
    start = next((at for at in range(shortest) if len({part[at] for part in parts}) > 1), shortest)
    end = next((at for at in range(shortest - start) if len({part[-1 - at] for part in parts}) > 1), shortest - start)
    names = ["/".join(part[start : len(part) - end]) for part in parts]
    return [name or folder.name for name, folder in zip(names, folders, strict=True)]


def _is_suite(folder: Path) -> bool:
    """Tell a suite's folder from a training run's; raise ConfigError if it is neither."""
    if any((folder / CELLS).glob("*.parquet")):
        return True
    if (folder / METRICS_FILE).is_file():
        return False
    if not folder.exists():
        found = "there is nothing there"
    elif not folder.is_dir():
        found = "it is a file"
    else:
        found = f"it holds {', '.join(sorted(path.name for path in folder.iterdir())[:6]) or 'nothing'}"
    raise ConfigError(
        "a RUN is the folder of a suite or quickstart, with cells/*.parquet, or the output folder of `rvpo train`, "
        f"with {METRICS_FILE}; got {folder}: {found}"
    )


def _training_run(folder: Path, name: str) -> TrainingRun:
    """Read the log of one training run."""
    from rvpo_lab.suite.cell_file import columns_of_log

    file = folder / METRICS_FILE
    try:
        entries: list[Any] = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line]
        steps, log = columns_of_log(entries)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f"{file} must hold one JSON object a line, as `rvpo train` writes it: {error}") from error
    if not steps:
        raise ConfigError(f"{file} must hold logged steps of an RVPO trainer, with `rvpo/k`; it has none")
    return TrainingRun(name, tuple(steps), log)


def _suites(folders: Mapping[Path, str], tasks: Sequence[str]) -> list[Suite]:
    """Read the cells of the folders; where several have a task, the suite's name is added to the task's."""
    if not folders:
        return []
    found = {folder: _records(folder) for folder in folders}
    known = Counter(task for records in found.values() for task in {record.about["task"] for record in records})
    missing = [task for task in tasks if task not in known]
    if missing:
        raise ConfigError(f"there are no cells of task {', '.join(missing)} there; found: {', '.join(sorted(known))}")

    def renamed(record: "CellRecord", suite: str) -> "CellRecord":
        task = record.about["task"]
        label = f"{task} ({suite})" if known[task] > 1 else task
        return replace(record, about={**record.about, "task": label, "catalog_task": task})

    chosen = {
        folder: tuple(renamed(one, folders[folder]) for one in records if not tasks or one.about["task"] in tasks)
        for folder, records in found.items()
    }
    return [Suite(folders[folder], folder, records) for folder, records in chosen.items() if records]


def _records(folder: Path) -> "list[CellRecord]":
    from rvpo_lab.suite.results import read_cells

    try:
        return read_cells(folder)
    except ConfigError:
        raise
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{folder / CELLS} holds a file that is no cell of a suite: {error}") from error


def _methods(suites: Sequence[Suite]) -> dict[str, Method]:
    """Return the contenders of the suites in the order of the catalogue, unknown ones last."""
    if not suites:
        return {}
    from rvpo_lab.suite.plan import CONTENDERS

    present = {record.about["contender"]: None for suite in suites for record in suite.records}
    known = [
        Method(one.name, one.label, uses_k="k" in one.options) for one in CONTENDERS.values() if one.name in present
    ]
    others = [Method(name, name) for name in present if name not in CONTENDERS]
    return {method.name: method for method in [*known, *others]}
