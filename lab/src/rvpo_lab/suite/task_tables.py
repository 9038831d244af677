"""What the cells of one task say, as tables: scores best and final, prompts against GDPO, channels at the end."""

import pandas as pd

from rvpo.stats import bootstrap_interval
from rvpo.text import markdown_table, number, p_value
from rvpo_lab.suite.compare import compare_prompts, difference
from rvpo_lab.suite.plan import BASELINE, label
from rvpo_lab.suite.results import LEVEL, SCORES, at_end
from rvpo_lab.tasks.catalog import TASKS

__all__ = ["HEADS", "task_tables"]

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
