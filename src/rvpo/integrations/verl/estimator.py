"""From the dicts that verl's score function returned to advantages and metrics; knows nothing of verl itself.

verl keeps the rollouts of a step in any order, groups them by uid, may have fewer of them for a prompt whose other
sessions failed, and fills a batch with copies up to a multiple. So rows are sorted into groups here, and groups that
lack rollouts are filled with rows without values, which take part in nothing.
"""

import json
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from rvpo.core.advantages import AdvantageResult, compute_advantages
from rvpo.core.methods import find_method
from rvpo.errors import ConfigError, JudgeError, RewardError
from rvpo.integrations.batch import ChannelState, batch_options, channel_metrics
from rvpo.integrations.verl.config import VerlConfig
from rvpo.llm.limits import too_many_missing
from rvpo.rewards.channels import ChannelMatrix, Returned, assemble, check_rows
from rvpo.rewards.declarations import Channel, Declaration

__all__ = ["Estimator", "Rollouts", "Scored"]

SCORES = "compute_score"
"""verl's name of the score function, for messages."""


class Rollouts(NamedTuple):
    """What is known of the rows of a batch, N of them in any order."""

    infos: Sequence[Mapping[str, Any]]
    """What the score function returned for each."""
    groups: Sequence[Hashable]
    """The prompt of each, verl's uid."""
    lengths: Sequence[float]
    """Number of tokens that are trained on."""
    is_real: Sequence[bool] | None = None
    """False for a row that only fills the batch; None: all are real."""
    sessions: Sequence[tuple[Hashable, int]] | None = None
    """Session and position in it, where an agent loop made several rows of one rollout; the last one is scored."""


class Scored(NamedTuple):
    """Advantages of the N rows, and what is logged of the batch."""

    advantages: np.ndarray
    """(N,), float64; 0 for a row that is not real or has no value."""
    metrics: dict[str, float]
    """By name; a metric without a value is left out."""


@dataclass
class Estimator:
    """Advantages of one batch after another, as a configuration says."""

    config: VerlConfig
    state: ChannelState = field(default_factory=ChannelState)

    def __post_init__(self) -> None:
        self._schedule = self.config.schedule()

    def score(self, rollouts: Rollouts, step: int, total_steps: int) -> Scored:
        """Return the advantages of a batch at a step, counted from 0, of a run.

        Raises:
            RewardError: a reward that cannot be used.
            ConfigError: a channel that no rollout has.
            JudgeError: more than `max_missing` of the rubric verdicts are null.
        """
        rows, scored_by = _last_of_sessions(rollouts)
        groups: dict[Hashable, list[int]] = {}
        for row in rows:
            groups.setdefault(rollouts.groups[row], []).append(row)
        groups, lone = _without_lone(groups)
        size = max(map(len, groups.values()), default=1)
        # -1: a row that fills a group.
        order = np.asarray([[*members, *[-1] * (size - len(members))] for members in groups.values()]).reshape(-1)
        infos: list[Mapping[str, Any]] = [rollouts.infos[row] if row >= 0 else {} for row in order]
        matrix = _matrix(infos, size, self.config, self.config.weights(step, total_steps))
        lengths = np.asarray([rollouts.lengths[row] if row >= 0 else 0.0 for row in order])
        result = self._advantages(matrix, size, lengths, self._schedule(step, total_steps))
        by_row = np.zeros(len(rollouts.infos))
        by_row[order[order >= 0]] = result.advantages[order >= 0]
        sizes = [len(members) for members in groups.values()]
        takes_k = find_method(self.config.method).takes_k
        metrics = channel_metrics(matrix, result, size, self.state, sizes, takes_k=takes_k)
        metrics |= {"rvpo/lone": float(lone)} if lone else {}
        metrics |= self.config.weight_metrics(step, total_steps)
        known = {name: value for name, value in metrics.items() if not math.isnan(value)}
        return Scored(np.asarray([by_row[row] if row >= 0 else 0.0 for row in scored_by]), known)

    def _advantages(self, matrix: ChannelMatrix, size: int, lengths: np.ndarray, k: Any) -> AdvantageResult:
        options = batch_options(self.config, matrix, size, self.state, move=True)
        if options["whiten"] == "token":
            options["lengths"] = lengths
        return compute_advantages(matrix.values, group_size=size, k=k, **options)


