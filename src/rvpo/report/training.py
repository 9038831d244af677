"""What training logged, as figures and sentences need it: curves, averaged over seeds and thinned to what can be seen.

k, channel weights, dead and missing shares, rewards, as panels and maps. Channels are logged as `channels/NAME/KIND`;
NAME is a reward function's, an axis below it, or a channel's own.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from rvpo.report.runs import TrainingRun
from rvpo.text import listed, number, percent, plural, span

__all__ = [
    "MOST_POINTS",
    "Curve",
    "Panel",
    "WeightMap",
    "bins",
    "channel_names",
    "dead_in_words",
    "ends_in_words",
    "finite_mean",
    "k_in_words",
    "k_panel",
    "last_finite",
    "log_panels",
    "mean_curve",
    "missing_in_words",
    "weight_maps",
    "weights_in_words",
]

MOST_POINTS = 120
"""Points of a curve; more than a panel has pixels for would only make the page heavy."""

Course = tuple[Sequence[float], Sequence[float]]
"""Steps and the values there, NaN for none."""


@dataclass(frozen=True)
class Curve:
    """A method's course: the mean over its runs at each step, and the lowest and highest run. NaN: no run has one."""

    method: str
    steps: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    runs: int
    """Most runs at a step; with one, low and high are the mean."""

    @property
    def ends(self) -> tuple[float, float]:
        """The first and the last mean that is a number, NaN without any."""
        return last_finite(self.mean[::-1]), last_finite(self.mean)


@dataclass(frozen=True)
class Panel:
    """One small multiple."""

    title: str
    curves: tuple[Curve, ...]


@dataclass(frozen=True)
class WeightMap:
    """A method's channel weights over training."""

    method: str
    channels: tuple[str, ...]
    steps: tuple[float, ...]
    values: tuple[tuple[float, ...], ...]
    """One row per channel, NaN where the channel was not there."""


def finite_mean(values: Iterable[float]) -> float:
    """Return the mean of the finite values, NaN without any.

    >>> finite_mean([1.0, float("nan"), 3.0])
    2.0
    """
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else math.nan


def bins(number: int, most: int = MOST_POINTS) -> list[slice]:
    """Return slices that cut `number` points into at most `most` runs of nearly equal length.

    >>> bins(5, 2)
    [slice(0, 2, None), slice(2, 5, None)]
    """
    size = min(number, most)
    edges = [round(index * number / size) for index in range(size + 1)] if size else []
    return [slice(a, b) for a, b in pairwise(edges)]


def mean_curve(method: str, courses: Iterable[Course], *, most: int = MOST_POINTS) -> Curve:
    """Return the curve of a method from its runs, which may have different steps and gaps.

    Longer ones are averaged down to `most` points, each at its last step; the band keeps the extremes.
    """
    by_step: dict[float, list[float]] = defaultdict(list)
    for steps, values in courses:
        for step, value in zip(steps, values, strict=True):
            by_step[step].append(value)
    steps = sorted(by_step)
    at = [[value for value in by_step[step] if math.isfinite(value)] for step in steps]
    means = [finite_mean(values) for values in at]
    lows, highs = ([end(values, default=math.nan) for values in at] for end in (min, max))
    pieces = bins(len(steps), most)
    return Curve(
        method,
        tuple(steps[piece][-1] for piece in pieces),
        tuple(finite_mean(means[piece]) for piece in pieces),
        tuple(min(filter(math.isfinite, lows[piece]), default=math.nan) for piece in pieces),
        tuple(max(filter(math.isfinite, highs[piece]), default=math.nan) for piece in pieces),
        max(map(len, at), default=0),
    )


def last_finite(values: Sequence[float]) -> float:
    """Return the last value that is a number, NaN without any.

    >>> last_finite([0.25, 0.5, float("nan")])
    0.5
    """
    return next((value for value in reversed(values) if math.isfinite(value)), math.nan)


MOST_COLUMNS = 40
"""Columns of a heat map."""
SAME = 5e-4
"""Values of k that differ by less are written alike."""
ALIKE = 0.15
"""Weights whose lowest is within this share of the highest are called alike: rubrics differ in length."""

Labels = Mapping[str, str]
"""Method -> what it is called."""


def channel_names(runs: Sequence[TrainingRun]) -> dict[str, str]:
    """Return the logged channels and the names shown: without what all begin with and what every reward ends with.

    >>> log = {"channels/judge/tone/mean": [0.5], "channels/judge/facts/mean": [1.0]}
    >>> channel_names([TrainingRun("a", (1,), log)])
    {'judge/tone': 'tone', 'judge/facts': 'facts'}
    """
    keys = dict.fromkeys(key for run in runs for key in run.log if key.startswith("channels/") and key.count("/") > 1)
    names = list(dict.fromkeys(key.removeprefix("channels/").rpartition("/")[0] for key in keys))
    first = {name.partition("/")[0] for name in names}
    below = [name.partition("/")[2] for name in names]
    shown = below if len(first) == 1 and all(below) else [name.removesuffix("_reward") for name in names]
    return dict(zip(names, shown if len(set(shown)) == len(names) else names, strict=True))


