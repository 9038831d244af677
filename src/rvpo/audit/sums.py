"""What an audit keeps of a log: sums over blocks of prompts, in constant memory.

Every figure of an audit is made of sums over prompts. So each prompt is reduced to its terms of these sums, prompts
are added up in at most `BLOCKS` blocks of neighbours, and the bootstrap draws blocks: a single matrix product for all
draws.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from rvpo.audit.groups import Groups
from rvpo.audit.signals import Signal
from rvpo.core.zscores import STD_EPS, Channels, divide, standardize

__all__ = ["BLOCKS", "BlockSums", "Layout", "PairSums", "Sums", "group_sums"]

BLOCKS = 4096
"""Most blocks kept; with more prompts, blocks of 2, 4, 8, ... neighbours are added up."""
AT_END = 1e-9
"""A dead channel is solved or failed if its mean, on [0, 1], is this close to 1 or 0: rounding."""
CANCELLED = 1e-12
"""Squared norm below which the other channels of a group cancel, so that their sum is rounding."""
FLAT = 1e-18
"""Product of two sums of squares below which one of two figures does not vary: rounding."""
EQUAL = 1e-12
"""Share of their squares below which the spread among rewards of equal answers is rounding."""

GROUP = ("groups", "step")
CHANNEL = (
    "total", "count", "size", "has", "spread", "dead", "solved", "failed", "std", "variance", "rest", "rest_count",
    "length", "length_count", "twin_squares", "twin_freedom",
)  # fmt: skip
SIGNAL = ("variance", "count", "length", "length_count")


class Layout(NamedTuple):
    """Number of channels and signals: they decide where in a row each sum stands."""

    channels: int
    signals: int

    @property
    def width(self) -> int:
        """Sums per block."""
        return len(GROUP) + len(SIGNAL) * self.signals + self.channels * (len(CHANNEL) + self.signals)


class Sums:
    """Rows of sums, by name. Leading axes are whatever the array has: none, blocks, or bootstrap draws.

    Per group: `groups` with two rollouts or more, and their `step`. Per channel, over the prompts' columns: `total`
    and `count` of the values, `size` (rollouts of groups that have the channel), `has`, `spread` (two values or more),
    `dead`, `solved` and `failed` (dead at the top or bottom of the range), `std` and `variance` inside the group,
    `rest` (correlation with the sum of the others), `length` (correlation with the length), `twin_squares` and
    `twin_freedom` (spread among equal answers). Per signal: `variance` inside groups, `length`. `covariance` of every
    channel with every signal.
    """

    def __init__(self, array: Float[np.ndarray, "... F"], layout: Layout) -> None:
        self.array, self.layout = array, layout

    def group(self, name: str) -> Float[np.ndarray, "..."]:
        """Return a sum over groups."""
        return np.asarray(self.array[..., GROUP.index(name)])

    def signal(self, name: str) -> Float[np.ndarray, "... S"]:
        """Return a sum per signal."""
        start = len(GROUP) + SIGNAL.index(name) * self.layout.signals
        return self.array[..., start : start + self.layout.signals]

    def channel(self, name: str) -> Float[np.ndarray, "... L"]:
        """Return a sum per channel."""
        return np.asarray(self._by_channel()[..., CHANNEL.index(name)])

    def covariance(self) -> Float[np.ndarray, "... L S"]:
        """Return the sum of covariances inside groups, over groups with two values or more."""
        return self._by_channel()[..., len(CHANNEL) :]

    def _by_channel(self) -> Float[np.ndarray, "... L K"]:
        start = len(GROUP) + len(SIGNAL) * self.layout.signals
        return self.array[..., start:].reshape(*self.array.shape[:-1], self.layout.channels, -1)


class BlockSums:
    """Sums of neighbouring prompts, in at most `BLOCKS` rows however many prompts are added."""

    def __init__(self, layout: Layout, blocks: int = BLOCKS) -> None:
        self.prompts, self.per_block = 0, 1
        self._rows = np.zeros((blocks, layout.width))

    def add(self, prompts: Float[np.ndarray, "P F"]) -> None:
        """Add the terms of P prompts."""
        while self.prompts + len(prompts) > len(self._rows) * self.per_block:
            half = len(self._rows) // 2
            self._rows[:half] = self._rows[0::2] + self._rows[1::2]
            self._rows[half:] = 0.0
            self.per_block *= 2
        block = (self.prompts + np.arange(len(prompts))) // self.per_block
        starts = np.flatnonzero(np.diff(block, prepend=-1))
        self._rows[block[starts]] += np.add.reduceat(prompts, starts, axis=0)
        self.prompts += len(prompts)

    @property
    def rows(self) -> Float[np.ndarray, "B F"]:
        """The blocks that hold prompts."""
        return self._rows[: -(-self.prompts // self.per_block)]


@dataclass
class PairSums:
    """Sums over all groups of what has no interval: correlations between channels, channel weights of signals."""

    correlation: Float[np.ndarray, "L L"]
    squares: Float[np.ndarray, "L L"]
    """Of the correlations."""
    count: Float[np.ndarray, "L L"]
    """Correlations added up."""
    weight: Float[np.ndarray, "S L"]
    weighed: Float[np.ndarray, "S L"]
    """Rewards whose weights were added up."""

    @classmethod
    def zeros(cls, layout: Layout) -> "PairSums":
        """Return empty sums."""
        pairs, weights = (layout.channels, layout.channels), (layout.signals, layout.channels)
        return cls(np.zeros(pairs), np.zeros(pairs), np.zeros(pairs), np.zeros(weights), np.zeros(weights))


class _Standardised(NamedTuple):
    """A block of groups, standardised."""

    channels: Channels
    unit: Channels
    """The same with the rewards on the common scale [0, 1]."""
    deviations: Float[np.ndarray, "P G W"]
    labels: Int[np.ndarray, "P W"]
    member: Float[np.ndarray, "P L W"] | None
    """1 where a column belongs to a channel; None if column j is channel j."""
    exists: Bool[np.ndarray, "P G"]


def group_sums(
    groups: Groups, signals: Sequence[Signal], ranges: Float[np.ndarray, "L 2"], pairs: PairSums
) -> Float[np.ndarray, "P F"]:
    """Return each prompt's terms of all sums, and add its correlations and weights to `pairs`.

    `ranges` are the lowest and highest possible value of each channel. Groups of one rollout have zeros.
    """
    several = groups.exists().sum(axis=1) > 1
    rows = np.zeros((len(several), Layout(len(ranges), len(signals)).width))
    if not several.any():
        return rows
    groups = groups.take(several)
    view = _view(groups, ranges)
    forecasts, of_signals = _signal_terms(groups, signals, view, pairs)
    columns = np.stack([*_value_terms(view), *_conflict_terms(view, pairs), *_answer_terms(groups, view)], axis=2)
    of_channels = _to_channels(np.concatenate([columns, forecasts], axis=2), view.member)
    prompts = len(groups.values)
    step = np.zeros(prompts) if groups.step is None else groups.step
    of_groups = np.stack([np.ones(prompts), step], axis=1)
    terms = [of_groups, of_signals.reshape(prompts, -1), of_channels.reshape(prompts, -1)]
    rows[several] = np.concatenate(terms, axis=1)
    return rows


def _view(groups: Groups, ranges: Float[np.ndarray, "L 2"]) -> _Standardised:
    """Standardise a block, on the rewards' own scale and on [0, 1]."""
    prompts, _, width = groups.values.shape
    missing = np.isnan(groups.values)
    values = np.where(missing, 0.0, groups.values)
    ones, zeros, absent = np.ones((1, 1, width)), np.zeros((1, 1, width)), missing if missing.any() else None
    scales = {"weights": ones, "low": zeros, "width": ones}
    channels = standardize(values, absent, **scales, ddof=1, eps=STD_EPS, mask_dead=False)
    labels = np.broadcast_to(np.arange(width), (prompts, width)) if groups.labels is None else groups.labels
    low, high = ranges[labels, 0][:, None, :], ranges[labels, 1][:, None, :]
    scale = np.where(high > low, high - low, 1.0)
    middle = np.where(high > low, 0.0, 0.5)  # a channel of one value is neither at its best nor at its worst
    unit = channels._replace(
        rewards=((values - low) / scale + middle) * ~missing, mean=(channels.mean - low) / scale + middle
    )
    member = None
    if groups.labels is not None:
        member = (np.arange(len(ranges))[:, None] == labels[:, None, :]).astype(np.float64)
    deviations = (values - channels.mean) * ~missing
    return _Standardised(channels, unit, deviations, labels, member, groups.exists())


