"""What a report is made from: the logs of `rvpo train`, and sample answers.

These are of the first prompts of the last table of completions that TRL wrote. `log_completions: true` makes TRL write
such tables; rvpo's trainer adds every channel's reward, and a rubric reward with `log_reasons` the judge's reasons.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rvpo.errors import ConfigError, reason

__all__ = [
    "METRICS_FILE",
    "LoggedAnswer",
    "LoggedPrompt",
    "TrainingRun",
    "columns_of_log",
    "contents",
    "differing_names",
    "read_answers",
    "read_run",
    "read_runs",
    "unique_folders",
]

PROMPTS = 2
MOST_LETTERS = 4000
"""Letters shown of a prompt or an answer."""
CHANNELS, REASONS = "/channels", "/reasons"
"""What the names of columns end with that hold JSON objects: channel -> reward, and channel -> reason."""
NO_REWARDS = ("step", "prompt", "completion", "advantage")

Row = Mapping[str, Any]


@dataclass(frozen=True)
class LoggedAnswer:
    """An answer with its rewards."""

    text: str
    advantage: float
    """NaN where none was logged."""
    rewards: tuple[tuple[str, float, str], ...]
    """Channel, reward (NaN for none) and the judge's reason, empty without one."""


@dataclass(frozen=True)
class LoggedPrompt:
    """A prompt and two of the answers to it."""

    step: int
    text: str
    answers: tuple[LoggedAnswer, ...]
    """The answer of the highest advantage in its group and that of the lowest; one, if they are the same."""


def read_answers(folder: Path) -> tuple[LoggedPrompt, ...]:
    """Return the first prompts in the last table of a run's output folder; none without a table.

    Raises ConfigError for a file that is no such table.
    """
    tables = (folder / "completions").glob("completions_*.parquet")
    files = sorted(tables, key=lambda file: (len(file.name), file.name))  # by step, which has five digits or more
    if not files:
        return ()
    import pyarrow.parquet as pq

    groups: dict[str, list[Row]] = {}
    try:
        for row in pq.read_table(files[-1]).to_pylist():
            groups.setdefault(_text(row["prompt"]), []).append(row)
        return tuple(_prompt(text, rows) for text, rows in list(groups.items())[:PROMPTS])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{files[-1]} is no table of completions as TRL writes it: {error}") from error


def _prompt(text: str, rows: list[Row]) -> LoggedPrompt:
    answers = [
        LoggedAnswer(_text(row["completion"]), _number(row.get("advantage")), tuple(_rewards(row))) for row in rows
    ]
    known = [answer for answer in answers if math.isfinite(answer.advantage)] or answers[:1]
    ends = max(known, key=lambda answer: answer.advantage), min(known, key=lambda answer: answer.advantage)
    return LoggedPrompt(int(rows[0]["step"]), text, tuple(dict.fromkeys(ends)))


def _rewards(row: Row) -> Iterator[tuple[str, float, str]]:
    """Yield channel, reward and reason; a reward function with channels of its own is told by these."""
    reasons = {name: reason for column in row if column.endswith(REASONS) for name, reason in _object(row[column])}
    for column, value in row.items():
        if column.endswith(CHANNELS):
            for name, reward in _object(value):
                yield name, _number(reward), reasons.get(name) or ""
        elif column not in NO_REWARDS and isinstance(value, float) and column + CHANNELS not in row:
            yield column, value, reasons.get(column) or ""


def _object(text: str | None) -> list[tuple[str, Any]]:
    """Return the entries of a JSON object; none where a row has no text."""
    return list(json.loads(text).items()) if text else []


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _text(value: Any) -> str:
    """Return a prompt or an answer, a text or a list of messages, as one text."""
    parts = value if isinstance(value, list) else [{"content": value}]
    text = "\n".join(str(part.get("content") or "") for part in parts)
    return text if len(text) <= MOST_LETTERS else f"{text[:MOST_LETTERS]} ..."


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
