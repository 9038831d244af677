r"""From a judge's reply to verdicts: a pure parser that never raises and never invents.

    >>> parse_verdicts('Fine. {"verdicts": [{"id": "1", "reason": "says so", "met": true}]}', ["1", "2"])
    {'1': Vote(met=True, reason='says so'), '2': None}

None is "no verdict": the caller asks again or counts it as missing. There is no default verdict.

A reply holds objects among other text: JSON, or JSON that a model broke. Nothing is completed or guessed. What models
break: lone backslashes (`\(K_\alpha\)`), quotation marks and line breaks inside a reason, a comma too many, single
quotation marks, none around keys, the end. json-repair (0.64) reads most of this but invents as well: it takes a
verdict that a reason quotes for the entry's own, keeps the last value of a key that stands twice and closes an entry
that was cut; partial-json-parser (0.2) reads `tru` as true. Here an entry is whole or is none.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from rvpo.llm.model_text import TAGS, answer_start, is_cut_in_thought

__all__ = [
    "HIGHEST_RATING",
    "LOWEST_RATING",
    "RATING_FORMAT",
    "VERDICTS_FORMAT",
    "Outcome",
    "ReplyObject",
    "Vote",
    "Votes",
    "broken_entries",
    "broken_rating",
    "parse_rating",
    "parse_verdicts",
    "read_votes",
    "reply_objects",
]

LONGEST = 100_000
"""Characters at the end of a reply that are looked at; far more than any token limit lets through."""
MOST_BRACES = 512
"""Opening braces at the end of a reply that are tried as the start of the object: bounds the work on any input."""
MOST_WORK = 2 * LONGEST
"""Characters that are read in vain before the rest of a reply is given up."""

KEY = r"(?:[{,\n]\s*+|[\"']\s++)([\"'])%s\1\s*+:\s*+"
KEYS = "id|reason|met|criterion|explanation|rationale|analysis|evidence|quote"
"""Keys that an entry begins with, the judge's own additions among them."""
ENTRY_START = rf"\{{\s*+[\"'](?:{KEYS})[\"']\s*+:"
ID, MET, RATING, REASON = (re.compile(KEY % name) for name in ("id", "met", "rating", "reason"))
ID_VALUE = re.compile(r"(?:\"([^\"\\]*+)\"|'([^'\\]*+)'|(\d{1,9}))\s*+[,}\"']")
MET_VALUE = re.compile(r"(true|false|True|False|TRUE|FALSE)\s*+[,}\"']")
RATING_VALUE = re.compile(r"(\d{1,9})\s*+,?\s*+\}")
REASON_VALUE = re.compile(r"([\"'])(.*?)\1\s*+(?:,?\s*+[\"'](?:id|met)[\"']\s*+:|,?\s*+\}\Z)", re.DOTALL)
BEFORE = r"(?:\s*+[\"']\w{1,20}+[\"']\s*+:[^{}]{0,2000}?,)"
BETWEEN = r"(?:[\s,;]|//[^\n]{0,200}+\n|/\*[^*]{0,200}+\*/)*+"
"""Stands between entries: a comma or several, comments."""
BROKEN = {
    "verdicts": re.compile(rf"\{{{BEFORE}?\s*+([\"'])verdicts\1\s*+:\s*+\[{BETWEEN}(?={ENTRY_START})"),
    "rating": re.compile(r"(?=\{\s*+[\"'](?:reason|rating)[\"']\s*+:)"),
}
"""How an object of each key begins, where it is no JSON."""
VALUE_END = r"(?:true|false|True|False|TRUE|FALSE|null|[\"']\s*+:\s*+-?+[\d.]++|[\"'])\s*+(?:,\s*+)?+"
CUT_START = r"(?:\{\s*+(?:[\"']\w{0,20}+[\"']?+\s*+)?+)?+\Z"
ENTRY_END = re.compile(rf"{VALUE_END}\}}(?=\s*+(?:{BETWEEN}(?:{ENTRY_START}|\]|{CUT_START})|\}}?+\s*+(?:```|\Z)))")
LIST_END = re.compile(rf"{BETWEEN}\]\s*+\}}?")
NEXT_ENTRY = re.compile(rf"{BETWEEN}(?={ENTRY_START})")
BARE_VALUE = r"(?:\"(?:[^\"\\]|\\.)*+\"|'(?:[^'\\]|\\.)*+'|\d[\w.-]*+|(?:null|None|[tT]rue|[fF]alse|TRUE|FALSE)\b)"
BARE_KEY = r"(?:\"\w{1,20}+\"|'\w{1,20}+'|\w{1,20}+)\s*+:\s*+"
BARE_ENTRY = re.compile(rf"\s*+\{{((?:\s*+{BARE_KEY}{BARE_VALUE}\s*+(?:,|(?=\}})))++)\s*+\}}", re.DOTALL)
BARE_PAIR = re.compile(rf"\s*+[\"']?+(\w++)[\"']?+\s*+:\s*+({BARE_VALUE})\s*+,?+", re.DOTALL)
BARE_BEFORE = rf"(?:\s*+{BARE_KEY}[\"'][^\"'\\]{{0,2000}}+[\"']\s*+,)?+"
BARE_START = re.compile(rf"\{{{BARE_BEFORE}\s*+[\"']?+verdicts[\"']?+\s*+:\s*+\[{BETWEEN}")
BARE_NEXT = re.compile(rf"{BETWEEN}(?=\{{|\]|\Z)")
"""Objects whose keys have no quotation marks: read only where every text in an entry is closed and nothing is left
over, because a key inside a reason could not be told from one of the entry's own."""
ESCAPED = re.compile(r"\{\s*+(?:\\\"|[\u201c\u201d])")
STRAIGHT = str.maketrans({"\N{LEFT DOUBLE QUOTATION MARK}": '"', "\N{RIGHT DOUBLE QUOTATION MARK}": '"'})
"""An object written inside a text of JSON, or with a typesetter's quotation marks."""


