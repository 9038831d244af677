"""What an answer is judged by: criteria and rubrics.

A judge is asked of every criterion whether an answer *meets* it. Whether being met is good is the criterion's
polarity, not its points: data sets put negative points on "recommends a harmful dose" (met is bad) and on
"avoids a harmful dose" (met is good) alike.

A verdict is True (met), False (not met) or None (missing: refused, unreadable, failed). Missing is never filled.
"""

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from numbers import Real
from typing import Any, Literal, TypeAlias, get_args

from rvpo.errors import ConfigError, RewardError, unknown_name

__all__ = ["Criterion", "Polarity", "Rubric", "is_finite_number"]

Polarity: TypeAlias = Literal["positive", "negative"]
"""positive: an answer is better for meeting the criterion; negative: worse."""
POLARITIES: tuple[str, ...] = get_args(Polarity)


@dataclass(frozen=True)
class Criterion:
    """One statement about an answer which a judge finds met or not met.

    Raises ConfigError for an id that is empty or has a "/", a text that is none, points that are not a finite
    number, an unknown polarity, or tags that are not a tuple of non-empty strings. An empty text is possible; it is
    a problem of the rubric (`rvpo.judging.check`).
    """

    id: str
    """Unique inside its rubric. Without "/", which separates tag and id in a channel's name."""
    text: str
    """What the judge is asked about."""
    points: float = 1.0
    """Importance on the scale of the data set; may be 0 or negative. The sign does not decide what is good."""
    polarity: Polarity = "positive"
    """Whether an answer is better ("positive") or worse ("negative") for meeting it."""
    tags: tuple[str, ...] = ()
    """What it is about. The first one is what metrics are kept by."""

    def __post_init__(self) -> None:
        for name in ("id", "text"):
            value: object = getattr(self, name)
            if not isinstance(value, str):
                raise ConfigError(f"{name} of a criterion must be text, got {value!r}")
        if not self.id or "/" in self.id:
            raise ConfigError(f"id of a criterion must be non-empty text without '/', got {self.id!r}; make it a tag")
        if not is_finite_number(self.points):
            raise ConfigError(f"points of criterion {self.id!r} must be a finite number, got {self.points!r}")
        if self.polarity not in POLARITIES:
            raise unknown_name(f"polarity of criterion {self.id!r}", self.polarity, POLARITIES)
        given: object = self.tags
        if not isinstance(given, tuple) or not all(isinstance(tag, str) and tag for tag in given):
            raise ConfigError(f"tags of criterion {self.id!r} must be a tuple of non-empty strings, got {given!r}")

    @property
    def weight(self) -> float:
        """Importance without sign: abs(points)."""
        return abs(self.points)

    @property
    def channel(self) -> str:
        """Name as a reward channel: "TAG/ID" with the first tag, or the id where there is none.

        Metrics are kept per part before the first "/" (`rvpo.rewards.declarations`), so a "/" inside the tag becomes
        "-": otherwise one tag would be counted under the beginning of its name. Unique in a rubric as the id is.
        """
        return f"{self.tags[0].replace('/', '-')}/{self.id}" if self.tags else self.id

    def value(self, met: bool | None) -> float | None:
        """Return the verdict oriented so that higher is better: 1.0 or 0.0, and None for None.

        Raises RewardError for anything else: half a verdict is none.

        >>> Criterion("c1", "recommends a harmful dose", -5, "negative").value(True)
        0.0
        """
        if met is None:
            return None
        if met not in (True, False):
            raise RewardError(f"the verdict on criterion {self.id!r} must be True, False or None, got {met!r}")
        return 1.0 if bool(met) == (self.polarity == "positive") else 0.0

    def to_row(self) -> dict[str, Any]:
        """Return the criterion as JSON has it, every key present (Arrow needs the same keys in every row)."""
        return {
            "id": self.id,
            "text": self.text,
            "points": float(self.points),
            "polarity": self.polarity,
            "tags": list(self.tags),
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "Criterion":
        """Return the criterion of such a dict; an absent or null key has its default.

        Raises ConfigError for an unknown key, an absent id or text, and what the class refuses.
        """
        for key in row:
            if key not in KEYS:
                raise unknown_name("key of a criterion", key, KEYS)
        given = {key: value for key, value in row.items() if value is not None}
        absent = [key for key in ("id", "text") if key not in given]
        if absent:
            raise ConfigError(f"a criterion must have id and text, but {absent} are absent; there is {sorted(given)}")
        if isinstance(given.get("tags"), list):
            given["tags"] = tuple(given["tags"])
        return cls(**given)


KEYS = tuple(field.name for field in fields(Criterion))


def is_finite_number(value: object) -> bool:
    """Return whether a value is an int or a float (not a bool) that a float can hold."""
    try:
        return not isinstance(value, bool) and isinstance(value, Real) and math.isfinite(value)
    except OverflowError:  # an int that is no float
        return False


@dataclass(frozen=True)
class Rubric:
    """The criteria of one prompt, in order. May be empty; then no score is defined.

    Raises ConfigError if two criteria have one id.
    """

    criteria: tuple[Criterion, ...]

    def __post_init__(self) -> None:
        twice = [name for name, count in Counter(criterion.id for criterion in self.criteria).items() if count > 1]
        if twice:
            raise ConfigError(
                f"ids must be unique inside a rubric, but {twice[:5]} occur more than once among "
                f"{len(self.criteria)} criteria; rename them"
            )

    def __len__(self) -> int:
        return len(self.criteria)

    def __iter__(self) -> Iterator[Criterion]:
        return iter(self.criteria)

    @classmethod
    def from_rows(cls, rows: object) -> "Rubric":
        """Return the rubric that a row of a data set holds, in any form that docs/data.md describes.

        A list of criteria, each a text or an object (`criterion_row`); its JSON text; or null, which is no criterion.
        Raises ConfigError, naming the type, for anything else, and for what `Criterion` refuses.

        >>> [criterion.id for criterion in Rubric.from_rows('["Greets.", {"text": "Insults.", "points": -2}]')]
        ['c1', 'c2']
        """
        items = rubric_items(rows)
        return cls(tuple(Criterion.from_row(criterion_row(item, index)) for index, item in enumerate(items)))

    def to_rows(self) -> list[dict[str, Any]]:
        """Return the criteria as dicts; `Rubric.from_rows` is the inverse."""
        return [criterion.to_row() for criterion in self.criteria]


def rubric_items(rows: object) -> list[Any]:
    """Return the criteria of a rubric in one of its forms, unread; ConfigError for what has none of them."""
    is_nan = isinstance(rows, float) and math.isnan(rows)  # what tables make of null
    if rows is None or is_nan or (isinstance(rows, str) and rows.strip() in ("", "null")):
        return []
    read = _json(rows) if isinstance(rows, str) else rows
    read = read.tolist() if hasattr(read, "tolist") else read
    if isinstance(read, list | tuple):
        return list(read)
    kind = "text that is no JSON list" if isinstance(rows, str) else type(read).__name__
    raise ConfigError(
        "a rubric must be a list of criteria, each a text or an object, or the JSON text of one, or null; "
        f"got {kind}: {str(rows)[:40]!r}"
    )


def criterion_row(item: object, index: int) -> dict[str, Any]:
    """Return a rubric's criterion as `Criterion.from_row` reads it, with what may be left out.

    A text is a criterion of one point, unless it is the JSON text of an object. Without an id it has its number: c1,
    c2; without a polarity, negative points mean that being met is bad. Raises ConfigError for another type.
    """
    read = _json(item) if isinstance(item, str) and item.lstrip().startswith("{") else item
    given = read if isinstance(read, Mapping) else {"text": item}
    if not isinstance(item, str | Mapping):
        raise ConfigError(f"criterion {index + 1} of a rubric must be a text or an object, got {type(item).__name__}")
    row = dict(given)
    if row.get("id") is None:
        row["id"] = f"c{index + 1}"
    if row.get("polarity") is None and is_finite_number(row.get("points")) and row["points"] < 0:
        row["polarity"] = "negative"
    return row


def _json(text: str) -> object:
    """Return what a JSON text says, None for another text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
