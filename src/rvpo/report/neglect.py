"""The picture of constraint neglect: two answers of equal mean reward, and what each method makes of them.

A group of eight answers is graded on three easy criteria and a critical one that five of them fail. Answer A is best
on the easy ones and fails the critical one; answer B is middling on all four; both have the mean 0.60.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from rvpo.core.advantages import compute_advantages
from rvpo.text import signed

__all__ = ["CRITERIA", "GROUP", "Preference", "preferences", "sentence"]

CRITERIA = ("easy", "easy", "easy", "critical")
GROUP = np.asarray(
    [
        [0.8, 0.8, 0.8, 0.0],  # answer A
        [0.6, 0.6, 0.6, 0.6],  # answer B
        [0.7, 0.5, 0.8, 0.0],
        [0.5, 0.8, 0.6, 0.0],
        [0.6, 0.7, 0.5, 0.5],
        [0.8, 0.6, 0.7, 0.0],
        [0.5, 0.5, 0.5, 0.7],
        [0.7, 0.6, 0.6, 0.0],
    ]
)
METHODS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("grpo", "GRPO", {"method": "grpo"}),
    ("gdpo", "GDPO", {"method": "gdpo"}),
    ("rvpo", "RVPO, k = 2", {"method": "rvpo", "k": 2.0}),
    ("rvpo_policy", "policy level, k = 2", {"method": "rvpo_policy", "k": 2.0}),
)
SAME = 0.005
"""Advantages that are equal to two digits count as the same."""


@dataclass(frozen=True)
class Preference:
    """The advantages that a method gives the two answers."""

    method: str
    label: str
    a: float
    b: float
    verdict: str
    """Which answer the method prefers, in words."""


def verdict(gap: float, widest: float) -> str:
    """Return which answer is preferred, from A's advantage minus B's and the largest such difference of any method.

    >>> verdict(0.0, 2.0), verdict(0.5, 2.0), verdict(-1.0, 2.0)
    ('sees no difference', 'prefers A, by less', 'prefers B')
    """
    if abs(gap) < SAME:
        return "sees no difference"
    if gap < 0:
        return "prefers B"
    return "prefers A" if gap > widest / 2 else "prefers A, by less"


def preferences() -> list[Preference]:
    """Return what each method gives answers A and B, the first two of `GROUP`."""
    pairs = [compute_advantages(GROUP[None], **options).advantages[0, :2] for _, _, options in METHODS]
    widest = max(float(a - b) for a, b in pairs)
    return [
        Preference(method, label, float(a), float(b), verdict(float(a - b), widest))
        for (method, label, _), (a, b) in zip(METHODS, pairs, strict=True)
    ]


def sentence(given: list[Preference]) -> str:
    """Return what the picture shows in words, from its numbers."""
    clauses = [f"{shown.label} {shown.verdict} ({signed(shown.a, 2)} and {signed(shown.b, 2)})" for shown in given]
    return (
        f"Both answers have the mean reward {GROUP[0].mean():.2f}, but A fails the critical criterion. "
        f"Advantages of A and B: {'; '.join(clauses)}."
    )
