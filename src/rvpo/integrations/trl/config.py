"""Configuration of `RVPOTrainer`: everything of TRL's `GRPOConfig`, and how the channels become an advantage."""

import os
from dataclasses import dataclass, field

from rvpo.errors import ConfigError
from rvpo.integrations.method_config import MethodConfig, as_mapping
from rvpo.integrations.trl.version import check_trl

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

    rollouts_per_step: int | None = field(
        default=None,
        metadata={
            "help": "Completions per optimizer step over all processes, whatever their number; sets "
            "gradient_accumulation_steps."
        },
    )

    def __post_init__(self) -> None:
        """Check RVPO's options, then TRL's."""
        self.check_method()
        if self.rollouts_per_step is not None:
            self.gradient_accumulation_steps = self._accumulation(self.rollouts_per_step)
        super().__post_init__()

    def _accumulation(self, rollouts: int) -> int:
        """Return over how many backward passes of all processes an optimizer step goes; ConfigError if not whole."""
        processes = int(os.environ.get("WORLD_SIZE", "1"))  # TRL's own count is known only after its checks
        at_once: int = self.per_device_train_batch_size * processes
        if rollouts < 1 or rollouts % at_once:
            raise ConfigError(
                f"rollouts_per_step must be a multiple of {at_once}, that is per_device_train_batch_size "
                f"{self.per_device_train_batch_size} times {processes} processes; got {rollouts}"
            )
        if self.gradient_accumulation_steps not in (1, rollouts // at_once):
            raise ConfigError(
                f"rollouts_per_step sets gradient_accumulation_steps to {rollouts // at_once}, but that is given as "
                f"{self.gradient_accumulation_steps}; remove one of them"
            )
        return rollouts // at_once
