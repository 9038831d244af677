"""Statistics of comparisons: sign-flip test, bootstrap intervals, Holm's correction, and what "neglected" means.

    >>> result = paired_test([3.0, 4.0, 6.0, 7.0, 9.0], [2.0, 3.0, 5.0, 6.0, 8.0])
    >>> result.difference, result.p_value
    (1.0, 0.0625)
    >>> result.verdict
    'no difference shown'

Five pairs that all differ by 1 are not enough: of the 32 ways to swap a and b inside the pairs, two differ as
much, so p = 2/32.

Scores of one training run or one conversation are not independent of each other. `blocks` says which belong
together; the block is then the unit of inference, and every block counts once, however many scores it has.
"""

import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from rvpo.errors import ConfigError

__all__ = [
    "NEGLECTED",
    "Interval",
    "PairedTest",
    "Ratio",
    "bootstrap_interval",
    "bootstrap_ratio",
    "holm",
    "lowest_third",
    "paired_test",
]

NEGLECTED = 0.3
"""A channel is neglected where its mean, on the scale [0, 1], is below this."""

EXACT_UNITS = 12
"""Up to this many units all 2^n sign flips are tried, at most 4096."""

CHUNK = 2**20
"""Random numbers held at once, so that memory does not grow with the number of draws."""

Labels = Sequence[Hashable] | np.ndarray


@dataclass(frozen=True)
class Interval:
    """A mean and its bootstrap interval."""

    mean: float
    """Mean of the values present; with blocks, the mean of the blocks' means."""
    low: float
    high: float
    count: int
    """Number of values present, over all blocks."""


@dataclass(frozen=True)
class Ratio:
    """A ratio of two means over the same things, and its bootstrap interval."""

    value: float
    low: float
    high: float
    pairs: int
    """Complete pairs."""


@dataclass(frozen=True)
class PairedTest:
    """Two sets of scores of the same things, compared."""

    difference: float
    """mean(a) - mean(b) over the complete pairs; with blocks, the mean of the blocks' differences."""
    low: float
    """Lower end of the bootstrap interval of the difference; NaN with a single unit."""
    high: float
    p_value: float
    """Two-sided, of the hypothesis that a and b could be swapped in any unit."""
    effect_size: float
    """Cohen's d_z: mean over standard deviation (ddof 1) of the units' differences. Where these are all equal
    it is 0 if they are 0, else inf with their sign; NaN with a single unit."""
    pairs: int
    """Complete pairs."""
    blocks: int
    """Units of inference: blocks with a complete pair, or the pairs themselves without blocks."""
    dropped: int
    """Pairs left out because a or b is NaN."""
    level: float = 0.95
    """Coverage of the interval; 1 - level is what the verdict holds p_value against."""

    @property
    def verdict(self) -> str:
        """What the test shows: "a is higher", "b is higher" or "no difference shown" (p_value > 1 - level)."""
        if self.p_value > 1 - self.level or self.difference == 0:
            return "no difference shown"
        return "a is higher" if self.difference > 0 else "b is higher"


class Blocks(NamedTuple):
    """Values sorted by block: block u holds `values[starts[u] : starts[u] + sizes[u]]`."""

    values: Float[np.ndarray, " N"]
    starts: Int[np.ndarray, " U"]
    sizes: Int[np.ndarray, " U"]

    @property
    def means(self) -> Float[np.ndarray, " U"]:
        """Mean of each block."""
        return np.asarray(np.add.reduceat(self.values, self.starts) / self.sizes)


