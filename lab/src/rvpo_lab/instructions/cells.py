"""What is trained on the task `instructions`: settings, methods, cells; and where a folder of results keeps them.

A step is one batch of rollouts and its updates. TRL's global step counts updates: `steps * updates` of them.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rvpo.errors import ConfigError, unknown_name
from rvpo_lab.suite.cell_file import CellRecord, read_cell

__all__ = ["HELP", "METHODS", "Cell", "Settings", "cells", "keep_settings", "read_cells"]

METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "gdpo": ("GDPO", {"method": "gdpo"}),
    "rvpo": ("RVPO 0.5-2", {"method": "rvpo", "k_schedule": "linear", "k": 0.5, "k_end": 2.0}),
    "rvpo_k1": ("RVPO k=1", {"method": "rvpo", "k": 1.0}),
    "rvpo_policy": ("policy k=2", {"method": "rvpo_policy", "k": 2.0}),
    "sa_mrpo": ("SA-MRPO", {"method": "sa_mrpo"}),
    "saw": ("SAW", {"method": "saw"}),
    "dara": ("DARA", {"method": "dara"}),
    "grpo": ("GRPO", {"method": "grpo"}),
}
"""Name -> (what tables show, fields of `RVPOConfig`), in the order in which they are run."""


@dataclass(frozen=True)
class Settings:
    """What all cells of a folder have in common."""

    steps: int = 60
    prompts: int = 16
    rollouts: int = 8
    updates: int = 4
    """Each on another part of the batch of rollouts, as in GDPO's recipe (512 rollouts, 128 an update)."""
    passes: int = 1
    epsilon: float = 0.2
    learning_rate: float = 2e-5
    beta: float = 0.0
    tokens: int = 96
    evaluate_every: int = 10
    held_out: int = 256
    lora: int = 0


HELP = {
    "steps": "batches of rollouts of a run",
    "prompts": "prompts of a batch",
    "rollouts": "rollouts of a prompt, the group size",
    "updates": "parts of a batch, an update on each",
    "passes": "times that a batch is gone through (TRL's num_iterations)",
    "epsilon": "clip range of the policy ratio",
    "learning_rate": "after a short warm-up",
    "beta": "KL penalty to the start; the KL itself is always measured",
    "tokens": "of an answer, at most",
    "evaluate_every": "steps between two evaluations",
    "held_out": "held-out prompts, an answer each",
    "lora": "rank of adapters instead of training all weights; 0: all weights",
}
"""Setting -> help of its option."""


@dataclass(frozen=True)
class Cell:
    """One training run."""

    method: str
    seed: int

    @property
    def name(self) -> str:
        """File name without suffix."""
        return f"{self.method}-{self.seed}"


def cells(methods: Sequence[str], seeds: Sequence[int]) -> list[Cell]:
    """Return every method x seed, seed by seed, so that results cut short have whole seeds.

    Raises ConfigError for an unknown method, or none.
    """
    for method in methods:
        if method not in METHODS:
            raise unknown_name("method", method, METHODS)
    if not methods or not seeds:
        raise ConfigError(f"there is nothing to train with methods {list(methods)} and seeds {list(seeds)}")
    return [Cell(method, seed) for seed in dict.fromkeys(seeds) for method in dict.fromkeys(methods)]


def keep_settings(folder: Path, settings: Settings) -> None:
    """Write the settings into a new folder; raise ConfigError if it holds cells of other settings."""
    file, wanted = folder / "settings.json", asdict(settings)
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(wanted, indent=2) + "\n")
        return
    kept = json.loads(file.read_text())
    if different := {name: (kept.get(name), value) for name, value in wanted.items() if kept.get(name) != value}:
        pairs = ", ".join(f"{name} {old} there and {new} now" for name, (old, new) in different.items())
        raise ConfigError(f"{folder} holds cells of other settings ({pairs}); choose another folder with --out")


def read_cells(folder: Path) -> dict[Cell, CellRecord]:
    """Return the finished cells of a folder; raise ConfigError if there are none."""
    records = [read_cell(file) for file in sorted((folder / "cells").glob("*.parquet"))]
    if not records:
        raise ConfigError(f"there are no finished cells under {folder / 'cells'}")
    return {Cell(record.about["method"], record.about["seed"]): record for record in records}
