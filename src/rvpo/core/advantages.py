"""From rewards on many channels to advantages: group z-scores, soft minimum, re-centring, whitening.

    >>> import numpy as np
    >>> rewards = np.array([[[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0]]])  # (P, G, M) = (1, 4, 2)
    >>> compute_advantages(rewards, method="rvpo", k=1.0).advantages.round(2)
    array([[-0.23, -0.23,  1.41, -0.95]])

One of two channels met is worth less than the mean of both says: that is the variance penalty.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from rvpo.core.aggregations import Aggregate
from rvpo.core.arrays import Array, as_array, compute_dtype, device, namespace
from rvpo.core.batch_statistics import join, moments_of
from rvpo.core.diagnostics import AdvantageStats, GroupStats, group_stats, summarise
from rvpo.core.inputs import Batch, as_arrays, check_batch, check_settings, refuse, token_counts
from rvpo.core.methods import Aggregation, Method, find_method
from rvpo.core.zscores import STD_EPS, Channels, divide, standardize
from rvpo.errors import ConfigError
from rvpo.ranges import outside

__all__ = ["PRESETS", "AdvantageResult", "aggregate_block", "compute_advantages"]

PRESETS: dict[str, dict[str, Any]] = {
    "trl": {"ddof": 1, "eps": 1e-4, "whiten": True},
    "verl": {"ddof": 1, "eps": 1e-6, "whiten": "token"},
}
"""Conventions of others as keyword arguments: `compute_advantages(rewards, **PRESETS["verl"], lengths=n)`.

