"""The 25 checks of IFEval (Zhou et al., arXiv 2311.07911), as its authors define them. Pure functions.

Where the reference is odd, so is this: a keyword counts inside other words, a number in a list ends a sentence, an
answer whose language cannot be told counts as one in the right language. Written from the definitions; two things
differ. The reference splits sentences with nltk's Punkt model, which is a download; `count_sentences` has its rules
without its statistics. And for the one prompt of the benchmark whose "letter" is no letter, the reference draws a
random one; here it is counted as it stands.
"""

import json
import re
from collections.abc import Callable, Mapping
from importlib import import_module

__all__ = ["CHECKS", "LANGUAGE_CHECKS", "RELATIONS", "count_sentences", "loose_variants", "treebank_tokens"]

RELATIONS = ("less than", "at least")
CONSTRAINED = ("My answer is yes.", "My answer is no.", "My answer is maybe.")


def loose_variants(answer: str) -> list[str]:
    """Return what the loose criterion looks at: without first line, last line or both, each without asterisks too."""
    lines = answer.split("\n")
    parts = [answer, *("\n".join(some).strip() for some in (lines[1:], lines[:-1], lines[1:-1]))]
    return [*parts, *(part.replace("*", "") for part in parts)]


def _compares(number: int, relation: str, threshold: int) -> bool:
    return number < threshold if relation == RELATIONS[0] else number >= threshold


def _language(text: str) -> str | None:
    """Return the language of a text by langdetect, None where it finds no features; the same for the same text."""
    langdetect = import_module("langdetect")
    langdetect.DetectorFactory.seed = 0
    try:
        return str(langdetect.detect(text))
    except langdetect.LangDetectException:
        return None


# --- sentences and tokens, as Punkt and the Penn Treebank rules have them

_ABBREVIATIONS = frozenset(
    (
        "mr", "mrs", "ms", "dr", "prof", "rev", "gen", "sen", "rep", "gov", "col", "capt", "lt", "sgt", "st", "jr",
        "sr", "vs", "e.g", "i.e", "u.s", "u.k", "u.n", "a.m", "p.m", "ph.d", "m.d", "d.c", "inc", "ltd", "co", "corp",
        "jan", "feb", "aug", "sept", "oct", "nov", "dec", "ave", "ft",
    )
)  # fmt: skip
_STARTERS = frozenset(
    ("the", "it", "this", "he", "they", "but", "in", "if", "when", "so", "while", "there", "these", "both", "most")
)
"""Words in capitals that begin a sentence even after an abbreviation."""
_BREAK = re.compile(r"(?P<word>\S*)[.?!](?=[?!);}\]*:@({\[\"']|\s)")
_CLOSING = re.compile(r"[\"')\]}]+(?=\s|--|$)|")
_TOKEN_ENDS = re.compile(
    r"\.{2,}|--|[;@#$%&*?!\"()\[\]{}<>\u2014\u201c\u201d\u2019\u201e\u00ab\u00bb`]|[:,](?=\D|$)|\.(?=\s|$)"
    r"|(?i:(?=n't\b)|(?='(?:s|m|d|ll|re|ve)\b)|(?<=\bcan)(?=not\b))"
)


def count_sentences(text: str) -> int:
    """Return the number of sentences: one more than the breaks inside the text.

    A break is a ".", "?" or "!" before white space or other punctuation, unless what follows is closing punctuation
    only. An ellipsis is none; a "." after a number only where a capital follows, one after an abbreviation or a single
    letter only before one of `_STARTERS`.

    >>> count_sentences('He has 3.5 km, e.g. by bus. "Why?" asks Dr. Li'), count_sentences("1. Go\\n2. Stop")
    (3, 3)
    """
    text = text.strip()
    return bool(text) + sum(_is_break(text, match) for match in _BREAK.finditer(text))


def _is_break(text: str, match: re.Match[str]) -> bool:
    closing = _CLOSING.match(text, match.end())
    rest = text[closing.end() if closing else match.end() :].lstrip()
    word = match["word"].lstrip("\"'([{*_").lower()
    if not rest or match[0].endswith(".."):
        return False
    if not match[0].endswith("."):
        return True
    if word in _ABBREVIATIONS or (len(word) == 1 and word.isalpha()):
        return rest[0].isupper() and re.split(r"\W", rest)[0].lower() in _STARTERS
    return rest[0].isupper() or not word.isdecimal()


def treebank_tokens(text: str) -> list[str]:
    """Return the tokens by the Penn Treebank's rules, as far as they matter for telling words in capitals.

    >>> treebank_tokens("DON'T stop: IT'S *GREAT*, X-RAY (at 5:30)...")
    ['DO', "N'T", 'stop', 'IT', "'S", 'GREAT', 'X-RAY', 'at', '5:30']
    """
    return _TOKEN_ENDS.sub(" ", text).split()


# --- the longer checks; the others are in the table


def _keyword_frequency(answer: str, *, keyword: str, frequency: int, relation: str) -> bool:
    number = len(re.findall(re.escape(keyword.strip()), answer, re.IGNORECASE))
    return _compares(number, relation, frequency)


