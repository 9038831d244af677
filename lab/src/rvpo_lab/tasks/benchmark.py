"""The laboratory's tasks as benchmarks: held-out prompts, graded exactly, nothing downloaded.

    prompt_mean    mean over prompts of the mean value of a prompt's criteria, in [0, 1]
    channel_mean   mean over channels of their means over all prompts (`mean` of the suite's tables)
    lowest         mean of the lowest third of the channels
    neglected      share of channels with a mean below 0.3; less is better
    all_met        share of prompts all of whose criteria have their full value
    channel:NAME   mean of one channel over all criteria of that kind

A channel is a kind of criterion, such as "accuracy/dose". Definitions as in `rvpo_lab.suite.results`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from rvpo.evals.benchmark import Benchmark, Record, mean_score, repeated, scored, units_of, unknown_record
from rvpo.evals.models import Answer, Question
from rvpo.stats import NEGLECTED, lowest_third
from rvpo_lab.tasks.task import FULL, GradedTask, Row, kind

__all__ = ["PROMPTS", "build", "record", "summarize"]

PROMPTS = 128
"""Held-out prompts where no other number is asked for, as in the suite."""
CHANNEL = "channel:"


def build(task: GradedTask, *, number: int = PROMPTS, repeats: int = 1, seed: int = 0) -> Benchmark:
    """Return a task as a benchmark of `number` held-out prompts, drawn, as the answers are, by the seed."""
    drawn = task.rows(number, seed, held_out=True)
    rows = dict(zip(units_of(drawn), drawn, strict=True))
    return Benchmark(
        name=task.name,
        questions=repeated({unit: row["prompt"] for unit, row in rows.items()}, repeats, seed),
        score=lambda question, answer: record(question, task, rows[question.unit], answer),
        summarize=summarize,
        item_score="prompt_mean",
        about={"repeats": repeats, "seed": seed},
    )


def record(question: Question, task: GradedTask, row: Row, answer: Answer) -> Record:
    """Return the record of an answer: `values` by criterion, their mean, whether all are met, and channel by channel.

    Of a lost answer everything is missing.
    """
    graded = task.grade(row, answer.text or "")
    by_channel: dict[str, list[float]] = {}
    for criterion, value in graded.items():
        by_channel.setdefault(f"{CHANNEL}{kind(criterion)}", []).append(value)
    if answer.text is None:
        names = ["prompt_mean", "all_met", *by_channel]
        return unknown_record(question, dict.fromkeys(names, (0.0, 1.0)), values=dict.fromkeys(graded))
    scores = {
        "prompt_mean": sum(graded.values()) / len(graded),
        "all_met": float(min(graded.values()) >= FULL),
        **{name: sum(values) / len(values) for name, values in by_channel.items()},
    }
    return scored(question, scores, values=graded)


def summarize(records: Sequence[Record]) -> dict[str, Any]:
    """Return the benchmark's part of a summary; see `rvpo.evals.benchmark.Benchmark`.

    A score made from channels has neither interval nor bounds, and is None while a channel has no value at all.
    """
    channels = _channels(records)
    means = [channel["value"] for channel in channels.values() if channel["value"] is not None]
    is_whole = 0 < len(means) == len(channels)
    scores: dict[str, Mapping[str, Any]] = {
        "prompt_mean": mean_score(records, "prompt_mean"),
        "channel_mean": _made(sum(means) / len(means) if is_whole else None, len(means)),
        "lowest": _made(lowest_third(means) if is_whole else None, len(means)),
        "neglected": _made(sum(mean < NEGLECTED for mean in means) / len(means) if is_whole else None, len(means)),
        "all_met": mean_score(records, "all_met"),
        **channels,
    }
    return {"headline": "prompt_mean", "shown": list(scores), "scores": scores}


def _channels(records: Sequence[Record]) -> dict[str, dict[str, Any]]:
    """Return the mean of each channel; every criterion of the kind counts once, as in the suite."""
    values = [
        {"unit": answer["unit"], "scores": {name: value}, "bounds": {name: [0.0, 1.0]}}
        for answer in records
        for criterion, value in answer["values"].items()
        for name in (f"{CHANNEL}{kind(criterion)}",)
    ]
    names = sorted({name for scored in values for name in scored["scores"]})
    return {name: mean_score(values, name) for name in names}


def _made(value: float | None, channels: int) -> dict[str, Any]:
    return {"value": value, "interval": None, "items": channels, "missing": 0, "bounds": None}
