"""Figures of suites: numbers in, matplotlib figures out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rvpo.report.curves import finite_mean
from rvpo.report.drawing import (
    FAINT,
    INK,
    MUTED,
    SMALL,
    TEXT,
    WIDTH,
    Look,
    axes_at,
    bare_figure,
    beside,
    plain,
    title,
    write,
)
from rvpo.text import number, percent

__all__ = ["Final", "overview_figure"]


@dataclass(frozen=True)
class Final:
    """Where a method's runs end."""

    method: str
    neglected: tuple[float, ...]
    """Share of its channels that each run neglects, in [0, 1]."""
    mean: tuple[float, ...]
    """Held-out mean of each run."""


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
