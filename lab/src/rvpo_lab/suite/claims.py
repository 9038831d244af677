"""The paper's claims and costs and this project's measures, each a test on the suite's runs; and the aim.

The rule of the verdict on a claim was fixed beforehand. A statement that one method is above another is *reproduced*
if the paired difference has the stated sign and its Holm-adjusted p (over all such statements) is at most 0.05, *not
reproduced* if it has the other sign and such a p, else *undecided*. A statement that two methods are equal is
reproduced if the 95 % interval lies within +-0.05, not reproduced if it excludes 0 and is not within, else undecided.

The aim: no reward neglected, and nothing paid for it. At the end of training, against GDPO on the same tasks and
seeds:

    lowest   mean of the lowest third of the channels      at least `LOWEST` times GDPO's
    mean     mean of all channels                          at least `MEAN` times GDPO's
    kept     final mean over best mean of the same runs    at least `KEPT`

The first asks for more than noise on every task that has a hard criterion or a conflict; the other two that it is
not bought with the rest, or given back late.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from rvpo.stats import PairedTest, Ratio, bootstrap_ratio, holm, paired_test
from rvpo.text import markdown_table, number, p_value
from rvpo_lab.suite.compare import axis_scores, channel_area, difference, paired_runs, paragraph
from rvpo_lab.suite.plan import BASELINE

__all__ = ["EQUAL", "KEPT", "LOWEST", "MEAN", "Aim", "Judged", "claims_tables", "hold_against_aim", "judge_claims"]

EQUAL = 0.05
"""Half-width of the interval inside which two means count as equal."""
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Claim:
    """A statement about `a` and `b`, two methods, on a score of their runs."""

    text: str
    quoted: str
    """The paper's own figures; empty in a measure of this project."""
    a: str
    b: str
    score: str
    """Column of the table of runs."""
    sign: int
    """1: a is above b; -1: below; 0: equal."""
    table: str = "rubric"
    """Which runs: rubric (all tasks but tools), axes (the same, per axis), tools or format."""


FINAL_QUOTED = "3B 0.147 against 0.117, 7B 0.204 against 0.026, 14B 0.236 against 0.000"
BEST_QUOTED = "7B 0.230 against 0.198, 14B 0.261 against 0.215; 3B 0.189 against 0.192"
DROP_QUOTED = "3B 0.075 against 0.042, 7B 0.172 against 0.026, 14B 0.215 against 0.025"
AXES_QUOTED = "7B: accuracy 30.0 -> 33.3, context 18.3 -> 21.2, completeness 11.1 -> 15.2"
DOWN_QUOTED = "7B: communication 47.0 -> 45.1, instruction following 32.5 -> 30.1"
K_QUOTED = "7B: best 0.241, final 0.095 against 0.230, 0.204"
TOOLS_QUOTED = "BFCL 1.5B 71.9 and 71.9, 3B 80.4 and 80.7"

