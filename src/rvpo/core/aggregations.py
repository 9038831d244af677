"""From many reward channels to one advantage per rollout: each method a short function.

All have the same signature, `(channels, k, **options) -> Aggregate`, and read the channels' z-scores or
rewards of some prompts (P prompts, G rollouts, M channels). Each treats groups independently of one another;
whitening over the batch comes after them, in `rvpo.core.advantages`. `rvpo.core.reweighted` has five more.

pi denotes the importance prior: the given weights, normalised over the channels active in the rollout.
"""

import math
from typing import Literal, NamedTuple

from jaxtyping import Bool, Float

from rvpo.core.arrays import Array, namespace
from rvpo.core.zscores import Channels, divide, group_statistics
from rvpo.errors import ConfigError

__all__ = [
    "Aggregate",
    "corr_grpo",
    "cvar",
    "dvao",
    "gd2po",
    "gdpo",
    "grpo",
    "hard_min",
    "mean_variance",
    "prior",
    "rvpo",
    "rvpo_policy",
    "scaled_sum",
    "soft_min",
    "tchebycheff",
]


class Aggregate(NamedTuple):
    """What an aggregation returns."""

    advantages: Float[Array, "P G"]
    """Advantages before re-centring and whitening; 0 where no channel is active."""
    channel_weights: Float[Array, "#P #G M"]
    """Share of each channel in the advantage: the derivative of A to Z, scaled to an absolute sum of 1.
    The methods that sum have one share for the whole group."""
    kept: Bool[Array, "P G"] | None = None
    """Rollouts that the method keeps; the others get advantage 0. None: all."""


NO_RISK = 1e-200
"""Below this k a soft minimum is its mean to the last bit of a float64, while k * v would underflow."""


def prior(channels: Channels) -> Float[Array, "#P #G M"]:
    """Return pi: the weights normalised over the active channels of each rollout, 0 where none is."""
    xp = namespace(channels.z)
    weights = channels.weights * channels.active
    total = xp.sum(weights, axis=2, keepdims=True)
    return weights / xp.where(total > 0, total, 1.0)


def scaled_sum(channels: Channels, weights: Float[Array, "#P #G M"]) -> Aggregate:
    """Sum of the z-scores times weights, which are shared out over the channels that any rollout of the group has."""
    xp = namespace(channels.z)
    counted = weights * xp.astype(channels.count > 0, channels.z.dtype)
    total = xp.sum(counted, axis=2, keepdims=True)
    return Aggregate(xp.sum(weights * channels.z, axis=2), divide(counted, total, total > 0))


def lowest(values: Float[Array, "P G M"], active: Float[Array, "#P #G M"]) -> Float[Array, "P G 1"]:
    """Return each rollout's lowest value over its active channels; 0 without any."""
    xp = namespace(values)
    out_of_reach = 0.25 * xp.finfo(values.dtype).max
    low = xp.min(values + (1.0 - active) * out_of_reach, axis=2, keepdims=True)
    return xp.where(low > 0.5 * out_of_reach, 0.0, low)


def soft_min(
    values: Float[Array, "P G M"],
    pi: Float[Array, "#P #G M"],
    active: Float[Array, "#P #G M"],
    k: float,
) -> Aggregate:
    """Soft minimum over channels: `-(1/k) log sum_j pi_j exp(-k v_j)`, with its gradient as channel weights.

    `min_j v_j <= soft_min <= sum_j pi_j v_j`; k = 0 is the mean and k = inf the minimum.
    The lowest value is taken out first, so that no exponential overflows, and the sum is formed as
    `log1p(sum pi expm1(.))`, so that nothing cancels as k goes to 0.
    """
    xp = namespace(values)
    if k < NO_RISK:
        return Aggregate(xp.sum(pi * values, axis=2), pi)
    if math.isinf(k):
        return minimum(values, pi, active)
    low = lowest(values, active)
    decay = xp.expm1((low - values) * active * k)
    total = xp.sum(pi * decay, axis=2, keepdims=True)
    weights = pi * (1.0 + decay)
    whole = xp.sum(weights, axis=2, keepdims=True)  # 1 + total, but exact where one tiny pi is all that is left
    # Without an active channel pi and total are 0, and so are the advantage and the weights.
    whole = xp.where(whole > 0, whole, 1.0)
    log_sum = xp.where(total > -0.5, xp.log1p(xp.clip(total, min=-0.5)), xp.log(whole))
    return Aggregate((low - log_sum / k)[..., 0], weights / whole)


