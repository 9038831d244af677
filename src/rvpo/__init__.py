"""Train language models on many rewards at once so that none is neglected, and see which one would be."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rvpo.core.advantages import PRESETS, AdvantageResult, compute_advantages
    from rvpo.core.aggregations import Aggregate
    from rvpo.core.diagnostics import AdvantageStats, conflict, forecast
    from rvpo.core.methods import METHODS, Method
    from rvpo.errors import ConfigError, IntegrationError, RewardError, RvpoError
    from rvpo.rewards.declarations import Channel, scalar_reward, vector_reward

__version__ = "0.1.0"

__all__ = [
    "METHODS",
    "PRESETS",
    "AdvantageResult",
    "AdvantageStats",
    "Aggregate",
    "Channel",
    "ConfigError",
    "IntegrationError",
    "Method",
    "RVPOConfig",
    "RVPOTrainer",
    "RewardError",
    "RvpoError",
    "__version__",
    "compute_advantages",
    "conflict",
    "forecast",
    "scalar_reward",
    "vector_reward",
]


_HOMES = {
    "core.advantages": ("PRESETS", "AdvantageResult", "compute_advantages"),
    "core.aggregations": ("Aggregate",),
    "core.diagnostics": ("AdvantageStats", "conflict", "forecast"),
    "core.methods": ("METHODS", "Method"),
    "errors": ("ConfigError", "IntegrationError", "RewardError", "RvpoError"),
    "rewards.declarations": ("Channel", "scalar_reward", "vector_reward"),
    "integrations.trl.trainer": ("RVPOConfig", "RVPOTrainer"),
}
"""Module -> its names that are the package's too."""


def __getattr__(name: str) -> Any:
    """Import a name's module when it is first asked for: `rvpo --help` waits for no NumPy, nobody for TRL in vain."""
    for module, names in _HOMES.items():
        if name in names:
            globals()[name] = value = getattr(import_module(f"rvpo.{module}"), name)
            return value
    raise AttributeError(f"module 'rvpo' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
