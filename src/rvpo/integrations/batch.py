"""What every trainer does with a batch's channels around the advantages: what is kept from batch to batch, metrics.

A channel with a target has a Lagrange multiplier, which grows while batches stay below the target.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rvpo.core.advantages import AdvantageResult
from rvpo.core.batch_statistics import moments_of_rewards
from rvpo.core.diagnostics import by_label, group_conflict, group_forecast
from rvpo.core.methods import Method, find_method
from rvpo.errors import ConfigError, RewardError
from rvpo.integrations.method_config import MethodConfig
from rvpo.ranges import outside
from rvpo.rewards.channels import ChannelMatrix

__all__ = [
    "HIGHEST",
    "ChannelState",
    "average_anchor",
    "batch_options",
    "channel_metrics",
    "dual_ascent",
    "unit_means",
    "unit_targets",
]


@dataclass
class ChannelState:
    """What is known of the channels from earlier batches, by name or tag; goes with a trainer's checkpoints."""

    anchor: dict[str, float] = field(default_factory=dict)
    """Moving averages on [0, 1], for rvpo_policy's anchor "average"."""
    multipliers: dict[str, float] = field(default_factory=dict)
    """Lagrange multipliers of the channels with a target."""
    sampling: dict[str, Any] = field(default_factory=dict)
    """What prompts are drawn by (`rvpo.integrations.trl.sampler`); empty for uniform sampling."""


def batch_options(
    config: MethodConfig, matrix: ChannelMatrix, group_size: int, state: ChannelState, *, move: bool
) -> dict[str, Any]:
    """Return the keyword arguments of `compute_advantages` for a batch, all but rewards, group size, k and lengths.

    Averages and multipliers in `state` move with the batch first. Without `move` they stay (evaluation).
    Raises what `unit_targets` does, and RewardError for a reward outside [0, 1] of a channel without a range, where
    the method compares channels.
    """
    options = config.advantage_options() | {"weights": matrix.weights}
    method = find_method(options["method"])
    if method.needs_range:
        _check_ranges(matrix, group_size, config.method)
        options["ranges"] = matrix.ranges
    if options.get("anchor") == "average":
        options["anchor"] = average_anchor(matrix, group_size, state.anchor, decay=config.anchor_decay, move=move)
    if targets := config.mapping("channel_targets"):
        scaled = unit_targets(targets, matrix, state.multipliers)
        rate = config.target_rate if move else 0.0
        state.multipliers = dual_ascent(state.multipliers, scaled, unit_means(matrix, group_size), rate=rate)
        options["weights"] = matrix.weights + _by_prompt(state.multipliers, matrix)
    else:
        state.multipliers = {}
    if options.get("scale") == "batch":
        options["scale"] = _std_of_sums(matrix, group_size, options)
    return _batch_statistics(method, matrix, group_size, options) | options


