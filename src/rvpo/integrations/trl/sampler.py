"""Training prompts drawn by the signal that their lowest channels are expected to have.

A step spends its rollouts on prompts, and where the neglected channels of a prompt do not vary within the group they
learn nothing from it. Here a prompt is drawn the more often, the more of the lowest third of all channels are expected
to have two rewards that differ in its next group. That is sampling for learnability (Foster et al., arXiv 2502.12272;
for games Rutherford et al., 2408.15099) by channel: there a prompt's one success rate p decides, by p(1 - p).

What is expected of a channel of a prompt is the share of the groups in which it varied, from this run's own rollouts:
of the prompt's groups, filled up by what is known of the channel in all prompts, and that by what is known of its tag.
With n groups (earlier ones discounted) of which s varied, and the expectation m of the wider circle, it is

    (s + m) / (n + 1).

Prompts are chosen when rollouts are generated and not by a `Sampler` of the data loader: that fetches a batch or more
in advance, and so would choose by older statistics, and anew after a resume.
"""

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from rvpo.errors import ConfigError
from rvpo.judging.criteria import Rubric
from rvpo.rewards.channels import ChannelMatrix

__all__ = ["PromptDraw", "PromptSampler", "group_signals", "inclusion", "prompt_sampler", "systematic"]

FLOOR = 0.2
"""Share of the draws that is uniform, where none is chosen."""
OF_BATCHES = 0.8
"""Discount of what was known of a channel or tag, for each batch that has it."""
OF_VISITS = 0.5
"""Discount of what was known of a prompt's channel, for each new group of that prompt."""

Signals = Mapping[str, tuple[float, float]]
"""Channel -> 1.0 if two of its rewards in the group differ, else 0.0; and its mean on [0, 1]."""


class PromptDraw(NamedTuple):
    """Prompts of a batch, each once."""

    rows: list[int]
    """Places in the data set."""
    weights: Float[np.ndarray, " P"]
    """How much more often uniform sampling would have drawn the prompt: the importance weight; at most 1 / floor."""
    effective: float
    """Effective number of prompts, 1 / sum of squared shares."""


def inclusion(scores: Float[np.ndarray, " N"], number: int, floor: float) -> Float[np.ndarray, " N"]:
    """Return the probability of each of N prompts to be among `number` different ones.

    In proportion to `floor / N + (1 - floor) score / sum of scores`, and no more than 1: what is above goes to the
    others in proportion. Without any score all are equal.

    >>> inclusion(np.array([0.0, 0.0, 1.0, 3.0]), 2, floor=0.2).round(3).tolist()
    [0.143, 0.143, 0.714, 1.0]
    """
    total = scores.sum()
    shares = np.full(len(scores), 1.0 / len(scores))
    if total > 0:
        shares = floor * shares + (1 - floor) * scores / total
    chances = number * shares
    is_sure = np.zeros(len(scores), dtype=bool)
    while (chances[~is_sure] > 1 + 1e-12).any():
        is_sure |= chances > 1
        left = shares * ~is_sure
        chances = np.where(is_sure, 1.0, left * (number - is_sure.sum()) / left.sum())
    return np.asarray(np.minimum(chances, 1.0))


def systematic(chances: Float[np.ndarray, " N"], start: float) -> Int[np.ndarray, " P"]:
    """Return the places at which the running sum of the chances passes start, start + 1, ...; start in [0, 1).

    With start uniform each place is chosen with its chance, and none twice (systematic sampling, Madow 1949).

    >>> systematic(np.array([0.5, 0.25, 0.75, 0.5]), 0.6).tolist()
    [1, 3]
    """
    points = start + np.arange(round(chances.sum()))
    return np.asarray(np.searchsorted(np.cumsum(chances), points, side="right").clip(max=len(chances) - 1))


def group_signals(matrix: ChannelMatrix, group_size: int) -> list[Signals]:
    """Return for each prompt what its channels show; those with a weight and at least two values in the group."""
    values = matrix.values.reshape(-1, group_size, matrix.values.shape[1])
    is_missing = np.isnan(values)
    counts = (~is_missing).sum(axis=1)
    differ = np.where(is_missing, -np.inf, values).max(axis=1) > np.where(is_missing, np.inf, values).min(axis=1)
    low, high = matrix.ranges.T
    means = (np.where(is_missing, 0.0, values).sum(axis=1) / np.maximum(counts, 1) - low) / (high - low)
    counted = (counts > 1) & (np.atleast_2d(matrix.weights) > 0)
    return [
        {
            name: (float(differ[prompt, column]), float(means[prompt, column]))
            for column, name in enumerate(names)
            if counted[prompt, column]
        }
        for prompt, names in enumerate(_column_names(matrix, group_size))
    ]


