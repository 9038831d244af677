"""Checkpoints of a trainer that `RVPOMixin` sits on: whole ones alone, and a run that goes on as if unbroken."""

import inspect
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import torch

from rvpo.errors import ConfigError
from rvpo.integrations.batch import ChannelState
from rvpo.integrations.checkpoints import (
    STATE_FILE,
    check_settings,
    load_state,
    newest_whole,
    save_state,
    what_is_broken,
)
from rvpo.integrations.trl.config import RVPOConfig
from rvpo.integrations.trl.sampler import PromptSampler

__all__ = ["ResumingMixin"]


class ResumingMixin:
    """Saves what is known of the channels with each checkpoint, and goes on from it."""

    # What is used of GRPOTrainer.
    accelerator: Any
    args: RVPOConfig
    reward_funcs: list[Any]
    state: Any
    _get_output_dir: Any

    # What is used of RVPOMixin.
    _await: Any
    _channel_state: ChannelState
    _prompts: PromptSampler | None
    _settings: Any

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """Train as TRL does; True resumes from the newest whole checkpoint.

        Rewards that have one are probed first (`RubricReward.probe`), by the main process. Raises what a probe raises.
        Raises ConfigError for a checkpoint that is not whole, and for one, to go on from or to write others beside,
        that was made with other settings, unless `allow_changed_settings` is set.
        """
        run = Path(self.args.output_dir)
        newest = newest_whole(run)
        checkpoint = newest.folder if resume_from_checkpoint is True else resume_from_checkpoint
        if resume_from_checkpoint is True:
            if newest.folder is None:
                raise ConfigError("; ".join([f"there is no whole checkpoint in {run} to resume from", *newest.broken]))
            for sentence in newest.broken:
                warnings.warn(f"{sentence}; going on from {newest.folder}", stacklevel=2)
        if not self.args.allow_changed_settings:
            if checkpoint and (lack := what_is_broken(Path(checkpoint))):
                raise ConfigError(f"cannot go on from {checkpoint}, which is not whole: {lack}; take an earlier one")
            if kept := checkpoint or newest.folder:
                check_settings(Path(kept), self._settings(), resumed=bool(checkpoint))
        if self.accelerator.is_main_process:
            for function in self.reward_funcs:
                if inspect.iscoroutinefunction(probe := getattr(function, "probe", None)):
                    self._await(probe())
        return super().train(str(checkpoint) if checkpoint else None, *args, **kwargs)  # type: ignore[misc]

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        folder = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}"
        if self.args.should_save:  # one that is written anew is not whole meanwhile
            (folder / STATE_FILE).unlink(missing_ok=True)
        # Older checkpoints may go when this one is whole, not before.
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            super()._save_checkpoint(model, trial)  # type: ignore[misc]
        finally:
            self.args.save_total_limit = limit
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            if self._prompts:
                self._channel_state.sampling = self._prompts.state()
            save_state(folder, self._channel_state, self._settings())
            _delete_older(self, folder.parent)

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
        return _repeatable_epochs(super()._get_train_sampler(*args, **kwargs))  # type: ignore[misc]

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if self.args.device.type == "cpu":
            # Several processes on CPUs are told to load onto "cpu:0", a device that torch.load does not know.
            torch.serialization.register_package(1000, _no_location, _onto_numbered_cpu)
        super()._load_optimizer_and_scheduler(checkpoint)  # type: ignore[misc]
        if checkpoint:
            self._channel_state = load_state(Path(checkpoint))
            if self._prompts:
                self._prompts.restore(self._channel_state.sampling)


def _repeatable_epochs(sampler: Any) -> Any:
    """Return TRL's sampler with a `set_epoch`, which accelerate calls before each epoch.

    TRL's draws the epochs' orders one after the other, and begins with the first one in a run that goes on in a later
    epoch. The orders of a run that is not stopped stay TRL's.
    """
    if getattr(sampler, "generator", None) is not None:
        sampler.set_epoch = partial(_set_epoch, sampler, sampler.generator.get_state())
    return sampler


def _set_epoch(sampler: Any, first: torch.Tensor, epoch: int) -> None:
    """Bring the sampler's generator from its first state to that of an epoch, by drawing the orders before."""
    sampler.generator.set_state(first)
    for _ in range(epoch):
        torch.randperm(sampler.num_samples, generator=sampler.generator)


def _no_location(storage: Any) -> None:
    return None


def _onto_numbered_cpu(storage: Any, location: str) -> Any:
    return storage if location.startswith("cpu:") else None


def _delete_older(trainer: Any, run: Path) -> None:
    """Delete the checkpoints beyond `save_total_limit`, as transformers does."""
    if hasattr(trainer, "_rotate_checkpoints"):  # transformers 4
        trainer._rotate_checkpoints(use_mtime=True, output_dir=str(run))
        return
    from transformers.trainer_utils import rotate_checkpoints

    rotate_checkpoints(
        output_dir=str(run),
        save_total_limit=trainer.args.save_total_limit,
        best_model_checkpoint=trainer.state.best_model_checkpoint,
        use_mtime=True,
    )
