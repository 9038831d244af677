"""The table of scores on held-out prompts, as the quickstart and the suite print it."""

from collections.abc import Sequence

import pandas as pd
from rich.console import Console
from rich.table import Table

from rvpo.stats import NEGLECTED
from rvpo.text import percent, plural
from rvpo_lab.suite.cell_file import CellRecord
from rvpo_lab.suite.plan import find_contender
from rvpo_lab.suite.results import SCORES, run_scores
from rvpo_lab.suite.task_tables import HEADS

__all__ = ["print_scores"]


def print_scores(records: Sequence[CellRecord]) -> None:
    """Print one table per task: each score best and final, averaged over seeds."""
    console = Console(width=max(Console().width, 80))
    runs = run_scores(records)
    for task, of_task in runs.groupby("task", sort=False):
        console.print(_table(str(task), of_task))
    console.print(
        "best / final evaluation on held-out prompts, mean over seeds. neglected: share of channels met in fewer "
        f"than {percent(NEGLECTED)} of the answers (less is better); all met: share of prompts all of whose criteria "
        "are met.",
        style="dim",
    )


def _table(task: str, runs: pd.DataFrame) -> Table:
    table = Table(title=f"{task}, {plural(runs['seed'].nunique(), 'seed')}", title_justify="left")
    table.add_column("method", no_wrap=True)
    for score in SCORES:
        table.add_column(HEADS[score], justify="right")
    table.add_row(
        "warm start", f"{runs['start_mean'].mean():.2f}", *[""] * (len(SCORES) - 1), style="dim", end_section=True
    )
    for method, of_method in runs.groupby("method", sort=False):
        cells = [f"{of_method[f'best_{s}'].mean():.2f} / {of_method[f'final_{s}'].mean():.2f}" for s in SCORES]
        table.add_row(find_contender(str(method)).label, *cells)
    return table
