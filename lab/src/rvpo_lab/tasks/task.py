"""What a task without downloads consists of; `rvpo_lab.tasks.catalog` lists them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from zlib import crc32

__all__ = ["FULL", "Row", "Task", "axis", "is_held_out", "kind"]

Row = Mapping[str, Any]

FULL = 1.0 - 1e-6
"""From this value on a criterion is fully met; a grade of several parts may round to less than 1."""
HELD_OUT_SHARE = 8


@dataclass(frozen=True)
class Task:
    """Prompts from a seed, a judge for training, an exact grader, and the author whom the policy first imitates."""

    name: str
    summary: str
    """One line for tables."""
    policy: str
    """Name of the warm start; tasks that share it differ in prompts or judge only."""
    tokenizer: Callable[[], Any]
    pairs: Callable[[int, int], list[tuple[str, str]]]
    """(number, seed) -> (prompt, answer) pairs for the warm start, none of them held out."""
    rows: Callable[..., list[dict[str, Any]]]
    """(number, seed, held_out=False) -> rows with `prompt` and what the rewards need."""
    reward_funcs: Sequence[str]
    """The judge of training, as `rvpo train` names rewards."""
    grade: Callable[[Row, str], dict[str, float]]
    """(row, answer) -> criterion -> value in [0, 1], higher is better: exact, whatever the judge of training says."""
    describe: Callable[[str], str]
    """Criterion -> the sentence that a reader sees."""
    max_completion_length: int = 32


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
