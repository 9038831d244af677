"""Channel weights that follow where the policy stands: five published methods, each a short function. k is unused.

SA-MRPO, SAW and DARA are GDPO, `A = sum_j w_j f_j Z_j`, with the weights w as given and a factor f from a statistic of
the whole batch, then whitened. The statistic is an option: an array that broadcasts to (P, 1, M), which
`compute_advantages` makes for the whole batch if none is given. Without it, a function takes the prompts that it sees
for the batch. MaxRL and POW3R see no more than the group.
"""

import math

from jaxtyping import Float

from rvpo.core import batch_statistics
from rvpo.core.aggregations import Aggregate, grpo, scaled_sum
from rvpo.core.arrays import Array, namespace
from rvpo.core.batch_statistics import moments_of
from rvpo.core.zscores import Channels, divide
from rvpo.errors import ConfigError

__all__ = ["dara", "maxrl", "pow3r", "sa_mrpo", "saw"]

ENOUGH_VERDICTS = 0.75
"""Share of a group's rollouts that need a value before POW3R goes by their variance."""


def sa_mrpo(
    channels: Channels,
    k: float = 0.0,
    *,
    gamma: float = 0.5,
    saturation: Float[Array, "#P 1 M"] | None = None,
) -> Aggregate:
    """SA-MRPO: `A = sum_j w_j (1 - s_j)^gamma Z_j` (Wang et al., arXiv 2608.16072).

    The saturation s_j is the batch mean of channel j between its known lowest (0) and highest (1) reward, so that a
    channel weighs less the nearer it is to its highest. gamma = 0 is GDPO; the paper's ablation is best at 0.5.
    It is close to `rvpo_policy` with signal="zscore", anchor="batch", whose factor is exp(-k s_j).

    As in the paper's equations, which have population standard deviations (ddof=0) and no eps; no code of the authors
    was found. s is clipped to [0, 1]. A channel at s = 1 is dead in every group and counts for nothing. A missing
    value adds nothing to Z, and is not in the mean.
    """
    if not 0 <= gamma < math.inf:
        raise ConfigError(f"sa_mrpo needs a finite gamma >= 0, got {gamma}")
    s = batch_statistics.saturation(moments_of(channels)) if saturation is None else saturation
    headroom = namespace(s).clip(1.0 - s, min=0.0)
    return scaled_sum(channels, channels.weights * headroom**gamma)


def saw(channels: Channels, k: float = 0.0, *, variation: Float[Array, "#P 1 M"] | None = None) -> Aggregate:
    """SAW in GDPO: `A = sum_j w_j f_j Z_j`, `f_j = M CV_j / sum_i CV_i` (He et al., arXiv 2606.07705).

    CV_j is the standard deviation over the mean of channel j's rewards in the batch, less the lowest reward possible.
    A criterion met with probability p has CV sqrt((1 - p) / p): the rarer it is met, the more it weighs.
    All CV equal: GDPO.

    As in the authors' code (github.com/Zhaolutuan/SAW, estimator "gdpo-h", two channels), but for its 1e-8 beside mean
    and sum. The given weights w are the paper's priorities. Our reading: M counts the channels that have a value, and
    the statistics are over the values present. Where no reward of the batch varies, every Z is 0, whatever f.
    """
    factors = batch_statistics.variation(moments_of(channels)) if variation is None else variation
    return scaled_sum(channels, channels.weights * factors)


def dara(
    channels: Channels,
    k: float = 0.0,
    *,
    cap: float = 5.0,
    symmetric: bool = False,
    density: Float[Array, "#P 1 M"] | None = None,
) -> Aggregate:
    """DARA: `A = sum_j w_j f_j Z_j`, `f_j = min(cap, sqrt(max_i pi_i / pi_j))` (Zheng et al., arXiv 2610.00574).

    pi_j is the share of the batch's groups in which channel j is live: a channel that varies in few groups weighs more
    in those. By default f acts on Z > 0 alone, the paper's main form (DARA-Asym); `symmetric` is its DARA-Sym.
    All pi equal: GDPO. `density` is pi_j over the largest one.

    As in the authors' code (github.com/zhaihaotian/DARA), where a group is live if its |Z| add up to more than 1e-8.
    Our reading: pi_j is over the groups that have channel j. Where it is 0, so is every Z_j, whatever f.
    """
    if not 1 <= cap < math.inf:
        raise ConfigError(f"dara needs a finite cap >= 1, got {cap}")
    xp = namespace(channels.z)
    pi = batch_statistics.density(moments_of(channels)) if density is None else density
    factors = xp.clip(divide(xp.ones_like(pi), xp.sqrt(pi), pi > 0), max=cap)
    if not symmetric:
        factors = xp.where(channels.z > 0, factors, 1.0)
    return scaled_sum(channels, channels.weights * factors)


