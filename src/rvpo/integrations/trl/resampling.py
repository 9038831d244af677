"""Groups without signal generated anew within a step, with other prompts, as DAPO does (arXiv 2503.14476), by channel.

A group in which no channel varies teaches nothing, and its rollouts are spent. Its place is given to a group of
another prompt, which is kept if it has signal, up to so many times. DAPO looks at one reward; here a group counts as
dead if no channel varies in it, or, on request, if none of the neglected ones does.
"""

from collections.abc import Mapping, MutableSequence, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int

from rvpo.errors import IntegrationError
from rvpo.integrations.batch import unit_means
from rvpo.rewards.channels import ChannelMatrix, Returned
from rvpo.stats import NEGLECTED

__all__ = [
    "Refill",
    "Snapshot",
    "dead_groups",
    "draw_rows",
    "merge_outputs",
    "merge_returned",
    "neglected_channels",
    "plan_refill",
]

PADDED_LEFT = ("prompt_ids", "prompt_mask")
PER_TOKEN = (
    *PADDED_LEFT,
    "completion_ids",
    "completion_mask",
    "tool_mask",
    "old_per_token_logps",
    "ref_per_token_logps",
    "sampling_per_token_logps",
    "importance_sampling_ratio",
)
"""What TRL hands on of each rollout, a row each; the last may also be one number a rollout."""


def neglected_channels(matrix: ChannelMatrix, group_size: int) -> list[str]:
    """Return the channels, by name or tag, whose mean over the batch, on [0, 1], is below 0.3."""
    return [name for name, mean in unit_means(matrix, group_size).items() if mean < NEGLECTED]


def dead_groups(matrix: ChannelMatrix, group_size: int, channels: Sequence[str] | None) -> Bool[np.ndarray, " P"]:
    """Tell in which groups no channel with a weight has two values that differ.

    With `channels`, only these count, in the groups that have any of them with a weight.
    """
    values = matrix.values.reshape(-1, group_size, matrix.values.shape[1])
    missing = np.isnan(values)
    highest = np.where(missing, -np.inf, values).max(axis=1)
    live = highest > np.where(missing, np.inf, values).min(axis=1)
    counted = np.broadcast_to(matrix.weights > 0, live.shape)
    if channels is not None:
        chosen = np.isin(matrix.labels, [matrix.names.index(name) for name in channels if name in matrix.names])
        chosen &= counted
        counted = np.where(chosen.any(axis=1, keepdims=True), chosen, counted)
    return np.asarray(~(live & counted).any(axis=1))


class Refill(NamedTuple):
    """Which groups of a batch are replaced by which new ones; both are numbered over all processes."""

    replaced: Int[np.ndarray, " R"]
    new: Int[np.ndarray, " R"]

    def of_process(self, index: int, groups: int, new_groups: int) -> "Refill":
        """Return the part of a process that has so many groups and new ones, in its own numbers."""
        own = self.replaced // groups == index
        return Refill(self.replaced[own] - index * groups, self.new[own] - index * new_groups)


def plan_refill(dead: Bool[np.ndarray, " P"], new_dead: Bool[np.ndarray, " Q"], processes: int) -> Refill:
    """Give the dead groups' places to new groups that are not dead, in order, each process for itself.

    Rollouts stay on the process that generated them. Processes have equal numbers of groups.
    """
    of_all, of_new = np.arange(len(dead)).reshape(processes, -1), np.arange(len(new_dead)).reshape(processes, -1)
    replaced: list[int] = []
    new: list[int] = []
    for own, own_new in zip(of_all, of_new, strict=True):
        places, live = own[dead[own]], own_new[~new_dead[own_new]]
        number = min(len(places), len(live))
        replaced += places[:number].tolist()
        new += live[:number].tolist()
    return Refill(np.asarray(replaced, dtype=int), np.asarray(new, dtype=int))


def draw_rows(number: int, rows: int, key: Sequence[int]) -> Int[np.ndarray, " N"]:
    """Return indices of prompts to draw from a data set: without replacement while that lasts, the same for a key."""
    rng = np.random.default_rng(list(key))
    turns = [rng.permutation(rows) for _ in range(-(-number // rows))]
    return np.concatenate(turns)[:number]


def _rollouts(groups: Int[np.ndarray, " R"], group_size: int) -> Int[np.ndarray, " N"]:
    return np.asarray((groups[:, None] * group_size + np.arange(group_size)).reshape(-1))


def merge_columns(values: Sequence[Any], new: Sequence[Any], refill: Refill, group_size: int) -> list[Any]:
    """Return a value for each rollout of all processes, those of replaced groups from the new ones."""
    merged = list(values)
    places, sources = _rollouts(refill.replaced, group_size), _rollouts(refill.new, group_size)
    for place, source in zip(places.tolist(), sources.tolist(), strict=True):
        merged[place] = new[source]
    return merged


def merge_returned(
    returned: Sequence[Returned], new: Sequence[Returned], refill: Refill, group_size: int
) -> list[Returned]:
    """Return what the reward functions returned for the merged batch."""
    return [
        old._replace(values=merge_columns(old.values, other.values, refill, group_size))
        for old, other in zip(returned, new, strict=True)
    ]


def merge_outputs(
    output: Mapping[str, Any], new: Mapping[str, Any], refill: Refill, group_size: int
) -> dict[str, Any]:
    """Return what TRL made of this process's rollouts, with those of replaced groups from the new ones.

    Prompts are padded on the left and completions on the right, to the longer of both, where the masks are 0.
    Raises IntegrationError for what TRL makes of images.
    """
    merged = dict(output)
    places, sources = (torch.as_tensor(_rollouts(groups, group_size)) for groups in refill)
    for name, old in output.items():
        if name in ("num_items_in_batch", "advantages") or old is None:
            continue
        if name not in PER_TOKEN:
            raise IntegrationError(f"resample_dead cannot put {name!r} of two batches together; set resample_dead=0")
        width = max(old.shape[1:] + new[name].shape[1:], default=0)
        rows, others = (_padded(part, width, left=name in PADDED_LEFT) for part in (old, new[name]))
        rows = rows.clone()
        rows[places] = others[sources]
        merged[name] = rows
    return merged


def _padded(rows: torch.Tensor, width: int, *, left: bool) -> torch.Tensor:
    if rows.ndim == 1 or rows.shape[1] == width:
        return rows
    missing = width - rows.shape[1]
    return torch.nn.functional.pad(rows, (missing, 0) if left else (0, missing))


class Snapshot:
    """TRL's table as it is: what it has of the newest batch, in which other rollouts are put later."""

    def __init__(self, logs: Mapping[str, Any], rollouts: int) -> None:
        columns = {name: column for name, column in logs.items() if isinstance(column, MutableSequence)}
        for group in ("rewards", "extra"):
            columns |= {f"{group}/{name}": column for name, column in logs.get(group, {}).items()}
        self._kept = [(column, list(column)[-rollouts:]) for column in columns.values() if len(column) >= rollouts]

    def refill(self, refill: Refill, group_size: int, new: int) -> None:
        """Take the newest `new` rollouts of the table for new ones, and leave the merged batch in it."""
        for column, kept in self._kept:
            merged = merge_columns(kept, list(column)[-new:], refill, group_size)
            column.clear()
            column.extend(merged)
