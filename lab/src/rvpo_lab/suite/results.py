"""What the cells of a suite say: held-out channel means and the scores of a run.

A *channel* is a kind of criterion ("accuracy/dose"); its mean is taken over all held-out prompts that have one.
Scores of a run at an evaluation, from its channel means m_1..m_M:

    mean         (1/M) sum_j m_j
    lowest       mean of the ceil(M/3) lowest m_j (`rvpo.stats.lowest_third`)
    neglected    share of channels with m_j < 0.3 (`rvpo.stats.NEGLECTED`)
    all_met      share of held-out prompts all of whose criteria have their full value
    area         mean of `mean` over the evaluations (area under the curve, on [0, 1])
    steps_to     first evaluated step with `mean` >= LEVEL, NaN if there is none

*Final* is the last evaluation, *best* the first one with the highest `mean`. Missing values are left out of means.

`change_by_band` tells what became of criteria that were met to begin with, and of those that were not. The paper's
form weighs a failure the more, the more often the rest of the group succeeds (docs/algorithm.md), so this is where it
should win: criteria that are mostly met must not be lost again.
"""

import functools
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from rvpo.stats import NEGLECTED, lowest_third
from rvpo_lab.suite.storage import CellRecord
from rvpo_lab.tasks.task import FULL, kind

__all__ = [
    "BANDS",
    "LEVEL",
    "RUN",
    "SCORES",
    "at_end",
    "change_by_band",
    "channel_means",
    "held_out_values",
    "means_of_channels",
    "prompt_scores",
    "run_key",
    "run_scores",
    "score_curves",
]

LEVEL = 0.6
SCORES = ("mean", "lowest", "neglected", "all_met")
RUN = ["task", "method", "seed"]
"""Columns that name a run."""
BANDS = ((0.0, 0.2), (0.2, 0.5), (0.5, 0.8), (0.8, 1.0))
"""Shares of the answers of the warm start that meet a channel; the last band holds its upper end."""


def run_key(record: CellRecord) -> dict[str, str | int]:
    """Return the values of `RUN`."""
    return {"task": record.cell.task, "method": record.cell.contender, "seed": record.cell.seed}


class Means(NamedTuple):
    """Means of held-out values of one run, at E evaluations, of L channels or prompts."""

    names: list[Any]
    """Of the channels, or the prompts' indices, sorted."""
    values: Float[np.ndarray, "E L"]
    """NaN where no value is known."""
    counts: Int[np.ndarray, " L"]
    """Criteria that each mean is over."""


def held_out_values(record: CellRecord) -> Float[np.ndarray, "E C"]:
    """Return the held-out values of a run, a row an evaluation, a column a criterion of a prompt."""
    return np.array(list(record.held_out.values()), dtype=np.float64).T


def _averaged(values: Float[np.ndarray, "E C"], labels: Sequence[Any]) -> Means:
    """Return the means over the columns of each label."""
    names = sorted(set(labels))
    place = {name: index for index, name in enumerate(names)}
    index = np.array([place[label] for label in labels])
    order = np.argsort(index, kind="stable")
    starts = np.searchsorted(index[order], np.arange(len(names)))
    known = ~np.isnan(values)
    total, count = (
        np.add.reduceat(part[:, order], starts, axis=1) for part in (np.where(known, values, 0.0), known.astype(float))
    )
    return Means(names, np.where(count > 0, total / np.maximum(count, 1.0), np.nan), np.bincount(index))


@functools.cache
def means_of_channels(record: CellRecord) -> Means:
    """Return the channel means of a run."""
    return _averaged(held_out_values(record), [kind(criterion) for _, criterion in record.held_out])


def _all_met(record: CellRecord) -> Float[np.ndarray, "E P"]:
    """Return 1 for each prompt all of whose known criteria have their full value, else 0."""
    values = held_out_values(record)
    is_met = np.where(np.isnan(values), np.nan, values >= FULL)
    share = _averaged(is_met, [prompt for prompt, _ in record.held_out]).values
    return np.asarray(share == 1.0, dtype=np.float64)


