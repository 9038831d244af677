"""GDPO with channel weights that follow the batch: three published methods, each a short function.

`A = sum_j w_j f_j Z_j` with the weights w as given and a factor f from a statistic of the whole batch, then whitened.
The statistic is an option: an array that broadcasts to (P, 1, M), which `compute_advantages` makes for the whole batch
if none is given. Without it, a function takes the prompts that it sees for the batch. k is unused in all of them.
"""

import math

from jaxtyping import Float

from rvpo.core import batch_statistics
from rvpo.core.aggregations import Aggregate, scaled_sum
from rvpo.core.arrays import Array, namespace
from rvpo.core.batch_statistics import moments_of
from rvpo.core.zscores import Channels, divide
from rvpo.errors import ConfigError

__all__ = ["dara", "sa_mrpo", "saw"]


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

    Read in detailed notes on the full text; no code of the authors was found. s is clipped to [0, 1]. A channel at
    s = 1 is dead in every group and counts for nothing. A missing value adds nothing to Z, and is not in the mean.
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
