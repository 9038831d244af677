"""What `rvpo train` does around the trainer: rewards, rows and model by name, a stop with a checkpoint, the log.

run(script, args, model)   # dataclasses of TRL's habits: RVPOScriptArguments, RVPOConfig, ModelConfig
"""

import gc
import json
import os
import random
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rvpo.errors import ConfigError, StopRequestedError
from rvpo.integrations.checkpoints import newest_whole, what_is_broken
from rvpo.integrations.method_config import as_mapping
from rvpo.integrations.trl.config import RVPOConfig
from rvpo.integrations.trl.trainer import RVPOTrainer

# TRL is first imported by the trainer, behind the check of its version.
import torch  # isort: skip
from transformers import AutoProcessor, ProcessorMixin, TrainerCallback  # isort: skip
from trl import DatasetMixtureConfig, ModelConfig, ScriptArguments, get_peft_config, get_quantization_config  # isort: skip
from trl.scripts.utils import DatasetConfig  # isort: skip

from rvpo.data.formats import POLARITY_RULES
from rvpo.integrations.trl.rewards import BUILT_IN_REWARDS, JUDGED_REWARDS, REWARDS_WITH_REASONS, load_reward
from rvpo.integrations.trl.rows import TRAINING_FORMATS, load_mixture, load_rows
from rvpo.integrations.trl.run_log import RunLog, write_log
from rvpo.integrations.trl.summary import print_summary
from rvpo.llm.limits import allow_calls, stop_calls
from rvpo.llm.tokenizer import load_tokenizer

__all__ = ["RVPOScriptArguments", "StopGracefully", "leave_processes", "run"]


@dataclass
class RVPOScriptArguments(DatasetMixtureConfig, ScriptArguments):  # type: ignore[misc]
    """What is trained on and how it is scored; with `datasets`, a mixture as TRL has it."""

    reward_model_name_or_path: str | None = field(
        default=None,
        metadata={
            "help": "A reward model, hub name or folder, whose score of the conversation is the first channel, named "
            "after the last part of its name; beside reward_funcs or without any."
        },
    )
    reward_funcs: list[str] | None = field(
        default=None,
        metadata={
            "help": "Rewards, each a channel or a vector of them: a built-in name ("
            + ", ".join([*BUILT_IN_REWARDS, *JUDGED_REWARDS])
            + ") or a dotted path to a function, or to a class that is called without arguments."
        },
    )
    dataset_columns: dict[str, Any] | str | None = field(
        default=None,
        metadata={
            "help": "Columns to add by dotted path, as JSON: "
            '\'{"ground_truth": "reward_model.ground_truth"}\'. dataset_name is a hub name, a folder, or a '
            "local jsonl, parquet or csv file."
        },
    )
    dataset_format: str | None = field(
        default=None,
        metadata={
            "help": "How a rubric data set is written as it was published: " + ", ".join(TRAINING_FORMATS) + ". "
            "Without it rows are used as they are; see docs/data.md."
        },
    )
    dataset_polarity: str | None = field(
        default=None,
        metadata={
            "help": "With dataset_format rar, how pitfalls are worded: "
            + ", ".join(POLARITY_RULES)
            + "; default: by the data set's name."
        },
    )
    judge: dict[str, Any] | str | None = field(
        default=None,
        metadata={
            "help": "The judge of the rubric rewards: fields of rvpo.judging.config.JudgeConfig as a mapping or JSON, "
            'for example \'{"model": "Qwen/Qwen3-8B", "base_url": "http://localhost:8001/v1", "store": "v.sqlite"}\'.'
        },
    )
    log_reasons: bool = field(
        default=False,
        metadata={
            "help": "Put the judge's reasons into the table of completions, as columns REWARD/reasons: JSON from "
            "channel to reason. About as large as the completions; needs log_completions and TRL 1.0 or newer."
        },
    )
    eval_dataset_name: str | None = field(
        default=None, metadata={"help": "Rows for evaluation; default: the test split of dataset_name."}
    )
    accelerate_config: str | None = field(
        default=None,
        metadata={
            "help": "Start the run through accelerate, by one of TRL's configurations (single_gpu, multi_gpu, zero1, "
            "zero2, zero3, fsdp1, fsdp2) or a file; 'none': in this process, whatever a --config says."
        },
    )

    def __post_init__(self) -> None:
        """Take one reward or data set in YAML without the brackets of a list."""
        given: Any = self.reward_funcs
        self.reward_funcs = [given] if isinstance(given, str) else given
        mixed: Any = vars(self)["datasets"]
        self.datasets = [_data_set(part) for part in (mixed if isinstance(mixed, list) else [mixed])]
        super().__post_init__()


