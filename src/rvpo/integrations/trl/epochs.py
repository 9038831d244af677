"""The order of prompts in each epoch: the same in a run that goes on as in one that was not stopped."""

from functools import partial
from typing import Any

import torch

__all__ = ["repeatable_epochs"]


def repeatable_epochs(sampler: Any) -> Any:
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
