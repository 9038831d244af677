"""Rewards that see all rollouts of a prompt, wherever these were generated: each group is scored by one process.

The rollouts of all processes are gathered, group i is scored by process i modulo their number, and what was returned
is gathered. So the rewards are those of a single process, and a function is called as often as there are groups.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

__all__ = ["Batch", "gather_batch", "score_groups"]

Batch = Mapping[str, Sequence[Any]]
"""What reward functions get by name, a value for each rollout."""
OF_TRL = ("prompt", "completion", "completion_ids")
"""Columns of a row that TRL does not hand on under their own names."""


def gather_batch(
    inputs: Sequence[Mapping[str, Any]],
    prompts: Sequence[Any],
    completions: Sequence[Any],
    completion_ids: Sequence[Any],
) -> Batch:
    """Return prompts, completions, their tokens and the rows' columns of all processes' rollouts, in their order."""
    from accelerate.utils import gather_object

    own: dict[str, Sequence[Any]] = {key: [row[key] for row in inputs] for key in inputs[0] if key not in OF_TRL}
    own |= {"prompts": prompts, "completions": completions, "completion_ids": completion_ids}
    rollouts = gather_object(list(zip(*own.values(), strict=True)))
    return dict(zip(own, map(list, zip(*rollouts, strict=True)), strict=True))


def score_groups(
    function: Callable[..., Any],
    batch: Batch,
    group_size: int,
    *,
    check: Callable[[object], Sequence[Any]],
    run: Callable[[Coroutine[Any, Any, Any]], Any] | None,
    process: tuple[int, int],
    others: Mapping[str, Any],
) -> list[Any]:
    """Return what the function returned for the rollouts of all processes.

    Args:
        function: called with the lists of one group, and with `others`.
        batch: of all processes.
        group_size: G.
        check: makes values of what the function returned for a group; raises RewardError for what it must not return.
        run: awaits; None for a function that is not asynchronous. The groups of a process are then scored at once.
        process: index of this process, and how many there are.
        others: more keyword arguments.
    """
    from accelerate.utils import gather_object

    index, processes = process
    number = len(batch["prompts"]) // group_size
    own = range(index, number, processes)
    parts = [slice(group * group_size, (group + 1) * group_size) for group in own]
    calls = ({name: values[part] for name, values in batch.items()} for part in parts)
    if run is None:
        returned = [function(**call, **others) for call in calls]
    else:
        returned = run(_all(function, [{**call, **others} for call in calls]))
    scored = gather_object([(group, check(values)) for group, values in zip(own, returned, strict=True)])
    return [value for _, values in sorted(scored, key=lambda pair: pair[0]) for value in values]


async def _all(function: Callable[..., Any], calls: Sequence[Mapping[str, Any]]) -> list[Any]:
    return await asyncio.gather(*(function(**call) for call in calls))
