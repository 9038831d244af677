"""Rows of a file, a batch at a time: parquet, csv, tsv, jsonl. What cannot be read is one `ConfigError`.

No file is held in memory as a whole: csv comes in blocks, jsonl line by line, parquet by row group, of which arrow
holds the compressed bytes.

Saved rollouts of verifiers (PrimeIntellect-ai/verifiers) are flattened to rows that all readers understand:

    traces.jsonl    today's: an episode a line, {env, task, group, run, traces: [{rewards, nodes, ...}]}
    results.jsonl   earlier: a rollout a line, {example_id, prompt, completion, reward, metrics, timing, ...}

Named rewards become channels, as they were scored, before their weights; their weighted sum is the column `reward`,
what the run maximised (a reward that is None is missing as a channel and left out of that sum, as verifiers leaves it
out). Metrics of a trace are watched, not rewarded, and left out. Layouts read in verifiers 0.4.0
(v1/episode.py, v1/trace.py) and in its repository at 00d8320 (utils/save_utils.py).
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from jaxtyping import Float

from rvpo.errors import ConfigError, reason
from rvpo.text import listed, shown

__all__ = ["SUFFIXES", "RowBatch", "as_floats", "flattened", "floats", "head", "read_batches"]

SUFFIXES = (".parquet", ".csv", ".tsv", ".jsonl", ".ndjson")
BATCH_ROWS = 2**13
HEAD_ROWS = 512
"""Rows from which the meaning of the columns is guessed."""
CSV_BLOCK = 2**23
"""Bytes of csv parsed at once; a line cannot be longer."""
NO_VALUE = ["", "nan", "NaN", "NAN", "null", "None", "NA", "N/A"]
BOOLEANS = {"True": 1.0, "true": 1.0, "False": 0.0, "false": 0.0}


class RowBatch(NamedTuple):
    """Some rows of one file."""

    columns: dict[str, Any]
    """Column -> arrow array or list, one entry a row; None or NaN is no value."""
    size: int
    file: Path
    numbers: Sequence[int]
    """Number of each row in the file, from 1; the header of a csv does not count, an empty line of jsonl does."""

    def where(self, index: int) -> str:
        """Return how an error names a row."""
        return f"{self.file.name}, row {self.numbers[index]}"

    def column(self, name: str) -> Any:
        """Return a column; one that this file lacks has no values."""
        return self.columns.get(name, [None] * self.size)


def head(file: Path) -> dict[str, list[Any]]:
    """Return the first rows of a file, all columns, as lists. Raises ConfigError for a file without rows."""
    for batch in read_batches(file, None, rows=HEAD_ROWS):
        columns = {name: _as_list(column) for name, column in batch.columns.items()}
        if file.suffix in (".csv", ".tsv"):  # where everything is text
            columns = {name: _numbers_in(column) for name, column in columns.items()}
        return columns
    raise ConfigError(f"{file} has no rows")


def read_batches(file: Path, names: Sequence[str] | None, *, rows: int = BATCH_ROWS) -> Iterator[RowBatch]:
    """Yield the named columns of a file that it has (None: all), `rows` rows at a time.

    Raises ConfigError for a missing, empty, truncated or malformed file, and for a suffix that is not known.
    """
    if file.suffix not in SUFFIXES:
        raise ConfigError(f"{file} is none of {', '.join(SUFFIXES)}; convert it, or point at a folder of such files")
    with _readable(file):
        if not file.stat().st_size:
            raise ConfigError(f"{file} is empty")
        if file.suffix == ".parquet":
            yield from _parquet(file, names, rows)
        elif file.suffix in (".csv", ".tsv"):
            yield from _csv(file, names, rows)
        else:
            yield from _jsonl(file, names, rows)


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    """Turn what goes wrong while a file is read into a ConfigError."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError, RecursionError) as error:
        hint = "; was it written to its end?" if file.suffix == ".parquet" else ""
        raise ConfigError(f"{file} cannot be read as {file.suffix[1:]}: {shown(reason(error), 200)}{hint}") from error


def _parquet(file: Path, names: Sequence[str] | None, rows: int) -> Iterator[RowBatch]:
    first = 1
    with pq.ParquetFile(file, buffer_size=2**20) as table:
        known = _distinct(table.schema_arrow.names, file)
        wanted = known if names is None else [name for name in names if name in known]
        for batch in _of_equal_size(table, wanted, rows):
            numbers = range(first, first + batch.num_rows)
            yield RowBatch(dict(zip(batch.schema.names, batch.columns, strict=True)), batch.num_rows, file, numbers)
            first = numbers.stop


