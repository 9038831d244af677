"""Standardise every reward channel inside its group, NaN-aware: the first step that GDPO and RVPO share."""

from typing import NamedTuple

from jaxtyping import Bool, Float

from rvpo.core.arrays import Array, namespace

__all__ = ["STD_EPS", "Channels", "Seen", "divide", "group_statistics", "standardize"]

STD_EPS = 1e-4
"""Added to standard deviations where nothing else is asked for, as in TRL."""


class Seen(NamedTuple):
    """What a group has of each channel, whether the channel's weight is 0 or not: for logs, not for aggregations."""

    mean: Float[Array, "P 1 M"]
    """Mean over the rollouts of the group that have a value; 0 without any."""
    std: Float[Array, "P 1 M"]
    """Standard deviation over the same values; exactly 0 with fewer than two, or equal ones."""
    count: Float[Array, "P 1 M"]
    """Number of rollouts of the group that have a value."""


class Channels(NamedTuple):
    """The rewards of a batch, channel by channel, as an aggregation sees them.

    P prompts, G rollouts of each prompt, M channels. Where `present` is 0, `rewards` and `z` hold a 0 that is
    only a placeholder: no aggregation reads it. Masks are floats (0 or 1) and broadcast, because a batch
    without missing values then needs no mask of its own size, and multiplying by one is faster than `where`.
    """

    rewards: Float[Array, "P G M"]
    """Rewards as given."""
    z: Float[Array, "P G M"]
    """Rewards standardised inside the group; 0 in a dead channel."""
    mean: Float[Array, "P 1 M"]
    """Mean over the rollouts of the group that have a value; 0 without any."""
    std: Float[Array, "P 1 M"]
    """Standard deviation over the same values; exactly 0 in a dead channel."""
    count: Float[Array, "P 1 M"]
    """Number of rollouts of the group that have a value; 0 if the channel's weight is."""
    present: Float[Array, "#P #G M"]
    """1 where the rollout has a value in this channel (and the channel's weight is not 0)."""
    active: Float[Array, "#P #G M"]
    """1 where the channel takes part in the aggregation: `present`, less dead channels if these are masked."""
    weights: Float[Array, "#P 1 M"]
    """Importance of each channel as the user gave it, not normalised."""
    low: Float[Array, "1 1 M"]
    """Lower end of each channel's declared range; 0 where none is declared."""
    width: Float[Array, "1 1 M"]
    """Width of each channel's declared range; 1 where none is declared."""
    ddof: int
    """The variance inside a group is the sum of squares over `count - ddof`."""
    eps: float
    """Added to the standard deviation by which z is divided."""
    seen: Seen
    """Mean, standard deviation and count, of channels of weight 0 too."""

    @property
    def live(self) -> Bool[Array, "P 1 M"]:
        """The channel has at least two values in the group, and they differ."""
        return self.std > 0

    @property
    def scored(self) -> Bool[Array, "P G"]:
        """The rollout has a value in at least one channel."""
        xp = namespace(self.z)
        return xp.broadcast_to(xp.max(self.present, axis=2) > 0, self.z.shape[:2])


def divide(
    numerator: Float[Array, "..."], denominator: Float[Array, "..."], where: Bool[Array, "..."]
) -> Float[Array, "..."]:
    """Return numerator / denominator where `where` holds and 0 elsewhere, without a warning.

    >>> import numpy as np
    >>> divide(np.ones(2), np.array([4.0, 0.0]), np.array([True, False]))
    array([0.25, 0.  ])
    """
    xp = namespace(denominator)
    return xp.where(where, numerator / xp.where(where, denominator, 1.0), 0.0)


def group_statistics(
    values: Float[Array, "P G M"],
    present: Float[Array, "#P #G M"],
    count: Float[Array, "P 1 M"],
    *,
    ddof: int,
) -> tuple[Float[Array, "P G M"], Float[Array, "P 1 M"], Float[Array, "P 1 M"]]:
    """Return deviations from the group mean, the mean and the standard deviation, per prompt and channel.

    `mean = sum x / n`, `std = sqrt(sum (x - mean)^2 / (n - ddof))` over the n values present; `values`
    holds 0 where none is. Deviations are 0 there. std is 0 with fewer than two values, and with equal ones: a spread
    below the rounding error of the mean is no spread.
    """
    xp = namespace(values)
    mean = xp.sum(values, axis=1, keepdims=True) / xp.clip(count, min=1.0)
    deviations = values - mean
    if present.shape[1] > 1:  # else nothing is missing
        deviations *= present  # in place, here and below: a fresh large array costs more than the arithmetic
    squares = xp.sum(deviations * deviations, axis=1, keepdims=True)
    std = xp.sqrt(squares / xp.clip(count - ddof, min=1.0))
    rounding = xp.clip(count, min=8.0) * xp.finfo(values.dtype).eps * xp.abs(mean)
    return deviations, mean, xp.where((count >= 2) & (std > rounding), std, 0.0)


def standardize(
    rewards: Float[Array, "P G M"],
    missing: Bool[Array, "P G M"] | None,
    *,
    weights: Float[Array, "#P 1 M"],
    low: Float[Array, "1 1 M"],
    width: Float[Array, "1 1 M"],
    ddof: int,
    eps: float,
    mask_dead: bool,
) -> Channels:
    """Return the channels of a batch with their group z-scores.

    `Z[p,g,j] = (R[p,g,j] - mean_g R[p,:,j]) / (std_g R[p,:,j] + eps)` over the rollouts that have a value
    (RVPO, arXiv 2605.05750; GDPO, arXiv 2601.05242). A channel with fewer than two values in a group, or
    with equal values, is dead there: its z is 0. With `mask_dead` it is also left out of `active`.
    A channel of weight 0 counts as having no value, except in `seen`. `rewards` holds 0 where `missing`; None: no
    value is.
    """
    xp = namespace(rewards)
    if missing is None:
        present = xp.ones_like(weights, dtype=rewards.dtype)
        count = xp.zeros_like(rewards[:, :1, :]) + present * rewards.shape[1]
    else:
        present = xp.astype(~missing, rewards.dtype)
        count = xp.sum(present, axis=1, keepdims=True)
    deviations, mean, std = group_statistics(rewards, present, count, ddof=ddof)
    seen = Seen(mean, std, count)
    weighted = xp.astype(weights > 0, rewards.dtype)
    present, count, mean, std = present * weighted, count * weighted, mean * weighted, std * weighted
    live = std > 0
    z = deviations
    z *= divide(xp.ones_like(std), std + eps, live)
    return Channels(
        rewards=rewards,
        z=z,
        mean=mean,
        std=std,
        count=count,
        present=present,
        active=present * xp.astype(live, rewards.dtype) if mask_dead else present,
        weights=weights,
        low=low,
        width=width,
        ddof=ddof,
        eps=eps,
        seen=seen,
    )
