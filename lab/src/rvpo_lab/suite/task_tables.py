"""What the cells of one task say, as tables: scores best and final, prompts against GDPO, channels at the end."""

from collections.abc import Sequence

import pandas as pd

from rvpo.stats import bootstrap_interval
from rvpo_lab.suite.cell_file import CellRecord
from rvpo_lab.suite.compare import compare_prompts
from rvpo_lab.suite.markdown import difference, label, number, p_value, table
from rvpo_lab.suite.results import LEVEL, SCORES, channel_means
from rvpo_lab.tasks.catalog import TASKS

__all__ = ["BASELINE", "HEADS", "task_tables"]

BASELINE = "gdpo"
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


def task_tables(task: str, runs: pd.DataFrame, records: Sequence[CellRecord]) -> str:
    """Return the tables of one task from its rows of `results.run_scores` and all records, under a heading."""
    mine = [record for record in records if record.about["task"] == task]
    summary = TASKS[task].summary if task in TASKS else ""
    return f"""### {task}

{summary.capitalize()}. Mean of the channels at the warm start {runs["start_mean"].mean():.2f}.

{_scores(runs)}
{_prompts(mine, task, list(dict.fromkeys(runs["method"])))}
{_channels(mine)}"""


def _scores(runs: pd.DataFrame) -> str:
    head = ["method", "seeds", *(f"{HEADS[score]}, best / final" for score in SCORES), "area", HEADS["steps_to"]]
    rows = []
    for method, of_method in runs.groupby("method", sort=False):
        cells = []
        for score in SCORES:
            interval = bootstrap_interval(of_method[f"final_{score}"])
            best = of_method[f"best_{score}"].mean()
            cells.append(f"{best:.2f} / {interval.mean:.2f} [{number(interval.low)}, {number(interval.high)}]")
        reached = of_method["steps_to"].notna()
        steps = of_method["steps_to"].mean()
        told = f"{steps:.0f} ({reached.sum()} of {len(reached)})" if reached.any() else f"- (0 of {len(reached)})"
        rows.append([label(str(method)), str(len(of_method)), *cells, f"{of_method['area'].mean():.3f}", told])
    return table(head, rows)


def _prompts(records: Sequence[CellRecord], task: str, methods: Sequence[str]) -> str:
    rows = []
    for method in methods:
        test = compare_prompts(records, method).get(task) if method != BASELINE else None
        if test is not None:
            pairs = f"{test.pairs} in {test.blocks}"
            rows.append([label(method), difference(test), f"{test.effect_size:+.2f}", p_value(test.p_value), pairs])
    head = ["final score of a prompt, method - GDPO", "difference, 95 % interval", "d_z", "p", "prompts in seeds"]
    return table(head, rows)


def _channels(records: Sequence[CellRecord]) -> str:
    means = channel_means(records)
    start = means[means["step"] == 0].groupby("channel")["mean"].mean()
    final = means[means["step"] == means["step"].max()].groupby(["channel", "method"], sort=False)["mean"].mean()
    by_method = final.unstack("method").loc[start.sort_values().index]
    rows = [
        [str(channel), f"{start[channel]:.2f}", *(number(value) for value in values)]
        for channel, values in zip(by_method.index, by_method.to_numpy(), strict=True)
    ]
    return table(["channel, final", "warm start", *map(label, by_method.columns)], rows)
