"""What a report is made from: the logs of `rvpo train`."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rvpo.errors import ConfigError, reason
from rvpo.report.answers import LoggedPrompt, read_answers

__all__ = [
    "METRICS_FILE",
    "TrainingRun",
    "columns_of_log",
    "contents",
    "differing_names",
    "read_run",
    "read_runs",
    "unique_folders",
]

METRICS_FILE, RUN_FILE = "metrics.jsonl", "run.json"
SUITE_FILES = ("suite.json", "cells.parquet")
"""Mark the folder of a suite, which the laboratory reports on."""


@dataclass(frozen=True)
class TrainingRun:
    """What one training run logged."""

    method: str
    """What is compared: curves of runs of one method are averaged."""
    steps: tuple[int, ...]
    log: Mapping[str, Sequence[float]]
    """Metric -> value at each step, NaN for none."""
    answers: tuple[LoggedPrompt, ...] = ()
    """Sample answers, where completions were logged."""
    about: str = ""
    """Method, model and how far it has come, where the run's folder says so."""
    has_evaluations: bool = False


def read_runs(folders: Sequence[Path]) -> list[TrainingRun]:
    """Return the logs in the output folders of `rvpo train`, each named by what differs in the folders' paths.

    A folder given twice counts once. Raises ConfigError for a folder without a log.
    """
    unique = unique_folders(folders)
    for folder in unique:
        if any((folder / name).is_file() for name in SUITE_FILES) and not (folder / METRICS_FILE).is_file():
            raise ConfigError(f"{folder} is the folder of a suite; its page is made by `rvpo bench report {folder}`")
    return [read_run(folder, name) for folder, name in zip(unique, differing_names(unique), strict=True)]


def unique_folders(folders: Sequence[Path]) -> list[Path]:
    """Return folders whose paths differ when resolved, as absolute paths in their order."""
    return list(dict.fromkeys(folder.resolve() for folder in folders))


def differing_names(folders: Sequence[Path]) -> list[str]:
    """Return a short name for each folder: what is left between the parts that all paths begin and end with.

    >>> differing_names([Path("/runs/gdpo/out"), Path("/runs/rvpo/out")])
    ['gdpo', 'rvpo']
    """
    if len(folders) == 1:
        return [folders[0].name or str(folders[0])]
    parts = [folder.parts for folder in folders]
    shortest = min(map(len, parts), default=0)
    start = next((at for at in range(shortest) if len({part[at] for part in parts}) > 1), shortest)
    end = next((at for at in range(shortest - start) if len({part[-1 - at] for part in parts}) > 1), shortest - start)
    names = ["/".join(part[start : len(part) - end]) for part in parts]
    return [name or folder.name for name, folder in zip(names, folders, strict=True)]


def read_run(folder: Path, name: str) -> TrainingRun:
    """Return the log of one training run under a name; ConfigError if there is none, or one of another kind."""
    file = folder / METRICS_FILE
    if not file.is_file():
        raise ConfigError(
            f"a RUN is the output folder of `rvpo train`, with {METRICS_FILE}; got {folder}: {contents(folder)}"
        )
    try:
        *whole, last = file.read_text(encoding="utf-8").split("\n")  # a killed run may leave the last line cut
        entries: list[Any] = [json.loads(line) for line in [*whole, *_cut_off(last)] if line]
        steps, log = columns_of_log(entries)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ConfigError(
            f"{file} must hold one JSON object a line, as `rvpo train` writes it: {reason(error)}"
        ) from error
    if not steps:
        raise ConfigError(f"{file} must hold logged steps of an RVPO trainer, with `rvpo/...`; it has none")
    has_evaluations = any(key.startswith("eval_") for entry in entries for key in entry)
    return TrainingRun(name, tuple(steps), log, read_answers(folder), _about(folder, steps[-1]), has_evaluations)


def _cut_off(line: str) -> list[str]:
    """Return a last line without an end if it is whole, else nothing."""
    try:
        json.loads(line)
    except ValueError:
        return []
    return [line]


def _about(folder: Path, step: int) -> str:
    """Return what run.json says of a run, "" if there is none."""
    try:
        content = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
        settings, planned = content["settings"], int(content["max_steps"])
    except (OSError, ValueError, TypeError, KeyError):
        return ""
    names = [settings.get("method", "rvpo"), settings.get("model_name_or_path"), settings.get("dataset_name")]
    return ", ".join([*(str(name) for name in names if name), f"step {step} of {planned}"])


def contents(folder: Path) -> str:
    """Return what a folder holds, in words for an error."""
    if not folder.exists():
        return "there is nothing there"
    if not folder.is_dir():
        return "it is a file"
    return f"it holds {', '.join(sorted(path.name for path in folder.iterdir())[:6]) or 'nothing'}"


def columns_of_log(history: Sequence[Mapping[str, Any]]) -> tuple[list[int], dict[str, list[float]]]:
    """Return a trainer's log as logged steps and one column per metric of ours, NaN where it is absent."""
    entries = [entry for entry in history if any(key.startswith("rvpo/") for key in entry)]
    names = dict.fromkeys(key for entry in entries for key in entry if key.startswith(("rvpo/", "channels/")))
    columns = {
        name: [math.nan if entry.get(name) is None else float(entry[name]) for entry in entries] for name in names
    }
    return [int(entry["step"]) for entry in entries], columns
