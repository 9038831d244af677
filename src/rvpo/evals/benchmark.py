"""What a benchmark is: questions, how their answers are scored, and what becomes of the scores."""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rvpo.evals.models import Answer, Prompt, Question
from rvpo.stats import bootstrap_interval

__all__ = [
    "Ask",
    "Benchmark",
    "Record",
    "best_checkpoint",
    "mean_score",
    "per_answer",
    "questions_digest",
    "rank",
    "repeated",
    "summarized",
    "units_of",
    "unknown_record",
]

DRAWS = 1000
"""Bootstrap draws of a summary's intervals, as in HealthBench's own code."""

Record = dict[str, Any]
"""A scored answer: `id`, `unit`, `scores` (name -> number, None for missing), `bounds` (name -> lowest and highest
value of a missing score), `missing` (how many parts were lost that asking again could bring), and the benchmark's own.
"""
Score = Callable[[Question, Answer], Awaitable[Record]]
Ask = Callable[[Question], Awaitable[Answer]]


async def nothing() -> None:
    """Do nothing: most benchmarks hold no connections."""


async def asked_once(question: Question, ask: Ask) -> Answer:
    """Ask the model once: most questions are one prompt."""
    return await ask(question)


@dataclass(frozen=True)
class Benchmark:
    """Questions, how answers are scored, and what becomes of the scores."""

    name: str
    questions: Sequence[Question]
    score: Score
    """A question and its answer, which may be lost -> its record."""
    summarize: Callable[[Sequence[Record]], Mapping[str, Any]]
    """All records -> `headline` (a name in `scores`), `scores` (name -> as `mean_score`), `shown` (names for tables),
    and what else is to be in the summary."""
    item_score: str
    """The name in a record's `scores` that comparisons use."""
    about: Mapping[str, Any]
    """What results depend on beside the questions: judge, prompts, seeds."""
    converse: Callable[[Question, Ask], Awaitable[Answer]] = asked_once
    """A question and what asks the model -> the answer, where a question is more than one prompt."""
    close: Callable[[], Awaitable[None]] = nothing
    """Gives back what the scoring holds on the running loop; called whenever nothing is being scored."""


def units_of(contents: Sequence[object]) -> list[str]:
    """Return a name for each row from what it says (as JSON), so that results pair up on equal rows only.

    Rows that say the same are numbered: two results have the k-th of them in common.
    """
    seen: Counter[str] = Counter()
    names = []
    for content in contents:
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
        seen[digest] += 1
        names.append(digest if seen[digest] == 1 else f"{digest}-{seen[digest]}")
    return names


def repeated(prompts: Mapping[str, Prompt], repeats: int, seed: int) -> list[Question]:
    """Return the questions that ask each prompt, named by its unit, so often."""
    return [Question.of(unit, repeat, prompt, seed) for unit, prompt in prompts.items() for repeat in range(repeats)]


def questions_digest(questions: Sequence[Question]) -> str:
    """Return a hash of all questions: their ids, prompts and seeds, and tools where there are any."""
    contents = [
        [
            question.id,
            question.prompt if isinstance(question.prompt, str) else list(question.prompt),
            question.seed,
            *([list(question.tools)] if question.tools else []),
        ]
        for question in questions
    ]
    return hashlib.sha256(json.dumps(contents).encode()).hexdigest()[:16]


def per_answer(score: Callable[[Question, Answer], Record]) -> Score:
    """Return a benchmark's `score` from a function that waits for nothing."""

    async def score_answer(question: Question, answer: Answer) -> Record:
        return score(question, answer)

    return score_answer


def unknown_record(question: Question, bounds: Mapping[str, tuple[float, float]]) -> Record:
    """Return the record of a lost answer: every score in `bounds` is missing, and lies between its two ends."""
    return {
        "id": question.id,
        "unit": question.unit,
        "scores": dict.fromkeys(bounds),
        "bounds": {name: list(ends) for name, ends in bounds.items()},
        "missing": 1,
    }


def mean_score(records: Sequence[Record], name: str, *, seed: int = 0) -> dict[str, Any]:
    """Return what is known of a score's mean over the records that have it.

    `value` is the mean of those that are not missing (None without any), `items` and `missing` their numbers,
    `interval` the 95 % bootstrap interval of the mean over units (None with a single one), and `bounds` the lowest
    and the highest mean that the missing ones could still produce (None where a missing one has no bounds).
    """
    scored = [record for record in records if name in record["scores"]]
    known = [record for record in scored if record["scores"][name] is not None]
    values = [float(record["scores"][name]) for record in known]
    ends = [record.get("bounds", {}).get(name) for record in scored if record["scores"][name] is None]
    total, is_bounded = math.fsum(values), bool(scored) and None not in ends
    return {
        "value": total / len(values) if values else None,
        "interval": _interval(values, [record["unit"] for record in known], seed),
        "items": len(known),
        "missing": len(ends),
        "bounds": [(total + sum(end[side] for end in ends)) / len(scored) for side in (0, 1)] if is_bounded else None,
    }


def _interval(values: Sequence[float], units: Sequence[str], seed: int) -> list[float] | None:
    if len(set(units)) < 2:
        return None
    blocks = units if len(set(units)) < len(units) else None
    interval = bootstrap_interval(values, seed=seed, draws=DRAWS, blocks=blocks)
    return [interval.low, interval.high]


def summarized(name: str, item_score: str, scores: Mapping[str, Any], records: Sequence[Record]) -> dict[str, Any]:
    """Return the summary of a benchmark's records: its own part, `scores`, and what became of the answers.

    Of a record's answer are read `lost` (why, "" or absent for none), `is_cut` and `tokens`.
    """
    known = [record for record in records if not record.get("lost")]
    lost = Counter(record["lost"] for record in records if record.get("lost"))
    answers = {
        "asked": len(records),
        "units": len({record["unit"] for record in records}),
        "lost": lost.total(),
        "lost_because": dict(sorted(lost.items())),
        "cut_at_max_tokens": sum(bool(record.get("is_cut")) for record in known),
        "mean_tokens": sum(record.get("tokens", 0) for record in known) / len(known) if known else None,
    }
    return {"benchmark": name, "item_score": item_score, "answers": answers, **scores}


def rank(summary: Mapping[str, Any]) -> float | None:
    """Return the headline score of a summary, HealthBench's before clipping; None where it is missing.

    >>> rank({"headline": "score", "scores": {"score": {"value": 0.0, "unclipped": -0.125}}})
    -0.125
    """
    entry = summary["scores"][summary["headline"]]
    value: float | None = entry.get("unclipped", entry["value"])
    return value


def best_checkpoint(summaries: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the summary with the highest headline score, the first of several; the last one if none has a score.

    `summaries` are those of one run's checkpoints on one benchmark, the last step last. The best is chosen by the
    score that is then reported, which flatters every method.
    """
    scored = [summary for summary in summaries if rank(summary) is not None]
    return max(scored, key=lambda summary: rank(summary) or 0.0) if scored else summaries[-1]
