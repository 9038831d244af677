"""Text of a model: out of a completion, the answer in it without its thoughts, and as JSON that any file takes.

The judge, the rewards and the evaluations read it alike.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = [
    "TAGS",
    "Completion",
    "answer_start",
    "completion_text",
    "counted_answer",
    "is_cut_in_thought",
    "json_text",
    "whole",
    "without_thoughts",
]

Completion = str | Sequence[Mapping[str, object]]
"""A text, or chat messages."""


def completion_text(completion: object, index: int) -> str:
    """Return the text of a batch's `index`-th completion: itself, or the last assistant message's; "" without one.

    Raises TypeError for what is neither text nor a list of messages.
    """
    if isinstance(completion, str):
        return completion
    if not isinstance(completion, Sequence) or not all(isinstance(message, Mapping) for message in completion):
        raise TypeError(
            f"completions[{index}] must be a str or a list of message dicts, got {type(completion).__name__}"
        )
    contents = [message.get("content") for message in completion if message.get("role") == "assistant"]
    return _content_text(contents[-1]) if contents else ""


def _content_text(content: object) -> str:
    """Return the text of a message content: text, a list of typed parts, or nothing."""
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence):
        return ""
    texts = [part.get("text") for part in content if isinstance(part, Mapping) and part.get("type") == "text"]
    return "".join(text for text in texts if isinstance(text, str))


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


STRICT, LENIENT = (json.JSONEncoder(ensure_ascii=False, allow_nan=allowed) for allowed in (False, True))


def whole(value: Any) -> Any:
    r"""Return a value with every text in it such that any file, database and server takes it.

    Half of a surrogate pair, which a model can produce and UTF-8 cannot carry, and NUL become the replacement
    character; two halves that belong together become their character. Lists and mappings are copied.

    >>> whole({"text": ["ok \ud83d", "\ud83d\ude00", 1]}) == {"text": ["ok \ufffd", "\U0001f600", 1]}
    True
    """
    if isinstance(value, str):
        if not value.isascii():
            value = value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return value.replace("\0", "\N{REPLACEMENT CHARACTER}")
    if isinstance(value, Mapping):
        return {whole(key): whole(part) for key, part in value.items()}
    return [whole(part) for part in value] if isinstance(value, list | tuple) else value


def json_text(value: object, *, allow_nan: bool = False) -> str:
    r"""Return a value as JSON on one line, in which every character that UTF-8 can carry stands for itself.

    Half of a surrogate pair, which a model can produce and UTF-8 cannot carry, becomes JSON's own escape: reading the
    JSON gives the same text back. Raises ValueError for NaN and infinities, which JSON does not have, unless they are
    allowed.

    >>> json_text({"text": "caf\u00e9 \ud83d"})
    '{"text": "café \\ud83d"}'
    """
    text = (LENIENT if allow_nan else STRICT).encode(value)
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()