def _table(record: CellRecord, name: str, means: Means, **columns: Float[np.ndarray, "E L"]) -> pd.DataFrame:
    """Return one row per evaluation and channel or prompt."""
    index = {
        "step": np.repeat(record.steps, len(means.names)),
        name: np.tile(np.array(means.names), len(record.steps)),
    }
    return pd.DataFrame({**run_key(record), **index, **{key: rows.ravel() for key, rows in columns.items()}})


def channel_means(records: Iterable[CellRecord]) -> pd.DataFrame:
    """Return one row per task, method, seed, step and channel: `mean` and `count` of held-out values."""
    tables = []
    for record in records:
        means = means_of_channels(record)
        counts = np.broadcast_to(means.counts, means.values.shape)
        tables.append(_table(record, "channel", means, mean=means.values, count=counts))
    return pd.concat(tables, ignore_index=True)


def prompt_scores(records: Iterable[CellRecord]) -> pd.DataFrame:
    """Return one row per task, method, seed, step and held-out prompt.

    `score` is the mean value of the prompt's criteria, `all_met` 1.0 if all have their full value.
    """
    tables = []
    for record in records:
        means = _averaged(held_out_values(record), [prompt for prompt, _ in record.held_out])
        tables.append(_table(record, "prompt", means, score=means.values, all_met=_all_met(record)))
    return pd.concat(tables, ignore_index=True)


def at_end(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of each run's last evaluation."""
    return table[table["step"] == table.groupby(RUN)["step"].transform("max")]


def run_scores(records: Iterable[CellRecord]) -> pd.DataFrame:
    """Return one row per run: `SCORES` final and best, `start_mean`, `area`, `drop` and `steps_to`.

    `drop` is the best mean less the final one.
    """
    return pd.DataFrame([_run(record) for record in records])


@functools.cache
def score_curves(record: CellRecord) -> dict[str, Float[np.ndarray, " E"]]:
    """Return each of `SCORES` at the E evaluations of a run."""
    means = means_of_channels(record).values
    known = ~np.isnan(means)
    total, count = np.where(known, means, 0.0).sum(axis=1), known.sum(axis=1)
    return {
        "mean": np.where(count > 0, total / np.maximum(count, 1), np.nan),
        "lowest": lowest_third(means),
        "neglected": (means < NEGLECTED).mean(axis=1),
        "all_met": _all_met(record).mean(axis=1),
    }


def _run(record: CellRecord) -> dict[str, Any]:
    scores = score_curves(record)
    mean = scores["mean"]
    best, reached = int(np.nanargmax(mean)), np.flatnonzero(mean >= LEVEL)
    return {
        **run_key(record),
        **{f"final_{name}": float(values[-1]) for name, values in scores.items()},
        **{f"best_{name}": float(values[best]) for name, values in scores.items()},
        "start_mean": float(mean[0]),
        "area": float(np.nanmean(mean)),
        "drop": float(mean[best] - mean[-1]),
        "steps_to": float(record.steps[reached[0]]) if len(reached) else math.nan,
    }


def change_by_band(means: pd.DataFrame) -> pd.DataFrame:
    """Return one row per task, method, seed and band: the mean change of its channels from warm start to end.

    A channel's band is decided by the mean of its warm-start rates over all runs of the task. `channels` counts them.
    `means` has the rows of `channel_means`.
    """
    key = [*RUN, "channel"]
    start = means[means["step"] == 0].set_index(key)["mean"]
    end = at_end(means).set_index(key)["mean"]
    change = pd.DataFrame({"start": start, "change": end - start}).reset_index()
    rate = change.groupby(["task", "channel"])["start"].transform("mean")
    edges = [*(low for low, _ in BANDS), BANDS[-1][1] + 1e-9]
    change["band"] = pd.cut(rate, edges, right=False, labels=range(len(BANDS))).astype(int)
    grouped = change.groupby([*RUN, "band"], sort=False)["change"]
    return pd.DataFrame({"change": grouped.mean(), "channels": grouped.size()}).reset_index()
