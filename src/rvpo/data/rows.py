"""Rows of rubric data sets: raw ones with their places, what a reader makes of one, the canonical row, and its file.

A loader turns one raw row into a `Draft`; `rvpo.data.load` gives it an id and counts what it lacked.

Local files are read here, hub names and saved folders by `datasets`, which wants one type per column, but a rubric may
mix texts and objects; and messages need line numbers. Bytes that are no UTF-8, half an emoji and NUL become
replacement characters.
"""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

from rvpo.errors import ConfigError, reason
from rvpo.files import replaced
from rvpo.judging.criteria import Criterion, Polarity, is_finite_number
from rvpo.llm.model_text import json_text, whole

__all__ = ["Draft", "Message", "Place", "RawRow", "RubricRow", "raw_rows", "write_rows"]

SHOWN = 40
"""Characters of a wrong value in a message: enough to find it, too few to print a row of evaluation data."""


class Message(TypedDict):
    """One turn of a conversation."""

    role: str
    content: str


class RubricRow(TypedDict):
    """A prompt and what its answers are judged by. Every key is present in every row, as Arrow needs it."""

    id: str
    """Unique in the data set: its own id, or a hash of the prompt."""
    prompt: list[Message]
    """The conversation up to the answer."""
    rubric: list[dict[str, Any]]
    """The criteria, as `rvpo.judging.criteria.Criterion.to_row` writes them; at least one."""
    reference: str | None
    """A good answer, where the data set has one."""
    source: str
    """The data set that the row is from."""
    tags: list[str]
    """What the example is about, such as HealthBench's themes."""


class Place(NamedTuple):
    """Where a raw row stands, for messages."""

    name: str
    """File or hub name."""
    number: int
    """From 1."""
    unit: str = "row"
    """What is counted: row or line."""

    def __str__(self) -> str:
        return f"{self.name}, {self.unit} {self.number}"

    def error(self, key: str, must: str, value: object) -> ConfigError:
        """Return the error for a value of a key that is not what it must be."""
        shown = repr(value)
        shown = shown if len(shown) <= SHOWN else f"{type(value).__name__} {shown[:SHOWN]}..."
        return ConfigError(f"{self}, key {key!r}: must be {must}, got {shown}")


@dataclass(frozen=True)
class Draft:
    """What a loader makes of one raw row."""

    prompt: list[Message]
    """Empty if the raw row has none."""
    criteria: tuple[Criterion, ...]
    """Empty if the raw row has none."""
    id: str | None = None
    """The data set's own id, if it has one."""
    reference: str | None = None
    source: str | None = None
    """The row's own note of the data set it is from, if it has one."""
    tags: tuple[str, ...] = ()
    unreadable_categories: int = 0
    """Criteria whose category could not be read (RaR)."""
    undecided_polarities: int = 0
    """Criteria whose polarity was to be read from a wording that does not tell (RaR)."""


def optional_text(value: object, place: Place, key: str) -> str | None:
    """Return a text as it is, None for an absent or blank one; ConfigError for anything else."""
    if value is None or isinstance(value, str):
        return value if value and value.strip() else None
    raise place.error(key, "text", value)


def items_of(value: object, place: Place, key: str) -> list[Any]:
    """Return a list as it is, an empty one for None; ConfigError for anything else."""
    if value is None:
        return []
    if isinstance(value, list):
        return value
    raise place.error(key, "a list", value)


def texts_of(value: object, place: Place, key: str) -> tuple[str, ...]:
    """Return a list of non-empty texts as a tuple; ConfigError for anything else."""
    for index, item in enumerate(items_of(value, place, key)):
        if not isinstance(item, str) or not item:
            raise place.error(f"{key}[{index}]", "non-empty text", item)
    return tuple(items_of(value, place, key))


def mapping_of(value: object, place: Place, key: str) -> Mapping[str, Any]:
    """Return a mapping as it is; ConfigError for anything else."""
    if isinstance(value, Mapping):
        return value
    raise place.error(key, "an object", value)


def messages_of(value: object, place: Place, key: str) -> list[Message]:
    """Return a prompt as chat messages: a text becomes one user message, nothing or blank text no message.

    Raises ConfigError for a message without role or content, or with anything else in it (a tool call that would
    be lost).
    """
    if value is None or isinstance(value, str):
        return [Message(role="user", content=value)] if value and value.strip() else []
    messages = []
    for index, item in enumerate(items_of(value, place, key)):
        item_key = f"{key}[{index}]"
        given = {name: part for name, part in mapping_of(item, place, item_key).items() if part is not None}
        if given.keys() != {"role", "content"}:
            raise place.error(item_key, "an object with role and content only", sorted(given))
        for name, part in given.items():
            if not isinstance(part, str):
                raise place.error(f"{item_key}.{name}", "text", part)
        messages.append(Message(role=given["role"], content=given["content"]))
    return messages if any(message["content"].strip() for message in messages) else []


