"""Schedules of the risk coefficient k, or of a channel's weight: functions of the global step, so that a resumed run
stays on the curve.

    >>> k = linear(0.5, 2.0)          # the paper's schedule on rubric tasks
    >>> [k(step, 100) for step in (0, 50, 100)]
    [0.5, 1.25, 2.0]

A schedule is called as `schedule(step, total_steps)` and returns what `compute_advantages` takes as `k`: a
number >= 0. Steps past the end keep the last value.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from rvpo.errors import ConfigError, unknown_name

__all__ = [
    "Schedule",
    "check_k",
    "constant",
    "from_config",
    "linear",
    "read_schedule",
]


Schedule = Callable[[int, int], float]


def check_k(k: Any) -> float:
    """Return k as a float; raise ConfigError unless it is a number >= 0 (inf is allowed)."""
    if isinstance(k, bool) or not isinstance(k, float | int | np.floating | np.integer) or not k >= 0:
        raise ConfigError(f"the risk coefficient k must be a number >= 0 (0: mean, inf: minimum), got {k!r}")
    return float(k)


def progress(step: int, total_steps: int) -> float:
    """Return the share of the run that is done, in [0, 1]; a run of no steps is at its end."""
    return min(max(step / total_steps, 0.0), 1.0) if total_steps > 0 else 1.0


def _ends(start: float, end: float) -> tuple[float, float]:
    """Return both ends of a curve; raise ConfigError unless they are finite numbers >= 0."""
    ends = check_k(start), check_k(end)
    if math.inf in ends:
        raise ConfigError(f"a curve from k = {start} to {end} needs finite ends; use method 'hard_min' for k = inf")
    return ends


def constant(k: float) -> Schedule:
    """k(step) = k."""
    value = check_k(k)
    return lambda step, total_steps: value


def linear(start: float, end: float) -> Schedule:
    """k(step) = start + (end - start) * step / total_steps. The paper's: 0.5 to 2.0."""
    first, last = _ends(start, end)
    return lambda step, total_steps: first + (last - first) * progress(step, total_steps)


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "constant": constant,
    "linear": linear,
}


def from_config(name: str, options: Mapping[str, Any]) -> Schedule:
    """Return the schedule of that name, as a configuration file names it.

    >>> from_config("linear", {"start": 0.5, "end": 2.0})(100, 100)
    2.0
    """
    if name not in SCHEDULES:
        raise unknown_name("schedule", name, SCHEDULES)
    try:
        return SCHEDULES[name](**options)
    except TypeError as error:
        raise ConfigError(f"schedule {name!r} does not take {dict(options)}: {error}") from error


def read_schedule(text: str) -> Schedule:
    """Return the schedule `START -> END NAME`, linear where no name is given.

    >>> weight = read_schedule("1.0 -> 0.2 linear")
    >>> [round(weight(step, 100), 3) for step in (0, 50, 100)]
    [1.0, 0.6, 0.2]

    Raises ConfigError for text of another form.
    """
    try:
        start, rest = text.split("->")
        end, *names = rest.split()
        first, last = float(start), float(end)
    except ValueError:
        first, last, names = math.nan, math.nan, []
    if not math.isfinite(first + last) or len(names) > 1:
        raise ConfigError(f"a schedule is written START -> END NAME, as '1.0 -> 0.2 linear'; got {text!r}")
    return from_config(names[0] if names else "linear", {"start": first, "end": last})
