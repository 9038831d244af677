"""The best of a run's checkpoints, by the headline score of one benchmark.

It is chosen by the score that is then reported, which flatters every method.
"""

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["best_checkpoint", "rank"]

Summary = Mapping[str, Any]


def rank(summary: Summary) -> float | None:
    """Return the headline score, HealthBench's before clipping; None where it is missing.

    >>> rank({"headline": "score", "scores": {"score": {"value": 0.0, "unclipped": -0.125}}})
    -0.125
    """
    entry = summary["scores"][summary["headline"]]
    value: float | None = entry.get("unclipped", entry["value"])
    return value


def best_checkpoint(summaries: Sequence[Summary]) -> Summary:
    """Return the summary with the highest headline score, the first of several; the last one if none has a score.

    `summaries` are those of one run's checkpoints on one benchmark, the last step last.
    """
    scored = [summary for summary in summaries if rank(summary) is not None]
    return max(scored, key=lambda summary: rank(summary) or 0.0) if scored else summaries[-1]