def maxrl(channels: Channels, k: float = 0.0) -> Aggregate:
    """MaxRL in each channel: `A = sum_j w_j (r_j - mean_g r_j) / mean_g r_j` (Tajwar et al., arXiv 2602.02710).

    r_j is what the reward has above its lowest possible one. With one channel this is the paper's advantage, whose
    expectation is the gradient of log E[r], to the order G. The paper has a single verdict; the sum over channels is
    ours, the gradient of `sum_j w_j log m_j`. So it is `rvpo_policy` with utility="log", k=inf and the group as
    anchor, up to a factor for each prompt, where every m_j is above 0.

    A term is at most G - 1. Where no rollout has more than the lowest reward, it is 0. A missing value adds nothing,
    and is not in the mean. The method has no whitening: its scale, 1 / m_j, is what it is about.
    """
    xp = namespace(channels.z)
    rewards = channels.present * xp.clip((channels.rewards - channels.low) / channels.width, min=0.0)
    means = xp.sum(rewards, axis=1, keepdims=True) / xp.clip(channels.count, min=1.0)
    slopes = divide(channels.weights * xp.ones_like(means), means, channels.live & (means > 0))
    spread = slopes * channels.std / channels.width
    total = xp.sum(spread, axis=2, keepdims=True)
    deviations = channels.present * (rewards - means)
    return Aggregate(xp.sum(slopes * deviations, axis=2), divide(spread, total, total > 0))


def pow3r(
    channels: Channels, k: float = 0.0, *, blend: float = 0.5, lowest: float = 0.67, highest: float = 1.5
) -> Aggregate:
    """POW3R: GRPO of `S = sum_j w_j f_j r_j`, f_j from the contrast between rollouts (Tyagi et al., arXiv 2605.20164).

    `f_j = clip(1 - blend + blend v_j / v, lowest, highest)`, with v_j the variance of channel j inside the group, r on
    [0, 1], and v the mean of the v_j by the weights w. What separates the group's rollouts weighs more, what all of
    them meet or fail less. blend = 0 is GRPO on the common scale.

    The defaults are the paper's. This is the variant of Rubric Dropout (arXiv 2608.11669): f is of the group at hand,
    and all criteria of a prompt are one category. The paper takes f from the prompt's earlier visits, smoothed over
    epochs, and balances the categories of its rubrics. Read in notes on the full text; no code of theirs was found.
    A channel with values in less than 3/4 of the scored rollouts has f = 1 and is not in v. Where v = 0, every f is 1.
    """
    if not (0 <= blend <= 1 and 0 <= lowest <= 1 <= highest < math.inf):
        raise ConfigError(
            "pow3r needs blend in [0, 1] and lowest <= 1 <= highest, finite and >= 0; "
            f"got blend {blend}, lowest {lowest}, highest {highest}"
        )
    xp = namespace(channels.z)
    rollouts = xp.sum(xp.astype(channels.scored, channels.z.dtype), axis=1)[:, None, None]
    counted = (channels.count > 0) & (channels.count >= ENOUGH_VERDICTS * rollouts)
    given = channels.weights * xp.astype(counted, channels.z.dtype)
    # From the sample's variance to the population's, p (1 - p) for a verdict.
    share = xp.clip(channels.count - channels.ddof, min=0.0) / xp.clip(channels.count, min=1.0)
    variance = share * (channels.std / channels.width) ** 2
    total = xp.sum(given * variance, axis=2, keepdims=True)
    ratio = divide(variance * xp.sum(given, axis=2, keepdims=True), total, total > 0)
    factors = xp.where(counted & (total > 0), xp.clip(1.0 + blend * (ratio - 1.0), min=lowest, max=highest), 1.0)
    return grpo(
        channels._replace(
            rewards=channels.present * (channels.rewards - channels.low) / channels.width,
            std=channels.std / channels.width,
            weights=channels.weights * factors,
        )
    )
