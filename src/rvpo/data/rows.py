"""The canonical row of a rubric data set, what a loader makes of a raw row, and how rows are written.

A loader turns one raw row into a `Draft`; `rvpo.data.load` gives it an id and counts what it lacked.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

from rvpo.errors import ConfigError
from rvpo.files import replaced
from rvpo.judging.criteria import Criterion, Polarity, is_finite_number
from rvpo.llm.json_text import json_text

__all__ = ["Draft", "Message", "Place", "RubricRow", "write_rows"]

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
