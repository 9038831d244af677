"""Methods against a baseline over the runs of a suite: paired differences, intervals, p-values, effect sizes.

A pair is a (task, seed): both methods start from the same policy and see the same prompts in the same order. Tests
over several tasks take each pair as a unit. A test inside one task has as many units as seeds; with five, two-sided
p by sign flips cannot be below 2/32, so it is the interval that speaks there.

Runs are compared at equal steps, and at equal distance from where their policies started. The distance is the KL to
the start, measured on held-out answers at each evaluation: a method that moves its policy less should not look safer
for that. It is noisy, too, so its isotonic fit over the evaluations is taken.

And by steps: when does the lowest third of a method reach the value at which the baseline ends? A noisy curve crosses
a level before its mean does: the first of several tries that is lucky counts. Two things are done against that, alike
for the method and for the baseline. The curve is the mean over seeds, made monotone by isotonic regression, so that a
lucky evaluation is averaged with the worse ones that follow it. And the baseline's own passage of its own final value,
not the length of the run, is what the others are compared with.
"""

import math
from collections.abc import Sequence
from textwrap import fill
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from rvpo.stats import PairedTest, paired_test
from rvpo.text import NOTHING, interval, markdown_table
from rvpo_lab.suite.plan import BASELINE, label
from rvpo_lab.suite.results import RUN, at_end, score_curves
from rvpo_lab.suite.storage import CellRecord
from rvpo_lab.tasks.task import axis

__all__ = [
    "MEASURES",
    "Comparison",
    "Passage",
    "at_distance",
    "axis_scores",
    "channel_area",
    "compare_at_distance",
    "compare_at_end",
    "compare_prompts",
    "compare_runs",
    "difference",
    "end_of",
    "first_passage",
    "isotonic",
    "paired_runs",
    "paragraph",
    "passages",
    "steps_table",
]

MEASURES = {"mean": "mean", "lowest": "lowest third", "neglected": "neglected"}
"""Scores of `results` that methods are compared by, and what tables call them."""
PAIR = ["task", "seed"]
DRAWS = 1000


def paired_runs(runs: pd.DataFrame, method: str, baseline: str, score: str) -> pd.DataFrame:
    """Return one row per (task, seed) that both methods have, with columns `a` (method) and `b` (baseline)."""
    first = runs[runs["method"] == method].set_index(PAIR)[score]
    second = runs[runs["method"] == baseline].set_index(PAIR)[score]
    return pd.DataFrame({"a": first, "b": second}).dropna().reset_index()


def compare_runs(runs: pd.DataFrame, method: str, score: str, *, baseline: str = BASELINE) -> PairedTest | None:
    """Test a score of `run_scores` over all runs given, each (task, seed) a unit; None without a pair."""
    pairs = paired_runs(runs, method, baseline, score)
    return paired_test(pairs["a"], pairs["b"]) if len(pairs) else None


def difference(test: PairedTest | None) -> str:
    """Return a paired difference and its interval as text; a single pair has no interval.

    >>> difference(None)
    '-'
    """
    return NOTHING if test is None else interval(test.difference, test.low, test.high)


def paragraph(text: str) -> str:
    """Return a paragraph in lines of the repository's width, with its line break."""
    return fill(text, 119, break_on_hyphens=False) + "\n"


def compare_prompts(scores: pd.DataFrame, method: str, *, baseline: str = BASELINE) -> PairedTest | None:
    """Test the final score of the held-out prompts of one task, over seeds and the prompts inside them.

    Args:
        scores: rows of `results.prompt_scores`, of one task.
        method, baseline: what is compared; a prompt's score is the mean value of its criteria.

    The bootstrap draws seeds, then prompts. None without a seed in common.
    """
    table = at_end(scores).pivot(index=["seed", "prompt"], columns="method", values="score")
    if not {method, baseline} <= set(table.columns):
        return None
    pairs = table[[method, baseline]].dropna()
    seeds = pairs.index.get_level_values("seed").tolist()
    return paired_test(pairs[method], pairs[baseline], blocks=seeds, draws=2000) if seeds else None


