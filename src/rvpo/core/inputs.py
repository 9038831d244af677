"""Checks of what `compute_advantages` is given: bad input is an error that names the place, never a number."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Shaped

from rvpo.core.arrays import Array, compute_dtype, device, namespace
from rvpo.core.schedules import check_k
from rvpo.errors import ConfigError, RewardError
from rvpo.ranges import outside

__all__ = [
    "Batch",
    "as_arrays",
    "check_batch",
    "check_settings",
    "refuse",
    "token_counts",
]


class Batch(NamedTuple):
    """Checked input of `compute_advantages`."""

    rewards: Float[Array, "P G M"]
    weights: Float[Array, "#P 1 M"]
    ranges: Float[Array, "2 1 1 M"] | None


def check_settings(k: Any, ddof: int, eps: Any, dead_channels: str, whiten: object, lengths: object) -> None:
    """Raise ConfigError for a setting out of its domain."""
    check_k(k)
    if ddof not in (0, 1):
        raise ConfigError(f"ddof must be 0 or 1, got {ddof!r}")
    if not isinstance(eps, float | int | np.floating | np.integer) or not 0 <= eps < float("inf"):
        raise ConfigError(f"eps must be a finite number >= 0, got {eps!r}")
    if dead_channels not in ("keep", "mask"):
        raise ConfigError(f"dead_channels must be 'keep' or 'mask', got {dead_channels!r}")
    if not (isinstance(whiten, bool) or whiten in ("sequence", "token")):
        raise ConfigError(f"whiten must be True, False, 'sequence' or 'token', got {whiten!r}")
    if whiten == "token" and lengths is None:
        raise ConfigError("whiten='token' needs the number of tokens of each response: pass lengths=")


def check_batch(rewards: Array, group_size: int | None, weights: Any, ranges: Any) -> Batch:
    """Return the rewards as (P, G, M), still in their own float type, with weights and ranges as arrays."""
    xp = namespace(rewards)
    rewards = _grouped(rewards, group_size)
    if not xp.isdtype(rewards.dtype, "real floating"):
        rewards = xp.astype(rewards, compute_dtype(rewards))
    prompts, _, channels = rewards.shape
    if weights is None:
        weights = [1.0] * channels
    weights = _as_floats(weights, rewards)
    if weights.shape not in ((channels,), (prompts, channels)):
        raise RewardError(
            f"weights must have shape ({channels},) or ({prompts}, {channels}) for rewards of {channels} "
            f"channels and {prompts} prompts, got {tuple(weights.shape)}"
        )
    with np.errstate(over="ignore"):
        total = xp.sum(weights, axis=-1)
    if not bool(xp.all(weights >= 0) & xp.all((total > 0) & (total < xp.inf))):
        raise RewardError(f"weights must be finite, >= 0 and not all 0, got {weights}")
    weights = xp.reshape(weights, (-1, 1, channels))
    return Batch(rewards, weights, None if ranges is None else _check_ranges(ranges, rewards))


def _grouped(rewards: Array, group_size: int | None) -> Shaped[Array, "P G M"]:
    """Return the rewards as (P, G, M)."""
    shape = tuple(rewards.shape)
    if group_size is not None and (not isinstance(group_size, int) or group_size < 1):
        raise RewardError(f"group_size must be a whole number >= 1, got {group_size!r}")
    if len(shape) not in (2, 3) or 0 in shape[1:]:
        raise RewardError(f"rewards must be (P, G, M), or (N, M) with group_size, with G, M >= 1; got {shape}")
    if len(shape) == 3:
        if group_size not in (None, shape[1]):
            raise RewardError(f"group_size={group_size}, but the rewards {shape} have {shape[1]} rollouts a prompt")
        return rewards
    if group_size is None:
        raise RewardError(f"rewards of shape {shape} need group_size, the number of rollouts of each prompt")
    if shape[0] % group_size:
        raise RewardError(
            f"{shape[0]} rollouts cannot be split into groups of group_size={group_size}; "
            "fill groups that lack rollouts with NaN rows"
        )
    return namespace(rewards).reshape(rewards, (-1, group_size, shape[1]))


def _as_floats(values: Any, like: Array) -> Array:
    """Return values as an array of the kind and on the device of `like`, in its compute dtype."""
    xp = namespace(like)
    return xp.asarray(values, dtype=compute_dtype(like), device=device(like))


def _check_ranges(ranges: Any, rewards: Float[Array, "P G M"]) -> Float[Array, "2 1 1 M"]:
    xp = namespace(rewards)
    channels = rewards.shape[2]
    ranges = _as_floats(ranges, rewards)
    if ranges.shape not in ((2,), (channels, 2)):
        raise RewardError(
            f"ranges must be (low, high) or one pair for each of the {channels} channels, "
            f"got shape {tuple(ranges.shape)}"
        )
    ranges = xp.broadcast_to(ranges, (channels, 2))
    if not bool(xp.all(xp.isfinite(ranges)) & xp.all(ranges[:, 1] > ranges[:, 0])):
        raise RewardError(f"every range must be finite with low < high, got {ranges}")
    return xp.reshape(xp.permute_dims(ranges, (1, 0)), (2, 1, 1, channels))


def refuse(bad: Bool[Array, "P G M"], block: Float[Array, "P G M"], start: int, why: str) -> None:
    """Raise RewardError for the first reward that is bad."""
    xp = namespace(bad)
    if not bool(xp.any(bad)):
        return
    _, rollouts, channels = bad.shape
    flat = int(xp.argmax(xp.astype(xp.reshape(bad, (-1,)), xp.int32)))
    value = float(xp.reshape(block, (-1,))[flat])
    row, channel = divmod(flat, channels)
    prompt, rollout = divmod(row, rollouts)
    raise RewardError(
        f"reward {value} of channel {channel}, prompt {start + prompt}, rollout {rollout} "
        f"(row {start * rollouts + row} of the batch) {why}"
    )


def as_arrays(options: dict[str, Any], batch: Batch, of_batch: Iterable[str]) -> dict[str, Any]:
    """Return the options with those that go by channel as arrays (#P, 1, M), and without the anchor "group".

    These are the anchor of rvpo_policy, and the method's statistics of the batch where they are given.
    """
    arrays = {name: _statistic(name, options[name], batch) for name in of_batch if name in options}
    if "anchor" in options and not (isinstance(options["anchor"], str) and options["anchor"] == "group"):
        arrays["anchor"] = _anchor(options["anchor"], batch)
    return {name: value for name, value in options.items() if name != "anchor"} | arrays


def _anchor(anchor: Any, batch: Batch) -> Float[Array, "#P 1 M"]:
    """Return channel means on [0, 1]: given ones, or for "batch" those of the batch."""
    xp = namespace(batch.rewards)
    if isinstance(anchor, str):
        if anchor != "batch":
            raise ConfigError(f"anchor must be 'group', 'batch' or channel means on [0, 1], got {anchor!r}")
        low, high = (0.0, 1.0) if batch.ranges is None else (batch.ranges[0, ...], batch.ranges[1, ...])
        return (_batch_means(batch.rewards) - low) / (high - low)
    anchor = _of_channels("anchor", anchor, batch)
    if bool(xp.any(outside(anchor, 0.0, 1.0) | xp.isnan(anchor))):
        raise RewardError(f"anchor must hold channel means on the common scale [0, 1], got {anchor}")
    return anchor


def _statistic(name: str, values: Any, batch: Batch) -> Float[Array, "#P 1 M"]:
    """Return a statistic of the batch that is given."""
    xp = namespace(batch.rewards)
    array = _of_channels(name, values, batch)
    if not bool(xp.all((array >= 0) & (array < xp.inf))):
        raise RewardError(f"{name} must be finite and >= 0, got {array}")
    return array


def _of_channels(name: str, values: Any, batch: Batch) -> Float[Array, "#P 1 M"]:
    """Return what is given for each channel, or for each prompt and channel, as an array."""
    prompts, _, channels = batch.rewards.shape
    array = _as_floats(values, batch.rewards)
    if array.shape not in ((channels,), (prompts, channels)):
        raise RewardError(f"{name} must have shape ({channels},) or ({prompts}, {channels}), got {tuple(array.shape)}")
    return namespace(array).reshape(array, (-1, 1, channels))


def _batch_means(rewards: Float[Array, "P G M"]) -> Float[Array, "1 1 M"]:
    """Return each channel's mean over all values of the batch; 0 without any."""
    xp = namespace(rewards)
    present = ~xp.isnan(rewards)
    dtype = compute_dtype(rewards)
    total = xp.sum(xp.where(present, rewards, 0.0), axis=(0, 1), keepdims=True, dtype=dtype)
    return total / xp.clip(xp.sum(xp.astype(present, dtype), axis=(0, 1), keepdims=True), min=1.0)


def token_counts(lengths: Any, advantages: Float[Array, "P G"]) -> Float[Array, "P G"]:
    """Return the number of tokens of each response in the advantages' shape and type."""
    xp = namespace(advantages)
    lengths = _as_floats(lengths, advantages)
    prompts, rollouts = advantages.shape
    if lengths.shape not in ((prompts, rollouts), (prompts * rollouts,)):
        raise RewardError(f"lengths must be ({prompts}, {rollouts}) or flat, got {tuple(lengths.shape)}")
    if not bool(xp.all((lengths >= 0) & (lengths < xp.inf))):
        raise RewardError("lengths must be finite numbers of tokens >= 0")
    return xp.reshape(lengths, (prompts, rollouts))
