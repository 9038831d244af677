"""Judges of the rubric task with a fault; evaluation never uses them.

A fault is a function of prompt, answer and criterion (a checksum decides), so the same answer gets the same verdict
at every step, in every process and after a resume, as with a real judge whose verdicts are stored.
"""

from typing import Any
from zlib import crc32

from rvpo.rewards.declarations import vector_reward
from rvpo_lab.tasks.rubric import MARKER, rubric_reward

__all__ = ["FLIPPED", "LOST", "PERSUADED", "exploitable_reward", "lost_reward", "noisy_reward"]

FLIPPED = 0.15
LOST = 0.2
PERSUADED = ("accuracy/", "context/")
"""Axes on which the exploitable judge believes whoever says the marker."""

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
