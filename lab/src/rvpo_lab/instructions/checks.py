"""What only a GPU can show: advantages there and on the CPU, their time and kernels, a trainer's step and memory."""

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from rvpo import METHODS, RVPOConfig, RVPOTrainer, compute_advantages
from rvpo.errors import RvpoError
from rvpo.llm.tokenizer import load_tokenizer
from rvpo.text import markdown_table, number
from rvpo_lab.instructions.kinds import KINDS
from rvpo_lab.instructions.sampler import Sampler
from rvpo_lab.instructions.task import Settings, grade, rows

# TRL is first imported by the trainer, behind the check of its version.
import torch  # isort: skip
from datasets import Dataset  # isort: skip
from transformers import AutoModelForCausalLM  # isort: skip
from trl import GRPOConfig, GRPOTrainer  # isort: skip

__all__ = ["advantages_agree", "checks", "step_ratio"]

SHAPE = (512, 16, 17)
"""Prompts, rollouts and channels of the timed advantages: rubric training at its largest."""
REPEATS = 50
STEP_PAIRS, WARM_UP_PAIRS = 12, 3
PROMPTS = 8
"""Of a timed step, as many rollouts each."""


def example_rewards(shape: tuple[int, int, int], dtype: Any) -> Any:
    """Return rewards in [0, 1], a fifth of them missing, channels dead in some groups, on the CPU."""
    generator = torch.Generator().manual_seed(0)
    rewards = torch.rand(shape, generator=generator)
    rewards[:, :, 0] = (rewards[:, :, 0] > 0.1).float()
    rewards[torch.rand(shape, generator=generator) < 0.2] = torch.nan
    rewards[0, :, 1] = 0.5
    rewards[1] = torch.nan
    return rewards.to(dtype)


def advantages_agree(device: str) -> dict[str, dict[str, float]]:
    """Return method -> dtype -> largest distance between the advantages of a device and of NumPy on the CPU.

    Both begin from the same rewards in that dtype; the distance is NaN if only one of them is finite.
    """
    distances: dict[str, dict[str, float]] = {}
    for method in METHODS:
        for dtype in (torch.float32, torch.bfloat16):
            rewards = example_rewards((16, 8, 9), dtype)
            there = compute_advantages(rewards.to(device), method=method).advantages
            here = compute_advantages(rewards.double().numpy(), method=method).advantages
            if there.device.type != torch.device(device).type or there.dtype != dtype:
                raise RvpoError(
                    f"{method}: advantages of {dtype} rewards on {device} came as {there.dtype} on {there.device}"
                )
            expected = torch.as_tensor(here).to(dtype).double().numpy()  # rounded as the result is
            distance = float(np.max(np.abs(there.double().cpu().numpy() - expected)))
            distances.setdefault(method, {})[str(dtype).removeprefix("torch.")] = distance
    return distances


def advantage_times(device: str) -> dict[str, dict[str, float]]:
    """Return method -> milliseconds (median) and number of kernels and copies of `compute_advantages` at SHAPE."""
    from torch.profiler import ProfilerActivity, profile

    rewards = example_rewards(SHAPE, torch.float32).to(device)
    results = {}
    for method in METHODS:

        def compute(method: str = method) -> None:
            compute_advantages(rewards, method=method)
            torch.cuda.synchronize()

        compute()
        times = []
        for _ in range(REPEATS):
            began = time.perf_counter()
            compute()
            times.append(time.perf_counter() - began)
        with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as profiled:
            compute()
        on_gpu = [event.name for event in profiled.events() if event.device_type == torch._C._autograd.DeviceType.CUDA]
        copies = sum(name.startswith("Mem") for name in on_gpu)
        results[method] = {
            "milliseconds": 1e3 * statistics.median(times),
            "kernels": len(on_gpu) - copies,
            "copies": copies,
        }
    return results


def _reward(kind: str) -> Callable[..., list[float | None]]:
    """Return one kind of instruction as a reward function of TRL's: None where a prompt does not have it."""

    def reward(completions: Any, instructions: Any, **kwargs: Any) -> list[float | None]:
        texts = [completion[-1]["content"] for completion in completions]
        return [
            grade({"instructions": given}, text).get(kind) for text, given in zip(texts, instructions, strict=True)
        ]

    reward.__name__ = kind
    return reward


def _trainer(cls: Any, config: Any, policy: str, settings: Settings, data: Any, **options: Any) -> Any:
    """Return a trainer that is ready for single steps; its learning rate is 0, so that all see the same answers."""
    on_gpu = torch.cuda.is_available()
    args = config(
        output_dir=tempfile.mkdtemp(prefix="rvpo-checks-"),
        per_device_train_batch_size=PROMPTS * PROMPTS,
        num_generations=PROMPTS,
        max_completion_length=settings.tokens,
        learning_rate=0.0,
        max_steps=10**6,
        logging_steps=10**6,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=not on_gpu,
        bf16=on_gpu,
        gradient_checkpointing=False,
        dataloader_pin_memory=False,
        model_init_kwargs={"dtype": "float32"},
        **options,
    )
    tokenizer = load_tokenizer(policy, padding_side="left")
    rewards = [_reward(kind) for kind in list(KINDS)]
    made = cls(model=policy, reward_funcs=rewards, args=args, train_dataset=data, processing_class=tokenizer)
    chats = [row["prompt"] for row in data]
    ids = tokenizer.apply_chat_template(chats, add_generation_prompt=True, return_dict=True)["input_ids"]
    sampler = Sampler(
        made.model,
        rows=PROMPTS * PROMPTS,
        capacity=max(map(len, ids)) + settings.tokens,
        eos=tokenizer.eos_token_id,
    )
    made.rollout_func = sampler.rollout(tokenizer, settings.tokens, seed=0)
    made.create_optimizer_and_scheduler(10**6)
    made.current_gradient_accumulation_steps = 1  # what train() sets
    return made


