"""The paper's claims, each turned into a test on the suite's runs, with the rule of the verdict fixed beforehand.

A claim that one method is above another is *reproduced* if the paired difference has the claimed sign and its
Holm-adjusted p (over all such claims) is at most 0.05, *not reproduced* if it has the other sign and such a p, else
*undecided*. A claim that two methods are equal is reproduced if the 95 % interval lies within +-0.05, not reproduced
if it excludes 0 and is not within, else undecided.
"""

from dataclasses import dataclass

import pandas as pd

from rvpo.stats import PairedTest, holm, paired_test
from rvpo_lab.suite.compare import axis_scores, channel_area, paired_runs

__all__ = ["EQUAL", "Judged", "judge_claims"]

EQUAL = 0.05
"""Half-width of the interval inside which two means count as equal."""
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Claim:
    """A statement of the paper about `a` and `b`, two methods, on a score of their runs."""

    text: str
    quoted: str
    """The paper's own figures."""
    a: str
    b: str
    score: str
    """Column of the table of runs."""
    sign: int
    """1: a is above b; -1: below; 0: equal."""
    table: str = "rubric"
    """Which runs: rubric (all tasks but tools), axes (the same, per axis), tools or format."""


AXES_QUOTED = "7B: accuracy 30.0 -> 33.3, context 18.3 -> 21.2, completeness 11.1 -> 15.2"
DOWN_QUOTED = "7B: communication 47.0 -> 45.1, instruction following 32.5 -> 30.1"
K_QUOTED = "7B: best 0.241, final 0.095 against 0.230, 0.204"

CLAIMS = (
    Claim("RVPO's final score is above GDPO's", "7B 0.204 against 0.026", "rvpo", "gdpo", "final_mean", 1),
    Claim("RVPO's best score is above GDPO's", "7B 0.230 against 0.198", "rvpo", "gdpo", "best_mean", 1),
    Claim("GDPO loses more than RVPO from best to final", "7B 0.172 against 0.026", "gdpo", "rvpo", "drop", 1),
    Claim("RVPO neglects fewer channels than GDPO", "the method's purpose", "rvpo", "gdpo", "final_neglected", -1),
    Claim("RVPO lifts the lowest third of the channels", "the method's purpose", "rvpo", "gdpo", "final_lowest", 1),
    Claim("RVPO raises accuracy", AXES_QUOTED, "rvpo", "gdpo", "accuracy", 1, "axes"),
    Claim("RVPO raises completeness", AXES_QUOTED, "rvpo", "gdpo", "completeness", 1, "axes"),
    Claim("RVPO raises context awareness", AXES_QUOTED, "rvpo", "gdpo", "context", 1, "axes"),
    Claim("RVPO lowers communication", DOWN_QUOTED, "rvpo", "gdpo", "communication", -1, "axes"),
    Claim("RVPO lowers instruction following", DOWN_QUOTED, "rvpo", "gdpo", "instruction", -1, "axes"),
    Claim("constant k = 5 has a higher best than 0.5 -> 2.0", K_QUOTED, "rvpo_k5", "rvpo", "best_mean", 1),
    Claim("constant k = 5 has a lower final than 0.5 -> 2.0", K_QUOTED, "rvpo_k5", "rvpo", "final_mean", -1),
    Claim("hard-min ends below GDPO", "7B final 0", "hard_min", "gdpo", "final_mean", -1),
    Claim("tool calling: correctness ends equal", "1.5B 71.9 and 71.9", "rvpo", "gdpo", "correctness", 0, "tools"),
    Claim("tool calling: the format is met sooner", "learning curves", "rvpo", "gdpo", "area", 1, "format"),
)


@dataclass(frozen=True)
class Judged:
    """A claim, what was measured, and the verdict."""

    claim: Claim
    test: PairedTest | None
    mean_a: float
    mean_b: float
    adjusted: float
    """Holm-adjusted p over the claims with a sign; NaN for claims of equality."""

    @property
    def verdict(self) -> str:
        """Reproduced, not reproduced, undecided, or not tested."""
        if self.test is None:
            return "not tested"
        if self.claim.sign == 0:
            if max(abs(self.test.low), abs(self.test.high)) <= EQUAL:
                return "reproduced"
            return "not reproduced" if self.test.low > 0 or self.test.high < 0 else "undecided"
        if self.adjusted > SIGNIFICANT:
            return "undecided"
        return "reproduced" if self.test.difference * self.claim.sign > 0 else "not reproduced"


def judge_claims(runs: pd.DataFrame, means: pd.DataFrame) -> list[Judged]:
    """Return every claim with its verdict on these runs (of `results.run_scores` and `results.channel_means`)."""
    tables = _tables(runs, means)
    pairs = [paired_runs(tables[claim.table], claim.a, claim.b, claim.score) for claim in CLAIMS]
    tests = [paired_test(pair["a"], pair["b"]) if len(pair) > 1 else None for pair in pairs]
    signed = [
        test.p_value if test is not None and claim.sign else None for claim, test in zip(CLAIMS, tests, strict=True)
    ]
    return [
        Judged(claim, test, float(pair["a"].mean()), float(pair["b"].mean()), float(p))
        for claim, test, pair, p in zip(CLAIMS, tests, pairs, holm(signed), strict=True)
    ]


def _tables(runs: pd.DataFrame, means: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the tables of runs that claims are about."""
    axes = axis_scores(means)
    for column in {claim.score for claim in CLAIMS if claim.table in ("axes", "tools")} - set(axes):
        axes[column] = float("nan")
    is_tools = axes["task"] == "tools"
    return {
        "rubric": runs[runs["task"] != "tools"],
        "axes": axes[~is_tools],
        "tools": axes[is_tools],
        "format": channel_area(means, "format/form"),
    }
