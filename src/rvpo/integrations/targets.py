"""Targets of channels: a Lagrange multiplier for each, which grows while batches stay below the target."""

import warnings
from collections.abc import Mapping

import numpy as np

from rvpo.errors import ConfigError, RewardError
from rvpo.rewards.channels import ChannelMatrix

__all__ = ["HIGHEST", "dual_ascent", "unit_targets"]

HIGHEST = 10.0
"""Bound of a multiplier: a target out of reach outweighs ten channels of weight 1 and no more, and one that comes
within reach again is not paid for by hundreds of batches."""


def dual_ascent(
    multipliers: Mapping[str, float], targets: Mapping[str, float], means: Mapping[str, float], *, rate: float
) -> dict[str, float]:
    """Return the multipliers after a batch: `lambda_j <- clip(lambda_j + rate (tau_j - mean_j), 0, HIGHEST)`.

    The problem is `max sum_j w_j E[R_j]` subject to `E[R_j] >= tau_j` for channels j with a target. Its Lagrangian,
    `sum_j w_j E[R_j] + sum_j lambda_j (E[R_j] - tau_j)` with `lambda_j >= 0`, is raised by the policy, for which
    channel j has the weight `w_j + lambda_j`, and lowered by the multipliers, by a gradient step clipped at 0
    (Tessler et al. 2018, arXiv 1805.11074; the integral part of Stooke et al. 2020, arXiv 2007.03964).

    `targets` and `means` are on the common scale [0, 1], by channel. A multiplier starts at 0. A channel without a
    mean in the batch keeps its own; one that never had a mean has none.
    """
    moved = {name: value for name, value in multipliers.items() if name in targets}
    for name in [name for name in targets if name in means]:  # in their order, which metrics keep
        moved[name] = min(max(moved.get(name, 0.0) + rate * (targets[name] - means[name]), 0.0), HIGHEST)
    return moved


def unit_targets(targets: Mapping[str, float], matrix: ChannelMatrix, known: Mapping[str, float]) -> dict[str, float]:
    """Return each target on the common scale [0, 1]: `(tau - low) / (high - low)`, by name or tag.

    A rubric's tags come and go with the prompts: one that is neither here nor in `known` (had a multiplier before)
    is warned of. Targets of tags that are not here are returned as they are, as no mean is held against them.

    Raises:
        RewardError: a channel that does not exist.
        ConfigError: a target outside the channel's range.
    """
    rubrics = tuple(f"{name}/" for name, cells in matrix.columns.items() if cells and isinstance(cells[0], Mapping))
    absent = [name for name in targets if name not in matrix.names]
    unknown = [name for name in absent if not f"{name}/".startswith(rubrics)]
    if unknown:
        raise RewardError(f"channel_targets names {unknown}, but the channels are {sorted(matrix.names)}")
    if new := [name for name in absent if name not in known]:
        warnings.warn(
            f"channel_targets names {new}, but no criterion so far is of that tag, so that nothing is held to its "
            "target; tags are named as in the logs, channels/NAME/mean",
            stacklevel=2,
        )
    if turned := sorted(targets.keys() & matrix.penalties):
        raise ConfigError(
            f"channel_targets names {turned}, whose weight is negative: a target is a mean to reach from below, and a "
            "penalty is to become less; give the weight a plus sign, or leave the target out"
        )
    scaled = dict(targets)
    for name in targets.keys() - set(absent):
        column = np.argwhere(matrix.labels == matrix.names.index(name))[0, 1]
        low, high = matrix.ranges[column].tolist()
        if not low <= targets[name] <= high:
            raise ConfigError(
                f"channel_targets gives {name!r} {targets[name]}, outside its range [{low:g}, {high:g}]; "
                "mend the target, or declare the channel's true range"
            )
        scaled[name] = (targets[name] - low) / (high - low)
    return scaled
