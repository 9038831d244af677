"""What the columns of a log mean: rewards, group, step, text, length, advantage; guessed from names and first rows."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from rvpo.audit.batches import as_floats
from rvpo.errors import ConfigError, unknown_name
from rvpo.text import shown, shown_names

__all__ = ["Columns", "as_map", "find_columns"]

STEP = ("step", "global_step", "train_step", "iteration")
GROUP = ("group", "group_id", "prompt_id", "uid", "prompt", "input", "question", "query", "instruction", "problem")
TEXT = ("completion", "output", "response", "generation", "text")
ADVANTAGE = ("advantage", "advantages")
TOTAL = ("score", "reward", "rewards", "total", "total_reward", "reward_total", "total_score")
TRUTH = ("gts", "gt", "ground_truth", "answer", "label", "target", "solution")
RUBRIC = ("rubric", "rubrics", "criteria", "reference", "reference_answer", "reward_model")
PROMPTS = ("prompt", "input", "question", "query", "instruction", "problem")
"""Columns of a group that hold the prompt itself: equal ones may be tasks with another ground truth or rubric."""
EVALUATION = "evaluation"
"""Column of rvpo's trainer: the row was generated to evaluate the policy, not to train it."""
MAPS = "/channels"
"""What rvpo's trainer appends to the name of a reward for its column of name -> value maps."""

NAMED_REWARD = re.compile(r"reward|penalty|bonus|score", re.IGNORECASE)
LENGTH = re.compile(
    r"(num_|n_)?((prompt|completion|response|output|input|answer|generation|text|total)_)*"
    r"(len|length|lengths|tokens|chars|words)(_count)?",
    re.IGNORECASE,
)
NO_REWARD = {
    "an id or a counter": re.compile(
        r"(^|_)(id|ids|uid|uuid|idx|index|seed|rank|epoch|time|timestamp|turns|step|row)(_|$)", re.IGNORECASE
    ),
    "metadata": re.compile(r"(^|_)(info|meta|metadata)$", re.IGNORECASE),
    "a likelihood": re.compile(r"log_?probs?|entropy|perplexity|(^|_)kl(_|$)", re.IGNORECASE),
}
NUMBER_AS_TEXT = re.compile(r"-?\d+\.\d*(e[+-]?\d+)?|nan|True|False")
"""How verl writes NumPy's numbers; a whole number as text may as well be an answer."""
LEAST_ROWS = 8
"""Rows that must agree before a column counts as the sum or mean of others."""
RELATIVE, ABSOLUTE = 1e-5, 1e-7
"""By how much such a column may differ from the sum or mean: the rounding of rewards logged as float32."""


@dataclass(frozen=True)
class Columns:
    """The columns of a log that an audit reads."""

    plain: tuple[str, ...]
    """Rewards, one number a row."""
    maps: tuple[str, ...] = ()
    """Rewards as name -> value maps or lists, a rubric of its own for every prompt."""
    group: str | None = None
    step: str | None = None
    text: str | None = None
    length: str | None = None
    advantage: str | None = None
    total: str | None = None
    """A column that adds up the rewards: what the run maximised, as verl's score."""
    task: tuple[str, ...] = ()
    """Ground truth and rubric, by which equal prompts are different groups."""
    evaluation: str | None = None
    """Tells the rows that are kept apart: those of an evaluation."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Numeric column that is no reward -> why."""

    def names(self) -> list[str]:
        """Return all columns to read."""
        single = (self.group, self.step, self.text, self.length, self.advantage, self.total, self.evaluation)
        return list(
            dict.fromkeys([*self.plain, *self.maps, *self.task, *(name for name in single if name is not None)])
        )


def as_map(value: Any) -> Mapping[str, Any] | None:
    """Return an entry of a column of maps as name -> value; None for anything else. A list's names are 1, 2, ..."""
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.startswith(("{", "[")) else None
        except ValueError:
            return None
    if isinstance(value, list):
        is_arrow_map = all(isinstance(item, tuple) for item in value)
        return dict(value) if is_arrow_map else {str(index): item for index, item in enumerate(value, 1)}
    return value if isinstance(value, Mapping) else None


