"""What a benchmark is: questions, how their answers are scored, and what becomes of the scores."""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rvpo.evals.models import Answer, Prompt, Question
from rvpo.stats import bootstrap_interval, bootstrap_ratio

__all__ = [
    "Ask",
    "Benchmark",
    "Record",
    "best_checkpoint",
    "mean_score",
    "questions_digest",
    "rank",
    "repeated",
    "scored",
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
Score = Callable[[Question, Answer], Record | Awaitable[Record]]
Ask = Callable[[Question], Awaitable[Answer]]


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
    converse: Callable[[Question, Ask], Awaitable[Answer]] | None = None
    """A question and what asks the model -> the answer, where a question is more than one prompt."""
    close: Callable[[], Awaitable[None]] | None = None
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
    """Return a hash of all questions: their ids, prompts, seeds and tools."""
    return hashlib.sha256(json.dumps([asdict(question) for question in questions]).encode()).hexdigest()[:16]


def scored(
    question: Question, scores: Mapping[str, float | None], bounds: Mapping[str, Any] | None = None, **own: Any
) -> Record:
    """Return the record of an answer that came back; `own` is what the benchmark adds."""
    identity = {"id": question.id, "unit": question.unit}
    return {**identity, "scores": dict(scores), "bounds": dict(bounds or {}), "missing": 0, **own}


def unknown_record(question: Question, bounds: Mapping[str, tuple[float, float]], **own: Any) -> Record:
    """Return the record of a lost answer: every score in `bounds` is missing, and lies between its two ends."""
    ends = {name: list(pair) for name, pair in bounds.items()}
    return scored(question, dict.fromkeys(bounds), ends, **own) | {"missing": 1}


def mean_score(records: Sequence[Record], name: str, *, seed: int = 0) -> dict[str, Any]:
    """Return what is known of a score's mean over the records that have it.

    `value` is the mean of those that are not missing (None without any), `items` and `missing` their numbers,
    `interval` the 95 % bootstrap interval of the mean over units (None with a single one), and `bounds` the lowest
    and the highest mean that the missing ones could still produce (None where a missing one has no bounds).
    """
    relevant = [record for record in records if name in record["scores"]]
    known = [record for record in relevant if record["scores"][name] is not None]
    values = [float(record["scores"][name]) for record in known]
    ends = [record.get("bounds", {}).get(name) for record in relevant if record["scores"][name] is None]
    total, is_bounded = math.fsum(values), bool(relevant) and None not in ends
    return {
        "value": total / len(values) if values else None,
        "interval": _interval(values, [record["unit"] for record in known], seed),
        "items": len(known),
        "missing": len(ends),
        "bounds": [(total + sum(end[side] for end in ends)) / len(relevant) for side in (0, 1)]
        if is_bounded
        else None,
    }


def _interval(values: Sequence[float], units: Sequence[str], seed: int) -> list[float] | None:
    """Return the interval of the mean of all values, over draws of whole units, which may differ in their numbers."""
    counts = Counter(units)
    if len(counts) < 2:
        return None
    if len(counts) == len(units):
        interval = bootstrap_interval(values, seed=seed, draws=DRAWS)
        return [interval.low, interval.high]
    sums = dict.fromkeys(counts, 0.0)
    for unit, value in zip(units, values, strict=True):
        sums[unit] += value
    ratio = bootstrap_ratio(list(sums.values()), list(counts.values()), seed=seed, draws=DRAWS)
    return [ratio.low, ratio.high]


def summarized(name: str, item_score: str, scores: Mapping[str, Any], records: Sequence[Record]) -> dict[str, Any]:
    """Return the summary of a benchmark's records: its own part, `scores`, and what became of the answers.

    Of a record's answer are read `lost` (why, "" or absent for none) and `is_cut`.
    """
    lost = Counter(record["lost"] for record in records if record.get("lost"))
    answers = {
        "asked": len(records),
        "lost": lost.total(),
        "lost_because": dict(sorted(lost.items())),
        "cut_at_max_tokens": sum(bool(record.get("is_cut")) for record in records if not record.get("lost")),
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
    known = [summary for summary in summaries if rank(summary) is not None]
    return max(known, key=lambda summary: rank(summary) or 0.0) if known else summaries[-1]
