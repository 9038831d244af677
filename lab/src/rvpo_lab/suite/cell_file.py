"""A finished cell as one small parquet file: what was measured on held-out prompts, and what training logged.

Columns: `record`, `prompt` (index, -1 where it means nothing), `name`, `values` (list of float), `text`.

    record    name        values                                       text
    heldout   criterion   its value at each evaluated step             prompt
    rollouts  channel     rewards of one group, NaN for missing        the training step
    log       metric      its value at each logged step, NaN: absent
    sample    prompt      the evaluated step                           an answer

File metadata: cell, settings, evaluated and logged steps, versions.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["CellRecord", "read_cell", "write_cell"]

SCHEMA = pa.schema(
    [
        ("record", pa.dictionary(pa.int8(), pa.string())),
        ("prompt", pa.int16()),
        ("name", pa.dictionary(pa.int16(), pa.string())),
        ("values", pa.list_(pa.float32())),
        ("text", pa.string()),
    ]
)


@dataclass
class CellRecord:
    """What one training run leaves."""

    about: dict[str, Any]
    """Task, contender, seed, settings, versions."""
    prompts: list[str]
    """Held-out prompts."""
    steps: list[int] = field(default_factory=list)
    """Evaluated steps; the first is 0."""
    held_out: dict[tuple[int, str], list[float]] = field(default_factory=dict)
    """(prompt, criterion) -> value at each evaluated step."""
    rollouts: list[tuple[int, int, str, list[float]]] = field(default_factory=list)
    """(step, group, channel, rewards) of the first training steps."""
    logged_steps: list[int] = field(default_factory=list)
    log: dict[str, list[float]] = field(default_factory=dict)
    """Metric -> value at each logged step."""
    samples: list[tuple[int, int, str]] = field(default_factory=list)
    """(step, prompt, answer)."""


def write_cell(cell: CellRecord, file: Path) -> None:
    """Write a cell; the file appears whole or not at all."""
    table: list[tuple[str, int, str, Sequence[float], str | None]] = []
    told: set[int] = set()
    for (prompt, criterion), values in cell.held_out.items():
        table.append(("heldout", prompt, criterion, values, None if prompt in told else cell.prompts[prompt]))
        told.add(prompt)
    table += [("rollouts", group, channel, values, str(step)) for step, group, channel, values in cell.rollouts]
    table += [("log", -1, metric, values, None) for metric, values in cell.log.items()]
    table += [("sample", prompt, "", [step], answer) for step, prompt, answer in cell.samples]
    metadata = {"about": cell.about, "steps": cell.steps, "logged_steps": cell.logged_steps}
    schema = SCHEMA.with_metadata({"rvpo": json.dumps(metadata)})
    columns = [list(column) for column in zip(*table, strict=True)]
    arrays = [pa.array(column, type=one.type) for column, one in zip(columns, SCHEMA, strict=True)]
    unfinished = file.with_suffix(f".{os.getpid()}.part")
    pq.write_table(pa.Table.from_arrays(arrays, schema=schema), unfinished, compression="zstd", compression_level=19)
    unfinished.replace(file)


def read_cell(file: Path) -> CellRecord:
    """Read what `write_cell` wrote."""
    table = pq.read_table(file)
    metadata = json.loads(table.schema.metadata[b"rvpo"])
    cell = CellRecord(metadata["about"], [], steps=metadata["steps"], logged_steps=metadata["logged_steps"])
    for row in table.to_pylist():
        match row["record"]:
            case "heldout":
                if row["text"] is not None:
                    cell.prompts.append(row["text"])
                cell.held_out[row["prompt"], row["name"]] = row["values"]
            case "rollouts":
                cell.rollouts.append((int(row["text"]), row["prompt"], row["name"], row["values"]))
            case "log":
                cell.log[row["name"]] = row["values"]
            case "sample":
                cell.samples.append((int(row["values"][0]), row["prompt"], row["text"]))
    return cell
