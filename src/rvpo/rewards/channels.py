"""From what reward functions returned to the channels of a batch side by side, a matrix (N, M).

`rvpo.rewards.declarations` says what a reward may return.
"""

import math
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from rvpo.errors import RewardError
from rvpo.ranges import outside
from rvpo.rewards.conditions import Conditioned, Rule, apply_rules, check_rules
from rvpo.rewards.declarations import Channel, Declaration, check_channels

__all__ = ["ChannelMatrix", "Returned", "assemble", "check_rows", "check_scalars"]

Row = Mapping[str, float | None]
Ranges = Mapping[str, Sequence[float]]
Weights = Mapping[str, float]


@dataclass(frozen=True)
class ChannelMatrix:
    """The channels of a batch side by side. N = P x G rollouts, rollouts of a prompt next to each other."""

    values: Float[np.ndarray, "N M"]
    """NaN: no value."""
    labels: Int[np.ndarray, "P M"]
    """Index in `names` of what column j holds for prompt p; -1 where the prompt has no such channel."""
    names: list[str]
    """Channel names, or tags of channels that differ between prompts."""
    weights: Float[np.ndarray, "*#P M"]
    """One for each column; for each prompt and column, (P, M), where tags have weights of their own."""
    ranges: Float[np.ndarray, "M 2"]
    """Declared ranges; (0, 1) where none is declared."""
    columns: dict[str, list[Any]]
    """What a completions table shows of it: one column per channel, or one of name -> value mappings."""
    unmet: dict[str, float] = field(default_factory=dict)
    """For each channel with a condition, by name or tag, the share of rollouts that do not meet it, of those for which
    that is known; NaN if of none."""
    penalties: frozenset[str] = frozenset()
    """Names of channels that a negative weight turns round: their values, weights and ranges are held as those of
    minus the reward. `columns` has the rewards as they were returned."""


def _number(value: object, where: str) -> float:
    """Return a reward as a float, None as NaN; raise RewardError for anything else, infinities included."""
    if value is None:
        return math.nan
    try:
        number = float(value if not isinstance(value, str | bytes) else None)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        raise RewardError(f"{where} returned {_short(value)}; a reward is a number, or None for 'no value'") from None
    if math.isinf(number):
        raise RewardError(f"{where} returned {number}; return None for 'no value', or a finite number")
    return number


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def _as_list(values: Any) -> Any:
    """Return arrays and tensors as nested lists, everything else as it is."""
    return values.tolist() if hasattr(values, "tolist") else values


def _entries(returned: object, kind: str, what: str, number: int) -> list[Any]:
    """Return what a reward returned as a list of one entry a completion; raise RewardError if it is none."""
    returned = _as_list(returned)
    is_list = isinstance(returned, Iterable) and not isinstance(returned, str | bytes | Mapping | Set)
    entries = list(returned) if is_list else []  # type: ignore[call-overload]
    if not is_list or len(entries) != number:
        size = len(entries) if is_list else type(returned).__name__
        raise RewardError(f"{kind} must return {number} {what}, one a completion; got {size}")
    return entries


def check_scalars(returned: object, name: str, number_of_rollouts: int) -> list[float]:
    """Return a scalar reward's values, NaN where missing, one per rollout.

    Raises RewardError, naming function and completion, for another number of values, or for what is no number.
    """
    values = []
    for index, value in enumerate(_entries(returned, f"reward {name!r}", "values", number_of_rollouts)):
        if isinstance(value, Mapping | list | tuple):
            raise RewardError(
                f"reward {name!r}, completion {index} returned {_short(value)}, several values: declare its channels "
                "with @rvpo.vector_reward(...) above the function, or return one number a completion"
            )
        if isinstance(value, float) and math.isinf(value):
            raise RewardError(f"reward {name!r}, completion {index} is infinite; return None or NaN for 'no value'")
        values.append(_number(value, f"reward {name!r}, completion {index}"))
    return values


