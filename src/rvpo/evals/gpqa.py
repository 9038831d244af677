"""GPQA (Rein et al., arXiv 2311.12022): multiple choice from the user's own CSV, shuffled, parsed, with an interval.

The authors ask that no question is published, so none is here, and a results folder holds hashes in the place of
questions. (It does hold what the model said, which may repeat one: keep it to yourself.)

    accuracy            correct / answers; an answer without a readable letter is wrong, as published, and a lost
                        answer is missing
    accuracy_of_parsed  correct / answers with a readable letter

The interval is Wilson's, with the number of questions as n, however often each is asked: repeats of a question are
not independent, and how many questions there are is what limits what 198 of them can tell.
"""

import hashlib
import math
import random
import re
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

from rvpo.data.rows import Place
from rvpo.errors import ConfigError
from rvpo.evals.benchmark import Benchmark, Record, mean_score, scored, unknown_record
from rvpo.evals.models import Answer, Question
from rvpo.llm.model_text import without_thoughts

__all__ = ["Choice", "apart_note", "build", "choices", "parse_letter", "record", "summarize", "wilson", "with_wilson"]

LETTERS = "ABCD"
COLUMNS = ("Question", "Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")
DOMAIN = "High-level domain"
INSTRUCTION = (
    "Choose the one correct answer to the question below. You may reason first. The last line of your reply must be "
    '"Answer: X", where X is one of the letters A, B, C and D.'
)
TEMPLATE = INSTRUCTION + "\n\nQUESTION\n\nA) ...\nB) ...\nC) ...\nD) ..."
"""What its hash in the summary is made of."""

# A capital, or a small letter that ends its phrase ("\\boxed{b}"): in "the answer is a protein" there is no letter.
_LETTER = r"(?P<letter>[A-D](?![A-Za-z0-9'])|[a-d](?=[\s$]*(?:[)}\].,;]|$)))"
_OPENED = r"(?:\$|\\\(|\\(?:boxed|fbox)|\\(?:text|math)(?:bf|rm|it|sf|tt)?|[({\[\s])*"
_CHOSEN = [
    re.compile(
        rf"(?:\b(?i:answer)\b(?i:\s+is)?\s*[:=]?\s*{_OPENED}|<(?i:answer)>\s*{_OPENED}"
        r"|\\(?:boxed|fbox)\s*\{\s*(?:\\(?:text|math)(?:bf|rm|it|sf|tt)?\s*\{\s*)?\(?(?=[A-Da-d]\s*[}).,:]))"
        rf"{_LETTER}",
        re.MULTILINE,
    ),
    re.compile(rf"\b(?i:choice|option)\b(?i:\s+is)?\s*[:=]?\s*{_OPENED}{_LETTER}", re.MULTILINE),
]
"""What a reply settles on: "Answer: B", "the answer is (B)", a box, `<answer>B`; only without any, "option B"."""
_MORE = re.compile(rf"[)}}\]\s$]*(?:,|/|\bor\b|\band\b|&){_OPENED}{_LETTER}", re.MULTILINE)
_ALONE = re.compile(r"(?:\$|\\(?:boxed|fbox)|[({\[\s])*([A-D])(?:[)}\].$\s]*|[).:]\s.*)")


class Choice(NamedTuple):
    """A question with its options in the order in which they are shown."""

    unit: str
    """Hash of the question's text."""
    text: str
    options: tuple[str, ...]
    correct: frozenset[str]
    """The letters of the correct option; more than one if its text stands there twice."""
    domain: str | None


def choices(row: Mapping[str, Any], place: Place, *, repeats: int, seed: int) -> list[Choice]:
    """Return the question of a CSV row with its options shuffled, once for each repeat.

    The order depends on seed, question and repeat alone. Raises ConfigError if one of `COLUMNS` is absent or empty;
    the message repeats no text of the row.
    """
    cells = {name: str(row.get(name) or "").strip() for name in COLUMNS}
    empty = [name for name, text in cells.items() if not text]
    if empty:
        raise ConfigError(f"{place}: GPQA needs {', '.join(COLUMNS)}; {', '.join(empty)} is absent or empty")
    text, *options = cells.values()
    unit = hashlib.sha256(text.encode()).hexdigest()[:16]
    shuffled = []
    for repeat in range(repeats):
        order = random.Random(f"gpqa {seed} {unit} {repeat}").sample(range(len(options)), len(options))
        shown = tuple(options[place] for place in order)
        correct = frozenset(letter for letter, option in zip(LETTERS, shown, strict=True) if option == options[0])
        shuffled.append(Choice(unit, text, shown, correct, str(row.get(DOMAIN) or "").strip() or None))
    return shuffled


def prompt(choice: Choice) -> list[dict[str, str]]:
    """Return the chat messages that ask a question."""
    listed = "\n".join(f"{letter}) {option}" for letter, option in zip(LETTERS, choice.options, strict=True))
    return [{"role": "user", "content": f"{INSTRUCTION}\n\n{choice.text}\n\n{listed}"}]


