"""Rows for training: from a hub name, a local file, or a folder; rubric data sets as they are published."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets import Dataset, IterableDataset

from rvpo.data.load import FORMATS, load_rubric_rows
from rvpo.data.splits import BUILDERS, UNREADABLE, open_split
from rvpo.errors import ConfigError, unknown_name

__all__ = ["TRAINING_FORMATS", "load_mixture", "load_rows"]

TRAINING_FORMATS = tuple(name for name in FORMATS if not name.startswith("healthbench"))
"""Formats of rubric data sets that may be trained on: HealthBench is for evaluation."""


def load_rows(
    name: str,
    split: str,
    *,
    config: str | None = None,
    columns: Mapping[str, str] | None = None,
    streaming: bool = False,
    format: str | None = None,
    polarity: str | None = None,
) -> Dataset | IterableDataset:
    """Return one split of a data set, with columns added by dotted path.

    `columns={"ground_truth": "reward_model.ground_truth"}` adds a column `ground_truth` from inside the column
    `reward_model`. A local file is one split, whatever it is called. With a `format`, one of TRAINING_FORMATS, raw
    rows of a rubric data set become canonical ones, with columns prompt and rubric (`rvpo.data.load_rubric_rows`,
    which has `polarity` too). Raises ConfigError if there is no such data set, split or column, or no column
    `prompt` in the end.
    """
    if format is not None:
        rows = _rubric_rows(name, split, format, polarity, config=config, streaming=streaming)
        first = rows[0]
    else:
        rows, first = open_split(name, split, config=config, streaming=streaming)
    return _with_columns(rows, first, columns, name)


def load_mixture(
    datasets: Sequence[Any],
    *,
    columns: Mapping[str, str] | None = None,
    streaming: bool = False,
    test_size: float | None = None,
    seed: int = 0,
) -> tuple[Dataset | IterableDataset, Dataset | None]:
    """Return the rows of several data sets, one after the other as TRL mixes them, and those kept for evaluation.

    Args:
        datasets: TRL's `DatasetConfig`s (path, name, data_files, split, columns, fraction); a path may be a file.
        columns: added by dotted path, as in `load_rows`.
        streaming: read rows when they are needed.
        test_size: share or number of rows to be kept for evaluation; None: none.
        seed: by which these are drawn, so that all processes and a resumed run have the same.

    Raises ConfigError for a data set that cannot be read, and for rows without a prompt.
    """
    from trl import DatasetMixtureConfig, get_dataset

    local = [
        replace(part, path=BUILDERS[Path(part.path).suffix.lower()], data_files=part.path)
        if Path(part.path).is_file() and Path(part.path).suffix.lower() in BUILDERS
        else part
        for part in datasets
    ]
    names = ", ".join(part.path for part in datasets)
    try:
        rows = get_dataset(DatasetMixtureConfig(datasets=local, streaming=streaming))["train"]
        first = next(iter(rows), None)
        parts = None if test_size is None else rows.train_test_split(test_size=test_size, seed=seed)
    except (*UNREADABLE, AttributeError, TypeError) as error:
        raise ConfigError(f"cannot mix the data sets {names}: {error.__cause__ or error}") from error
    if first is None:
        raise ConfigError(f"the data sets {names} have no rows")
    if parts is None:
        return _with_columns(rows, first, columns, names), None
    train, test = (_with_columns(parts[split], first, columns, names) for split in ("train", "test"))
    return train, test


def _with_columns(rows: Any, first: Mapping[str, Any], columns: Mapping[str, str] | None, name: str) -> Any:
    """Return rows with columns added by dotted path; ConfigError without a prompt in the end."""
    for target, path in (columns or {}).items():
        _pick(first, path)
        rows = rows.map(lambda row, target=target, path=path: {target: _pick(row, path)})
    if "prompt" not in first and "prompt" not in (columns or {}):
        raise ConfigError(
            f"data set {name!r} has no column 'prompt', only {sorted(first)}; "
            'name one with --dataset_columns \'{"prompt": "..."}\', '
            f"or its format with --dataset_format, one of {', '.join(TRAINING_FORMATS)}"
        )
    return rows


def _rubric_rows(
    name: str, split: str, format: str, polarity: str | None, *, config: str | None, streaming: bool
) -> Dataset:
    """Return the canonical rows of a rubric data set."""
    if format not in TRAINING_FORMATS:
        if format in FORMATS:
            raise ConfigError(f"dataset_format {format}: HealthBench is for evaluation, never train on it")
        raise unknown_name("dataset_format", format, TRAINING_FORMATS)
    if streaming or config is not None:
        raise ConfigError("dataset_streaming and dataset_config do nothing with dataset_format; remove one of them")
    return Dataset.from_list(load_rubric_rows(name, format=format, split=split, polarity=polarity).rows)


def _pick(row: Mapping[str, Any], path: str) -> Any:
    """Return the value at a dotted path inside a row."""
    value: Any = row
    for part in path.split("."):
        if not isinstance(value, Mapping) or part not in value:
            known = sorted(value) if isinstance(value, Mapping) else type(value).__name__
            raise ConfigError(f"there is no {part!r} on the path {path!r} of a row; there is {known}")
        value = value[part]
    return value