def _column_names(matrix: ChannelMatrix, group_size: int) -> list[list[str]]:
    """Return the channel in each column of the matrix for each prompt, a rubric's by the criterion's own name."""
    starts = range(0, len(matrix.values), group_size)
    names: list[list[str]] = [[] for _ in starts]
    for name, cells in matrix.columns.items():
        own = [[name]] * len(starts)
        if cells and isinstance(cells[0], Mapping):
            own = [list(dict.fromkeys(key for row in cells[s : s + group_size] for key in row)) for s in starts]
        width = max(map(len, own))
        for known, added in zip(names, own, strict=True):
            known += added + [""] * (width - len(added))
    return names


class _Sums:
    """Discounted sums by key: groups, those that varied, and means."""

    def __init__(self) -> None:
        self.places: dict[Any, int] = {}
        self.rows: list[list[float]] = []

    def place(self, key: Hashable) -> int:
        """Return the key's place; a new one has zeros."""
        if key not in self.places:
            self.places[key] = len(self.rows)
            self.rows.append([0.0, 0.0, 0.0])
        return self.places[key]

    def add(self, key: Hashable, values: Sequence[float], discount: float) -> None:
        """Discount what is known and add the new."""
        row = self.rows[self.place(key)]
        row[:] = [discount * old + new for old, new in zip(row, values, strict=True)]

    @property
    def array(self) -> Float[np.ndarray, "K 3"]:
        """The sums, a row each, as keys came."""
        return np.asarray(self.rows, dtype=np.float64).reshape(-1, 3)