def _to_channels(
    columns: Float[np.ndarray, "P W K"], member: Float[np.ndarray, "P L W"] | None
) -> Float[np.ndarray, "P L K"]:
    """Add up the columns of each channel."""
    return columns if member is None else member @ columns


def _value_terms(view: _Standardised) -> list[Shaped[np.ndarray, "P W"]]:
    """Return the terms that follow from a column's rewards alone, in the order of `CHANNEL`."""
    channels = view.channels
    count, mean, std = channels.count[:, 0], channels.mean[:, 0], channels.std[:, 0]
    unit = view.unit.mean[:, 0]
    has, spread, live = count > 0, count > 1, std > 0
    dead = has & ~live
    size = view.exists.sum(axis=1)[:, None] * has
    solved, failed = dead & (unit >= 1 - AT_END), dead & (unit <= AT_END)
    return [mean * count, count, size, has, spread, dead, solved, failed, std, std**2]


def _conflict_terms(view: _Standardised, pairs: PairSums) -> list[Shaped[np.ndarray, "P W"]]:
    """Return each column's correlation with the sum of the other columns' z-scores; add up that of each pair."""
    norm = np.sqrt(np.sum(view.deviations**2, axis=1, keepdims=True))
    live = view.channels.live[:, 0].astype(np.float64)
    vectors = divide(view.deviations, norm, view.channels.live & (norm > 0))
    correlation = vectors.transpose(0, 2, 1) @ vectors
    _add_pairs(correlation, live, view, pairs)
    row = correlation.sum(axis=2)
    others = row.sum(axis=1, keepdims=True) - 2 * row + live  # squared norm of the others' sum
    known = (live > 0) & (others > CANCELLED)
    return [divide(row - live, np.sqrt(np.maximum(others, 0.0)), known), known]


