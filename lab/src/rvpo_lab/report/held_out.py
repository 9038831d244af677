"""What the cells of a suite say about held-out prompts: curves, where runs end, scores, comparisons with GDPO.

Data frames are those of `rvpo_lab.suite.results`: channel means, and scores with one row per run. Pure functions. What
the numbers show is also told in sentences: written from them, and silent where they show nothing.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from rvpo.report.training import Panel, finite_mean, mean_curve
from rvpo.stats import NEGLECTED, PairedTest, bootstrap_interval, holm
from rvpo.text import listed, number, p_value, percent, plural, signed, span
from rvpo_lab.report.suite_figures import Final
from rvpo_lab.suite.compare import compare_runs
from rvpo_lab.suite.plan import BASELINE
from rvpo_lab.suite.results import SCORES
from rvpo_lab.suite.storage import CellRecord
from rvpo_lab.tasks.task import axis

__all__ = [
    "INTERVAL_SEEDS",
    "SHARES",
    "TEST_PAIRS",
    "ScoreDifference",
    "ScoreRow",
    "against_baseline",
    "axis_panels",
    "channel_panels",
    "common_runs",
    "compared",
    "curves_in_words",
    "differences",
    "final_means",
    "finals",
    "finding",
    "graded",
    "limit_of_tests",
    "score_rows",
    "scores_in_words",
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


SIGNIFICANT = 0.05
SAME = 5e-4
"""Shares and means that look the same in print."""
LIST_OF_SEEDS = 8

Labels = Mapping[str, str]


def compared(records: Sequence[CellRecord], labels: Labels) -> str:
    """Return what was compared: tasks, methods, seeds, steps, and how much of it is there."""
    tasks, methods, seeds = (
        list(dict.fromkeys(record.about[key] for record in records)) for key in ("task", "contender", "seed")
    )
    steps = sorted({record.steps[-1] for record in records if record.steps})
    lengths = f", {' or '.join(map(str, steps))} training steps" if steps else ""
    numbers = f" ({', '.join(map(str, sorted(seeds)))})" if len(seeds) <= LIST_OF_SEEDS else ""
    whole = len(tasks) * len(methods) * len(seeds)
    there = (
        plural(len(records), "run") if len(records) == whole else f"{len(records)} of the {whole} runs that this makes"
    )
    return (
        f"Compared: {listed([labels[name] for name in labels if name in methods])} on "
        f"{plural(len(tasks), 'task')} ({listed(tasks)}), {plural(len(seeds), 'seed')}{numbers}{lengths}; {there}."
    )


def finding(runs: pd.DataFrame, labels: Labels) -> list[str]:
    """Return the main finding: who neglects least and most at the end, who has the highest mean, what is tested."""
    common, complete = common_runs(runs)
    pairs = len(common.groupby(["task", "seed"]))
    caveats = []
    if not complete:
        caveats.append("No task and seed has a run of every method, so different tasks or seeds are compared here.")
    elif len(common) < len(runs):
        caveats.append(f"Only what all methods share is compared here: {plural(pairs, 'pair')} of task and seed.")
    shares, means = (common.groupby("method")[name].mean() for name in ("final_neglected", "final_mean"))
    if len(shares) == 1:
        method = str(shares.index[0])
        share, mean = percent(shares[method], 1), number(means[method])
        return [
            f"At the end {labels[method]} neglects {share} of the channels; the held-out mean is {mean}.",
            *caveats,
        ]
    ends = [_least_and_most(shares, labels), _highest_and_lowest(means, labels)]
    return [*ends, *caveats, *against_baseline(common, labels, pairs)]


def _ends(values: pd.Series, labels: Labels) -> tuple[list[str], list[str]]:
    """Return the labels of the methods that share the lowest value, and of those that share the highest."""
    low, high = values.min(), values.max()
    return (
        [label for name, label in labels.items() if name in values and values[name] <= low + SAME],
        [label for name, label in labels.items() if name in values and values[name] >= high - SAME],
    )


def _least_and_most(shares: pd.Series, labels: Labels) -> str:
    low, high = _ends(shares, labels)
    if shares.max() - shares.min() <= SAME:
        return f"At the end all methods neglect the same share of channels: {percent(shares.max(), 1)}."
    verb = "neglects" if len(low) == 1 else "neglect"
    return (
        f"At the end {listed(low)} {verb} the smallest share of channels ({percent(shares.min(), 1)}), "
        f"{listed(high)} the largest ({percent(shares.max(), 1)})."
    )


def _highest_and_lowest(means: pd.Series, labels: Labels) -> str:
    low, high = _ends(means, labels)
    if means.max() - means.min() <= SAME:
        return f"All have the same held-out mean, {number(means.max())}."
    return (
        f"Held-out mean: highest {listed(high)} ({number(means.max())}), lowest {listed(low)} ({number(means.min())})."
    )


def against_baseline(runs: pd.DataFrame, labels: Labels, pairs: int) -> list[str]:
    """Return what tests of the share neglected against GDPO show, Holm-adjusted over the methods."""
    methods = [name for name in labels if name != BASELINE and name in set(runs["method"])]
    if BASELINE not in set(runs["method"]) or not methods:
        return []
    if pairs < TEST_PAIRS:
        return [f"This rests on {plural(pairs, 'pair')} of task and seed: too few to test, so it may be chance."]
    tests = [compare_runs(runs, method, "final_neglected", baseline=BASELINE) for method in methods]
    adjusted = holm([None if test is None else test.p_value for test in tests])
    groups: dict[str, list[str]] = {"fewer": [], "more": []}
    unclear = []
    for method, test, p in zip(methods, tests, adjusted, strict=True):
        if test is None or not p <= SIGNIFICANT or test.difference == 0:
            unclear.append(labels[method])
            continue
        result = f"{labels[method]} ({signed(100 * test.difference, 1)} points, p = {p_value(float(p))})"
        groups["fewer" if test.difference < 0 else "more"].append(result)
    parts = [f"{word} channels are neglected by {listed(names)}" for word, names in groups.items() if names]
    parts += [f"no difference is shown for {listed(unclear)}"] if unclear else []
    intro = f"Tested against GDPO over {pairs} pairs of task and seed, by sign flips with Holm's correction: "
    return [intro + "; ".join(parts).replace("p = <", "p <") + "."]


def curves_in_words(means: pd.DataFrame, labels: Labels) -> str:
    """Return where the axes of one task end, and how many channels each method neglects there."""
    axes, channels = final_means(means, axis), final_means(means)
    of_axes = _widest_gap(axes, labels) if len(axes.columns) > 1 else _lowest_axis(axes)
    below = (channels < NEGLECTED).sum()
    counts = [f"{label} ({below[name]})" for name, label in labels.items() if name in below]
    return f"{of_axes} Channels below {NEGLECTED} at the end, of {len(channels)}: {', '.join(counts)}."


def _widest_gap(axes: pd.DataFrame, labels: Labels) -> str:
    gaps = axes.max(axis=1) - axes.min(axis=1)
    if not gaps.notna().any():
        return ""
    name = gaps.idxmax()
    low, high = axes.loc[name].idxmin(), axes.loc[name].idxmax()
    return (
        f"At the end the methods differ most in {name}: from {number(axes.loc[name, low])} ({labels[low]}) to "
        f"{number(axes.loc[name, high])} ({labels[high]})."
    )


def _lowest_axis(axes: pd.DataFrame) -> str:
    ends = axes.iloc[:, 0].dropna().sort_values(kind="stable")
    if not len(ends):
        return ""
    return (
        f"At the end the lowest axis is {ends.index[0]} ({number(ends.iloc[0])}), the highest {ends.index[-1]} "
        f"({number(ends.iloc[-1])})."
    )


def scores_in_words(rows: Sequence[ScoreRow], start: float, labels: Labels) -> str:
    """Return where one task's training started, who ends highest, and whether there are intervals."""
    sentences = [f"Mean at the warm start: {number(start)}."] if math.isfinite(start) else []
    if len(rows) > 1:
        finals = pd.DataFrame({row.method: row.final for row in rows}).T
        tops = {score: _ends(finals[score], labels) for score in finals}
        sentences.append(
            f"Highest final mean: {listed(tops['mean'][1])} ({number(finals['mean'].max())}). Highest lowest third: "
            f"{listed(tops['lowest'][1])} ({number(finals['lowest'].max())}). Fewest channels neglected: "
            f"{listed(tops['neglected'][0])} ({percent(finals['neglected'].min(), 1)})."
        )
    seeds = min(row.seeds for row in rows)
    if seeds < INTERVAL_SEEDS:
        sentences.append(f"Intervals need {INTERVAL_SEEDS} seeds; here a method has {seeds}.")
    return " ".join(sentences)


def limit_of_tests(pairs: int) -> str:
    """Return that a test of so few pairs cannot show a difference, if that is so; else nothing.

    >>> limit_of_tests(8)
    ''
    """
    smallest = 2 / 2**pairs
    if smallest <= SIGNIFICANT:
        return ""
    return (
        f"With {pairs} seeds no p-value can be below {p_value(smallest)}, so these tests cannot show a difference; "
        "the intervals tell how large it may be."
    )
