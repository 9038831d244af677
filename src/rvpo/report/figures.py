"""The report's figures: numbers in, matplotlib figures out. Nothing is read, saved or shown here.

The picture of constraint neglect has its numbers here, too: two answers of equal mean reward, and what each method
makes of them. A group of eight answers is graded on three easy criteria and a critical one that five of them fail.
Answer A is best on the easy ones and fails the critical one; answer B is middling on all four; both have the
mean 0.60.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rvpo.core.advantages import compute_advantages
from rvpo.report.drawing import (
    BLUE,
    DOTTED,
    FAINT,
    INK,
    MUTED,
    SMALL,
    VERMILLION,
    WIDTH,
    Look,
    axes_at,
    bare_figure,
    beside,
    legend,
    legend_rows,
    line,
    plain,
    step_label,
    title,
    write,
)
from rvpo.report.training import Panel, WeightMap
from rvpo.text import number, signed

__all__ = [
    "CRITERIA",
    "GROUP",
    "Preference",
    "curves_figure",
    "neglect_figure",
    "preferences",
    "sentence",
    "weights_figure",
]

CRITERIA = ("easy", "easy", "easy", "critical")
GROUP = np.asarray(
    [
        [0.8, 0.8, 0.8, 0.0],  # answer A
        [0.6, 0.6, 0.6, 0.6],  # answer B
        [0.7, 0.5, 0.8, 0.0],
        [0.5, 0.8, 0.6, 0.0],
        [0.6, 0.7, 0.5, 0.5],
        [0.8, 0.6, 0.7, 0.0],
        [0.5, 0.5, 0.5, 0.7],
        [0.7, 0.6, 0.6, 0.0],
    ]
)
METHODS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("grpo", "GRPO", {"method": "grpo"}),
    ("gdpo", "GDPO", {"method": "gdpo"}),
    ("rvpo", "RVPO, k = 2", {"method": "rvpo", "k": 2.0}),
    ("maxrl", "MaxRL", {"method": "maxrl"}),
)
SAME = 0.005
"""Advantages that are equal to two digits count as the same."""


@dataclass(frozen=True)
class Preference:
    """The advantages that a method gives the two answers."""

    method: str
    label: str
    a: float
    b: float
    verdict: str
    """Which answer the method prefers, in words."""


def verdict(gap: float, widest: float) -> str:
    """Return which answer is preferred, from A's advantage minus B's and the largest such difference of any method.

    >>> verdict(0.0, 2.0), verdict(0.5, 2.0), verdict(-1.0, 2.0)
    ('sees no difference', 'prefers A, by less', 'prefers B')
    """
    if abs(gap) < SAME:
        return "sees no difference"
    if gap < 0:
        return "prefers B"
    return "prefers A" if gap > widest / 2 else "prefers A, by less"


def preferences() -> list[Preference]:
    """Return what each method gives answers A and B, the first two of `GROUP`."""
    pairs = [compute_advantages(GROUP[None], **options).advantages[0, :2] for _, _, options in METHODS]
    widest = max(float(a - b) for a, b in pairs)
    return [
        Preference(method, label, float(a), float(b), verdict(float(a - b), widest))
        for (method, label, _), (a, b) in zip(METHODS, pairs, strict=True)
    ]


def sentence(given: list[Preference]) -> str:
    """Return what the picture shows in words, from its numbers."""
    clauses = [f"{shown.label} {shown.verdict} ({signed(shown.a, 2)} and {signed(shown.b, 2)})" for shown in given]
    return (
        f"Both answers have the mean reward {GROUP[0].mean():.2f}, but A fails the critical criterion. "
        f"Advantages of A and B: {'; '.join(clauses)}."
    )


def curves_figure(
    panels: Sequence[Panel],
    looks: Mapping[str, Look],
    *,
    limits: tuple[float, float] | None = (0.0, 1.0),
    threshold: float | None = None,
    columns: int = 3,
    height: float = 122.0,
) -> Figure:
    """Draw one small multiple a panel: a line per method, and a band from its lowest to its highest run.

    With `limits` all panels share that vertical axis, else each has its own. `threshold` is a dotted line in each. A
    curve of one step is its marker; without panels the figure is an empty strip.
    """
    used = {curve.method for panel in panels for curve in panel.curves}
    shown = [look for name, look in looks.items() if name in used]
    head = 17.0 * legend_rows(shown)[0] + 14
    gap, left, between = 52.0, 34.0, 36.0
    figure = bare_figure(head + math.ceil(len(panels) / columns) * (height + gap) + 8)
    legend(figure, shown)
    width = (WIDTH - left - 6 - (columns - 1) * between) / columns
    for index, panel in enumerate(panels):
        row, column = divmod(index, columns)
        axes = axes_at(figure, left + column * (width + between), head + 18 + row * (height + gap), width, height)
        _curves(axes, panel, looks)
        _scales(axes, limits, threshold)
        if index + columns >= len(panels):
            step_label(axes)
    return figure


def _curves(axes: Axes, panel: Panel, looks: Mapping[str, Look]) -> None:
    title(axes, panel.title, pad=6)
    for curve in panel.curves:
        look = looks[curve.method]
        if curve.runs > 1:
            axes.fill_between(curve.steps, curve.low, curve.high, color=look.colour, alpha=0.13, linewidth=0)
        axes.add_line(line(look, curve.steps, curve.mean, every=max(len(curve.steps) // 10, 1)))


def _scales(axes: Axes, limits: tuple[float, float] | None, threshold: float | None) -> None:
    """Set what the axes span, their ticks and their faint lines."""
    axes.margins(x=0.03, y=0.12)
    axes.autoscale_view()
    if limits is not None:
        room = 0.03 * (limits[1] - limits[0])
        axes.set_ylim(limits[0] - room, limits[1] + room)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    axes.grid(axis="y", color=INK, alpha=FAINT, linewidth=0.6)
    if threshold is not None:
        axes.axhline(threshold, color=INK, alpha=MUTED, linewidth=0.8, linestyle=DOTTED)


def weights_figure(maps: Sequence[WeightMap], looks: Mapping[str, Look], *, columns: int = 3) -> Figure:
    """Draw one heat map a method: a row per channel, time to the right, darker for more weight, empty for NaN.

    All maps share one scale, from 0 to the highest weight. The number beside a row is its last weight.
    """
    channels = sorted({name for weights in maps for name in weights.channels})
    known = [value for weights in maps for row in weights.values for value in row if math.isfinite(value)]
    highest = max(known, default=0.0) or 1.0
    left, end, head, height, gap = 112.0, 38.0, 36.0, 16.0 * len(channels), 54.0
    figure = bare_figure(head + math.ceil(len(maps) / columns) * (height + gap) + 4)
    _scale_of_weights(figure, left, highest)
    width = (WIDTH - left) / columns - end
    for index, weights in enumerate(maps):
        row, column = divmod(index, columns)
        axes = axes_at(figure, left + column * (width + end), head + 18 + row * (height + gap), width, height)
        title(axes, looks[weights.method].label, pad=6)
        _heat(axes, weights, channels, highest)
        axes.set_yticks(range(len(channels)), [plain(name, 20) for name in channels] if column == 0 else None)
        axes.tick_params(axis="y", labelleft=column == 0)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True, steps=[1, 2.5, 5, 10]))
        if index + columns >= len(maps):
            step_label(axes)
    return figure


def _heat(axes: Axes, weights: WeightMap, channels: Sequence[str], highest: float) -> None:
    """Draw the rows of one heat map; a cell spans the steps since the one before."""
    rows = dict(zip(weights.channels, weights.values, strict=True))
    first = weights.steps[0] - (weights.steps[1] - weights.steps[0] if len(weights.steps) > 1 else 1)
    edges = np.asarray([max(first, 0) if weights.steps[0] > 0 else first, *weights.steps])
    for place, name in enumerate(channels):
        values = np.asarray(rows.get(name, (math.nan,) * len(weights.steps)), dtype=float)
        known = values[np.isfinite(values)]
        shades = np.tile(to_rgba(BLUE), (1, len(values), 1))
        shades[0, :, 3] = np.clip(np.where(np.isfinite(values), values, 0.0) / highest, 0.0, 1.0)
        axes.pcolormesh(edges, [place - 0.46, place + 0.46], shades)
        beside(axes, place, number(float(known[-1]) if known.size else math.nan))
    axes.set(xlim=(edges[0], edges[-1]), ylim=(len(channels) - 0.5, -0.5))
    axes.spines["bottom"].set_visible(False)


def _scale_of_weights(figure: Figure, left: float, highest: float) -> None:
    shades = np.tile(to_rgba(BLUE), (1, 12, 1))
    shades[0, :, 3] = (np.arange(12) + 0.5) / 12
    axes = axes_at(figure, left, 4, 120, 9)
    axes.pcolormesh(range(13), [0, 1], shades)
    axes.set(xticks=[], yticks=[])
    axes.spines["bottom"].set_visible(False)
    write(figure, left - 6, 12.5, "0", ha="right", fontsize=SMALL)
    write(figure, left + 126, 12.5, f"{number(highest)}  weight of one channel in the advantage", fontsize=SMALL)


def neglect_figure(given: Sequence[Preference]) -> Figure:
    """Draw the picture of constraint neglect: the rewards of answers A and B, and their advantages by method."""
    figure = bare_figure(300)
    write(figure, 14, 26, "Two answers with the same mean reward: which one is learnt?", fontsize=15, weight="bold")
    for x, colour, text in (
        (14, VERMILLION, "A  best on the easy criteria, fails the critical one"),
        (360, BLUE, "B  middling on all four"),
    ):
        write(figure, x, 51, "\N{BLACK SQUARE}", color=colour, fontsize=14)
        write(figure, x + 17, 50, text, fontsize=11.5)
    _rewards(figure)
    _advantages(figure, given)
    return figure


def _pair_of_bars(axes: Axes, values: Sequence[tuple[float, float]], written: Callable[[float], str]) -> None:
    """Draw a bar for A and one for B at each place, with its value at its end."""
    for side, colour in enumerate((VERMILLION, BLUE)):
        for place, pair in enumerate(values):
            x, value = place + 0.38 * (side - 0.5), pair[side]
            axes.bar(x, value, 0.35, color=colour, linewidth=0)
            away, align = (4, "bottom") if value >= 0 else (-4, "top")
            axes.annotate(
                written(value),
                xy=(x, value),
                xytext=(0, away),
                textcoords="offset points",
                ha="center",
                va=align,
                fontsize=10.5,
                color=INK,
            )


def _rewards(figure: Figure) -> None:
    """Draw the rewards of both answers, criterion by criterion, and the mean that they share."""
    left, width, mean = 14.0, 212.0, float(GROUP[0].mean())
    write(figure, left, 84, "Rewards", fontsize=12, weight="bold")
    write(figure, left + width, 84, f"mean of both {number(mean)}", ha="right", fontsize=10.5, alpha=MUTED)
    axes = axes_at(figure, left, 100, width, 156)
    _pair_of_bars(axes, list(zip(*GROUP[:2].tolist(), strict=True)), lambda value: number(value, 1))
    axes.axhline(mean, color=INK, alpha=MUTED, linewidth=1, linestyle=DOTTED)
    axes.set(xlim=(-0.5, len(CRITERIA) - 0.5), ylim=(0, 0.95), xticks=[], yticks=[])
    for place, criterion in enumerate(CRITERIA):
        weight = "bold" if criterion == "critical" else "normal"
        x = left + (place + 0.5) * width / len(CRITERIA)
        write(figure, x, 272, criterion, ha="center", fontsize=11.5, weight=weight)


def _advantages(figure: Figure, given: Sequence[Preference]) -> None:
    """Draw the advantages of both answers, method by method, and say which one each method prefers."""
    left, width = 258.0, WIDTH - 268
    write(figure, left, 84, "Advantages, by method", fontsize=12, weight="bold")
    axes = axes_at(figure, left, 100, width, 156)
    _pair_of_bars(axes, [(preference.a, preference.b) for preference in given], lambda value: signed(value, 2))
    ends = [0.0, *(value for preference in given for value in (preference.a, preference.b))]
    room = 0.14 * (max(ends) - min(ends))
    axes.axhline(0, color=INK, alpha=0.5, linewidth=0.8)
    axes.spines["bottom"].set_visible(False)
    axes.set(xlim=(-0.5, len(given) - 0.5), ylim=(min(ends) - room, max(ends) + room), xticks=[], yticks=[])
    for place, preference in enumerate(given):
        x = left + (place + 0.5) * width / len(given)
        write(figure, x, 272, preference.label, ha="center", fontsize=11.5, weight="bold")
        write(figure, x, 288, preference.verdict, ha="center", fontsize=11.5)
