"""From sums over blocks of prompts to the figures of channels, methods and pairs, with their intervals."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from rvpo.audit.result import ChannelAudit, Course, Estimate, Forecast, MethodAudit, Pair
from rvpo.audit.signals import Signal
from rvpo.audit.sums import Layout, PairSums, Sums
from rvpo.core.zscores import divide
from rvpo.stats import NEGLECTED, lowest_third

__all__ = ["HORIZON", "LEVEL", "Estimates", "channel_audit", "course", "estimate", "method_audit", "pairs", "verdict"]

LEVEL = 0.95
"""Coverage of the intervals."""
HORIZON = 2.0
"""How far the outlook looks ahead; chosen on seeds 0 and 1 of the neglect suite's runs (docs/findings.md)."""
EDGE = 0.01
"""Means are kept this far from 0 and 1 before they are put on the logit scale."""
STEEPEST = 30.0
"""Largest logit of an outlook, so that exp does not overflow."""
ENOUGH_DRAWS = 0.5
"""A figure has an interval if more than this share of the bootstrap draws have the figure."""
CURVE_POINTS = 12
"""Points of a course over the steps."""

Figures = dict[str, Float[np.ndarray, "..."]]


@dataclass(frozen=True)
class Estimates:
    """Every figure of an audit, with intervals. L channels, S signals."""

    values: Figures
    low: Figures
    high: Figures

    def __call__(self, name: str, *index: int) -> Estimate:
        """Return a figure by name, with the indices of its channel and its signal."""
        return Estimate(*(float(part[name][index]) for part in (self.values, self.low, self.high)))


def estimate(
    blocks: Float[np.ndarray, "B F"],
    layout: Layout,
    ranges: Float[np.ndarray, "L 2"],
    *,
    reference: int,
    draws: int,
    seed: int,
) -> Estimates:
    """Return all figures with 95 % percentile bootstrap intervals over blocks of prompts.

    Per channel: `mean`, `recent` (mean of the last third of the steps), `drift` (last third less first third), `std`,
    `dead`, `solved`, `failed`, `recent_failed` (`failed` of the last third), `missing`, `share` (criteria per prompt),
    `rest` (correlation with the sum of the other channels), `length` (correlation with the length of the answer),
    `noise` (variance among equal answers over variance in the group). Per channel and signal:

        change   E_p[Cov_g(R_j, A)] / sqrt(E_p[Var_g(A)])       in reward units per unit of advantage
        outlook  sigmoid(logit(m_j) + HORIZON s_j change / E_p[Var_g(R_j)])

    where m_j is the recent mean, s_j the share, and m_j, change and variance are on the scale [0, 1]. Per signal:
    `bias` (correlation with the length), `lowest` and `all` (mean of the lowest third of the outlooks, and of all),
    `ahead` (`lowest` less that of the reference). With a single block there are no intervals.
    """
    joined = _with_thirds(blocks, layout)

    def figures(rows: Float[np.ndarray, "D F"]) -> Figures:
        whole, early, late = np.split(rows, [layout.width, layout.width + 2 * layout.channels], axis=1)
        return _figures(Sums(whole, layout), early, late, ranges, reference)

    values = {name: array[0] for name, array in figures(joined.sum(axis=0, keepdims=True)).items()}
    number = len(blocks)
    if number < 2:
        unknown = {name: np.full_like(array, np.nan) for name, array in values.items()}
        return Estimates(values, unknown, unknown)
    weights = np.random.default_rng(seed).multinomial(number, np.full(number, 1 / number), size=draws)
    ends = {name: _ends(array) for name, array in figures(weights.astype(np.float64) @ joined).items()}
    return Estimates(values, *({name: end[index] for name, end in ends.items()} for index in (0, 1)))


