"""Methods against a baseline over the runs of a suite: paired differences, intervals, p-values, effect sizes.

A pair is a (task, seed): both methods start from the same policy and see the same prompts in the same order. Tests
over several tasks take each pair as a unit. A test inside one task has as many units as seeds; with five, two-sided
p by sign flips cannot be below 2/32, so it is the interval that speaks there.
"""

import pandas as pd

from rvpo.stats import PairedTest, paired_test
from rvpo.text import NOTHING, interval
from rvpo_lab.suite.plan import BASELINE
from rvpo_lab.suite.results import RUN, at_end
from rvpo_lab.tasks.task import axis

__all__ = ["axis_scores", "channel_area", "compare_prompts", "compare_runs", "difference", "paired_runs"]

PAIR = ["task", "seed"]


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
