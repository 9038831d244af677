"""One cell: a policy of its task trained by its contender in TRL, through the code of `rvpo train`."""

import contextlib
import json
import math
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rvpo.integrations.trl.config import RVPOConfig
from rvpo.integrations.trl.run import RVPOScriptArguments, run
from rvpo.integrations.trl.trainer import RVPOTrainer
from rvpo.report.runs import columns_of_log

# TRL is first imported by trl_trainer, behind the check of its version.
import torch  # isort: skip
from transformers import PrinterCallback, ProgressCallback, TrainerCallback  # isort: skip
from trl import ModelConfig  # isort: skip

from rvpo_lab.suite.plan import Cell, SuiteSettings, find_contender
from rvpo_lab.suite.storage import CellRecord, write_cell
from rvpo_lab.tasks.catalog import TASKS
from rvpo_lab.tasks.policy import warm_policy
from rvpo_lab.tasks.task import Row, Task, axis

__all__ = ["Interrupted", "Progress", "answers", "divergence", "train_cell"]

ROLLOUT_STEPS = 10
"""Training steps whose rewards are kept: what an audit of the run's beginning would have seen."""
LOG_EVERY = 5
WARM_UP = 10
"""Steps over which the learning rate rises: without, Adam's first steps throw a policy this small off its form."""
SAMPLES = 3
"""Held-out prompts whose first and last answers are kept."""
CHUNK = 16
"""Answers whose logits over the whole vocabulary are held at once."""

Progress = Callable[[int, dict[str, float]], None]
"""Called with the finished step and, after an evaluation, the held-out mean of each axis (else nothing)."""


class Interrupted(Exception):
    """Training was stopped by a signal before its end."""


def answers(model: Any, prompts: Mapping[str, Any], *, max_new_tokens: int, eos: int, seed: int) -> list[list[int]]:
    """Return the tokens of a sampled answer (temperature 1) to each tokenized prompt, up to its end token.

    The global random state stays as it was.
    """
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        output = model.generate(**prompts, do_sample=True, temperature=1.0, top_k=0, max_new_tokens=max_new_tokens)
    rows: list[list[int]] = output[:, prompts["input_ids"].shape[1] :].tolist()
    return [row[: row.index(eos) + 1] if eos in row else row for row in rows]


@torch.no_grad()
def divergence(
    model: Any, start: Any, prompts: Sequence[list[int]], answers: Sequence[list[int]], pad: int
) -> tuple[float, float]:
    """Return KL(model || start) over the whole vocabulary on the model's own answers: nats a token, nats an answer."""
    total, tokens = 0.0, 0
    for first in range(0, len(prompts), CHUNK):
        pairs = list(zip(prompts[first : first + CHUNK], answers[first : first + CHUNK], strict=True))
        before, after = (max(map(len, part)) for part in zip(*pairs, strict=True))
        ids = [[pad] * (before - len(p)) + p + a + [pad] * (after - len(a)) for p, a in pairs]
        seen = [[0] * (before - len(p)) + [1] * len(p + a) + [0] * (after - len(a)) for p, a in pairs]
        batch = {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(seen)}
        batch = {name: value.to(model.device) for name, value in batch.items()}
        now, then = (
            policy(**batch, logits_to_keep=after + 1).logits[:, :-1].float().log_softmax(-1)
            for policy in (model, start)
        )
        kl = (now.exp() * (now - then)).sum(-1)
        total += float(kl[batch["attention_mask"][:, before:] == 1].sum())
        tokens += sum(len(answer) for _, answer in pairs)
    return total / tokens, total / len(prompts)


class HeldOutGrading(TrainerCallback):
    """Grade the policy on held-out prompts, exactly, every so many steps and at the end."""

    def __init__(self, trainer: RVPOTrainer, task: Task, rows: Sequence[Row], record: CellRecord, every: int) -> None:
        self.trainer, self.task, self.rows, self.record, self.every = trainer, task, rows, record, every

    def evaluate(self, step: int, *, keep_samples: bool) -> dict[str, float]:
        """Return the mean of each axis; enter values, KL to the start and samples into the record."""
        model = self.trainer.accelerator.unwrap_model(self.trainer.model)
        was_training = model.training
        model.eval()
        tokenizer, length = self.trainer.processing_class, self.task.max_completion_length
        batch = tokenizer(self.record.prompts, return_tensors="pt", padding=True).to(model.device)
        tokens = answers(model, batch, max_new_tokens=length, eos=tokenizer.eos_token_id, seed=10_000 + step)
        prompts = tokenizer(self.record.prompts)["input_ids"]
        kl = divergence(model, self.start, prompts, tokens, tokenizer.pad_token_id)
        model.train(was_training)
        sampled = tokenizer.batch_decode(tokens, skip_special_tokens=True)
        by_axis = defaultdict(list)
        for index, (row, answer) in enumerate(zip(self.rows, sampled, strict=True)):
            for criterion, value in self.task.grade(row, answer).items():
                self.record.held_out.setdefault((index, criterion), []).append(value)
                by_axis[axis(criterion)].append(value)
        self.record.steps.append(step)
        for name, value in zip(("kl_per_token", "kl_per_answer"), kl, strict=True):
            self.record.about.setdefault(name, []).append(value)
        if keep_samples:
            self.record.samples += [(step, index, answer) for index, answer in enumerate(sampled[:SAMPLES])]
        return {name: sum(values) / len(values) for name, values in sorted(by_axis.items())}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Load the warm start once more, to measure the distance to it, and grade it."""
        model = self.trainer.accelerator.unwrap_model(self.trainer.model)
        self.start = type(model).from_pretrained(model.name_or_path).to(model.device).eval()
        self.latest = self.evaluate(0, keep_samples=True)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Grade if it is time; keep the rewards of the first steps."""
        step, last = state.global_step, state.global_step == state.max_steps
        is_new_batch = (step - 1) % self.trainer.num_iterations == 0
        if step <= ROLLOUT_STEPS and is_new_batch:
            self.record.rollouts += [(step, *group) for group in groups_of_rewards(self.trainer)]
        self.latest = {}
        if last or step % self.every == 0:
            self.latest = self.evaluate(step, keep_samples=last)