def _check_ranges(matrix: ChannelMatrix, group_size: int, method: str) -> None:
    """Raise RewardError for the first reward outside its channel's range; those declared were checked before."""
    low, high = matrix.ranges.T
    wrong = np.argwhere(outside(matrix.values, low, high))
    if wrong.size:
        row, column = wrong[0]
        name = matrix.names[matrix.labels[row // group_size, column]]
        reward = -matrix.values[row, column] if name in matrix.penalties else matrix.values[row, column]
        raise RewardError(
            f"reward {reward:g} of channel {name!r} lies outside [0, 1], which method {method!r} takes for the range "
            f"of a channel that declares none; set it: channel_ranges={{{name!r}: [low, high]}}"
        )


def _std_of_sums(matrix: ChannelMatrix, group_size: int, options: Mapping[str, Any]) -> float:
    """Return what GRPO with the scale "batch" divides by: the std of the batch's weighted sums, plus eps."""
    weights = np.repeat(np.atleast_2d(options["weights"]), group_size, axis=0)
    sums = np.nansum(matrix.values * (weights if len(weights) == len(matrix.values) else weights[:1]), axis=1)
    sums = sums[~np.isnan(matrix.values).all(axis=1)]
    std = float(sums.std(ddof=options["ddof"])) if len(sums) > options["ddof"] else 0.0
    return std + options["eps"] or 1.0  # without any spread all advantages are 0


def _batch_statistics(
    method: Method, matrix: ChannelMatrix, group_size: int, options: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Return the method's statistics of the batch, `(P, M)`, by name or tag, where columns differ between prompts.

    Where they do not, `compute_advantages` makes them, by column.
    """
    if not method.of_batch or (matrix.labels == matrix.labels[:1]).all():
        return {}
    moments = moments_of_rewards(
        matrix.values.reshape(-1, group_size, matrix.values.shape[1]),
        weights=np.atleast_2d(options["weights"]),
        ranges=matrix.ranges,
        ddof=options["ddof"],
        labels=matrix.labels,
    )
    return {name: statistic(moments)[:, 0, :] for name, statistic in method.of_batch.items()}


def unit_means(matrix: ChannelMatrix, group_size: int) -> dict[str, float]:
    """Return the batch's mean on the common scale [0, 1] of each channel, by name or tag, that has a value."""
    low, high = matrix.ranges[:, 0], matrix.ranges[:, 1]
    unit = (matrix.values - low) / (high - low)
    rollout_labels = np.repeat(matrix.labels, group_size, axis=0)
    present = ((name, unit[(rollout_labels == index) & ~np.isnan(unit)]) for index, name in enumerate(matrix.names))
    return {name: float(values.mean()) for name, values in present if values.size}


def _by_prompt(values: Mapping[str, float], matrix: ChannelMatrix) -> np.ndarray:
    """Return the value of what each prompt's columns hold, `(P, M)`; 0 where a channel has none or is none."""
    laid_out: np.ndarray = np.asarray([values.get(name, 0.0) for name in matrix.names] + [0.0])[matrix.labels]
    return laid_out


def average_anchor(
    matrix: ChannelMatrix, group_size: int, averages: dict[str, float], *, decay: float, move: bool
) -> np.ndarray:
    """Return where each prompt's channels stand on [0, 1], `(P, M)`: a moving average over batches, by name or tag.

    `averages[name] = decay averages[name] + (1 - decay) mean`, starting at the first mean, is kept in `averages`.
    Without `move`, known averages stay (evaluation).
    """
    for name, mean in unit_means(matrix, group_size).items():
        if move or name not in averages:
            kept = decay if name in averages else 0.0
            averages[name] = kept * averages.get(name, 0.0) + (1 - kept) * mean
    # A channel without any value so far is in no group either; its 0 is a placeholder that no weight is given.
    anchor: np.ndarray = np.clip(_by_prompt(averages, matrix), 0.0, 1.0)
    return anchor


def channel_metrics(
    matrix: ChannelMatrix,
    result: AdvantageResult,
    group_size: int,
    state: ChannelState,
    sizes: Sequence[int] | None = None,
    *,
    takes_k: bool = True,
) -> dict[str, float]:
    """Return the metrics of one batch, by the names under which they are logged.

    `rvpo/...`: k (if the method `takes_k`), effective_channels, active_channels, offset_share, unscored (rollouts
    without any value).
    `channels/NAME/...`: mean, std (inside groups), dead (share of groups), missing (share of rollouts),
    weight (share in the advantage), conflict (with the other channels) and forecast (first-order change);
    multiplier, of channels with a target; unmet, of channels with a condition (share of rollouts without it).
    `sizes`: rollouts of each prompt, where groups of fewer than `group_size` are filled with rows without values.
    """
    stats = result.stats
    rewards = matrix.values.reshape(-1, group_size, matrix.values.shape[1])
    extra = {
        "conflict": group_conflict(rewards),
        "forecast": group_forecast(rewards, result.advantages.reshape(-1, group_size)),
    }
    counted = None if sizes is None else np.asarray(sizes, dtype=np.float64)
    channels = by_label(result.groups, matrix.labels, len(matrix.names), extra, sizes=counted)
    metrics = {"rvpo/k": float(stats.k)} if takes_k else {}
    metrics |= {
        "rvpo/effective_channels": float(stats.effective_channels),
        "rvpo/active_channels": float(stats.active_channels),
        "rvpo/offset_share": float(stats.offset_share),
        "rvpo/unscored": float((stats.rollouts if sizes is None else sum(sizes)) - stats.scored),
    }
    for index, name in enumerate(matrix.names):
        for kind, values in channels.items():
            is_turned = name in matrix.penalties and kind in ("mean", "forecast")
            metrics[f"channels/{name}/{kind}"] = float(-values[index] if is_turned else values[index])
    metrics |= {f"channels/{name}/unmet": share for name, share in matrix.unmet.items()}
    return metrics | {f"channels/{name}/multiplier": value for name, value in state.multipliers.items()}


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
