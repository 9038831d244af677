"""One cell: the policy trained by its method through the code of `rvpo train`, measured on held-out prompts."""

import contextlib
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rvpo import __version__
from rvpo.integrations.trl.config import RVPOConfig
from rvpo.integrations.trl.run import RVPOScriptArguments, run
from rvpo.integrations.trl.trainer import RVPOTrainer

# TRL is first imported by the trainer, behind the check of its version.
import torch  # isort: skip
from transformers import AutoModelForCausalLM, PrinterCallback, ProgressCallback, TrainerCallback  # isort: skip
from trl import ModelConfig  # isort: skip

from rvpo.report.runs import columns_of_log
from rvpo_lab.instructions.sampler import Sampler, fits
from rvpo_lab.instructions.task import Settings, grade, rows
from rvpo_lab.suite.plan import Cell, find_contender
from rvpo_lab.suite.storage import CellRecord, write_cell
from rvpo_lab.suite.train_cell import Interrupted, answers, divergence, groups_of_rewards

__all__ = ["Progress", "train_cell"]

LOGGED_STEPS = 10
"""Steps whose rewards are kept: what an audit of the run's beginning would have seen."""
WARM_UP = 10
"""Updates over which the learning rate rises."""
SAMPLES = 64
"""Held-out prompts whose last answers are kept, and whose answers the KL to the start is measured on."""

Progress = Callable[[int, float, Mapping[str, float]], None]
"""Called with the finished step, seconds since the start of training and, after an evaluation, the means of kinds."""


class HeldOut(TrainerCallback):
    """Grade the policy on held-out prompts every so many steps and at the end; keep the first rewards."""

    def __init__(
        self,
        trainer: RVPOTrainer,
        cell: Cell,
        settings: Settings,
        policy: str,
        record: CellRecord,
        progress: Progress,
    ) -> None:
        self.trainer, self.settings, self.policy, self.record, self.progress = (
            trainer,
            settings,
            policy,
            record,
            progress,
        )
        self.rows = rows(settings.held_out, cell.seed, held_out=True)
        self.tokenizer = trainer.processing_class
        self.model = trainer.accelerator.unwrap_model(trainer.model)
        chats = [row["prompt"] for row in self.rows]
        self.prompts = self._ids(chats)
        train_prompts = self._ids([row["prompt"] for row in trainer.train_dataset])
        self.sampler = None
        if fits(self.model):
            self.sampler = Sampler(
                self.model,
                rows=settings.prompts * settings.rollouts,
                capacity=max(map(len, [*self.prompts, *train_prompts])) + settings.tokens,
                eos=self.tokenizer.eos_token_id,
            )
            trainer.rollout_func = self.sampler.rollout(self.tokenizer, settings.tokens, seed=cell.seed)
        record.about["sampler"] = "generate" if self.sampler is None else "graph"
        record.prompts = [chat[-1]["content"] for chat in chats]

    def _ids(self, chats: Sequence[Any]) -> list[list[int]]:
        ids = self.tokenizer.apply_chat_template(list(chats), add_generation_prompt=True, return_dict=True)
        return [list(row) for row in ids["input_ids"]]

    def _answers(self, seed: int) -> list[list[int]]:
        """Return the tokens of a sampled answer to each held-out prompt, at temperature 1."""
        size, sampled = self.settings.prompts * self.settings.rollouts, []
        generator = torch.Generator(self.model.device).manual_seed(seed)
        for first in range(0, len(self.prompts), size):
            prompts = self.prompts[first : first + size]
            if self.sampler is not None:
                sampled += self.sampler.sample(prompts, self.settings.tokens, generator)
            else:
                sampled += self._generated(prompts, seed + first)
        return sampled

    def _generated(self, prompts: list[list[int]], seed: int) -> list[list[int]]:
        """Return the same by `generate`; the global random state stays as it was."""
        batch = self.tokenizer.pad({"input_ids": prompts}, padding_side="left", return_tensors="pt")
        batch = batch.to(self.model.device)
        eos, length = self.tokenizer.eos_token_id, self.settings.tokens
        return answers(self.model, batch, max_new_tokens=length, eos=eos, seed=seed)

    def evaluate(self, step: int, *, keep_samples: bool) -> dict[str, float]:
        """Return the mean of each kind; enter values, KL to the start and samples into the record."""
        was_training = self.model.training
        self.model.eval()
        answers = self._answers(10_000 + step)
        with self.trainer.accelerator.autocast():
            kl = divergence(
                self.model, self.start, self.prompts[:SAMPLES], answers[:SAMPLES], self.tokenizer.pad_token_id
            )
        self.model.train(was_training)
        texts = self.tokenizer.batch_decode(answers, skip_special_tokens=True)
        by_kind = defaultdict(list)
        for index, (row, answer) in enumerate(zip(self.rows, texts, strict=True)):
            for kind, value in grade(row, answer).items():
                self.record.held_out.setdefault((index, kind), []).append(value)
                by_kind[kind].append(value)
        self.record.steps.append(step)
        for name, value in {
            "kl_per_token": kl[0],
            "kl_per_answer": kl[1],
            "answer_tokens": sum(map(len, answers)) / len(answers),
            "seconds": time.monotonic() - self.began,
        }.items():
            self.record.about.setdefault(name, []).append(value)
        if keep_samples:
            self.record.samples += [(step, index, answer) for index, answer in enumerate(texts[:SAMPLES])]
        return {kind: sum(values) / len(values) for kind, values in sorted(by_kind.items())}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Load the start once more, to measure the distance to it, and grade it."""
        start = AutoModelForCausalLM.from_pretrained(self.policy, dtype=torch.float32)
        self.start = start.to(self.model.device).eval()
        self.began = time.monotonic()
        self.progress(0, 0.0, self.evaluate(0, keep_samples=False))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Grade if it is time; keep the rewards of the first steps."""
        of_a_batch = self.settings.updates * self.settings.passes
        step, updates = divmod(state.global_step, of_a_batch)
        if updates == 1 % of_a_batch and state.global_step <= LOGGED_STEPS * of_a_batch:
            number = step + (updates > 0)
            self.record.rollouts += [(number, *group) for group in groups_of_rewards(self.trainer)]
        if updates:
            return
        last = step == self.settings.steps
        is_due = last or step % self.settings.evaluate_every == 0
        means = self.evaluate(step, keep_samples=last) if is_due else {}
        self.progress(step, time.monotonic() - self.began, means)


