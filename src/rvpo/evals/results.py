"""A results folder: what is kept of a run line by line, what it depends on, and its summary.

    about.json      everything that the results depend on; a folder is only gone on with under the same
    answers.jsonl   an answer a line
    items.jsonl     a scored answer a line: its scores, what is missing, the bounds of what that could change
    summary.json    the scores of the benchmark with intervals, counts of what is missing, and about.json's content

Lines are appended as they are finished, so a killed run goes on where it was; a last line that a kill cut short is
dropped. A finished run puts its lines into the benchmark's order, and holds no time of day: a run that was killed and
one that was not end with the same bytes.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rvpo.errors import ConfigError
from rvpo.evals.benchmark import Record
from rvpo.llm.json_text import json_text

__all__ = [
    "ABOUT",
    "ANSWERS",
    "ITEMS",
    "SUMMARY",
    "JsonLines",
    "Result",
    "differences",
    "keep_about",
    "read_result",
    "result_folders",
    "write_whole",
]

ABOUT, ANSWERS, ITEMS, SUMMARY = "about.json", "answers.jsonl", "items.jsonl", "summary.json"
COMPARABLE = ("benchmark", "questions", "settings.", "model.sampling.", "versions.rvpo")
"""What must be equal in `about` for two results to be compared without a note."""


class JsonLines:
    """Lines of JSON in a file, by their id; of an id that occurs twice the first line counts."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.lines: dict[str, dict[str, Any]] = {}
        for line in _read_lines(file):
            self.lines.setdefault(line["id"], line)

    def add(self, lines: Sequence[dict[str, Any]]) -> None:
        """Append lines; they are with the system when this returns, so that a kill loses none."""
        with self.file.open("ab") as stream:
            stream.write(b"".join(map(_encoded, lines)))
        self.lines.update((line["id"], line) for line in lines)

    def forget(self, names: set[str]) -> None:
        """Take lines out."""
        if names & self.lines.keys():
            self.replace([name for name in self.lines if name not in names])

    def replace(self, order: Sequence[str]) -> None:
        """Write the file anew, whole or not at all, with these lines in this order."""
        self.lines = {name: self.lines[name] for name in order}
        write_whole(self.file, b"".join(map(_encoded, self.lines.values())))


def _encoded(line: Mapping[str, Any]) -> bytes:
    return f"{json_text(line)}\n".encode()


def _read_lines(file: Path) -> list[dict[str, Any]]:
    """Return the lines of a file, none without one; what a kill left of a last line is cut off the file."""
    if not file.is_file():
        return []
    data = file.read_bytes()
    end = data.rfind(b"\n") + 1
    if end < len(data):
        os.truncate(file, end)
    lines = []
    for number, text in enumerate(data[:end].split(b"\n")[:-1], start=1):
        try:
            lines.append(json.loads(text))
            lines[-1]["id"]
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{file}, line {number} is no result ({error}); take it out, or begin anew") from error
    return lines


def write_whole(file: Path, content: str | bytes) -> None:
    """Write a file whole or not at all."""
    unfinished = file.with_name(f".{file.name}.new")
    unfinished.write_bytes(content.encode() if isinstance(content, str) else content)
    unfinished.replace(file)


def keep_about(folder: Path, about: Mapping[str, Any]) -> None:
    """Write what the results will depend on; raise ConfigError if the folder holds results of something else."""
    file = folder / ABOUT
    if file.is_file():
        apart = differences(_read_json(file), json.loads(json.dumps(about)), whole=True)
        if apart:
            raise ConfigError(
                f"{folder} holds results of something else ({apart}, there and now); choose another folder with --out"
            )
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(file, json.dumps(about, indent=2) + "\n")
    except OSError as error:
        raise ConfigError(f"cannot write to {folder}: {error}") from error


def differences(first: Mapping[str, Any], second: Mapping[str, Any], *, whole: bool = False) -> str:
    """Return in words where two `about` differ, "" for nowhere: in all, or else in what makes scores incomparable.

    What may differ between models that are compared: their weights and names, and where and how fast they ran.
    """
    before, after = _flat(first), _flat(second)
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    if not whole:
        names = [name for name in names if name.startswith(COMPARABLE) and not name.endswith(".base_url")]
    return ", ".join(f"{name} {before.get(name)!r} and {after.get(name)!r}" for name in names)


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """Return nested mappings as one, by dotted names."""
    if not isinstance(value, dict) or not value:
        return {name: value}
    parts = [_flat(part, f"{name}.{key}" if name else key) for key, part in value.items()]
    return {key: leaf for part in parts for key, leaf in part.items()}


@dataclass(frozen=True)
class Result:
    """A finished results folder."""

    folder: Path
    summary: Mapping[str, Any]
    records: Sequence[Record]
    """In the benchmark's order."""


def read_result(folder: str | Path) -> Result:
    """Return what a finished folder holds; ConfigError if it is none."""
    folder = Path(folder)
    return Result(folder, _read_json(folder / SUMMARY), list(JsonLines(folder / ITEMS).lines.values()))


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file.parent} is no finished results folder of `rvpo eval`: {error}") from error
    return content


def result_folders(folder: str | Path) -> list[Path]:
    """Return the folder itself if it holds a summary, otherwise every folder beneath that does, by training step.

    Raises ConfigError if there is none.
    """
    folder = Path(folder)
    if (folder / SUMMARY).is_file():
        return [folder]
    places = [file.parent for file in sorted(folder.rglob(SUMMARY))]
    if not places:
        raise ConfigError(f"there are no finished results in {folder}; make some with `rvpo eval`")
    steps = {place: _read_json(place / SUMMARY).get("step") for place in places}
    return sorted(places, key=lambda place: (steps[place] is None, steps[place] or 0))
