"""The policy a task starts from: built and warm-started once, then taken from a cache."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from rvpo_lab.tasks.policy import build_policy, warm_start
from rvpo_lab.tasks.task import Task

__all__ = ["PairsSeen", "cache_folder", "warm_policy"]

HIDDEN_SIZE, LAYERS, STEPS, BATCH, PAIRS, LEARNING_RATE = 128, 3, 300, 48, 20_000, 3e-3
"""0.8 million parameters, 300 steps: about half a minute on two cores. Chosen so that the policy has learnt how often
the author meets each kind of criterion, and with which words."""

PairsSeen = Callable[[int, float], None]


def cache_folder() -> Path:
    """Return where policies are kept: $RVPO_CACHE, or rvpo in the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("RVPO_CACHE") or Path(home) / "rvpo")


def policy_key(task: Task, steps: int, hidden_size: int = HIDDEN_SIZE) -> str:
    """Return the name of a warm start: it changes with whatever changes the policy."""
    vocabulary = sorted(task.tokenizer().get_vocab().items())
    design = [vocabulary, task.pairs(100, 0), hidden_size, LAYERS, steps, BATCH, PAIRS, LEARNING_RATE]
    return f"{task.policy}-{hashlib.sha256(json.dumps(design).encode()).hexdigest()[:12]}"


def warm_policy(
    task: Task, *, steps: int = STEPS, hidden_size: int = HIDDEN_SIZE, on_step: PairsSeen | None = None
) -> Path:
    """Return the folder of the task's policy, made first if the cache has none.

    Always seed 0: what is compared later starts from one policy, as with one base model. `on_step(step, loss)`
    is called while the policy is made.
    """
    folder = cache_folder() / "policies" / policy_key(task, steps, hidden_size)
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Made beside its place and moved there whole, so that a killed process leaves nothing that looks finished.
    making = Path(tempfile.mkdtemp(prefix="making-", dir=folder.parent))
    try:
        build_policy(making, task.tokenizer(), hidden_size=hidden_size, layers=LAYERS)
        warm_start(
            making, task.pairs(PAIRS, 0), steps=steps, batch_size=BATCH, learning_rate=LEARNING_RATE, on_step=on_step
        )
        try:
            making.rename(folder)
        except OSError:
            if not folder.is_dir():  # another process was faster, which is as well
                raise
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return folder
