"""What W&B, TensorBoard, trackio and the terminal get of the channels' metrics, so that their pages stay readable.

`trainer.state.log_history` and `metrics.jsonl` have `channels/NAME/KIND`, whatever is decided here: nine metrics for
each channel, too many charts for a page. By kind they are side by side, and of few kinds:

    up to `MOST` channels   channels/mean/NAME, channels/weight/NAME, channels/dead/NAME
    more                    channels/lowest/01 to 10, channels/highest/01 to 10: means, averaged over the run, by rank;
                            who they are stands in channels.csv
    both                    channels/KIND: the average over the channels, of every kind
"""

import csv
import io
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rvpo.files import write_whole

from transformers import TrainerCallback  # isort: skip

__all__ = ["MOST", "ShortMetrics"]

METRIC = re.compile(r"((?:\w+_)?)channels/(.+)/(\w+)")
"""Prefix of an evaluation, channel, kind."""
MOST = 20
"""Channels that are charted by name; of more, half as many of the lowest and of the highest by rank."""
CHARTED = ("mean", "weight", "dead", "given_weight", "multiplier")
"""Kinds that are charted by channel: those that say who is neglected, and those that somebody has asked for."""
DECAY = 0.9
"""Of the averages that channels are ranked by: a tag of few prompts has 0 or 1 in a single step."""


class ShortMetrics(TrainerCallback):
    """Goes before other callbacks, which see the logs as this leaves them."""

    def __init__(self) -> None:
        self._averages: dict[str, dict[str, float]] = {}

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Put the short metrics in the place of those by channel; write the table if that leaves channels out."""
        tables: dict[str, dict[str, dict[str, float]]] = {}
        for key in list(logs):
            if match := METRIC.fullmatch(key):
                prefix, name, kind = match.groups()
                value = logs.pop(key)  # some releases of TRL put None in the place of NaN
                tables.setdefault(prefix, {}).setdefault(kind, {})[name] = math.nan if value is None else value
        for prefix, by_kind in tables.items():
            averages = self._averages.setdefault(prefix, {})
            for name, mean in by_kind.get("mean", {}).items():
                if not math.isnan(mean):
                    averages[name] = DECAY * averages.get(name, mean) + (1 - DECAY) * mean
            ranked = sorted(averages, key=averages.__getitem__)
            short = _by_name(by_kind) if len(ranked) <= MOST else _by_rank([averages[name] for name in ranked])
            short |= {kind: _average(values.values()) for kind, values in by_kind.items()}
            logs.update({f"{prefix}channels/{name}": value for name, value in short.items() if not math.isnan(value)})
            if len(ranked) > MOST and state.is_world_process_zero:
                write_whole(Path(args.output_dir) / f"{prefix}channels.csv", _table(ranked, averages, by_kind))


def _by_name(by_kind: dict[str, dict[str, float]]) -> dict[str, float]:
    return {f"{kind}/{name}": value for kind in CHARTED for name, value in by_kind.get(kind, {}).items()}


def _by_rank(means: list[float]) -> dict[str, float]:
    """Return the lowest and the highest of ascending means, 01 being the outermost."""
    half = MOST // 2
    ends = {"lowest": means[:half], "highest": means[::-1][:half]}
    return {f"{end}/{rank:02}": mean for end, values in ends.items() for rank, mean in enumerate(values, 1)}


def _average(values: Iterable[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def _table(ranked: list[str], averages: dict[str, float], by_kind: dict[str, dict[str, float]]) -> str:
    """Return the newest metrics as CSV, a channel a row, the lowest running mean first; no value is an empty cell."""
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(["channel", "running mean", *by_kind])
    for name in ranked:
        row = [averages[name], *(values.get(name, math.nan) for values in by_kind.values())]
        table.writerow([name, *("" if math.isnan(value) else f"{value:.4g}" for value in row)])
    return text.getvalue()