def paired_test(
    a: Any,
    b: Any,
    *,
    seed: int = 0,
    draws: int = 10_000,
    blocks: Labels | None = None,
    level: float = 0.95,
    mid_p: bool = False,
) -> PairedTest:
    """Compare paired scores: is `difference = mean(a) - mean(b)` more than chance?

    With d the differences of the units (of pairs, or the means of a - b inside each block):

    - p-value by sign flips, `P(|sum_u s_u d_u| >= |sum_u d_u|)` with s_u = +-1 independently: exact over all
      2^n flips for n <= 12 units, else `(1 + hits) / (1 + draws)` over random ones, so never 0.
    - interval by percentile bootstrap over units; with blocks hierarchical: blocks are drawn with replacement,
      then pairs with replacement inside each drawn block.
    - effect size `mean(d) / std(d)`, ddof 1.

    p-value, difference and effect size with blocks are therefore those of a test on the blocks' means. One
    unit: p = 1, interval and effect size NaN. Equal scores throughout: p = 1, everything else 0.

    Args:
        a: scores, one per pair; NaN or None where there is none.
        b: scores of the same items or seeds in the same order.
        seed: of the random flips and draws; the same seed gives the same result.
        draws: number of random flips and of bootstrap draws.
        blocks: a label per pair, for example the training seed that the pair comes from.
        level: coverage of the interval, in (0, 1).
        mid_p: random flips that tie with what was observed count half (Lancaster 1961). Of right and wrong answers
            many do, and counting them in full finds differences in 2.5 to 4.5 % of pairs without any, not in 5 %.

    Raises:
        ConfigError: unequal lengths, no complete pair, infinite scores, draws or level out of their domain.
    """
    _check(seed, draws, level)
    first, second = _scores(a, "a"), _scores(b, "b")
    if first.size != second.size:
        raise ConfigError(f"paired scores must have equal lengths, got {first.size} and {second.size}")
    grouped = _grouped(first - second, blocks)
    units, rng = grouped.means, np.random.default_rng(seed)
    # Differences that are equal on paper differ by the rounding of the scores: no spread, and ties in the flips.
    rounding = 1e-12 * float(np.nanmax(np.abs([first, second])))
    p_value = _sign_flip_p(units, rng, draws, rounding, mid_p)
    low, high = _percentiles(grouped, rng, draws, level)
    return PairedTest(
        difference=float(units.mean()),
        low=low,
        high=high,
        p_value=p_value,
        effect_size=_effect_size(units, rounding),
        pairs=grouped.values.size,
        blocks=units.size,
        dropped=first.size - grouped.values.size,
        level=level,
    )


def bootstrap_interval(
    values: Any, *, seed: int = 0, draws: int = 10_000, level: float = 0.95, blocks: Labels | None = None
) -> Interval:
    """Mean of the values and its percentile bootstrap interval.

    NaN and None are left out. With `blocks` (one label per value) blocks are drawn with replacement, then
    values inside each drawn block, and every block counts once. A single value or block says nothing about
    the spread: low and high are NaN.

    Raises:
        ConfigError: no value, infinite values, draws or level out of their domain, blocks of another length.
    """
    _check(seed, draws, level)
    grouped = _grouped(_scores(values, "values"), blocks)
    low, high = _percentiles(grouped, np.random.default_rng(seed), draws, level)
    return Interval(float(grouped.means.mean()), low, high, grouped.values.size)


