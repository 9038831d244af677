"""What the cells of a suite say about held-out prompts: curves, where runs end, scores, comparisons with GDPO.

Data frames are those of `rvpo_lab.suite.results`: channel means, and scores with one row per run. Pure functions.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from rvpo.report.curves import Panel, finite_mean, mean_curve
from rvpo.stats import PairedTest, bootstrap_interval
from rvpo.text import p_value, signed, span
from rvpo_lab.report.suite_figures import Final
from rvpo_lab.suite.cell_file import CellRecord
from rvpo_lab.suite.compare import compare_runs
from rvpo_lab.suite.plan import BASELINE
from rvpo_lab.suite.results import SCORES
from rvpo_lab.tasks.task import axis

__all__ = [
    "INTERVAL_SEEDS",
    "SHARES",
    "TEST_PAIRS",
    "ScoreDifference",
    "ScoreRow",
    "axis_panels",
    "channel_panels",
    "common_runs",
    "differences",
    "final_means",
    "finals",
    "graded",
    "score_rows",
]

INTERVAL_SEEDS = 3
"""Fewest seeds for an interval."""
SHARES = ("neglected", "all_met")
"""Scores that are shares, and written in percent."""
TEST_PAIRS = 5
"""Fewest pairs for a test; n of them allow no two-sided p-value below 2 / 2^n."""


@dataclass(frozen=True)
class ScoreRow:
    """A method's line in the table of scores."""

    method: str
    seeds: int
    best: Mapping[str, float]
    """Score -> its mean over seeds, each at its run's best evaluation."""
    final: Mapping[str, float]
    """Score -> its mean over seeds at the last evaluation."""
    intervals: Mapping[str, str]
    """Score -> 95 % bootstrap interval of the final mean over seeds; empty with too few."""


@dataclass(frozen=True)
class ScoreDifference:
    """A method's final score minus GDPO's."""

    method: str
    score: str
    test: PairedTest

    @property
    def text(self) -> str:
        """The difference and its 95 % interval; of shares in percentage points."""
        scale, digits, unit = (100, 1, " points") if self.score in SHARES else (1, 2, "")
        low, high = scale * self.test.low, scale * self.test.high
        return f"{signed(scale * self.test.difference, digits)}{unit} [{span(low, high, digits)}]"

    @property
    def p(self) -> str:
        """The p-value."""
        return p_value(self.test.p_value)

    @property
    def verdict(self) -> str:
        """What the test shows of the method, in words."""
        words = {"a is higher": "higher than GDPO", "b is higher": "lower than GDPO"}
        return words.get(self.test.verdict, self.test.verdict)


def graded(records: Sequence[CellRecord]) -> list[CellRecord]:
    """Return the records in which some held-out value is a number."""
    return [
        record
        for record in records
        if any(not math.isnan(value) for values in record.held_out.values() for value in values)
    ]


def axis_panels(means: pd.DataFrame, methods: Sequence[str]) -> list[Panel]:
    """Return a panel per axis of one task: the mean of the axis' channels, averaged over seeds."""
    key = ["method", "seed", "step"]
    by_axis = means.assign(panel=means["channel"].map(axis)).groupby([*key, "panel"])["mean"].mean().reset_index()
    return _panels(by_axis, methods, sorted(by_axis["panel"].unique()))


def channel_panels(means: pd.DataFrame, methods: Sequence[str]) -> list[Panel]:
    """Return a panel per channel of one task, the one that is met least at the first evaluation first."""
    start = means[means["step"] == means["step"].min()].groupby("channel")["mean"].mean()
    names = [
        *start.sort_values(kind="stable").index,
        *(name for name in means["channel"].unique() if name not in start),
    ]
    return _panels(means.rename(columns={"channel": "panel"}), methods, names)


def _panels(values: pd.DataFrame, methods: Sequence[str], names: Sequence[str]) -> list[Panel]:
    """Return panels from columns panel, method, seed, step and mean."""
    panels = []
    for name in names:
        of_panel = values[values["panel"] == name]
        curves = []
        for method in methods:
            runs = of_panel[of_panel["method"] == method].sort_values("step").groupby("seed")
            if len(runs):
                curves.append(mean_curve(method, [(run["step"].tolist(), run["mean"].tolist()) for _, run in runs]))
        panels.append(Panel(str(name), tuple(curves)))
    return panels


def final_means(means: pd.DataFrame, over: Callable[[str], str] = str) -> pd.DataFrame:
    """Return the last held-out mean of each channel (or of what `over` makes of it), methods as columns.

    Channels are averaged inside each run, runs over seeds.
    """
    key = ["task", "method", "seed"]
    last = means[means["step"] == means.groupby(key)["step"].transform("max")]
    by_run = last.assign(group=last["channel"].map(over)).groupby(["method", "seed", "group"])["mean"].mean()
    return by_run.groupby(["group", "method"]).mean().unstack("method")


def common_runs(runs: pd.DataFrame) -> tuple[pd.DataFrame, bool]:
    """Return the runs of the (task, seed) pairs that every method has; all runs and False if there is no such pair."""
    methods = runs.groupby(["task", "seed"])["method"].transform("nunique")
    common = runs[methods == runs["method"].nunique()]
    return (common, True) if len(common) else (runs, False)


def finals(runs: pd.DataFrame, methods: Sequence[str]) -> list[Final]:
    """Return where the runs of each method end."""
    ends = []
    for method in methods:
        mine = runs[runs["method"] == method]
        if len(mine):
            ends.append(Final(method, tuple(mine["final_neglected"]), tuple(mine["final_mean"])))
    return ends


def score_rows(runs: pd.DataFrame, methods: Sequence[str]) -> list[ScoreRow]:
    """Return the table of scores of one task's runs."""
    rows = []
    for method in methods:
        mine = runs[runs["method"] == method]
        if len(mine):
            best, final = (
                {score: finite_mean(mine[f"{when}_{score}"]) for score in SCORES} for when in ("best", "final")
            )
            intervals = {score: _interval(mine[f"final_{score}"], score) for score in SCORES}
            rows.append(ScoreRow(method, len(mine), best, final, intervals))
    return rows


def _interval(values: Any, score: str) -> str:
    if values.notna().sum() < INTERVAL_SEEDS:
        return ""
    interval = bootstrap_interval(values)
    if score in SHARES:
        return f"{span(100 * interval.low, 100 * interval.high, 1)} %"
    return span(interval.low, interval.high)


def differences(runs: pd.DataFrame, methods: Sequence[str]) -> list[ScoreDifference]:
    """Return the tests of one task's final scores against GDPO's, for methods with enough seeds in common with it."""
    tests = []
    for method in methods:
        for score in SCORES if method != BASELINE else ():
            test = compare_runs(runs, method, f"final_{score}", baseline=BASELINE)
            if test is not None and test.pairs >= TEST_PAIRS:
                tests.append(ScoreDifference(method, score, test))
    return tests
