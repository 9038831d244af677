"""Tables of methods: the lowest third of each on every task, what the cells of one task say, and what tables share.

Of one task: scores best and final, prompts against GDPO, channels at the end.
"""

import math
from collections.abc import Sequence

import pandas as pd

from rvpo.stats import PairedTest, Ratio, bootstrap_interval, bootstrap_ratio, holm
from rvpo.text import NOTHING, markdown_table, number, p_value
from rvpo_lab.suite.compare import compare_prompts, compare_runs, difference, paired_runs
from rvpo_lab.suite.plan import BASELINE, label
from rvpo_lab.suite.results import LEVEL, SCORES, at_end
from rvpo_lab.tasks.catalog import TASKS

__all__ = ["HEADS", "adjusted", "lowest_by_task", "others", "ratio", "task_tables"]

HEADS = {
    "mean": "mean",
    "lowest": "lowest third",
    "neglected": "neglected",
    "all_met": "all met",
    "area": "area",
    "drop": "best - final",
    "steps_to": f"steps to {LEVEL}",
}
"""What tables call the scores of `results`."""


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


def task_tables(task: str, runs: pd.DataFrame, means: pd.DataFrame, prompts: pd.DataFrame) -> str:
    """Return the tables of one task under a heading, from its rows of `results`' three tables."""
    summary = TASKS[task].summary if task in TASKS else ""
    return f"""### {task}

{summary.capitalize()}. Mean of the channels at the warm start {runs["start_mean"].mean():.2f}.

{_scores(runs)}
{_prompts(prompts, list(dict.fromkeys(runs["method"])))}
{_channels(means)}"""


def _scores(runs: pd.DataFrame) -> str:
    head = ["method", "seeds", *(f"{HEADS[score]}, best / final" for score in SCORES), "area", HEADS["steps_to"]]
    rows = []
    for method, of_method in runs.groupby("method", sort=False):
        cells = []
        for score in SCORES:
            final = bootstrap_interval(of_method[f"final_{score}"])
            best = of_method[f"best_{score}"].mean()
            cells.append(f"{best:.2f} / {final.mean:.2f} [{number(final.low)}, {number(final.high)}]")
        reached = of_method["steps_to"].dropna()
        steps = f"{number(reached.mean(), 0)} ({len(reached)} of {len(of_method)})"
        rows.append([label(str(method)), str(len(of_method)), *cells, number(of_method["area"].mean(), 3), steps])
    return markdown_table(head, rows)


def _prompts(scores: pd.DataFrame, methods: list[str]) -> str:
    rows = []
    for method in methods:
        test = compare_prompts(scores, method) if method != BASELINE else None
        if test is not None:
            pairs = f"{test.pairs} in {test.blocks}"
            effect = f"{test.effect_size:+.2f}"
            rows.append([label(method), difference(test), effect, p_value(test.p_value), pairs])
    head = ["final score of a prompt, method - GDPO", "difference, 95 % interval", "d_z", "p", "prompts in seeds"]
    return markdown_table(head, rows)


def _channels(means: pd.DataFrame) -> str:
    start = means[means["step"] == 0].groupby("channel")["mean"].mean()
    final = at_end(means).groupby(["channel", "method"], sort=False)["mean"].mean()
    by_method = final.unstack("method").loc[start.sort_values().index]
    rows = [
        [str(channel), number(start[channel]), *map(number, values)]
        for channel, values in zip(by_method.index, by_method.to_numpy(), strict=True)
    ]
    return markdown_table(["channel, final", "warm start", *map(label, by_method.columns)], rows)