trl: group std with ddof 1 plus 1e-4, whitened over sequences. verl: plus 1e-6, whitened over tokens, so a
long response counts for more in the mean and the variance. The paper states none of these; the defaults are TRL's.
"""

CPU_BLOCK, ACCELERATOR_BLOCK = 2**18, 2**25
"""Rewards handled at once: a float64 block with its temporaries stays in a CPU's cache, and large batches
do not need several float64 copies of all rewards. On an accelerator a block only bounds the memory."""


@dataclass(frozen=True)
class AdvantageResult:
    """Advantages, and beside them what describes the channels they come from."""

    advantages: Array
    """(P, G), or (N,) if the rewards were (N, M): array type, device and float type of the rewards."""
    unwhitened: Float[Array, "P G"]
    """The advantages before whitening; a rollout that is not in `kept` may have any number."""
    kept: Bool[Array, "P G"]
    """The rollout has a reward, and the method did not drop it; the others have advantage 0."""
    k: float
    """Risk coefficient that was used."""
    groups: GroupStats
    """Statistics of every group, for `stats`."""

    @cached_property
    def stats(self) -> AdvantageStats:
        """Counts and diagnostics of the batch, computed when first asked for."""
        return summarise(self.groups, self.unwhitened, self.kept, self.k)


def compute_advantages(
    rewards: Any,
    *,
    method: str | Method | Aggregation = "rvpo",
    group_size: int | None = None,
    k: float | None = None,
    weights: Any = None,
    ranges: Any = None,
    ddof: int = 1,
    eps: float = STD_EPS,
    dead_channels: str = "keep",
    recenter: bool = False,
    whiten: bool | str = True,
    lengths: Any = None,
    **options: Any,
) -> AdvantageResult:
    """Advantages of P x G rollouts from M reward channels, NaN-aware, with diagnostics.

    1. `Z = (R - mean_g R) / (std_g R + eps)` per channel inside its group, over the values present.
    2. `A[p,g] = aggregation(Z[p,g,:])`; for "rvpo" `-(1/k) log sum_j pi_j exp(-k Z_j)`.
    3. `recenter`: A minus its group mean.
    4. `whiten`: `(A - mean A) / (std A + eps)` over the batch.

    The defaults are the paper's (arXiv 2605.05750). Computed in float64 where the device has it.

    Args:
        rewards: `(P, G, M)`, or `(N, M)` with `group_size` (rollouts of a prompt next to each other). NumPy,
            torch or any array-API library, or nested lists. NaN (None in lists): no value. A group with
            fewer rollouts is filled with all-NaN rows; a criterion that a prompt lacks is NaN there.
        method: a name in `rvpo.METHODS` (each function in `rvpo.core.aggregations` defines one), or your own as a
            function, a `rvpo.Method` or "package.module:function"; see docs/add-a-method.md.
        group_size: G, for rewards of shape (N, M).
        k: risk coefficient >= 0; 0 is the mean, inf the minimum. None: the method's own, 1 or for "rvpo_policy" 2.
        weights: importance of each channel, `(M,)` or `(P, M)`, >= 0, not all 0. None: equal. The soft
            minimum and its kin normalise them over the channels present; the sums (grpo, gdpo, dvao,
            corr_grpo, gd2po) take them as they are. Weight 0 is as no value.
        ranges: `(low, high)` for all channels or one pair each, `(M, 2)`. "rvpo_policy" and "tchebycheff"
            need them to compare channels and take [0, 1] without. Values outside are an error.
        ddof: 0 or 1, for the group's and the batch's standard deviation.
        eps: added to standard deviations, >= 0.
        dead_channels: "keep" leaves a dead channel (fewer than two values in the group, or equal ones) in
            the aggregation with Z = 0, as the paper does; "mask" takes it out there.
        recenter: take out the per-prompt offset that a soft minimum leaves.
        whiten: True: over sequences, if the method has that step ("grpo", "dvao", "corr_grpo", "maxrl", "pow3r"
            set their scale inside the group instead); "sequence" or "token": for every method; False: for none.
        lengths: number of tokens of each response, `(P, G)` or `(N,)`, for `whiten="token"`.
        options: of the method: `share` (cvar), `threshold` (gd2po), `ideal` (tchebycheff), `gamma` (sa_mrpo), `cap`
            and `symmetric` (dara), `blend`, `lowest` and `highest` (pow3r), `utility`, `signal`, `total` and `anchor`
            (rvpo_policy; anchor "group", "batch", or channel means on [0, 1] as `(M,)` or `(P, M)`, for example a
            moving average).

    Returns:
        `advantages` in the rewards' shape without M, array type, device and float type; `stats`.
        A rollout without any value gets 0 and takes no part in any statistic. G = 1 or all channels dead:
        0 before whitening. M = 1: Z itself. A batch of equal advantages is 0 after whitening.

    Raises:
        RewardError: shapes that do not fit, infinite rewards, values outside their range, bad weights.
        ConfigError: an unknown method or option, k < 0, a method that does not return an `Aggregate`, and the like.
    """
    method = find_method(method, options)
    k = method.default_k if k is None else k
    check_settings(k, ddof, eps, dead_channels, whiten, lengths)
    rewards = as_array(rewards)
    xp = namespace(rewards)
    if ranges is None and method.needs_range:
        ranges = (0.0, 1.0)
    batch = check_batch(rewards, group_size, weights, ranges)
    standardized = partial(_channels, batch, ddof=ddof, eps=eps, mask_dead=dead_channels == "mask")
    blocks = _blocks(batch.rewards)
    options = as_arrays(options, batch, method.of_batch)
    if missing := [name for name in method.of_batch if name not in options]:
        moments = join([moments_of(standardized(block)) for block in blocks])
        options |= {name: method.of_batch[name](moments) for name in missing}
    advantages, kept, groups = _aggregate(method, float(k), options, map(standardized, blocks))

    if recenter:
        advantages = _recenter(advantages, kept)
    unwhitened = advantages
    if whiten and (method.whitens or whiten is not True):
        tokens = token_counts(lengths, advantages) if whiten == "token" else None
        # What rounding is measured by: z-scores are of order 1, and so are sums of them, or as small as the weights.
        unit = xp.clip(xp.max(batch.weights), max=1.0)
        advantages = _whiten(advantages, kept, tokens, unit, ddof=ddof, eps=eps)
    return AdvantageResult(_like_input(advantages, kept, rewards), unwhitened, kept, float(k), groups)


def _aggregate(
    method: Method, k: float, options: dict[str, Any], blocks: Iterable[Channels]
) -> tuple[Float[Array, "P G"], Bool[Array, "P G"], GroupStats]:
    """Return the advantages of all blocks, which rollouts are kept, and, beside them, what describes the groups."""
    by_prompt = [name for name in ("anchor", *method.of_batch) if name in options and options[name].shape[0] > 1]
    advantages, kept, groups, start = [], [], [], 0
    for channels in blocks:
        stop = start + channels.z.shape[0]
        of_block = {name: options[name][start:stop, ...] for name in by_prompt}
        aggregate = aggregate_block(method, channels, k, options | of_block)
        advantages.append(aggregate.advantages)
        kept.append(channels.scored if aggregate.kept is None else channels.scored & aggregate.kept)
        groups.append(group_stats(channels, aggregate))
        start = stop
    xp = namespace(advantages[0])
    described = GroupStats(*(xp.concat(parts, axis=0) for parts in zip(*groups, strict=True)))
    return xp.concat(advantages, axis=0), xp.concat(kept, axis=0), described


def _recenter(advantages: Float[Array, "P G"], kept: Bool[Array, "P G"]) -> Float[Array, "P G"]:
    """Subtract each group's mean over its kept rollouts."""
    xp = namespace(advantages)
    counted = xp.astype(kept, advantages.dtype)
    total = xp.sum(advantages * counted, axis=1, keepdims=True)
    return advantages - total / xp.clip(xp.sum(counted, axis=1, keepdims=True), min=1.0)


def _whiten(
    advantages: Float[Array, "P G"],
    kept: Bool[Array, "P G"],
    tokens: Float[Array, "P G"] | None,
    unit: Float[Array, ""],
    *,
    ddof: int,
    eps: float,
) -> Float[Array, "P G"]:
    """`(A - mean) / (std + eps)` over kept rollouts, each counted once or once per token."""
    xp = namespace(advantages)
    weight = xp.astype(kept, advantages.dtype) * (1.0 if tokens is None else tokens)
    total = xp.sum(weight)
    mean = xp.sum(weight * advantages) / xp.clip(total, min=1.0)
    deviations = advantages - mean
    std = xp.sqrt(xp.sum(weight * deviations * deviations) / xp.clip(total - ddof, min=1.0))
    # Equal advantages may differ by the rounding of what was added up to them; an eps of 0 would blow that up to 1.
    size = xp.sqrt(xp.sum(weight * advantages * advantages) / xp.clip(total, min=1.0))
    return divide(deviations, std + eps, std > 1e-12 * xp.maximum(size, unit))


