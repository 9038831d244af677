"""What a run logs while it trains: its folder, kept up to date, and what W&B, TensorBoard and others get.

A running or killed run can be looked at in its folder. `trainer.state.log_history` and `metrics.jsonl` have
`channels/NAME/KIND`, whatever is decided here for the trackers and the terminal, so that their pages stay readable:
nine metrics for each channel are too many charts for a page. By kind they are side by side, and of few kinds:

    up to `MOST` channels   channels/mean/NAME, channels/weight/NAME, channels/dead/NAME
    more                    channels/lowest/01 to 10, channels/highest/01 to 10: means, averaged over the run, by rank;
                            who they are stands in channels.csv
    both                    channels/KIND: the average over the channels, of every kind
"""

import contextlib
import csv
import io
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, asdict, fields, is_dataclass
from pathlib import Path
from typing import Any

from rvpo import __version__
from rvpo.files import write_whole

from transformers import TrainerCallback  # isort: skip

__all__ = ["METRICS_FILE", "MOST", "RunLog", "ShortMetrics", "log_line", "write_log"]

RUN_FILE, METRICS_FILE = "run.json", "metrics.jsonl"
PASSWORD = re.compile(r"://[^/@\s\"]+@")
"""User and password in a URL, as a judge's may have."""
SECRET = re.compile(r"(?:token|key|secret|password|authorization)$", re.IGNORECASE)
"""How names of settings end that hold a secret, those inside of mappings too, such as a judge's headers."""


class RunLog(TrainerCallback):
    """Keeps a run's folder up to date while it trains, so that a running or killed one can be looked at.

    `run.json`: the steps that are planned and the settings that are not the defaults, without tokens. `metrics.jsonl`:
    every logged step.
    """

    def __init__(self, *settings: Any) -> None:
        """Keep dataclasses of settings."""
        self._settings = _without_secrets({k: v for part in settings for k, v in _not_default(part).items()})

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
                file.write(log_line(state.log_history[-1]))


def _not_default(settings: Any) -> dict[str, Any]:
    """Return a dataclass's fields that differ from their defaults."""
    values = {}
    for setting in fields(settings):
        default = setting.default if setting.default_factory is MISSING else setting.default_factory()
        value: Any = getattr(settings, setting.name, default)
        if value != default:
            values[setting.name] = list(map(_plain, value)) if type(value) is list else value
    return values


def _plain(part: Any) -> Any:
    """Return an entry of a list of settings, a data set of a mixture as a mapping."""
    return asdict(part) if is_dataclass(part) and not isinstance(part, type) else part


def _without_secrets(value: Any) -> Any:
    """Return a setting without what its names call a secret; a mapping in JSON, as on the command line, is read."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        with contextlib.suppress(ValueError):
            value = json.loads(value)
    if isinstance(value, Mapping):
        return {name: _without_secrets(part) for name, part in value.items() if not SECRET.search(str(name))}
    return [_without_secrets(part) for part in value] if isinstance(value, list | tuple) else value


def write_log(history: Sequence[Mapping[str, Any]], folder: Path) -> Path:
    """Write every logged step as one line of JSON, null where a value is not finite; return the file."""
    file = folder / METRICS_FILE
    write_whole(file, "".join(map(log_line, history)))
    return file


def log_line(entry: Mapping[str, Any]) -> str:
    """Return a logged step as a line of JSON, null where a value is not finite."""
    return json.dumps({key: _finite_or_none(value) for key, value in entry.items()}) + "\n"


def _finite_or_none(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


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
