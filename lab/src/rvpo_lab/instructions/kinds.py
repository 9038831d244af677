"""The kinds of verifiable instructions: how each is worded, what its arguments are drawn from, when it is met.

Every checker is exact and pure: it looks at the answer's text alone, by one definition of words, sentences, lines and
paragraphs for all. Kinds that a careful reader could not meet together, or whose counts would be ambiguous together,
are in `EXCLUDED` and never share a prompt; those that merely pull in different directions (few words and many bullet
points, no commas and a long text) do. Nothing here was chosen by looking at a method's results.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

__all__ = [
    "KINDS",
    "Arguments",
    "Kind",
    "capital_words",
    "compatible",
    "count_word",
    "paragraphs",
    "sentences",
    "stripped",
    "words",
]

MARKUP = " \t\r\n\"'\u201c\u201d\u2018\u2019*_`"
"""What may stand around the first and the last words of an answer without being part of it."""

ABBREVIATIONS = frozenset(
    ("mr.", "mrs.", "ms.", "dr.", "prof.", "st.", "no.", "vs.", "e.g.", "i.e.", "a.m.", "p.m.", "p.s.", "u.s.", "u.k.")
)
_PIECE = re.compile(r"\S+")
_END = re.compile(r"[.!?\u2026][.!?\u2026\"'\u201d\u2019)\]*_]*$")
_LIST_NUMBER = re.compile(r"\d+\.")


def words(text: str) -> list[str]:
    """Return what stands between blanks and holds a letter or a digit: "well-known", "3.5", but not "-" or "***"."""
    return [piece for piece in text.split() if any(map(str.isalnum, piece))]


def count_word(text: str, word: str) -> int:
    """Return how often a word occurs as a whole, in small letters or capitals; "rain's" has "rain", "rainy" not."""
    return [piece.casefold() for piece in re.findall(r"[^\W_]+", text)].count(word.casefold())


def capital_words(text: str) -> int:
    """Return the number of words of two or more letters, all of them capitals: "VERY", not "I", "A" or "USb"."""
    return sum(len(piece) > 1 and piece.isalpha() and piece.isupper() for piece in re.findall(r"[^\W_]+", text))


def paragraphs(text: str) -> list[str]:
    """Return what stands between blank lines and holds a word."""
    return [part for part in re.split(r"\n[^\S\n]*(?:\n[^\S\n]*)+", text) if words(part)]


def sentences(text: str) -> int:
    """Return the number of sentences.

    A sentence ends with a word that ends with ".", "!", "?" or "…" (closing quotes, brackets and markup may follow).
    A number that begins a line ("1.") and `ABBREVIATIONS` end none. What is left after the last one is a sentence of
    its own if it holds a word; a new line alone ends none.

    >>> sentences("It is 3.5 km. Dr. Li knows... Why? because"), sentences("1. Go\\n2. Stop")
    (4, 1)
    """
    number, is_open = 0, False
    for piece in _PIECE.finditer(text):
        is_open = is_open or any(map(str.isalnum, piece[0]))
        begins_line = not text[text.rfind("\n", 0, piece.start()) + 1 : piece.start()].strip()
        ends = _END.search(piece[0]) and piece[0].strip(MARKUP + "(").lower() not in ABBREVIATIONS
        if is_open and ends and not (begins_line and _LIST_NUMBER.fullmatch(piece[0])):
            number, is_open = number + 1, False
    return number + is_open


def stripped(text: str) -> str:
    """Return a text without the quotes, markup and blanks around it."""
    return text.strip(MARKUP)


Arguments = Mapping[str, Any]


@dataclass(frozen=True)
class Kind:
    """A kind of instruction; called with (answer, arguments) it tells whether the answer meets it."""

    summary: str
    """For tables."""
    wordings: tuple[str, ...]
    """How a user says it; arguments in braces."""
    check: Callable[[str, Arguments], bool]
    """(answer, arguments) -> met; the answer is not blank."""
    choices: Mapping[str, Sequence[Any]]
    """Argument -> the values it is drawn from. `TOPIC_WORDS` stands for the words of the prompt's topic."""

    def __call__(self, answer: str, arguments: Arguments) -> bool:
        """Tell whether an answer meets the instruction; a blank one meets none."""
        return bool(answer.strip()) and self.check(answer, arguments)


TOPIC_WORDS = ("word of the topic",)

