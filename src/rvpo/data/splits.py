"""One split of a data set, as the library `datasets` reads it: a hub name, a local file or a saved folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, IterableDataset, load_dataset, load_from_disk
from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError

from rvpo.errors import ConfigError

__all__ = ["BUILDERS", "UNREADABLE", "open_split"]

UNREADABLE = (DatasetNotFoundError, DatasetGenerationError, ValueError, OSError, StopIteration, RuntimeError)
BUILDERS = {".jsonl": "json", ".json": "json", ".parquet": "parquet", ".csv": "csv"}


def open_split(
    name: str, split: str, *, config: str | None = None, streaming: bool = False
) -> tuple[Dataset | IterableDataset, Mapping[str, Any]]:
    """Return one split of a data set, and its first row.

    A local file is one split, whatever it is called. Raises ConfigError if there is no such data set or split, or
    no row in it.
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
    return rows, first


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
