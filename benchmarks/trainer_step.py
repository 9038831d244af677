"""Time of an RVPOTrainer step over a GRPOTrainer step: the same policy, prompts and rewards, steps in turns.

python benchmarks/trainer_step.py [--method rvpo --hidden 128 --layers 4 --vocabulary 256 --device cpu --steps 60]

Both trainers are advanced one optimisation step at a time, in turns, so that a slow moment of the machine hits
both. Answers all have the full length (the end token is never sampled), or a shorter batch would decide.
"""

import argparse
import statistics
import tempfile
import time

import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from rvpo import METHODS, RVPOConfig, RVPOTrainer
from rvpo.llm.tokenizer import load_tokenizer
from rvpo_lab.tasks.policy import build_policy, word_tokenizer


def reward(index):
    def score(completions, **kwargs):
        return [float((len(text) * (index + 3)) % 7) for text in completions]

    score.__name__ = f"reward_{index}"
    return score


def trainer(cls, config, folder, rows, options, **more):
    args = config(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=64,
        num_generations=8,
        max_completion_length=48,
        generation_kwargs={"min_new_tokens": 48},
        max_steps=10**6,
        logging_steps=10**6,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=options.device == "cpu",
        bf16=options.device != "cpu",
        gradient_checkpointing=False,
        dataloader_pin_memory=False,
        **more,
    )
    made = cls(
        model=str(folder),
        reward_funcs=[reward(index) for index in range(5)],
        args=args,
        train_dataset=rows,
        processing_class=load_tokenizer(folder),
    )
    made.create_optimizer_and_scheduler(10**6)
    made.current_gradient_accumulation_steps = 1  # what train() sets
    return made


def step(made, rows):
    """One training step, timed: generation, rewards, advantages, loss, backward, optimiser."""
    made.model.train()
    if made.accelerator.device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    made.training_step(made.model, rows, num_items_in_batch=None)
    made.optimizer.step()
    made.optimizer.zero_grad()
    if made.accelerator.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", choices=METHODS, default="rvpo")
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--vocabulary", type=int, default=256)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--steps", type=int, default=60)
    options = parser.parse_args()
    words = [f"w{index}" for index in range(options.vocabulary)]
    folder = build_policy(tempfile.mkdtemp(), word_tokenizer(words), hidden_size=options.hidden, layers=options.layers)
    prompts = [" ".join(words[(i * 7 + j) % len(words)] for j in range(16)) for i in range(8)]
    rows = Dataset.from_list([{"prompt": prompt} for prompt in prompts])
    batch = [{"prompt": prompt} for prompt in prompts for _ in range(8)]
    stock = trainer(GRPOTrainer, GRPOConfig, folder, rows, options)
    ranges = {f"reward_{index}": [0, 6] for index in range(5)}
    ours = trainer(RVPOTrainer, RVPOConfig, folder, rows, options, method=options.method, channel_ranges=ranges)
    size = sum(parameter.numel() for parameter in ours.model.parameters()) / 1e6
    pairs = []
    for index in range(options.steps + 3):
        order = (stock, ours) if index % 2 else (ours, stock)
        times = {made: step(made, batch) for made in order}
        pairs.append((times[ours], times[stock]))
    pairs = pairs[3:]
    ratios = sorted(a / b for a, b in pairs)
    low, high = ratios[len(ratios) // 4], ratios[3 * len(ratios) // 4]
    print(
        f"RVPOTrainer step ({options.method}) over GRPOTrainer step, {size:.1f}M parameters, 64 x 48 tokens, "
        f"{options.device}: "
        f"median {statistics.median(ratios):.3f} (quartiles {low:.3f} to {high:.3f}), ratio of medians "
        f"{statistics.median(a for a, _ in pairs) / statistics.median(b for _, b in pairs):.3f}, "
        f"{1e3 * statistics.median(b for _, b in pairs):.0f} ms a step"
    )


if __name__ == "__main__":
    main()