def _data_set(part: Any) -> Any:
    """Return a data set of a mixture: as it is, or from its name or, as on the command line, from JSON."""
    name = part if isinstance(part, str) else getattr(part, "path", "")
    if name.lstrip().startswith("{"):
        try:
            return DatasetConfig(**json.loads(name))
        except (TypeError, ValueError) as error:
            raise ConfigError(f"datasets: {name} is no data set of a mixture: {error}") from error
    return DatasetConfig(part) if isinstance(part, str) else part


class StopGracefully(TrainerCallback):
    """Stop with a checkpoint on SIGINT or SIGTERM to any process of the run.

    At the end of the step; but nobody waits for a judge that does not answer: its calls are given up within seconds,
    and with them the step, as `StopRequestedError`. The checkpoint is of the step before then (`save_last_step`).
    """

    def __init__(self) -> None:
        self.stopped_by: int | None = None
        self._random: RandomState | None = None

    def __enter__(self) -> "StopGracefully":
        self._before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        for number in self._before:
            signal.signal(number, self._stop)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        allow_calls()

    def _stop(self, number: int, frame: object) -> None:
        self.stopped_by = number
        signal.signal(number, self._before[signal.Signals(number)])  # a second signal stops at once
        print("\nrvpo: finishing the current step, then saving; once more stops at once", file=sys.stderr, flush=True)
        stop_calls()

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Keep the state of all random numbers, for a checkpoint of the step before."""
        self._random = RandomState.now()

    def save_last_step(self, trainer: RVPOTrainer) -> int:
        """Save a checkpoint of the last whole step, unless there is one; return its number, 0 without any."""
        step: int = trainer.state.global_step
        if step and what_is_broken(Path(trainer.args.output_dir) / f"checkpoint-{step}"):
            if self._random is not None:
                self._random.restore()
            trainer._save_checkpoint(trainer.model, None)
        return step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ask the trainer to save and stop; all processes decide together, or they would wait for each other."""
        number = self.stopped_by or 0
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            shared = torch.tensor([number], device=args.device)
            torch.distributed.all_reduce(shared, op=torch.distributed.ReduceOp.MAX)
            number = int(shared)
        if number:
            self.stopped_by = number
            control.should_save = control.should_training_stop = True


class NothingLeftError(Exception):
    """The checkpoint that a run goes on from is of its last step."""


class StopWhenFinished(TrainerCallback):
    """Raise NothingLeftError before a step too many: transformers looks for the last step after a step."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Compare the step of the checkpoint with the number of steps."""
        if 0 < state.max_steps <= state.global_step:
            raise NothingLeftError


class RandomState(NamedTuple):
    """The states of the random numbers that a checkpoint holds."""

    python: Any
    numpy: Any
    torch: Any
    cuda: Any

    @classmethod
    def now(cls) -> "RandomState":
        """Return the states of this moment."""
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        return cls(random.getstate(), np.random.get_state(), torch.random.get_rng_state(), cuda)

    def restore(self) -> None:
        """Set the states."""
        random.setstate(self.python)
        np.random.set_state(self.numpy)
        torch.random.set_rng_state(self.torch)
        torch.cuda.set_rng_state_all(self.cuda) if self.cuda else None