def _step(trainer: Any, batch: list[dict[str, Any]]) -> float:
    """Return the seconds of one step: rollouts, rewards, advantages, loss, gradient, optimiser."""
    wait = torch.cuda.synchronize if trainer.accelerator.device.type == "cuda" else int
    trainer.model.train()
    wait()
    began = time.perf_counter()
    trainer.training_step(trainer.model, batch, num_items_in_batch=None)
    trainer.optimizer.step()
    trainer.optimizer.zero_grad()
    wait()
    return time.perf_counter() - began


def step_ratio(policy: str, settings: Settings, *, pairs: int = STEP_PAIRS) -> dict[str, float]:
    """Return the time of an RVPOTrainer step over a GRPOTrainer step, in turns, same answers: median, quartiles."""
    data = Dataset.from_list(rows(PROMPTS, 0))
    batch = [dict(row) for row in data for _ in range(PROMPTS)]
    stock = _trainer(GRPOTrainer, GRPOConfig, policy, settings, data)
    ours = _trainer(RVPOTrainer, RVPOConfig, policy, settings, data)
    times = []
    for index in range(pairs + WARM_UP_PAIRS):
        seconds = {made: _step(made, batch) for made in ((stock, ours) if index % 2 else (ours, stock))}
        times.append((seconds[ours], seconds[stock]))
    ratios = [a / b for a, b in times[WARM_UP_PAIRS:]]
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    own, theirs = (statistics.median(column) for column in zip(*times[WARM_UP_PAIRS:], strict=True))
    result = {"ratio": float(middle), "low": float(low), "high": float(high), "rvpo_s": own, "grpo_s": theirs}
    if torch.cuda.is_available():
        result["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
    return result


def sampling_times(policy: str, settings: Settings) -> dict[str, float]:
    """Return seconds for one batch of rollouts by the graph sampler and by `generate`, with all tokens sampled."""
    tokenizer = load_tokenizer(policy, padding_side="left")
    model: Any = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.bfloat16)
    model = model.to("cuda").eval()
    chats = [row["prompt"] for row in rows(settings.prompts, 0) for _ in range(settings.rollouts)]
    ids = tokenizer.apply_chat_template(chats, add_generation_prompt=True, return_dict=True)["input_ids"]
    capacity = max(map(len, ids)) + settings.tokens
    sampler = Sampler(model, rows=len(ids), capacity=capacity, eos=tokenizer.eos_token_id)
    sampler.eos = -1  # no token ends an answer
    generator = torch.Generator("cuda").manual_seed(0)
    batch = tokenizer.pad({"input_ids": ids}, return_tensors="pt").to("cuda")
    ways: dict[str, Callable[[], Any]] = {
        "graph_s": lambda: sampler.sample(ids, settings.tokens, generator),
        "generate_s": lambda: model.generate(
            **batch, do_sample=True, top_k=0, max_new_tokens=settings.tokens, min_new_tokens=settings.tokens
        ),
    }
    seconds = {}
    for name, run in ways.items():
        run()
        torch.cuda.synchronize()
        began = time.perf_counter()
        run()
        torch.cuda.synchronize()
        seconds[name] = time.perf_counter() - began
    return seconds


def checks(policy: str | None, settings: Settings, out: Path) -> str:
    """Run all checks on this machine's GPU, write checks.json into `out`; return the tables as Markdown.

    Without a GPU: the distances of torch from NumPy on the CPU, and what is left out. Without a policy: no steps.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    result: dict[str, Any] = {"device": name, "torch": torch.__version__, "distance": advantages_agree(device)}
    text = (
        f"{name}, torch {torch.__version__}. Advantages of torch there against NumPy on the CPU, rewards with NaN:\n\n"
    )
    columns = ["float32", "bfloat16"]
    table = {method: [f"{by[dtype]:.1e}" for dtype in columns] for method, by in result["distance"].items()}
    if device == "cuda":
        result["advantages"] = advantage_times(device)
        shape = " x ".join(map(str, SHAPE))
        columns += [f"ms at {shape}", "kernels", "copies"]
        for method, row in result["advantages"].items():
            table[method] += [number(row["milliseconds"]), str(row["kernels"]), str(row["copies"])]
    text += markdown_table(["method", *columns], [[method, *cells] for method, cells in table.items()])
    if device == "cpu":
        text += "\nNo GPU: times, kernels, steps and memory are left out.\n"
    elif policy is not None:
        result["sampling"] = sampling = sampling_times(policy, settings)
        text += (
            f"\n{settings.prompts} x {settings.rollouts} answers of {settings.tokens} tokens: "
            f"{sampling['graph_s']:.2f} s by the graph sampler, {sampling['generate_s']:.2f} s by generate.\n"
        )
        result["step"] = step = step_ratio(policy, settings)
        text += (
            f"\nRVPOTrainer step over GRPOTrainer step, {PROMPTS} x {PROMPTS} rollouts of at most {settings.tokens} "
            f"tokens, {len(KINDS)} rewards: median {step['ratio']:.3f} (quartiles {step['low']:.3f} to "
            f"{step['high']:.3f}), {step['grpo_s']:.2f} s a step; both trainers at once at most "
            f"{step['peak_gib']:.1f} GiB.\n"
        )
    out.mkdir(parents=True, exist_ok=True)
    (out / "checks.json").write_text(json.dumps(result, indent=2) + "\n")
    return text