def minimum(values: Float[Array, "P G M"], pi: Float[Array, "#P #G M"], active: Float[Array, "#P #G M"]) -> Aggregate:
    """Minimum over channels; channels that share the minimum share the weight by their pi."""
    xp = namespace(values)
    low = lowest(values, active)
    at_low = pi * xp.astype(values == low, values.dtype)
    total = xp.sum(at_low, axis=2, keepdims=True)
    return Aggregate(low[..., 0], divide(at_low, total, total > 0))


def rvpo(channels: Channels, k: float) -> Aggregate:
    """RVPO: soft minimum of the z-scores, `A = -(1/k) log sum_j pi_j exp(-k Z_j)` (arXiv 2605.05750).

    With equal weights over M channels this is the paper's `-(1/k) log (1/M) sum_j exp(-k Z_j)`, to second
    order `mean_j Z - (k/2) var_j Z`: a penalty on the variance between the rewards of one rollout.
    A dead channel has Z = 0 and so caps A at `log(1/pi_dead)/k`, unless it is masked.
    """
    return soft_min(channels.z, prior(channels), channels.active, k)


def hard_min(channels: Channels, k: float = math.inf) -> Aggregate:
    """Hard minimum of the z-scores, `A = min_j Z_j`: RVPO's limit for k = inf (arXiv 2605.05750). k is unused."""
    return minimum(channels.z, prior(channels), channels.active)


def mean_variance(channels: Channels, k: float) -> Aggregate:
    """Explicit variance penalty, `A = mean_pi Z - beta var_pi Z` with `beta = k/2` (arXiv 2605.05750).

    The second-order expansion of RVPO for the same k; var is the variance under pi (population form).
    Unlike RVPO it is not monotone: above the mean by more than 1/k, a better reward lowers A. k must be finite.
    """
    if math.isinf(k):
        raise ConfigError("mean_variance needs a finite k: an infinite penalty has no limit. Use method='hard_min'")
    xp = namespace(channels.z)
    pi = prior(channels)
    mean = xp.sum(pi * channels.z, axis=2, keepdims=True)
    deviations = channels.z - mean
    variance = xp.sum(pi * deviations * deviations, axis=2, keepdims=True)
    slopes = xp.abs(pi * (1.0 - k * deviations))
    total = xp.sum(slopes, axis=2, keepdims=True)
    return Aggregate((mean - 0.5 * k * variance)[..., 0], divide(slopes, total, total > 0))


def gdpo(channels: Channels, k: float = 0.0) -> Aggregate:
    """GDPO: normalise, then sum, `A = sum_j w_j Z_j`, then whiten (arXiv 2601.05242, as in TRL and verl).

    The weights are not normalised. A missing channel adds nothing to the sum. Without missing values this
    is M times RVPO's limit for k = 0, and so equal to it after whitening but for eps. k is unused.
    """
    return scaled_sum(channels, channels.weights)


def weighted_sum(
    channels: Channels,
) -> tuple[Float[Array, "P G 1"], Float[Array, "P 1 M"]]:
    """Return each rollout's `sum_j w_j R_j` over present channels, and each channel's share, `w_j std_j / sum`."""
    xp = namespace(channels.z)
    spread = channels.weights * channels.std
    total = xp.sum(spread, axis=2, keepdims=True)
    return xp.sum(channels.weights * channels.rewards, axis=2, keepdims=True), divide(spread, total, total > 0)


