"""The advantages that an audit compares: every method, and every k where k matters, on the same rewards."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from rvpo.core.advantages import compute_advantages
from rvpo.core.methods import METHODS as BUILT_IN
from rvpo.core.methods import find_method
from rvpo.core.schedules import check_k
from rvpo.core.zscores import Channels
from rvpo.errors import ConfigError

__all__ = ["KS", "LOGGED", "METHODS", "Signal", "make_signals"]

METHODS = tuple(BUILT_IN)
KS = (0.5, 1.0, 2.0, 5.0)
LOGGED = "logged"
"""Name of the advantage that the run itself used."""


@dataclass(frozen=True)
class Signal:
    """One number per rollout that a policy would follow: a method with its k, or the logged advantage."""

    name: str
    method: str | None = None
    """None: the logged advantage."""
    k: float = 1.0
    options: Mapping[str, Any] = field(default_factory=dict)

    def advantages(
        self, channels: Channels, unit: Channels, logged: Float[np.ndarray, "P G"] | None
    ) -> tuple[Float[np.ndarray, "P G"], Float[np.ndarray, "#P #G M"] | None]:
        """Return advantages before whitening, and the share of each channel in them; None where nobody knows.

        `unit` has the rewards on the common scale [0, 1]. Rollouts without an advantage have 0.
        """
        if self.method is None:
            none = np.zeros(channels.z.shape[:2])
            return none if logged is None else np.nan_to_num(logged, nan=0.0), None
        method = find_method(self.method)
        aggregate = method.function(unit if method.needs_range else channels, self.k, **self.options)
        if aggregate.kept is None:
            return aggregate.advantages, aggregate.channel_weights
        return aggregate.advantages * aggregate.kept, aggregate.channel_weights


def make_signals(methods: Sequence[str], ks: Sequence[float], *, logged: bool) -> list[Signal]:
    """Return a signal for every method, or for every method and k where k matters, the logged one first.

    Raises:
        ConfigError: an unknown method, a k that is no number >= 0 or that the method cannot take, or none at all.
    """
    ks = [check_k(k) for k in ks]
    if not methods or not ks:
        raise ConfigError("an audit needs at least one method and one k")
    signals = [Signal(LOGGED)] if logged else []
    for method in dict.fromkeys(methods):
        if not find_method(method).takes_k:
            signals.append(Signal(method, method))
            continue
        usable = [k for k in dict.fromkeys(ks) if method != "mean_variance" or not math.isinf(k)]
        signals += [Signal(f"{method} k={k:g}", method, k) for k in usable]
    for signal in signals:
        if signal.method is not None:  # fails here rather than after the first block was read
            compute_advantages(np.eye(2)[None], method=signal.method, k=signal.k, **signal.options)
    return signals
