"""What a finished or interrupted run shows: a table of its channels."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rvpo.text import NOTHING, number

__all__ = ["print_summary", "short_name", "sparkline"]

BLOCKS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], width: int = 16) -> str:
    """Return values as a line of blocks, averaged down to `width` of them; empty without any.

    >>> sparkline([0.0, 0.5, 1.0])
    '▁▅█'
    """
    if not values:
        return ""
    size = min(width, len(values))
    edges = [round(index * len(values) / size) for index in range(size + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = min(means), max(means)
    scale = (len(BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(BLOCKS[math.floor((mean - low) * scale + 0.5)] for mean in means)


def short_name(channel: str) -> str:
    """Return a channel's name as tables show it: what every reward function is called by is left out."""
    return channel.removesuffix("_reward")


def _series(history: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    values = [float(entry[key]) for entry in history if entry.get(key) is not None]
    return [value for value in values if math.isfinite(value)]


def _cell(values: Sequence[float], pick: int) -> str:
    return number(values[pick], 3) if values else NOTHING


def print_summary(history: Sequence[Mapping[str, Any]], folder: Path, *, title: str) -> None:
    """Print one row per channel (first, best and last mean, share of dead groups, weight) and the folder."""
    keys = dict.fromkeys(key for entry in history for key in entry)
    names = [
        key[len("channels/") : -len("/mean")] for key in keys if key.startswith("channels/") and key.endswith("/mean")
    ]
    table = Table(title=escape(title), title_justify="left")
    for column in ("channel", "first", "best", "last"):
        table.add_column(column, justify="left" if column == "channel" else "right", overflow="fold")
    table.add_column("mean reward")
    for column in ("dead", "missing", "weight"):
        table.add_column(column, justify="right")
    for name in names:
        means = _series(history, f"channels/{name}/mean")
        last = [_cell(_series(history, f"channels/{name}/{kind}"), -1) for kind in ("dead", "missing", "weight")]
        best = number(max(means), 3) if means else NOTHING
        table.add_row(escape(short_name(name)), _cell(means, 0), best, _cell(means, -1), sparkline(means), *last)
    console = Console()
    if names:
        console.print(table)
        console.print(
            "dead: share of groups without spread; weight: share in the advantage; both of the last log.", style="dim"
        )
    console.print(f"run: {folder}", soft_wrap=True, markup=False)