def bootstrap_ratio(a: Any, b: Any, *, seed: int = 0, draws: int = 10_000, level: float = 0.95) -> Ratio:
    """`mean(a) / mean(b)` over the complete pairs, and its percentile bootstrap interval over pairs.

    A draw in which b is 0 throughout has no ratio and is left out. Without a positive mean of b the ratio is NaN,
    with a single pair the interval.

        >>> bootstrap_ratio([3.0, 3.0], [2.0, 2.0])
        Ratio(value=1.5, low=1.5, high=1.5, pairs=2)

    Raises:
        ConfigError: unequal lengths, no complete pair, negative b, and what `bootstrap_interval` refuses.
    """
    _check(seed, draws, level)
    above, below = _scores(a, "a"), _scores(b, "b")
    if above.size != below.size:
        raise ConfigError(f"paired scores must have equal lengths, got {above.size} and {below.size}")
    complete = ~(np.isnan(above) | np.isnan(below))
    above, below = above[complete], below[complete]
    if not above.size or below.min() < 0:
        raise ConfigError(f"a ratio needs complete pairs with b >= 0, got {above.size} with b {below.tolist()}")
    if not below.sum() > 0:
        return Ratio(math.nan, math.nan, math.nan, above.size)
    value = float(above.sum() / below.sum())
    if above.size == 1:
        return Ratio(value, math.nan, math.nan, 1)
    rng, ratios = np.random.default_rng(seed), []
    for rows in _chunks(draws, above.size):
        chosen = rng.integers(0, above.size, size=(rows, above.size))
        totals = below[chosen].sum(axis=1)
        ratios.append(above[chosen].sum(axis=1)[totals > 0] / totals[totals > 0])
    low, high = np.quantile(np.concatenate(ratios), [(1 - level) / 2, (1 + level) / 2])
    return Ratio(value, float(low), float(high), above.size)


def holm(p_values: Any) -> Float[np.ndarray, " n"]:
    """Holm-Bonferroni adjusted p-values, in the order given (Holm 1979).

    With the m p-values sorted upwards: `adjusted_(i) = min(1, max_{j <= i} (m - j + 1) p_(j))`. Rejecting where
    the adjusted value is at most alpha keeps the chance of any false rejection below alpha, whatever the
    dependence between the tests. NaN (a test that was not made) stays NaN and does not count in m.

        >>> holm([0.01, 0.04, 0.03]).tolist()
        [0.03, 0.06, 0.06]

    Raises:
        ConfigError: a value outside [0, 1].
    """
    values = _scores(p_values, "p_values")
    made = np.flatnonzero(~np.isnan(values))
    tested = values[made]
    if tested.size and not (tested.min() >= 0 and tested.max() <= 1):
        raise ConfigError(f"p-values must lie in [0, 1], got {tested.min():g} to {tested.max():g}")
    order = np.argsort(tested, kind="stable")
    factors = np.arange(tested.size, 0, -1)
    adjusted = np.full(values.shape, np.nan)
    adjusted[made[order]] = np.minimum(np.maximum.accumulate(factors * tested[order]), 1.0)
    return adjusted


def lowest_third(means: Any) -> Any:
    """Return the mean of the ceil(M/3) lowest of M channel means, along the last axis: how the worst-served fare.

    >>> lowest_third([0.5, 0.25, 1.0, 0.75])
    0.375
    """
    ordered = np.sort(np.asarray(means, dtype=np.float64), axis=-1)
    lowest = ordered[..., : math.ceil(ordered.shape[-1] / 3)].mean(axis=-1)
    return float(lowest) if ordered.ndim == 1 else lowest


def _check(seed: int, draws: int, level: float) -> None:
    """Raise ConfigError for a seed, a number of draws or a level out of its domain."""
    for name, value, least in (("seed", seed, 0), ("draws", draws, 1)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise ConfigError(f"{name} must be a whole number >= {least}, got {value!r}")
    if not 0 < level < 1:
        raise ConfigError(f"level must lie in (0, 1), as 0.95 for a 95 % interval, got {level!r}")


def _scores(values: Any, name: str) -> Float[np.ndarray, " n"]:
    """Return values as a 1-D float array, None as NaN; raise ConfigError for what is no score."""
    try:
        scores = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name} must hold numbers, or NaN or None for 'no score': {error}") from error
    if scores.ndim != 1:
        raise ConfigError(f"{name} must have one axis, got shape {scores.shape}")
    if np.isinf(scores).any():
        raise ConfigError(f"{name} must hold finite scores, got {scores[np.isinf(scores)][0]}; use NaN for 'no score'")
    return scores