class ProgressReport(TrainerCallback):
    """Report how far the run is."""

    def __init__(self, held_out: HeldOutGrading, progress: Progress) -> None:
        self.held_out, self.progress = held_out, progress

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Report the warm start."""
        self.progress(0, self.held_out.latest)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Report the step."""
        self.progress(state.global_step, self.held_out.latest)


def groups_of_rewards(trainer: RVPOTrainer) -> list[tuple[int, str, list[float]]]:
    """Return (group, channel, its G rewards) of the newest rollouts, as the judge of training gave them."""
    size = trainer.num_generations
    groups = []
    for returned in trainer._returned:
        for start in range(0, len(returned.values), size):
            group = returned.values[start : start + size]
            rows = [value if isinstance(value, Mapping) else {returned.function: value} for value in group]
            for name in dict.fromkeys(name for row in rows for name in row):
                values = [row.get(name) for row in rows]
                rewards = [math.nan if value is None else float(value) for value in values]
                groups.append((start // size, name, rewards))
    return groups


def config(cell: Cell, settings: SuiteSettings, task: Task, folder: Path) -> RVPOConfig:
    """Return the trainer's configuration."""
    options = find_contender(cell.contender).options
    if targets := options.get("channel_targets"):  # by axis; the trainer's names begin with the reward's
        reward = task.reward_funcs[0].rpartition(".")[2]
        options = options | {"channel_targets": {f"{reward}/{name}": target for name, target in targets.items()}}
    if options.get("prompt_sampling") == "signal" and "rubric" in task.rows(1, cell.seed)[0]:
        options = options | {"prompt_sampling_channels": "rubric"}
    return RVPOConfig(
        output_dir=str(folder),
        max_steps=settings.steps,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=WARM_UP,
        per_device_train_batch_size=settings.prompts_per_step * settings.num_generations,
        num_generations=settings.num_generations,
        max_completion_length=task.max_completion_length,
        beta=settings.beta,
        num_iterations=settings.num_iterations,
        epsilon=settings.epsilon,
        logging_steps=max(min(LOG_EVERY, settings.steps // 10), 1),
        save_strategy="no",
        report_to="none",
        seed=cell.seed,
        bf16=False,
        gradient_checkpointing=False,
        disable_tqdm=True,
        dataloader_pin_memory=False,
        **options,
    )


def train_cell(
    cell: Cell, settings: SuiteSettings, file: Path, progress: Progress, *, keep: Path | None = None
) -> None:
    """Train one cell and write its file; the trained policy and its metrics stay in `keep`, if given.

    What the trainer prints goes to no terminal: several cells run side by side. Raises Interrupted if a signal
    stopped the run, and then writes nothing.
    """
    task = TASKS[cell.task]
    policy = warm_policy(task, steps=settings.warm_start_steps, hidden_size=settings.hidden_size)
    held_out = task.rows(settings.held_out_prompts, cell.seed, held_out=True)
    about = {**asdict(cell), "settings": asdict(settings), "versions": _versions()}
    record = CellRecord(about, [row["prompt"] for row in held_out])

    def prepare(trainer: RVPOTrainer) -> None:
        trainer.remove_callback(ProgressCallback)
        trainer.remove_callback(PrinterCallback)
        grading = HeldOutGrading(trainer, task, held_out, record, settings.evaluate_every)
        trainer.add_callback(grading)
        trainer.add_callback(ProgressReport(grading, progress))

    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rvpo-cell-")))
        rows = scratch / "rows.jsonl"
        train_rows = task.rows(settings.prompts_per_step * settings.steps, cell.seed)
        rows.write_text("".join(json.dumps(row) + "\n" for row in train_rows))
        folder = keep or scratch / "run"
        folder.mkdir(parents=True, exist_ok=True)
        printed = stack.enter_context((folder / "printed.txt").open("w"))
        stack.enter_context(contextlib.redirect_stdout(printed))
        status = run(
            RVPOScriptArguments(dataset_name=str(rows), reward_funcs=list(task.reward_funcs)),
            config(cell, settings, task, folder),
            ModelConfig(model_name_or_path=str(policy)),
            prepare=prepare,
        )
        if status:
            raise Interrupted(f"{cell.name} was stopped by a signal")
        lines = (folder / "metrics.jsonl").read_text().splitlines()
    record.logged_steps, record.log = columns_of_log([json.loads(line) for line in lines])
    write_cell(record, file)


def _versions() -> dict[str, str]:
    return {package: version(package) for package in ("rvpo", "trl", "transformers", "torch")}