def _add_pairs(
    correlation: Float[np.ndarray, "P W W"], live: Float[np.ndarray, "P W"], view: _Standardised, pairs: PairSums
) -> None:
    """Add the correlation of every two columns to the sums of their channels."""
    apart = 1.0 - np.eye(live.shape[1])
    both = live[:, :, None] * live[:, None, :] * apart
    correlation = correlation * apart
    terms = (correlation, correlation**2, both)
    for total, term in zip((pairs.correlation, pairs.squares, pairs.count), terms, strict=True):
        by_channel = term if view.member is None else view.member @ term @ view.member.transpose(0, 2, 1)
        total += by_channel.sum(axis=0)


def _answer_terms(groups: Groups, view: _Standardised) -> list[Shaped[np.ndarray, "P W"]]:
    """Return each column's correlation with the length, and its spread among equal answers."""
    unknown = [np.zeros(view.labels.shape)] * 2
    length = unknown
    if groups.length is not None:
        length = _length_correlation(groups.length, view.deviations, view.channels.present > 0)
    return [*length, *(unknown if groups.text is None else _twins(groups.text, view))]


def _length_correlation(
    length: Float[np.ndarray, "P G"], deviations: Float[np.ndarray, "P G W"], present: Bool[np.ndarray, "#P #G #W"]
) -> list[Shaped[np.ndarray, "P W"]]:
    """Return the correlation of every column with the length inside its group, and whether there is one."""
    counted = (present & ~np.isnan(length)[..., None]).astype(np.float64)
    number = np.maximum(counted.sum(axis=1, keepdims=True), 1.0)
    spread = np.nan_to_num(length)[..., None] * counted
    spread = (spread - spread.sum(axis=1, keepdims=True) / number) * counted
    rewards = deviations * counted
    rewards = (rewards - rewards.sum(axis=1, keepdims=True) / number) * counted
    squares = np.sum(spread**2, axis=1) * np.sum(rewards**2, axis=1)
    known = squares > FLAT
    return [divide(np.sum(spread * rewards, axis=1), np.sqrt(squares), known), known]


