"""Methods compared on equal terms: at equal steps, and at equal distance from where their policies started.

Runs are paired by task and seed (same start, same prompts in the same order). The distance is the KL to the start,
measured on held-out answers at each evaluation: a method that moves its policy less should not look safer for that. It
is noisy, too, so its isotonic fit over the evaluations is taken, as for the steps to a level (`first_passage`).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from rvpo.stats import PairedTest, paired_test
from rvpo_lab.suite.cell_file import CellRecord
from rvpo_lab.suite.first_passage import isotonic
from rvpo_lab.suite.plan import BASELINE
from rvpo_lab.suite.results import score_curves

__all__ = ["MEASURES", "Comparison", "at_distance", "compare_at_distance", "compare_at_end", "end_of"]

MEASURES = {"mean": "mean", "lowest": "lowest third", "neglected": "neglected"}
"""Scores of `results` that methods are compared by, and what tables call them."""


class Comparison(NamedTuple):
    """A method against a baseline over their pairs of runs."""

    tests: dict[str, PairedTest]
    """Of each of `MEASURES`."""
    distance: float
    """Mean KL to the start at which the method's runs were compared, nats a token."""

    @property
    def pairs(self) -> int:
        """Pairs of runs."""
        return self.tests["mean"].pairs


def end_of(record: CellRecord) -> dict[str, float]:
    """Return the measures of a run at its last evaluation."""
    curves = score_curves(record)
    return {name: float(curves[name][-1]) for name in MEASURES}


def travelled(record: CellRecord) -> Float[np.ndarray, " E"]:
    """Return the KL to the start at the E evaluations, nats a token, made monotone."""
    return isotonic(record.about["kl_per_token"])


def at_distance(record: CellRecord, kl: float) -> dict[str, float]:
    """Return the measures where the run last is no farther from its start than `kl` (nats a token).

    Between two evaluations a run moves on a straight line.
    """
    reached = travelled(record)
    is_beyond = reached > kl + 1e-12  # not its own end, whatever the rounding
    if not is_beyond.any():
        return end_of(record)
    after = max(int(np.argmax(is_beyond)), 1)
    share = float(np.clip((kl - reached[after - 1]) / (reached[after] - reached[after - 1] or 1.0), 0.0, 1.0))
    curves = score_curves(record)
    return {name: float((1 - share) * curves[name][after - 1] + share * curves[name][after]) for name in MEASURES}


def _paired(
    records: Sequence[CellRecord], method: str, baseline: str = BASELINE
) -> list[tuple[CellRecord, CellRecord]]:
    """Return (method's, baseline's) runs of every task and seed that both have."""
    own, reference = (
        {(record.cell.task, record.cell.seed): record for record in records if record.cell.contender == name}
        for name in (method, baseline)
    )
    return [(own[place], reference[place]) for place in own if place in reference]


def compare_at_end(records: Sequence[CellRecord], method: str, baseline: str = BASELINE) -> Comparison | None:
    """Compare at equal steps, those of the last evaluation; None without a pair."""
    pairs = _paired(records, method, baseline)
    distances = [own.about.get("kl_per_token", [np.nan])[-1] for own, _ in pairs]
    return _compare([(end_of(own), end_of(reference)) for own, reference in pairs], distances)


def compare_at_distance(records: Sequence[CellRecord], method: str, baseline: str = BASELINE) -> Comparison | None:
    """Compare at equal distance, the largest that both runs of a pair reached; None without a pair."""
    pairs = _paired(records, method, baseline)
    distances = [float(min(travelled(record)[-1] for record in pair)) for pair in pairs]
    measured = [(at_distance(a, kl), at_distance(b, kl)) for (a, b), kl in zip(pairs, distances, strict=True)]
    return _compare(measured, distances)


def _compare(
    measured: Sequence[tuple[dict[str, float], dict[str, float]]], distances: Sequence[float]
) -> Comparison | None:
    if not measured:
        return None
    tests = {name: paired_test(*zip(*((a[name], b[name]) for a, b in measured), strict=True)) for name in MEASURES}
    return Comparison(tests, float(np.mean(distances)))