def centred_sum(channels: Channels) -> Float[Array, "P G"]:
    """Return `sum_j w_j (R_j - mean_g R_j)` over the channels present in the rollout."""
    xp = namespace(channels.z)
    return xp.sum(channels.weights * channels.present * (channels.rewards - channels.mean), axis=2)


def within_group(
    values: Float[Array, "P G 1"], scored: Bool[Array, "P G"], *, ddof: int
) -> tuple[Float[Array, "P G 1"], Float[Array, "P 1 1"], Float[Array, "P 1 1"]]:
    """Return deviations, mean and std of one value per rollout over the group's scored rollouts."""
    xp = namespace(values)
    counted = xp.astype(scored, values.dtype)[..., None]
    return group_statistics(values * counted, counted, xp.sum(counted, axis=1, keepdims=True), ddof=ddof)


def grpo(channels: Channels, k: float = 0.0, *, scale: str | float = "group") -> Aggregate:
    """GRPO: sum, then normalise, `S = sum_j w_j R_j`, `A = (S - mean_g S) / (std_g S + eps)` (arXiv 2402.03300).

    Channels share the advantage in proportion to their spread. A rollout without any reward has no S and
    gets 0; a missing channel adds nothing to S, as in TRL. k is unused. The method has no batch whitening.
    `scale` "none" divides by nothing (Dr. GRPO, arXiv 2503.20783), a number > 0 divides all groups alike.
    """
    total, shares = weighted_sum(channels)
    deviations, _, std = within_group(total, channels.scored, ddof=channels.ddof)
    if scale == "none":
        return Aggregate(deviations[..., 0], shares)
    if not isinstance(scale, str) and 0 < scale < math.inf:
        return Aggregate(deviations[..., 0] / scale, shares)
    if scale != "group":
        raise ConfigError(f"scale of grpo must be 'group', 'none' or a finite number > 0, got {scale!r}")
    return Aggregate(divide(deviations, std + channels.eps, std > 0)[..., 0], shares)


def dvao(channels: Channels, k: float = 0.0) -> Aggregate:
    """DVAO: `A = sum_j w_j (R_j - mean_g R_j) / (sum_j w_j std_g R_j + eps)` (arXiv 2605.25604).

    The z-scores weighted by their channel's spread, so a channel with a stronger signal counts for more.
    0 where every channel is dead. k is unused. The method has no batch whitening.
    """
    xp = namespace(channels.z)
    spread = xp.sum(channels.weights * channels.std, axis=2)
    return Aggregate(divide(centred_sum(channels), spread + channels.eps, spread > 0), weighted_sum(channels)[1])


def corr_grpo(channels: Channels, k: float = 0.0) -> Aggregate:
    """CorrGRPO: `A = sum_j w_j (R_j - mean_g R_j) / sqrt(sum_lm rho_lm + eps)` (arXiv 2609.36820).

    rho is the Pearson correlation of channels l and m inside the group, with the rows and columns of dead
    channels set to 0. `sum_lm rho_lm = sum_g (sum_j z_gj)^2 / (n - ddof)` with pure z-scores, so no M x M
    matrix is formed. Where values are missing, n is each channel's own. Channels that cancel leave eps alone
    under the root, or 0 as the advantage with eps = 0. k is unused; no batch whitening.
    """
    xp = namespace(channels.z)
    live = channels.live
    # (std + eps) / std undoes the eps in z; sqrt(n - ddof) turns z into a unit vector over the group.
    pure = divide(channels.std + channels.eps, channels.std, live)
    unit = divide(channels.z * pure, xp.sqrt(xp.clip(channels.count - channels.ddof, min=1.0)), live)
    correlations = xp.sum(xp.sum(unit, axis=2) ** 2, axis=1, keepdims=True)
    rounding = 1e-12
    scale = xp.where(correlations > rounding, correlations, 0.0) + channels.eps
    advantages = divide(centred_sum(channels), xp.sqrt(scale), xp.any(live, axis=2) & (scale > 0))
    return Aggregate(advantages, weighted_sum(channels)[1])