PAPER = (
    Claim("RVPO's final score is above GDPO's", FINAL_QUOTED, "rvpo", "gdpo", "final_mean", 1),
    Claim("RVPO's best score is above GDPO's, from 7B on", BEST_QUOTED, "rvpo", "gdpo", "best_mean", 1),
    Claim("GDPO loses more than RVPO from best to final", DROP_QUOTED, "gdpo", "rvpo", "drop", 1),
    Claim("RVPO raises accuracy", AXES_QUOTED, "rvpo", "gdpo", "accuracy", 1, "axes"),
    Claim("RVPO raises completeness", AXES_QUOTED, "rvpo", "gdpo", "completeness", 1, "axes"),
    Claim("RVPO raises context awareness", AXES_QUOTED, "rvpo", "gdpo", "context", 1, "axes"),
    Claim("constant k = 5 has a higher best than 0.5 -> 2.0", K_QUOTED, "rvpo_k5", "rvpo", "best_mean", 1),
    Claim("constant k = 5 has a lower final than 0.5 -> 2.0", K_QUOTED, "rvpo_k5", "rvpo", "final_mean", -1),
    Claim("hard-min ends below GDPO", "7B final 0 against 0.026", "hard_min", "gdpo", "final_mean", -1),
    Claim("tool calling: correctness ends equal", TOOLS_QUOTED, "rvpo", "gdpo", "correctness", 0, "tools"),
    Claim("tool calling: the format is met sooner", "learning curves", "rvpo", "gdpo", "area", 1, "format"),
)
COSTS = (
    Claim("RVPO lowers communication", DOWN_QUOTED, "rvpo", "gdpo", "communication", -1, "axes"),
    Claim("RVPO lowers instruction following", DOWN_QUOTED, "rvpo", "gdpo", "instruction", -1, "axes"),
)
OURS = (
    Claim("does RVPO neglect fewer channels than GDPO", "", "rvpo", "gdpo", "final_neglected", -1),
    Claim("does RVPO lift the lowest third of the channels", "", "rvpo", "gdpo", "final_lowest", 1),
)
CLAIMS = (*PAPER, *COSTS, *OURS)
NOT_TESTED = (
    "Claimed there and not tested here: GPQA-Diamond is unharmed (every method within +-6.5 points, 198 questions); "
    "the soft minimum is better than the explicit variance penalty, and than GRPO on RaR's single reward; p < 0.001 "
    "at 14B; an overhead below 1 % (`make bench` measures ours). Verdicts here are 0 or 1; graded ones have "
    "a section of their own."
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


def claims_tables(runs: pd.DataFrame, means: pd.DataFrame) -> str:
    """Return the three tables as Markdown: the paper's claims, its reported costs, our own measures."""
    judged = {judgement.claim: judgement for judgement in judge_claims(runs, means)}
    legend = (
        "a is the method named first. Pairs are (task, seed) of all tasks but `tools`, of `tools` alone where tool "
        "calling is meant. p by sign flips over the pairs, Holm-adjusted over all statements of a direction in the "
        "three tables; reproduced: the stated direction and p <= 0.05; not reproduced: the other direction and p <= "
        f"0.05 (for equality: the interval within, or beside 0 and not within, +-{EQUAL}). The paper's figures are "
        "HealthBench and BFCL scores of models of 1.5 to 14 billion parameters, one run each, its axes those of the "
        "best checkpoint of the 7B run; the channels here share names with those axes, no more. So only directions "
        "can be compared."
    )
    return "\n".join(
        [
            "**What the paper claims**\n",
            _table([judged[claim] for claim in PAPER]),
            paragraph(NOT_TESTED),
            "**What the paper reports as the cost**\n",
            _table([judged[claim] for claim in COSTS]),
            "**What this project measures: the method's purpose, not a claim of the paper**\n",
            _table([judged[claim] for claim in OURS], is_quoted=False),
            paragraph(legend),
        ]
    )


def _table(judged: Sequence[Judged], *, is_quoted: bool = True) -> str:
    """Return a table of statements; those that quote nothing have nothing to reproduce, and no verdict."""
    rows = []
    for judgement in judged:
        measured = [
            f"{number(judgement.mean_a, 3)} / {number(judgement.mean_b, 3)}",
            difference(judgement.test),
            p_value(judgement.adjusted if judgement.claim.sign else math.nan),
            str(judgement.test.pairs if judgement.test else 0),
        ]
        quoted, verdict = [judgement.claim.quoted], [f"**{judgement.verdict}**"]
        rows.append([judgement.claim.text, *(quoted if is_quoted else []), *measured, *(verdict if is_quoted else [])])
    head = ["measured a / b", "a - b, 95 % interval", "p (Holm)", "pairs"]
    head = ["claim", "the paper (quoted)", *head, "verdict"] if is_quoted else ["question", *head]
    return markdown_table(head, rows)


LOWEST, MEAN, KEPT = 1.21, 0.98, 0.97


@dataclass(frozen=True)
class Aim:
    """One method on one task."""

    task: str
    lowest_a: float
    """Mean of the lowest third at the end, the method's and the baseline's."""
    lowest_b: float
    lowest: Ratio
    mean: Ratio
    kept: Ratio
    p_value: float
    """Two-sided, by sign flips over seeds, of the lowest third."""
    adjusted: float
    """The same after Holm's correction over the tasks."""

    @property
    def missed(self) -> list[str]:
        """The parts of the aim that the estimates do not reach."""
        parts = (("lowest third", self.lowest, LOWEST), ("mean", self.mean, MEAN), ("final / best", self.kept, KEPT))
        return [name for name, ratio, aim in parts if not ratio.value >= aim]


def hold_against_aim(runs: pd.DataFrame, method: str, *, baseline: str = BASELINE) -> list[Aim]:
    """Hold the runs of a method (rows of `results.run_scores`) against the aim, task by task.

    Each seed is a unit: ratios are of means over seeds, intervals 95 % by bootstrap over seeds. Tasks without a
    pair are left out.
    """
    compared: list[tuple[str, pd.DataFrame, pd.DataFrame, pd.DataFrame]] = []
    for task, of_task in runs.groupby("task", sort=False):
        lowest = paired_runs(of_task, method, baseline, "final_lowest")
        if len(lowest):
            of_method = of_task[of_task["method"] == method]
            compared.append((str(task), lowest, paired_runs(of_task, method, baseline, "final_mean"), of_method))
    tests = [paired_test(lowest["a"], lowest["b"]) for _, lowest, _, _ in compared]
    adjusted_p = holm([test.p_value for test in tests])
    return [
        Aim(
            task,
            float(lowest["a"].mean()),
            float(lowest["b"].mean()),
            bootstrap_ratio(lowest["a"], lowest["b"]),
            bootstrap_ratio(mean["a"], mean["b"]),
            bootstrap_ratio(of_method["final_mean"], of_method["best_mean"]),
            test.p_value,
            float(adjusted),
        )
        for (task, lowest, mean, of_method), test, adjusted in zip(compared, tests, adjusted_p, strict=True)
    ]
