"""Reward functions as TRL calls them, and what they returned as channels."""

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

from rvpo.rewards.channels import Returned, check_rows, declaration

__all__ = ["RewardAdapter"]

Scalars = list[float | None]


class RewardAdapter:
    """A reward function for one batch. Of a vector reward TRL gets one number for each completion, to log."""

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        self.function, self.name, self.declares = function, name, declaration(function)
        self._rows: list[dict[str, float]] = []
        """What a vector reward returned for this process's completions."""

    def for_trl(self, run: Callable[[Any], Scalars] | None) -> Callable[..., Any]:
        """Return a reward function of TRL's kind: awaited by TRL if this one is asynchronous, or else by `run`."""
        function = self.function
        if not self.declares.is_vector:
            return function
        asynchronous = any(map(inspect.iscoroutinefunction, (function, getattr(function, "__call__", None))))  # noqa: B004

        async def keep_awaited(**kwargs: Any) -> Scalars:
            return self._keep(await function(**kwargs), len(kwargs["completions"]))

        def keep(**kwargs: Any) -> Scalars:
            if asynchronous and run is not None:
                return run(keep_awaited(**kwargs))
            return self._keep(function(**kwargs), len(kwargs["completions"]))

        return keep_awaited if asynchronous and run is None else keep

    def returned(self, weight: float, scalars: Sequence[float]) -> Returned:
        """Return what the function returned on all processes, N rollouts, NaN for None.

        `scalars` are what TRL has gathered; the rows of a vector reward are gathered here, in the same order.
        """
        if not self.declares.is_vector:
            return Returned(self.name, self.declares, weight, scalars)
        from accelerate.utils import gather_object

        return Returned(self.name, self.declares, weight, gather_object(self._rows))

    def _keep(self, returned: object, number: int) -> Scalars:
        """Keep the rows; return the mean of each row's values, None without any."""
        self._rows = check_rows(returned, self.name, self.declares, number)
        present = [[value for value in row.values() if not math.isnan(value)] for row in self._rows]
        return [sum(values) / len(values) if values else None for values in present]
