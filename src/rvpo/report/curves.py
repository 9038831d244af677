"""What the figures of a report draw: courses over training, averaged over seeds and thinned to what can be seen."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

__all__ = ["MOST_POINTS", "Curve", "Panel", "WeightMap", "bins", "finite_mean", "last_finite", "mean_curve"]

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
