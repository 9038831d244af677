"""From sums over blocks of prompts to figures with intervals: health of channels, forecasts, outlook."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from rvpo.audit.sums import Shape, Sums
from rvpo.core.zscores import divide

__all__ = ["HORIZON", "LEVEL", "NEGLECTED", "Estimate", "Estimates", "estimate", "verdict"]

LEVEL = 0.95
NEGLECTED = 0.3
"""A mean below this, on the channel's range put on [0, 1], is low."""
HORIZON = 2.0
"""How far the outlook looks ahead; chosen on seeds 0 and 1 of the neglect suite (the laboratory's foresight)."""
EDGE = 0.01
"""Means are kept this far from 0 and 1 before they are put on the logit scale."""

Figures = dict[str, Float[np.ndarray, "..."]]


class Estimate(NamedTuple):
    """A figure with its bootstrap interval; NaN where the log does not tell."""

    value: float
    low: float = math.nan
    high: float = math.nan

    def __sub__(self, other: "Estimate") -> "Estimate":
        """Return the difference of two independent figures; half widths add up as squares."""
        value = self.value - other.value
        below = math.hypot(self.value - self.low, other.high - other.value)
        above = math.hypot(self.high - self.value, other.value - other.low)
        return Estimate(value, value - below, value + above)


@dataclass(frozen=True)
class Estimates:
    """Every figure of an audit, with intervals. L channels, S signals."""

    values: Figures
    low: Figures
    high: Figures

    def __call__(self, name: str, *index: int) -> Estimate:
        """Return one figure."""
        return Estimate(*(float(part[name][index]) for part in (self.values, self.low, self.high)))


def verdict(change: Estimate, recent: float) -> str:
    """Return what a channel's forecast says.

    rises: the interval is above 0. neglected: it is not, and the recent mean (on [0, 1]) is below `NEGLECTED`. falls:
    it is below 0. stalls: it holds 0. unknown: there is no interval.
    """
    if math.isnan(change.low) or math.isnan(recent):
        return "unknown"
    if change.low > 0:
        return "rises"
    if recent < NEGLECTED:
        return "neglected"
    return "falls" if change.high < 0 else "stalls"


def estimate(
    blocks: Float[np.ndarray, "B F"],
    shape: Shape,
    ranges: Float[np.ndarray, "L 2"],
    *,
    reference: int,
    draws: int,
    seed: int,
) -> Estimates:
    """Return all figures with 95 % percentile bootstrap intervals over blocks of prompts.

    Per channel: `mean`, `recent` (mean of the last third of the steps), `drift` (last third less first third), `std`,
    `dead`, `solved`, `failed`, `missing`, `share` (criteria per prompt), `rest` (correlation with the sum of the other
    channels), `length` (correlation with the length of the answer), `noise` (variance among equal answers over
    variance in the group). Per channel and signal:

        change       E_p[Cov_g(R_j, A)] / sqrt(E_p[Var_g(A)])       in reward units per unit of advantage
        correlation  change / sqrt(E_p[Var_g(R_j)])                 in [-1, 1] without missing values
        outlook      sigmoid(logit(m_j) + HORIZON s_j change / E_p[Var_g(R_j)])

    with m_j the recent mean, and change and variance, on [0, 1], and s_j the share. Per signal: `bias` (correlation
    with the length), `lowest` and `all` (mean of the lowest third of the outlooks, and of all), `ahead` (`lowest` less
    that of the reference). With a single block there are no intervals.
    """
    joined, parts = _with_thirds(blocks, shape)
    split = np.cumsum([part.stop - part.start for part in parts])[:-1]

    def figures(rows: Float[np.ndarray, "D F"]) -> Figures:
        whole, early, late = np.split(rows, split, axis=1)
        return _figures(Sums(whole, shape), early, late, ranges, reference)

    values = {name: array[0] for name, array in figures(joined.sum(axis=0, keepdims=True)).items()}
    if len(blocks) < 2:
        nothing = {name: np.full_like(array, np.nan) for name, array in values.items()}
        return Estimates(values, nothing, nothing)
    number = len(blocks)
    weights = np.random.default_rng(seed).multinomial(number, np.full(number, 1 / number), size=draws)
    drawn = figures(weights.astype(np.float64) @ joined)
    ends = {name: _ends(array) for name, array in drawn.items()}
    return Estimates(values, {n: low for n, (low, _) in ends.items()}, {n: high for n, (_, high) in ends.items()})


def _with_thirds(blocks: Float[np.ndarray, "B F"], shape: Shape) -> tuple[Float[np.ndarray, "B E"], list[slice]]:
    """Return the sums with total and count of the first and the last third of the steps beside them."""
    sums = Sums(blocks, shape)
    early, late = thirds(sums)
    levels = np.concatenate([sums.channel("total"), sums.channel("count")], axis=1)
    joined = np.concatenate([blocks, levels * early[:, None], levels * late[:, None]], axis=1)
    first, second = shape.width, shape.width + 2 * shape.channels
    return joined, [slice(0, first), slice(first, second), slice(second, joined.shape[1])]


