"""What of a model's text is its answer: the same for the judge, the rewards and the evaluations."""

import re
from collections import Counter
from collections.abc import Mapping

__all__ = ["TAGS", "answer_start", "counted_answer", "is_cut_in_thought", "without_thoughts"]

TAGS: Mapping[str, str] = {"<think>": "</think>"}
"""What begins and what ends a thought, where nothing else is set. Other models: {"[THINK]": "[/THINK]"} and the like;
without any tag nothing is cut."""


MARKS = frozenset("`\"'")


def without_thoughts(text: str, tags: Mapping[str, str] = TAGS, *, is_opened: bool = False) -> str:
    """Return what follows the last `</think>`, up to a `<think>` that nothing closes, without white space around it.

    A `</think>` ends a thought even if no `<think>` stands before it: many chat templates put that into the prompt.
    With `is_opened` every text begins inside a thought, so that one without a `</think>` was cut and has no answer.

    >>> without_thoughts("<think>Maybe B.</think> A"), without_thoughts("Maybe B.</think> A")
    ('A', 'A')
    >>> without_thoughts("A <think>or B"), without_thoughts("Maybe B.", is_opened=True)
    ('A', '')
    >>> without_thoughts("<think>B</think> `<think>` and '</think>' are tags")
    "`<think>` and '</think>' are tags"
    >>> without_thoughts("[THINK]Maybe B.[/THINK] A", {"[THINK]": "[/THINK]"}), without_thoughts(" A</think>", {})
    ('A', 'A</think>')
    """
    start = answer_start(text, tags)
    if is_opened and tags and start == 0:
        return ""
    openings = [place for opening in tags for place in _places(text, opening, start)]
    return text[start : min(openings, default=len(text))].strip()


def counted_answer(text: str, counts: Counter[str], tags: Mapping[str, str] = TAGS, *, is_opened: bool = False) -> str:
    """Return a text `without_thoughts`; count under "cut" that something was cut, under "ended" that all of it was."""
    answer = without_thoughts(text, tags, is_opened=is_opened)
    if len(answer) < len(text.strip()):
        counts.update(["cut"] if answer else ["cut", "ended"])
    return answer


def answer_start(text: str, tags: Mapping[str, str] = TAGS) -> int:
    """Return where the last thought of a text ends, 0 if none does."""
    return max((place + len(tag) for tag in tags.values() for place in _places(text, tag)), default=0)


def _places(text: str, tag: str, start: int = 0) -> list[int]:
    """Return where a tag stands that is no mention: one between two quotation marks or backticks only names it."""
    spans = [(match.start(), match.end()) for match in re.finditer(re.escape(tag), text) if match.start() >= start]
    return [begin for begin, end in spans if not {text[max(begin - 1, 0) : begin], text[end : end + 1]} <= MARKS]


def is_cut_in_thought(text: str, tags: Mapping[str, str] = TAGS) -> bool:
    """Tell whether a text ends inside a thought, as a reply does that was cut short.

    >>> is_cut_in_thought("<think>A</think> or <think>B"), is_cut_in_thought("<think>A</think> B")
    (True, False)
    """
    start = answer_start(text, tags)
    return any(_places(text, opening, start) for opening in tags)