def _curves(runs: Sequence[TrainingRun], methods: Sequence[str], key: str, most: int = MOST_POINTS) -> list[Curve]:
    """Return a curve of a metric for each method that logged it."""
    curves = []
    for method in methods:
        courses = [(run.steps, run.log[key]) for run in runs if run.method == method and key in run.log]
        if any(math.isfinite(value) for _, values in courses for value in values):
            curves.append(mean_curve(method, courses, most=most))
    return curves


def k_panel(runs: Sequence[TrainingRun], methods: Sequence[str], title: str) -> Panel:
    """Return the course of k of these methods."""
    return Panel(title, tuple(_curves(runs, methods, "rvpo/k")))


def log_panels(runs: Sequence[TrainingRun], methods: Sequence[str], kind: str) -> list[Panel]:
    """Return a panel per channel with the course of `mean`, `dead`, `missing` or another logged kind."""
    panels = [
        Panel(shown, tuple(_curves(runs, methods, f"channels/{name}/{kind}")))
        for name, shown in channel_names(runs).items()
    ]
    return sorted((panel for panel in panels if panel.curves), key=lambda panel: panel.title)


def weight_maps(runs: Sequence[TrainingRun], methods: Sequence[str]) -> list[WeightMap]:
    """Return each method's channel weights over training, averaged over its runs, in at most 40 columns."""
    maps = []
    shown = dict(sorted(channel_names(runs).items(), key=lambda pair: pair[1]))
    for method in methods:
        curves = {
            shown[name]: curve
            for name in shown
            for curve in _curves(runs, [method], f"channels/{name}/weight", MOST_COLUMNS)
        }
        if curves:
            steps = tuple(sorted({step for curve in curves.values() for step in curve.steps}))
            means = [dict(zip(curve.steps, curve.mean, strict=True)) for curve in curves.values()]
            rows = tuple(tuple(row.get(step, math.nan) for step in steps) for row in means)
            maps.append(WeightMap(method, tuple(curves), steps, rows))
    return maps


def k_in_words(panel: Panel, unaffected: Sequence[str], labels: Labels) -> str:
    """Return the course of k in words, and on which methods it has no effect."""
    clauses = []
    for curve in panel.curves:
        known = [value for value in curve.mean if math.isfinite(value)]
        if max(known) - min(known) > SAME:
            clauses.append(f"{labels[curve.method]} goes from {number(known[0])} to {number(known[-1])}")
        else:
            clauses.append(f"{labels[curve.method]} stays at {number(known[0])}")
    without = f" It has no effect on {listed(unaffected)}." if unaffected else ""
    return f"k: {'; '.join(clauses)}.{without}" if clauses else without.strip()


def weights_in_words(maps: Sequence[WeightMap], labels: Labels) -> str:
    """Return which channel each method weighs most and least at the end."""
    clauses = []
    for weights in maps:
        last = {name: last_finite(row) for name, row in zip(weights.channels, weights.values, strict=True)}
        known = {name: value for name, value in last.items() if math.isfinite(value)}
        low, high = min(known, key=lambda name: known[name]), max(known, key=lambda name: known[name])
        if known[high] - known[low] <= ALIKE * known[high]:
            ends = number(known[low]) if number(known[low]) == number(known[high]) else span(known[low], known[high])
            clauses.append(f"{labels[weights.method]} about alike on all ({ends})")
        else:
            most, least = f"{high} ({number(known[high])})", f"{low} ({number(known[low])})"
            clauses.append(f"{labels[weights.method]} most on {most}, least on {least}")
    return f"At the last logged step: {'; '.join(clauses)}." if clauses else ""


def ends_in_words(panels: Sequence[Panel], labels: Labels) -> str:
    """Return how many channels each run raises and lowers from the first to the last logged step."""
    clauses = []
    for method, label in labels.items():
        ends = [curve.ends for panel in panels for curve in panel.curves if curve.method == method]
        raised, lowered = sum(last > first for first, last in ends), sum(last < first for first, last in ends)
        clauses.append(f"{label}: of {plural(len(ends), 'channel')} {raised} higher and {lowered} lower")
    return f"Mean reward at the last logged step against the first: {'; '.join(clauses)}."


def dead_in_words(panels: Sequence[Panel], labels: Labels) -> str:
    """Return where most groups are without spread at the end."""
    ends = [(last_finite(curve.mean), panel, curve) for panel in panels for curve in panel.curves]
    if not ends:
        return ""
    value, panel, curve = max(ends, key=lambda end: end[0])
    if value == 0:
        return "At the last logged step no channel is dead in any group."
    return (
        "A channel is dead in a group of answers that it rates all alike: it then teaches nothing there. At the last "
        f"logged step the highest dead share is {percent(value, 1)}, in {panel.title} under {labels[curve.method]}."
    )


def missing_in_words(panels: Sequence[Panel], labels: Labels) -> str:
    """Return how many rewards were missing."""
    shares = [(value, panel, curve) for panel in panels for curve in panel.curves for value in curve.high]
    known = [share for share in shares if math.isfinite(share[0])]
    if not known:
        return ""
    value, panel, curve = max(known, key=lambda share: share[0])
    if value == 0:
        return "No reward was missing."
    where = f"in {panel.title} under {labels[curve.method]}"
    return f"Rewards were missing: up to {percent(value, 1)} at a logged step, {where}."
