"""From rows of a log to groups: the rollouts of one prompt side by side, as arrays (P, G, W).

P prompts, G rollouts (groups are filled up with NaN to the largest of their block), W columns. A column is a reward of
the table, or one criterion of the prompt's own rubric; `Groups.labels` says which *channel* it belongs to.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from rvpo.errors import ConfigError

__all__ = ["NAMINGS", "ChannelNames", "Groups", "Rows", "TooManyChannelsError", "group_rows", "groups_of_maps"]

NAMINGS = ("kind", "tag", "column")
"""Ways to name the channels of a rubric, from the finest to the coarsest; see `ChannelNames`."""
MOST_CHANNELS = 40
WINDOW = 2**16
"""Rows among which the rollouts of a group are looked for."""
BLOCK = 2**18
"""Rewards per block of groups, so that a block with its temporaries stays in the cache."""
REMEMBERED = 2**18
"""Groups of earlier windows, and names of criteria, that are recognised when they come again."""


class TooManyChannelsError(Exception):
    """This naming gives more channels than a table can show."""


class ChannelNames:
    """Gives every channel an index as it is first seen.

    Criteria of a rubric differ between prompts; a channel is what they have in common. By `kind` it is the name up to
    the first ":" ("accuracy/cause:fever" and "accuracy/cause:pain" are both "accuracy/cause"), by `tag` the name up to
    the first "/" ("accuracy"), by `column` all criteria of a column are one channel.
    """

    def __init__(self, plain: Sequence[str], naming: str = "kind") -> None:
        self.naming = naming
        self.names = list(plain)
        self._index = {name: index for index, name in enumerate(plain)}
        self._known: dict[str, int] = {}

    def index(self, criterion: str, column: str) -> int:
        """Return the channel of a criterion. Raises TooManyChannelsError for more than `MOST_CHANNELS`."""
        if (known := self._known.get(criterion)) is not None:
            return known
        name = criterion.split(":", 1)[0]
        if self.naming == "tag" and "/" in name:
            name = name.split("/", 1)[0]
        elif self.naming != "kind":
            name = column
        if name not in self._index:
            if len(self.names) >= MOST_CHANNELS and self.naming != "column":
                raise TooManyChannelsError
            self._index[name] = len(self.names)
            self.names.append(name)
        if len(self._known) < REMEMBERED:  # criteria that are all different must not fill the memory
            self._known[criterion] = self._index[name]
        return self._index[name]


class Rows(NamedTuple):
    """Rows of a log: N rollouts."""

    step: Float[np.ndarray, " N"]
    """Training step; 0 where the log has none."""
    key: Int[np.ndarray, " N"]
    """What the rollouts of one prompt have in common."""
    plain: Float[np.ndarray, "N M"]
    """Rewards of the table's columns, NaN for no value."""
    maps: Sequence[tuple[Mapping[str, float], ...]] | None = None
    """Rewards by name: of every row, a map for each column of maps."""
    text: Int[np.ndarray, " N"] | None = None
    """A number for each answer, equal for equal answers."""
    length: Float[np.ndarray, " N"] | None = None
    logged: Float[np.ndarray, " N"] | None = None
    """The advantage that the run used."""

    def take(self, index: Any) -> "Rows":
        """Return some of the rows, by a mask, a slice or indices."""
        maps = None
        if self.maps is not None:
            maps = [self.maps[i] for i in np.arange(len(self.step))[index]]
        arrays = (self.text, self.length, self.logged)
        text, length, logged = (None if array is None else array[index] for array in arrays)
        return Rows(self.step[index], self.key[index], self.plain[index], maps, text, length, logged)


@dataclass(frozen=True)
class Groups:
    """A block of groups."""

    values: Float[np.ndarray, "P G W"]
    """Rewards; NaN for no value, and in the places of rollouts that a smaller group lacks."""
    labels: Int[np.ndarray, "P W"] | None = None
    """Channel of each column, -1 past the prompt's last one; None: column j is channel j everywhere."""
    step: Float[np.ndarray, " P"] | None = None
    size: Int[np.ndarray, " P"] | None = None
    """Rollouts of each group; None: G."""
    text: Int[np.ndarray, "P G"] | None = None
    length: Float[np.ndarray, "P G"] | None = None
    logged: Float[np.ndarray, "P G"] | None = None
    torn: Bool[np.ndarray, " P"] | None = None
    """Earlier rows, too far back to be joined, have the same step and key; None: of no group."""

    def exists(self) -> Bool[np.ndarray, "P G"]:
        """Tell which places hold a rollout."""
        prompts, rollouts, _ = self.values.shape
        size = np.full(prompts, rollouts) if self.size is None else self.size
        return np.asarray(np.arange(rollouts) < size[:, None])

    def take(self, kept: Bool[np.ndarray, " P"]) -> "Groups":
        """Return some of the groups."""
        if kept.all():
            return self
        arrays = {part.name: getattr(self, part.name) for part in fields(self)}
        some: dict[str, Any] = {name: None if array is None else array[kept] for name, array in arrays.items()}
        return Groups(**some)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        arrays = (getattr(self, part.name) for part in fields(self))
        return sum(array.nbytes for array in arrays if array is not None)


