"""What every trainer does with a batch's channels around the advantages: what is kept from batch to batch, metrics."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rvpo.core.advantages import AdvantageResult
from rvpo.core.batch_statistics import moments_of_rewards
from rvpo.core.diagnostics import by_label, group_conflict, group_forecast
from rvpo.core.methods import Method, find_method
from rvpo.errors import RewardError
from rvpo.integrations.method_config import MethodConfig
from rvpo.integrations.targets import dual_ascent, unit_targets
from rvpo.ranges import outside
from rvpo.rewards.channels import ChannelMatrix

__all__ = ["ChannelState", "average_anchor", "batch_options", "channel_metrics", "unit_means"]


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
