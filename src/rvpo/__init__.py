"""Train language models on many rewards at once so that none is neglected, and see which one would be."""

from typing import Any

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


def __getattr__(name: str) -> Any:
    """Import the TRL trainer when it is first asked for: `import rvpo` needs neither torch nor TRL."""
    if name in ("RVPOConfig", "RVPOTrainer"):
        from rvpo.integrations.trl import trainer as trl_trainer

        return getattr(trl_trainer, name)
    raise AttributeError(f"module 'rvpo' has no attribute {name!r}")
