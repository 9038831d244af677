"""What the cells of a suite say: held-out channel means, the scores of a run, and comparisons with a baseline.

A *channel* is a kind of criterion ("accuracy/dose"); its mean is taken over all held-out prompts that have one.
Scores of a run at an evaluation, from its channel means m_1..m_K:

    mean         (1/K) sum_j m_j
    lowest       mean of the ceil(K/3) lowest m_j
    neglected    share of channels with m_j < 0.3
    all_met      share of held-out prompts all of whose criteria have their full value
    area         mean of `mean` over the evaluations (area under the curve, on [0, 1])
    steps_to     first evaluated step with `mean` >= LEVEL, NaN if there is none

*Final* is the last evaluation, *best* the one with the highest `mean`.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from rvpo.errors import ConfigError
from rvpo_lab.suite.cell_file import CellRecord, read_cell
from rvpo_lab.suite.plan import CONTENDERS, Cell
from rvpo_lab.suite.schedule import CELLS, cell_path
from rvpo_lab.tasks.catalog import TASKS
from rvpo_lab.tasks.task import kind

__all__ = ["LEVEL", "MEANS_FILE", "NEGLECTED", "SCORES", "channel_means", "prompt_scores", "read_cells", "run_scores"]

MEANS_FILE = "channel_means.parquet"
NEGLECTED = 0.3
LEVEL = 0.6
SCORES = ("mean", "lowest", "neglected", "all_met")


def read_cells(folder: Path, cells: Sequence[Cell] | None = None) -> list[CellRecord]:
    """Return the finished cells of a folder, all or those asked for; ConfigError if there are none."""
    files = [cell_path(folder, cell) for cell in cells] if cells else sorted((folder / CELLS).glob("*.parquet"))
    records = sorted((read_cell(file) for file in files if file.is_file()), key=_place)
    if not records:
        raise ConfigError(f"there are no finished cells in {folder / CELLS}; run `rvpo bench neglect --out {folder}`")
    return records


def _place(record: CellRecord) -> tuple[int, int, int]:
    """Return what orders cells as tasks and contenders are listed; unknown names come last."""
    tasks, contenders = list(TASKS), list(CONTENDERS)
    task, contender = record.about["task"], record.about["contender"]
    return (
        tasks.index(task) if task in tasks else len(tasks),
        contenders.index(contender) if contender in contenders else len(contenders),
        record.about["seed"],
    )


def channel_means(records: Iterable[CellRecord]) -> pd.DataFrame:
    """Return one row per task, method, seed, step and channel: `mean` and `count` of held-out values."""
    frames = []
    for record in records:
        kinds = np.asarray([kind(criterion) for _, criterion in record.held_out])
        values = pd.DataFrame(list(record.held_out.values()), columns=record.steps)
        grouped = values.groupby(kinds)
        means, counts = grouped.mean(), grouped.size()
        long = means.rename_axis("channel").melt(ignore_index=False, var_name="step", value_name="mean").reset_index()
        long["count"] = long["channel"].map(counts)
        frames.append(long.assign(**_key(record)))
    columns = ["task", "method", "seed", "step", "channel", "mean", "count"]
    return pd.concat(frames, ignore_index=True)[columns].astype({"step": int})


def _key(record: CellRecord) -> dict[str, str | int]:
    return {"task": record.about["task"], "method": record.about["contender"], "seed": record.about["seed"]}


def prompt_scores(records: Iterable[CellRecord]) -> pd.DataFrame:
    """Return one row per task, method, seed, step and held-out prompt.

    `score` is the mean value of the prompt's criteria, `all_met` 1.0 if all have their full value.
    """
    frames = []
    for record in records:
        prompts = np.asarray([prompt for prompt, _ in record.held_out])  # a list could be read as column names
        values = pd.DataFrame(list(record.held_out.values()), columns=record.steps)
        mean, worst = values.groupby(prompts).mean(), values.groupby(prompts).min()
        frame = pd.DataFrame(
            {
                "prompt": np.repeat(mean.index, len(record.steps)),
                "step": np.tile(record.steps, len(mean)),
                "score": mean.to_numpy().ravel(),
                "all_met": (worst.to_numpy() >= 1.0 - 1e-6).astype(float).ravel(),
            }
        )
        frames.append(frame.assign(**_key(record)))
    columns = ["task", "method", "seed", "step", "prompt", "score", "all_met"]
    return pd.concat(frames, ignore_index=True)[columns]


def lowest_third(means: Sequence[float]) -> float:
    """Return the mean of the ceil(K/3) lowest of K channel means."""
    ordered = sorted(means)
    return float(np.mean(ordered[: math.ceil(len(ordered) / 3)]))


def evaluation_scores(records: Sequence[CellRecord]) -> pd.DataFrame:
    """Return the `SCORES` of every evaluation: one row per task, method, seed and step."""
    key = ["task", "method", "seed", "step"]
    channels = channel_means(records).groupby(key, sort=False)["mean"]
    scores: dict[str, Callable[..., float]] = {
        "mean": lambda means: float(means.mean()),
        "lowest": lambda means: lowest_third(list(means)),
        "neglected": lambda means: float((means < NEGLECTED).mean()),
    }
    table = pd.DataFrame({name: channels.apply(score) for name, score in scores.items()})
    table["all_met"] = prompt_scores(records).groupby(key)["all_met"].mean()
    return table.reset_index()


def run_scores(records: Sequence[CellRecord]) -> pd.DataFrame:
    """Return one row per run: `SCORES` final and best, `start`, `area`, `drop` (best - final mean), `steps_to`."""
    rows = []
    for key, run in evaluation_scores(records).groupby(["task", "method", "seed"], sort=False):
        run = run.sort_values("step")
        final, best = run.iloc[-1], run.loc[run["mean"].idxmax()]
        reached = run.loc[run["mean"] >= LEVEL, "step"]
        rows.append(
            {
                **dict(zip(("task", "method", "seed"), key, strict=True)),
                **{f"final_{score}": float(final[score]) for score in SCORES},
                **{f"best_{score}": float(best[score]) for score in SCORES},
                "start_mean": float(run.iloc[0]["mean"]),
                "area": float(run["mean"].mean()),
                "drop": float(best["mean"] - final["mean"]),
                "steps_to": float(reached.iloc[0]) if len(reached) else math.nan,
            }
        )
    return pd.DataFrame(rows)
