"""Figures of suites: numbers in, matplotlib figures out.

The figures of the findings are made from runs: where every method leaves the lowest third of the channels, what each
teaches, and the course of longer runs, with the channels that die out.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rvpo.report.drawing import (
    FAINT,
    INK,
    MUTED,
    SMALL,
    TEXT,
    WIDTH,
    Look,
    NamedFigure,
    axes_at,
    bare_figure,
    beside,
    legend,
    legend_rows,
    line,
    looks_of,
    plain,
    title,
    write,
)
from rvpo.report.figures import curves_figure
from rvpo.report.training import Panel, finite_mean, mean_curve
from rvpo.stats import bootstrap_interval
from rvpo.text import number, percent, plural
from rvpo_lab.suite.gains import LINES, RATES, measured_gains, model_gains
from rvpo_lab.suite.longer import died_out
from rvpo_lab.suite.plan import label
from rvpo_lab.suite.results import means_of_channels, score_curves
from rvpo_lab.suite.rivals import whole_seeds
from rvpo_lab.suite.storage import CellRecord

__all__ = [
    "Final",
    "Gains",
    "Level",
    "courses_picture",
    "gains_figure",
    "gains_picture",
    "levels_figure",
    "lowest_picture",
    "overview_figure",
]


@dataclass(frozen=True)
class Final:
    """Where a method's runs end."""

    method: str
    neglected: tuple[float, ...]
    """Share of its channels that each run neglects, in [0, 1]."""
    mean: tuple[float, ...]
    """Held-out mean of each run."""


@dataclass(frozen=True)
class Gains:
    """What a method teaches about criteria of different pass rates."""

    method: str
    rates: tuple[float, ...]
    gains: tuple[float, ...]
    """In units of the reward per unit of advantage; one for each rate."""


@dataclass(frozen=True)
class Level:
    """Where a method ends on a task, with an interval over its runs."""

    task: str
    method: str
    mean: float
    low: float
    high: float


def overview_figure(finals: Sequence[Final], looks: Mapping[str, Look]) -> Figure:
    """Draw where the methods end: share neglected on the left, held-out mean on the right.

    A faint dot is a run, the large marker the mean over runs, which is also written beside it.
    """
    left, between, end, head, height = 112.0, 22.0, 50.0, 42.0, 25.0 * len(finals)
    figure = bare_figure(head + height + 26)
    width = (WIDTH - left - between - 2 * end) / 2
    names = [plain(looks[final.method].label, 20) for final in finals]
    for side, heading in enumerate(("Share of channels neglected at the end", "Held-out mean at the end")):
        axes = axes_at(figure, left + side * (width + end + between), head, width, height)
        title(axes, heading, wide=True, pad=19)
        hint = "less is better" if side == 0 else "more is better"
        write(figure, left + side * (width + end + between), head - 8, hint, fontsize=SMALL, alpha=MUTED)
        axes.set(xlim=(-0.03, 1.03), ylim=(len(finals) - 0.5, -0.5), xticks=[0, 0.25, 0.5, 0.75, 1])
        axes.set_xticklabels([f"{tick:.0%}" if side == 0 else f"{tick:g}" for tick in axes.get_xticks()])
        axes.set_yticks(range(len(finals)), names if side == 0 else [""] * len(finals), fontsize=TEXT, color=INK)
        axes.grid(axis="x", color=INK, alpha=FAINT, linewidth=0.6)
        for place, final in enumerate(finals):
            values, written = (final.neglected, _in_percent) if side == 0 else (final.mean, number)
            _ends(axes, place, values, looks[final.method], written)
    return figure


def _in_percent(share: float) -> str:
    return percent(share, 1)


def _ends(axes: Axes, place: int, values: Sequence[float], look: Look, written: Callable[[float], str]) -> None:
    """Draw one method's runs and their mean on its line."""
    mean = finite_mean(values)
    axes.axhline(place, color=INK, alpha=FAINT, linewidth=0.6)
    if len(values) > 1:
        axes.plot(values, [place] * len(values), "o", color=look.colour, alpha=0.45, markersize=3.5, markeredgewidth=0)
    axes.plot([mean], [place], look.marker, color=look.colour, markersize=7.5, markeredgewidth=0)
    beside(axes, place, written(mean), TEXT)


def levels_figure(levels: Sequence[Level], looks: Mapping[str, Look], heading: str) -> Figure:
    """Draw where the methods end on every task: a panel a task, a line a method, with intervals."""
    tasks = list(dict.fromkeys(level.task for level in levels))
    methods = list(dict.fromkeys(level.method for level in levels))
    columns, left, between, end, head = 3, 92.0, 14.0, 34.0, 48.0
    height, below = 15.0 * len(methods), 44.0
    rows = math.ceil(len(tasks) / columns)
    figure = bare_figure(head + rows * (height + below))
    write(figure, 0, 14, heading, fontsize=TEXT + 1, weight="bold")
    width = (WIDTH - left - columns * end - (columns - 1) * between) / columns
    for index, task in enumerate(tasks):
        row, column = divmod(index, columns)
        axes = axes_at(figure, left + column * (width + end + between), head + row * (height + below), width, height)
        title(axes, task, pad=5)
        of_task = {level.method: level for level in levels if level.task == task}
        axes.set(xlim=(-0.02, 1.02), ylim=(len(methods) - 0.5, -0.5), xticks=[0, 0.25, 0.5, 0.75, 1])
        axes.set_xticklabels([f"{tick:g}" for tick in axes.get_xticks()])
        names = [plain(looks[method].label, 18) if column == 0 else "" for method in methods]
        axes.set_yticks(range(len(methods)), names, fontsize=SMALL, color=INK)
        axes.grid(axis="x", color=INK, alpha=FAINT, linewidth=0.6)
        for place, method in enumerate(methods):
            if method in of_task:
                _interval(axes, place, of_task[method], looks[method])
    return figure


