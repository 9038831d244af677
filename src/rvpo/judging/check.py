"""How far a judge can be trusted: agreement with itself, with itself in chunks, and what it makes of bad answers.

Pure functions of verdicts; `rvpo judge check` asks for them.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

__all__ = ["PROBES", "Agreement", "Probe", "agreement", "judge_calls", "reliability"]

PROBES = (" ", ":", ".", "Thought process:", "Let's solve this step by step.", "I cannot help with that.")
"""Answers without content; weak judges find criteria met in them."""


@dataclass(frozen=True)
class Agreement:
    """How often two verdicts on the same criterion of the same answer are alike."""

    pairs: int
    """Pairs of verdicts that could be compared."""
    lost: int
    """Verdicts that were missing."""
    share: float
    """Share of the pairs that agree, in [0, 1]; NaN without a pair."""

    @property
    def reliability(self) -> float:
        """See `reliability`."""
        return reliability(self.share)


def agreement(votes: Iterable[Sequence[bool | None]]) -> Agreement:
    """Compare the verdicts on each criterion with one another, pair by pair.

    >>> agreement([(True, True, False), (None, True, True)])
    Agreement(pairs=4, lost=1, share=0.5)
    """
    alike = pairs = lost = 0
    for criterion_votes in votes:
        known = [vote for vote in criterion_votes if vote is not None]
        lost += len(criterion_votes) - len(known)
        for first, second in combinations(known, 2):
            pairs += 1
            alike += first == second
    return Agreement(pairs, lost, alike / pairs if pairs else math.nan)


def reliability(share: float) -> float:
    """Return `1 - 2 e` for a judge that flips each verdict with probability e, from its agreement with itself.

    Two such verdicts agree with probability `a = 1 - 2 e (1 - e)`, so `1 - 2 e = sqrt(2 a - 1)`: 1 for a judge that
    never flips, 0 (also for a < 1/2) for one that tosses a coin, NaN for NaN. It is the correlation between verdict
    and truth of a criterion met by half of the answers, and can be given to `compute_advantages` as a channel's
    weight. A judge that is wrong in the same way every time agrees with itself: this says nothing of bias.

        >>> round(reliability(0.905), 3)  # 5 % flips
        0.9
    """
    return math.nan if math.isnan(share) else math.sqrt(max(2 * share - 1, 0.0))


@dataclass(frozen=True)
class Probe:
    """What the judge made of an answer without content."""

    answer: str
    good: int
    """Criteria counted as good although nothing was said; pitfalls, which silence avoids, are left out."""
    judged: int

    @property
    def share(self) -> float:
        """Share of the verdicts that are too kind; NaN without any."""
        return self.good / self.judged if self.judged else math.nan


def judge_calls(
    criteria_per_prompt: float,
    *,
    steps: int,
    prompts_per_step: int,
    rollouts: int,
    criteria_per_call: int,
    repeats: int,
) -> Mapping[str, float]:
    """Return how many `verdicts` and `calls` a training run needs, before any reply is unreadable or stored.

    >>> judge_calls(11, steps=100, prompts_per_step=16, rollouts=16, criteria_per_call=4, repeats=1)
    {'verdicts': 281600, 'calls': 76800}
    """
    answers = steps * prompts_per_step * rollouts
    verdicts = round(answers * criteria_per_prompt * repeats)
    calls = answers * math.ceil(criteria_per_prompt / criteria_per_call) * repeats
    return {"verdicts": verdicts, "calls": calls}
