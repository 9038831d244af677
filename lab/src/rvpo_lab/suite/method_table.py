"""The lowest third of every method on every task, as a table, and what tables of methods share."""

import math
from collections.abc import Sequence

import pandas as pd

from rvpo.stats import PairedTest, Ratio, bootstrap_ratio, holm
from rvpo.text import NOTHING, markdown_table, number, p_value
from rvpo_lab.suite.compare import compare_runs, difference, paired_runs
from rvpo_lab.suite.plan import BASELINE, label

__all__ = ["adjusted", "lowest_by_task", "others", "ratio"]


def others(runs: pd.DataFrame) -> list[str]:
    """Return the methods but the baseline, in the order of the runs."""
    return [method for method in dict.fromkeys(runs["method"]) if method != BASELINE]


def adjusted(tests: Sequence[PairedTest | None]) -> list[float]:
    """Return Holm's p-values; NaN for tests that were not made."""
    return list(holm([None if test is None else test.p_value for test in tests]))


def ratio(means: Ratio) -> str:
    """Return a ratio and its interval."""
    return f"{number(means.value)} [{number(means.low)}, {number(means.high)}]"


def lowest_by_task(runs: pd.DataFrame) -> str:
    """Return the lowest third of every method on every task, relative to GDPO, and over all of them."""
    methods, by_task = others(runs), dict(list(runs.groupby("task", sort=False)))
    level = runs[runs["method"] == BASELINE].groupby("task")["final_lowest"].mean()
    rows = [["GDPO itself", *(number(level.get(task, math.nan)) for task in by_task), "", "", ""]]
    tests = [compare_runs(runs, method, "final_lowest") for method in methods]
    for method, test, p in zip(methods, tests, adjusted(tests), strict=True):
        ratios = [_lowest_ratio(of_task, method) for of_task in by_task.values()]
        rows.append([label(method), *ratios, difference(test), p_value(p), str(test.pairs if test else 0)])
    head = ["lowest third, times GDPO's", *map(str, by_task), "all: difference to GDPO", "p (Holm)", "pairs"]
    return f"""{markdown_table(head, rows)}
95 % intervals by bootstrap, of ratios over seeds, of the difference over pairs of a task and a seed; p of the
difference by sign flips, Holm over the methods.
"""


def _lowest_ratio(runs: pd.DataFrame, method: str) -> str:
    pairs = paired_runs(runs, method, BASELINE, "final_lowest")
    return ratio(bootstrap_ratio(pairs["a"], pairs["b"])) if len(pairs) else NOTHING