def group_rows(
    rows: Iterable[Rows], names: ChannelNames, columns: Sequence[str], *, consecutive: bool
) -> Iterator[Groups]:
    """Yield groups from rows, holding some `WINDOW` rows at a time.

    A group is the rows of one step with one key. If `consecutive`, these are next to each other, and a run twice as
    long as others of its step is two groups of the same prompt; else they lie anywhere in the window, and rows that
    come later make a group of their own, marked as torn.
    """
    seen: set[int] | None = None if consecutive else set()
    waiting: list[Rows] = []
    for batch in rows:
        waiting.append(batch)
        if sum(len(part.step) for part in waiting) >= WINDOW:
            joined = _join(waiting)
            whole = _complete(joined)
            yield from _blocks(joined.take(slice(0, whole)), names, columns, seen)
            waiting = [joined.take(slice(whole, None))]
    if waiting:
        yield from _blocks(_join(waiting), names, columns, seen)


def _join(parts: Sequence[Rows]) -> Rows:
    if len(parts) == 1:
        return parts[0]

    def joined(column: str) -> Any:
        arrays = [getattr(part, column) for part in parts]
        return None if arrays[0] is None else np.concatenate(arrays)

    maps = None if parts[0].maps is None else [row for part in parts for row in part.maps or ()]
    arrays = {name: joined(name) for name in Rows._fields if name != "maps"}
    return Rows(**arrays, maps=maps)


def _complete(rows: Rows) -> int:
    """Return how many rows come before the last step, or before the last group if there is one step; all if one."""
    for column in (rows.step, rows.key):
        changes = np.flatnonzero(column[1:] != column[:-1])
        if changes.size:
            return int(changes[-1]) + 1
    return len(rows.step)


