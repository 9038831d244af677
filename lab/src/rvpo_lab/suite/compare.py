"""Methods against a baseline over the runs of a suite: paired differences, intervals, p-values, effect sizes.

A pair is a (task, seed): both methods start from the same policy and see the same prompts in the same order. Tests
over several tasks take each pair as a unit. A test inside one task has as many units as seeds; with five, two-sided
p by sign flips cannot be below 2/32, so it is the interval that speaks there.
"""

from collections.abc import Sequence

import pandas as pd

from rvpo.stats import PairedTest, paired_test
from rvpo_lab.suite.cell_file import CellRecord
from rvpo_lab.suite.results import channel_means, prompt_scores
from rvpo_lab.tasks.task import axis

__all__ = ["axis_scores", "channel_area", "compare_prompts", "compare_runs", "paired_runs"]

PAIR = ["task", "seed"]


def paired_runs(runs: pd.DataFrame, method: str, baseline: str, score: str) -> pd.DataFrame:
    """Return one row per (task, seed) that both methods have, with columns `a` (method) and `b` (baseline)."""
    first = runs[runs["method"] == method].set_index(PAIR)[score]
    second = runs[runs["method"] == baseline].set_index(PAIR)[score]
    return pd.DataFrame({"a": first, "b": second}).dropna().reset_index()


def compare_runs(runs: pd.DataFrame, method: str, score: str, *, baseline: str = "gdpo") -> PairedTest | None:
    """Test a score of `run_scores` over all runs given, each (task, seed) a unit; None without a pair."""
    pairs = paired_runs(runs, method, baseline, score)
    return paired_test(pairs["a"], pairs["b"]) if len(pairs) else None


def compare_prompts(records: Sequence[CellRecord], method: str, *, baseline: str = "gdpo") -> dict[str, PairedTest]:
    """Test the final score of held-out prompts, per task, over seeds and the prompts inside them.

    A prompt's score is the mean value of its criteria. The bootstrap draws seeds, then prompts.
    """
    scores = prompt_scores([record for record in records if record.about["contender"] in (method, baseline)])
    final = scores[scores["step"] == scores.groupby(["task", "method", "seed"])["step"].transform("max")]
    tests = {}
    for task, of_task in final.groupby("task", sort=False):
        table = of_task.pivot_table(index=["seed", "prompt"], columns="method", values="score")
        if {method, baseline} <= set(table.columns):
            table = table.dropna()
            seeds = table.index.get_level_values("seed").tolist()
            tests[str(task)] = paired_test(table[method], table[baseline], blocks=seeds, draws=2000)
    return tests


def axis_scores(records: Sequence[CellRecord]) -> pd.DataFrame:
    """Return one row per run: for each axis the mean of its channels at the last evaluation."""
    means = channel_means(records)
    key = ["task", "method", "seed"]
    final = means[means["step"] == means.groupby(key)["step"].transform("max")]
    by_axis = final.assign(axis=final["channel"].map(axis)).groupby([*key, "axis"])["mean"].mean()
    return by_axis.unstack("axis").reset_index()


def channel_area(records: Sequence[CellRecord], channel: str) -> pd.DataFrame:
    """Return one row per run that has the channel: the mean of its held-out means over the evaluations."""
    means = channel_means(records)
    area = means[means["channel"] == channel].groupby(["task", "method", "seed"])["mean"].mean()
    return area.rename("area").reset_index()
