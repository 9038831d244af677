"""Configuration of `RVPOTrainer`: everything of TRL's `GRPOConfig`, and how the channels become an advantage."""

import copy
import logging
import os
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, cast

from rvpo.core.methods import find_method
from rvpo.errors import ConfigError
from rvpo.integrations.method_config import MethodConfig, as_mapping
from rvpo.integrations.versions import check_trl

check_trl()

from trl import GRPOConfig  # noqa: E402

__all__ = ["RVPOConfig", "as_mapping", "without_accelerator"]


OLD_NAMES = {
    "gradient_checkpointing": "activation_checkpointing",
    "gradient_checkpointing_kwargs": "activation_checkpointing_kwargs",
}


def without_accelerator() -> dict[str, Any]:
    """Return the options that training needs where torch sees no accelerator, as TRL's defaults want one; else {}."""
    import torch

    sees = torch.accelerator.is_available() if hasattr(torch, "accelerator") else torch.cuda.is_available()
    return {} if sees else {"use_cpu": True, "bf16": False}


@dataclass
class RVPOConfig(MethodConfig, GRPOConfig):  # type: ignore[misc]
    """GRPOConfig plus the options of RVPO (arXiv 2605.05750). The defaults are the paper's form with k = 1.

    The paper's rubric runs use `k_schedule="linear", k=0.5, k_end=2.0`. TRL's `scale_rewards` and
    `multi_objective_aggregation` hold for method "grpo", as in TRL; with another method they must be the default.
    `reward_weights` multiply the channel weights of their reward function; a negative one makes it a penalty.
    """

    rollouts_per_step: int | None = field(
        default=None,
        metadata={
            "help": "Completions per optimizer step over all processes, whatever their number; sets "
            "gradient_accumulation_steps."
        },
    )

    tracker_metrics: str = field(
        default="short",
        metadata={
            "help": "What W&B, TensorBoard, trackio and the terminal get of the channels' metrics: short (mean, "
            "weight and dead by channel, the average of every kind; of more than 20 channels the ten lowest and ten "
            "highest means by rank, and channels.csv in the output folder has all), or all (channels/NAME/KIND)."
        },
    )

    resample_dead: int = field(
        default=0,
        metadata={
            "help": "How often, within a step, groups without signal are generated anew with other prompts of the "
            "data set. A new group takes the place if it has signal. 0: never."
        },
    )
    resample_signal: str = field(
        default="any",
        metadata={
            "help": "What signal is: any (some channel differs within the group), or neglected (one of the channels "
            "whose mean in the batch is below 0.3 of its range, where the prompt has any)."
        },
    )

    prompt_sampling: str = field(
        default="uniform",
        metadata={
            "help": "How training prompts are drawn: uniform (TRL's order), or signal (in proportion to how many of "
            "the lowest third of channels are expected to vary in the prompt's group, by this run's own rollouts)."
        },
    )
    prompt_sampling_floor: float | None = field(
        default=None,
        metadata={"help": "Share of the draws of 'signal' that is uniform over the data set, in (0, 1). None: 0.2."},
    )
    prompt_sampling_channels: str | None = field(
        default=None,
        metadata={
            "help": "Column with each prompt's channels, as names or as a rubric, by which 'signal' judges prompts "
            "that were not drawn yet. None: they count as the average of the others."
        },
    )
    prompt_sampling_unbiased: bool = field(
        default=False,
        metadata={
            "help": "Multiply the advantages of each group by its prompt's importance weight, at most 1 / floor, so "
            "that 'signal' trains on the same mean over the data set as uniform sampling."
        },
    )

    @classmethod
    def of(cls, config: GRPOConfig) -> "RVPOConfig":
        """Return a configuration of TRL with RVPO's defaults beside it; what was chosen is logged.

        Raises ConfigError for an option of TRL's own advantages that would have no effect with them.
        """
        made: Any = copy.copy(config)
        made.__class__ = cls  # TRL's own checks have changed fields by now, and do not pass twice
        for option in fields(cls):
            if not hasattr(made, option.name):
                value = option.default if option.default_factory is MISSING else option.default_factory()
                setattr(made, option.name, value)
        made.check_method()
        made._check_trls_advantages()
        logging.getLogger(__name__).warning(
            "GRPOConfig is taken as RVPOConfig with method %r and k %g; choose another with "
            "args=RVPOConfig(method=...), which takes every option of GRPOConfig",
            made.method,
            find_method(made.method).default_k,
        )
        return cast(RVPOConfig, made)

    def __post_init__(self) -> None:
        """Check RVPO's options, then TRL's."""
        self.check_method()
        if self.rollouts_per_step is not None:
            self.gradient_accumulation_steps = self._accumulation(self.rollouts_per_step)
        # transformers 5.20 and later warn of the old names, one of which TRL's own default gives.
        for old, new in OLD_NAMES.items():
            if getattr(self, new, old) is None:
                setattr(self, new, getattr(self, old))
        self._choose_cpu()
        try:
            super().__post_init__()
        except ValueError as error:
            if "bf16/gpu" not in str(error):
                raise
            raise ConfigError(
                f"bf16={self.bf16} needs an accelerator that can do it, and there is none here; write use_cpu=True, "
                "bf16=False to train on the CPU"
            ) from error
        self._check_trls_advantages()
        self._check_resampling()
        self._check_sampling()
        if self.tracker_metrics not in ("short", "all"):
            raise ConfigError(f"tracker_metrics must be short or all, got {self.tracker_metrics!r}")

    def _choose_cpu(self) -> None:
        """Set what a machine without accelerator needs, and log it, where nothing was said of precision or the CPU."""
        if self.use_cpu or self.bf16 is not None or self.fp16 or not (chosen := without_accelerator()):
            return
        for name, value in chosen.items():
            setattr(self, name, value)
        words = ", ".join(f"{name}={value}" for name, value in chosen.items())
        logging.getLogger(__name__).warning("no accelerator here, so it trains on the CPU (%s)", words)

    def _check_resampling(self) -> None:
        """Raise ConfigError for resampling out of its domain, without effect, or of groups on two processes."""
        if isinstance(self.resample_dead, bool) or not isinstance(self.resample_dead, int) or self.resample_dead < 0:
            raise ConfigError(f"resample_dead must be a whole number >= 0, got {self.resample_dead!r}")
        if self.resample_signal not in ("any", "neglected"):
            raise ConfigError(f"resample_signal must be any or neglected, got {self.resample_signal!r}")
        if self.resample_signal != "any" and not self.resample_dead:
            raise ConfigError(f"resample_signal {self.resample_signal!r} has no effect without resample_dead")
        own = self.per_device_train_batch_size * self.steps_per_generation
        if self.resample_dead and own % self.num_generations:
            raise ConfigError(
                f"resample_dead needs whole groups on each process: per_device_train_batch_size "
                f"{self.per_device_train_batch_size} times steps_per_generation {self.steps_per_generation} must be a "
                f"multiple of num_generations {self.num_generations}"
            )

    def _check_sampling(self) -> None:
        """Raise ConfigError for prompt sampling out of its domain, without effect, or in contradiction."""
        if self.prompt_sampling not in ("uniform", "signal"):
            raise ConfigError(f"prompt_sampling must be uniform or signal, got {self.prompt_sampling!r}")
        floor = self.prompt_sampling_floor
        others = {"floor": floor, "channels": self.prompt_sampling_channels, "unbiased": self.prompt_sampling_unbiased}
        if self.prompt_sampling == "uniform" and (given := [name for name, value in others.items() if value]):
            raise ConfigError(f"prompt_sampling_{given[0]} has no effect with prompt_sampling 'uniform'; set 'signal'")
        is_number = isinstance(floor, int | float) and not isinstance(floor, bool)
        if floor is not None and not (is_number and 0 < floor < 1):
            raise ConfigError(f"prompt_sampling_floor must be a number in (0, 1), got {floor!r}")
        if self.prompt_sampling == "signal" and not self.shuffle_dataset:
            raise ConfigError(
                "shuffle_dataset false keeps the data set's order, and prompt_sampling 'signal' has none; remove one "
                "of them"
            )
        if self.prompt_sampling_unbiased and self.resample_dead:
            raise ConfigError(
                "prompt_sampling_unbiased and resample_dead contradict each other: groups that are put in the place "
                "of dead ones are not drawn by known probabilities; remove one of them"
            )

    def _check_trls_advantages(self) -> None:
        """Raise ConfigError for an option of TRL's own advantages that would have no effect."""
        if self.scale_rewards not in ("group", "batch", "none"):
            raise ConfigError(f"scale_rewards must be group, batch or none, got {self.scale_rewards!r}")
        aggregation = self.multi_objective_aggregation
        if aggregation not in ("sum_then_normalize", "normalize_then_sum"):
            raise ConfigError(
                f"multi_objective_aggregation must be sum_then_normalize or normalize_then_sum, got {aggregation!r}"
            )
        sums_first = aggregation == "sum_then_normalize"
        if not sums_first and self.method not in ("grpo", "gdpo"):  # it is GDPO by TRL's name
            raise ConfigError(
                f"multi_objective_aggregation {aggregation!r} has no effect with method {self.method!r}; remove it"
            )
        if self.scale_rewards != "group" and (self.method != "grpo" or not sums_first):
            raise ConfigError(
                f"scale_rewards {self.scale_rewards!r} has no effect with method {self.method!r}"
                f"{'' if sums_first else f' and multi_objective_aggregation {aggregation!r}'}; it is for method "
                "'grpo', that sums rewards and then scales"
            )
        if self.scale_rewards != "group" and "scale" in (self.mapping("method_options") or {}):
            raise ConfigError("scale_rewards and the option scale of grpo say the same; remove one of them")

    def advantage_options(self) -> dict[str, Any]:
        """Return the keyword arguments of `compute_advantages` that do not change over the run."""
        options = super().advantage_options()
        if self.method == "grpo" and self.multi_objective_aggregation == "normalize_then_sum":
            options["method"] = "gdpo"
        elif self.method == "grpo" and self.scale_rewards in (
            "batch",
            "none",
        ):  # not yet TRL's words before its checks
            options["scale"] = self.scale_rewards
        return options

    def settings(self) -> dict[str, Any]:
        """Return what must stay the same when a run is resumed."""
        return super().settings() | {
            "group size": self.num_generations,
            "reward_weights": self.reward_weights,
            "scale_rewards": self.scale_rewards,
            "multi_objective_aggregation": self.multi_objective_aggregation,
            "seed": self.seed,
            "resample_dead": self.resample_dead,
            "resample_signal": self.resample_signal,
            "prompt_sampling": self.prompt_sampling,
            "prompt_sampling_floor": self.prompt_sampling_floor,
            "prompt_sampling_channels": self.prompt_sampling_channels,
            "prompt_sampling_unbiased": self.prompt_sampling_unbiased,
        }

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