def _grouped(values: Float[np.ndarray, " n"], blocks: Labels | None) -> Blocks:
    """Return the values present, sorted by block; without labels every value is its own block."""
    present = ~np.isnan(values)
    if not present.any():
        raise ConfigError(f"nothing to compare: none of the {values.size} scores or pairs given is complete")
    kept = values[present]
    if blocks is None:
        return Blocks(kept, np.arange(kept.size), np.ones(kept.size, dtype=np.int64))
    if len(blocks) != values.size:
        raise ConfigError(f"blocks must hold one label per score or pair, got {len(blocks)} for {values.size}")
    if any(label is None or label != label for label in blocks):
        raise ConfigError("blocks must name a block for every score or pair, got a None or NaN among the labels")
    numbers: dict[Hashable, int] = {}
    codes = np.array([numbers.setdefault(label, len(numbers)) for label in blocks])[present]
    _, sizes = np.unique(codes, return_counts=True)
    return Blocks(kept[np.argsort(codes, kind="stable")], np.cumsum(sizes) - sizes, sizes)


def _sign_flip_p(
    units: Float[np.ndarray, " U"], rng: np.random.Generator, draws: int, rounding: float, mid_p: bool
) -> float:
    """Return the two-sided p-value of the units' sum under random signs; ties count as hits, or random ones half."""
    observed = abs(units.sum()) - units.size * rounding
    if units.size <= EXACT_UNITS:
        flips = np.arange(2**units.size)[:, None] >> np.arange(units.size) & 1
        return float(np.mean(np.abs((2 * flips - 1) @ units) >= observed))
    hits = 0.0
    for rows in _chunks(draws, units.size):
        flips = rng.integers(0, 2, size=(rows, units.size), dtype=np.int8)
        sums = np.abs((2 * flips - 1) @ units)
        hits += float(np.sum(sums >= observed))
        if mid_p and observed > 0:  # no difference at all has p = 1
            hits -= float(np.sum((sums >= observed) & (sums <= observed + 2 * units.size * rounding))) / 2
    return (1 + hits) / (1 + draws)


def _percentiles(grouped: Blocks, rng: np.random.Generator, draws: int, level: float) -> tuple[float, float]:
    """Return the ends of the percentile bootstrap interval of the mean; NaN with a single block."""
    number, widest = grouped.sizes.size, int(grouped.sizes.max())
    if number == 1:
        return math.nan, math.nan
    means = []
    for rows in _chunks(draws, number * widest):
        chosen = rng.integers(0, number, size=(rows, number))
        means.append(_resampled(grouped, chosen, widest, rng).mean(axis=1))
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _resampled(
    grouped: Blocks, chosen: Int[np.ndarray, "D U"], widest: int, rng: np.random.Generator
) -> Float[np.ndarray, "D U"]:
    """Return the mean of every chosen block, its values drawn anew with replacement."""
    if widest == 1:
        return np.asarray(grouped.values[chosen])
    sizes, starts = grouped.sizes[chosen][..., None], grouped.starts[chosen][..., None]
    high = widest if grouped.sizes.min() == widest else sizes  # one bound draws the same numbers, three times as fast
    picks = grouped.values[starts + rng.integers(0, high, size=(*chosen.shape, widest))]
    counted = np.arange(widest) < sizes  # a block smaller than the widest uses only its own number of draws
    return np.asarray((picks * counted).sum(axis=2) / sizes[..., 0])


def _chunks(draws: int, size: int) -> Iterator[int]:
    """Split a number of draws of `size` random numbers each into what fits into CHUNK."""
    step = max(CHUNK // size, 1)
    for start in range(0, draws, step):
        yield min(step, draws - start)


def _effect_size(units: Float[np.ndarray, " U"], rounding: float) -> float:
    """Return Cohen's d_z; a mean or spread within rounding counts as 0."""
    if units.size == 1:
        return math.nan
    mean, std = float(units.mean()), float(units.std(ddof=1))
    if std > rounding:
        return mean / std
    return math.copysign(math.inf, mean) if abs(mean) > rounding else 0.0
