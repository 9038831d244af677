"""Train language models on many rewards at once so that none is neglected, and see which one would be."""

from rvpo.advantages import PRESETS, AdvantageResult, compute_advantages
from rvpo.aggregations import AGGREGATIONS as METHODS
from rvpo.diagnostics import AdvantageStats, conflict, forecast
from rvpo.errors import ConfigError, IntegrationError, RewardError, RvpoError
from rvpo.schedules import EffectiveChannels

__version__ = "0.1.0"

__all__ = [
    "METHODS",
    "PRESETS",
    "AdvantageResult",
    "AdvantageStats",
    "ConfigError",
    "EffectiveChannels",
    "IntegrationError",
    "RewardError",
    "RvpoError",
    "__version__",
    "compute_advantages",
    "conflict",
    "forecast",
]
