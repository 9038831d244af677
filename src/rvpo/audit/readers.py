"""Logs as people have them: TRL completions, verl rollouts, and tables; each becomes rows, then groups.

    output/completions/completions_00010.parquet    TRL with log_completions=True, stock or rvpo's trainer
    rollouts/10.jsonl                               verl with trainer.rollout_data_dir
    traces.jsonl, results.jsonl                     verifiers, see `rvpo.audit.batches`
    anything.parquet, .csv, .tsv, .jsonl            a row per rollout, with a column that tells the prompt

Files are read a batch at a time, so they may be larger than memory. A folder of files is read in the order of the
numbers in their names.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float, Int

from rvpo.audit.batches import SUFFIXES, RowBatch, floats, head, read_batches
from rvpo.audit.columns import Columns, as_map, find_columns
from rvpo.audit.groups import ChannelNames, Groups, Rows, group_rows
from rvpo.core.zscores import STD_EPS, divide, group_statistics
from rvpo.errors import ConfigError
from rvpo.text import plural, shown, shown_names

__all__ = ["RewardLog", "open_log"]

TRL, VERL, TABLE = "TRL completions", "verl rollouts", "table"
TRL_FILE = re.compile(r"completions_(\d+)\.parquet")
VERL_FILE = re.compile(r"(\d+)\.jsonl")
VERL_UID = re.compile(r"(.+)_(\d+)_(\d+)")
"""Row of verl's v1 trainer: prompt, rollout, and output, of which a rollout may have several."""
NUMBER = re.compile(r"(\d+)")
FACTOR = 1_000_003
"""Odd, so that hashes times it stay different; products wrap around."""

Steps = tuple[float, float]


@dataclass(frozen=True)
class RewardLog:
    """A log that has been found and understood, not yet read."""

    path: Path
    kind: str
    files: tuple[Path, ...]
    columns: Columns
    steps: Steps | None = None
    """First and last training step to read; None: all."""

    def reading(self) -> list[str]:
        """Return how the log is read, as lines of text."""
        columns = self.columns
        rows = "consecutive rows of one" if self.kind == TRL else "rows of one"
        key = [shown(name) for name in (columns.group, *columns.task, columns.step) if name is not None]
        lines = [
            f"{self.kind}: {plural(len(self.files), 'file')}",
            f"rewards: {', '.join(map(shown, [*columns.plain, *columns.maps]))}",
            f"a group: {rows} {' and '.join(key)}",
        ]
        if columns.evaluation:
            lines.append(f"kept apart: rows of evaluations ({shown(columns.evaluation)} is true)")
        if columns.left_out:
            lines.append("left out: " + ", ".join(f"{shown(name)} ({why})" for name, why in columns.left_out.items()))
        if columns.advantage or columns.total:
            column = columns.advantage or f"{columns.total}, standardised in its group as GRPO does"
            lines.append(f"advantage that the run used: {column}")
        return lines

    def groups(self, names: ChannelNames) -> Iterator[Groups]:
        """Yield the log's groups; new channels of rubrics are added to `names`."""
        for block in group_rows(self._rows(), names, self.columns.maps, consecutive=self.kind == TRL):
            yield block if self.columns.advantage or not self.columns.total else _centred(block)

    def _rows(self) -> Iterator[Rows]:
        fingerprint = None
        for file in self.files:
            if self.kind != TABLE and not _within(_number_of(file), self.steps):
                continue
            batches = (_rows(batch, self.columns, self.kind) for batch in read_batches(file, self.columns.names()))
            if self.kind != TRL:
                yield from (self._of_steps(rows) for rows in batches)
                continue
            generation = list(batches)  # of one step, which TRL itself held in memory
            previous, fingerprint = fingerprint, _fingerprint(generation)
            if fingerprint != previous:  # with several updates per generation, TRL logs the same rollouts again
                yield from generation

    def _of_steps(self, rows: Rows) -> Rows:
        if self.steps is None or self.columns.step is None:
            return rows
        return rows.take((rows.step >= self.steps[0]) & (rows.step <= self.steps[1]))


