"""What a finished or interrupted run shows: its log as a file, and a table of its channels."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rvpo import __version__
from rvpo.files import write_whole
from rvpo.text import NOTHING, number

from transformers import TrainerCallback  # isort: skip

__all__ = ["RunLog", "print_summary", "short_name", "sparkline", "write_log"]

BLOCKS = "▁▂▃▄▅▆▇█"
METRICS_FILE, RUN_FILE = "metrics.jsonl", "run.json"
PASSWORD = re.compile(r"://[^/@\s\"]+@")
"""User and password in a URL, as a judge's may have."""


def write_log(history: Sequence[Mapping[str, Any]], folder: Path) -> Path:
    """Write every logged step as one line of JSON, null where a value is not finite; return the file."""
    file = folder / METRICS_FILE
    write_whole(file, "".join(map(_line, history)))
    return file


def _line(entry: Mapping[str, Any]) -> str:
    return json.dumps({key: _finite_or_none(value) for key, value in entry.items()}) + "\n"


class RunLog(TrainerCallback):
    """Keeps a run's folder up to date while it trains, so that a running or killed one can be looked at.

    `run.json`: the steps that are planned and the settings that are not the defaults, without tokens. `metrics.jsonl`:
    every logged step.
    """

    def __init__(self, *settings: Any) -> None:
        """Keep dataclasses of settings."""
        self._settings = {name: value for part in settings for name, value in _not_default(part).items()}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the settings, and what was logged up to the checkpoint that is gone on from."""
        if state.is_world_process_zero:
            content = {"rvpo": __version__, "max_steps": state.max_steps, "settings": self._settings}
            text = PASSWORD.sub("://***@", json.dumps(content, indent=1, default=str))
            write_whole(Path(args.output_dir) / RUN_FILE, text + "\n")
            write_log(state.log_history, Path(args.output_dir))

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Add what was logged."""
        if state.is_world_process_zero:
            with (Path(args.output_dir) / METRICS_FILE).open("a", encoding="utf-8") as file:
                file.write(_line(state.log_history[-1]))


def _not_default(settings: Any) -> dict[str, Any]:
    """Return a dataclass's fields that differ from their defaults, but for those that hold a secret."""
    values = {}
    for setting in fields(settings):
        default = setting.default if setting.default_factory is MISSING else setting.default_factory()
        value = getattr(settings, setting.name, default)
        if value != default and not setting.name.endswith("token"):
            values[setting.name] = value
    return values


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


def _finite_or_none(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


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
