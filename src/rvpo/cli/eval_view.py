"""What `rvpo eval` shows: progress, as bars in a terminal and lines elsewhere, and scores with what is missing."""

import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from rvpo.text import NOTHING, number, span

__all__ = ["EvalView", "print_summaries"]

LINE_EVERY = 20.0
"""Seconds between the plain lines that stand in for the bars where there is no terminal."""
COLUMN = 13
"""Room for a score in the table of several models."""

Summary = Mapping[str, Any]


class EvalView:
    """Shows how far evaluations are.

    with EvalView(2) as view:
        await evaluate(..., progress=view.of("gdpo"))
    """

    def __init__(self, models: int, console: Console | None = None) -> None:
        self.models, self.begun = models, 0
        self.console = console or Console(stderr=True)
        self.bars: Progress | None = None
        self.last_line = -LINE_EVERY

    def __enter__(self) -> "EvalView":
        if self.console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self.bars = Progress(*columns, console=self.console, transient=True)
            self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bars is not None:
            self.bars.stop()

    def of(self, label: str) -> Callable[[str, int, int], None]:
        """Return the `progress` of the next model."""
        self.begun += 1
        place = f" ({self.begun} of {self.models})" if self.models > 1 else ""
        bars: dict[str, Any] = {}

        def show(phase: str, done: int, of: int) -> None:
            name = f"{label}{place}: {phase}"
            if self.bars is None:
                self._line(f"{name} {done}/{of}", is_end=done == of)
                return
            if phase not in bars:
                bars[phase] = self.bars.add_task(Text(name).markup, total=of)
            self.bars.update(bars[phase], completed=done, visible=done < of)

        return show

    def _line(self, text: str, *, is_end: bool) -> None:
        now = time.monotonic()
        if is_end or now - self.last_line >= LINE_EVERY:
            self.last_line = now
            print(text, flush=True)


def print_summaries(summaries: Sequence[Summary], console: Console | None = None) -> None:
    """Print the scores of one model in full, or of several side by side, and what is missing from them."""
    console = console or Console(highlight=False)
    console.print(_scores(summaries[0]) if len(summaries) == 1 else _overview(summaries, console.width))
    for summary in summaries:
        for line in notes(summary):
            console.print(Text(f"{summary['label']}: {line}" if len(summaries) > 1 else line))


def _scores(summary: Summary) -> Table:
    table = Table(box=SIMPLE_HEAD, title=Text(f"{summary['benchmark']}: {summary['label']}"), title_justify="left")
    table.add_column("score")
    has_clipped = any("unclipped" in summary["scores"][name] for name in summary["shown"])
    for head in ("value", *(["unclipped"] if has_clipped else []), "95 % interval", "items", "missing"):
        table.add_column(head, justify="right")
    for name in summary["shown"]:
        entry = summary["scores"][name]
        unclipped = [number(entry.get("unclipped"), 3)] if has_clipped else []
        missing = str(entry["missing"]) if entry["missing"] else NOTHING
        shown = [number(entry["value"], 3), *unclipped, _range(entry["interval"]), str(entry["items"]), missing]
        table.add_row(Text(name), *shown)
    return table


def _overview(summaries: Sequence[Summary], width: int) -> Table:
    """Return a line for each model: the headline with its interval, and as many other scores as there is room for."""
    first = summaries[0]
    widest = max(len(summary["label"]) for summary in summaries)
    headline, room = first["headline"], width - widest - len("0.000 to 0.000") - 4
    others = [name for name in first["shown"] if name != headline][: max(room // COLUMN - 1, 0)]
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), title=Text(str(first["benchmark"])), title_justify="left")
    table.add_column("model", no_wrap=True)
    for head in (headline, "95 % interval", *others):
        table.add_column(Text(head.replace("axis:", "").replace("_", " ")), justify="right", overflow="fold")
    for summary in summaries:
        interval = _range(summary["scores"][headline]["interval"])
        values = [number(summary["scores"].get(name, {}).get("value"), 3) for name in (headline, *others)]
        table.add_row(Text(summary["label"]), values[0], interval, *values[1:])
    return table


def notes(summary: Summary) -> list[str]:
    """Return what a reader of the scores must know: what is missing, what that could change, what was cut."""
    headline = summary["headline"]
    entry, answers, lines = summary["scores"][headline], summary["answers"], []
    if entry["missing"]:
        asked = entry["missing"] + entry["items"]
        share = f"{headline} is missing for {entry['missing']} of {asked} answers ({entry['missing'] / asked:.1%})"
        ends = entry["bounds"]
        kind = "unclipped mean" if "unclipped" in entry else "mean"
        lines.append(share if ends is None else f"{share}; with them the {kind} is anywhere from {_range(ends)}")
    verdicts = summary.get("verdicts")
    if verdicts is not None and verdicts["missing"]:
        lost = ", ".join(f"{count} {name}" for name, count in verdicts["outcomes"].items() if name in LOST)
        share = f"{verdicts['missing']} of {verdicts['asked']} verdicts ({verdicts['missing_share']:.1%})"
        lines.append(f"{share} are missing: {lost}")
    if answers["lost"]:
        why = "; ".join(f"{count}: {reason}" for reason, count in answers["lost_because"].items())
        lines.append(f"{answers['lost']} of {answers['asked']} answers are lost ({why})")
    if summary.get("unparsed"):
        lines.append(f"{summary['unparsed']} of {answers['asked']} answers name no letter, and count as wrong")
    if answers["cut_at_max_tokens"]:
        lines.append(f"{answers['cut_at_max_tokens']} of {answers['asked']} answers were cut at max_tokens")
    return lines


LOST = ("unparsed", "refused", "failed", "unanswered")
"""Outcomes of a criterion that are no verdict."""


def _range(ends: Sequence[float] | None) -> str:
    return NOTHING if ends is None else span(ends[0], ends[1], 3)