def _without_lone(groups: dict[Hashable, list[int]]) -> tuple[dict[Hashable, list[int]], int]:
    """Return the groups of at least two rollouts, and how many rollouts are alone with their prompt.

    A lone rollout is compared with nothing: its advantage is 0, and whitening must not move it. Raises RewardError if
    all are alone.
    """
    compared = {group: members for group, members in groups.items() if len(members) > 1}
    if len(groups) > 1 and not compared:
        raise RewardError(
            f"each of the {len(groups)} rollouts is alone with its prompt (uid), so that there is nothing to compare "
            "it with; rollouts of one prompt must share an id, and actor_rollout_ref.rollout.n be at least 2"
        )
    return (compared, len(groups) - len(compared)) if compared else (groups, 0)


def _last_of_sessions(rollouts: Rollouts) -> tuple[list[int], list[int]]:
    """Return the rows that are scored, and for every row the one whose advantage it gets (-1: none)."""
    number = len(rollouts.infos)
    real = [True] * number if rollouts.is_real is None else list(rollouts.is_real)
    if rollouts.sessions is None:
        return [row for row in range(number) if real[row]], [row if real[row] else -1 for row in range(number)]
    last: dict[Hashable, int] = {}
    for row, (session, position) in enumerate(rollouts.sessions):
        if real[row] and (session not in last or rollouts.sessions[last[session]][1] < position):
            last[session] = row
    scored_by = [last[session] if real[row] else -1 for row, (session, _) in enumerate(rollouts.sessions)]
    return sorted(last.values()), scored_by


def _matrix(
    infos: Sequence[Mapping[str, Any]], size: int, config: VerlConfig, weights: Mapping[str, float]
) -> ChannelMatrix:
    """Return the channels, with these weights, of rows that are in groups of `size`."""
    absent = [name for name in config.channels if not any(name in info for info in infos)]
    if absent:
        there = sorted({str(name) for info in infos for name in info})
        raise ConfigError(
            f"algorithm.rvpo.channels names {absent}, but the score function returns {there or 'no dict'}; "
            "return a dict with a key for each channel beside 'score'"
        )
    named: list[str] = []
    returned = []
    for name in config.channels:
        cells = [_unpacked(info.get(name), name, row) for row, info in enumerate(infos)]
        if not any(isinstance(cell, Mapping) for cell in cells):
            named.append(name)
            continue
        mixed = next((cell for cell in cells if cell is not None and not isinstance(cell, Mapping)), None)
        if mixed is not None:
            raise RewardError(f"channel {name!r} is a rubric in some rollouts and {mixed!r} in others")
        declares = Declaration(template=Channel(""))
        rows = check_rows([cell or {} for cell in cells], name, declares, len(cells))
        _check_missing(rows, name, config.max_missing)
        returned.append(Returned(name, declares, 1.0, rows))
    if named:
        declares = Declaration(tuple(map(Channel, named)))
        rows = check_rows([{name: info.get(name) for name in named} for info in infos], SCORES, declares, len(infos))
        returned.insert(0, Returned(SCORES, declares, 1.0, rows))
    return assemble(returned, size, ranges=config.mapping("channel_ranges"), weights=weights, rules=config.rules())


def _unpacked(cell: Any, name: str, row: int) -> Any:
    """Return a rubric's JSON text as a mapping, anything else as it is."""
    if not isinstance(cell, str):
        return cell
    try:
        value = json.loads(cell)
    except json.JSONDecodeError as error:
        raise RewardError(f"channel {name!r}, rollout {row} of the batch, is text but no JSON: {error}") from None
    if value is not None and not isinstance(value, Mapping):
        raise RewardError(f"channel {name!r}, rollout {row} of the batch, is JSON of {value!r}, not of an object")
    return value


def _check_missing(rows: Sequence[Mapping[str, float]], name: str, most: float) -> None:
    """Raise JudgeError if more than a share `most` of a rubric's verdicts is missing, of at least 20."""
    verdicts = [math.isnan(value) for row in rows for value in row.values()]
    if too_many_missing(sum(verdicts), len(verdicts), most):
        raise JudgeError(
            f"{sum(verdicts)} of {len(verdicts)} verdicts of {name!r} are missing, more than "
            f"algorithm.rvpo.max_missing={most:g}: training on the rest would not be what it seems; look at the "
            "judge's server, then resume (its store has what was answered)"
        )
