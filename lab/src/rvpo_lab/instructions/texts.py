"""What words, sentences, lines and paragraphs of an answer are: one definition for all checkers."""

import re

__all__ = ["capital_words", "count_word", "paragraphs", "sentences", "stripped", "words"]

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
