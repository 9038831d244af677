"""The forecast against what happened: audits of the first steps of the suite's runs, held against their ends.

Each run's rewards of its first ten training steps, as its own judge gave them, are audited under the run's own method.
The outlook of a channel, and nothing else, says how much it is at risk. Held against it: is the channel neglected on
held-out prompts at the last evaluation, does its mean move as the forecast's sign says, and does the audit of GDPO's
log order the methods as they turn out, and advise one that is better than GDPO.

`rvpo.audit.estimates.HORIZON` was chosen on the runs of `CHOSEN_ON`; only the others are a test.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float

from rvpo.audit import AuditResult, Groups, audit_groups
from rvpo.audit.findings import AHEAD
from rvpo.audit.groups import ChannelNames, groups_of_maps
from rvpo.audit.result import MethodAudit
from rvpo.core.schedules import from_config
from rvpo.errors import ConfigError
from rvpo.stats import bootstrap_interval
from rvpo_lab.suite.cell_file import CellRecord
from rvpo_lab.suite.plan import CONTENDERS
from rvpo_lab.suite.results import NEGLECTED, lowest_third
from rvpo_lab.tasks.task import axis, kind

__all__ = ["CHOSEN_ON", "audit_run", "forecasts", "foresight", "orders", "write_log"]

CHOSEN_ON = (0, 1)
"""Seeds on which the horizon of the outlook was chosen."""
DRAWS = 1000
FROM_LOG_OF = "gdpo"
SPANS = {"first": (0, 1), "next": (1, 2), "whole": (0, -1)}
"""Pairs of evaluations between which a mean moves: the first ten steps, which are audited, the next ten, and all."""
CLEAR = 2.0
"""Standard errors beyond which a held-out mean counts as moved."""


def foresight(records: Sequence[CellRecord], *, seed: int = 0) -> str:
    """Return as Markdown how well audits of the first steps foretell the end of the runs.

    Raises:
        ConfigError: no run of a known method with rollouts and two evaluations after them.
    """
    table = forecasts(records)
    ranking = orders(records)
    parts = []
    for chosen_on in (False, True):
        rows = table[table["seed"].isin(CHOSEN_ON) == chosen_on]
        if rows.empty:
            continue
        which = ", ".join(map(str, sorted(rows["seed"].unique())))
        title = f"Seeds {which}, on which the horizon was chosen" if chosen_on else f"Seeds {which}, a test"
        order = ranking[ranking["seed"].isin(CHOSEN_ON) == chosen_on]
        tables = [_ranking(rows, seed), _sign_table(rows, seed), _falls(rows), _order_lines(order, seed)]
        parts.append("\n".join([f"**{title}**\n", *tables]))
    return "\n".join([*parts, LEGEND])


LEGEND = f"""\
Channels are kinds of criterion; neglected: held-out mean below {NEGLECTED} at the last evaluation. AUROC of the
outlook over all channels of a method's runs, in brackets 95 % by bootstrap over runs; *inside a run*: of pairs of
channels of one run; *over the mean alone*: by how much it exceeds the AUROC of the recent mean without the forecast.
Signs are of channels whose held-out mean moved by more than {CLEAR:g} standard errors, from one evaluation to another:
over the first ten steps, which are the audited ones, over the next ten, and from start to end. *Up* is the share that
rose, which is what always saying "up" gets. *A fall said*: the forecast's whole interval is below 0.
"""


def audit_run(record: CellRecord, *, methods: Sequence[str], ks: Sequence[float], draws: int = 200) -> AuditResult:
    """Return the audit of the rewards that a run's first steps had, under these methods."""
    names = ChannelNames(())
    groups = run_groups(record, names)
    return audit_groups([groups], names.names, methods=methods, ks=ks, draws=draws)


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


