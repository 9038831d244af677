"""IFEval (Zhou et al., arXiv 2311.07911): prompts with one to three instructions that a program can check.

    prompt_strict, prompt_loose            share of the prompts whose instructions are all followed
    instruction_strict, instruction_loose  share of the instructions that are followed, over all prompts
    kind:NAME                              the same for the instructions of one kind, strict

Strict looks at the answer as it is. Loose also takes it without its first line, its last or both, and without its
asterisks: an instruction is followed if any of these follows it. A blank answer follows none. A `<think>` block is
not part of the answer. The rows are the user's own (541 in the original: google/IFEval, Apache-2.0); where the
language must be told, that is `langdetect`'s work.

The 25 checks are as the authors define them. Where the reference is odd, so is this: a keyword counts inside other
words, a number in a list ends a sentence, an answer whose language cannot be told counts as one in the right language.
Written from the definitions; two things differ. The reference splits sentences with nltk's Punkt model, which is a
download; `count_sentences` has its rules without its statistics. And for the one prompt of the benchmark whose
"letter" is no letter, the reference draws a random one; here it is counted as it stands.
"""

import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

from rvpo.data.rows import Place
from rvpo.errors import ConfigError
from rvpo.evals.benchmark import Benchmark, Record, mean_score, repeated, scored, units_of, unknown_record
from rvpo.evals.models import Answer, Question
from rvpo.llm.model_text import without_thoughts

__all__ = [
    "CHECKS",
    "LANGUAGE_CHECKS",
    "RELATIONS",
    "Instructed",
    "build",
    "count_sentences",
    "followed",
    "loose_variants",
    "read_row",
    "record",
    "summarize",
    "treebank_tokens",
]

SCORES = ("prompt_strict", "prompt_loose", "instruction_strict", "instruction_loose")


class Instructed(NamedTuple):
    """A prompt and its instructions."""

    prompt: str
    instructions: Sequence[tuple[str, Mapping[str, Any]]]
    """(name in `CHECKS`, its arguments)."""


def read_row(row: Mapping[str, Any], place: Place) -> Instructed:
    """Return the prompt of a row with its instructions; arguments that are None (as on the hub) are left out.

    Raises ConfigError, with the place, for a row without them, an unknown instruction or wrong arguments.
    """
    prompt = row.get("prompt")
    names, arguments = (list(row.get(name) or ()) for name in ("instruction_id_list", "kwargs"))
    if not isinstance(prompt, str) or not names or len(names) != len(arguments):
        raise ConfigError(
            f"{place}: IFEval needs prompt, a text, and instruction_id_list and kwargs, equally long lists; the "
            f"row has {sorted(map(str, row))}"
        )
    given = [{key: value for key, value in some.items() if value is not None} for some in arguments]
    for name, some in zip(names, given, strict=True):
        if name not in CHECKS:
            raise ConfigError(f"{place}: instruction {name!r} is not one of IFEval's {len(CHECKS)}")
        try:
            inspect.signature(CHECKS[name]).bind("", **some)
        except TypeError as error:
            raise ConfigError(f"{place}: {name} {error}; it is given {some}") from error
        wrong = [value for key, value in some.items() if key.endswith("relation") and value not in RELATIONS]
        if wrong:
            raise ConfigError(f"{place}: {name} has the relation {wrong[0]!r}, not one of {list(RELATIONS)}")
    return Instructed(prompt, list(zip(names, given, strict=True)))


def followed(item: Instructed, answer: str) -> list[tuple[bool, bool]]:
    """Return (strict, loose) of each instruction of an item, for an answer."""
    # Without a thought, blanks at the ends stay: they are part of the first and the last line.
    text = without_thoughts(answer) if "</think>" in answer else answer
    forms = [form for form in loose_variants(text) if form.strip()]
    checks = [(CHECKS[name], arguments) for name, arguments in item.instructions]
    strict = [bool(text.strip()) and check(text, **arguments) for check, arguments in checks]
    loose = [any(check(form, **arguments) for form in forms) for check, arguments in checks]
    return list(zip(strict, loose, strict=True))


def build(rows: Sequence[tuple[Place, Mapping[str, Any]]], *, repeats: int = 1, seed: int = 0) -> Benchmark:
    """Return the benchmark of rows with their places. Raises ConfigError for a row that cannot be used."""
    read = [read_row(row, place) for place, row in rows]
    if any(name in LANGUAGE_CHECKS for item in read for name, _ in item.instructions) and not find_spec("langdetect"):
        raise ConfigError("ifeval tells languages apart with langdetect, not installed here: pip install langdetect")
    items = dict(zip(units_of(read), read, strict=True))
    prompts = {unit: [{"role": "user", "content": item.prompt}] for unit, item in items.items()}
    return Benchmark(
        name="ifeval",
        questions=repeated(prompts, repeats, seed),
        score=lambda question, answer: record(question, items[question.unit], answer),
        summarize=summarize,
        item_score="prompt_strict",
        about={"repeats": repeats, "seed": seed},
    )


def record(question: Question, item: Instructed, answer: Answer) -> Record:
    """Return the record of an answer: the prompt's scores, and `instructions`, [name, strict, loose] of each."""
    names = [name for name, _ in item.instructions]
    if answer.text is None:
        bounds = dict.fromkeys(SCORES[:2], (0.0, 1.0))
        return unknown_record(question, bounds, instructions=[[name, None, None] for name in names])
    pairs = followed(item, answer.text)
    strict, loose = (float(all(verdicts)) for verdicts in zip(*pairs, strict=True))
    instructions = [[name, *map(float, pair)] for name, pair in zip(names, pairs, strict=True)]
    return scored(question, {"prompt_strict": strict, "prompt_loose": loose}, instructions=instructions)


def summarize(records: Sequence[Record]) -> dict[str, Any]:
    """Return the benchmark's part of a summary; see `rvpo.evals.benchmark.Benchmark`.

    Instructions are averaged over all of them; their intervals are over prompts, whose instructions are not
    independent.
    """
    instructions = [
        {
            "unit": record["unit"],
            "scores": {"instruction_strict": strict, "instruction_loose": loose, f"kind:{name}": strict},
            "bounds": dict.fromkeys(("instruction_strict", "instruction_loose", f"kind:{name}"), (0.0, 1.0)),
        }
        for record in records
        for name, strict, loose in record["instructions"]
    ]
    kinds = sorted({name for entry in instructions for name in entry["scores"] if name.startswith("kind:")})
    scores = {
        name: mean_score(records if name.startswith("prompt") else instructions, name) for name in [*SCORES, *kinds]
    }
    return {"headline": "prompt_strict", "shown": list(scores), "scores": scores}


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
