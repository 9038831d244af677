"""A suite's folder: its settings, a file for each cell as it is finished, and all of them in one file once packed.

    suite.json           the settings that all cells share, until it is packed
    cells/NAME.parquet   a finished cell
    cells.parquet        cells of a suite that was packed; each holds the settings, too

A cell is finished when it lies in a file, and files appear whole. So a suite that was killed goes on where it was,
and one that was packed takes further cells.

A file says what was measured on held-out prompts, and what training logged. It holds one cell or many, one after the
other; each begins with its row `cell`. Columns: `record`, `prompt` (index, -1 where it means nothing), `name`,
`values` (list of float), `text`.

    record    name        values                                       text
    cell                  evaluated steps                              JSON: task, contender, seed, settings, versions
    heldout   criterion   its value at each evaluated step             prompt, once for each
    rollouts  channel     rewards of one group, NaN for missing        the training step
    log       metric      its value at each logged step, NaN: absent
    logged                logged steps
    sample                the evaluated step                           an answer
"""

import gc
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float

from rvpo.errors import ConfigError
from rvpo.files import write_whole
from rvpo_lab.suite.plan import CONTENDERS, Cell
from rvpo_lab.tasks.catalog import TASKS

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    S = TypeVar("S", bound=DataclassInstance)

__all__ = [
    "CellRecord",
    "about_cells",
    "cell_of",
    "cell_path",
    "finished",
    "is_suite",
    "keep_settings",
    "pack",
    "read_cell",
    "read_cells",
    "read_file",
    "read_settings",
    "write_cell",
    "write_file",
]

SETTINGS_FILE = "suite.json"
CELLS = "cells"
PACKED = "cells.parquet"
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


def cell_path(folder: Path, cell: Cell) -> Path:
    """Return the file that a cell is written to."""
    return folder / CELLS / f"{cell.name}.parquet"


def _files(folder: Path) -> list[Path]:
    """Return the files that hold cells, the packed one first."""
    return [file for file in (folder / PACKED, *sorted((folder / CELLS).glob("*.parquet"))) if file.is_file()]


def finished(folder: Path) -> set[str]:
    """Return the names of the finished cells."""
    packed, *others = folder / PACKED, *(folder / CELLS).glob("*.parquet")
    names = {cell_of(about).name for about in about_cells(packed)} if packed.is_file() else set()
    return names | {file.stem for file in others}


def read_cells(folder: Path, cells: Sequence[Cell] = ()) -> list[CellRecord]:
    """Return the finished cells of a folder, all or those asked for, as tasks and contenders are listed.

    Unknown tasks and contenders come last. Raises ConfigError if there are none.
    """
    wanted = {cell.name for cell in cells}
    was_collecting = gc.isenabled()
    gc.disable()  # millions of small objects that all stay: looking for garbage among them doubles the time
    try:
        records = {record.cell.name: record for file in _files(folder) for record in read_file(file)}
    finally:
        if was_collecting:
            gc.enable()
    chosen = [record for name, record in records.items() if not wanted or name in wanted]
    if not chosen:
        raise ConfigError(f"there are no finished cells in {folder}; run `rvpo bench neglect --out {folder}`")
    places = [{name: place for place, name in enumerate(names)} for names in (TASKS, CONTENDERS)]

    def place(record: CellRecord) -> tuple[int, int, int]:
        ranks = (places[0].get(record.cell.task, len(TASKS)), places[1].get(record.cell.contender, len(CONTENDERS)))
        return (*ranks, record.cell.seed)

    return sorted(chosen, key=place)


def pack(folder: Path) -> Path:
    """Join all finished cells in one file, the folder's only one; return it. Raises ConfigError if there are none."""
    records, files = read_cells(folder), _files(folder)
    write_file(records, folder / PACKED)
    for file in (*files, folder / SETTINGS_FILE):
        if file.name != PACKED:
            file.unlink(missing_ok=True)
    if (folder / CELLS).is_dir() and not any((folder / CELLS).iterdir()):
        (folder / CELLS).rmdir()
    return folder / PACKED


def is_suite(folder: Path) -> bool:
    """Return whether a folder holds a suite."""
    return (folder / SETTINGS_FILE).is_file() or (folder / PACKED).is_file()


def read_settings(folder: Path, kind: "type[S]") -> "S":
    """Return the settings of a suite; those that did not exist when it was made had today's defaults.

    Raises ConfigError for settings that this version does not know.
    """
    file = folder / SETTINGS_FILE
    kept = json.loads(file.read_text()) if file.is_file() else about_cells(folder / PACKED)[-1]["settings"]
    if unknown := sorted(kept.keys() - {field.name for field in fields(kind)}):
        raise ConfigError(f"{folder} has settings that this version does not know: {unknown}")
    return kind(**kept)


def keep_settings(folder: Path, settings: "DataclassInstance") -> None:
    """Write the settings into a new suite's folder; ConfigError for cells of other settings, or no folder."""
    wanted = asdict(settings)
    if is_suite(folder):
        kept = asdict(read_settings(folder, type(settings)))
        different = [
            f"{name} {kept[name]} there and {value} now" for name, value in wanted.items() if kept[name] != value
        ]
        if different:
            raise ConfigError(
                f"{folder} holds cells of other settings ({', '.join(different)}); choose another folder with --out"
            )
        return
    write_whole(folder / SETTINGS_FILE, json.dumps(wanted, indent=2) + "\n")
