"""What some methods weigh channels by: statistics of the whole batch, made of what is known of each group.

Aggregations see a batch in blocks of prompts, so `compute_advantages` makes these once for the batch and hands them
over. Each is an array that broadcasts to (P, 1, M) and does not depend on how the batch is cut into blocks.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from jaxtyping import Float, Int

from rvpo.core.arrays import Array, namespace
from rvpo.core.zscores import Channels, divide, standardize

__all__ = [
    "BatchStatistic",
    "Moments",
    "density",
    "join",
    "moments_of",
    "moments_of_rewards",
    "saturation",
    "variation",
]


class Moments(NamedTuple):
    """Count, mean and standard deviation of each channel in each group; leading axes are batches of their own."""

    count: Float[Array, "*B P 1 M"]
    mean: Float[Array, "*B P 1 M"]
    std: Float[Array, "*B P 1 M"]
    low: Float[Array, "*#B #P 1 M"]
    width: Float[Array, "*#B #P 1 M"]
    ddof: int
    """The variance inside a group is the sum of squares over `count - ddof`."""
    labels: Int[Array, "P M"] | None = None
    """What column j holds for prompt p, in [0, L), -1 where nothing, if prompts have channels of their own: a
    statistic is then one of each label. None: column j is channel j."""


BatchStatistic = Callable[[Moments], Array]


def moments_of(channels: Channels) -> Moments:
    """Return what is known of the groups of some prompts."""
    return Moments(channels.count, channels.mean, channels.std, channels.low, channels.width, channels.ddof)


def moments_of_rewards(
    rewards: Float[Array, "P G M"],
    *,
    weights: Float[Array, "#P M"],
    ranges: Float[Array, "M 2"],
    ddof: int,
    labels: Int[Array, "P M"] | None = None,
) -> Moments:
    """Return what is known of the groups of a batch; NaN: no value."""
    xp = namespace(rewards)
    missing = xp.isnan(rewards)
    low, high = ranges[None, None, :, 0], ranges[None, None, :, 1]
    channels = standardize(
        xp.where(missing, 0.0, rewards),
        missing,
        weights=weights[:, None, :],
        low=low,
        width=high - low,
        ddof=ddof,
        eps=0.0,
        mask_dead=False,
    )
    return moments_of(channels)._replace(labels=labels)


def join(blocks: Sequence[Moments]) -> Moments:
    """Return the groups of all blocks as those of one batch."""
    xp = namespace(blocks[0].mean)
    count, mean, std = (xp.concat([block[field] for block in blocks], axis=0) for field in range(3))
    return blocks[0]._replace(count=count, mean=mean, std=std)


def saturation(moments: Moments) -> Float[Array, "*B #P 1 M"]:
    """How much of its range each channel has reached: the batch mean on [0, 1]; 0 without any value."""
    return _to_columns(_mean((moments.mean - moments.low) / moments.width, moments), moments)


def variation(moments: Moments) -> Float[Array, "*B #P 1 M"]:
    """Coefficient of variation of each channel over the batch, relative to the mean over channels that have values.

    `std / mean` of the rewards less the low end of their range; 0 for all channels if no reward varies.
    """
    xp = namespace(moments.mean)
    above_low = moments.mean - moments.low
    mean = _mean(above_low, moments)
    count = _total(moments.count, moments)
    apart = above_low - _to_columns(mean, moments)
    inside = (moments.count - moments.ddof) * moments.std * moments.std
    squares = _total(inside + moments.count * apart * apart, moments)
    std = xp.sqrt(squares / xp.clip(count - moments.ddof, min=1.0))
    coefficients = divide(std, mean, mean > 0)
    known = xp.sum(xp.astype(count > 0, mean.dtype), axis=-1, keepdims=True)
    total = xp.sum(coefficients, axis=-1, keepdims=True)
    return _to_columns(divide(coefficients * known, total, total > 0), moments)


def density(moments: Moments) -> Float[Array, "*B #P 1 M"]:
    """Share of the groups in which each channel is live, among those that have it, over the largest such share.

    In [0, 1]; 0 for a channel that is dead everywhere.
    """
    xp = namespace(moments.mean)
    live = _total(xp.astype(moments.std > 0, moments.mean.dtype), moments)
    having = _total(xp.astype(moments.count > 0, moments.mean.dtype), moments)
    share = divide(live, having, having > 0)
    largest = xp.max(share, axis=-1, keepdims=True)
    return _to_columns(divide(share, largest, largest > 0), moments)


def _mean(values: Float[Array, "*B P 1 M"], moments: Moments) -> Float[Array, "*B 1 1 L"]:
    """Return the mean of each channel over all its rewards, from its group means; 0 without any."""
    xp = namespace(values)
    return _total(moments.count * values, moments) / xp.clip(_total(moments.count, moments), min=1.0)


def _total(values: Float[Array, "*B P 1 M"], moments: Moments) -> Float[Array, "*B 1 1 L"]:
    """Add up over the prompts, label by label."""
    xp = namespace(values)
    if moments.labels is None:
        return xp.sum(values, axis=-3, keepdims=True)
    labels = moments.labels[:, None, :, None]
    member = labels == xp.arange(int(xp.max(labels)) + 1)
    return xp.sum(xp.where(member, values[..., None], 0.0), axis=(0, 2))[None, ...]


def _to_columns(by_label: Float[Array, "*B 1 1 L"], moments: Moments) -> Float[Array, "*B #P 1 M"]:
    """Return the value of what each prompt's columns hold; 0 where a column holds nothing."""
    if moments.labels is None:
        return by_label
    xp = namespace(by_label)
    taken = xp.take(by_label[0, 0, :], xp.reshape(xp.clip(moments.labels, min=0), (-1,)))
    columns = xp.where(moments.labels >= 0, xp.reshape(taken, moments.labels.shape), 0.0)
    return columns[:, None, :]