def gd2po(channels: Channels, k: float = 0.0, *, threshold: float = 0.8) -> Aggregate:
    """GD2PO-SNR: GDPO without the rollouts whose channels contradict each other (arXiv 2606.16771).

    Dropped: rollouts with both signs among `a_j = w_j Z_j` and `|sum a| / sum |a| < threshold`; 1 drops
    every contradiction (the paper's hard form), 0 none. What is left is scaled by the share of the group
    that was kept; dropped rollouts get advantage 0 and take no part in whitening. k is unused.
    """
    if not 0 <= threshold <= 1:
        raise ConfigError(f"gd2po needs a threshold in [0, 1], got {threshold}")
    xp = namespace(channels.z)
    terms = channels.weights * channels.z
    total, shares, _ = scaled_sum(channels, channels.weights)
    magnitude = xp.sum(xp.abs(terms), axis=2)
    kept = xp.abs(total) >= threshold * magnitude  # equal where all terms have one sign
    scored = xp.astype(channels.scored, terms.dtype)
    both = scored * xp.astype(kept, terms.dtype)
    share = xp.sum(both, axis=1, keepdims=True) / xp.clip(xp.sum(scored, axis=1, keepdims=True), min=1.0)
    return Aggregate(total * share, shares, kept)


def cvar(channels: Channels, k: float = 0.0, *, share: float = 1 / 3) -> Aggregate:
    """CVaR over channels: the mean of the lowest `share` of the rollout's z-scores, by prior mass.

    `A = (1/share) sum_j min(pi_j, mass still free) Z_j`, channels taken from the lowest up (Rockafellar and
    Uryasev 2000). share = 1 is the mean; a share no larger than the lowest channel's pi is the minimum.
    Equal values share in any order. k is unused.
    """
    if not 0 < share <= 1:
        raise ConfigError(f"cvar needs a share in (0, 1], got {share}")
    xp = namespace(channels.z)
    pi = xp.broadcast_to(prior(channels), channels.z.shape)  # 0 where the rollout has no value: no mass is taken there
    order = xp.argsort(channels.z, axis=2, stable=True)
    mass = xp.take_along_axis(pi, order, axis=2)
    below = xp.cumulative_sum(mass, axis=2) - mass
    taken = xp.clip(xp.minimum(mass, share - below), min=0.0) / share
    shares = xp.take_along_axis(taken, xp.argsort(order, axis=2), axis=2)
    return Aggregate(xp.sum(shares * channels.z, axis=2), shares)


def tchebycheff(channels: Channels, k: float, *, ideal: float = 1.0) -> Aggregate:
    """Smooth Tchebycheff: `U = -(1/k) log sum_j pi_j exp(k w_j (z* - r_j))`, `A = U - mean_g U`.

    r are the rewards on the common scale [0, 1] (declared `ranges`) and z* = `ideal` is the point to reach. Lin et
    al. (arXiv 2402.19078) define it on expected rewards; taking it of one rollout's rewards is ours. pi only averages
    over the channels present, so that a missing value does not shift U by log M; w are the weights as given. RVPO is
    the same with z* = 0 and Z in place of r.
    k = 0 is the mean of w r, k = inf the worst weighted shortfall.
    """
    xp = namespace(channels.z)
    equal = channels.active / xp.clip(xp.sum(channels.active, axis=2, keepdims=True), min=1.0)
    shortfall = channels.weights * ((channels.rewards - channels.low) / channels.width - ideal)
    utility, shares, _ = soft_min(shortfall, equal, channels.active, k)
    some_active = xp.broadcast_to(xp.max(channels.active, axis=2) > 0, utility.shape)
    deviations, _, _ = within_group(utility[..., None], some_active, ddof=0)
    shares = shares * channels.weights
    total = xp.sum(shares, axis=2, keepdims=True)
    return Aggregate(deviations[..., 0], divide(shares, total, total > 0))


