"""`load_rubric_rows`: any rubric data set as canonical rows, with counts of what its raw rows lacked."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rvpo.data.formats import (
    POLARITY_RULES,
    default_rule,
    healthbench_rubrics,
    read_healthbench,
    read_instructions,
    read_plain,
    read_professional,
    read_rar,
    read_researchrubrics,
    read_rubrichub,
)
from rvpo.data.rows import Draft, Message, Place, RawRow, RubricRow, raw_rows
from rvpo.errors import ConfigError, unknown_name
from rvpo.judging.criteria import Rubric

__all__ = ["FORMATS", "LoadedRows", "guess_format", "load_rubric_rows"]

Reader = Callable[[Mapping[str, Any], Place], Draft]

READERS: dict[str, Reader] = {
    "healthbench": read_healthbench,
    "healthbench_professional": read_professional,
    "ifbench": read_instructions,
    "rubrichub": read_rubrichub,
    "researchrubrics": read_researchrubrics,
    "plain": read_plain,
}
"""All but RaR, whose reader has an option."""
FORMATS = ("rar", *READERS)

HASHED = 16
"""Hexadecimal digits of the prompt's hash in an id: no collision to be feared below 100 million prompts."""


@dataclass(frozen=True)
class LoadedRows:
    """Canonical rows, and counts of what the raw ones lacked: counts of rows unless they say otherwise."""

    rows: list[RubricRow]
    """In the order of the data set, without those dropped."""
    format: str
    """The format that they were read as."""
    read: int
    """Raw rows read: kept and dropped."""
    without_prompt: int
    """Dropped: no prompt, or a blank one."""
    without_rubric: int
    """Dropped: a prompt, but no criterion."""
    duplicates: int
    """Kept: the prompt occurred before in these rows."""
    empty_references: int
    """Kept: no reference, or a blank one; `reference` is None."""
    unreadable_categories: int
    """Criteria of RaR whose category could not be read; without a tag, with the weight that the row gives."""
    undecided_polarities: int
    """Pitfalls of RaR whose wording was to tell the polarity and does not; being met counts as bad."""

    @property
    def dropped(self) -> int:
        """Raw rows that are not among the rows."""
        return self.without_prompt + self.without_rubric


def load_rubric_rows(
    name: str,
    *,
    format: str | None = None,
    split: str = "train",
    polarity: str | None = None,
    limit: int | None = None,
) -> LoadedRows:
    """Return the rows of a rubric data set in canonical form (`RubricRow`).

    Args:
        name: hub name, saved folder, or local .jsonl, .json, .csv or .parquet file.
        format: one of FORMATS; None: guessed from the columns.
        split: which part of a hub name or folder; a local file is one split.
        polarity: for RaR, how pitfalls are worded (one of POLARITY_RULES); None: `default_rule` of the name.
        limit: read at most so many raw rows.

    Raises:
        ConfigError: the data set cannot be read, none of its rows can be used, its format cannot be guessed, a
            value is of the wrong type, an id occurs twice, or an option does not fit.
    """
    if format is not None and format not in FORMATS:
        raise unknown_name("format", format, FORMATS)
    if polarity is not None and polarity not in POLARITY_RULES:
        raise unknown_name("polarity", polarity, POLARITY_RULES)
    raw = raw_rows(name, split, limit)
    format = format or guess_format(name, [row for _, row in raw])
    if polarity is not None and format != "rar":
        raise ConfigError(f"polarity is an option of the format rar, but {name} is {format}; leave it out")
    rule: Any = polarity or default_rule(name)
    reader = partial(read_rar, rule=rule) if format == "rar" else READERS[format]
    return _assembled(name, format, raw, [reader(row, place) for place, row in raw])