class PromptSampler:
    """Draws prompts, and keeps what is known of their channels.

    Args:
        prompts: N, how many the data set has.
        floor: share of the draws that is uniform over the prompts, in (0, 1).
        channels: the channels that each prompt will have, as far as they are known; by these a prompt is judged that
            was not drawn yet. Without, such a prompt counts as the average of the others.
    """

    def __init__(self, prompts: int, floor: float, channels: Iterable[Sequence[str]] = ()) -> None:
        self.prompts, self.floor, self.draws = prompts, floor, 0
        self._tags, self._names, self._entries = _Sums(), _Sums(), _Sums()
        self._tag_of_name: list[int] = []
        self._places_of_entry: list[tuple[int, int]] = []
        given = [(row, self._name(name)) for row, names in enumerate(channels) for name in names]
        self._given = np.asarray(given, dtype=np.int64).reshape(-1, 2)
        self._is_known = np.zeros(prompts, dtype=bool)

    def draw(self, number: int, seed: int) -> PromptDraw:
        """Return `number` different prompts; the same for a seed, a number of earlier draws, and what is known."""
        rng = np.random.default_rng([seed, self.draws, 0, 1])  # resampling has its own, of three numbers
        self.draws += 1
        chances = inclusion(self.scores(), number, self.floor)
        order = rng.permutation(self.prompts)
        rows = order[systematic(chances[order], rng.random())]
        return PromptDraw(
            rows.tolist(), number / (self.prompts * chances[rows]), number**2 / float((chances**2).sum())
        )

    def observe(self, rows: Sequence[int], groups: Sequence[Signals]) -> None:
        """Take in the groups of a batch, one for each prompt."""
        new_tags, new_names = _Sums(), _Sums()
        for row, signals in zip(rows, groups, strict=True):
            for name, (varied, mean) in signals.items():
                entry = (1.0, varied, mean)
                new_names.add(name, entry, 1.0)
                new_tags.add(_tag(name), entry, 1.0)
                self._entry(row, name)
                self._entries.add((row, name), entry, OF_VISITS)
        for known, new in ((self._tags, new_tags), (self._names, new_names)):
            for key, place in new.places.items():
                known.add(key, new.rows[place], OF_BATCHES)

    def low_signal(self, groups: Sequence[Signals]) -> float:
        """Return the share of groups in which a channel of the lowest third varies; NaN before anything is known."""
        known = self._of_names()
        if known is None:
            return math.nan
        lowest = known[1]
        varied = [
            any(value > 0 and lowest[self._names.places[name]] for name, (value, _) in signals.items())
            for signals in groups
        ]
        return float(np.mean(varied))

    def state(self) -> dict[str, Any]:
        """Return what goes into a checkpoint: plain values of JSON."""
        entries = zip(self._entries.places, self._entries.rows, strict=True)
        return {
            "prompts": self.prompts,
            "draws": self.draws,
            "tags": dict(zip(self._tags.places, self._tags.rows, strict=True)),
            "names": dict(zip(self._names.places, self._names.rows, strict=True)),
            "visited": [[row, name, *sums] for (row, name), sums in entries],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take what `state` returned; nothing for a run that had no sampler.

        Raises ConfigError for that of a data set with another number of prompts.
        """
        if not state:
            return
        if state["prompts"] != self.prompts:
            raise ConfigError(
                f"prompt_sampling 'signal' knows the {state['prompts']} prompts of the checkpoint by their place, but "
                f"the data set has {self.prompts}; give the same data set, or begin a new run"
            )
        self.draws = int(state["draws"])
        for tag, sums in state["tags"].items():
            self._tags.rows[self._tags.place(tag)] = list(sums)
        for name, sums in state["names"].items():
            self._names.rows[self._name(name)] = list(sums)
        for row, name, *sums in state["visited"]:
            self._entries.rows[self._entry(row, name)] = sums

    def _name(self, name: str) -> int:
        place = self._names.place(name)
        if place == len(self._tag_of_name):
            self._tag_of_name.append(self._tags.place(_tag(name)))
        return place

    def _entry(self, row: int, name: str) -> int:
        place = self._entries.place((row, name))
        if place == len(self._places_of_entry):
            self._places_of_entry.append((row, self._name(name)))
            self._is_known[row] = True
        return place

    def _of_names(self) -> tuple[Float[np.ndarray, " L"], Bool[np.ndarray, " L"]] | None:
        """Return how often each channel is expected to vary, and whether it is of the lowest third by its mean.

        None before anything is known. A tag without any group stands at the average of the others.
        """
        tags = self._tags.array
        seen = tags[:, 0] > 0
        if not seen.any():
            return None
        of_tags = tags[:, 1:] / np.where(seen, tags[:, 0], 1.0)[:, None]
        of_tags[~seen] = of_tags[seen].mean(axis=0)
        names = self._names.array
        varied, means = ((names[:, 1:] + of_tags[self._tag_of_name]) / (names[:, :1] + 1)).T
        third = math.ceil(len(means) / 3)
        return varied, means <= np.partition(means, third - 1)[third - 1]

    def scores(self) -> Float[np.ndarray, " N"]:
        """Return how many channels of the lowest third are expected to vary in each prompt's next group."""
        known = self._of_names()
        if known is None:
            return np.zeros(self.prompts)
        varied, lowest = known
        given = self._given[~self._is_known[self._given[:, 0]]]
        places = np.concatenate([given, np.asarray(self._places_of_entry, dtype=np.int64).reshape(-1, 2)])
        sums = np.concatenate([np.zeros((len(given), 3)), self._entries.array])
        rows, names = places.T
        expected = (sums[:, 1] + varied[names]) / (sums[:, 0] + 1) * lowest[names]
        scores = np.bincount(rows, weights=expected, minlength=self.prompts)
        has_channels = np.bincount(rows, minlength=self.prompts) > 0
        return np.where(has_channels, scores, scores[has_channels].mean())


def _tag(name: str) -> str:
    return name.split("/", 1)[0]


def prompt_sampler(dataset: Any, number: int, floor: float, channels: str | None) -> PromptSampler:
    """Return the sampler of a data set, `number` prompts a batch.

    `channels` is the column with the channels of each prompt: their names as the reward returns them, or a rubric in a
    form of docs/data.md. Raises ConfigError for a stream, a data set that is too small, or no such column.
    """
    if not (hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")):
        raise ConfigError("prompt_sampling 'signal' draws prompts by their place in the data set; a stream has none")
    if len(dataset) < number:
        raise ConfigError(
            f"prompt_sampling 'signal' draws {number} different prompts a batch, but the data set has {len(dataset)}; "
            "make the batch smaller, or num_generations larger"
        )
    if channels is None:
        return PromptSampler(len(dataset), floor)
    columns = getattr(dataset, "column_names", None) or list(dataset[0])
    if channels not in columns:
        raise ConfigError(f"prompt_sampling_channels names {channels!r}, but the columns are {', '.join(columns)}")
    cells = dataset[channels] if hasattr(dataset, "column_names") else (row[channels] for row in dataset)
    return PromptSampler(len(dataset), floor, map(_channels_of, cells))


def _channels_of(cell: object) -> list[str]:
    """Return the names of a prompt's channels from what its row says of them."""
    if isinstance(cell, list) and all(isinstance(name, str) for name in cell):
        return list(cell)
    return [criterion.channel for criterion in Rubric.from_rows(cell)]
