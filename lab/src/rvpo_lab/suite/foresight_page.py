"""The audit's forecast against what happened, as Markdown: AUROC, signs, falls, and the order of the methods."""

from collections.abc import Sequence
from textwrap import fill
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from rvpo.stats import NEGLECTED, bootstrap_interval
from rvpo.text import NOTHING, interval, markdown_table, number
from rvpo_lab.suite.cell_file import CellRecord
from rvpo_lab.suite.foresight import SPANS, audits, forecasts, orders
from rvpo_lab.suite.plan import label
from rvpo_lab.suite.results import RUN

__all__ = ["CHOSEN_ON", "foresight", "paragraph"]

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


def foresight(records: Sequence[CellRecord], *, seed: int = 0) -> str:
    """Return as Markdown how well audits of the first steps foretell the end of the runs.

    Raises:
        ConfigError: no run of a known method with rollouts and two evaluations after them.
    """
    audited = audits(records)
    channels, methods = forecasts(audited), orders(audited)
    parts = []
    for chosen_on in (False, True):
        rows = channels[channels["seed"].isin(CHOSEN_ON) == chosen_on]
        if rows.empty:
            continue
        seeds = ", ".join(map(str, sorted(rows["seed"].unique())))
        title = f"Seeds {seeds}, on which the horizon was chosen" if chosen_on else f"Seeds {seeds}, a test"
        order = _order_lines(methods[methods["seed"].isin(CHOSEN_ON) == chosen_on], seed)
        parts.append("\n".join([f"**{title}**\n", _ranking(rows, seed), _sign_table(rows, seed), falls(rows), order]))
    return "\n".join([*parts, LEGEND])


def paragraph(text: str) -> str:
    """Return a paragraph in lines of the repository's width, with its line break."""
    return fill(text, 119, break_on_hyphens=False) + "\n"


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
