"""The health of reward channels: who is dead, missing, in conflict, in charge, and who will be raised next.

Pure functions of logged rewards (and advantages), used by the trainer's metrics and by audits.
"""

from collections.abc import Mapping
from typing import NamedTuple

from jaxtyping import Bool, Float, Int

from rvpo.core.aggregations import Aggregate
from rvpo.core.arrays import Array, as_array, compute_dtype, device, namespace
from rvpo.core.zscores import Channels, divide, group_statistics

__all__ = [
    "AdvantageStats",
    "GroupStats",
    "by_label",
    "conflict",
    "forecast",
    "group_conflict",
    "group_forecast",
    "group_stats",
    "summarise",
]


class GroupStats(NamedTuple):
    """What is kept of each group to describe the batch: no array has both a rollout and a channel axis."""

    scored: Bool[Array, "P G"]
    """The rollout has at least one reward."""
    effective: Float[Array, "P G"]
    """exp of the entropy of the rollout's channel weights."""
    mean: Float[Array, "P M"]
    std: Float[Array, "P M"]
    count: Float[Array, "P M"]
    live: Bool[Array, "P M"]
    """The channel can move the policy: its values differ, and its weight is not 0."""
    weight: Float[Array, "P M"]
    """Channel weight, summed over the rollouts that have a value in the channel."""


class AdvantageStats(NamedTuple):
    """Diagnostics of one batch; arrays stay on the rewards' device. NaN: no group has the channel.

    Shares are in [0, 1]. The scalars are 0-dimensional arrays.
    """

    prompts: int
    rollouts: int
    channels: int
    scored: Array
    """Number of rollouts with at least one reward."""
    dropped: Array
    """Number of scored rollouts that the method dropped (gd2po)."""
    k: float
    """Risk coefficient."""
    active_channels: Array
    """Mean number of live channels (at least two values, not all equal, weight above 0) per group."""
    effective_channels: Array
    """Mean over scored rollouts of exp(entropy of the channel weights), in [1, M]."""
    offset_share: Array
    """Share of the advantage variance, before whitening, that is a per-prompt offset."""
    mean: Float[Array, " M"]
    """Mean reward over all values, on the scale of the rewards as given."""
    std: Float[Array, " M"]
    """Mean over groups (with two values or more) of the standard deviation inside the group."""
    dead_share: Float[Array, " M"]
    """Share of the groups having the channel in which it is dead: fewer than two values, or all equal."""
    missing_share: Float[Array, " M"]
    """Share of all rollouts without a value in the channel, inapplicable ones included."""
    absent_share: Float[Array, " M"]
    """Share of the groups without any value in the channel (inapplicable, or lost as a whole)."""
    weight: Float[Array, " M"]
    """Mean channel weight over the rollouts that have a value: who is the bottleneck. 0 for a channel that is only
    watched (weight 0), which has all other diagnostics."""


def entropy(weights: Float[Array, "... M"]) -> Float[Array, "..."]:
    """Return `H = -sum_j w_j log w_j` in nats over the last axis, with 0 log 0 = 0."""
    xp = namespace(weights)
    return -xp.sum(weights * xp.log(weights + xp.finfo(weights.dtype).smallest_normal), axis=-1)


def group_stats(channels: Channels, aggregate: Aggregate) -> GroupStats:
    """Reduce a block of channels and its aggregation to what describes each group."""
    xp = namespace(channels.z)
    scored = channels.scored
    weights = aggregate.channel_weights
    same_in_group = weights.shape[1] == 1
    weight = channels.count * weights if same_in_group else xp.sum(channels.present * weights, axis=1, keepdims=True)
    return GroupStats(
        scored=scored,
        effective=xp.broadcast_to(xp.exp(entropy(weights)), scored.shape),
        mean=channels.seen.mean[:, 0, :],
        std=channels.seen.std[:, 0, :],
        count=channels.seen.count[:, 0, :],
        live=channels.live[:, 0, :],
        weight=weight[:, 0, :],
    )


