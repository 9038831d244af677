"""TRL's own lines from rewards to advantages, taken from the installed source, so that what is timed is theirs."""

import ast
import inspect
import textwrap
from types import SimpleNamespace
from typing import Any

import torch
from trl.trainer import grpo_trainer

MARK = "multi_objective_aggregation"


def trl_advantages(
    rewards: torch.Tensor, group_size: int, aggregation: str, weights: torch.Tensor | None = None
) -> Any:
    """Return a function without arguments that runs TRL's statements on rewards (N, M) and returns advantages."""
    method = grpo_trainer.GRPOTrainer._generate_and_score_completions
    body = ast.parse(textwrap.dedent(inspect.getsource(method))).body[0].body
    start = next(i for i, node in enumerate(body) if "unscorable_mask" in ast.unparse(node))
    branch = next(i for i, node in enumerate(body) if isinstance(node, ast.If) and MARK in ast.unparse(node.test))
    code = compile(ast.Module(body[start : branch + 2], []), "grpo_trainer.py", "exec")
    trainer = SimpleNamespace(
        multi_objective_aggregation=aggregation,
        reward_weights=torch.ones(rewards.shape[1]) if weights is None else weights,
        reward_funcs=[None] * rewards.shape[1],
        scale_rewards="group",
    )
    names = {"rewards_per_func": rewards, "num_generations": group_size, "device": rewards.device, "self": trainer}

    def run() -> torch.Tensor:
        scope = vars(grpo_trainer) | names
        exec(code, scope)
        return scope["advantages"]

    return run