def check_rows(returned: object, name: str, declared: Declaration, number_of_rollouts: int) -> list[dict[str, float]]:
    """Return a vector reward's rows as name -> value (NaN: missing), one per rollout; {} for None, no value at all.

    Raises RewardError, naming function, rollout and channel, for what a vector reward must not return.
    """
    names = [channel.name for channel in declared.channels]
    rows = []
    for index, row in enumerate(_entries(returned, f"vector reward {name!r}", "rows", number_of_rollouts)):
        where = f"vector reward {name!r}, completion {index}"
        row = _as_list(row)
        if row is None or (isinstance(row, float) and math.isnan(row)):
            row = {}
        if not isinstance(row, Mapping):
            if not names:
                raise RewardError(f"{where} returned {type(row).__name__}; without declared names a row is a mapping")
            if not isinstance(row, Sequence) or len(row) != len(names):
                raise RewardError(f"{where} returned {row!r} for the {len(names)} channels {names}")
            row = dict(zip(names, row, strict=True))
        unknown = [key for key in row if names and key not in names]
        if unknown:
            raise RewardError(f"{where} returned channels {unknown} that are not among the declared {names}")
        rows.append({str(key): _number(value, f"{where}, channel {key!r}") for key, value in row.items()})
    return rows


def _check_range(values: Float[np.ndarray, " N"], channel: Channel) -> None:
    """Raise RewardError for the first value outside the channel's declared range."""
    if channel.range is None:
        return
    low, high = channel.range
    wrong = np.flatnonzero(outside(values, low, high))
    if wrong.size:
        raise RewardError(
            f"reward {values[wrong[0]]} of channel {channel.name!r}, completion {wrong[0]} of the batch, lies "
            f"outside its declared range [{low}, {high}]; declare the true range or mend the reward"
        )


class Returned(NamedTuple):
    """What one reward function returned for the batch."""

    function: str
    declares: Declaration
    weight: float
    """Weight of the function; multiplies those of its channels. Negative for what is to become less."""
    values: Sequence[float] | Sequence[Row]
    """N numbers of a scalar reward, or N rows of a vector reward."""


class _Block(NamedTuple):
    """Columns of the matrix that one reward function fills."""

    values: Float[np.ndarray, "N W"]
    channels: list[Channel]
    names: list[list[str]]
    """For each prompt the name of its channels, in the order of the columns."""
    columns: dict[str, list[Any]]


def _named(returned: Returned) -> _Block:
    """Return the columns of a reward whose channels are the same for every prompt."""
    declares = returned.declares
    own = declares.channels if declares.is_vector else (replace(declares.template, name=returned.function),)
    columns: dict[str, list[Any]] = {}
    for channel in own:
        cells = [row.get(channel.name) if isinstance(row, Mapping) else row for row in returned.values]
        columns[channel.name] = [math.nan if cell is None else cell for cell in cells]
    values = np.asarray(list(columns.values()), dtype=np.float64).T
    return _Block(values, list(own), [[channel.name for channel in own]], columns)