def _blocks(rows: Rows, names: ChannelNames, columns: Sequence[str], seen: set[int] | None) -> Iterator[Groups]:
    """Split rows into groups, in the order of their first rows, and yield these in blocks.

    `seen` holds the groups of earlier windows and takes up these; None: groups are consecutive rows.
    """
    if not len(rows.step):
        return
    order, starts, sizes = _runs(rows) if seen is None else _gathered(rows)
    torn = None if seen is None else _seen_before(rows, order[starts], seen)
    width = rows.plain.shape[1] + (max(sum(map(len, row)) for row in rows.maps) if rows.maps else 0)
    number = max(BLOCK // max(int(sizes.max()) * width, 1), 1)
    for first in range(0, len(starts), number):
        part = slice(first, first + number)
        block = _block(rows, order, starts[part], sizes[part], names, columns)
        yield block if torn is None else replace(block, torn=torn[part])


def _runs(rows: Rows) -> tuple[Int[np.ndarray, " N"], Int[np.ndarray, " P"], Int[np.ndarray, " P"]]:
    """Return order, starts and sizes of groups that are runs of equal step and key."""
    number = len(rows.step)
    changes = (rows.step[1:] != rows.step[:-1]) | (rows.key[1:] != rows.key[:-1])
    starts = np.concatenate([[0], np.flatnonzero(changes) + 1])
    sizes = np.diff(np.append(starts, number))
    # In a step all groups have one size, so a run of a multiple of it is one prompt drawn several times.
    _, of_step = np.unique(rows.step[starts], return_inverse=True)
    least = np.full(of_step.max() + 1, number)
    np.minimum.at(least, of_step, sizes)
    uneven = np.zeros(len(least), dtype=bool)
    np.logical_or.at(uneven, of_step, sizes % least[of_step] != 0)
    unit = np.where(uneven[of_step] | (least[of_step] < 2), sizes, least[of_step])
    pieces = sizes // unit
    first_piece = np.repeat(np.cumsum(pieces) - pieces, pieces)
    offset = (np.arange(pieces.sum()) - first_piece) * np.repeat(unit, pieces)
    return np.arange(number), np.repeat(starts, pieces) + offset, np.repeat(unit, pieces)


def _gathered(rows: Rows) -> tuple[Int[np.ndarray, " N"], Int[np.ndarray, " P"], Int[np.ndarray, " P"]]:
    """Return order, starts and sizes of groups whose rows lie anywhere."""
    order = np.lexsort((rows.key, rows.step))
    step, key = rows.step[order], rows.key[order]
    starts = np.concatenate([[0], np.flatnonzero((step[1:] != step[:-1]) | (key[1:] != key[:-1])) + 1])
    sizes = np.diff(np.append(starts, len(order)))
    by_first_row = np.argsort(order[starts])  # keys are hashes: their order must not decide that of the groups
    return order, starts[by_first_row], sizes[by_first_row]


def _seen_before(rows: Rows, first: Int[np.ndarray, " P"], seen: set[int]) -> Bool[np.ndarray, " P"]:
    """Tell which groups, each given by one of its rows, were in an earlier window; add them to those."""
    keys = [hash(key) for key in zip(rows.step[first].tolist(), rows.key[first].tolist(), strict=True)]
    torn = np.array([key in seen for key in keys])
    seen.update(keys[: max(REMEMBERED - len(seen), 0)])
    return torn


def _block(
    rows: Rows,
    order: Int[np.ndarray, " N"],
    starts: Int[np.ndarray, " P"],
    sizes: Int[np.ndarray, " P"],
    names: ChannelNames,
    columns: Sequence[str],
) -> Groups:
    """Lay groups side by side."""
    places = np.arange(sizes.max())
    exists = places < sizes[:, None]
    index = order[np.where(exists, starts[:, None] + places, starts[:, None])]
    values = np.where(exists[..., None], rows.plain[index], np.nan)
    labels = None
    if rows.maps is not None:
        members = [index[p, :size] for p, size in enumerate(sizes)]
        own = [[rows.maps[i] for i in group] for group in members]
        criteria, labels = _criteria(own, names, columns, values.shape[1], values.shape[2])
        values = np.concatenate([values, criteria], axis=2)
    text = None if rows.text is None else rows.text[index]
    length = None if rows.length is None else np.where(exists, rows.length[index], np.nan)
    logged = None if rows.logged is None else np.where(exists, rows.logged[index], np.nan)
    return Groups(values, labels, rows.step[order[starts]], sizes, text, length, logged)


def _criteria(
    groups: Sequence[Sequence[tuple[Mapping[str, float], ...]]],
    names: ChannelNames,
    columns: Sequence[str],
    rollouts: int,
    plain: int,
) -> tuple[Float[np.ndarray, "P G W"], Int[np.ndarray, "P V"]]:
    """Return every prompt's own criteria side by side, and the channels of all its columns."""
    own = [
        list(dict.fromkeys((part, name) for row in group for part, rewards in enumerate(row) for name in rewards))
        for group in groups
    ]
    width = max(map(len, own), default=0)
    values = np.full((len(groups), rollouts, width), np.nan)
    labels = np.full((len(groups), plain + width), -1)
    labels[:, :plain] = np.arange(plain)
    for prompt, (group, criteria) in enumerate(zip(groups, own, strict=True)):
        for column, (part, name) in enumerate(criteria):
            values[prompt, : len(group), column] = [row[part].get(name, math.nan) for row in group]
            labels[prompt, plain + column] = names.index(name, columns[part])
    return values, labels


def groups_of_maps(
    prompts: Sequence[Mapping[str, Sequence[float]]],
    names: ChannelNames,
    *,
    steps: Sequence[float] | None = None,
) -> Groups:
    """Return one block of groups from the rewards of each prompt: criterion -> a value per rollout, NaN for none.

    Raises:
        ConfigError: no prompt, or rewards of one prompt that differ in number.
    """
    if not prompts or any(len({len(values) for values in rewards.values()}) != 1 for rewards in prompts):
        raise ConfigError("every prompt needs criteria with the same number of rewards, a reward per rollout")
    sizes = np.array([len(next(iter(rewards.values()))) for rewards in prompts])
    width = max(map(len, prompts))
    values, labels = np.full((len(prompts), sizes.max(), width), np.nan), np.full((len(prompts), width), -1)
    for prompt, (rewards, size) in enumerate(zip(prompts, sizes, strict=True)):
        values[prompt, :size, : len(rewards)] = np.array(list(rewards.values()), dtype=np.float64).T
        labels[prompt, : len(rewards)] = [names.index(name, "rewards") for name in rewards]
    return Groups(values, labels, None if steps is None else np.asarray(steps, dtype=np.float64), sizes)
