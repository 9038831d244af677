"""What is trained on the task `instructions`: settings, methods, cells. Results lie in the folder of a suite.

A step is one batch of rollouts and its updates. TRL's global step counts updates: `steps * updates` of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from rvpo.errors import ConfigError
from rvpo_lab.suite.plan import Cell, find_contender

__all__ = ["HELP", "METHODS", "TASK", "Settings", "cells"]

TASK = "instructions"
METHODS = ("gdpo", "rvpo", "rvpo_k1", "rvpo_policy", "sa_mrpo", "saw", "dara", "grpo", "maxrl", "pow3r")
"""The suite's contenders that are compared, in the order in which they are run."""


@dataclass(frozen=True)
class Settings:
    """What all cells of a folder have in common."""

    steps: int = 60
    prompts: int = 16
    rollouts: int = 8
    updates: int = 4
    """Each on another part of the batch of rollouts, as in GDPO's recipe (512 rollouts, 128 an update)."""
    passes: int = 1
    epsilon: float = 0.2
    learning_rate: float = 2e-5
    beta: float = 0.0
    tokens: int = 96
    evaluate_every: int = 10
    held_out: int = 256
    lora: int = 0


HELP = {
    "steps": "batches of rollouts of a run",
    "prompts": "prompts of a batch",
    "rollouts": "rollouts of a prompt, the group size",
    "updates": "parts of a batch, an update on each",
    "passes": "times that a batch is gone through (TRL's num_iterations)",
    "epsilon": "clip range of the policy ratio",
    "learning_rate": "after a short warm-up",
    "beta": "KL penalty to the start; the KL itself is always measured",
    "tokens": "of an answer, at most",
    "evaluate_every": "steps between two evaluations",
    "held_out": "held-out prompts, an answer each",
    "lora": "rank of adapters instead of training all weights; 0: all weights",
}
"""Setting -> help of its option."""


def cells(methods: Sequence[str], seeds: Sequence[int]) -> list[Cell]:
    """Return every method x seed, seed by seed, so that results cut short have whole seeds.

    Raises ConfigError for an unknown method, or none.
    """
    for method in methods:
        find_contender(method)
    if not methods or not seeds:
        raise ConfigError(f"there is nothing to train with methods {list(methods)} and seeds {list(seeds)}")
    return [Cell(TASK, method, seed) for seed in dict.fromkeys(seeds) for method in dict.fromkeys(methods)]