def open_log(
    path: Path,
    *,
    group: str | None = None,
    step: str | None = None,
    rewards: Sequence[str] = (),
    steps: Steps | None = None,
) -> RewardLog:
    """Find out what a file or folder is and what its columns mean; see `rvpo.audit.columns`.

    Args:
        path: a TRL output folder or its `completions`, a verl rollout folder, a table, or a folder of tables.
        group, step, rewards: names of columns; guessed if they are not given.
        steps: first and last training step to read.

    Raises:
        ConfigError: nothing there that can be read, an unknown column, no reward, no group, no step to choose by.
    """
    kind, files = _find(path)
    together = _together([head(file) for file in dict.fromkeys((files[0], files[-1]))])
    if group is None and kind == VERL and "input" in together and not _is_verl_uid(together):
        group = "input"
    if group is None and kind == TRL and "prompt" in together:
        group = "prompt"
    columns = find_columns(together, group=group, step=step, rewards=rewards)
    if steps is not None and columns.step is None and kind == TABLE:
        raise ConfigError(f"to choose steps, name the column that holds them with --step: {shown_names(together, 20)}")
    return RewardLog(path, kind, files, columns, steps)


def _together(parts: Sequence[dict[str, list[Any]]]) -> dict[str, list[Any]]:
    """Return rows of several files below each other; a column that a file lacks has no values there."""
    sizes = [max(map(len, part.values()), default=0) for part in parts]
    names = dict.fromkeys(name for part in parts for name in part)
    return {
        name: [value for part, size in zip(parts, sizes, strict=True) for value in part.get(name, [None] * size)]
        for name in names
    }


def _centred(block: Groups) -> Groups:
    """Return groups whose logged total is the advantage that GRPO makes of it."""
    assert block.logged is not None
    missing = np.isnan(block.logged)
    present = (~missing).astype(np.float64)[..., None]
    total = np.where(missing, 0.0, block.logged)[..., None]
    deviations, _, std = group_statistics(total, present, present.sum(axis=1, keepdims=True), ddof=1)
    return replace(block, logged=divide(deviations, std + STD_EPS, std > 0)[..., 0])


def _is_verl_uid(columns: dict[str, list[Any]]) -> bool:
    return all(isinstance(uid, str) and VERL_UID.fullmatch(uid) for uid in columns.get("uid", [None]))


def _find(path: Path) -> tuple[str, tuple[Path, ...]]:
    """Return the kind of a log and its files in order."""
    if not path.exists():
        raise ConfigError(f"there is no file or folder {path}")
    if path.is_file():
        return TABLE, (path,)
    for folder in (path / "completions", path):
        if files := _matching(folder, TRL_FILE):
            return TRL, files
    if files := _matching(path, VERL_FILE):
        return VERL, files
    tables = [file for file in path.iterdir() if file.suffix in SUFFIXES]
    kinds = sorted({file.suffix for file in tables})
    if len(kinds) == 1:
        return TABLE, tuple(sorted(tables, key=_natural))
    content = f"tables of several kinds ({', '.join(kinds)})" if kinds else "no table"
    raise ConfigError(
        f"{path} holds {content}, and neither completions/completions_*.parquet (TRL) nor NUMBER.jsonl (verl); "
        "point at one file"
    )


def _matching(folder: Path, pattern: re.Pattern[str]) -> tuple[Path, ...]:
    if not folder.is_dir():
        return ()
    return tuple(sorted((file for file in folder.iterdir() if pattern.fullmatch(file.name)), key=_number_of))


def _number_of(file: Path) -> int:
    number = NUMBER.search(file.stem)
    return int(number[1]) if number else 0


def _natural(file: Path) -> list[tuple[bool, int, str]]:
    """Order part-2 before part-10."""
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in NUMBER.split(file.name)]


def _within(step: float, steps: Steps | None) -> bool:
    return steps is None or steps[0] <= step <= steps[1]


def _rows(batch: RowBatch, columns: Columns, kind: str) -> Rows:
    """Return a batch of a file as rows."""
    step = np.zeros(batch.size) if columns.step is None else np.nan_to_num(floats(batch, columns.step))
    plain = np.stack([floats(batch, name) for name in columns.plain], axis=1) if columns.plain else None
    assert columns.group is not None
    group = batch.column(columns.group)
    kept, key = _verl_keys(group) if kind == VERL and columns.group == "uid" else (None, _codes(group))
    for name in columns.task:
        key = key * FACTOR ^ _codes(batch.column(name))
    text, length = None, None
    if columns.text is not None:
        text, length = _texts(batch.column(columns.text))
    if columns.length is not None:
        length = floats(batch, columns.length)
    logged = None
    if columns.advantage is not None or columns.total is not None:
        logged = floats(batch, columns.advantage or columns.total or "")
    maps = _maps(batch, columns.maps) if columns.maps else None
    rows = Rows(step, key, np.empty((batch.size, 0)) if plain is None else plain, maps, text, length, logged)
    if columns.evaluation is not None:
        in_training = np.nan_to_num(floats(batch, columns.evaluation)) == 0
        kept = np.flatnonzero(in_training) if kept is None else kept[in_training[kept]]
    return rows if kept is None else rows.take(kept)