def _with_thirds(blocks: Float[np.ndarray, "B F"], layout: Layout) -> Float[np.ndarray, "B E"]:
    """Return the sums with total and count of the first third of the steps beside them, and more of the last third."""
    sums = Sums(blocks, layout)
    early, late = thirds(sums)
    levels = [sums.channel("total"), sums.channel("count")]
    groups = [sums.channel("failed"), sums.channel("has")]
    of_early, of_late = np.concatenate(levels, axis=1), np.concatenate([*levels, *groups], axis=1)
    return np.concatenate([blocks, of_early * early[:, None], of_late * late[:, None]], axis=1)


def block_steps(sums: Sums) -> Float[np.ndarray, " B"]:
    """Return the mean step of each block; NaN without a group."""
    return _ratio(sums.group("step"), sums.group("groups"))


def thirds(sums: Sums) -> tuple[Bool[np.ndarray, " B"], Bool[np.ndarray, " B"]]:
    """Tell which blocks lie in the first and in the last third of the range of steps; all in both at a single step."""
    step = block_steps(sums)
    first, last = np.nanmin(step), np.nanmax(step)
    width = (last - first) / 3
    return step <= first + width, step >= last - width


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
    """Return the figures of D rows of sums: of the whole log, or of bootstrap draws."""
    has, spread, groups = sums.channel("has"), sums.channel("spread"), sums.group("groups")[:, None]
    total, count, failed, late_has = np.split(late, 4, axis=1)
    recent, before = _ratio(total, count), _ratio(*np.split(early, 2, axis=1))
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
        "recent_failed": _ratio(failed, late_has),
        "missing": 1.0 - _ratio(sums.channel("count"), sums.channel("size")),
        "share": _ratio(has, groups),
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
    """Return change and outlook of each channel under each signal; lowest, all and ahead of each signal.

    A channel without any reward counts as 1 in the lowest third: it argues against no method.
    """
    scale = np.sqrt(_ratio(sums.signal("variance"), sums.signal("count")))[:, None, :]
    total = sums.covariance()
    covariance = _ratio(total, np.broadcast_to(sums.channel("spread")[..., None], total.shape))
    change = np.where(np.isnan(covariance), np.nan, divide(covariance, scale, scale > 0))
    std = np.sqrt(variance)[..., None]
    width = np.where(ranges[:, 1] > ranges[:, 0], ranges[:, 1] - ranges[:, 0], 1.0)
    level = np.clip((figures["recent"] - ranges[:, 0]) / width, EDGE, 1 - EDGE)
    push = divide(figures["share"][..., None] * change * width[:, None], std**2, std > 0)
    logit = np.log(level / (1 - level))[..., None] + HORIZON * push
    outlook = 1.0 / (1.0 + np.exp(-np.clip(logit, -STEEPEST, STEEPEST)))
    lowest = lowest_third(np.nan_to_num(outlook, nan=1.0).swapaxes(1, 2))
    return {
        "change": change,
        "outlook": outlook,
        "lowest": lowest,
        "all": _ratio(np.nansum(outlook, axis=1), (~np.isnan(outlook)).sum(axis=1)),
        "ahead": lowest - lowest[:, reference, None],
    }


