"""The advantages that an audit compares: every method, and every k where the method takes one, on the same rewards."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from rvpo.core.advantages import aggregate_block, compute_advantages
from rvpo.core.methods import METHODS, Aggregation, Method, find_method
from rvpo.core.schedules import check_k
from rvpo.core.zscores import Channels
from rvpo.errors import ConfigError

__all__ = ["BY_GROUP", "KS", "LOGGED", "PLAIN_SUM", "AnyMethod", "Signal", "make_signals"]

KS = (0.5, 1.0, 2.0, 5.0)
LOGGED = "logged"
"""Name of the advantage that the run itself used."""
PLAIN_SUM = "gdpo"
"""The method that the others are compared with where no advantage was logged."""
BY_GROUP = tuple(name for name, method in METHODS.items() if not method.of_batch)
"""Built-in methods that depend on no more than a group; a log does not say what its batches were."""

AnyMethod = str | Method | Aggregation
"""A name in `rvpo.METHODS`, "package.module:function", a function, or a `rvpo.Method`."""


@dataclass(frozen=True)
class Signal:
    """What a policy would follow, a number per rollout: the advantage of a method with its k, or the logged one."""

    name: str
    """As "rvpo k=2"."""
    method: Method | None = None
    """None: the logged advantage."""
    method_name: str | None = None
    """As "rvpo"."""
    k: float | None = None
    """None: the method takes none."""

    def advantages(
        self, channels: Channels, unit: Channels, logged: Float[np.ndarray, "P G"] | None
    ) -> tuple[Float[np.ndarray, "P G"], Float[np.ndarray, "#P #G M"] | None]:
        """Return advantages before whitening, and the channels' shares in them; None for the logged advantage.

        `unit` has the rewards on the common scale [0, 1]. Rollouts without an advantage have 0.
        """
        if self.method is None:
            zeros = np.zeros(channels.z.shape[:2])
            return zeros if logged is None else np.nan_to_num(logged, nan=0.0), None
        k = self.method.default_k if self.k is None else self.k
        aggregate = aggregate_block(self.method, unit if self.method.needs_range else channels, k, {})
        kept = 1.0 if aggregate.kept is None else aggregate.kept
        return aggregate.advantages * kept, aggregate.channel_weights


def make_signals(methods: Sequence[AnyMethod], ks: Sequence[float]) -> list[Signal]:
    """Return a signal for every method, or for every method and k that it takes.

    Raises:
        ConfigError: an unknown method, a k that is no number >= 0 or that no method takes, or none at all.
    """
    ks = [check_k(k) for k in ks]
    signals: list[Signal] = []
    for index, given in enumerate(methods):
        if given in methods[:index]:
            continue
        method = find_method(given)
        name = given if isinstance(given, str) else method.name
        if method.of_batch:
            raise ConfigError(
                f"method {name!r} weighs channels by the batch of a training step, and a log is read in blocks; "
                "leave it out of the audit"
            )
        for k in dict.fromkeys(ks) if method.takes_k else (None,):
            if _accepts(method, k):
                signals.append(Signal(name if k is None else f"{name} k={k:g}", method, name, k))
    if not signals:
        raise ConfigError(f"an audit needs at least one method and a k that it takes, got {len(methods)} and {ks}")
    names = [signal.name for signal in signals]
    if len(set(names)) < len(names):
        raise ConfigError(f"methods of an audit need names of their own, got {', '.join(names)}; rename a function")
    return signals


def _accepts(method: Method, k: float | None) -> bool:
    """Tell whether a method can be called with k. False: k is infinite and the method takes none that is.

    Other errors of the method are raised here, rather than after the first block of the log was read.
    """
    if method is METHODS.get(method.name) and (k is None or math.isfinite(k)):
        return True
    try:
        compute_advantages(np.eye(2)[None], method=method, k=k)
    except ConfigError:
        if k is None or not math.isinf(k):
            raise
        return False
    return True