def _twins(text: Int[np.ndarray, "P G"], view: _Standardised) -> list[Float[np.ndarray, "P W"]]:
    """Return sums of squares of each column's rewards around the mean of equal answers, and their degrees of freedom.

    Twins are equal answers to the same prompt; n of them have n - 1 degrees of freedom.
    """
    prompts, rollouts, width = view.deviations.shape
    order = np.lexsort((text, ~view.exists), axis=1)
    ordered = np.take_along_axis(text, order, axis=1)
    is_first = np.ones((prompts, rollouts), dtype=bool)
    is_first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    is_first |= ~np.take_along_axis(view.exists, order, axis=1)
    if is_first.all():
        return [np.zeros((prompts, width))] * 2
    starts = np.flatnonzero(is_first)
    present = np.broadcast_to(view.channels.present, view.deviations.shape)

    def add_up(values: Float[np.ndarray, "P G W"]) -> Float[np.ndarray, "T W"]:
        in_order = np.take_along_axis(values, order[..., None], axis=1).reshape(-1, width)
        return np.asarray(np.add.reduceat(in_order, starts, axis=0))

    count, total, squares = add_up(present), add_up(view.deviations), add_up(view.deviations**2)
    apart = squares - total**2 / np.maximum(count, 1.0)
    freedom = np.maximum(count - 1.0, 0.0)
    first_of_prompt = np.searchsorted(starts, np.arange(prompts) * rollouts)
    terms = (np.where(apart > EQUAL * squares, apart, 0.0), freedom)
    return [np.asarray(np.add.reduceat(term, first_of_prompt, axis=0)) for term in terms]


def _signal_terms(
    groups: Groups, signals: Sequence[Signal], view: _Standardised, pairs: PairSums
) -> tuple[Float[np.ndarray, "P W S"], Float[np.ndarray, "P 4 S"]]:
    """Return the covariance of every column with every signal, and the signals' own terms; add up channel weights."""
    scored = view.channels.scored
    advantages = np.empty((*scored.shape, len(signals)))
    present = np.broadcast_to(view.channels.present, view.deviations.shape)
    for index, signal in enumerate(signals):
        advantages[..., index], weights = signal.advantages(view.channels, view.unit, groups.logged)
        if weights is not None:
            weight = np.einsum("pgw,pgw->pw", present, np.broadcast_to(weights, present.shape))
            terms = np.stack([weight, view.channels.count[:, 0]], axis=2)
            weight_sum, count = _to_channels(terms, view.member).sum(axis=0).T
            pairs.weight[index] += weight_sum
            pairs.weighed[index] += count
    freedom = np.maximum(view.channels.count[:, 0] - 1.0, 1.0)[..., None]
    covariance = view.deviations.transpose(0, 2, 1) @ advantages / freedom
    return covariance, _scales(advantages, scored, groups.length)


def _scales(
    advantages: Float[np.ndarray, "P G S"], scored: Bool[np.ndarray, "P G"], length: Float[np.ndarray, "P G"] | None
) -> Float[np.ndarray, "P 4 S"]:
    """Return the terms of each signal, in the order of `SIGNAL`."""
    counted = scored[..., None].astype(np.float64)
    number = counted.sum(axis=1, keepdims=True)
    deviations = (advantages - (advantages * counted).sum(axis=1, keepdims=True) / np.maximum(number, 1.0)) * counted
    variance = np.sum(deviations**2, axis=1) / np.maximum(number[:, 0] - 1.0, 1.0)
    known = np.broadcast_to(number[:, 0] > 1, variance.shape)
    of_length = [np.zeros_like(variance)] * 2
    if length is not None:
        of_length = _length_correlation(length, deviations, scored[..., None])
    return np.stack([variance, known, *of_length], axis=1)
