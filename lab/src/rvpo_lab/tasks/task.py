"""What a task without downloads consists of; `rvpo_lab.tasks.catalog` lists them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from zlib import crc32

__all__ = ["FULL", "GradedTask", "Row", "Task", "axis", "is_held_out", "kind"]

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
