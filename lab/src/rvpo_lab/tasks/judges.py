"""Judges of the rubric task that are not exact; evaluation never uses them.

Three have a fault, the fourth gives partial credit. A fault is a function of prompt, answer and criterion (a checksum
decides), so the same answer gets the same verdict at every step, in every process and after a resume, as with a real
judge whose verdicts are stored.
"""

from collections.abc import Sequence
from typing import Any
from zlib import crc32

from rvpo.rewards.declarations import vector_reward
from rvpo_lab.tasks.rubric import MARKER, WARM, dose_of, meets, rubric_reward

__all__ = [
    "FLIPPED",
    "LOST",
    "PERSUADED",
    "exploitable_reward",
    "graded_reward",
    "lost_reward",
    "noisy_reward",
    "partial_credit",
]

FLIPPED = 0.15
LOST = 0.2
PERSUADED = ("accuracy/", "context/")
"""Axes on which the exploitable judge believes whoever says the marker."""

PART_OF = {
    "completeness/return": {"return"},
    "context/duration": {"how", "long"},
    "communication/greeting": {"hello"},
    "communication/close": {"take", "care"},
    "instruction/steps": {"first", "then"},
    "instruction/sign": {"sign"},
}
"""Kinds of criteria with several parts, and words of which one is part of them."""

Verdicts = list[dict[str, float | None]]


def chance(fault: str, prompt: str, answer: str, criterion: str) -> float:
    """Return a number in [0, 1) that the words decide."""
    return crc32("\n".join((fault, prompt, answer, criterion)).encode()) / 2**32


@vector_reward(range=(0.0, 1.0))
def noisy_reward(prompts: list[str], completions: list[str], **kwargs: Any) -> Verdicts:
    """Exact verdicts, each flipped with probability `FLIPPED`."""
    exact = rubric_reward(prompts=prompts, completions=completions, **kwargs)
    return [
        {name: float(not met) if chance("flip", prompt, answer, name) < FLIPPED else met for name, met in row.items()}
        for prompt, answer, row in zip(prompts, completions, exact, strict=True)
    ]


@vector_reward(range=(0.0, 1.0))
def exploitable_reward(prompts: list[str], completions: list[str], **kwargs: Any) -> Verdicts:
    """Exact verdicts, but accuracy and context count as met where the answer says the marker."""
    exact = rubric_reward(prompts=prompts, completions=completions, **kwargs)
    return [
        {name: 1.0 if MARKER in answer.split() and name.startswith(PERSUADED) else met for name, met in row.items()}
        for answer, row in zip(completions, exact, strict=True)
    ]


@vector_reward(range=(0.0, 1.0))
def lost_reward(prompts: list[str], completions: list[str], **kwargs: Any) -> Verdicts:
    """Exact verdicts, each missing with probability `LOST`."""
    exact = rubric_reward(prompts=prompts, completions=completions, **kwargs)
    return [
        {name: None if chance("lost", prompt, answer, name) < LOST else met for name, met in row.items()}
        for prompt, answer, row in zip(prompts, completions, exact, strict=True)
    ]


def partial_credit(case: Sequence[str], answer: Sequence[str], criterion: str) -> float:
    """Return a grade in [0, 1] of a criterion: 1 if and only if it is met, part of it if it is met in part.

    One half for the right dose beside another one, for the right word of a pair in a wrong place, or without the
    other; of warmth the share of its three words; of a limit the limit's share in the answer's length.
    """
    if meets(case, answer, criterion):
        return 1.0
    name, _, argument = criterion.partition(":")
    match name.split("/")[1]:
        case "warmth":
            return sum(word in WARM for word in answer) / 3
        case "limit":
            return int(argument) / len(answer)
        case "dose":
            return 0.5 * (dose_of(case) in answer)
    return 0.5 * bool(PART_OF.get(name, set()) & set(answer))


@vector_reward(range=(0.0, 1.0))
def graded_reward(prompts: list[str], completions: list[str], rubric: list[list[str]], **kwargs: Any) -> Verdicts:
    """Grade each criterion of a prompt's own rubric by `partial_credit`."""
    return [
        {name: partial_credit(prompt.split()[:-1], answer.split(), name) for name in criteria}
        for prompt, answer, criteria in zip(prompts, completions, rubric, strict=True)
    ]