def _like_input(advantages: Float[Array, "P G"], kept: Bool[Array, "P G"], rewards: Array) -> Array:
    """Return advantages with 0 for rollouts that are not kept, in the shape and float type of the rewards."""
    xp = namespace(advantages)
    advantages = xp.where(kept, advantages, 0.0)
    if rewards.ndim == 2:
        advantages = xp.reshape(advantages, (-1,))
    floating = xp.isdtype(rewards.dtype, "real floating")
    return xp.astype(advantages, rewards.dtype) if floating else advantages


def _blocks(rewards: Float[Array, "P G M"]) -> list[slice]:
    """Return blocks of prompts; one empty block for an empty batch."""
    prompts, rollouts, channels = rewards.shape
    on_cpu = str(getattr(device(rewards), "type", device(rewards))) == "cpu"
    size = CPU_BLOCK if on_cpu else ACCELERATOR_BLOCK
    step = max(size // max(rollouts * channels, 1), 1)
    return [slice(start, min(start + step, prompts)) for start in range(0, max(prompts, 1), step)]


def _channels(batch: Batch, block: slice, *, ddof: int, eps: float, mask_dead: bool) -> Channels:
    """Check and standardise a block of prompts."""
    xp = namespace(batch.rewards)
    rewards, missing = _checked(batch, block)
    low, width = xp.zeros_like(batch.weights[:1, ...]), xp.ones_like(batch.weights[:1, ...])
    if batch.ranges is not None:
        low, width = batch.ranges[0, ...], batch.ranges[1, ...] - batch.ranges[0, ...]
    weights = batch.weights if batch.weights.shape[0] == 1 else batch.weights[block, ...]
    with np.errstate(over="ignore", invalid="ignore"):
        channels = standardize(
            rewards, missing, weights=weights, low=low, width=width, ddof=ddof, eps=eps, mask_dead=mask_dead
        )
    if not _sum_is_finite(channels.mean) or not _sum_is_finite(channels.std):
        limit = float(xp.finfo(rewards.dtype).max) ** 0.5 / rewards.shape[1]
        why = f"is too large to square; rescale rewards beyond {limit:.0e}"
        refuse(xp.abs(rewards) > limit, rewards, block.start, why)
    return channels


def _checked(batch: Batch, block: slice) -> tuple[Float[Array, "P G M"], Bool[Array, "P G M"] | None]:
    """Return the rewards of a block with 0 where none is, and where that is; None: none is missing.

    Raises RewardError for an infinite reward, and for one outside its range.
    """
    xp = namespace(batch.rewards)
    rewards = xp.astype(batch.rewards[block, ...], compute_dtype(batch.rewards))
    missing = None
    if not _sum_is_finite(rewards):  # in one cheap pass: nothing is missing or infinite
        missing = xp.isnan(rewards)
        rewards = xp.where(missing, 0.0, rewards)
        if not _sum_is_finite(rewards):
            why = "is infinite; return None or NaN for 'no value', or a finite one"
            refuse(xp.isinf(rewards), rewards, block.start, why)
    if batch.ranges is not None:
        wrong = outside(rewards, batch.ranges[0, ...], batch.ranges[1, ...])
        wrong = wrong if missing is None else wrong & ~missing
        refuse(wrong, rewards, block.start, "lies outside its range; declare the channel's true range with ranges=")
    return rewards, missing


def _sum_is_finite(values: Float[Array, "P G M"]) -> bool:
    """Tell whether the values' sum is finite; NumPy would warn of the infinities that this looks for."""
    xp = namespace(values)
    with np.errstate(invalid="ignore", over="ignore"):
        return bool(xp.isfinite(xp.sum(values)))


def aggregate_block(method: Method, channels: Channels, k: float, options: dict[str, Any]) -> Aggregate:
    """Call the method; raise ConfigError unless it returns one finite advantage a rollout."""
    xp = namespace(channels.z)
    aggregate = method.function(channels, k, **options)
    shape = channels.z.shape[:2]
    if not isinstance(aggregate, Aggregate) or tuple(aggregate.advantages.shape) != shape:
        seen = aggregate.advantages.shape if isinstance(aggregate, Aggregate) else type(aggregate).__name__
        raise ConfigError(
            f"method {method.name!r} must return an rvpo.Aggregate with advantages of shape {shape} (prompts, "
            f"rollouts), got {seen}"
        )
    if not bool(xp.all(xp.isfinite(aggregate.advantages))):
        raise ConfigError(
            f"method {method.name!r} returned an advantage that is not finite for finite rewards; "
            "rvpo.core.zscores.divide divides without one where a spread or a sum is 0"
        )
    return aggregate