def _interval(axes: Axes, place: int, level: Level, look: Look) -> None:
    """Draw one method's mean and interval on its line, and write the mean beside it."""
    axes.plot([level.low, level.high], [place, place], color=look.colour, linewidth=2.2, alpha=0.5)
    axes.plot([level.mean], [place], look.marker, color=look.colour, markersize=6, markeredgewidth=0)
    beside(axes, place, number(level.mean), SMALL)


def gains_figure(expected: Sequence[Gains], measured: Sequence[Gains], looks: Mapping[str, Look]) -> Figure:
    """Draw gains against pass rates on a log-odds axis: lines for the model, marks for the channels of real rollouts.

    Without `measured` there is one panel.
    """
    shown = [looks[gains.method] for gains in expected]
    head, left, between, height = 17.0 * legend_rows(shown)[0] + 14, 40.0, 40.0, 210.0
    figure = bare_figure(head + height + 62)
    legend(figure, shown)
    parts = [("One criterion among independent ones", expected)]
    parts += [("Channels of real rollouts", measured)] if measured else []
    width = (WIDTH - left - 8 - between * (len(parts) - 1)) / len(parts)
    for index, (heading, curves) in enumerate(parts):
        axes = axes_at(figure, left + index * (width + between), head + 18, width, height)
        title(axes, heading, wide=True, pad=6)
        for gains in curves:
            look = looks[gains.method]
            odds = [math.log(rate / (1 - rate)) for rate in gains.rates]
            drawn = line(look, odds, gains.gains, every=1 if index else max(len(odds) // 8, 1))
            if index:
                drawn.set(linestyle="none", markersize=5.5, alpha=0.8)
            axes.add_line(drawn)
        _rates_below(axes)
    return figure


def _rates_below(axes: Axes) -> None:
    """Set ticks at pass rates, a line at 0 and what the axes mean."""
    ticks = (0.01, 0.05, 0.2, 0.5, 0.8, 0.95, 0.99)
    axes.set_xticks([math.log(rate / (1 - rate)) for rate in ticks], [f"{rate:g}" for rate in ticks])
    axes.margins(x=0.03, y=0.08)
    axes.autoscale_view()
    axes.grid(axis="y", color=INK, alpha=FAINT, linewidth=0.6)
    axes.axhline(0, color=INK, alpha=0.5, linewidth=0.8)
    axes.spines["bottom"].set_visible(False)
    axes.set_xlabel("pass rate of the criterion", fontsize=SMALL, color=INK, alpha=MUTED, labelpad=2)
    axes.set_ylabel("gain per step", fontsize=SMALL, color=INK, alpha=MUTED, labelpad=2)


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


MOST_CHANNELS = 6
"""Channels of the picture of courses."""


def courses_picture(records: Sequence[CellRecord]) -> NamedFigure:
    """Return the figure of longer runs: each task's lowest third, and the channels that most often died out.

    A band reaches from the lowest seed to the highest. Only whole seeds are drawn, as in the tables beside it.
    """
    records = whole_seeds(records)
    tasks = list(dict.fromkeys(record.cell.task for record in records))
    died = Counter((record.cell.task, channel) for record in records for channel in died_out(record))
    shown: list[tuple[str, str | None]] = [(task, None) for task in tasks]
    shown += [channel for channel, _ in sorted(died.items(), key=lambda item: (-item[1], item[0]))[:MOST_CHANNELS]]
    panels = [_course([record for record in records if record.cell.task == task], name) for task, name in shown]
    looks = looks_of({name: label(name) for name in dict.fromkeys(record.cell.contender for record in records)})
    title = "Longer training: the lowest third, and the channels that most often died out"
    often = "; ".join(
        f"{channel} of {task} in {plural(count, 'run')}" for (task, channel), count in died.most_common()
    )
    return NamedFigure("courses", title, f"{title}. Died out: {often or 'none'}.", curves_figure(panels, looks))


def _course(records: Sequence[CellRecord], channel: str | None) -> Panel:
    """Return the panel of a channel of one task, or of its lowest third."""

    def values(record: CellRecord) -> list[float]:
        if channel is None:
            return list(map(float, score_curves(record)["lowest"]))
        means = means_of_channels(record)
        return list(map(float, means.values[:, means.names.index(channel)]))

    curves = [
        mean_curve(name, [(record.steps, values(record)) for record in records if record.cell.contender == name])
        for name in dict.fromkeys(record.cell.contender for record in records)
    ]
    task = records[0].cell.task
    return Panel(f"{task}: lowest third" if channel is None else f"{task}: {channel}", tuple(curves))
