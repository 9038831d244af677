"""Vector rewards where TRL expects one number for each completion."""

import inspect
import math
from collections.abc import Callable
from typing import Any

from rvpo.rewards.channels import Declaration, check_rows

__all__ = ["VectorAdapter"]

Scalars = list[float | None]


class VectorAdapter:
    """A vector reward for one batch: TRL gets one number for each completion to log, `rows` keeps the channels."""

    def __init__(self, function: Callable[..., Any], name: str, declares: Declaration) -> None:
        self.function, self.name, self.declares = function, name, declares
        self.rows: list[dict[str, float]] = []

    def as_scalar(self, run: Callable[[Any], Scalars] | None) -> Callable[..., Any]:
        """Return a reward function of TRL's kind: awaited by TRL if this one is asynchronous, or else by `run`."""
        function = self.function
        asynchronous = any(map(inspect.iscoroutinefunction, (function, getattr(function, "__call__", None))))  # noqa: B004

        async def keep_awaited(**kwargs: Any) -> Scalars:
            return self._keep(await function(**kwargs), len(kwargs["completions"]))

        def keep(**kwargs: Any) -> Scalars:
            if asynchronous and run is not None:
                return run(keep_awaited(**kwargs))
            return self._keep(function(**kwargs), len(kwargs["completions"]))

        return keep_awaited if asynchronous and run is None else keep

    def _keep(self, returned: object, number: int) -> Scalars:
        """Keep the rows; return the mean of each row's values, None without any."""
        self.rows = check_rows(returned, self.name, self.declares, number)
        present = [[value for value in row.values() if not math.isnan(value)] for row in self.rows]
        return [sum(values) / len(values) if values else None for values in present]