def config(cell: Cell, settings: Settings, folder: Path) -> RVPOConfig:
    """Return the trainer's configuration."""
    on_gpu = torch.cuda.is_available()
    return RVPOConfig(
        output_dir=str(folder),
        max_steps=settings.steps * settings.updates * settings.passes,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=WARM_UP,
        per_device_train_batch_size=settings.prompts * settings.rollouts // settings.updates,
        steps_per_generation=settings.updates,
        gradient_accumulation_steps=1,
        num_generations=settings.rollouts,
        num_iterations=settings.passes,
        max_completion_length=settings.tokens,
        beta=settings.beta,
        epsilon=settings.epsilon,
        logging_steps=settings.updates * settings.passes,
        save_strategy="no",
        report_to="none",
        seed=cell.seed,
        bf16=on_gpu,
        use_cpu=not on_gpu,
        gradient_checkpointing=False,
        disable_tqdm=True,
        dataloader_pin_memory=False,
        **find_contender(cell.contender).options,
    )


def train_cell(cell: Cell, settings: Settings, policy: str, file: Path, progress: Progress) -> None:
    """Train one cell and write its file. Raises Interrupted if a signal stopped the run, and then writes nothing.

    What the trainer prints goes to no terminal: several cells run side by side.
    """
    about = {**asdict(cell), "settings": asdict(settings), "policy": Path(policy).name, "versions": _versions()}
    record = CellRecord(about, [])

    def prepare(trainer: RVPOTrainer) -> None:
        trainer.remove_callback(ProgressCallback)
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(HeldOut(trainer, cell, settings, policy, record, progress))

    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rvpo-cell-")))
        train_rows = rows(settings.prompts * settings.steps, cell.seed)
        (scratch / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in train_rows))
        printed = stack.enter_context((scratch / "printed.txt").open("w"))
        stack.enter_context(contextlib.redirect_stdout(printed))
        adapters = (
            {"use_peft": True, "lora_r": settings.lora, "lora_alpha": 2 * settings.lora} if settings.lora else {}
        )
        status = run(
            RVPOScriptArguments(
                dataset_name=str(scratch / "rows.jsonl"),
                reward_funcs=["rvpo_lab.instructions.task.instructions_reward"],
            ),
            config(cell, settings, scratch / "run"),
            ModelConfig(model_name_or_path=policy, dtype="float32", **adapters),
            prepare=prepare,
        )
        if status:
            raise Interrupted(f"{cell.name} was stopped by a signal")
        lines = (scratch / "run" / "metrics.jsonl").read_text().splitlines()
    record.logged_steps, record.log = columns_of_log([json.loads(line) for line in lines])
    if torch.cuda.is_available():
        about["gpu"] = torch.cuda.get_device_name()
        about["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
    write_cell(record, file)


def _versions() -> dict[str, str]:
    packages = {package: version(package) for package in ("trl", "transformers", "torch")}
    return {"rvpo": __version__, **packages}