def _ends(drawn: Float[np.ndarray, "D ..."]) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]:
    """Return the ends of the percentile interval over the draws that have a value; NaN unless most have a value."""
    ordered = np.sort(drawn, axis=0)  # NaN comes last
    number = (~np.isnan(drawn)).sum(axis=0)
    enough = number > ENOUGH_DRAWS * len(drawn)

    def at(rank: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        picked = np.take_along_axis(ordered, rank.astype(int)[None], axis=0)[0]
        return np.where(enough, picked, np.nan)

    return at(np.floor((number - 1) * (1 - LEVEL) / 2)), at(np.ceil((number - 1) * (1 + LEVEL) / 2))


def verdict(change: Estimate, recent: float) -> str:
    """Return in a word where a channel goes, by its forecast and its recent mean (on [0, 1]).

    rises: the interval of the forecast is above 0. at risk: it is not, and the recent mean is below `NEGLECTED`.
    falls: the interval is below 0. stalls: it holds 0. unknown: there is no interval.
    """
    if math.isnan(change.low) or math.isnan(recent):
        return "unknown"
    if change.low > 0:
        return "rises"
    if recent < NEGLECTED:
        return "at risk"
    return "falls" if change.high < 0 else "stalls"


def channel_audit(
    index: int,
    name: str,
    ranges: Float[np.ndarray, "L 2"],
    estimates: Estimates,
    signals: Sequence[Signal],
    pair_sums: PairSums,
    totals: Sums,
) -> ChannelAudit:
    """Return the figures of a channel, given by its index."""
    low, high = map(float, ranges[index])
    recent = estimates("recent", index)
    level = (recent.value - low) / (high - low) if high > low else math.nan
    forecasts = {}
    for place, signal in enumerate(signals):
        change = estimates("change", index, place)
        weighed = pair_sums.weighed[place, index]
        forecasts[signal.name] = Forecast(
            change=change,
            outlook=estimates("outlook", index, place),
            weight=float(pair_sums.weight[place, index] / weighed) if weighed else math.nan,
            verdict=verdict(change, level),
        )
    plain = ("mean", "drift", "std", "dead", "solved", "failed", "recent_failed", "missing", "share", "rest", "length",
             "noise")  # fmt: skip
    return ChannelAudit(
        name=name,
        range=(low, high),
        recent=recent,
        level=level,
        forecasts=forecasts,
        values=int(totals.channel("count")[index]),
        repeats=int(totals.channel("twin_freedom")[index]),
        **{figure: estimates(figure, index) for figure in plain},
    )


def method_audit(index: int, signal: Signal, estimates: Estimates, channels: Sequence[ChannelAudit]) -> MethodAudit:
    """Return the figures of a signal, given by its index."""
    verdicts = {channel.name: channel.forecasts[signal.name].verdict for channel in channels}
    return MethodAudit(
        name=signal.name,
        method=signal.method_name,
        k=signal.k,
        lowest=estimates("lowest", index),
        all=estimates("all", index),
        ahead=estimates("ahead", index),
        bias=estimates("bias", index),
        at_risk=tuple(name for name, word in verdicts.items() if word == "at risk"),
        falls=tuple(name for name, word in verdicts.items() if word == "falls"),
    )


def pairs(names: Sequence[str], sums: PairSums) -> list[Pair]:
    """Return the mean correlation of every two channels inside groups where both vary, and its standard error."""
    correlations = []
    for i, first in enumerate(names):
        for j in range(i + 1, len(names)):
            number = int(sums.count[i, j])
            if number:
                mean = float(sums.correlation[i, j]) / number
                variance = max(float(sums.squares[i, j]) / number - mean**2, 0.0)
                error = (variance / (number - 1)) ** 0.5 if number > 1 else math.nan
                correlations.append(Pair(first, names[j], mean, error, number))
    return correlations


def course(blocks: Sums) -> Course:
    """Return each channel's mean and dead share over the steps, in `CURVE_POINTS` equal parts of their range."""
    step = block_steps(blocks)
    known = ~np.isnan(step)
    if not known.any() or step[known].min() == step[known].max():
        return Course((), (), ())
    low, high = step[known].min(), step[known].max()
    part = np.minimum((step[known] - low) / (high - low) * CURVE_POINTS, CURVE_POINTS - 1).astype(int)
    member = (np.arange(CURVE_POINTS)[:, None] == part).astype(np.float64)
    sums = Sums(member @ blocks.array[known], blocks.layout)
    filled = sums.group("groups") > 0

    def over_steps(total: str, count: str) -> tuple[tuple[float, ...], ...]:
        return tuple(tuple(map(float, row)) for row in _ratio(sums.channel(total), sums.channel(count))[filled].T)

    return Course(
        tuple(map(float, block_steps(sums)[filled])), over_steps("total", "count"), over_steps("dead", "has")
    )
