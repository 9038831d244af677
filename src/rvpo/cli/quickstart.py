"""`rvpo quickstart`: RVPO in TRL on a laptop, with nothing downloaded: a tiny policy, two conflicting rewards."""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import disable_progress_bars
from transformers import PrinterCallback, ProgressCallback, TrainerCallback
from transformers.utils import logging as transformers_logging

from rvpo.cli.summary import short_name
from rvpo.cli.train import RVPOScriptArguments, run
from rvpo.integrations.trl_trainer import RVPOConfig, RVPOTrainer
from rvpo.tasks import notes
from rvpo.tasks.policy import build_policy, warm_start, word_tokenizer

from trl import ModelConfig  # isort: skip  behind the check of TRL's version

__all__ = ["main"]

INTRODUCTION = """\
Task: "mention rain tea owl :" asks for words (reward 1, mention), in no more words than asked for (reward 2,
brevity). Saying everything meets one and fails the other."""


class OneLinePerLog(TrainerCallback):
    """Progress that reads well in a terminal and in a file: step, time left, k, and every channel's mean."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the clock."""
        self.began, self.first_step = time.monotonic(), state.global_step

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Print one line."""
        means = {
            short_name(key.split("/")[1]): value
            for key, value in (logs or {}).items()
            if key.startswith("channels/") and key.endswith("/mean") and value is not None
        }
        if not means or not state.is_world_process_zero:
            return
        done = max(state.global_step - self.first_step, 1)
        left = (time.monotonic() - self.began) / done * (state.max_steps - state.global_step)
        channels = "  ".join(f"{name} {float(mean):.2f}" for name, mean in means.items())
        print(
            f"step {state.global_step:>4}/{state.max_steps}  k {float((logs or {})['rvpo/k']):.2f}  {channels}  "
            f"{left:.0f} s left",
            flush=True,
        )


def compact_progress(trainer: RVPOTrainer) -> None:
    """Print one line per log in place of progress bars and whole dictionaries."""
    trainer.remove_callback(ProgressCallback)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(OneLinePerLog())


def prepare(folder: Path, seed: int) -> tuple[Path, Path]:
    """Return policy and rows of the task, made if they are not there from an earlier run."""
    policy, rows = folder / f"policy-{seed}", folder / f"rows-{seed}.jsonl"
    if not (policy / "warm").exists():
        build_policy(policy, word_tokenizer(notes.words()), hidden_size=96, layers=3, seed=seed)

        def report(step: int, loss: float) -> None:
            if step % 100 == 0:
                print(f"warm start {step:>4}/600  loss {loss:.2f}", flush=True)

        warm_start(policy, notes.warm_start_pairs(4000, seed), steps=600, batch_size=64, seed=seed, on_step=report)
        (policy / "warm").touch()
    rows.write_text("".join(json.dumps(row) + "\n" for row in notes.prompts(2000, seed + 1)))
    return policy, rows


def main(arguments: Sequence[str]) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="rvpo quickstart",
        description="Train a tiny policy by RVPO in TRL on two conflicting rewards; nothing is downloaded.",
        epilog="example: rvpo quickstart --method gdpo --steps 100 --out runs/gdpo",
    )
    parser.add_argument("--method", default="rvpo", help="how rewards become one advantage (default: rvpo)")
    parser.add_argument("--steps", type=int, default=150, help="training steps (default: 150)")
    parser.add_argument("--seed", type=int, default=0, help="seed of policy, rows and training (default: 0)")
    parser.add_argument("--out", type=Path, default=Path("runs/quickstart"), help="folder (default: runs/quickstart)")
    options = parser.parse_args(arguments)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    disable_progress_bars()
    print(INTRODUCTION)
    options.out.mkdir(parents=True, exist_ok=True)
    policy, rows = prepare(options.out, options.seed)
    args = RVPOConfig(
        output_dir=str(options.out / options.method),
        method=options.method,
        k_schedule="linear",
        k=0.5,
        k_end=2.0,
        max_steps=options.steps,
        learning_rate=1e-3,
        per_device_train_batch_size=128,
        num_generations=16,
        max_completion_length=12,
        beta=0.0,
        logging_steps=max(options.steps // 15, 1),
        save_strategy="no",
        report_to="none",
        seed=options.seed,
        bf16=False,
        gradient_checkpointing=False,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    script = RVPOScriptArguments(dataset_name=str(rows), reward_funcs=["notes_mention", "notes_brevity"])
    return run(script, args, ModelConfig(model_name_or_path=str(policy)), prepare=compact_progress)
