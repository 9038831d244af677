"""Configuration of `RVPOTrainer`: everything of TRL's `GRPOConfig`, and how the channels become an advantage."""

from dataclasses import dataclass

from rvpo.integrations.method_config import MethodConfig, as_mapping
from rvpo.integrations.trl_version import check_trl

check_trl()

from trl import GRPOConfig  # noqa: E402

__all__ = ["RVPOConfig", "as_mapping"]


@dataclass
class RVPOConfig(MethodConfig, GRPOConfig):  # type: ignore[misc]
    """GRPOConfig plus the options of RVPO (arXiv 2605.05750). The defaults are the paper's form with k = 1.

    The paper's rubric runs use `k_schedule="linear", k=0.5, k_end=2.0`. TRL's `scale_rewards` and
    `multi_objective_aggregation` have no effect: the advantage is the one configured here.
    `reward_weights` multiply the channel weights of their reward function.
    """

    def __post_init__(self) -> None:
        """Check RVPO's options, then TRL's."""
        self.check_method()
        super().__post_init__()
