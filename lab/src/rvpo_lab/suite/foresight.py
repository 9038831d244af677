"""The audit's forecast against what happened: audits of the first steps of the suite's runs, and their ends.

Each run's rewards of its first ten training steps, as its own judge gave them, are audited under the run's own method.
The outlook of a channel, and nothing else, says how much it is at risk. Held against it: is the channel neglected on
held-out prompts at the last evaluation, does its mean move as the forecast's sign says, and does the audit of GDPO's
log order the methods as they turn out, and advise one that is better than GDPO. `foresight` has it as Markdown: AUROC,
signs, falls, and the order of the methods.

`rvpo.audit.estimates.HORIZON` was chosen on the runs of `CHOSEN_ON`; only the others are a test.
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
from rvpo.stats import NEGLECTED, bootstrap_interval, lowest_third
from rvpo.text import NOTHING, interval, markdown_table, number
from rvpo_lab.suite.compare import paragraph
from rvpo_lab.suite.plan import BASELINE, CONTENDERS, label
from rvpo_lab.suite.results import RUN, held_out_values, means_of_channels, run_key
from rvpo_lab.suite.storage import CellRecord
from rvpo_lab.tasks.task import axis, kind

__all__ = ["CHOSEN_ON", "SPANS", "Audited", "audits", "forecasts", "foresight", "orders", "run_groups", "write_log"]

SPANS = {"first": (0, 1), "next": (1, 2), "whole": (0, -1)}
"""Pairs of evaluations between which a mean moves: the first ten steps, which are audited, the next ten, and all."""
EVALUATIONS = 3
"""That a run needs for `SPANS`."""
AUDIT_DRAWS = 200


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
    if METHODS[options["method"]].of_batch:
        return None
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
    return audit_groups([groups], names.names, methods=list(under), ks=list(ks) or [1.0], draws=AUDIT_DRAWS)


def audits(records: Iterable[CellRecord]) -> list[Audited]:
    """Return the audits of all runs whose method an audit compares and which have three evaluations.

    Each is under the run's own method.

    The logs of `BASELINE` are audited under the methods of all runs of the same task and seed.
    """
    runs = [
        (record, own)
        for record in records
        if len(record.steps) >= EVALUATIONS and (own := own_method(record)) is not None
    ]
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
    rows = [row for run in audited for row in _rows(run)]
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


CHOSEN_ON = (0, 1)
"""Seeds on which the horizon of the outlook was chosen."""
DRAWS = 1000
CLEAR = 2.0
"""Standard errors beyond which a held-out mean counts as moved."""

LEGEND = f"""\
Channels are kinds of criterion; neglected: held-out mean below {NEGLECTED} at the last evaluation. AUROC of the
outlook over all channels of a method's runs, in brackets 95 % by bootstrap over runs; *inside a run*: of pairs of
channels of one run; *over the mean alone*: by how much it exceeds the AUROC of the recent mean without the forecast.
Signs are of channels whose held-out mean moved by more than {CLEAR:g} standard errors, from one evaluation to another:
over the first ten steps, which are the audited ones, over the next ten, and from start to end. *Up* is the share that
rose, which is what always saying "up" gets. *A fall said*: the forecast's whole interval is below 0.
"""


def foresight(records: Sequence[CellRecord], rivals: Sequence[CellRecord] = (), *, seed: int = 0) -> str:
    """Return as Markdown how well audits of the first steps foretell the end of the runs.

    The runs of `rivals`, another suite with other methods, stand for themselves.

    Raises:
        ConfigError: no run of a known method with rollouts and two evaluations after them.
    """
    parts = {
        "a test": [record for record in records if record.cell.seed not in CHOSEN_ON],
        "a test beside the rivals": list(rivals),
        "on which the horizon was chosen": [record for record in records if record.cell.seed in CHOSEN_ON],
    }
    audited = {what: audits(part) for what, part in parts.items()}
    if not any(audited.values()):
        forecasts([])  # says what is missing
    return "\n".join([*(_part(what, runs, seed) for what, runs in audited.items() if runs), LEGEND])


def _part(what: str, audited: Sequence[Audited], seed: int) -> str:
    """Return the tables of some of the runs under their seeds."""
    rows = forecasts(audited)
    seeds = ", ".join(map(str, sorted(rows["seed"].unique())))
    tables = [_ranking(rows, seed), _sign_table(rows, seed), falls(rows), _order_lines(orders(audited), seed)]
    return "\n".join([f"**Seeds {seeds}, {what}**\n", *tables])


def _by_method(rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Return the rows of each method under its label, then all."""
    return [*((label(str(method)), part) for method, part in rows.groupby("method", sort=False)), ("all", rows)]


def _ranking(rows: pd.DataFrame, seed: int) -> str:
    lines = []
    for method, part in _by_method(rows):
        outlook, level = wins(part, "outlook"), wins(part, "level")
        drawn = _drawn_runs(len(outlook.wins), seed)
        neglected = f"{part['neglected'].sum()} of {len(part)}"
        shares = [auroc(outlook, drawn), number(outlook.inside), advantage(outlook, level, drawn)]
        lines.append([method, str(len(outlook.wins)), neglected, *shares])
    return markdown_table(["method", "runs", "neglected", "AUROC", "inside a run", "over the mean alone"], lines)


def _sign_table(rows: pd.DataFrame, seed: int) -> str:
    head = ["sign right", "first steps", "up", "next steps", "up", "start to end", "up"]
    lines = [
        [method, *(text for span in SPANS for text in signs(part, span, seed))] for method, part in _by_method(rows)
    ]
    return markdown_table(head, lines)


def _moved(rows: pd.DataFrame, span: str) -> pd.DataFrame:
    """Return the channels that moved clearly."""
    return rows[rows[span].abs() > CLEAR * rows[f"{span}_error"]]


