"""From a judge's reply to verdicts: a pure parser that never raises and never invents.

    >>> parse_verdicts('Fine. {"verdicts": [{"id": "1", "reason": "says so", "met": true}]}', ["1", "2"])
    {'1': True, '2': None}

None is "no verdict": the caller asks again or counts it as missing. There is no default verdict.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Any

__all__ = ["Outcome", "parse_rating", "parse_verdicts"]

LONGEST = 100_000
"""Characters at the end of a reply that are looked at; far more than any token limit lets through."""
MOST_BRACES = 512
"""Opening braces at the end of a reply that are tried as the start of the object: bounds the work on any input."""


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


class _Repeated(ValueError):
    """An object names a key twice, so that it says two things."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _Repeated
    return found


DECODER = json.JSONDecoder(object_pairs_hook=_once)


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
        if work > 2 * LONGEST:
            return


def _last_object(text: str, key: str) -> dict[str, Any] | None:
    """Return the last outermost object that has the key; None if braces follow it.

    Braces after it mean that it stood inside something that could not be read, for example a quotation.
    """
    text = text[-LONGEST:].rpartition("</think>")[2]
    if "<think>" in text:
        return None  # the thought was cut off: what stands in it is no reply
    last = None
    for value, end in _objects(text):
        if key in value:
            last = value, end
    if last is None or re.search(r"[{}]", text[last[1] :]):
        return None
    return last[0]


def parse_verdicts(text: object, ids: Sequence[str]) -> dict[str, bool | None]:
    """Read `{"verdicts": [{"id": ..., "reason": ..., "met": true|false}, ...]}` out of a judge's reply.

    The last such JSON object of the text counts; prose, code fences and a `<think>` block around it do not
    matter. A criterion gets None unless the object names its id exactly once, with a boolean `met`. Ids that
    were not asked for are ignored. No input raises, and none takes longer than milliseconds.

    Args:
        text: the reply. Anything but text gives None for all.
        ids: the criteria asked for. Whole numbers in the reply are read as text ("1" and 1 are one id).

    Returns:
        One entry for each of `ids`, in their order: True (met), False (not met) or None (no verdict).
    """
    verdicts: dict[str, bool | None] = dict.fromkeys(ids)
    if not isinstance(text, str):
        return verdicts
    found = _last_object(text, "verdicts")
    listed = found["verdicts"] if found else None
    if not isinstance(listed, list):
        return verdicts
    entries = [(_id(entry), entry.get("met")) for entry in listed if isinstance(entry, dict)]
    times = Counter(name for name, _ in entries)
    for name, met in entries:
        if name in verdicts and times[name] == 1 and isinstance(met, bool):
            verdicts[name] = met
    return verdicts


def _id(entry: dict[str, Any]) -> str | None:
    """Return an entry's id as text; None for what cannot be one."""
    value = entry.get("id")
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value) if abs(value) < 10**9 else None
    return value if isinstance(value, str) else None


def parse_rating(text: object, *, low: int = 1, high: int = 10) -> int | None:
    """Read `{"rating": n}`, a whole number from low to high, out of a judge's reply; None if there is none."""
    found = _last_object(text, "rating") if isinstance(text, str) else None
    rating = found["rating"] if found else None
    if not isinstance(rating, int) or isinstance(rating, bool) or not low <= rating <= high:
        return None
    return rating
