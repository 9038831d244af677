"""The figure of the findings: where every method leaves the lowest third of the channels, task by task."""

from collections.abc import Sequence

from rvpo.report.drawing import looks_of
from rvpo.report.figures import Level, levels_figure
from rvpo.report.images import NamedFigure
from rvpo.stats import bootstrap_interval
from rvpo_lab.suite.cell_file import CellRecord
from rvpo_lab.suite.markdown import label
from rvpo_lab.suite.results import run_scores

__all__ = ["lowest_picture"]


def lowest_picture(records: Sequence[CellRecord]) -> NamedFigure:
    """Return the figure of the lowest third at the end of training: means and 95 % intervals over seeds."""
    runs = run_scores(records)
    levels = []
    for (task, method), own in runs.groupby(["task", "method"], sort=False):
        interval = bootstrap_interval(own["final_lowest"])
        levels.append(Level(str(task), str(method), interval.mean, interval.low, interval.high))
    methods = list(dict.fromkeys(one.method for one in levels))
    title = "Mean of the lowest third of the channels at the end, 95 % intervals over seeds"
    told = "; ".join(f"{one.task} {label(one.method)} {one.mean:.2f}" for one in levels)
    looks = looks_of({method: label(method) for method in methods})
    return NamedFigure("lowest", title, f"{title}: {told}.", levels_figure(levels, looks, title))
