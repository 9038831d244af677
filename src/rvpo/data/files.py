"""Raw rows with their places: local files are read here, hub names and saved folders by `datasets`.

`datasets` wants one type per column, but a rubric may mix texts and objects; and messages need line numbers.
Bytes that are no UTF-8, half an emoji and NUL become replacement characters.
"""

import csv
import json
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from rvpo.data.rows import Place
from rvpo.errors import ConfigError, reason
from rvpo.llm.json_text import whole

__all__ = ["RawRow", "raw_rows"]

RawRow = tuple[Place, Mapping[str, Any]]

JSON_CELLS = ("prompt", "rubric", "rubrics", "reward_model", "tags", "example_tags", "ideal_completions_data")
"""Columns of a CSV file whose cells may hold JSON."""


def raw_rows(name: str, split: str, limit: int | None = None) -> list[RawRow]:
    """Return the rows of a hub name, saved folder or file (.jsonl, .json, .parquet, .csv), at most `limit`.

    Raises ConfigError if it cannot be read, naming file and line where there is one, or if it has no rows.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"limit must be at least 1, got {limit}; leave it out to read every row")
    path = Path(name)
    reader = READERS.get(path.suffix.lower()) if path.is_file() else None
    if reader is None:
        return list(_of_datasets(name, split, limit))
    try:
        rows = list(islice(reader(path), limit))
    except ConfigError:
        raise
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        raise ConfigError(f"cannot read {name}: {reason(error)}") from error
    if not rows:
        raise ConfigError(f"{name} has no rows")
    return rows


def _of_datasets(name: str, split: str, limit: int | None) -> Iterator[RawRow]:
    from rvpo.data.splits import open_split  # datasets is slow to import

    rows, _ = open_split(name, split)
    for number, row in enumerate(islice(rows, limit), 1):
        yield Place(name, number), row


def _of_lines(path: Path) -> Iterator[RawRow]:
    with path.open(encoding="utf-8-sig", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            place = Place(str(path), number, "line")
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise ConfigError(f"{place}, column {error.colno}: not JSON: {error.msg}") from error
            except (ValueError, RecursionError) as error:  # a number of too many digits, too deep
                raise ConfigError(f"{place}: JSON that cannot be read: {reason(error)}") from error
            yield place, _row(row, place)


def _of_json(path: Path) -> Iterator[RawRow]:
    """Read a list of rows; a file that is none may be JSON Lines under another name."""
    with path.open(encoding="utf-8-sig", errors="replace") as stream:
        is_list = stream.read(4096).lstrip().startswith("[")
    if not is_list:
        yield from _of_lines(path)
        return
    for number, row in enumerate(json.loads(path.read_text(encoding="utf-8-sig", errors="replace")), 1):
        place = Place(str(path), number)
        yield place, _row(row, place)


def _of_csv(path: Path) -> Iterator[RawRow]:
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
        for number, cells in enumerate(csv.DictReader(stream), 1):
            place = Place(str(path), number)
            if None in cells:
                raise ConfigError(f"{place}: has more cells than the header has names")
            yield place, {key: _cell(cells[key], key) for key in cells}


def _of_parquet(path: Path) -> Iterator[RawRow]:
    from pyarrow.parquet import ParquetFile  # slow to import

    with ParquetFile(path) as file:
        rows = (row for batch in file.iter_batches(1024) for row in batch.to_pylist())
        for number, row in enumerate(rows, 1):
            yield Place(str(path), number), row


def _cell(text: str | None, key: str) -> Any:
    if not text:
        return None
    if key in JSON_CELLS and text.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(text)
        except (
            ValueError,
            RecursionError,
        ):  # a text that begins with a bracket; where none may stand, the loader says so
            return text
    return text


def _row(row: object, place: Place) -> Mapping[str, Any]:
    if not isinstance(row, dict):
        raise ConfigError(f"{place}: a row must be an object, got {type(row).__name__}")
    return whole(row)  # type: ignore[no-any-return]


READERS = {".jsonl": _of_lines, ".json": _of_json, ".csv": _of_csv, ".parquet": _of_parquet}
