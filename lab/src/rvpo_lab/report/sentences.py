"""What the numbers of a report show, in sentences: written from them, and silent where they show nothing."""

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from rvpo.stats import NEGLECTED, holm
from rvpo.text import listed, number, p_value, percent, plural, signed
from rvpo_lab.report.held_out import INTERVAL_SEEDS, TEST_PAIRS, ScoreRow, common_runs, final_means
from rvpo_lab.suite.cell_file import CellRecord
from rvpo_lab.suite.compare import compare_runs
from rvpo_lab.suite.plan import BASELINE
from rvpo_lab.tasks.task import axis

__all__ = ["against_baseline", "compared", "curves_in_words", "finding", "limit_of_tests", "scores_in_words"]

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