def block_steps(sums: Sums) -> Float[np.ndarray, " B"]:
    """Return the mean step of each block; NaN without a group."""
    return _ratio(sums.group("step"), sums.group("groups"))


def thirds(sums: Sums) -> tuple[Bool[np.ndarray, " B"], Bool[np.ndarray, " B"]]:
    """Tell which blocks lie in the first and in the last third of the range of steps; all in both without steps."""
    step = block_steps(sums)
    known = step[~np.isnan(step)]
    if not known.size or known.min() == known.max():
        return np.ones(len(step), dtype=bool), np.ones(len(step), dtype=bool)
    width = (known.max() - known.min()) / 3
    return step <= known.min() + width, step >= known.max() - width


def _ratio(numerator: Float[np.ndarray, "..."], denominator: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Return numerator / denominator, NaN where the denominator is not above 0."""
    known = denominator > 0
    return np.where(known, numerator / np.where(known, denominator, 1.0), np.nan)


def _figures(
    sums: Sums,
    early: Float[np.ndarray, "D K"],
    late: Float[np.ndarray, "D K"],
    ranges: Float[np.ndarray, "L 2"],
    reference: int,
) -> Figures:
    """Return the figures of each row of sums."""
    has, spread, groups = sums.channel("has"), sums.channel("spread"), sums.group("groups")[:, None]
    recent, before = (_ratio(*np.split(part, 2, axis=1)) for part in (late, early))
    mean = _ratio(sums.channel("total"), sums.channel("count"))
    recent = np.where(np.isnan(recent), mean, recent)
    variance = _ratio(sums.channel("variance"), spread)
    noise = _ratio(_ratio(sums.channel("twin_squares"), sums.channel("twin_freedom")), variance)
    figures = {
        "mean": mean,
        "recent": recent,
        "drift": recent - before,
        "std": _ratio(sums.channel("std"), spread),
        **{name: _ratio(sums.channel(name), has) for name in ("dead", "solved", "failed")},
        "missing": 1.0 - _ratio(sums.channel("count"), sums.channel("size")),
        "share": _ratio(has, groups + np.zeros_like(has)),
        "rest": _ratio(sums.channel("rest"), sums.channel("rest_count")),
        "length": _ratio(sums.channel("length"), sums.channel("length_count")),
        "noise": noise,
        "bias": _ratio(sums.signal("length"), sums.signal("length_count")),
    }
    return figures | _forecasts(sums, figures, variance, ranges, reference)


def _forecasts(
    sums: Sums,
    figures: Mapping[str, Float[np.ndarray, "D L"]],
    variance: Float[np.ndarray, "D L"],
    ranges: Float[np.ndarray, "L 2"],
    reference: int,
) -> Figures:
    """Return change, correlation and outlook of every channel under every signal, and what they say of the signals."""
    scale = np.sqrt(_ratio(sums.signal("variance"), sums.signal("count")))[:, None, :]
    total = sums.covariance()
    covariance = _ratio(total, np.broadcast_to(sums.channel("spread")[..., None], total.shape))
    change = np.where(np.isnan(covariance), np.nan, divide(covariance, scale, scale > 0))
    std = np.sqrt(variance)[..., None]
    width = np.where(ranges[:, 1] > ranges[:, 0], ranges[:, 1] - ranges[:, 0], 1.0)
    level = np.clip((figures["recent"] - ranges[:, 0]) / width, EDGE, 1 - EDGE)
    push = divide(figures["share"][..., None] * change * width[:, None], std**2, std > 0)
    outlook = 1.0 / (1.0 + np.exp(-np.clip(np.log(level / (1 - level))[..., None] + HORIZON * push, -30, 30)))
    third = math.ceil(outlook.shape[1] / 3)
    empty = np.isnan(outlook).all(axis=2, keepdims=True)
    lowest = np.sort(np.where(empty, 1.0, outlook), axis=1)[:, :third].mean(axis=1)
    counted = np.maximum((~np.isnan(outlook)).sum(axis=1), 1)
    return {
        "change": change,
        "correlation": divide(change, std, std > 0),
        "outlook": outlook,
        "lowest": lowest,
        "all": np.nansum(outlook, axis=1) / counted,
        "ahead": lowest - lowest[:, reference, None],
    }


def _ends(drawn: Float[np.ndarray, "D ..."]) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]:
    """Return the ends of the percentile interval over the draws that have a value; NaN unless most have one."""
    ordered = np.sort(drawn, axis=0)  # NaN comes last
    number = (~np.isnan(drawn)).sum(axis=0)
    low = np.floor((number - 1) * (1 - LEVEL) / 2).astype(int)
    high = np.ceil((number - 1) * (1 + LEVEL) / 2).astype(int)
    enough = number > len(drawn) / 2

    def at(rank: np.ndarray) -> Float[np.ndarray, "..."]:
        picked = np.take_along_axis(ordered, np.maximum(rank, 0)[None], axis=0)[0]
        return np.where(enough, picked, np.nan)

    return at(low), at(high)
