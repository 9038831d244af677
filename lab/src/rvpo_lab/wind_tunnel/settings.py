"""What a simulation depends on: its settings, and the methods that it compares."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rvpo.core.advantages import compute_advantages
from rvpo.core.schedules import constant, linear
from rvpo.errors import ConfigError
from rvpo_lab.option_text import parse_method

__all__ = ["DEFAULT_METHODS", "HIGHEST_START", "SPREADS", "SimulatedMethod", "SimulationSettings"]

HIGHEST_START = 0.95
"""No decision is on with a higher probability at the start; at 1 it would never be explored."""

SPREADS = ("log", "uniform", "even")


@dataclass(frozen=True)
class SimulatedMethod:
    """A method with its settings, under a name."""

    name: str
    method: str
    """A name in `rvpo.METHODS`, or "package.module:function"."""
    k: float | tuple[float, float] = 1.0
    """Risk coefficient, or its first and last value on a line over the steps."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """More keywords of `compute_advantages`. anchor="batch" is the instance's own batch."""

    def __post_init__(self) -> None:
        """Try the settings on two rollouts; raises what `compute_advantages` does."""
        for option in ("whiten", "lengths", "group_size", "weights", "ranges"):
            if option in self.options:
                raise ConfigError(f"{self.name!r}: option {option!r} has no place in the wind tunnel; leave it out")
        if not isinstance(self.options.get("recenter", False), bool):
            raise ConfigError(f"{self.name!r}: recenter must be true or false, got {self.options['recenter']!r}")
        try:
            for step in (0, 1):
                compute_advantages(np.eye(2)[None], method=self.method, k=self.k_at(step, 1), **self.options)
        except TypeError as error:
            raise ConfigError(
                f"{self.name!r}: an option of method {self.method!r} has a wrong type: {error}"
            ) from error

    def k_at(self, step: int, steps: int) -> float:
        """Return the risk coefficient at a step of a run."""
        schedule = linear(*self.k) if isinstance(self.k, tuple) else constant(self.k)
        return schedule(step, steps)

    @classmethod
    def parse(cls, text: str) -> "SimulatedMethod":
        """Read `METHOD[:K[:OPTION=VALUE,...]]`, where K is a number or START-END; the text is the name.

        >>> SimulatedMethod.parse("rvpo:0.5-2").k
        (0.5, 2.0)
        >>> dict(SimulatedMethod.parse("rvpo_policy:4:anchor=batch").options)
        {'anchor': 'batch'}

        Raises:
            ConfigError: text of another form, or settings that `compute_advantages` refuses.
        """
        return cls(text, *parse_method(text))


DEFAULT_METHODS = tuple(
    map(
        SimulatedMethod.parse,
        ("grpo", "gdpo", "rvpo:0.5-2", "rvpo:5", "hard_min", "rvpo_policy:2", "rvpo_policy:4:anchor=batch"),
    )
)
"""The sum, normalised sums, the paper's forms, and risk at the level of the policy."""


@dataclass(frozen=True)
class SimulationSettings:
    """Everything a simulation depends on but its methods.

    Learning rate and steps were chosen by one thing: GDPO has nearly stopped moving when the defaults end (the
    last tenth of the steps changes its mean pass rate by less than 0.001). Slower methods may not have.
    """

    channels: int = 12
    """M, criteria of an instance."""
    group_size: int = 16
    """G, rollouts of a group."""
    groups: int = 2
    """P, groups of an instance in a step."""
    steps: int = 200
    instances: int = 2000
    base_rates: tuple[float, float] = (0.05, 0.5)
    """Lowest and highest pass rate at the start."""
    spread: str = "log"
    """Base rates are drawn "log"-uniformly or "uniform"ly between the two, or lie "even"ly spaced from the first to
    the second in every instance."""
    conflict: float = 0.2
    """Probability that a criterion has an opponent."""
    noise: float = 0.0
    """Probability that a verdict is flipped."""
    missing: float = 0.0
    """Probability that a verdict is lost."""
    continuous: bool = False
    """Grades in [0, 1) instead of verdicts."""
    learning_rate: float = 1.0
    seed: int = 0

    @property
    def checkpoint(self) -> int:
        """Steps done when only the last tenth is left; 0 in a run of one step."""
        return self.steps - max(self.steps // 10, 1)

    def __post_init__(self) -> None:
        """Check the values; raises ConfigError."""
        least = {"channels": 1, "group_size": 1, "groups": 1, "steps": 1, "instances": 1, "seed": 0}
        for name, low in least.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < low:
                raise ConfigError(f"{name} must be a whole number >= {low}, got {value!r}")
        for name in ("conflict", "noise", "missing"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is a probability and must lie in [0, 1], got {getattr(self, name)!r}")
        if not 0 < self.learning_rate < math.inf:
            raise ConfigError(f"learning_rate must be a finite number > 0, got {self.learning_rate!r}")
        low_rate, high_rate = self.base_rates
        if not 0 < low_rate <= high_rate <= HIGHEST_START:
            raise ConfigError(
                f"base_rates must be two pass rates with 0 < low <= high <= {HIGHEST_START}, "
                f"got {low_rate!r} and {high_rate!r}"
            )
        if self.spread not in SPREADS:
            raise ConfigError(f"spread must be one of {', '.join(SPREADS)}, got {self.spread!r}")
        if self.conflict > 0 and self.channels < 2:
            raise ConfigError("a criterion can only conflict with another one: use channels >= 2 or conflict 0")