def own_signal(record: CellRecord) -> tuple[str, float] | None:
    """Return the method of a run and its k when the rewards end; None for one that an audit does not compare."""
    contender = CONTENDERS.get(record.about["contender"])
    if contender is None or "method_options" in contender.options or not record.rollouts:
        return None
    options = contender.options
    k = float(options.get("k", 1.0))
    if options.get("k_schedule") == "linear":
        schedule = from_config("linear", {"start": k, "end": options["k_end"]})
        k = float(schedule(record.rollouts[-1][0], record.about["settings"]["steps"]))
    return options["method"], k


def held_out_values(record: CellRecord, channel: str) -> Float[np.ndarray, "N E"] | None:
    """Return a channel's held-out values at each evaluation, a row a criterion; None if there are none.

    A channel is a kind of criterion, or a reward function named after an axis, as format_reward after format.
    """
    named = channel.removesuffix("_reward")
    rows = [values for (_, name), values in record.held_out.items() if kind(name) == channel or axis(name) == named]
    return np.array(rows) if rows else None


def forecasts(records: Iterable[CellRecord]) -> pd.DataFrame:
    """Return one row per run and channel: what the audit said, and what happened.

    `outlook`, `level` (recent mean on [0, 1]), `change`, `falls` (its interval is below 0), `neglected` at the end,
    and for each of `SPANS` the held-out change and its standard error. Raises ConfigError without any row.
    """
    rows = []
    for record in records:
        signal = own_signal(record)
        if signal is None or len(record.steps) < 3:
            continue
        audit = audit_run(record, methods=[signal[0]], ks=[signal[1]])
        rows += [row for channel in audit.channels if (row := _row(record, audit, channel.name)) is not None]
    if not rows:
        raise ConfigError("no run of a known method has rollouts of its first steps and three evaluations")
    return pd.DataFrame(rows)


def _row(record: CellRecord, audit: AuditResult, name: str) -> dict[str, Any] | None:
    values = held_out_values(record, name)
    if values is None:
        return None
    channel = audit.channel(name)
    forecast = channel.forecasts[audit.reference]
    measured: dict[str, float] = {}
    for which, (before, after) in SPANS.items():
        moved = values[:, after] - values[:, before]
        error = moved.std(ddof=1) / len(moved) ** 0.5 if len(moved) > 1 else np.nan
        measured |= {which: float(moved.mean()), f"{which}_error": float(error)}
    return {
        "task": record.about["task"],
        "method": record.about["contender"],
        "seed": record.about["seed"],
        "channel": name,
        "outlook": forecast.outlook.value,
        "level": channel.level,
        "change": forecast.change.value,
        "falls": forecast.change.high < 0,
        "neglected": bool(values[:, -1].mean() < NEGLECTED),
        **measured,
    }


def orders(records: Sequence[CellRecord]) -> pd.DataFrame:
    """Return one row per task and seed: what the audit of GDPO's log alone says of the methods, and how they end.

    `correlation` of the ranks of the projected and the measured lowest thirds; `ahead`: the method of the highest
    projection is clearly ahead of GDPO, as `rvpo.audit.findings.advise` would have it; `gain`: its measured lowest
    third at the end less that of GDPO's run.
    """
    runs = {(r.about["task"], r.about["seed"], r.about["contender"]): r for r in records if own_signal(r)}
    rows = []
    for (task, seed, contender), record in runs.items():
        others = {name: runs[task, seed, name] for t, s, name in runs if (t, s) == (task, seed)}
        if contender != FROM_LOG_OF or len(others) < 3:
            continue
        said = {name: _projected(record, other) for name, other in others.items()}
        ended = {name: _lowest_at_end(other) for name, other in others.items()}
        best = max(said, key=lambda name: said[name].lowest.value)
        rows.append(
            {
                "task": task,
                "seed": seed,
                "methods": len(said),
                "correlation": _rank_correlation([said[n].lowest.value for n in said], [ended[n] for n in said]),
                "ahead": said[best].ahead.low >= AHEAD,
                "gain": ended[best] - ended[FROM_LOG_OF],
            }
        )
    return pd.DataFrame(rows, columns=["task", "seed", "methods", "correlation", "ahead", "gain"])


