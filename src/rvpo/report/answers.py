"""Sample answers of a training run: the first prompts of the last table of completions that TRL wrote.

`log_completions: true` makes TRL write such tables; rvpo's trainer adds every channel's reward, and a rubric reward
with `log_reasons` the judge's reasons.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rvpo.errors import ConfigError

__all__ = ["LoggedAnswer", "LoggedPrompt", "read_answers"]

PROMPTS = 2
MOST_LETTERS = 4000
"""Letters shown of a prompt or an answer."""
CHANNELS, REASONS = "/channels", "/reasons"
"""What the names of columns end with that hold JSON objects: channel -> reward, and channel -> reason."""
NO_REWARDS = ("step", "prompt", "completion", "advantage")

Row = Mapping[str, Any]


@dataclass(frozen=True)
class LoggedAnswer:
    """An answer with its rewards."""

    text: str
    advantage: float
    """NaN where none was logged."""
    rewards: tuple[tuple[str, float, str], ...]
    """Channel, reward (NaN for none) and the judge's reason, empty without one."""


@dataclass(frozen=True)
class LoggedPrompt:
    """A prompt and two of the answers to it."""

    step: int
    text: str
    answers: tuple[LoggedAnswer, ...]
    """The answer of the highest advantage in its group and that of the lowest; one, if they are the same."""


def read_answers(folder: Path) -> tuple[LoggedPrompt, ...]:
    """Return the first prompts in the last table of a run's output folder; none without a table.

    Raises ConfigError for a file that is no such table.
    """
    tables = (folder / "completions").glob("completions_*.parquet")
    files = sorted(tables, key=lambda file: (len(file.name), file.name))  # by step, which has five digits or more
    if not files:
        return ()
    import pyarrow.parquet as pq

    groups: dict[str, list[Row]] = {}
    try:
        for row in pq.read_table(files[-1]).to_pylist():
            groups.setdefault(_text(row["prompt"]), []).append(row)
        return tuple(_prompt(text, rows) for text, rows in list(groups.items())[:PROMPTS])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{files[-1]} is no table of completions as TRL writes it: {error}") from error


def _prompt(text: str, rows: list[Row]) -> LoggedPrompt:
    answers = [
        LoggedAnswer(_text(row["completion"]), _number(row.get("advantage")), tuple(_rewards(row))) for row in rows
    ]
    known = [answer for answer in answers if math.isfinite(answer.advantage)] or answers[:1]
    ends = max(known, key=lambda answer: answer.advantage), min(known, key=lambda answer: answer.advantage)
    return LoggedPrompt(int(rows[0]["step"]), text, tuple(dict.fromkeys(ends)))


def _rewards(row: Row) -> Iterator[tuple[str, float, str]]:
    """Yield channel, reward and reason; a reward function with channels of its own is told by these."""
    reasons = {name: reason for column in row if column.endswith(REASONS) for name, reason in _object(row[column])}
    for column, value in row.items():
        if column.endswith(CHANNELS):
            for name, reward in _object(value):
                yield name, _number(reward), reasons.get(name) or ""
        elif column not in NO_REWARDS and isinstance(value, float) and column + CHANNELS not in row:
            yield column, value, reasons.get(column) or ""


def _object(text: str | None) -> list[tuple[str, Any]]:
    """Return the entries of a JSON object; none where a row has no text."""
    return list(json.loads(text).items()) if text else []


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _text(value: Any) -> str:
    """Return a prompt or an answer, a text or a list of messages, as one text."""
    parts = value if isinstance(value, list) else [{"content": value}]
    text = "\n".join(str(part.get("content") or "") for part in parts)
    return text if len(text) <= MOST_LETTERS else f"{text[:MOST_LETTERS]} ..."