def _of_equal_size(table: pq.ParquetFile, names: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
    """Yield `rows` rows at a time, whatever the row groups, which are read one by one.

    One reader over all row groups keeps the compressed bytes of those that it has read: in the end the whole file.
    """
    waiting: list[pa.RecordBatch] = []
    missing = rows
    for group in range(table.num_row_groups):
        for part in table.iter_batches(batch_size=rows, columns=names, use_threads=False, row_groups=[group]):
            while part.num_rows >= missing:
                yield _joined([*waiting, part.slice(0, missing)])
                part, waiting, missing = part.slice(missing), [], rows
            if part.num_rows:
                waiting.append(part)
                missing -= part.num_rows
    if waiting:
        yield _joined(waiting)


def _joined(parts: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    return parts[0] if len(parts) == 1 else pa.Table.from_batches(parts).combine_chunks().to_batches()[0]


def _distinct(names: list[str], file: Path) -> list[str]:
    """Return the names of a file's columns; raise ConfigError for two of one name, of which only one would be read."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"{file.name} has several columns of the name {listed(twice)}; rename them")
    return names


def _csv(file: Path, names: Sequence[str] | None, rows: int) -> Iterator[RowBatch]:
    parse = pa_csv.ParseOptions(delimiter="\t" if file.suffix == ".tsv" else ",", newlines_in_values=True)
    read = pa_csv.ReadOptions(block_size=CSV_BLOCK, use_threads=False)
    with pa_csv.open_csv(file, read_options=read, parse_options=parse) as table:
        known = _distinct(table.schema.names, file)
    wanted = known if names is None else [name for name in names if name in known]
    convert = pa_csv.ConvertOptions(
        column_types={name: pa.string() for name in known},  # guessed types would change with what comes first
        include_columns=wanted,
        null_values=NO_VALUE,
        strings_can_be_null=True,
    )
    first = 1
    with pa_csv.open_csv(file, read_options=read, parse_options=parse, convert_options=convert) as table:
        for block in table:
            for start in range(0, block.num_rows, rows):
                part = block.slice(start, rows)
                numbers = range(first, first + part.num_rows)
                yield RowBatch(dict(zip(wanted, part.columns, strict=True)), part.num_rows, file, numbers)
                first = numbers.stop


def _jsonl(file: Path, names: Sequence[str] | None, rows: int) -> Iterator[RowBatch]:
    with file.open(encoding="utf-8-sig") as lines:
        numbered = enumerate(lines, 1)
        while chunk := list(islice(numbered, rows)):
            objects = [
                (number, row)
                for number, line in chunk
                if not line.isspace()
                for row in _rollouts(_object(line, file, number), file, number)
            ]
            wanted = dict.fromkeys(name for _, row in objects for name in row) if names is None else names
            if objects:
                columns = {name: [row.get(name) for _, row in objects] for name in wanted}
                yield RowBatch(columns, len(objects), file, [number for number, _ in objects])


def _rollouts(row: dict[str, Any], file: Path, number: int) -> list[Mapping[str, Any]]:
    """Return the rollouts of a line: one, but for the episodes of verifiers."""
    try:
        return flattened(row)
    except (AttributeError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{file.name}, line {number} looks like an episode of verifiers and cannot be read as one: {error!r}"
        ) from error


def _object(line: str, file: Path, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ConfigError(f"{file.name}, line {number} is not JSON: {error}") from error
    if not isinstance(row, dict):
        raise ConfigError(f"{file.name}, line {number} holds {_cut(row)}; every line must be a JSON object")
    return row


def floats(batch: RowBatch, name: str) -> Float[np.ndarray, " N"]:
    """Return a column as floats, NaN for no value; true and false are 1 and 0.

    Raises ConfigError naming the first row that holds anything else, or an infinite number.
    """
    column = batch.column(name)
    numbers = as_floats(column)
    if numbers is None:
        entries = _as_list(column)
        index = next(index for index, entry in enumerate(entries) if _number(entry) is None)
        raise ConfigError(
            f"{batch.where(index)}: column {name!r} holds {_cut(entries[index])}; write numbers, or nothing for "
            "'no value'"
        )
    if np.isinf(numbers).any():
        index = int(np.flatnonzero(np.isinf(numbers))[0])
        raise ConfigError(f"{batch.where(index)}: column {name!r} is infinite; write nothing for 'no value'")
    return numbers


def as_floats(column: Any) -> Float[np.ndarray, " N"] | None:
    """Return a column (an arrow array or a list) as floats, NaN for no value; None if some entry is no number."""
    try:
        if isinstance(column, pa.Array):
            if pa.types.is_boolean(column.type):
                column = column.cast(pa.int8())
            return np.asarray(column.cast(pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)
        values = np.array(column, dtype=np.float64)
        return values if values.ndim == 1 else None
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        numbers = [_number(value) for value in _as_list(column)]
        return None if None in numbers else np.array(numbers, dtype=np.float64)


def _number(value: Any) -> float | None:
    """Return one entry as a float, NaN for no value, None for what is no number."""
    try:
        if value is None or value in NO_VALUE:
            return math.nan
        return BOOLEANS[value] if value in BOOLEANS else float(value)
    except (TypeError, ValueError, OverflowError):  # TypeError also for what cannot be looked up
        return None


def _numbers_in(column: list[Any]) -> list[Any]:
    """Return a column of texts with its numbers as floats, if at least half of its entries are numbers."""
    values = [_number(text) for text in column]
    if sum(value is None for value in values) * 2 > sum(text is not None for text in column):
        return column
    numbers = zip(column, values, strict=True)
    return [text if value is None else None if math.isnan(value) else value for text, value in numbers]


def _as_list(column: Any) -> list[Any]:
    if isinstance(column, pa.Array) and pa.types.is_decimal(column.type):
        column = column.cast(pa.float64())
    return column.to_pylist() if isinstance(column, pa.Array) else list(column)


def _cut(value: Any) -> str:
    """Return a value as Python writes it, cut to 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


EPISODE = {"env", "task", "traces"}
RESULT = {"example_id", "completion", "reward", "metrics", "timing"}
OWN = ("group", "completion", "reward", "step", "evaluation")
"""Columns of a flat row that are not named by the environment."""


def flattened(row: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the rollouts of a line of either file as flat rows, any other row as it is.

    An episode has a row for every trace whose agent is trained. Rows share a group if they are of one agent and of the
    group that the trainer gave, or without one of the same task. Raises AttributeError, KeyError or TypeError for a
    line that looks like one of verifiers and is not.
    """
    if row.keys() >= EPISODE and isinstance(row["traces"], list):
        return [_of_trace(row, trace) for trace in row["traces"] if trace.get("agent", {}).get("trainable", True)]
    if row.keys() >= RESULT and isinstance(row["metrics"], Mapping):
        group = json.dumps([row.get("task"), row["example_id"]])
        return [_named(row["metrics"]) | {"group": group, "completion": row["completion"], "reward": row["reward"]}]
    return [row]


def _named(scores: Mapping[str, Any]) -> dict[str, Any]:
    """Return scores by names that no column of ours has."""
    return {f"{name} (named)" if name in OWN else name: score for name, score in scores.items()}


def _of_trace(episode: Mapping[str, Any], trace: Mapping[str, Any]) -> dict[str, Any]:
    task, work = episode["task"], (episode.get("run") or {}).get("work") or {}
    group = (episode.get("group") or {}).get("id") or task.get("key") or task.get("hash")
    known = {name: reward for name, reward in trace.get("rewards", {}).items() if reward is not None}
    total = math.fsum(reward["score"] * reward.get("weight", 1.0) for reward in known.values())
    row = _named({name: reward["score"] for name, reward in known.items()}) | {
        "group": f"{trace.get('agent', {}).get('name')}: {group or json.dumps(task.get('data'), sort_keys=True)}",
        "completion": _reply(trace),
        "reward": total if known else None,
    }
    return row | ({"step": work["step"], "evaluation": work.get("type") == "eval"} if "step" in work else {})


def _reply(trace: Mapping[str, Any]) -> str | None:
    """Return what the policy said, over all turns; None if nothing was sampled."""
    nodes: Sequence[Mapping[str, Any]] = trace.get("nodes", [])
    contents = [node["message"].get("content") for node in nodes if node.get("sampled")]
    return "\n".join(text if isinstance(text, str) else json.dumps(text) for text in contents) if contents else None
