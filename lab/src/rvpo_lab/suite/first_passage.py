"""Fewer steps: when does the lowest third of a method reach the value at which the baseline ends?

A noisy curve crosses a level before its mean does: the first of several tries that is lucky counts. Two things are
done against that, alike for the method and for the baseline. The curve is the mean over seeds, made monotone by
isotonic regression, so that a lucky evaluation is averaged with the worse ones that follow it. And the baseline's own
passage of its own final value, not the length of the run, is what the others are compared with.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from rvpo.text import markdown_table
from rvpo_lab.suite.cell_file import CellRecord
from rvpo_lab.suite.foresight_page import paragraph
from rvpo_lab.suite.plan import BASELINE, label
from rvpo_lab.suite.results import score_curves

__all__ = ["Passage", "first_passage", "isotonic", "passages", "steps_table"]

DRAWS = 1000


class Passage(NamedTuple):
    """When the runs of one method on one task reach the baseline's final value; inf: not until the end."""

    step: float
    low: float
    """95 % by bootstrap over seeds: of both methods' curves, and so of the level."""
    high: float
    reached: int
    """Runs whose own curve reaches the level."""
    runs: int


def isotonic(curves: Float[Any, "*N E"]) -> Float[np.ndarray, "*N E"]:
    """Return the rising curve nearest to each, by least squares: `max_{s <= i} min_{t >= i} mean(y_s..y_t)`.

    >>> isotonic([0.0, 3.0, 1.0, 4.0]).tolist()
    [0.0, 2.0, 2.0, 4.0]
    """
    values = np.asarray(curves, dtype=np.float64)
    count = values.shape[-1]
    sums = np.concatenate([np.zeros((*values.shape[:-1], 1)), np.cumsum(values, axis=-1)], axis=-1)
    first, last = np.arange(count)[:, None], np.arange(count)
    with np.errstate(divide="ignore", invalid="ignore"):
        means = (sums[..., 1:][..., None, :] - sums[..., :-1][..., :, None]) / (last - first + 1)
    means = np.where(last >= first, means, np.inf)  # an empty stretch is never the minimum
    lowest = np.minimum.accumulate(means[..., ::-1], axis=-1)[..., ::-1]
    lowest = np.where(last >= first, lowest, -np.inf)
    return np.asarray(lowest.max(axis=-2))


def first_passage(
    steps: Sequence[int], curves: Float[Any, "*N E"], levels: Float[Any, "*N"]
) -> Float[np.ndarray, "*N"]:
    """Return the step at which each curve's isotonic fit reaches its level; inf where it does not until the end.

    Between two of the E evaluations the fit is a straight line.
    """
    fit, level = isotonic(curves), np.asarray(levels, dtype=np.float64)[..., None]
    is_reached = fit >= level - 1e-12  # a level that is a value of the curve is reached whatever the rounding
    after = np.argmax(is_reached, axis=-1)[..., None]
    before = np.maximum(after - 1, 0)
    low, high = (np.take_along_axis(fit, place, axis=-1) for place in (before, after))
    rise = high - low
    share = np.where(rise > 0, (level - low) / np.where(rise > 0, rise, 1.0), 1.0)
    at = np.asarray(steps, dtype=np.float64)
    step = at[before] + np.clip(share, 0.0, 1.0) * (at[after] - at[before])
    return np.where(is_reached.any(axis=-1), step[..., 0], math.inf)


def passages(records: Sequence[CellRecord], *, baseline: str = BASELINE) -> dict[tuple[str, str], Passage]:
    """Return (task, method) -> when its lowest third reaches the baseline's final mean, over the seeds of both."""
    runs: dict[tuple[str, str], dict[int, CellRecord]] = {}
    for record in records:
        runs.setdefault((record.cell.task, record.cell.contender), {})[record.cell.seed] = record
    made = {}
    for (task, method), own in runs.items():
        reference = runs.get((task, baseline), {})
        if seeds := sorted(own.keys() & reference.keys()):
            curves = [
                np.array([score_curves(of_seed[seed])["lowest"] for seed in seeds]) for of_seed in (own, reference)
            ]
            made[task, method] = _passage(own[seeds[0]].steps, *curves)
    return made


def _passage(steps: Sequence[int], own: Float[np.ndarray, "S E"], reference: Float[np.ndarray, "S E"]) -> Passage:
    level, seeds = reference[:, -1].mean(), len(own)
    drawn = np.random.default_rng(0).integers(0, seeds, size=(DRAWS, seeds))
    at = np.sort(first_passage(steps, own[drawn].mean(axis=1), reference[drawn, -1].mean(axis=1)))
    low, high = at[[math.floor(0.025 * (DRAWS - 1)), math.ceil(0.975 * (DRAWS - 1))]] if seeds > 1 else [math.nan] * 2
    single = first_passage(steps, own, np.full(seeds, level))
    mean = first_passage(steps, own.mean(axis=0), level)
    return Passage(float(mean), float(low), float(high), int(np.isfinite(single).sum()), seeds)


def steps_table(records: Sequence[CellRecord]) -> str:
    """Return the steps of every method on every task as Markdown."""
    made = passages(records)
    tasks, methods = (list(dict.fromkeys(names)) for names in zip(*made, strict=True)) if made else ([], [])
    rows = []
    for method in methods:
        own = [made.get((task, method)) for task in tasks]
        reached, runs = (sum(getattr(p, name) for p in own if p) for name in ("reached", "runs"))
        name = f"{label(method)} itself" if method == BASELINE else label(method)
        rows.append([name, *map(_cell, own), f"{reached} of {runs}"])
    last = max(record.steps[-1] for record in records)
    table = markdown_table(["steps to GDPO's final lowest third", *tasks, "runs that reach it"], rows)
    legend = (
        "Step at which the mean over seeds, made monotone by isotonic regression, reaches the value at which GDPO's "
        "runs end; 95 % intervals by bootstrap over seeds, the level drawn with them. *Never*: not within "
        f"{last} steps, where the runs end; such draws count as later than all others. The level is that of GDPO's "
        "runs on the seeds that the method has. The last column counts single runs, each by its own fitted curve. A "
        "noisy curve crosses a level early: that is why the fit is used, and why GDPO's own passage is the one to "
        "compare with."
    )
    return f"{table}\n{paragraph(legend)}"


def _cell(passage: Passage | None) -> str:
    if passage is None:
        return "-"
    step, low, high = ("never" if math.isinf(s) else f"{s:.0f}" for s in (passage.step, passage.low, passage.high))
    return step if math.isnan(passage.low) or low == "never" else f"{step} [{low}, {high}]"