def number_of(value: object, place: Place, key: str) -> float:
    """Return a finite number as a float; ConfigError for anything else, None included."""
    if is_finite_number(value):
        return float(value)  # type: ignore[arg-type]
    raise place.error(key, "a finite number", value)


def polarity_of(points: float) -> Polarity:
    """Return the polarity of a data set that writes what is bad with negative points."""
    return "negative" if points < 0 else "positive"


def criterion_at(place: Place, key: str, row: Mapping[str, Any]) -> Criterion:
    """Return the criterion of a dict; raise ConfigError, with the place, for what is wrong with it."""
    try:
        return Criterion.from_row(row)
    except ConfigError as error:
        raise ConfigError(f"{place}, key {key!r}: {error}") from error


def write_rows(rows: Iterable[RubricRow], file: Path) -> None:
    """Write canonical rows as JSON Lines; `load_rubric_rows` of the file gives them back.

    Raises ConfigError if the file cannot be written.
    """
    with replaced(file) as stream:
        stream.writelines(f"{json_text(row)}\n".encode() for row in rows)


RawRow = tuple[Place, Mapping[str, Any]]

JSON_CELLS = ("prompt", "rubric", "rubrics", "reward_model", "tags", "example_tags", "ideal_completions_data")
"""Columns of a CSV file whose cells may hold JSON."""


def raw_rows(name: str, split: str, limit: int | None = None) -> list[RawRow]:
    """Return the rows of a hub name, saved folder or file (.jsonl, .json, .parquet, .csv), at most `limit`.

    Raises ConfigError if it cannot be read, naming file and line where there is one, or if it has no rows.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"limit must be at least 1, got {limit}; leave it out to read every row")
    path = Path(name)
    reader = READERS.get(path.suffix.lower()) if path.is_file() else None
    if reader is None:
        return list(_of_datasets(name, split, limit))
    try:
        rows = list(islice(reader(path), limit))
    except ConfigError:
        raise
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        raise ConfigError(f"cannot read {name}: {reason(error)}") from error
    if not rows:
        raise ConfigError(f"{name} has no rows")
    return rows


def _of_datasets(name: str, split: str, limit: int | None) -> Iterator[RawRow]:
    from rvpo.data.splits import open_split  # datasets is slow to import

    rows, _ = open_split(name, split)
    for number, row in enumerate(islice(rows, limit), 1):
        yield Place(name, number), row


def _of_lines(path: Path) -> Iterator[RawRow]:
    with path.open(encoding="utf-8-sig", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            place = Place(str(path), number, "line")
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise ConfigError(f"{place}, column {error.colno}: not JSON: {error.msg}") from error
            except (ValueError, RecursionError) as error:  # a number of too many digits, too deep
                raise ConfigError(f"{place}: JSON that cannot be read: {reason(error)}") from error
            yield place, _row(row, place)


def _of_json(path: Path) -> Iterator[RawRow]:
    """Read a list of rows; a file that is none may be JSON Lines under another name."""
    with path.open(encoding="utf-8-sig", errors="replace") as stream:
        is_list = stream.read(4096).lstrip().startswith("[")
    if not is_list:
        yield from _of_lines(path)
        return
    for number, row in enumerate(json.loads(path.read_text(encoding="utf-8-sig", errors="replace")), 1):
        place = Place(str(path), number)
        yield place, _row(row, place)


def _of_csv(path: Path) -> Iterator[RawRow]:
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
        for number, cells in enumerate(csv.DictReader(stream), 1):
            place = Place(str(path), number)
            if None in cells:
                raise ConfigError(f"{place}: has more cells than the header has names")
            yield place, {key: _cell(cells[key], key) for key in cells}


def _of_parquet(path: Path) -> Iterator[RawRow]:
    from pyarrow.parquet import ParquetFile  # slow to import

    with ParquetFile(path) as file:
        rows = (row for batch in file.iter_batches(1024) for row in batch.to_pylist())
        for number, row in enumerate(rows, 1):
            yield Place(str(path), number), row


def _cell(text: str | None, key: str) -> Any:
    if not text:
        return None
    if key in JSON_CELLS and text.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(text)
        except (
            ValueError,
            RecursionError,
        ):  # a text that begins with a bracket; where none may stand, the loader says so
            return text
    return text


def _row(row: object, place: Place) -> Mapping[str, Any]:
    if not isinstance(row, dict):
        raise ConfigError(f"{place}: a row must be an object, got {type(row).__name__}")
    return whole(row)  # type: ignore[no-any-return]


READERS = {".jsonl": _of_lines, ".json": _of_json, ".csv": _of_csv, ".parquet": _of_parquet}