def find_columns(
    head: Mapping[str, Sequence[Any]],
    *,
    group: str | None = None,
    step: str | None = None,
    rewards: Sequence[str] = (),
) -> Columns:
    """Return what the columns mean, from the first rows of a log; columns that the arguments name are taken as named.

    Without `rewards` every column of numbers or of name -> number maps is a reward, except:

    - by name: step, group, advantage, ids and counters, lengths, likelihoods, the ground truth (names with "reward",
      "penalty", "bonus" or "score" in them are rewards all the same);
    - totals: "score", "reward", "total" and the like beside other rewards, a column that equals the sum or the mean of
      two or more neighbouring columns, and a column X beside X/channels.

    Raises:
        ConfigError: a named column that does not exist (with the nearest name), no reward, no group column.
    """
    for name in (*rewards, group, step):
        if name is not None and name not in head:
            raise unknown_name("column", name, map(shown, head))
    group, step = group or _first(GROUP, head), step or _first(STEP, head)
    text, advantage = _first(TEXT, head), _first(ADVANTAGE, head)
    evaluation = EVALUATION if _is_boolean(head.get(EVALUATION, ())) and EVALUATION not in rewards else None
    taken = {group, step, text, advantage, evaluation}
    left_out: dict[str, str] = {}
    if rewards:
        chosen = list(rewards)
    else:
        kinds = {name: _kind(head[name]) for name in head if name not in taken}
        chosen, left_out = _choose([name for name, kind in kinds.items() if kind in ("numbers", "maps")], head)
        mixed = [name for name, kind in kinds.items() if kind == "mixed" and name not in TRUTH]
        broken = [name for name in mixed if not chosen or NAMED_REWARD.search(name)]
        chosen += broken  # reading them names the row that is wrong
        left_out |= {name: "numbers and other things" for name in mixed if name not in broken}
        left_out |= {name: "no value in the first rows" for name, kind in kinds.items() if kind == "empty"}
    total = next((name for name, why in left_out.items() if why == "their total" and name in TOTAL), None)
    lengths = [name for name in head if LENGTH.fullmatch(name) and name not in chosen and _numeric(head[name])]
    _check(chosen, group, head)
    return Columns(
        plain=tuple(name for name in chosen if not _maps(head[name])),
        maps=tuple(name for name in chosen if _maps(head[name])),
        group=group,
        step=step,
        text=text,
        length=lengths[0] if lengths else None,
        advantage=advantage if advantage and _numeric(head[advantage]) and advantage not in chosen else None,
        total=total,
        task=_task(head, group, step, {*chosen, text}),
        evaluation=evaluation,
        left_out=left_out,
    )


def _is_boolean(column: Sequence[Any]) -> bool:
    return len(column) > 0 and all(value is None or isinstance(value, bool) for value in column)


def _task(
    head: Mapping[str, Sequence[Any]], group: str | None, step: str | None, taken: set[str | None]
) -> tuple[str, ...]:
    """Return the columns of ground truth and rubric, where a group is told by its prompt.

    A column that makes every row a group of its own is an answer of the policy, whatever its name.
    """
    if group not in PROMPTS:
        return ()
    rows = list(zip(*(map(repr, head[name]) for name in (group, step) if name is not None), strict=True))

    def tells_tasks(name: str) -> bool:
        alone = len(set(zip(rows, map(repr, head[name]), strict=True))) == len(rows)
        return not alone or len(set(rows)) == len(rows)

    return tuple(name for name in (*TRUTH, *RUBRIC) if name in head and name not in taken and tells_tasks(name))


def _kind(column: Sequence[Any]) -> str:
    """Return what a column holds: numbers, maps, mixed (some numbers), other, or nothing (empty)."""
    if all(value is None for value in column):
        return "empty"
    if _numeric(column) or _maps(column):
        return "numbers" if _numeric(column) else "maps"
    return "mixed" if any(isinstance(value, bool | int | float) for value in column) else "other"


def _check(rewards: Sequence[str], group: str | None, head: Mapping[str, Sequence[Any]]) -> None:
    known = shown_names(head, 20)
    if group is None:
        raise ConfigError(f"no column tells which rows answer the same prompt; name it with --group. Columns: {known}")
    if not rewards:
        raise ConfigError(f"no column holds rewards; name them with --rewards a,b,c. Columns: {known}")


def _first(names: Sequence[str], head: Mapping[str, Any]) -> str | None:
    return next((name for name in names if name in head), None)


