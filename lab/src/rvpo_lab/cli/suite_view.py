"""What the terminal shows of a suite: progress, time left and the axes of a task, the methods side by side, while it
trains; then the table of scores on held-out prompts, as the quickstart and the suite print it."""

import sys
import time
from collections.abc import Iterator, Sequence
from types import TracebackType

import pandas as pd
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rvpo.integrations.trl.summary import sparkline
from rvpo.stats import NEGLECTED
from rvpo.text import percent, plural
from rvpo_lab.suite.method_tables import HEADS
from rvpo_lab.suite.plan import Cell, find_contender
from rvpo_lab.suite.results import SCORES, run_scores
from rvpo_lab.suite.schedule import Standing
from rvpo_lab.suite.storage import CellRecord

__all__ = ["LiveView", "duration", "print_scores"]

LINE_EVERY = 20.0
"""Seconds between the plain lines that stand in for the view where there is no terminal."""


def duration(seconds: float | None) -> str:
    """Return seconds as people say them.

    >>> duration(42), duration(150), duration(7300), duration(None)
    ('42 s', '2 min 30 s', '2 h 1 min', '...')
    """
    if seconds is None:
        return "..."
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes = whole // 60
    return f"{minutes} min {whole % 60} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


class LiveView:
    """Shows a `Standing`, as a live view in a terminal and as a line now and then elsewhere.

    with LiveView() as show:
        run_cells(..., show=show)
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console()
        self.live: Live | None = None
        self.began = time.monotonic()
        self.last_line = -LINE_EVERY
        self.finished = -1

    def __enter__(self) -> "LiveView":
        if self.console.is_terminal:
            self.live = Live(console=self.console, refresh_per_second=2, transient=True)
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live is not None:
            self.live.stop()

    @property
    def elapsed(self) -> float:
        """Seconds since the view was made."""
        return time.monotonic() - self.began

    def __call__(self, standing: Standing) -> None:
        """Show the standing."""
        if self.live is not None:
            self.live.update(picture(standing, self.console.width, self.elapsed))
            return
        now = time.monotonic()
        fresh = len(standing.finished) != self.finished
        if fresh or now - self.last_line >= LINE_EVERY:
            self.last_line, self.finished = now, len(standing.finished)
            print(plain_line(standing), file=sys.stdout, flush=True)


def plain_line(standing: Standing) -> str:
    """Return one line: what is done, what runs, the time left."""
    running = [
        f"{cell.name} {step}/{standing.settings.steps}"
        for cell, step in standing.steps.items()
        if cell not in standing.finished
    ]
    warm = [f"warm start {policy} {share:.0%}" for policy, share in standing.preparing.items() if share < 1]
    seconds = standing.seconds_left(time.monotonic())
    left = "" if seconds is None or not running else f"{duration(seconds)} left"
    parts = (f"{len(standing.finished)}/{len(standing.cells)} runs", ", ".join(running or warm), left)
    return "  ".join(part for part in parts if part)


def picture(standing: Standing, width: int, elapsed: float) -> RenderableType:
    """Return the whole view."""
    left = duration(standing.seconds_left(time.monotonic()))
    head = Text(
        f"{len(standing.finished)} of {len(standing.cells)} runs · {standing.done:.0%} · {duration(elapsed)} so far · "
        f"{left} left"
    )
    bar = Table.grid()  # by itself a bar does not end its line
    bar.add_row(ProgressBar(total=1.0, completed=standing.done, width=min(width, 80)))
    parts: list[RenderableType] = [head, bar]
    warm = [f"{policy} {share:.0%}" for policy, share in standing.preparing.items() if share < 1]
    if warm:
        parts.append(Text(f"warm start (kept for later runs): {', '.join(warm)}", style="dim"))
    for task, runs in _by_task(standing):
        parts += [Text(), axes_table(task, runs, standing)]
    return Group(*parts)


def _by_task(standing: Standing) -> Iterator[tuple[str, list[Cell]]]:
    """Yield the tasks being trained now, each with the cells of its newest seed that have been evaluated."""
    active = [cell for cell in standing.axes if cell not in standing.finished] or list(standing.axes)[-1:]
    for task, seed in dict.fromkeys((cell.task, cell.seed) for cell in active):
        yield task, [cell for cell in standing.axes if (cell.task, cell.seed) == (task, seed)]


def axes_table(task: str, runs: list[Cell], standing: Standing) -> Table:
    """Return one line per axis with the methods side by side: held-out mean now, and its course."""
    table = Table(title=f"{task}, seed {runs[0].seed}: held-out mean per axis", title_justify="left", expand=False)
    table.add_column("axis")
    for cell in runs:
        table.add_column(find_contender(cell.contender).label, no_wrap=True)
    for axis in standing.axes[runs[0]][0]:
        courses = [[means[axis] for means in standing.axes[cell]] for cell in runs]
        table.add_row(axis, *(f"{course[-1]:.2f} {sparkline(course, 8)}" for course in courses))
    steps = [f"{standing.steps.get(cell, 0)}/{standing.settings.steps}" for cell in runs]
    table.add_row(Text("step", style="dim"), *(Text(step, style="dim") for step in steps))
    return table


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