def ratio(numerator: Array, denominator: Array) -> Array:
    """Return numerator / denominator, NaN where the denominator is 0."""
    xp = namespace(denominator)
    defined = denominator > 0
    return xp.where(defined, numerator / xp.where(defined, denominator, 1.0), xp.nan)


def offset_share(advantages: Float[Array, "P G"], scored: Bool[Array, "P G"]) -> Float[Array, ""]:
    """Return `sum_p n_p (mean_p A - mean A)^2 / sum (A - mean A)^2` over scored rollouts; 0 if A is constant."""
    xp = namespace(advantages)
    counts = xp.astype(scored, advantages.dtype)
    kept = advantages * counts
    total = xp.clip(xp.sum(counts), min=1.0)
    mean = xp.sum(kept) / total
    group_count = xp.sum(counts, axis=1)
    group_mean = xp.sum(kept, axis=1) / xp.clip(group_count, min=1.0)
    between = xp.sum(group_count * (group_mean - mean) ** 2)
    whole = xp.sum(counts * (advantages - mean) ** 2)
    return divide(between, whole, whole > 0)


def summarise(
    groups: GroupStats, advantages: Float[Array, "P G"], kept: Bool[Array, "P G"], k: float
) -> AdvantageStats:
    """Describe a batch by its groups, its advantages before whitening and the rollouts that the method kept."""
    xp = namespace(advantages)
    prompts, rollouts = advantages.shape
    dtype = advantages.dtype
    scored = xp.astype(groups.scored, dtype)
    number_scored = xp.sum(scored)
    has_channel = xp.astype(groups.count > 0, dtype)
    has_spread = xp.astype(groups.count >= 2, dtype)
    dead = has_channel * xp.astype(groups.std == 0, dtype)
    values, with_channel = xp.sum(groups.count, axis=0), xp.sum(has_channel, axis=0)
    size = float(max(prompts * rollouts, 1))
    number = xp.asarray(float(prompts), dtype=dtype, device=device(advantages))
    return AdvantageStats(
        prompts=prompts,
        rollouts=prompts * rollouts,
        channels=groups.count.shape[1],
        scored=number_scored,
        dropped=number_scored - xp.sum(xp.astype(kept, dtype)),
        k=k,
        active_channels=ratio(xp.sum(xp.astype(groups.live, dtype)), number),
        effective_channels=ratio(xp.sum(groups.effective * scored), number_scored),
        offset_share=offset_share(advantages, kept),
        mean=ratio(xp.sum(groups.mean * groups.count, axis=0), values),
        std=ratio(xp.sum(groups.std * has_spread, axis=0), xp.sum(has_spread, axis=0)),
        dead_share=ratio(xp.sum(dead, axis=0), with_channel),
        missing_share=1.0 - values / size,
        absent_share=1.0 - with_channel / float(max(prompts, 1)),
        weight=ratio(xp.sum(groups.weight, axis=0), values),
    )


def _centred(values: Float[Array, "P G M"]) -> tuple[Array, Array, Array, Array]:
    """Return deviations from the group mean, presence, std (ddof 1) and count, in the compute dtype."""
    values = as_array(values)
    xp = namespace(values)
    values = xp.astype(values, compute_dtype(values))
    missing = xp.isnan(values)
    present = xp.astype(~missing, values.dtype)
    count = xp.sum(present, axis=1, keepdims=True)
    deviations, _, std = group_statistics(xp.where(missing, 0.0, values), present, count, ddof=1)
    return deviations, present, std, count


def mean_over_groups(values: Float[Array, "P M"]) -> Float[Array, " M"]:
    """Return the mean over the groups whose value is not NaN; NaN without any."""
    xp = namespace(values)
    known = ~xp.isnan(values)
    return ratio(xp.sum(xp.where(known, values, 0.0), axis=0), xp.sum(xp.astype(known, values.dtype), axis=0))


