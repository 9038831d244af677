"""A run's folder kept up to date while it trains, so that a running or killed run can be looked at."""

import contextlib
import json
import re
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass
from pathlib import Path
from typing import Any

from rvpo import __version__
from rvpo.files import write_whole
from rvpo.integrations.trl.summary import METRICS_FILE, log_line, write_log

from transformers import TrainerCallback  # isort: skip

__all__ = ["RunLog"]

RUN_FILE = "run.json"
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
