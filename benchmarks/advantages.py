"""Speed of `compute_advantages` beside verl's estimator, TRL's inline code and a copy of the rewards.

python benchmarks/advantages.py
"""

import ast
import gc
import inspect
import os
import resource
import subprocess
import sys
import textwrap
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from timing import ratio
from trl.trainer import grpo_trainer
from verl.trainer.ppo.core_algos import compute_gdpo_outcome_advantage

from rvpo import METHODS, compute_advantages

MARK = "multi_objective_aggregation"


def trl_advantages(
    rewards: torch.Tensor, group_size: int, aggregation: str, weights: torch.Tensor | None = None
) -> Any:
    """Return a function without arguments that runs TRL's statements on rewards (N, M) and returns advantages.

    They are taken from the installed source, so that what is timed is theirs.
    """
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


def verl_gdpo(rewards: torch.Tensor) -> object:
    """Return a function that runs verl's GDPO estimator on (P, G, M) rewards, one token a response."""
    prompts, rollouts, channels = rewards.shape
    number = prompts * rollouts
    index = np.repeat(np.arange(prompts), rollouts)
    names = [f"c{j}" for j in range(channels)]
    components = dict(zip(names, rewards.reshape(number, channels).T.numpy(), strict=True))
    mask = torch.ones(number, 1)
    batch = {"prompts": torch.zeros(number, 1), "attention_mask": torch.ones(number, 2, dtype=torch.long)}
    return lambda: compute_gdpo_outcome_advantage(
        mask, mask, index, config={"gdpo_reward_keys": names}, non_tensor_batch=components, batch=batch
    )


def peers() -> None:
    rewards = torch.rand(512, 16, 17)
    lost = rewards.masked_fill(torch.rand(rewards.shape) < 0.1, torch.nan)
    times, ours, theirs = ratio(verl_gdpo(rewards), lambda: compute_advantages(rewards, method="gdpo"), 3)
    print(f"(512, 16, 17)  gdpo: verl takes {times:.0f} times as long ({ours:.0f} ms against {theirs:.2f} ms)")
    for what, values in (("complete", rewards), ("10 % missing", lost)):
        flat = values.reshape(-1, 17)
        trl = trl_advantages(flat, 16, "normalize_then_sum")
        for method, stats in (("gdpo", False), ("gdpo", True), ("rvpo", False), ("rvpo", True)):

            def run(method: str = method, stats: bool = stats, flat: torch.Tensor = flat) -> object:
                result = compute_advantages(flat, method=method, group_size=16)
                return result.stats if stats else result

            times, ours, theirs = ratio(run, trl, 200)
            print(
                f"(512, 16, 17)  {method}, {what}, {'with' if stats else 'without'} diagnostics: "
                f"{times:.2f} of TRL's inline GDPO ({ours:.2f} ms against {theirs:.2f} ms)"
            )


def methods() -> None:
    """Every method on one batch, its diagnostics left out."""
    rewards = torch.rand(512 * 16, 17)
    trl = trl_advantages(rewards, 16, "normalize_then_sum")
    for method in METHODS:
        times, ours, theirs = ratio(partial(compute_advantages, rewards, method=method, group_size=16), trl, 100)
        print(f"(512, 16, 17)  {method}: {times:.2f} of TRL's inline GDPO ({ours:.2f} ms against {theirs:.2f} ms)")


def peak_memory() -> float:
    """Return this process's peak resident memory in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def large(kind: str) -> None:
    """Time and peak memory at (65536, 16, 17) float32; in a process of its own, or the peak would not be its own."""
    make = torch.rand if kind == "torch" else lambda *shape: np.random.default_rng(0).random(shape, dtype=np.float32)
    rewards = make(65536, 16, 17)
    size = rewards.nbytes / 2**20
    copy = rewards.clone if kind == "torch" else rewards.copy
    compute_advantages(rewards[:64])  # what the first call imports and starts is not the method's memory
    gc.collect()
    before = peak_memory()
    compute_advantages(rewards)
    memory = (peak_memory() - before) / size
    times, ours, theirs = ratio(lambda: compute_advantages(rewards).stats, copy, 5)
    print(
        f"(65536, 16, 17)  rvpo, float32, {kind}: {times:.1f} of the time of one copy of the rewards "
        f"({ours:.0f} ms against {theirs:.0f} ms); peak memory {memory:.1f} times the rewards beside them"
    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        large(sys.argv[1])
    else:
        print(f"{torch.get_num_threads()} threads, {os.cpu_count()} cores, medians of pairs")
        peers()
        methods()
        for kind in ("torch", "numpy"):
            subprocess.run([sys.executable, __file__, kind], check=True)