def group_conflict(rewards: Float[Array, "P G M"]) -> Float[Array, "P M"]:
    """Correlation of each channel with the sum of the others, inside each group; see `conflict`."""
    deviations, _, std, _ = _centred(rewards)
    xp = namespace(deviations)
    z = divide(deviations, std, std > 0)
    rest = xp.sum(z, axis=2, keepdims=True) - z
    own, others = xp.sum(z * z, axis=1), xp.sum(rest * rest, axis=1)
    norm = xp.where(others > 1e-20 * own, xp.sqrt(own * others), 0.0)  # others that cancel leave rounding only
    return ratio(xp.sum(z * rest, axis=1), norm)


def conflict(rewards: Float[Array, "P G M"]) -> Float[Array, " M"]:
    """Correlation of each channel with the sum of the others inside the group, averaged over live groups.

    `corr_g(Z_j, sum_{i != j} Z_i)` in [-1, 1]: below 0, what raises the rest lowers this channel. Missing
    values count as the channel's group mean. NaN where the channel is never live beside another live one.
    """
    return mean_over_groups(group_conflict(rewards))


def group_forecast(rewards: Float[Array, "P G M"], advantages: Float[Array, "P G"]) -> Float[Array, "P M"]:
    """Covariance of each channel with the advantages, inside each group; see `forecast`."""
    deviations, _, _, count = _centred(rewards)
    xp = namespace(deviations)
    signal = xp.astype(as_array(advantages), deviations.dtype)[..., None]
    return ratio(xp.sum(deviations * signal, axis=1), count[:, 0, :] - 1.0)


def forecast(rewards: Float[Array, "P G M"], advantages: Float[Array, "P G"]) -> Float[Array, " M"]:
    """First-order change of each channel's expected reward if the policy follows these advantages.

    `dE[R_j] = eta E_p[Cov_g(R_j, A)] + O(eta^2)`: the covariance inside the group (ddof 1) over the rollouts
    that have a value, averaged over the groups with at least two (arXiv 2602.06869). Only the sign and the
    ratios between channels mean something: eta depends on the optimiser. NaN where no group has two values.
    """
    return mean_over_groups(group_forecast(rewards, advantages))


def by_label(
    groups: GroupStats,
    labels: Int[Array, "P M"],
    number: int,
    extra: Mapping[str, Float[Array, "P M"]],
    *,
    sizes: Float[Array, " P"] | None = None,
) -> dict[str, Float[Array, " L"]]:
    """Channel diagnostics where column j holds another channel for each prompt: one value per label.

    `labels[p, j]` in [0, number) says what column j is for prompt p, -1 that it is nothing there. Returns
    mean, std, dead, missing and weight as `AdvantageStats` defines them, missing only over prompts that have
    the channel, and the mean of each `extra` over its groups. NaN: no group has a value. `sizes` is the number of
    rollouts of each prompt, if not G for all: rows that only fill a group are not missing.
    """
    xp = namespace(groups.mean)
    member = xp.astype(labels[..., None] == xp.arange(number), groups.mean.dtype)

    def total(values: Float[Array, "P M"]) -> Float[Array, " L"]:
        return xp.sum(values[..., None] * member, axis=(0, 1))

    def share(part: Float[Array, "P M"], of: Array) -> Float[Array, " L"]:
        return ratio(total(part), total(xp.astype(of, groups.mean.dtype)))

    size = (groups.scored.shape[1] if sizes is None else sizes[:, None]) * xp.ones_like(groups.count)
    has, spread = groups.count > 0, groups.count >= 2
    result = {
        "mean": share(groups.mean * groups.count, groups.count),
        "std": share(groups.std * xp.astype(spread, groups.std.dtype), spread),
        "dead": share(xp.astype(has & (groups.std == 0), groups.std.dtype), has),
        "missing": share(size - groups.count, size),
        "weight": share(groups.weight, groups.count),
    }
    for name, values in extra.items():
        known = ~xp.isnan(values)
        result[name] = share(xp.where(known, values, 0.0), known)
    return result