def _ragged(returned: Returned, group_size: int) -> _Block:
    """Place each prompt's own channels side by side, in the order in which its rollouts name them."""
    rows = [row for row in returned.values if isinstance(row, Mapping)]
    groups = [rows[start : start + group_size] for start in range(0, len(rows), group_size)]
    names = [list(dict.fromkeys(name for row in group for name in row)) for group in groups]
    values = np.full((len(rows), max(map(len, names), default=0)), np.nan)
    for index, row in enumerate(rows):
        for column, name in enumerate(names[index // group_size]):
            value = row.get(name)
            values[index, column] = math.nan if value is None else value
    template = replace(returned.declares.template, name=returned.function)
    tags = [[_tag(returned.function, name) for name in group] for group in names]
    return _Block(values, [template] * values.shape[1], tags, {returned.function: [dict(row) for row in rows]})


def _tag(function: str, name: str) -> str:
    """Return under which name a ragged channel is counted: the function and the name's part before "/"."""
    return f"{function}/{name.split('/', 1)[0]}" if "/" in name else function


def _configured(channel: Channel, returned: Returned, ranges: Ranges, weights: Weights) -> Channel:
    """Return the channel with the range and weight that the configuration gives it."""
    pair = ranges.get(channel.name, channel.range)
    weight = weights.get(channel.name, channel.weight)
    return replace(
        channel,
        range=None if pair is None else (float(pair[0]), float(pair[1])),
        weight=float(weight) * returned.weight,
    )


def assemble(
    rewards: Sequence[Returned],
    group_size: int,
    *,
    ranges: Ranges | None = None,
    weights: Weights | None = None,
    rules: Mapping[str, Rule] | None = None,
) -> ChannelMatrix:
    """Put the returns of several reward functions side by side.

    Args:
        rewards: one entry a function.
        group_size: G.
        ranges: declared range by channel name (or function name, if names come with each completion).
        weights: importance likewise; also by tag.
        rules: conditions likewise, in the place of declared ones; also by tag.

    Raises:
        RewardError: a value outside its declared range, two channels of one name, a range or weight for a
            channel that does not exist.
        ConfigError: what `check_rules` and `apply_rules` raise.
    """
    check_channels([(r.function, r.declares) for r in rewards], ranges or {}, weights or {})
    blocks = [_ragged(r, group_size) if r.declares.is_rubric else _named(r) for r in rewards]
    channels = []
    for returned, block in zip(rewards, blocks, strict=True):
        for column, channel in enumerate(block.channels):
            configured = _configured(channel, returned, ranges or {}, weights or {})
            _check_range(block.values[:, column], configured)
            channels.append(configured)
    if not channels:  # no prompt of the batch has any criterion: one column of missing values stands for that
        blocks.append(_Block(np.full((len(rewards[0].values), 1), np.nan), [], [[]], {}))
        channels.append(Channel(""))
    names = list(dict.fromkeys(name for block in blocks for group in block.names for name in group))
    prompts = len(rewards[0].values) // group_size
    labels = np.concatenate([_labels(block, names, prompts) for block in blocks], axis=1)
    matrix = ChannelMatrix(
        values=np.concatenate([block.values for block in blocks], axis=1),
        labels=labels,
        names=names,
        weights=_weights(rewards, channels, labels, names, weights or {}),
        ranges=np.asarray([channel.range or (0.0, 1.0) for channel in channels]).reshape(-1, 2),
        columns={name: column for block in blocks for name, column in block.columns.items()},
    )
    every: dict[str, Rule] = {}
    for returned in rewards:
        every |= returned.declares.rules(returned.function)
    every |= rules or {}
    check_rules(every, {c.name: c.range for c in channels if c.range is not None})
    rubrics = [returned.function for returned in rewards if returned.declares.is_rubric]
    applied = apply_rules(matrix.values, np.repeat(labels, group_size, axis=0), names, every, rubrics)
    return _turned_round(_conditioned(matrix, applied))


def _turned_round(matrix: ChannelMatrix) -> ChannelMatrix:
    """Return the matrix with the channels of negative weight as minus themselves, and positive weights."""
    negative = (np.atleast_2d(matrix.weights) < 0).any(axis=0)
    if not negative.any():
        return matrix
    signs = np.where(negative, -1.0, 1.0)
    return replace(
        matrix,
        values=matrix.values * signs,
        weights=np.abs(matrix.weights),
        ranges=np.sort(matrix.ranges * signs[:, None], axis=1),
        penalties=frozenset(matrix.names[label] for label in matrix.labels[:, negative].flat if label >= 0),
    )


def _conditioned(matrix: ChannelMatrix, applied: Conditioned) -> ChannelMatrix:
    """Return the matrix with conditions applied, in its values and in what tables show."""
    if not applied.met:
        return matrix
    columns = {
        name: [
            {key: applied.reward(_tag(name, key), row, value) for key, value in cell.items()}
            if isinstance(cell, Mapping)
            else applied.reward(name, row, cell)
            for row, cell in enumerate(cells)
        ]
        for name, cells in matrix.columns.items()
    }
    known = {name: met[~np.isnan(met)] for name, met in applied.met.items()}
    unmet = {name: float(np.mean(met == 0)) if met.size else math.nan for name, met in known.items()}
    return replace(matrix, values=applied.values, columns=columns, unmet=unmet)


def _weights(
    rewards: Sequence[Returned],
    channels: Sequence[Channel],
    labels: Int[np.ndarray, "P M"],
    names: Sequence[str],
    given: Weights,
) -> Float[np.ndarray, "*#P M"]:
    """Return the weight of each column, and where tags have their own, of each prompt and column."""
    by_column = np.asarray([channel.weight for channel in channels])
    of_functions = {returned.function: returned.weight for returned in rewards}
    own = {channel.name for channel in channels}
    tags = [name for name in given if name in names and name not in own]
    if not tags:
        return by_column
    laid_out = np.repeat(by_column[None], len(labels), axis=0)
    for tag in tags:
        laid_out[labels == list(names).index(tag)] = given[tag] * of_functions[tag.rpartition("/")[0]]
    return laid_out


def _labels(block: _Block, names: list[str], prompts: int) -> Int[np.ndarray, "P W"]:
    """Return the index in `names` of each prompt's channels, -1 past its last one."""
    labels = np.full((len(block.names), block.values.shape[1]), -1)
    position = {name: index for index, name in enumerate(names)}
    for prompt, group in enumerate(block.names):
        labels[prompt, : len(group)] = [position[name] for name in group]
    return np.broadcast_to(labels, (prompts, labels.shape[1]))