def parse_letter(text: str) -> str | None:
    r"""Return the letter that a reply settles on, None if it names none or several at once.

    The last "Answer: X", "the answer is X", `\boxed{X}` or `<answer>X` counts, in brackets or bold as well; without,
    the last "option X"; without that, a last line that is a letter alone or begins with one, as "C) 12". A thought is
    not read.

    >>> parse_letter("It could be A.\nAnswer: **C**"), parse_letter("The answer is \\boxed{b}."), parse_letter("(D)")
    ('C', 'B', 'D')
    >>> parse_letter("The answer is C, because option A is wrong"), parse_letter("I take option B")
    ('C', 'B')
    >>> parse_letter("Answer: A or B"), parse_letter("The answer is a protein"), parse_letter("Answer: Both")
    (None, None, None)
    """
    plain = without_thoughts(text).replace("*", "").replace("`", "").replace('"', "")
    for pattern in _CHOSEN:
        matches = list(pattern.finditer(plain))
        if matches:
            last = matches[-1]
            return None if _MORE.match(plain, last.end()) else last["letter"].upper()
    lines = plain.splitlines()
    alone = _ALONE.fullmatch(lines[-1]) if lines else None
    return alone[1] if alone else None


def build(rows: Sequence[tuple[Place, Mapping[str, Any]]], *, repeats: int = 1, seed: int = 0) -> Benchmark:
    """Return the benchmark of CSV rows with their places. Raises ConfigError for a row that cannot be used."""
    shown: dict[str, Choice] = {}
    questions = []
    for place, row in rows:
        for repeat, choice in enumerate(choices(row, place, repeats=repeats, seed=seed)):
            question = Question.of(choice.unit, repeat, prompt(choice), seed)
            if question.id in shown:
                raise ConfigError(f"{place}: the question occurs a second time; every question counts once")
            shown[question.id] = choice
            questions.append(question)

    return Benchmark(
        name="gpqa",
        questions=questions,
        score=lambda question, answer: record(question, shown[question.id], answer),
        summarize=summarize,
        item_score="accuracy",
        about={
            "repeats": repeats,
            "seed": seed,
            "prompts": {"question": hashlib.sha256(TEMPLATE.encode()).hexdigest()[:16]},
        },
    )


def record(question: Question, choice: Choice, answer: Answer) -> Record:
    """Return the record of an answer: 1 or 0, and None as `accuracy_of_parsed` where no letter can be read."""
    names = ["accuracy", *([f"domain:{choice.domain}"] if choice.domain else [])]
    if answer.text is None:
        return unknown_record(question, dict.fromkeys([*names, "accuracy_of_parsed"], (0.0, 1.0)), letter=None)
    letter = parse_letter(answer.text)
    correct = float(letter in choice.correct)
    scores = dict.fromkeys(names, correct) | {"accuracy_of_parsed": None if letter is None else correct}
    bounds = {"accuracy_of_parsed": [0.0, 1.0]} if letter is None else {}
    return scored(question, scores, bounds, letter=letter)


def summarize(records: Sequence[Record]) -> dict[str, Any]:
    """Return the benchmark's part of a summary; see `rvpo.evals.benchmark.Benchmark`. `unparsed` counts answers."""
    names = ["accuracy", "accuracy_of_parsed", *sorted({name for record in records for name in record["scores"]})]
    scores = {name: with_wilson(records, name) for name in dict.fromkeys(names)}
    return {
        "headline": "accuracy",
        "shown": list(scores),
        "scores": scores,
        "unparsed": sum(record["letter"] is None and not record["missing"] for record in records),
    }


def with_wilson(records: Sequence[Record], name: str) -> dict[str, Any]:
    """Return what `mean_score` says of a share, with Wilson's interval, n the number of questions."""
    mean = mean_score(records, name)
    units = {record["unit"] for record in records if record["scores"].get(name) is not None}
    return mean | {"interval": list(wilson(mean["value"], len(units))) if units else None}


def wilson(share: float, number: int, *, level: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval of a probability, from the share of `number` independent trials.

    `(p + z^2/2n +- z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)`, z the normal quantile (Wilson 1927). Stays in [0, 1],
    and is not a point for a share of 0 or 1. Raises ConfigError for a share outside [0, 1] or no trial.

    >>> [round(end, 3) for end in wilson(0.5, 198)]
    [0.431, 0.569]
    """
    if not 0 <= share <= 1 or number < 1:
        raise ConfigError(f"an interval needs a share in [0, 1] of at least one trial, got {share!r} of {number}")
    z = NormalDist().inv_cdf((1 + level) / 2)
    middle, scale = share + z * z / (2 * number), 1 + z * z / number
    spread = z * math.sqrt(share * (1 - share) / number + (z / (2 * number)) ** 2)
    return max((middle - spread) / scale, 0.0), min((middle + spread) / scale, 1.0)


def apart_note(name: str, baseline: str, scores: Mapping[str, Mapping[str, Any]]) -> str:
    """Return in words whether two accuracies (entries of a summary) differ by more than the interval of one.

    Read it beside the paired test, which is sharper: this is what the paper's tables can be held against.
    """
    accuracies, ends = [scores[model]["value"] for model in (name, baseline)], scores[baseline]["interval"]
    if None in accuracies or ends is None:
        return f"{name} against {baseline}: no difference can be given, for want of answers"
    gap, half = 100 * abs(accuracies[0] - accuracies[1]), 50 * (ends[1] - ends[0])
    than = "more than" if gap > half else "not more than"
    return f"{name} against {baseline}: {gap:.1f} points apart, {than} the +-{half:.1f} of one accuracy (Wilson)"