def guess_format(name: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the format whose columns and criterion keys the first row with a rubric has.

    Raises ConfigError, naming the columns of the first row, if no row fits any format.
    """
    for row in rows:
        columns = row.keys()
        if columns >= {"question", "rubric"} and _keys_of_first(row["rubric"]) >= {"description", "weight"}:
            return "rar"
        if columns >= {"prompt", "instruction_id_list", "kwargs"}:
            return "ifbench"
        if columns >= {"conversation", "rubric_items"}:
            return "healthbench_professional"
        if "prompt" in columns and ("Rubrics" in columns or _has_tags_of_rubrichub(row)):
            return "rubrichub"
        if "prompt" in columns and _keys_of_first(healthbench_rubrics(row)) >= {"criterion", "points"}:
            return "healthbench"
        if columns >= {"prompt", "rubrics"} and _keys_of_first(row["rubrics"]) >= {"criterion", "weight"}:
            return "researchrubrics"
        if columns >= {"prompt", "rubric"}:
            return "plain"
    raise ConfigError(
        f"cannot guess the format of {name} from its columns {sorted(map(str, rows[0]))}; expected prompt and rubric "
        f"(plain), question and rubric (rar), or prompt and rubrics; give one of {', '.join(FORMATS)} as the format"
    )


def _has_tags_of_rubrichub(row: Mapping[str, Any]) -> bool:
    """Tell whether a row's criteria name their verifier in an object, where HealthBench has a list of tags."""
    items = healthbench_rubrics(row)
    first = items[0] if isinstance(items, list) and items else None
    return isinstance(first, Mapping) and isinstance(first.get("tags"), Mapping)


def _keys_of_first(items: object) -> set[str]:
    """Return the keys of a list's first object, none if it is something else."""
    return set(items[0]) if isinstance(items, list) and items and isinstance(items[0], Mapping) else set()


def _assembled(name: str, format: str, raw: Sequence[RawRow], drafts: Sequence[Draft]) -> LoadedRows:
    """Return the drafts as rows, each with an id, and the counts."""
    source = Path(name).name if Path(name).exists() else name  # a file's folder says nothing about its rows
    kept = [(place, draft) for (place, _), draft in zip(raw, drafts, strict=True) if draft.prompt and draft.criteria]
    if not kept:
        columns = sorted(map(str, raw[0][1]))
        raise ConfigError(
            f"none of the {len(raw)} rows of {name} has a prompt and a rubric, read as {format}; their columns are "
            f"{columns}; give another format"
        )
    rows = [_row(draft, row_id, source, place) for (place, draft), row_id in zip(kept, _ids(kept), strict=True)]
    return LoadedRows(
        rows=rows,
        format=format,
        read=len(drafts),
        without_prompt=sum(not draft.prompt for draft in drafts),
        without_rubric=sum(bool(draft.prompt) and not draft.criteria for draft in drafts),
        duplicates=len(kept) - len({_digest(draft.prompt) for _, draft in kept}),
        empty_references=sum(row["reference"] is None for row in rows),
        unreadable_categories=sum(draft.unreadable_categories for _, draft in kept),
        undecided_polarities=sum(draft.undecided_polarities for _, draft in kept),
    )


def _ids(kept: Sequence[tuple[Place, Draft]]) -> list[str]:
    """Return the ids that the rows have, or a hash of the prompt, with a number where the prompt occurs again."""
    times: Counter[str] = Counter()
    place_of: dict[str, Place] = {}
    for place, draft in kept:
        digest = _digest(draft.prompt)
        times[digest] += 1
        row_id = draft.id or (digest if times[digest] == 1 else f"{digest}-{times[digest]}")
        if row_id in place_of:
            other = place_of[row_id]
            raise ConfigError(f"{place}, key 'id': must be unique, but {row_id!r} is the id of {other} as well")
        place_of[row_id] = place
    return list(place_of)


def _row(draft: Draft, row_id: str, source: str, place: Place) -> RubricRow:
    try:
        rubric = Rubric(draft.criteria)
    except ConfigError as error:
        raise ConfigError(f"{place}, key 'rubric': {error}") from error
    return RubricRow(
        id=row_id,
        prompt=draft.prompt,
        rubric=rubric.to_rows(),
        reference=draft.reference,
        source=draft.source or source,
        tags=list(draft.tags),
    )


def _digest(prompt: Sequence[Message]) -> str:
    """Return a hash of a prompt: the same in every split, so that rows which two splits share can be found."""
    text = json.dumps([[message["role"], message["content"]] for message in prompt])
    return hashlib.sha256(text.encode()).hexdigest()[:HASHED]
