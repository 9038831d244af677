"""What a task without downloads consists of, and a task as a benchmark: held-out prompts, graded exactly.

`rvpo_lab.tasks.catalog` lists the tasks. The scores of a benchmark:

    prompt_mean    mean over prompts of the mean value of a prompt's criteria, in [0, 1]
    channel_mean   mean over channels of their means over all prompts (`mean` of the suite's tables)
    lowest         mean of the lowest third of the channels
    neglected      share of channels with a mean below 0.3; less is better
    all_met        share of prompts all of whose criteria have their full value
    channel:NAME   mean of one channel over all criteria of that kind

A channel is a kind of criterion, such as "accuracy/dose". Definitions as in `rvpo_lab.suite.results`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from zlib import crc32

from rvpo.evals.benchmark import Benchmark, Record, mean_score, repeated, scored, units_of, unknown_record
from rvpo.evals.models import Answer, Question
from rvpo.stats import NEGLECTED, lowest_third

__all__ = [
    "FULL",
    "PROMPTS",
    "GradedTask",
    "Row",
    "Task",
    "axis",
    "build",
    "is_held_out",
    "kind",
    "record",
    "summarize",
]

Row = Mapping[str, Any]

FULL = 1.0 - 1e-6
"""From this value on a criterion is fully met; a grade of several parts may round to less than 1."""
HELD_OUT_SHARE = 8


@dataclass(frozen=True, kw_only=True)
class GradedTask:
    """Prompts from a seed and an exact grader."""

    name: str
    summary: str
    """One line for tables."""
    rows: Callable[..., list[dict[str, Any]]]
    """(number, seed, held_out=False) -> rows with `prompt` and what the rewards need."""
    grade: Callable[[Row, str], dict[str, float]]
    """(row, answer) -> criterion -> value in [0, 1], higher is better: exact, whatever the judge of training says."""
    max_completion_length: int = 32


@dataclass(frozen=True, kw_only=True)
class Task(GradedTask):
    """A graded task with a judge for training and the author whom the policy first imitates."""

    policy: str
    """Name of the warm start; tasks that share it differ in prompts or judge only."""
    tokenizer: Callable[[], Any]
    pairs: Callable[[int, int], list[tuple[str, str]]]
    """(number, seed) -> (prompt, answer) pairs for the warm start, none of them held out."""
    reward_funcs: Sequence[str]
    """The judge of training, as `rvpo train` names rewards."""
    describe: Callable[[str], str]
    """Criterion -> the sentence that a reader sees."""


@lru_cache(4096)
def kind(criterion: str) -> str:
    """Return what a criterion is a case of: "accuracy/cause:fever" is an "accuracy/cause"."""
    return criterion.split(":", 1)[0]


@lru_cache(4096)
def axis(criterion: str) -> str:
    """Return the axis of a criterion: "accuracy/cause:fever" belongs to "accuracy"."""
    return criterion.split("/", 1)[0]


def is_held_out(prompt: str) -> bool:
    """Tell whether a prompt is kept for evaluation: one in eight, by a checksum of its text alone.

    So training and held-out prompts differ whatever their seeds and numbers are.
    """
    return crc32(prompt.encode()) % HELD_OUT_SHARE == 0


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
