"""What a suite consists of: contenders, cells, and the settings that all its cells share."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rvpo.core.methods import METHODS, find_method
from rvpo.errors import ConfigError, unknown_name
from rvpo_lab.option_text import parse_method
from rvpo_lab.tasks.catalog import TASKS

__all__ = [
    "BASELINE",
    "CONTENDERS",
    "OPTIONS",
    "Cell",
    "Contender",
    "SuiteSettings",
    "cells",
    "find_contender",
    "label",
]


@dataclass(frozen=True)
class Contender:
    """A method with the k it runs at."""

    name: str
    label: str
    """What tables show."""
    options: dict[str, Any] = field(default_factory=dict)
    """Fields of `RVPOConfig`; `channel_targets` by axis."""


PAPER_SCHEDULE = {"k_schedule": "linear", "k": 0.5, "k_end": 2.0}

CONTENDERS = {
    contender.name: contender
    for contender in (
        Contender("grpo", "GRPO", {"method": "grpo"}),
        Contender("gdpo", "GDPO", {"method": "gdpo"}),
        Contender("rvpo", "RVPO 0.5-2", {"method": "rvpo", **PAPER_SCHEDULE}),
        Contender("rvpo_k1", "RVPO k=1", {"method": "rvpo", "k": 1.0}),
        Contender("rvpo_k5", "RVPO k=5", {"method": "rvpo", "k": 5.0}),
        Contender("hard_min", "hard-min", {"method": "hard_min"}),
        Contender("rvpo_policy", "policy k=2", {"method": "rvpo_policy", "k": 2.0}),
        Contender(
            "rvpo_policy_log",
            "policy, log",
            {
                "method": "rvpo_policy",
                "k": 10.0,
                "method_options": {"utility": "log", "signal": "zscore", "total": "sum"},
            },
        ),
        Contender("mean_variance", "mean-var", {"method": "mean_variance", "k": 1.0}),
        Contender("corr_grpo", "CorrGRPO", {"method": "corr_grpo"}),
        Contender("dvao", "DVAO", {"method": "dvao"}),
        Contender("gd2po", "GD2PO", {"method": "gd2po"}),
        Contender("tchebycheff", "Tcheby k=2", {"method": "tchebycheff", "k": 2.0}),
        Contender("cvar", "CVaR 1/3", {"method": "cvar"}),
        Contender("sa_mrpo", "SA-MRPO", {"method": "sa_mrpo"}),
        Contender("saw", "SAW", {"method": "saw"}),
        Contender("dara", "DARA", {"method": "dara"}),
        Contender("maxrl", "MaxRL", {"method": "maxrl"}),
        Contender("pow3r", "POW3R", {"method": "pow3r"}),
    )
}
"""Every contender by name."""
BASELINE = "gdpo"
"""The contender that others are compared with."""


def label(contender: str) -> str:
    """Return what tables call a contender; one that was described instead of named stands as code."""
    return CONTENDERS[contender].label if contender in CONTENDERS else f"`{contender}`"


OF_THE_TRAINER = (
    *("anchor_decay", "dead_channels", "recenter", "std_ddof", "std_eps", "target_rate", "whiten"),
    *("prompt_sampling", "prompt_sampling_floor", "prompt_sampling_unbiased", "resample_dead", "resample_signal"),
)
"""Options of a described contender that are fields of `RVPOConfig`; all others are its `method_options`."""
AXES = ("accuracy", "communication", "completeness", "context", "instruction")
"""Axes of the rubric tasks: `targets=0.6` of a described contender gives each of them that target."""


@dataclass(frozen=True)
class SuiteSettings:
    """What all cells of a suite have in common."""

    steps: int = 100
    prompts_per_step: int = 8
    num_generations: int = 8
    learning_rate: float = 5e-4
    beta: float = 0.0
    """KL penalty to the warm start; 0 is TRL's default."""
    evaluate_every: int = 10
    held_out_prompts: int = 128
    warm_start_steps: int = 300
    hidden_size: int = 128
    """Width of the policy; 128 are 0.8 million parameters."""
    num_iterations: int = 1
    """Updates on each batch of rollouts; the first is on-policy, so clipping acts from the second on."""
    epsilon: float = 0.2
    """Range of the policy ratio beyond which it is clipped."""

    def __post_init__(self) -> None:
        """Raise ConfigError for counts that no run can have."""
        least = {"num_generations": 2, "warm_start_steps": 0}
        counts = [name for name, value in asdict(self).items() if isinstance(value, int)]
        if wrong := [name for name in counts if getattr(self, name) < least.get(name, 1)]:
            name = wrong[0]
            raise ConfigError(f"{name} must be at least {least.get(name, 1)}, got {getattr(self, name)}")


OPTIONS = {
    "steps": "per run",
    "prompts_per_step": "prompts of a batch",
    "num_generations": "rollouts of a prompt, the group size",
    "beta": "KL penalty to the warm start",
    "learning_rate": "of every step after a short warm-up",
    "warm_start_steps": "fewer make a weaker start, for trials",
    "hidden_size": "width of the policy",
    "num_iterations": "updates on each batch of rollouts; 1 is on-policy",
    "epsilon": "clip range of the policy ratio, for --num-iterations above 1",
}
"""SuiteSettings that `rvpo bench neglect` takes an option for, with its help."""


@dataclass(frozen=True)
class Cell:
    """One training run."""

    task: str
    contender: str
    seed: int

    @property
    def name(self) -> str:
        """File name without suffix."""
        return f"{self.task}-{re.sub(r'[^0-9A-Za-z_.=,-]', '_', self.contender)}-{self.seed}"


def cells(tasks: Sequence[str], contenders: Sequence[str], seeds: Sequence[int]) -> list[Cell]:
    """Return every task x contender x seed, seed by seed, so that a suite cut short has whole seeds.

    Raises ConfigError for an unknown task or contender, or none.
    """
    for task in tasks:
        if task not in TASKS:
            raise unknown_name("task", task, TASKS)
    for name in contenders:
        find_contender(name)
    if not tasks or not contenders or not seeds:
        raise ConfigError(f"a suite needs tasks, methods and seeds, got {tasks}, {contenders} and {seeds}")
    return [Cell(task, name, seed) for seed in dict.fromkeys(seeds) for task in tasks for name in contenders]


def find_contender(name: str) -> Contender:
    """Return the contender of that name, or the one that `METHOD:K:OPTION=VALUE,...` describes.

    >>> find_contender("rvpo_policy:1-4:signal=zscore,recenter=true").options == {
    ...     "method": "rvpo_policy", "k_schedule": "linear", "k": 1.0, "k_end": 4.0,
    ...     "recenter": True, "method_options": {"signal": "zscore"},
    ... }
    True
    """
    if name in CONTENDERS:
        return CONTENDERS[name]
    if name not in METHODS and ":" not in name:
        raise unknown_name("method", name, [*CONTENDERS, "package.module:function"])
    method, k, described = parse_method(name)
    options: dict[str, Any] = {"method": method}
    if find_method(method).takes_k:  # else any number may stand in its place
        options |= {"k_schedule": "linear", "k": k[0], "k_end": k[1]} if isinstance(k, tuple) else {"k": k}
    if "targets" in described:
        options["channel_targets"] = dict.fromkeys(AXES, described.pop("targets"))
    options |= {option: value for option, value in described.items() if option in OF_THE_TRAINER}
    of_the_method = {option: value for option, value in described.items() if option not in OF_THE_TRAINER}
    return Contender(name, name, options | ({"method_options": of_the_method} if of_the_method else {}))