def _projected(log: CellRecord, other: CellRecord) -> MethodAudit:
    """Return what the audit of one run's log says of another run's method."""
    method, k = own_signal(other) or ("", 0.0)
    audit = audit_run(log, methods=[FROM_LOG_OF, method], ks=[k])
    return audit.methods[-1 if method != FROM_LOG_OF else 0]


def _lowest_at_end(record: CellRecord) -> float:
    finals = defaultdict(list)
    for (_, name), values in record.held_out.items():
        finals[kind(name)].append(values[-1])
    return lowest_third([float(np.mean(one)) for one in finals.values()])


def _rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Return Spearman's rank correlation; NaN if one of the two is constant."""
    ranks = [pd.Series(values).rank().to_numpy() for values in (first, second)]
    if min(np.ptp(rank) for rank in ranks) == 0:
        return float("nan")
    return float(np.corrcoef(*ranks)[0, 1])


def _markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _prose(text: str) -> str:
    return fill(text, 119, break_on_hyphens=False) + "\n"


def _by_method(rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Return the rows of each method under its label, then all."""
    methods = rows.groupby("method", sort=False)
    named = [(CONTENDERS[str(one)].label if one in CONTENDERS else str(one), some) for one, some in methods]
    return [*named, ("all", rows)]


def _ranking(rows: pd.DataFrame, seed: int) -> str:
    head = ["method", "runs", "neglected", "AUROC", "inside a run", "over the mean alone"]
    lines = [
        [
            label,
            str(some.groupby(["task", "method", "seed"]).ngroups),
            f"{some['neglected'].sum()} of {len(some)}",
            _auroc(some, seed),
            f"{_inside(some):.2f}",
            _gain(some, seed),
        ]
        for label, some in _by_method(rows)
    ]
    return _markdown(head, lines)


def _sign_table(rows: pd.DataFrame, seed: int) -> str:
    head = ["sign right", *(text for which in SPANS for text in (f"{which} steps", "up"))]
    head = [text.replace("whole steps", "start to end") for text in head]
    lines = [
        [label, *(text for which in SPANS for text in _signs(some, which, seed))] for label, some in _by_method(rows)
    ]
    return _markdown(head, lines)


def _falls(rows: pd.DataFrame) -> str:
    """Return how many of the falls that were said came, and how many of those that came were said."""
    told = []
    for which in SPANS:
        moved = rows[rows[which].abs() > CLEAR * rows[f"{which}_error"]]
        right = int((moved["falls"] & (moved[which] < 0)).sum())
        said, fell = int(moved["falls"].sum()), int((moved[which] < 0).sum())
        told.append(f"{right} of {said} and {right} of {fell}")
    return _prose(
        "Falls said that came, and falls that came that were said, among channels that moved: over the first steps "
        f"{told[0]}, over the next steps {told[1]}, from start to end {told[2]}."
    )


def _order_lines(ranking: pd.DataFrame, seed: int) -> str:
    known = ranking["correlation"].dropna()
    if len(known) < 2:
        return _prose("Too few (task, seed) with several methods to say how well GDPO's log orders them.")
    found = bootstrap_interval(known.to_numpy(), seed=seed, draws=DRAWS)
    fewest, most = ranking["methods"].min(), ranking["methods"].max()
    order = _prose(
        f"Methods in the order that the audit of GDPO's log alone projects for the lowest third, against the order at "
        f"the end: rank correlation {found.mean:.2f} [{found.low:.2f}, {found.high:.2f}] over {len(known)} (task, "
        f"seed) with {fewest if fewest == most else f'{fewest} to {most}'} methods."
    )
    advised = ranking.loc[ranking["ahead"], "gain"]
    if len(advised) < 2:
        return order
    gain = bootstrap_interval(advised.to_numpy(), seed=seed, draws=DRAWS)
    return f"{order}\n" + _prose(
        f"In {len(advised)} of {len(ranking)} that audit puts a method clearly ahead of GDPO. Its lowest third "
        f"ended {gain.mean:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}] above GDPO's, higher in {(advised > 0).sum()}."
    )


def _wins(rows: pd.DataFrame, score: str) -> tuple[Float[np.ndarray, "R R"], Float[np.ndarray, "R 2"]]:
    """Return per pair of runs how often a neglected channel of one scores below one of the other that is not.

    With it the number of neglected and other channels of each run. Ties count one half.
    """
    run = rows.groupby(["task", "method", "seed"], sort=False).ngroup().to_numpy()
    value, lost = rows[score].to_numpy(), rows["neglected"].to_numpy()
    below = (value[lost][:, None] < value[~lost]) + 0.5 * (value[lost][:, None] == value[~lost])
    member = (np.arange(run.max() + 1)[:, None] == run).astype(float)
    counts = np.stack([member[:, lost].sum(axis=1), member[:, ~lost].sum(axis=1)], axis=1)
    return member[:, lost] @ below @ member[:, ~lost].T, counts


def _point(rows: pd.DataFrame, score: str) -> float:
    wins, counts = _wins(rows, score)
    pairs = counts[:, 0].sum() * counts[:, 1].sum()
    return float(wins.sum() / pairs) if pairs else float("nan")


def _inside(rows: pd.DataFrame) -> float:
    wins, counts = _wins(rows, "outlook")
    pairs = counts.prod(axis=1).sum()
    return float(np.trace(wins) / pairs) if pairs else float("nan")


def _auroc(rows: pd.DataFrame, seed: int) -> str:
    """Return the AUROC of the outlook with its interval by bootstrap over runs."""
    wins, counts = _wins(rows, "outlook")
    drawn = _drawn_runs(len(wins), seed)
    won = np.einsum("dr,rs,ds->d", drawn, wins, drawn)
    return _with_interval(_point(rows, "outlook"), won, (drawn @ counts).prod(axis=1))


def _gain(rows: pd.DataFrame, seed: int) -> str:
    """Return by how much the AUROC of the outlook exceeds that of the recent mean, with its interval over runs."""
    wins, counts = _wins(rows, "outlook")
    more = wins - _wins(rows, "level")[0]
    drawn = _drawn_runs(len(wins), seed)
    won = np.einsum("dr,rs,ds->d", drawn, more, drawn)
    value = _point(rows, "outlook") - _point(rows, "level")
    return _with_interval(value, won, (drawn @ counts).prod(axis=1), "+.2f")


def _signs(rows: pd.DataFrame, which: str, seed: int) -> list[str]:
    """Return the share of right signs among channels that moved, its interval over runs, and the share that rose."""
    moved = rows[rows[which].abs() > CLEAR * rows[f"{which}_error"]]
    if moved.empty:
        return ["-", "-"]
    right = np.sign(moved[which]) == np.sign(moved["change"])
    runs = right.groupby([moved["task"], moved["method"], moved["seed"]], sort=False).agg(["sum", "size"]).to_numpy()
    drawn = _drawn_runs(len(runs), seed) @ runs
    return [f"{_with_interval(right.mean(), *drawn.T)} of {len(moved)}", f"{(moved[which] > 0).mean():.2f}"]


def _drawn_runs(number: int, seed: int) -> Float[np.ndarray, "D R"]:
    """Return how often each run is in each bootstrap draw."""
    drawn = np.random.default_rng(seed).multinomial(number, np.full(number, 1 / number), size=DRAWS)
    return drawn.astype(np.float64)


def _with_interval(value: float, part: Float[np.ndarray, " D"], of: Float[np.ndarray, " D"], form: str = ".2f") -> str:
    """Return a share with the interval of part / of over the draws."""
    if not (of > 0).any():
        return "-"
    low, high = np.quantile(part[of > 0] / of[of > 0], [0.025, 0.975])
    return f"{value:{form}} [{low:{form}}, {high:{form}}]"
