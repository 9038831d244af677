"""Finished cells as parquet: what was measured on held-out prompts, and what training logged.

A file holds one cell or many, one after the other; each begins with its row `cell`. Columns: `record`, `prompt`
(index, -1 where it means nothing), `name`, `values` (list of float), `text`.

    record    name        values                                       text
    cell                  evaluated steps                              JSON: task, contender, seed, settings, versions
    heldout   criterion   its value at each evaluated step             prompt, once for each
    rollouts  channel     rewards of one group, NaN for missing        the training step
    log       metric      its value at each logged step, NaN: absent
    logged                logged steps
    sample                the evaluated step                           an answer
"""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float

from rvpo.errors import ConfigError
from rvpo_lab.suite.plan import Cell

__all__ = ["CellRecord", "about_cells", "cell_of", "read_cell", "read_file", "write_cell", "write_file"]

SCHEMA = pa.schema(
    [
        ("record", pa.dictionary(pa.int8(), pa.string())),
        ("prompt", pa.int16()),
        ("name", pa.dictionary(pa.int16(), pa.string())),
        ("values", pa.list_(pa.float32())),
        ("text", pa.string()),
    ]
)

Row = tuple[str, int, str, Sequence[float], str | None]


@dataclass(eq=False)  # hashed by identity: what is computed from a finished record is kept
class CellRecord:
    """What one training run leaves."""

    about: dict[str, Any]
    """Task, contender, seed, settings, versions."""
    prompts: list[str]
    """Held-out prompts."""
    steps: list[int] = field(default_factory=list)
    """Evaluated steps, rising; the first is 0."""
    held_out: dict[tuple[int, str], Any] = field(default_factory=dict)
    """(prompt, criterion) -> value at each evaluated step, as a list or, once read, an array."""
    rollouts: list[tuple[int, int, str, list[float]]] = field(default_factory=list)
    """(step, group, channel, rewards) of the first training steps."""
    logged_steps: list[int] = field(default_factory=list)
    log: dict[str, list[float]] = field(default_factory=dict)
    """Metric -> value at each logged step."""
    samples: list[tuple[int, int, str]] = field(default_factory=list)
    """(step, prompt, answer)."""

    @property
    def cell(self) -> Cell:
        """The cell that was trained."""
        return cell_of(self.about)


def write_file(records: Iterable[CellRecord], file: Path) -> None:
    """Write cells; the file appears whole or not at all."""
    columns = [list(column) for column in zip(*(row for record in records for row in _rows(record)), strict=True)]
    arrays = [pa.array(column, type=kind) for column, kind in zip(columns, SCHEMA.types, strict=True)]
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(f".{os.getpid()}.part")
    table = pa.Table.from_arrays(arrays, schema=SCHEMA)
    pq.write_table(table, unfinished, compression="zstd", compression_level=19)
    unfinished.replace(file)


def write_cell(record: CellRecord, file: Path) -> None:
    """Write a single cell."""
    write_file([record], file)


def _rows(record: CellRecord) -> Iterator[Row]:
    yield "cell", -1, "", record.steps, json.dumps(record.about)
    unwritten = dict(enumerate(record.prompts))
    for (prompt, criterion), values in record.held_out.items():
        yield "heldout", prompt, criterion, values, unwritten.pop(prompt, None)
    for step, group, channel, values in record.rollouts:
        yield "rollouts", group, channel, values, str(step)
    yield "logged", -1, "", record.logged_steps, None
    for metric, values in record.log.items():
        yield "log", -1, metric, values, None
    for step, prompt, answer in record.samples:
        yield "sample", prompt, "", [step], answer


def read_file(file: Path) -> list[CellRecord]:
    """Read what `write_file` wrote. Raises ConfigError for a file that holds something else."""
    table = _table(file, schema=SCHEMA).unify_dictionaries().combine_chunks()
    if not len(table) or table["record"][0].as_py() != "cell":
        raise ConfigError(f"{file} holds no cell of a suite: it must begin with a row `cell`")
    kinds, prompts, names, lists, texts = (column.chunk(0) for column in table.columns)
    code, offsets, values = kinds.indices.to_numpy(), lists.offsets.to_numpy(), lists.values.to_numpy()
    prompt, name = prompts.to_numpy(), np.array(names.dictionary.to_pylist(), dtype=object)[names.indices.to_numpy()]
    is_first = np.append(True, (code[1:] != code[:-1]) | (code[1:] == code[0]))
    records: list[CellRecord] = []
    for start, stop in pairwise([*np.flatnonzero(is_first).tolist(), len(code)]):
        part, ends = slice(start, stop), offsets[start : stop + 1]
        block = _RowsOfKind(
            prompt[part].tolist(),
            name[part].tolist(),
            values[ends[0] : ends[-1]].astype(np.float64),
            (ends - ends[0]).tolist(),
            texts[part].to_pylist(),
        )
        if code[start] == code[0]:
            records.append(CellRecord(json.loads(block.texts[0]), [], steps=block.values.astype(int).tolist()))
        else:
            _add(records[-1], kinds[start].as_py(), block)
    return records


def read_cell(file: Path) -> CellRecord:
    """Read the single cell of a file."""
    (record,) = read_file(file)
    return record


class _RowsOfKind(NamedTuple):
    """Neighbouring rows of one kind."""

    prompts: list[int]
    names: list[str]
    values: Float[np.ndarray, " N"]
    """Of all rows; row i has `values[ends[i] : ends[i + 1]]`."""
    ends: list[int]
    texts: list[Any]

    @property
    def rows(self) -> list[list[float]]:
        """The values row by row."""
        values = self.values.tolist()
        return [values[low:high] for low, high in pairwise(self.ends)]


def _add(record: CellRecord, kind: str, block: _RowsOfKind) -> None:
    """Add rows of one kind to a record."""
    match kind:
        case "heldout":
            record.prompts += [text for text in block.texts if text is not None]
            keys = zip(block.prompts, block.names, strict=True)
            record.held_out = dict(zip(keys, block.values.reshape(len(block.names), -1), strict=True))
        case "rollouts":
            record.rollouts = list(zip(map(int, block.texts), block.prompts, block.names, block.rows, strict=True))
        case "logged":
            record.logged_steps = block.values.astype(int).tolist()
        case "log":
            record.log = dict(zip(block.names, block.rows, strict=True))
        case "sample":
            steps = block.values.astype(int).tolist()
            record.samples = list(zip(steps, block.prompts, block.texts, strict=True))


def _table(file: Path, **options: Any) -> pa.Table:
    try:
        return pq.read_table(file, **options)
    except (OSError, pa.ArrowException) as error:
        raise ConfigError(f"{file} holds no cell of a suite: {error}") from error


def about_cells(file: Path) -> list[dict[str, Any]]:
    """Return what a file says about each of its cells. Raises ConfigError for a file that holds something else."""
    texts = _table(file, columns=["text"], filters=[("record", "=", "cell")])["text"].to_pylist()
    return [json.loads(text) for text in texts]


def cell_of(about: dict[str, Any]) -> Cell:
    """Return the cell that is described."""
    return Cell(about["task"], about["contender"], about["seed"])