def fair_shares(means: Float[Array, "P 1 M"], pi: Float[Array, "#P 1 M"], k: float) -> Float[Array, "P 1 M"]:
    """Shares of the channels under logarithmic utility, `pi_j / (1 + k m_j)`, scaled to add up to 1.

    `pi_j / (1 + k m_j)` is the derivative to m_j of `sum_j pi_j log(1 + k m_j) / k`. k = 0: pi. k = inf: pi_j / m_j,
    or all of it to the channels at 0, if there are any.
    """
    xp = namespace(means)
    m = xp.clip(means, min=0.0)
    if math.isinf(k):
        at_0 = pi * xp.astype(m == 0, m.dtype)
        some_at_0 = xp.sum(at_0, axis=2, keepdims=True) > 0
        counted = (pi > 0) & (m > 0)
        lowest = xp.min(xp.where(counted, m, xp.inf), axis=2, keepdims=True)  # 1 / m itself may overflow
        slopes = xp.where(some_at_0, at_0, pi * divide(xp.where(counted, lowest, 0.0), m, counted))
    else:
        slopes = pi / (1.0 + k * m)
    total = xp.sum(slopes, axis=2, keepdims=True)
    return divide(slopes, total, total > 0)


def rvpo_policy(
    channels: Channels,
    k: float,
    *,
    anchor: Float[Array, "#P 1 M"] | None = None,
    utility: Literal["softmin", "log"] = "softmin",
    signal: Literal["reward", "zscore"] = "reward",
    total: Literal["mean", "sum"] = "mean",
) -> Aggregate:
    """RVPO at the level of the policy: the gradient of `J = -(1/k) log sum_j pi_j exp(-k m_j)`, m_j = E[r_j].

    `A[p,g] = sum_j u_j (r[p,g,j] - mean_g r[p,:,j])` with `u = softmax(log pi - k m)`, r the rewards on the
    common scale [0, 1] (declared `ranges`) and m the anchor: where the policy stands in each channel. The
    weight goes to the channels that the *policy* fails, not to those that one rollout fails, so a rare
    success on a hard criterion is worth more, not less (the scalarised expected return of Roijers et al.
    2013; to second order `J = mean_j m - (k/2) var_j m`). k = 0 is the prior-weighted mean, k = inf the lowest
    channel alone. A missing value adds nothing.

    Args:
        channels: the batch.
        k: risk coefficient; the weights of channels one point of m apart differ by the factor exp(k).
        anchor: m on [0, 1]; None takes the group's own means.
        utility: "log" is proportional fairness, ascent on `sum_j pi_j log(1 + k m_j) / k`: u in proportion to
            `pi_j / (1 + k m_j)`, so that a large k spares what is met more than the soft minimum does.
        signal: "zscore" puts Z in place of the centred r.
        total: "sum" lets u add up to the sum of the weights given, so that a prompt of 17 criteria counts for more
            than one of 5. With signal="zscore" and k = 0 that is GDPO.

    docs/findings.md has what these options do. Raises ConfigError for another utility, signal or total.
    """
    _check_policy_options(utility=utility, signal=signal, total=total)
    xp = namespace(channels.z)
    active = xp.max(channels.active, axis=1, keepdims=True)
    group_means = (channels.mean - channels.low) / channels.width
    means = group_means if anchor is None else anchor + xp.zeros_like(group_means)
    given = channels.weights * active
    whole = xp.sum(given, axis=2, keepdims=True)
    pi = divide(given, whole, whole > 0)
    shares = fair_shares(means, pi, k) if utility == "log" else soft_min(means, pi, active, k).channel_weights
    weights = shares * whole if total == "sum" else shares
    if signal == "zscore":
        return Aggregate(xp.sum(weights * channels.z, axis=2), shares)
    centred = channels.active * (channels.rewards - channels.mean) / channels.width
    return Aggregate(xp.sum(weights * centred, axis=2), shares)


def _check_policy_options(**given: str) -> None:
    known = {"utility": ("softmin", "log"), "signal": ("reward", "zscore"), "total": ("mean", "sum")}
    for name, value in given.items():
        if value not in known[name]:
            raise ConfigError(f"rvpo_policy needs {name} {' or '.join(map(repr, known[name]))}, got {value!r}")