def checkpoint_to_resume(wanted: str | bool | None, output_dir: str) -> str | None:
    """Return the checkpoint folder that `--resume_from_checkpoint` means; "last" is the run's newest whole one."""
    if wanted is None:
        return None
    wanted = str(wanted)  # YAML's true
    if wanted.lower() in ("false", "no"):
        return None
    if wanted.lower() in ("last", "true", "yes"):
        newest = newest_whole(Path(output_dir))
        if newest.folder is None:
            raise ConfigError("; ".join([f"there is no checkpoint in {output_dir} to resume from", *newest.broken]))
        for sentence in newest.broken:
            print(f"rvpo: {sentence}; going on from {newest.folder}", file=sys.stderr, flush=True)
        return str(newest.folder)
    if not os.path.isdir(wanted):
        raise ConfigError(f"there is no checkpoint folder {wanted}")
    return wanted


def _check(script: RVPOScriptArguments, args: RVPOConfig, model: ModelConfig) -> None:
    """Raise ConfigError for options that are not set, or that have no effect with the others."""
    for name, value in {
        "model_name_or_path": model.model_name_or_path,
        "dataset_name": script.dataset_name or script.datasets,
        "reward_funcs": script.reward_funcs or script.reward_model_name_or_path,
    }.items():
        if not value:
            raise ConfigError(f"{name} is not set; give it in the config file or as --{name}")
    _check_mixture(script)
    if script.log_reasons and not (args.log_completions and set(script.reward_funcs or ()) & REWARDS_WITH_REASONS):
        raise ConfigError(
            "log_reasons has no effect without log_completions and a judge's verdicts, by a reward of "
            f"{', '.join(sorted(REWARDS_WITH_REASONS))}; set them, or leave it out"
        )


def _check_mixture(script: RVPOScriptArguments) -> None:
    """Raise ConfigError for options of a single data set beside a mixture, and the reverse."""
    single = ("dataset_name", "dataset_config", "dataset_format", "dataset_polarity", "dataset_streaming")
    mixture = ("streaming", "test_split_size")
    useless = [name for name in (single if script.datasets else mixture) if getattr(script, name)]
    if useless:
        instead = "datasets, a mixture" if script.datasets else "dataset_name, which is one data set"
        raise ConfigError(f"{', '.join(useless)} {'has' if len(useless) == 1 else 'have'} no effect with {instead}")


def build_trainer(script: RVPOScriptArguments, args: RVPOConfig, model: ModelConfig) -> RVPOTrainer:
    """Return the trainer that the configuration describes."""
    _check(script, args, model)
    # TRL had it among the options of the model, and has it among those of the trainer.
    trusts = any(getattr(options, "trust_remote_code", False) for options in (args, model))
    init = {"revision": model.model_revision, "attn_implementation": model.attn_implementation, "dtype": model.dtype}
    init |= {"trust_remote_code": True} if trusts else {}
    args.model_init_kwargs = {**init, **(args.model_init_kwargs or {})}
    judge = as_mapping("judge", script.judge)
    train_rows, test_rows = _rows(script, args)
    rewards: list[Any] = [
        load_reward(name, judge, log_reasons=script.log_reasons) for name in script.reward_funcs or ()
    ]
    quantization = get_quantization_config(model)
    options: dict[str, Any] = (
        {} if quantization is None else {"quantization_config": quantization}
    )  # an argument from TRL 1.1 on
    if name := script.reward_model_name_or_path:
        options["reward_processing_classes"] = [_reward_tokenizer(name), *(None for _ in rewards)]
        rewards.insert(0, name)
    return RVPOTrainer(
        model=model.model_name_or_path,
        reward_funcs=rewards,
        args=args,
        train_dataset=train_rows,
        eval_dataset=test_rows,
        processing_class=_processing_class(model.model_name_or_path, trusts, model.model_revision),
        peft_config=get_peft_config(model),
        **options,
    )


def _rows(script: RVPOScriptArguments, args: RVPOConfig) -> tuple[Any, Any]:
    """Return the rows of training, and of evaluation if there is any."""
    columns = as_mapping("dataset_columns", script.dataset_columns)
    common = {
        "config": script.dataset_config,
        "columns": columns,
        "streaming": script.dataset_streaming,
        "format": script.dataset_format,
        "polarity": script.dataset_polarity,
    }
    tests: Any = None
    if script.datasets:
        options = {"columns": columns, "streaming": script.streaming, "seed": args.seed}
        rows, tests = load_mixture(script.datasets, test_size=script.test_split_size, **options)
    else:
        rows = load_rows(script.dataset_name, script.dataset_train_split, **common)
    if args.eval_strategy == "no":
        return rows, None
    if script.datasets and tests is None and not script.eval_dataset_name:
        raise ConfigError("evaluation needs test_split_size, the share of the mixture that is kept for it, or "
                          "eval_dataset_name")  # fmt: skip
    if script.eval_dataset_name or not script.datasets:
        tests = load_rows(script.eval_dataset_name or script.dataset_name, script.dataset_test_split, **common)
    return rows, tests


