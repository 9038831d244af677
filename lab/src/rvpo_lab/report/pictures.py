"""The figures of the findings: where every method leaves the lowest third of the channels, and what each teaches."""

from collections.abc import Sequence

import pandas as pd

from rvpo.report.drawing import looks_of
from rvpo.report.images import NamedFigure
from rvpo.stats import bootstrap_interval
from rvpo_lab.report.suite_figures import Gains, Level, gains_figure, levels_figure
from rvpo_lab.suite.cell_file import CellRecord
from rvpo_lab.suite.gains import LINES, RATES, measured_gains, model_gains
from rvpo_lab.suite.plan import label

__all__ = ["gains_picture", "lowest_picture"]


def lowest_picture(runs: pd.DataFrame) -> NamedFigure:
    """Return the figure of the lowest third at the end of training: means and 95 % intervals over seeds.

    `runs` has the rows of `rvpo_lab.suite.results.run_scores`.
    """
    levels = []
    for (task, method), of_method in runs.groupby(["task", "method"], sort=False):
        final = bootstrap_interval(of_method["final_lowest"])
        levels.append(Level(str(task), str(method), final.mean, final.low, final.high))
    looks = looks_of({level.method: label(level.method) for level in levels})
    title = "Mean of the lowest third of the channels at the end, 95 % intervals over seeds"
    means = "; ".join(f"{level.task} {label(level.method)} {level.mean:.2f}" for level in levels)
    return NamedFigure("lowest", title, f"{title}: {means}.", levels_figure(levels, looks, title))


def gains_picture(records: Sequence[CellRecord] = ()) -> NamedFigure:
    """Return the figure of gains: a probe's in the model, and those of the channels of these runs, if any.

    Channels that are always or never met have no gain and no place on the axis; they are left out.
    """
    expected = [Gains(name, RATES, gains) for name, gains in model_gains().items()]
    points = [point for point in (measured_gains(records) if records else []) if 0 < point.rate < 1]
    by_line = {line.name: [point for point in points if point.line == line.name] for line in LINES}
    measured = [
        Gains(name, tuple(point.rate for point in of_line), tuple(point.gain for point in of_line))
        for name, of_line in by_line.items()
    ]
    looks = looks_of({line.name: line.label for line in LINES})
    middle = len(RATES) // 2
    values = "; ".join(
        f"{line.label} {curve.gains[0]:.3f} at {RATES[0]:.2f}, {curve.gains[middle]:.3f} at {RATES[middle]:.2f} "
        f"and {curve.gains[-1]:.3f} at {RATES[-1]:.2f}"
        for line, curve in zip(LINES, expected, strict=True)
    )
    description = f"First-order gain of a criterion per unit of advantage against its pass rate: {values}."
    title = "What each method teaches about a criterion, by its pass rate"
    return NamedFigure("gains", title, description, gains_figure(expected, measured if points else [], looks))
