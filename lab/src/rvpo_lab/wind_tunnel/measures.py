"""What becomes of the criteria of a simulation: measures of every instance, and methods compared over instances."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from rvpo.errors import unknown_name
from rvpo.stats import NEGLECTED, Interval, PairedTest, bootstrap_interval, holm, lowest_third, paired_test
from rvpo_lab.wind_tunnel.training import Simulation

__all__ = ["BOOTSTRAP_DRAWS", "MeasureRow", "Measures", "compare", "measures"]

BOOTSTRAP_DRAWS = 2000
"""For intervals and p-values over instances; thousands of these make more draws a waste."""

Measures = dict[str, Float[np.ndarray, " I"]]
"""Values of every instance, by the measure's name."""


@dataclass(frozen=True)
class MeasureRow:
    """A measure of a method, over instances."""

    method: str
    measure: str
    """A key of `measures`."""
    value: Interval
    test: PairedTest | None
    """The method (a) against the reference (b), instance by instance; None for the reference itself."""
    p_holm: float
    """The test's p-value by Holm's correction over the methods; NaN without a test."""


def measures(rates: Float[np.ndarray, "I M"], base_rates: Float[np.ndarray, "I M"]) -> Measures:
    """Return what the pass rates of each instance come to.

    - mean: over criteria. lowest_third: of the pass rates, as `rvpo.stats.lowest_third`. neglected: share of criteria
      below `rvpo.stats.NEGLECTED`.
    - hard, medium, easy: mean over the criteria with the lowest base rates, those between, and those with the highest;
      hard and easy are `max(round(M / 3), 1)` criteria each, so that there are some between. M = 1: hard and easy are
      the same criterion; M < 3: there is no medium.
    """
    channels = rates.shape[1]
    third = max(round(channels / 3), 1)
    by_base_rate = np.take_along_axis(rates, np.argsort(base_rates, axis=1, kind="stable"), axis=1)
    values = {
        "mean": rates.mean(axis=1),
        "lowest_third": lowest_third(rates),
        "neglected": (rates < NEGLECTED).mean(axis=1),
        "hard": by_base_rate[:, :third].mean(axis=1),
    }
    if channels >= 3:
        values["medium"] = by_base_rate[:, third : channels - third].mean(axis=1)
    return values | {"easy": by_base_rate[:, channels - third :].mean(axis=1)}


def compare(
    simulation: Simulation, reference: str, *, seed: int = 0, draws: int = BOOTSTRAP_DRAWS
) -> list[MeasureRow]:
    """Return every measure of every method with its interval, tested against the reference method.

    Instances are the unit: intervals by bootstrap over them, p-values by sign flips of their paired differences
    (see `rvpo.stats`), corrected over the methods that a measure is tested for.
    """
    base_rates = simulation.instances.base_rates
    measured = {name: measures(rates, base_rates) for name, rates in simulation.final.items()}
    if reference not in measured:
        raise unknown_name("reference", reference, measured)
    rows = []
    for measure, against in measured[reference].items():
        values = {name: of_method[measure] for name, of_method in measured.items()}
        tests = {
            name: paired_test(value, against, seed=seed, draws=draws)
            for name, value in values.items()
            if name != reference
        }
        adjusted = dict(zip(tests, holm([test.p_value for test in tests.values()]).tolist(), strict=True))
        rows += [
            MeasureRow(
                name,
                measure,
                bootstrap_interval(value, seed=seed, draws=draws),
                tests.get(name),
                adjusted.get(name, math.nan),
            )
            for name, value in values.items()
        ]
    return rows
