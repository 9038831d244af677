"""Schedules of the risk coefficient k: functions of the global step, so a resumed run stays on the curve.

    >>> k = linear(0.5, 2.0)          # the paper's schedule on rubric tasks
    >>> [k(step, 100) for step in (0, 50, 100)]
    [0.5, 1.25, 2.0]

A schedule is called as `schedule(step, total_steps)` and returns what `compute_advantages` takes as `k`: a
number >= 0, or `EffectiveChannels`, which fixes the number of channels that share the advantage and leaves k
to each group's rewards. Steps past the end keep the last value.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from rvpo.core.aggregations import Aggregate
from rvpo.core.arrays import Array, namespace
from rvpo.core.zscores import Channels
from rvpo.errors import ConfigError, unknown_name

__all__ = [
    "EffectiveChannels",
    "Schedule",
    "constant",
    "cosine",
    "effective",
    "from_config",
    "linear",
    "step",
]


@dataclass(frozen=True)
class EffectiveChannels:
    """A k for each group such that its rollouts' advantage rests on a chosen share of the channels.

    k solves `mean_g exp(H(w[p,g])) / #active = share` by bisection, w the channel weights (for RVPO
    softmax(log pi - k Z[p,g])) and H their entropy. The
    gap between soft minimum and minimum is log(M)/k, so a fixed k means less risk for a long rubric than
    for a short one; a fixed share does not depend on M. Groups stay independent of one another. Where no k
    reaches the share (one channel, dead channels, ties), k is `k_max`.
    """

    share: float
    """Share of the active channels, in (0, 1]; 1 is the mean (k = 0)."""
    k_max: float = 20.0
    """Largest k, > 0."""

    def __post_init__(self) -> None:
        """Check the values."""
        if not 0 < self.share <= 1 or not 0 < self.k_max < math.inf:
            raise ConfigError(f"EffectiveChannels needs 0 < share <= 1 and a finite k_max > 0, got {self}")

    def solve(
        self, aggregation: Callable[[Array], Aggregate], channels: Channels, steps: int = 30
    ) -> Float[Array, "P 1"]:
        """Return k for each group of the batch, to k_max / 2^steps, for an aggregation as a function of k."""
        xp = namespace(channels.z)
        number = xp.broadcast_to(xp.sum(channels.active, axis=2), channels.z.shape[:2])
        counted = xp.astype(number > 0, number.dtype)
        rollouts = xp.clip(xp.sum(counted, axis=1, keepdims=True), min=1.0)
        low = xp.zeros_like(rollouts)
        high = low + self.k_max
        for _ in range(steps):
            middle = 0.5 * (low + high)
            shares = xp.exp(entropy(aggregation(middle).channel_weights)) / xp.clip(number, min=1.0)
            above = xp.sum(shares * counted, axis=1, keepdims=True) / rollouts > self.share
            low, high = xp.where(above, middle, low), xp.where(above, high, middle)
        return xp.where(high >= self.k_max, high, 0.5 * (low + high))


RiskCoefficient = float | EffectiveChannels
Schedule = Callable[[int, int], RiskCoefficient]


def entropy(weights: Float[Array, "... M"]) -> Float[Array, "..."]:
    """Return `H = -sum_j w_j log w_j` in nats over the last axis, with 0 log 0 = 0."""
    xp = namespace(weights)
    return -xp.sum(weights * xp.log(weights + xp.finfo(weights.dtype).smallest_normal), axis=-1)


def check_k(k: Any) -> float:
    """Return k as a float; raise ConfigError unless it is a number >= 0 (inf is allowed)."""
    if isinstance(k, bool) or not isinstance(k, float | int | np.floating | np.integer) or not k >= 0:
        raise ConfigError(f"the risk coefficient k must be a number >= 0 (0: mean, inf: minimum), got {k!r}")
    return float(k)


def progress(step: int, total_steps: int) -> float:
    """Return the share of the run that is done, in [0, 1]; a run of no steps is at its end."""
    return min(max(step / total_steps, 0.0), 1.0) if total_steps > 0 else 1.0


def _ends(start: float, end: float) -> tuple[float, float]:
    """Return both ends of a curve; raise ConfigError unless they are finite numbers >= 0."""
    ends = check_k(start), check_k(end)
    if math.inf in ends:
        raise ConfigError(f"a curve from k = {start} to {end} needs finite ends; use method 'hard_min' for k = inf")
    return ends


def constant(k: float) -> Schedule:
    """k(step) = k."""
    value = check_k(k)
    return lambda step, total_steps: value


def linear(start: float, end: float) -> Schedule:
    """k(step) = start + (end - start) * step / total_steps. The paper's: 0.5 to 2.0."""
    first, last = _ends(start, end)
    return lambda step, total_steps: first + (last - first) * progress(step, total_steps)


def cosine(start: float, end: float) -> Schedule:
    """k(step) = end + (start - end) * (1 + cos(pi * step / total_steps)) / 2: slow at both ends."""
    first, last = _ends(start, end)
    return lambda now, total: last + (first - last) * (1 + math.cos(math.pi * progress(now, total))) / 2


def step(values: Mapping[float, float]) -> Schedule:
    """k jumps: `{0: 0.5, 0.5: 1.0, 0.8: 2.0}` gives the value at the last share of the run that was passed.

    >>> k = step({0: 0.5, 0.5: 2.0})
    >>> k(49, 100), k(50, 100)
    (0.5, 2.0)
    """
    points = sorted((float(share), check_k(k)) for share, k in values.items())
    if not points or points[0][0] != 0 or points[-1][0] > 1:
        raise ConfigError(f"a step schedule starts at share 0 and stays within 1, got {dict(values)}")
    return lambda now, total: [k for share, k in points if share <= progress(now, total)][-1]


def effective(share: float, end: float | None = None, k_max: float = 20.0) -> Schedule:
    """Hold the effective number of channels at `share` of the active ones, or go linearly to `end`."""
    last = share if end is None else end
    EffectiveChannels(last, k_max)
    first = EffectiveChannels(share, k_max)
    return lambda now, total: EffectiveChannels(first.share + (last - first.share) * progress(now, total), k_max)


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "constant": constant,
    "cosine": cosine,
    "effective": effective,
    "linear": linear,
    "step": step,
}


def from_config(name: str, options: Mapping[str, Any]) -> Schedule:
    """Return the schedule of that name, as a configuration file names it.

    >>> from_config("linear", {"start": 0.5, "end": 2.0})(100, 100)
    2.0
    """
    if name not in SCHEDULES:
        raise unknown_name("schedule", name, SCHEDULES)
    try:
        return SCHEDULES[name](**options)
    except TypeError as error:
        raise ConfigError(f"schedule {name!r} does not take {dict(options)}: {error}") from error