_BULLET = re.compile(r"^[^\S\n]*[-*+•][^\S\n]+.*[^\W_]", re.MULTILINE)
_TITLE = re.compile(r"<<[^<>\n]*[^\W_][^<>\n]*>>")
_POSTSCRIPT = re.compile(r"^[\s*_\"“]*P\.[^\S\n]?S\.[\s*_:]*[^\W_]", re.MULTILINE)
_SEPARATOR = re.compile(r"^[^\S\n]*\*\*\*[^\S\n]*$", re.MULTILINE)
_HIGHLIGHT = re.compile(r"(?<![\w*])(\*{1,2})(?![\s*])[^*\n]*?[^\W_][^*\n]*?(?<!\s)\1(?![\w*])")
_PLACEHOLDER = re.compile(r"\[[^\[\]\n]*[^\W_][^\[\]\n]*\]")
_FENCED = re.compile(r"```(?:json)?[^\S\n]*\n(.*)\n[^\S\n]*```", re.DOTALL)


def _begins(answer: str, word: str) -> bool:
    first = re.match(r"[^\W_]+", stripped(answer))
    return first is not None and first[0].casefold() == word.casefold()


def _ends(answer: str, phrase: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(phrase)}$", stripped(answer)) is not None


def _ends_with_postscript(answer: str) -> bool:
    parts = paragraphs(answer)
    return _POSTSCRIPT.search(parts[-1]) is not None if parts else False


def _is_quoted(answer: str) -> bool:
    text = answer.strip()
    return len(text) > 2 and text[0] in '"“' and text[-1] in '"”' and bool(words(text))