def _number_paragraphs(answer: str, *, num_paragraphs: int) -> bool:
    parts = [part.strip() for part in re.split(r"\s?\*\*\*\s?", answer)]
    return all(parts[1:-1]) and len(list(filter(None, parts))) == num_paragraphs


def _first_word(answer: str, *, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    parts = [part.strip() for part in answer.split("\n\n")]
    number = len(list(filter(None, parts)))
    if nth_paragraph > number or not parts[nth_paragraph - 1]:
        return False
    word = parts[nth_paragraph - 1].split()[0].lstrip("'").lstrip('"')
    return number == num_paragraphs and re.split(r"[.,?!'\"]", word)[0].lower() == first_word.lower()


def _postscript(answer: str, *, postscript_marker: str) -> bool:
    marker = postscript_marker.strip()
    patterns = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}
    return re.search(patterns.get(marker, re.escape(marker.lower())), answer.lower()) is not None


def _bullets(answer: str, *, num_bullets: int) -> bool:
    stars, dashes = (re.findall(form, answer, re.MULTILINE) for form in (r"^\s*\*[^\*].*$", r"^\s*-.*$"))
    return len(stars) + len(dashes) == num_bullets


def _highlights(answer: str, *, num_highlights: int) -> bool:
    single = [part for part in re.findall(r"\*[^\n\*]*\*", answer) if part.strip("*").strip()]
    double = [part for part in re.findall(r"\*\*[^\n\*]*\*\*", answer) if part[2:-2].strip()]
    return len(single) + len(double) >= num_highlights


def _json(answer: str) -> bool:
    text = answer.strip()
    for fence in ("```json", "```Json", "```JSON", "```"):
        text = text.removeprefix(fence)
    try:
        json.loads(text.removesuffix("```").strip())
    except (ValueError, RecursionError):
        return False
    return True


def _two_responses(answer: str) -> bool:
    parts = [part.strip() for part in answer.split("******")]
    given = list(filter(None, parts))
    return all(parts[1:-1]) and len(given) == 2 and given[0] != given[1]


def _quotation(answer: str) -> bool:
    text = answer.strip()
    return len(text) > 1 and text[0] == text[-1] == '"'


CHECKS: Mapping[str, Callable[..., bool]] = {
    "keywords:existence": lambda answer, *, keywords: all(
        re.search(re.escape(word), answer, re.IGNORECASE) for word in keywords
    ),
    "keywords:frequency": _keyword_frequency,
    "keywords:forbidden_words": lambda answer, *, forbidden_words: (
        not any(re.search(rf"\b{re.escape(word)}\b", answer, re.IGNORECASE) for word in forbidden_words)
    ),
    "keywords:letter_frequency": lambda answer, *, letter, let_frequency, let_relation: _compares(
        answer.lower().count(letter.lower()), let_relation, let_frequency
    ),
    "language:response_language": lambda answer, *, language: _language(answer) in (language, None),
    "length_constraints:number_sentences": lambda answer, *, num_sentences, relation: _compares(
        count_sentences(answer), relation, num_sentences
    ),
    "length_constraints:number_paragraphs": _number_paragraphs,
    "length_constraints:number_words": lambda answer, *, num_words, relation: _compares(
        len(re.findall(r"\w+", answer)), relation, num_words
    ),
    "length_constraints:nth_paragraph_first_word": _first_word,
    "detectable_content:number_placeholders": lambda answer, *, num_placeholders: (
        len(re.findall(r"\[.*?\]", answer)) >= num_placeholders
    ),
    "detectable_content:postscript": _postscript,
    "detectable_format:number_bullet_lists": _bullets,
    "detectable_format:constrained_response": lambda answer: any(option in answer for option in CONSTRAINED),
    "detectable_format:number_highlighted_sections": _highlights,
    "detectable_format:multiple_sections": lambda answer, *, section_spliter, num_sections: (
        len(re.findall(rf"{re.escape(section_spliter.strip())}\s?\d+", answer)) >= num_sections
    ),
    "detectable_format:json_format": _json,
    "detectable_format:title": lambda answer: any(
        title.lstrip("<").rstrip(">").strip() for title in re.findall(r"<<[^\n]+>>", answer)
    ),
    "combination:two_responses": _two_responses,
    "combination:repeat_prompt": lambda answer, *, prompt_to_repeat: (
        answer.strip().lower().startswith(prompt_to_repeat.strip().lower())
    ),
    "startend:end_checker": lambda answer, *, end_phrase: (
        answer.strip().strip('"').lower().endswith(end_phrase.strip().lower())
    ),
    "startend:quotation": _quotation,
    "change_case:capital_word_frequency": lambda answer, *, capital_frequency, capital_relation: _compares(
        sum(map(str.isupper, treebank_tokens(answer))), capital_relation, capital_frequency
    ),
    "change_case:english_capital": lambda answer: answer.isupper() and _language(answer) in ("en", None),
    "change_case:english_lowercase": lambda answer: answer.islower() and _language(answer) in ("en", None),
    "punctuation:no_comma": lambda answer: "," not in answer,
}
"""Instruction -> its check, called with an answer that is not blank and the instruction's arguments by name."""
LANGUAGE_CHECKS = ("language:response_language", "change_case:english_capital", "change_case:english_lowercase")
"""Those that need `langdetect`."""