def _choose(candidates: Sequence[str], head: Mapping[str, Sequence[Any]]) -> tuple[list[str], dict[str, str]]:
    """Split numeric columns into rewards and those left out, with the reason."""
    left_out: dict[str, str] = {}
    for name in candidates:
        if f"{name}{MAPS}" in candidates:
            left_out[name] = f"the mean of {name}{MAPS}"
        elif name in TRUTH:
            left_out[name] = "the ground truth"
        elif not NAMED_REWARD.search(name):
            why = next((why for why, pattern in NO_REWARD.items() if pattern.search(name)), None)
            why = "a length" if LENGTH.fullmatch(name) else why
            left_out |= {name: why} if why else {}
    rewards = [name for name in candidates if name not in left_out]
    totals = [name for name in rewards if name in TOTAL]
    if len(totals) < len(rewards):
        left_out |= dict.fromkeys(totals, "their total")
    rewards = [name for name in rewards if name not in left_out]
    left_out |= _derived([name for name in rewards if not _maps(head[name])], head)
    return [name for name in rewards if name not in left_out], left_out


def _derived(names: Sequence[str], head: Mapping[str, Sequence[Any]]) -> dict[str, str]:
    """Return the columns that equal the sum or the mean of two or more neighbouring others."""
    values = {name: column for name in names if (column := as_floats(head[name])) is not None}
    varied = [name for name in values if len(set(values[name][~np.isnan(values[name])])) > 1]
    derived: dict[str, str] = {}
    for name in varied:
        others = [other for other in varied if other != name and other not in derived]
        columns = np.array([values[other] for other in others]).reshape(len(others), len(values[name]))
        for start, stop in _possible_parts(values[name], columns):
            if how := _equals(values[name], columns[start:stop]):
                derived[name] = f"the {how} of {shown_names(others[start:stop])}"
                break
    return derived


def _possible_parts(whole: Float[np.ndarray, " N"], others: Float[np.ndarray, "K N"]) -> Int[np.ndarray, "R 2"]:
    """Return the ranges [start, stop) of two or more neighbours whose sum or mean may be the column, in order.

    Row by row, by differences of running sums, so that hundreds of columns take a second; `_equals` decides.
    """
    starts, stops = np.triu_indices(len(others) + 1, k=2)
    present = ~np.isnan(others)
    sums = np.concatenate([np.zeros((1, others.shape[1])), np.cumsum(np.where(present, others, 0.0), axis=0)])
    counts = np.concatenate([np.zeros((1, others.shape[1]), int), np.cumsum(present, axis=0)])
    rounding = 1e-9 * np.abs(sums).max(axis=0)  # of differences of running sums
    for row in np.flatnonzero(np.isfinite(whole) & np.isfinite(sums).all(axis=0)):
        count = counts[stops, row] - counts[starts, row]
        total = sums[stops, row] - sums[starts, row]
        near = rounding[row] + ABSOLUTE + RELATIVE * (np.abs(total) + rounding[row])
        is_sum = np.abs(whole[row] - total) <= near
        is_mean = np.abs(whole[row] * count - total) <= near * count
        possible = is_sum | is_mean | (count == 0)
        starts, stops = starts[possible], stops[possible]
        if not len(starts):
            break
    return np.stack([starts, stops], axis=1)


def _equals(whole: Float[np.ndarray, " N"], parts: Float[np.ndarray, "K N"]) -> str | None:
    """Return "sum" or "mean" if that is what the column is of the parts present, else None."""
    present = ~np.isnan(parts)
    rows = present.any(axis=0) & ~np.isnan(whole)
    if rows.sum() < LEAST_ROWS:
        return None
    sums, counts = np.nansum(parts, axis=0)[rows], present.sum(axis=0)[rows]
    for how, expected in (("sum", sums), ("mean", sums / counts)):
        if np.allclose(whole[rows], expected, rtol=RELATIVE, atol=ABSOLUTE):
            return how
    return None


def _numeric(column: Sequence[Any]) -> bool:
    present = [value for value in column if value is not None]
    return bool(present) and all(isinstance(value, bool | int | float) or _is_number(value) for value in present)


def _is_number(value: Any) -> bool:
    return isinstance(value, str) and NUMBER_AS_TEXT.fullmatch(value) is not None


def _maps(column: Sequence[Any]) -> bool:
    """Tell whether a column holds maps from names to numbers, or lists of numbers."""
    present = [value for value in column if value is not None]
    if not present or any(isinstance(value, bool | int | float) for value in present):
        return False
    maps = [as_map(value) for value in present]
    return all(row is not None and _numeric_or_none(row) for row in maps) and any(maps)


def _numeric_or_none(row: Mapping[str, Any]) -> bool:
    return all(value is None or isinstance(value, bool | int | float) for value in row.values())