def _reward_tokenizer(name: str) -> Any:
    """Return the tokenizer of a reward model, as it was saved."""
    try:
        return load_tokenizer(name)
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot load reward model {name!r}: {error}") from error


def _processing_class(name: str, trust_remote_code: bool, revision: str | None) -> Any:
    """Return the model's processor if it sees, else its tokenizer; the first to fail if there is no such model."""
    options = {
        "revision": revision,
        "padding_side": "left",
        "truncation_side": "left",
        "trust_remote_code": trust_remote_code,
    }
    try:
        try:
            processor = AutoProcessor.from_pretrained(name, **options)
        except ValueError as error:
            if "Unrecognized processing class" not in str(error):
                raise
            processor = None  # transformers 4 knows no tokenizer of a model's own here
        return processor if isinstance(processor, ProcessorMixin) else load_tokenizer(name, **options)
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot load model {name!r}: {error}") from error


def run(
    script: RVPOScriptArguments,
    args: RVPOConfig,
    model: ModelConfig,
    *,
    prepare: Callable[[RVPOTrainer], None] = lambda trainer: None,
) -> int:
    """Train; save the model, `metrics.jsonl` and a table at the end. Returns the exit status.

    `prepare` may change the trainer, for example its callbacks, before it trains.
    """
    status = _train(script, args, model, prepare)
    leave_processes()
    return status


def leave_processes() -> None:
    """End the group of processes, where there is one; call it when nothing refers to the trainer any more.

    The trainer's threads and communicators wait for the other processes: they end before the group does.
    """
    gc.collect()
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def _train(
    script: RVPOScriptArguments, args: RVPOConfig, model: ModelConfig, prepare: Callable[[RVPOTrainer], None]
) -> int:
    """Train, and return the exit status when nothing of the trainer is left."""
    checkpoint = checkpoint_to_resume(args.resume_from_checkpoint, args.output_dir)
    trainer = build_trainer(script, args, model)
    trainer.add_callback(RunLog(script, args, model))
    prepare(trainer)
    is_finished = False
    try:
        with StopGracefully() as stop:
            trainer.add_callback(stop)
            trainer.callback_handler.callbacks.insert(0, StopWhenFinished())
            try:
                trainer.train(resume_from_checkpoint=checkpoint)
            except NothingLeftError:
                is_finished = True
                print(
                    f"rvpo: nothing is left to train: {checkpoint} is of step {trainer.state.global_step} of "
                    f"{trainer.state.max_steps}; a larger max_steps or num_train_epochs goes on",
                    file=sys.stderr,
                )
            except StopRequestedError:
                saved = stop.save_last_step(trainer)
                stop.stopped_by = stop.stopped_by or signal.SIGTERM  # another process was told
                print(f"rvpo: gave up step {saved + 1}, whose rewards were waited for", file=sys.stderr, flush=True)
    finally:
        trainer.close_rewards()
    folder = Path(args.output_dir)
    if stop.stopped_by is None:
        trainer.save_model(args.output_dir)
    if trainer.accelerator.is_main_process:
        if not is_finished:
            write_log(trainer.state.log_history, folder)
        title = f"{args.method}, {trainer.state.global_step} of {trainer.state.max_steps} steps"
        print_summary(trainer.state.log_history, folder, title=title)
        if stop.stopped_by is not None and not trainer.state.global_step:
            print("interrupted in the first step; there is no checkpoint")
        elif stop.stopped_by is not None:
            print(f"interrupted; go on with the same command and --resume_from_checkpoint last --output_dir {folder}")
    trainer.accelerator.free_memory()
    return 0 if stop.stopped_by is None else 128 + stop.stopped_by
