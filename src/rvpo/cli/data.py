"""Rows for training: from a hub name, a local jsonl or parquet file, or a folder; columns by dotted path."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, IterableDataset, load_dataset, load_from_disk
from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError

from rvpo.errors import ConfigError

__all__ = ["load_rows"]

UNREADABLE = (DatasetNotFoundError, DatasetGenerationError, ValueError, OSError, StopIteration, RuntimeError)
BUILDERS = {".jsonl": "json", ".json": "json", ".parquet": "parquet", ".csv": "csv"}


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
    try:
        rows = _load(name, split, config, streaming)
        first = next(iter(rows), None)
    except ConfigError:
        raise
    except UNREADABLE as error:
        reason = error.__cause__ or error
        raise ConfigError(f"cannot load data set {name!r}, split {split!r}: {reason}") from error
    if first is None:
        raise ConfigError(f"data set {name!r} has no rows in split {split!r}")
    for target, path in (columns or {}).items():
        _pick(first, path)
        rows = rows.map(lambda row, target=target, path=path: {target: _pick(row, path)})
    if "prompt" not in first and "prompt" not in (columns or {}):
        raise ConfigError(
            f"data set {name!r} has no column 'prompt', only {sorted(first)}; "
            'name one with --dataset_columns \'{"prompt": "..."}\''
        )
    return rows


def _load(name: str, split: str, config: str | None, streaming: bool) -> Dataset | IterableDataset:
    path = Path(name)
    if path.is_file():
        builder = BUILDERS.get(path.suffix.lower())
        if builder is None:
            raise ConfigError(f"{name} is not a file of a known kind: {', '.join(BUILDERS)}")
        return load_dataset(builder, data_files={split: str(path)}, split=split, streaming=streaming)
    if path.suffix.lower() in BUILDERS:
        raise ConfigError(f"there is no file {name}")
    if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
        saved = load_from_disk(name)
        if isinstance(saved, DatasetDict) and split not in saved:
            raise ConfigError(f"{name} has no split {split!r}, only {sorted(saved)}")
        return saved[split] if isinstance(saved, DatasetDict) else saved
    return load_dataset(name, name=config, split=split, streaming=streaming)


def _pick(row: Mapping[str, Any], path: str) -> Any:
    """Return the value at a dotted path inside a row."""
    value: Any = row
    for part in path.split("."):
        if not isinstance(value, Mapping) or part not in value:
            known = sorted(value) if isinstance(value, Mapping) else type(value).__name__
            raise ConfigError(f"there is no {part!r} on the path {path!r} of a row; there is {known}")
        value = value[part]
    return value
