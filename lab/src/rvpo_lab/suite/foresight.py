"""The audit's forecast against what happened: audits of the first steps of the suite's runs, and their ends.

Each run's rewards of its first ten training steps, as its own judge gave them, are audited under the run's own method.
The outlook of a channel, and nothing else, says how much it is at risk. Held against it: is the channel neglected on
held-out prompts at the last evaluation, does its mean move as the forecast's sign says, and does the audit of GDPO's
log order the methods as they turn out, and advise one that is better than GDPO.

`rvpo.audit.estimates.HORIZON` was chosen on the runs of `foresight_page.CHOSEN_ON`; only the others are a test.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float

from rvpo.audit import AuditResult, Groups, audit_groups
from rvpo.audit.findings import AHEAD
from rvpo.audit.groups import ChannelNames, groups_of_maps
from rvpo.core.methods import METHODS
from rvpo.core.schedules import from_config
from rvpo.errors import ConfigError
from rvpo.stats import NEGLECTED, lowest_third
from rvpo_lab.suite.cell_file import CellRecord
from rvpo_lab.suite.plan import BASELINE, CONTENDERS
from rvpo_lab.suite.results import held_out_values, means_of_channels, run_key
from rvpo_lab.tasks.task import axis, kind

__all__ = ["SPANS", "Audited", "audits", "forecasts", "orders", "run_groups", "write_log"]

SPANS = {"first": (0, 1), "next": (1, 2), "whole": (0, -1)}
"""Pairs of evaluations between which a mean moves: the first ten steps, which are audited, the next ten, and all."""
DRAWS = 200


class OwnMethod(NamedTuple):
    """What a run was trained by, and its k when the audited steps end."""

    method: str
    k: float

    @property
    def name(self) -> str:
        """As an audit names it."""
        return f"{self.method} k={self.k:g}" if METHODS[self.method].takes_k else self.method


class Audited(NamedTuple):
    """A run with the audit of its first steps."""

    record: CellRecord
    own: OwnMethod
    result: AuditResult


def own_method(record: CellRecord) -> OwnMethod | None:
    """Return the method of a run; None for one that an audit does not compare, or without rewards to audit."""
    contender = CONTENDERS.get(record.cell.contender)
    if contender is None or "method_options" in contender.options or not record.rollouts:
        return None
    options = contender.options
    k = float(options.get("k", 1.0))
    if options.get("k_schedule") == "linear":
        schedule = from_config("linear", {"start": k, "end": options["k_end"]})
        k = float(schedule(record.rollouts[-1][0], record.about["settings"]["steps"]))
    return OwnMethod(options["method"], k)


def audit_run(record: CellRecord, methods: Iterable[OwnMethod]) -> AuditResult:
    """Return the audit of the rewards of a run's first steps, under methods and their ks (and these crosswise)."""
    names = ChannelNames(())
    groups = run_groups(record, names)
    ks = dict.fromkeys(own.k for own in methods if METHODS[own.method].takes_k)
    under = dict.fromkeys(own.method for own in methods)
    return audit_groups([groups], names.names, methods=list(under), ks=list(ks) or [1.0], draws=DRAWS)


def audits(records: Iterable[CellRecord]) -> list[Audited]:
    """Return the audits of all runs whose method an audit compares, each under the run's own method.

    The logs of `BASELINE` are audited under the methods of all runs of the same task and seed.
    """
    runs = [(record, own) for record in records if (own := own_method(record)) is not None]
    rivals = defaultdict(list)
    for record, own in runs:
        rivals[record.cell.task, record.cell.seed].append(own)
    return [
        Audited(
            record,
            own,
            audit_run(record, rivals[record.cell.task, record.cell.seed] if own.method == BASELINE else [own]),
        )
        for record, own in runs
    ]


def run_groups(record: CellRecord, names: ChannelNames) -> Groups:
    """Return the groups of a run's first steps; raises ConfigError if it has none."""
    prompts = _prompts(record)
    return groups_of_maps(list(prompts.values()), names, steps=[step for step, _ in prompts])


def _prompts(record: CellRecord) -> dict[tuple[int, int], dict[str, list[float]]]:
    """Return (step, group) -> channel -> rewards."""
    prompts: dict[tuple[int, int], dict[str, list[float]]] = defaultdict(dict)
    for step, group, channel, rewards in record.rollouts:
        prompts[step, group][channel] = rewards
    return prompts


