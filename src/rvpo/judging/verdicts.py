"""From a judge's reply to verdicts: a pure parser that never raises and never invents.

    >>> parse_verdicts('Fine. {"verdicts": [{"id": "1", "reason": "says so", "met": true}]}', ["1", "2"])
    {'1': Vote(met=True, reason='says so'), '2': None}

None is "no verdict": the caller asks again or counts it as missing. There is no default verdict.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from rvpo.llm.thoughts import is_cut_in_thought, without_thoughts

__all__ = [
    "HIGHEST_RATING",
    "LOWEST_RATING",
    "Outcome",
    "Vote",
    "Votes",
    "parse_rating",
    "parse_verdicts",
    "read_votes",
]

LONGEST = 100_000
"""Characters at the end of a reply that are looked at; far more than any token limit lets through."""
MOST_BRACES = 512
"""Opening braces at the end of a reply that are tried as the start of the object: bounds the work on any input."""
MOST_WORK = 2 * LONGEST
"""Characters that are read in vain before the rest of a reply is given up."""
LARGEST_ID = 10**9 - 1
"""Whole numbers up to it are read as ids."""
LOWEST_RATING, HIGHEST_RATING = 1, 10


class Outcome(StrEnum):
    """What became of one criterion of one answer."""

    MET = "met"
    UNMET = "unmet"
    UNPARSED = "unparsed"
    """Every reply was unreadable, or had no verdict for this criterion."""
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


Votes = Sequence[Vote | None]
"""One vote for each criterion of a call, None where the reply has none."""


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object's pairs as a dict; ValueError if it names a key twice, so that it says two things."""
    entries = dict(pairs)
    if len(entries) < len(pairs):
        raise ValueError("a key stands twice")
    return entries


DECODER = json.JSONDecoder(object_pairs_hook=_unambiguous)


def _objects(text: str) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield every outermost JSON object in a text that contains other things as well, with its end.

    Ends early where a text nests without end or would be read again and again: nothing honest does.
    """
    starts = [match.start() for match in re.finditer(r"\{", text)][-MOST_BRACES:]
    end, work = 0, 0
    for start in starts:
        if start < end:
            continue  # inside an object that was read
        try:
            value, end = DECODER.raw_decode(text, start)
        except json.JSONDecodeError as error:
            work += error.pos - start
        except RecursionError:
            return
        except ValueError:  # a key twice, or a number beyond what Python reads
            work += len(text) - start
        else:
            yield value, end
        if work > MOST_WORK:
            return


def _last_object(text: str, key: str) -> dict[str, Any] | None:
    """Return the last outermost object that has the key; None if braces follow it.

    Braces after it mean that it stood inside something that could not be read, for example a quotation.
    """
    text = text[-LONGEST:]
    if is_cut_in_thought(text):
        return None  # what the judge would have settled on is not there
    text = without_thoughts(text)
    last = None
    for value, end in _objects(text):
        if key in value:
            last = value, end
    if last is None or re.search(r"[{}]", text[last[1] :]):
        return None
    return last[0]


def parse_verdicts(text: object, ids: Sequence[str]) -> dict[str, Vote | None]:
    """Read `{"verdicts": [{"id": ..., "reason": ..., "met": true|false}, ...]}` out of a judge's reply.

    The last such JSON object of the text counts; prose, code fences and a `<think>` block around it do not
    matter. A criterion gets None unless the object names its id exactly once, with a boolean `met`. Ids that
    were not asked for are ignored. No input raises, and none takes longer than milliseconds.

    Args:
        text: the reply. Anything but text gives None for all.
        ids: the criteria asked for. Whole numbers in the reply are read as text ("1" and 1 are one id).

    Returns:
        One entry for each of `ids`, in their order: the vote, or None (no verdict).
    """
    verdicts: dict[str, Vote | None] = dict.fromkeys(ids)
    last = _last_object(text, "verdicts") if isinstance(text, str) else None
    listed = last["verdicts"] if last else None
    if not isinstance(listed, list):
        return verdicts
    entries = [(_id(entry), entry) for entry in listed if isinstance(entry, dict)]
    times = Counter(name for name, _ in entries)
    for name, entry in entries:
        met, reason = entry.get("met"), entry.get("reason")
        if name in verdicts and times[name] == 1 and isinstance(met, bool):
            verdicts[name] = Vote(met, reason if isinstance(reason, str) and reason else None)
    return verdicts


def read_votes(text: str, ids: Sequence[str]) -> Votes | None:
    """Return a reply's vote on each of the criteria asked for, in their order; None if it has none at all."""
    votes = list(parse_verdicts(text, ids).values())
    return votes if any(vote is not None for vote in votes) else None


def _id(entry: dict[str, Any]) -> str | None:
    """Return an entry's id as text; None for what cannot be one."""
    value = entry.get("id")
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value) if abs(value) <= LARGEST_ID else None
    return value if isinstance(value, str) else None


def parse_rating(text: object) -> int | None:
    """Read `{"rating": n}`, a whole number from 1 to 10, out of a judge's reply; None if there is none."""
    last = _last_object(text, "rating") if isinstance(text, str) else None
    rating = last["rating"] if last else None
    if not isinstance(rating, int) or isinstance(rating, bool) or not LOWEST_RATING <= rating <= HIGHEST_RATING:
        return None
    return rating