class ReplyObject(NamedTuple):
    """An object of a reply."""

    value: dict[str, Any] | None
    """What it says; None where it is no JSON."""
    text: str
    start: int
    end: int


def reply_objects(text: object, key: str, tags: Mapping[str, str] = TAGS) -> list[ReplyObject]:
    """Return the outermost objects of a reply that have a key ("verdicts" or "rating"), in order.

    Those inside thoughts do not count, and none does in a reply that ends inside a thought: what the judge would have
    settled on is not there. A tag inside an object is part of what the object says.
    """
    if not isinstance(text, str):
        return []
    text = text[-LONGEST:]
    answer = text[answer_start(text, tags) :]
    objects = list(_objects(answer, key))
    if not objects and ESCAPED.search(answer):
        answer = answer.replace('\\"', '"').translate(STRAIGHT)
        objects = list(_objects(answer, key))
    if not objects and len(answer) < len(text):  # the last tag may stand inside a reason
        answer, objects = text, list(_objects(text, key))
    around = list(answer)
    for part in objects:
        around[part.start : part.end] = " " * (part.end - part.start)
    prose = "".join(around)
    if is_cut_in_thought(prose, tags):
        return []
    begin = answer_start(prose, tags)
    return [part for part in objects if part.start >= begin]


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object's pairs as a dict; ValueError if it names a key twice, so that it says two things."""
    entries = dict(pairs)
    if len(entries) < len(pairs):
        raise ValueError("a key stands twice")
    return entries


DECODER = json.JSONDecoder(object_pairs_hook=_unambiguous, strict=False)


