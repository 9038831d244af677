"""What each method would teach a real model about a criterion, by how often it is met: from a log, without training.

    python -m rvpo_lab.instructions.gains rollouts.parquet

For a small step along an advantage A, the expected reward of channel j changes in proportion to `Cov_g(R_j, A)`
(`rvpo_lab.suite.gains`). `docs/algorithm.md` derives it for criteria that are met independently of each other: against
GDPO, what RVPO teaches about a rarely met criterion vanishes as sqrt(p). Criteria of a real text are not independent,
so the same covariances are also computed after each channel's rewards have been shuffled inside their group: equal
pass rates, equal dead channels, no dependence. What differs between the two is the dependence.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from rvpo.core.advantages import compute_advantages
from rvpo.core.zscores import divide
from rvpo.stats import Ratio, bootstrap_interval
from rvpo.text import markdown_table, number, span
from rvpo_lab.instructions.task import describe

__all__ = ["RolloutLog", "Taught", "gains", "gains_tables", "rates_table", "ratios", "read_log", "shuffled", "taught"]

IN_GROUP = (0.0, 0.15, 0.3, 0.7, 0.85, 1.0)
"""Edges of pass rates inside a group: of eight rollouts 1; 2; 3 to 5; 6; 7. Always or never met teaches nothing."""
OVERALL = (0.0, 0.05, 0.15, 0.35, 0.65, 1.0)
"""Edges of pass rates of a channel over all prompts."""
FORMS = (
    ("RVPO k=1", "rvpo", 1.0),
    ("RVPO k=2", "rvpo", 2.0),
    ("policy level k=2", "rvpo_policy", 2.0),
    ("MaxRL", "maxrl", 0.0),
)
SHUFFLES = 50
DRAWS = 10_000


@dataclass(frozen=True)
class RolloutLog:
    """The rewards of a log."""

    names: list[str]
    """Of the M channels."""
    rewards: Float[np.ndarray, "P G M"]
    """NaN: the prompt has no such channel."""


def read_log(file: Path) -> RolloutLog:
    """Return the rewards of a parquet file with `group` and `rewards`, groups of equal size next to each other."""
    import pyarrow.parquet as pq

    rows = pq.read_table(file).to_pylist()
    maps = [dict(row["rewards"]) for row in rows]
    names = sorted({name for rewards in maps for name in rewards})
    prompts = len({row["group"] for row in rows})
    values = np.array([[rewards.get(name, np.nan) for name in names] for rewards in maps])
    return RolloutLog(names, values.reshape(prompts, len(rows) // prompts, len(names)))


def gains(rewards: Float[np.ndarray, "P G M"], method: str, k: float) -> Float[np.ndarray, "P M"]:
    """Return each channel's covariance with the advantage in each group, per unit of the advantage's spread in groups.

    The spread is the standard deviation inside groups over the whole log. NaN where a prompt has no such channel.
    """
    advantages = compute_advantages(rewards, method=method, k=k, whiten=False).advantages
    inside = advantages - advantages.mean(axis=1, keepdims=True)
    channels = rewards - rewards.mean(axis=1, keepdims=True)
    spread = np.sqrt(np.mean(inside**2))
    return np.asarray(divide((channels * inside[:, :, None]).mean(axis=1), spread, spread > 0))


def shuffled(rewards: Float[np.ndarray, "P G M"], seed: int) -> Float[np.ndarray, "P G M"]:
    """Return the rewards with the rollouts of each group in another random order for every channel."""
    return np.random.default_rng(seed).permuted(rewards, axis=1)


class Taught(NamedTuple):
    """What a method teaches in each group of a log; see `gains`."""

    measured: Float[np.ndarray, "P M"]
    independent: Float[np.ndarray, "P M"]
    """The mean over `SHUFFLES` shuffles of the same rewards."""


def taught(rewards: Float[np.ndarray, "P G M"], method: str, k: float) -> Taught:
    """Return what a method teaches on these rewards, and on the same rewards shuffled."""
    others = [gains(shuffled(rewards, seed), method, k) for seed in range(SHUFFLES)]
    return Taught(gains(rewards, method, k), np.mean(others, axis=0))


def ratios(form: Taught, base: Taught, where: Bool[np.ndarray, "P M"]) -> tuple[Ratio, float]:
    """Return how much more a method teaches than another about the channels `where`, as measured and when shuffled.

    The first has its 95 % interval over prompts, NaN where these are too few for one.
    """

    def sums(values: Float[np.ndarray, "P M"]) -> Float[np.ndarray, " P"]:
        return np.asarray(np.where(where, values, 0.0).sum(axis=1))

    above, below = sums(form.measured), sums(base.measured)
    drawn = np.random.default_rng(0).integers(0, len(above), (DRAWS, len(above)))
    totals = below[drawn].sum(axis=1)
    has_ratio = bool(totals.min() > 0)
    low, high = np.quantile(above[drawn].sum(axis=1) / totals, [0.025, 0.975]) if has_ratio else (np.nan, np.nan)
    measured = Ratio(float(above.sum() / below.sum()), float(low), float(high), len(above))
    return measured, float(sums(form.independent).sum() / sums(base.independent).sum())


def gains_tables(log: RolloutLog) -> tuple[str, str]:
    """Return as Markdown what each of `FORMS` teaches about a criterion against GDPO, by its pass rate.

    First by the pass rate in the group itself, then by that of the channel over all prompts. A bin has its upper edge.
    """
    base = taught(log.rewards, "gdpo", 1.0)
    forms = [taught(log.rewards, method, k) for _, method, k in FORMS]
    inside = log.rewards.mean(axis=1)
    is_live = (inside > 0) & (inside < 1)
    overall = np.where(np.isnan(inside), np.nan, np.nanmean(inside, axis=0))
    tables = []
    for rates, edges in ((inside, IN_GROUP), (overall, OVERALL)):
        rows = []
        for low, high in pairwise(edges):
            where = is_live & (rates > low) & (rates <= high)
            if not where.any():
                continue
            cells = [number(float(rates[where].mean())), str(int(where.sum()))]
            for form in forms:
                measured, independent = ratios(form, base, where)
                ends = f" [{number(measured.low)}, {number(measured.high)}]" if np.isfinite(measured.low) else ""
                cells += [number(measured.value) + ends, number(independent)]
            rows.append(cells)
        heads = [head for name, _, _ in FORMS for head in (name, "if independent")]
        tables.append(markdown_table(["pass rate", "live groups", *heads], rows))
    return tables[0], tables[1]


def rates_table(log: RolloutLog) -> str:
    """Return as Markdown each channel's pass rate, with its interval over prompts, and the share of live groups."""
    rows = []
    for index, name in enumerate(log.names):
        groups = log.rewards[:, :, index]
        groups = groups[~np.isnan(groups[:, 0])]
        rates = groups.mean(axis=1)
        mean = bootstrap_interval(rates)
        live = float(np.mean((rates > 0) & (rates < 1)))
        cells = [describe(name), str(len(groups)), number(mean.mean), span(mean.low, mean.high), number(live)]
        rows.append((mean.mean, [name, *cells]))
    heads = ["channel", "the answer ...", "prompts", "pass rate", "95 %", "live"]
    return markdown_table(heads, [row for _, row in sorted(rows)])


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("log", type=Path, metavar="LOG", help="parquet of `rvpo_lab.instructions.rollouts`")
    log = read_log(parser.parse_args(arguments).log)
    print(rates_table(log))
    print("\n".join(gains_tables(log)))


if __name__ == "__main__":
    main()
