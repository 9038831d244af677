"""From a judge's reply to verdicts: a pure parser that never raises and never invents.

    >>> parse_verdicts('Fine. {"verdicts": [{"id": "1", "reason": "says so", "met": true}]}', ["1", "2"])
    {'1': Vote(met=True, reason='says so'), '2': None}

None is "no verdict": the caller asks again or counts it as missing. There is no default verdict.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from rvpo.judging.reply_objects import ReplyObject, broken_entries, broken_rating, reply_objects
from rvpo.llm.thoughts import TAGS

__all__ = [
    "HIGHEST_RATING",
    "LOWEST_RATING",
    "RATING_FORMAT",
    "VERDICTS_FORMAT",
    "Outcome",
    "Vote",
    "Votes",
    "parse_rating",
    "parse_verdicts",
    "read_votes",
]

LARGEST_ID = 10**9 - 1
"""Whole numbers up to it are read as ids."""
LOWEST_RATING, HIGHEST_RATING = 1, 10


class Outcome(StrEnum):
    """What became of one criterion of one answer."""

    MET = "met"
    UNMET = "unmet"
    UNPARSED = "unparsed"
    """Every reply was unreadable, or had no verdict for this criterion."""
    CUT = "cut"
    """Every reply ended at max_tokens before this criterion's verdict."""
    REFUSED = "refused"
    """The judge, or a filter before it, would not answer."""
    FAILED = "failed"
    """No reply within the retry budget."""
    SKIPPED = "skipped"
    """The answer is empty: unmet without a call, whatever the criterion."""


class Vote(NamedTuple):
    """What one reply says of one criterion."""

    met: bool
    reason: str | None = None
    """In the judge's words; None if it gave none."""


def _schema(name: str, properties: dict[str, Any]) -> dict[str, Any]:
    """Return a response_format for an object of these properties, which are all required."""
    return {"type": "json_schema", "json_schema": {"name": name, "strict": True, "schema": _object(properties)}}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


ENTRY = _object({"id": {"type": "string"}, "reason": {"type": "string"}, "met": {"type": "boolean"}})
VERDICTS_FORMAT = _schema("verdicts", {"verdicts": {"type": "array", "items": ENTRY}})
RATING_FORMAT = _schema("rating", {"reason": {"type": "string"}, "rating": {"type": "integer"}})
"""What a server is told of the form of a reply, where it takes a schema."""

Votes = Sequence[Vote | None]
"""One vote for each criterion of a call, None where the reply has none."""


def parse_verdicts(text: object, ids: Sequence[str], tags: Mapping[str, str] = TAGS) -> dict[str, Vote | None]:
    """Read `{"verdicts": [{"id": ..., "reason": ..., "met": true|false}, ...]}` out of a judge's reply.

    Prose, braces, tags, code fences and thoughts around such objects do not matter, and several are read together.
    An object that is no JSON is read entry by entry as far as it goes: an entry counts that names one id and one
    `met` and is whole, whatever its reason holds. A criterion gets None unless every object that names it does so
    once, with a boolean `met`, and all agree: two that contradict each other are no verdict. Ids that were not asked
    for are ignored. No input raises, and none takes longer than milliseconds.

    Args:
        text: the reply. Anything but text gives None for all.
        ids: the criteria asked for. Whole numbers in the reply are read as text ("1" and 1 are one id).
        tags: what begins and what ends a thought of the judge.

    Returns:
        One entry for each of `ids`, in their order: the vote, or None (no verdict).
    """
    votes: dict[str, list[Vote]] = {name: [] for name in ids}
    unclear: set[str | None] = set()
    for part in reply_objects(text, "verdicts", tags):
        entries = _entries(part)
        times = Counter(name for name, _ in entries)
        unclear |= {name for name, count in times.items() if count > 1}
        for name, vote in entries:
            if name in votes and vote is not None:
                votes[name].append(vote)
    return {name: _agreed(of_id) if name not in unclear else None for name, of_id in votes.items()}


def _agreed(votes: Sequence[Vote]) -> Vote | None:
    """Return the last vote if all say the same, None otherwise and for no vote."""
    return votes[-1] if len({vote.met for vote in votes}) == 1 else None


def _entries(part: ReplyObject) -> list[tuple[str | None, Vote | None]]:
    """Return id and vote of an object's entries; None for an id or a vote that cannot be one."""
    if part.value is None:
        return [(name, Vote(met, reason or None)) for name, met, reason in broken_entries(part.text)]
    listed = part.value["verdicts"]
    entries = [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    return [(_id(entry), _vote(entry)) for entry in entries]


def _vote(entry: Mapping[str, Any]) -> Vote | None:
    met, reason = entry.get("met"), entry.get("reason")
    return Vote(met, reason if isinstance(reason, str) and reason else None) if isinstance(met, bool) else None


def _id(entry: Mapping[str, Any]) -> str | None:
    """Return an entry's id as text; None for what cannot be one."""
    value = entry.get("id")
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value) if abs(value) <= LARGEST_ID else None
    return value if isinstance(value, str) else None


def read_votes(text: str, ids: Sequence[str], tags: Mapping[str, str] = TAGS) -> Votes | None:
    """Return a reply's vote on each of the criteria asked for, in their order; None if it has none at all."""
    votes = list(parse_verdicts(text, ids, tags).values())
    return votes if any(vote is not None for vote in votes) else None


def parse_rating(text: object, tags: Mapping[str, str] = TAGS) -> int | None:
    """Read `{"rating": n}`, a whole number from 1 to 10, out of a judge's reply.

    None if there is none, or several that differ.
    """
    objects = reply_objects(text, "rating", tags)
    ratings: list[Any] = [broken_rating(part.text) if part.value is None else part.value["rating"] for part in objects]
    if not ratings or any(type(rating) is not int for rating in ratings) or len(set(ratings)) > 1:
        return None
    return ratings[0] if LOWEST_RATING <= ratings[0] <= HIGHEST_RATING else None