def axis_scores(means: pd.DataFrame) -> pd.DataFrame:
    """Return one row per run of `results.channel_means`: for each axis the mean of its channels at the end."""
    final = at_end(means)
    by_axis = final.assign(axis=final["channel"].map(axis)).groupby([*RUN, "axis"])["mean"].mean()
    return by_axis.unstack("axis").reset_index()


def channel_area(means: pd.DataFrame, channel: str) -> pd.DataFrame:
    """Return one row per run of `results.channel_means` that has the channel: its mean over the evaluations."""
    area = means[means["channel"] == channel].groupby(RUN)["mean"].mean()
    return area.rename("area").reset_index()


class Comparison(NamedTuple):
    """A method against a baseline over their pairs of runs."""

    tests: dict[str, PairedTest]
    """Of each of `MEASURES`."""
    distance: float
    """Mean KL to the start at which the method's runs were compared, nats a token."""

    @property
    def pairs(self) -> int:
        """Pairs of runs."""
        return self.tests["mean"].pairs


def end_of(record: CellRecord) -> dict[str, float]:
    """Return the measures of a run at its last evaluation."""
    curves = score_curves(record)
    return {name: float(curves[name][-1]) for name in MEASURES}


def travelled(record: CellRecord) -> Float[np.ndarray, " E"]:
    """Return the KL to the start at the E evaluations, nats a token, made monotone."""
    return isotonic(record.about["kl_per_token"])


def at_distance(record: CellRecord, kl: float) -> dict[str, float]:
    """Return the measures where the run last is no farther from its start than `kl` (nats a token).

    Between two evaluations a run moves on a straight line.
    """
    reached = travelled(record)
    is_beyond = reached > kl + 1e-12  # not its own end, whatever the rounding
    if not is_beyond.any():
        return end_of(record)
    after = max(int(np.argmax(is_beyond)), 1)
    share = float(np.clip((kl - reached[after - 1]) / (reached[after] - reached[after - 1] or 1.0), 0.0, 1.0))
    curves = score_curves(record)
    return {name: float((1 - share) * curves[name][after - 1] + share * curves[name][after]) for name in MEASURES}


def _paired(
    records: Sequence[CellRecord], method: str, baseline: str = BASELINE
) -> list[tuple[CellRecord, CellRecord]]:
    """Return (method's, baseline's) runs of every task and seed that both have."""
    own, reference = (
        {(record.cell.task, record.cell.seed): record for record in records if record.cell.contender == name}
        for name in (method, baseline)
    )
    return [(own[place], reference[place]) for place in own if place in reference]


def compare_at_end(records: Sequence[CellRecord], method: str, baseline: str = BASELINE) -> Comparison | None:
    """Compare at equal steps, those of the last evaluation; None without a pair."""
    pairs = _paired(records, method, baseline)
    distances = [own.about.get("kl_per_token", [np.nan])[-1] for own, _ in pairs]
    return _compare([(end_of(own), end_of(reference)) for own, reference in pairs], distances)


def compare_at_distance(records: Sequence[CellRecord], method: str, baseline: str = BASELINE) -> Comparison | None:
    """Compare at equal distance, the largest that both runs of a pair reached; None without a pair."""
    pairs = _paired(records, method, baseline)
    distances = [float(min(travelled(record)[-1] for record in pair)) for pair in pairs]
    measured = [(at_distance(a, kl), at_distance(b, kl)) for (a, b), kl in zip(pairs, distances, strict=True)]
    return _compare(measured, distances)


def _compare(
    measured: Sequence[tuple[dict[str, float], dict[str, float]]], distances: Sequence[float]
) -> Comparison | None:
    if not measured:
        return None
    tests = {name: paired_test(*zip(*((a[name], b[name]) for a, b in measured), strict=True)) for name in MEASURES}
    return Comparison(tests, float(np.mean(distances)))


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