def write_log(record: CellRecord, file: Path) -> None:
    """Write the rewards of a run's first steps as a table for `rvpo audit`: step, group, rewards by name."""
    rows = [
        {"step": step, "group": f"{step}-{group}", "rewards": [(name, values[g]) for name, values in named.items()]}
        for (step, group), named in _prompts(record).items()
        for g in range(len(next(iter(named.values()))))
    ]
    rewards = pa.map_(pa.string(), pa.float32())
    schema = pa.schema([("step", pa.int32()), ("group", pa.string()), ("rewards", rewards)])
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), file, compression="zstd", compression_level=19)


def values_by_channel(record: CellRecord, channels: Sequence[str]) -> dict[str, Float[np.ndarray, "E C"]]:
    """Return each channel's held-out values at each evaluation, without the channels that have none.

    A channel is a kind of criterion, or a reward function named after an axis, as format_reward after format.
    """
    columns = defaultdict(list)
    for place, (_, criterion) in enumerate(record.held_out):
        for name in {kind(criterion), f"{axis(criterion)}_reward"}:
            columns[name].append(place)
    values = held_out_values(record)
    return {name: values[:, columns[name]] for name in channels if name in columns}


def forecasts(audited: Iterable[Audited]) -> pd.DataFrame:
    """Return one row per run and channel: what the audit said, and what happened.

    `outlook`, `level` (recent mean on [0, 1]), `change`, `falls` (its interval is below 0), `neglected` at the end,
    and for each of `SPANS` the held-out change and its standard error. Raises ConfigError without any row.
    """
    rows = [row for run in audited if len(run.record.steps) >= 3 for row in _rows(run)]
    if not rows:
        raise ConfigError("no run of a known method has rollouts of its first steps and three evaluations")
    return pd.DataFrame(rows)


def _rows(run: Audited) -> list[dict[str, Any]]:
    channels = {channel.name: channel for channel in run.result.channels}
    rows = []
    for name, values in values_by_channel(run.record, list(channels)).items():
        forecast = channels[name].forecasts[run.own.name]
        rows.append(
            {
                **run_key(run.record),
                "channel": name,
                "outlook": forecast.outlook.value,
                "level": channels[name].level,
                "change": forecast.change.value,
                "falls": forecast.change.high < 0,
                "neglected": bool(values[-1].mean() < NEGLECTED),
                **_moves(values),
            }
        )
    return rows


def _moves(values: Float[np.ndarray, "E C"]) -> dict[str, float]:
    """Return the change of a channel's mean over each of `SPANS`, and its standard error."""
    moves: dict[str, float] = {}
    for span, (before, after) in SPANS.items():
        moved = values[after] - values[before]
        error = moved.std(ddof=1) / len(moved) ** 0.5 if len(moved) > 1 else np.nan
        moves |= {span: float(moved.mean()), f"{span}_error": float(error)}
    return moves


def orders(audited: Sequence[Audited]) -> pd.DataFrame:
    """Return one row per task and seed: what the audit of GDPO's log alone says of the methods, and how they end.

    `correlation` of the ranks of the projected and the measured lowest thirds; `ahead`: the method of the highest
    projection is clearly ahead of GDPO, as `rvpo.audit.findings.advise` would have it; `gain`: its measured lowest
    third at the end less that of GDPO's run.
    """
    runs = defaultdict(list)
    for run in audited:
        runs[run.record.cell.task, run.record.cell.seed].append(run)
    rows = []
    for (task, seed), same in runs.items():
        log = next((run.result for run in same if run.own.method == BASELINE), None)
        if log is None or len(same) < 3:
            continue
        projected = {run.record.cell.contender: log.method(run.own.name) for run in same}
        ends = {run.record.cell.contender: lowest_third(means_of_channels(run.record).values[-1]) for run in same}
        lowest = {name: method.lowest.value for name, method in projected.items()}
        best = max(lowest, key=lambda name: lowest[name])
        rows.append(
            {
                "task": task,
                "seed": seed,
                "methods": len(same),
                "correlation": _rank_correlation(list(lowest.values()), list(ends.values())),
                "ahead": projected[best].ahead.low >= AHEAD,
                "gain": ends[best] - ends[BASELINE],
            }
        )
    return pd.DataFrame(rows, columns=["task", "seed", "methods", "correlation", "ahead", "gain"])


def _rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Return Spearman's rank correlation; NaN if one of the two is constant."""
    ranks = [pd.Series(values).rank().to_numpy() for values in (first, second)]
    if min(np.ptp(rank) for rank in ranks) == 0:
        return float("nan")
    return float(np.corrcoef(*ranks)[0, 1])
