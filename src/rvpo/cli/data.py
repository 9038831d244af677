"""Rows for training: from a hub name, a local jsonl or parquet file, or a folder; columns by dotted path."""

from collections.abc import Mapping
from typing import Any

from datasets import Dataset, IterableDataset

from rvpo.data.splits import open_split
from rvpo.errors import ConfigError

__all__ = ["load_rows"]


def load_rows(
    name: str,
    split: str,
    *,
    config: str | None = None,
    columns: Mapping[str, str] | None = None,
    streaming: bool = False,
) -> Dataset | IterableDataset:
    """Return one split of a data set, with columns added by dotted path.

    `columns={"ground_truth": "reward_model.ground_truth"}` adds a column `ground_truth` from inside the column
    `reward_model`. A local file is one split, whatever it is called. Raises ConfigError if there is no such
    data set, split or column, or no column `prompt` in the end.
    """
    rows, first = open_split(name, split, config=config, streaming=streaming)
    for target, path in (columns or {}).items():
        _pick(first, path)
        rows = rows.map(lambda row, target=target, path=path: {target: _pick(row, path)})
    if "prompt" not in first and "prompt" not in (columns or {}):
        raise ConfigError(
            f"data set {name!r} has no column 'prompt', only {sorted(first)}; "
            'name one with --dataset_columns \'{"prompt": "..."}\''
        )
    return rows


def _pick(row: Mapping[str, Any], path: str) -> Any:
    """Return the value at a dotted path inside a row."""
    value: Any = row
    for part in path.split("."):
        if not isinstance(value, Mapping) or part not in value:
            known = sorted(value) if isinstance(value, Mapping) else type(value).__name__
            raise ConfigError(f"there is no {part!r} on the path {path!r} of a row; there is {known}")
        value = value[part]
    return value
