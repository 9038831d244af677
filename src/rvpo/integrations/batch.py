"""What every trainer does with a batch's channels beside the advantages: moving averages, and metrics by name."""

from collections.abc import Sequence

import numpy as np

from rvpo.advantages import AdvantageResult
from rvpo.diagnostics import by_label, group_conflict, group_forecast
from rvpo.rewards.channels import ChannelMatrix

__all__ = ["average_anchor", "channel_metrics"]


def average_anchor(
    matrix: ChannelMatrix, group_size: int, averages: dict[str, float], *, decay: float, move: bool
) -> np.ndarray:
    """Return where each prompt's channels stand on [0, 1], `(P, M)`: a moving average over batches, by name or tag.

    `averages[name] = decay averages[name] + (1 - decay) mean`, starting at the first mean, is kept in `averages`.
    Without `move`, known averages stay (evaluation).
    """
    low, high = matrix.ranges[:, 0], matrix.ranges[:, 1]
    unit = (matrix.values - low) / (high - low)
    rollout_labels = np.repeat(matrix.labels, group_size, axis=0)
    for index, name in enumerate(matrix.names):
        now = unit[(rollout_labels == index) & ~np.isnan(unit)]
        if now.size and (move or name not in averages):
            kept = decay if name in averages else 0.0
            averages[name] = kept * averages.get(name, 0.0) + (1 - kept) * float(now.mean())
    # A channel without any value so far is in no group either; its 0 is a placeholder that no weight is given.
    known = np.asarray([averages.get(name, 0.0) for name in matrix.names] + [0.0])
    anchor: np.ndarray = np.clip(known[matrix.labels], 0.0, 1.0)
    return anchor


def channel_metrics(
    matrix: ChannelMatrix, result: AdvantageResult, group_size: int, sizes: Sequence[int] | None = None
) -> dict[str, float]:
    """Return the metrics of one batch, by the names under which they are logged.

    `rvpo/...`: k, effective_channels, active_channels, offset_share, unscored (rollouts without any value).
    `channels/NAME/...`: mean, std (inside groups), dead (share of groups), missing (share of rollouts),
    weight (share in the advantage), conflict (with the other channels) and forecast (first-order change).
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
    metrics = {
        "rvpo/k": float(stats.k),
        "rvpo/effective_channels": float(stats.effective_channels),
        "rvpo/active_channels": float(stats.active_channels),
        "rvpo/offset_share": float(stats.offset_share),
        "rvpo/unscored": float((stats.rollouts if sizes is None else sum(sizes)) - stats.scored),
    }
    for index, name in enumerate(matrix.names):
        for kind, values in channels.items():
            metrics[f"channels/{name}/{kind}"] = float(values[index])
    return metrics
