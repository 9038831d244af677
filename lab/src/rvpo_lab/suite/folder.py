"""A suite's folder: its settings, a file for each cell as it is finished, and all of them in one file once packed.

    suite.json           the settings that all cells share, until it is packed
    cells/NAME.parquet   a finished cell
    cells.parquet        cells of a suite that was packed; each holds the settings, too

A cell is finished when it lies in a file, and files appear whole. So a suite that was killed goes on where it was,
and one that was packed takes further cells.
"""

import gc
import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rvpo.errors import ConfigError
from rvpo.files import write_whole
from rvpo_lab.suite.cell_file import CellRecord, about_cells, cell_of, read_file, write_file
from rvpo_lab.suite.plan import CONTENDERS, Cell
from rvpo_lab.tasks.catalog import TASKS

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    S = TypeVar("S", bound=DataclassInstance)

__all__ = ["cell_path", "finished", "is_suite", "keep_settings", "pack", "read_cells", "read_settings"]

SETTINGS_FILE = "suite.json"
CELLS = "cells"
PACKED = "cells.parquet"


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
