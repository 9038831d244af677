"""The aim, held against the runs: no reward neglected, and nothing paid for it.

At the end of training, against GDPO on the same tasks and seeds:

    lowest   mean of the lowest third of the channels      at least `LOWEST` times GDPO's
    mean     mean of all channels                          at least `MEAN` times GDPO's
    kept     final mean over best mean of the same runs    at least `KEPT`

The first asks for more than noise on every task that has a hard criterion or a conflict; the other two that it is
not bought with the rest, or given back late.
"""

from dataclasses import dataclass

import pandas as pd

from rvpo.stats import Ratio, bootstrap_ratio, holm, paired_test
from rvpo_lab.suite.compare import paired_runs
from rvpo_lab.suite.plan import BASELINE

__all__ = ["KEPT", "LOWEST", "MEAN", "Aim", "hold_against_aim"]

LOWEST, MEAN, KEPT = 1.21, 0.98, 0.97


@dataclass(frozen=True)
class Aim:
    """One method on one task."""

    task: str
    lowest_a: float
    """Mean of the lowest third at the end, the method's and the baseline's."""
    lowest_b: float
    lowest: Ratio
    mean: Ratio
    kept: Ratio
    p_value: float
    """Two-sided, by sign flips over seeds, of the lowest third."""
    adjusted: float
    """The same after Holm's correction over the tasks."""

    @property
    def missed(self) -> list[str]:
        """The parts of the aim that the estimates do not reach."""
        parts = (("lowest third", self.lowest, LOWEST), ("mean", self.mean, MEAN), ("final / best", self.kept, KEPT))
        return [name for name, ratio, aim in parts if not ratio.value >= aim]


def hold_against_aim(runs: pd.DataFrame, method: str, *, baseline: str = BASELINE) -> list[Aim]:
    """Hold the runs of a method (rows of `results.run_scores`) against the aim, task by task.

    Each seed is a unit: ratios are of means over seeds, intervals 95 % by bootstrap over seeds. Tasks without a
    pair are left out.
    """
    compared: list[tuple[str, pd.DataFrame, pd.DataFrame, pd.DataFrame]] = []
    for task, of_task in runs.groupby("task", sort=False):
        lowest = paired_runs(of_task, method, baseline, "final_lowest")
        if len(lowest):
            of_method = of_task[of_task["method"] == method]
            compared.append((str(task), lowest, paired_runs(of_task, method, baseline, "final_mean"), of_method))
    tests = [paired_test(lowest["a"], lowest["b"]) for _, lowest, _, _ in compared]
    adjusted_p = holm([test.p_value for test in tests])
    return [
        Aim(
            task,
            float(lowest["a"].mean()),
            float(lowest["b"].mean()),
            bootstrap_ratio(lowest["a"], lowest["b"]),
            bootstrap_ratio(mean["a"], mean["b"]),
            bootstrap_ratio(of_method["final_mean"], of_method["best_mean"]),
            test.p_value,
            float(adjusted),
        )
        for (task, lowest, mean, of_method), test, adjusted in zip(compared, tests, adjusted_p, strict=True)
    ]