def _has_two_parts(answer: str) -> bool:
    parts = [part.strip() for part in _SEPARATOR.split(answer)]
    return len(parts) == 2 and all(map(words, parts)) and parts[0] != parts[1]


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _is_object(answer: str, keys: Sequence[str]) -> bool:
    text = answer.strip()
    fenced = _FENCED.fullmatch(text)
    try:
        value = json.loads(fenced[1] if fenced else text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and set(value) == set(keys)


KINDS: Mapping[str, Kind] = {
    "short": Kind(
        "at most n words",
        ("Use at most {number} words.", "Keep it to {number} words or fewer."),
        lambda answer, given: len(words(answer)) <= given["number"],
        {"number": (25, 30, 40, 50)},
    ),
    "long": Kind(
        "at least n words",
        ("Use at least {number} words.", "It should have {number} words or more."),
        lambda answer, given: len(words(answer)) >= given["number"],
        {"number": (40, 50, 60)},
    ),
    "sentences": Kind(
        "exactly n sentences",
        ("Write exactly {number} sentences.", "It must have exactly {number} sentences."),
        lambda answer, given: sentences(answer) == given["number"],
        {"number": (3, 4, 5)},
    ),
    "bullets": Kind(
        "exactly n bullet points",
        ("Include exactly {number} bullet points.", "Use exactly {number} bullet points, each on a line of its own."),
        lambda answer, given: len(_BULLET.findall(answer)) == given["number"],
        {"number": (2, 3, 4)},
    ),
    "paragraphs": Kind(
        "exactly n paragraphs",
        ("Write exactly {number} paragraphs with a blank line between them.",),
        lambda answer, given: len(paragraphs(answer)) == given["number"],
        {"number": (2, 3)},
    ),
    "begin": Kind(
        "begins with a word",
        ('Begin with the word "{word}".', 'The first word must be "{word}".'),
        lambda answer, given: _begins(answer, given["word"]),
        {"word": ("Well", "Today", "Imagine", "Honestly", "Sometimes", "Look")},
    ),
    "keyword": Kind(
        "uses a word",
        ('Use the word "{word}".', 'Include the word "{word}".'),
        lambda answer, given: count_word(answer, given["word"]) >= 1,
        {"word": TOPIC_WORDS},
    ),
    "twice": Kind(
        "uses a word exactly twice",
        ('Use the word "{word}" exactly twice.', 'The word "{word}" should appear exactly two times.'),
        lambda answer, given: count_word(answer, given["word"]) == 2,
        {"word": TOPIC_WORDS},
    ),
    "forbidden": Kind(
        "avoids a word",
        ('Do not use the word "{word}".', 'Avoid the word "{word}".'),
        lambda answer, given: count_word(answer, given["word"]) == 0,
        {"word": ("and", "with", "can", "you", "your", "will", "are", "it")},
    ),
    "lowercase": Kind(
        "small letters only",
        ("Write everything in lowercase letters.", "Do not use any capital letters."),
        lambda answer, given: not any(map(str.isupper, answer)),
        {},
    ),
    "capitals": Kind(
        "at least n words in capitals",
        ("Write {number} or more words in all capital letters.",),
        lambda answer, given: capital_words(answer) >= given["number"],
        {"number": (1, 2, 3)},
    ),
    "no_comma": Kind(
        "no commas",
        ("Do not use any commas.", "Write without commas."),
        lambda answer, given: "," not in answer,
        {},
    ),
    "no_exclamation": Kind(
        "no exclamation marks",
        ("Do not use exclamation marks.", "Avoid exclamation marks."),
        lambda answer, given: "!" not in answer,
        {},
    ),
    "number": Kind(
        "a number in digits",
        ("Mention at least one number in digits.", "Include a number, written in digits."),
        lambda answer, given: any(map(str.isdecimal, answer)),
        {},
    ),
    "question": Kind(
        "ends with a question",
        ("End with a question.", "The last sentence must be a question."),
        lambda answer, given: stripped(answer).endswith("?"),
        {},
    ),
    "end_phrase": Kind(
        "ends with a phrase",
        ('End with exactly this phrase: "{phrase}"', 'Finish with the words "{phrase}" and nothing after them.'),
        lambda answer, given: _ends(answer, given["phrase"]),
        {"phrase": ("Hope this helps.", "That is all for now.", "Thanks for reading.", "The end.")},
    ),
    "postscript": Kind(
        "ends with a postscript",
        ('Add a postscript at the end that starts with "P.S."', 'Close with a postscript beginning with "P.S."'),
        lambda answer, given: _ends_with_postscript(answer),
        {},
    ),
    "title": Kind(
        "a title in double angle brackets",
        ("Give it a title in double angle brackets, such as <<title>>.",),
        lambda answer, given: _TITLE.search(answer) is not None,
        {},
    ),
    "highlight": Kind(
        "at least n parts between asterisks",
        ("Highlight {number} or more parts with asterisks, like *this*.",),
        lambda answer, given: sum(1 for _ in _HIGHLIGHT.finditer(answer)) >= given["number"],
        {"number": (1, 2, 3)},
    ),
    "placeholders": Kind(
        "at least n placeholders in square brackets",
        ("Use {number} or more placeholders in square brackets, such as [name].",),
        lambda answer, given: len(_PLACEHOLDER.findall(answer)) >= given["number"],
        {"number": (1, 2, 3)},
    ),
    "quotation": Kind(
        "all of it in double quotation marks",
        ("Wrap your whole answer in double quotation marks.",),
        lambda answer, given: _is_quoted(answer),
        {},
    ),
    "parts": Kind(
        "two versions with a separator",
        ("Give two different versions, separated by a line with only ***.",),
        lambda answer, given: _has_two_parts(answer),
        {},
    ),
    "json": Kind(
        "a JSON object with two keys",
        ('Answer only with a JSON object that has the keys "{keys[0]}" and "{keys[1]}".',),
        lambda answer, given: _is_object(answer, given["keys"]),
        {"keys": (("title", "text"), ("name", "text"), ("topic", "summary"))},
    ),
}
"""Every kind by its name, which is the name of its channel."""

_ALONE = (
    "sentences", "bullets", "paragraphs", "begin", "no_comma", "question", "end_phrase", "postscript", "title",
    "highlight", "placeholders", "quotation", "parts",
)  # fmt: skip
EXCLUDED = frozenset(
    frozenset(pair)
    for pair in (
        *(("json", name) for name in _ALONE),  # an object has no lines or ends of its own, and its keys need a comma
        ("short", "long"),
        *combinations(("question", "end_phrase", "postscript"), 2),  # each is to be the end
        *combinations(("lowercase", "capitals"), 2),
        *(("lowercase", name) for name in ("begin", "end_phrase", "postscript")),  # they are given with capitals
        ("begin", "title"),  # each is to come first
        *(("sentences", name) for name in ("bullets", "postscript", "parts")),  # what counts as a sentence there?
        *(("paragraphs", name) for name in ("bullets", "title", "postscript", "parts")),  # or as a paragraph?
    )
)
"""Pairs of kinds that never share a prompt."""


def compatible(first: str, second: str) -> bool:
    """Tell whether two kinds can share a prompt."""
    return frozenset((first, second)) not in EXCLUDED
