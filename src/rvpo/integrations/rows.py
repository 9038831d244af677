"""For engines that hand over a batch as rows in any order, each with the id of its prompt: docs/engines.md uses it."""

from typing import Any

import numpy as np

from rvpo.core.advantages import compute_advantages
from rvpo.errors import RewardError

__all__ = ["advantages_of_rows"]


def advantages_of_rows(rewards: Any, prompts: Any, **options: Any) -> np.ndarray:
    """Return the advantage of each row, `(N,)`, as `compute_advantages` has it for the rows of one prompt together.

    Args:
        rewards: `(N, M)`, NaN (None in lists) for no value; NumPy, torch or nested lists.
        prompts: N ids, or `(N, L)` token ids, that are equal for the rollouts of one prompt. Prompts may have
            different numbers of rollouts; a rollout that is alone with its prompt gets 0 and takes no part.
        options: of `compute_advantages`, without `group_size` and `lengths`.

    Raises:
        RewardError: not as many ids as rows; every row alone with its prompt; whatever else
            `compute_advantages` refuses.
    """
    # NumPy has no bfloat16.
    host = rewards.detach().cpu().double() if hasattr(rewards, "detach") else rewards
    values = np.asarray(host, dtype=np.float64)
    ids = [
        tuple(i) if isinstance(i, list) else i for i in (prompts.tolist() if hasattr(prompts, "tolist") else prompts)
    ]
    if values.ndim != 2 or len(ids) != len(values):
        raise RewardError(f"rewards must be (N, M) with N prompt ids, got shape {values.shape} and {len(ids)} ids")
    rows: dict[Any, list[int]] = {}
    for row, prompt in enumerate(ids):
        rows.setdefault(prompt, []).append(row)
    size = max(map(len, rows.values()), default=0)
    if len(rows) > 1 and size == 1:
        raise RewardError(
            f"each of the {len(ids)} rows has a prompt id of its own, so that there is nothing to compare it with; "
            "rollouts of one prompt must share an id"
        )
    if size > 1:
        rows = {prompt: members for prompt, members in rows.items() if len(members) > 1}
    # Shorter groups are filled with rollouts without any value, which take part in no statistic.
    groups = np.full((len(rows), size, values.shape[1]), np.nan)
    for group, members in zip(groups, rows.values(), strict=True):
        group[: len(members)] = values[members]
    by_group = compute_advantages(groups, **options).advantages
    advantages = np.zeros(len(values))
    for group, members in zip(by_group, rows.values(), strict=True):
        advantages[members] = group[: len(members)]
    return advantages