def falls(rows: pd.DataFrame) -> str:
    """Return how many of the falls that were foretold came, and how many of those that came were foretold."""
    counts = []
    for span in SPANS:
        moved = _moved(rows, span)
        fell = moved[span] < 0
        right = int((moved["falls"] & fell).sum())
        counts.append(f"{right} of {int(moved['falls'].sum())} and {right} of {int(fell.sum())}")
    return paragraph(
        "Falls said that came, and falls that came that were said, among channels that moved: over the first steps "
        f"{counts[0]}, over the next steps {counts[1]}, from start to end {counts[2]}."
    )


def _order_lines(methods: pd.DataFrame, seed: int) -> str:
    known = methods["correlation"].dropna()
    if len(known) < 2:
        return paragraph("Too few (task, seed) with several methods to say how well GDPO's log orders them.")
    rank = bootstrap_interval(known.to_numpy(), seed=seed, draws=DRAWS)
    fewest, most = methods["methods"].min(), methods["methods"].max()
    order = paragraph(
        f"Methods in the order that the audit of GDPO's log alone projects for the lowest third, against the order at "
        f"the end: rank correlation {rank.mean:.2f} [{rank.low:.2f}, {rank.high:.2f}] over {len(known)} (task, "
        f"seed) with {fewest if fewest == most else f'{fewest} to {most}'} methods."
    )
    advised = methods.loc[methods["ahead"], "gain"]
    if len(advised) < 2:
        return order
    gain = bootstrap_interval(advised.to_numpy(), seed=seed, draws=DRAWS)
    return f"{order}\n" + paragraph(
        f"In {len(advised)} of {len(methods)} that audit puts a method clearly ahead of GDPO. Its lowest third "
        f"ended {interval(gain.mean, gain.low, gain.high)} above GDPO's, higher in {(advised > 0).sum()}."
    )


class Wins(NamedTuple):
    """How a score ranks neglected channels below the others, by pairs of the R runs that the two come from."""

    wins: Float[np.ndarray, "R R"]
    """Pairs of a neglected channel of the first run and another channel of the second in which the neglected one
    scores below; ties count one half."""
    counts: Float[np.ndarray, "R 2"]
    """Neglected and other channels of each run."""

    @property
    def auroc(self) -> float:
        """Share of all pairs that are won; NaN without any."""
        pairs = self.counts.sum(axis=0).prod()
        return float(self.wins.sum() / pairs) if pairs else float("nan")

    @property
    def inside(self) -> float:
        """The same for pairs of channels of one run."""
        pairs = self.counts.prod(axis=1).sum()
        return float(np.trace(self.wins) / pairs) if pairs else float("nan")


def wins(rows: pd.DataFrame, score: str) -> Wins:
    """Return the pairs that a score wins; a row is a channel of a run."""
    run = rows.groupby(RUN, sort=False).ngroup().to_numpy()
    value, neglected = rows[score].to_numpy(), rows["neglected"].to_numpy()
    low, high = value[neglected][:, None], value[~neglected]
    below = (low < high) + np.float32(0.5) * (low == high)  # sums of a few hundred halves are exact in 32 bits
    member = (np.arange(run.max() + 1)[:, None] == run).astype(np.float32)
    first, second = member[:, neglected], member[:, ~neglected]
    counts = np.stack([first.sum(axis=1), second.sum(axis=1)], axis=1)
    return Wins((first @ below @ second.T).astype(np.float64), counts.astype(np.float64))


def auroc(score: Wins, drawn: Float[np.ndarray, "D R"]) -> str:
    """Return the AUROC of a score with its interval by bootstrap over runs."""
    return _with_interval(score.auroc, _won(score.wins, drawn), (drawn @ score.counts).prod(axis=1))


def advantage(score: Wins, other: Wins, drawn: Float[np.ndarray, "D R"]) -> str:
    """Return by how much the AUROC of a score exceeds that of another, with its interval by bootstrap over runs."""
    more = _won(score.wins - other.wins, drawn)
    return _with_interval(score.auroc - other.auroc, more, (drawn @ score.counts).prod(axis=1), "+.2f")


def _won(pairs: Float[np.ndarray, "R R"], drawn: Float[np.ndarray, "D R"]) -> Float[np.ndarray, " D"]:
    """Return the pairs won in each draw of runs."""
    return np.asarray(((drawn @ pairs) * drawn).sum(axis=1))


def signs(rows: pd.DataFrame, span: str, seed: int) -> list[str]:
    """Return the share of right signs among channels that moved, its interval over runs, and the share that rose."""
    moved = _moved(rows, span)
    if moved.empty:
        return [NOTHING, NOTHING]
    right = np.sign(moved[span]) == np.sign(moved["change"])
    runs = right.groupby([moved[name] for name in RUN], sort=False).agg(["sum", "size"]).to_numpy()
    drawn = _drawn_runs(len(runs), seed) @ runs
    return [f"{_with_interval(right.mean(), *drawn.T)} of {len(moved)}", number((moved[span] > 0).mean())]


def _drawn_runs(runs: int, seed: int) -> Float[np.ndarray, "D R"]:
    """Return how often each run is in each bootstrap draw."""
    drawn = np.random.default_rng(seed).multinomial(runs, np.full(runs, 1 / runs), size=DRAWS)
    return drawn.astype(np.float64)


def _with_interval(value: float, part: Float[np.ndarray, " D"], of: Float[np.ndarray, " D"], form: str = ".2f") -> str:
    """Return a share with the interval of part / of over the draws."""
    if not (of > 0).any():
        return NOTHING
    low, high = np.quantile(part[of > 0] / of[of > 0], [0.025, 0.975])
    return f"{value:{form}} [{low:{form}}, {high:{form}}]"