def _maps(batch: RowBatch, names: Sequence[str]) -> list[tuple[dict[str, float], ...]]:
    """Return columns of maps as a tuple of maps per row; an empty entry is an empty map."""
    parts = [_map_column(batch, name) for name in names]
    return list(zip(*parts, strict=True))


def _map_column(batch: RowBatch, name: str) -> list[dict[str, float]]:
    column = batch.column(name)
    values = column.to_pylist() if isinstance(column, pa.Array) else column
    # A parquet struct has every name in every row, and nothing where a prompt lacks the criterion.
    is_struct = isinstance(column, pa.StructArray)
    rows = []
    for index, value in enumerate(values):
        rewards = {} if value is None else as_map(value)
        if rewards is None:
            raise ConfigError(f"{batch.where(index)}: column {name!r} holds no map from names to rewards")
        try:
            row = {
                str(criterion): math.nan if reward is None else float(reward)
                for criterion, reward in rewards.items()
                if not (is_struct and reward is None)
            }
        except (TypeError, ValueError, OverflowError):
            raise ConfigError(f"{batch.where(index)}: column {name!r} holds a reward that is no number") from None
        if any(map(math.isinf, row.values())):
            raise ConfigError(f"{batch.where(index)}: column {name!r} holds an infinite reward")
        rows.append(row)
    return rows


def _is_text(column: Any) -> bool:
    return isinstance(column, pa.Array) and (pa.types.is_string(column.type) or pa.types.is_large_string(column.type))


def _codes(column: Any) -> Int[np.ndarray, " N"]:
    """Return a number for each entry, equal for equal entries."""
    if _is_text(column):
        encoded = column.dictionary_encode()
        codes = np.array([*map(hash, encoded.dictionary.to_pylist()), 0], dtype=np.int64)
        places = pc.fill_null(encoded.indices, len(codes) - 1)  # nulls are equal, too
        return np.asarray(codes[places.to_numpy(zero_copy_only=False)])
    if isinstance(column, pa.Array):
        if pa.types.is_integer(column.type) and not column.null_count:
            return np.asarray(column.cast(pa.int64()).to_numpy(zero_copy_only=False))
        column = column.to_pylist()
    return np.array([hash(entry if isinstance(entry, str) else repr(entry)) for entry in column], dtype=np.int64)


def _verl_keys(column: Any) -> tuple[Int[np.ndarray, " N"], Int[np.ndarray, " N"]]:
    """Return which rows of verl's v1 trainer to keep, the last output of each rollout, and all rows' prompts."""
    values = column.to_pylist() if isinstance(column, pa.Array) else column
    parts = [VERL_UID.fullmatch(str(uid)) for uid in values]
    keys = [(match[1], match[2]) if match else (str(uid), "") for match, uid in zip(parts, values, strict=True)]
    last = {key: index for index, key in enumerate(keys)}
    return np.array(sorted(last.values())), np.array([hash(prompt) for prompt, _ in keys], dtype=np.int64)


def _texts(column: Any) -> tuple[Int[np.ndarray, " N"], Float[np.ndarray, " N"]]:
    """Return a number for each answer, equal for equal answers, and its length in characters, NaN without answer."""
    if _is_text(column):
        codes = _codes(column)
        lengths = np.asarray(pc.utf8_length(column).cast(pa.float64()).to_numpy(zero_copy_only=False))
    else:
        answers = [_as_text(answer) for answer in (column.to_pylist() if isinstance(column, pa.Array) else column)]
        codes = _codes(answers)
        lengths = np.array([math.nan if answer is None else float(len(answer)) for answer in answers])
    return np.where(np.isnan(lengths), np.arange(len(codes)), codes), lengths  # a missing answer equals no other


def _as_text(answer: Any) -> str | None:
    """Return an answer as text; of a list of messages, their contents."""
    if answer is None or isinstance(answer, str):
        return answer
    if isinstance(answer, list):
        return "\n".join(str(part.get("content") if isinstance(part, dict) else part) for part in answer)
    return str(answer)


def _fingerprint(parts: Sequence[Rows]) -> int:
    """Return a hash of rollouts that does not depend on the step they are logged for."""
    texts = b"" if not parts or parts[0].text is None else b"".join(part.text.tobytes() for part in parts)  # type: ignore[union-attr]
    rewards = b"".join(part.plain.tobytes() for part in parts)
    return hash((texts, rewards, str([part.maps for part in parts])))