def _objects(text: str, key: str) -> Iterator[ReplyObject]:
    """Yield every outermost object that has the key.

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
            if key in value:
                yield ReplyObject(value, text[start:end], start, end)
            continue
        if work > MOST_WORK:
            return
        finish = _broken_end(text, key, start) if BROKEN[key].match(text, start) else _bare_end(text, key, start)
        if finish is not None:
            end = finish
            yield ReplyObject(None, text[start:finish], start, finish)


def _broken_end(text: str, key: str, start: int) -> int:
    """Return where an object ends that is no JSON; the end of the text where that cannot be told."""
    for entry in ENTRY_END.finditer(text, start) if key == "verdicts" else ():
        if not NEXT_ENTRY.match(text, entry.end()):
            finish = LIST_END.match(text, entry.end())
            return finish.end() if finish else entry.end()
    return len(text)


def _bare_end(text: str, key: str, start: int) -> int | None:
    """Return where an object with bare keys ends; None if it has no whole entry or not the key."""
    if key == "rating":
        entry = BARE_ENTRY.match(text, start)
        return entry.end() if entry and any(name == key for name, _ in BARE_PAIR.findall(entry[1])) else None
    entries = _bare_entries(text, start)
    if not entries:
        return None
    finish = LIST_END.match(text, entries[-1].end())
    return finish.end() if finish else len(text)


def _bare_entries(text: str, start: int = 0) -> list[re.Match[str]]:
    """Return the whole entries of an object with bare keys, up to the first that is not whole."""
    head = BARE_START.match(text, start)
    place, entries = head.end() if head else len(text), []
    while (entry := BARE_ENTRY.match(text, place)) and (after := BARE_NEXT.match(text, entry.end())):
        entries.append(entry)
        place = after.end()
    return entries


def _bare_verdicts(text: str) -> list[tuple[str, bool, str]]:
    """Return what `broken_entries` does, of an object with bare keys."""
    entries = []
    for entry in _bare_entries(text):
        pairs = [(name, value.strip("\"'") if name != "met" else value) for name, value in BARE_PAIR.findall(entry[1])]
        ids, met, reasons = ([value for name, value in pairs if name == key] for key in ("id", "met", "reason"))
        if len(ids) == len(met) == 1 and MET_VALUE.match(f"{met[0]},"):
            entries.append((ids[0], met[0].lower() == "true", reasons[0] if len(reasons) == 1 else ""))
        elif len(ids) > 1 or len(met) > 1:
            entries += [(name, False, "") for name in ids for _ in range(2)]
    return entries


def broken_entries(text: str) -> list[tuple[str, bool, str]]:
    """Return id, met and reason of the whole entries of a broken object; of one that is unclear its ids, twice."""
    head = BROKEN["verdicts"].match(text)
    if head is None:
        return _bare_verdicts(text)
    start, entries = head.end(), []
    for match in ENTRY_END.finditer(text, start):
        entry, start = text[start : match.end()].lstrip(", \t\r\n"), match.end()
        ids = [ID_VALUE.match(entry, key.end()) for key in ID.finditer(entry)]
        met = [MET_VALUE.match(entry, key.end()) for key in MET.finditer(entry)]
        names = [name[1] or name[2] or name[3] or "" for name in ids if name]
        if len(ids) == len(met) == len(names) == 1 and met[0]:
            entries.append((names[0], met[0][1].lower() == "true", _reason(entry)))
        elif len(ids) > 1 or len(met) > 1:
            entries += [(name, False, "") for name in names for _ in range(2)]
        if not NEXT_ENTRY.match(text, start):
            break
    return entries or _bare_verdicts(text)


def _reason(entry: str) -> str:
    """Return the reason of a broken entry as it is written, "" if it has none that can be told apart."""
    keys = list(REASON.finditer(entry))
    value = REASON_VALUE.match(entry, keys[0].end()) if len(keys) == 1 else None
    return value[2].replace('\\"', '"') if value else ""


def broken_rating(text: str) -> int | None:
    """Return the rating of a broken object, None unless it has exactly one."""
    keys = list(RATING.finditer(text))
    entry = BARE_ENTRY.match(text) if not keys else None
    if entry:
        ratings = [value for name, value in BARE_PAIR.findall(entry[1]) if name == "rating"]
        return int(ratings[0]) if len(ratings) == 1 and re.fullmatch(r"\d{1,9}", ratings[0], re.ASCII) else None
    value = RATING_VALUE.match(text, keys[0].end()) if len(keys) == 1 else None
    return int(value[1]) if value else None


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
