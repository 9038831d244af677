"""How every figure of a report looks, and how it is written: methods, ink, bare axes, texts, one legend; SVG and PNG.

Lengths and font sizes are in SVG units; the page shows one as 4/3 pixels. Ink is a colour that an image turns into one
for light and one for dark surroundings; muted ink is transparent. An SVG brings its ink and ground for both, names its
reader's font, and is the same byte for byte whenever its numbers are.
"""

import io
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

__all__ = [
    "INK",
    "SLOTS",
    "WIDTH",
    "Look",
    "NamedFigure",
    "axes_at",
    "bare_figure",
    "beside",
    "image",
    "legend",
    "legend_rows",
    "line",
    "looks_of",
    "plain",
    "png",
    "printable",
    "step_label",
    "svg",
    "swatch",
    "title",
    "write",
]

INK = "#010203"
MUTED, FAINT = 0.68, 0.16
"""Opacity of what is read second, and of what is only felt."""
WIDTH = 720.0
TEXT, SMALL = 10.0, 9.0

BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY = "#0072b2", "#d55e00", "#009e73", "#e69f00", "#cc79a7", "#56b4e9"
"""Okabe and Ito's colours, which colour-blind people can tell apart; their yellow is too light on white."""
Dashes = tuple[float, tuple[float, ...]] | Literal["solid"]
DASHED, DOTTED, MIXED = (0.0, (4.0, 1.6)), (0.0, (1.2, 1.4)), (0.0, (5.0, 1.5, 1.2, 1.5))


@dataclass(frozen=True)
class Look:
    """How a method is drawn, the same everywhere in a report."""

    label: str
    colour: str
    dashes: Dashes
    marker: str


SLOTS: dict[str, tuple[str, Dashes, str]] = {
    "grpo": (INK, "solid", "o"),
    "gdpo": (BLUE, "solid", "s"),
    "rvpo": (VERMILLION, "solid", "D"),
    "rvpo_k5": (ORANGE, DASHED, "^"),
    "hard_min": (PURPLE, DOTTED, "v"),
    "rvpo_policy": (GREEN, "solid", "P"),
    "mean_variance": (SKY, "solid", "X"),
    "corr_grpo": (INK, DASHED, "X"),
    "dvao": (BLUE, DASHED, "v"),
    "gd2po": (VERMILLION, DASHED, "o"),
    "tchebycheff": (GREEN, DASHED, "s"),
    "cvar": (PURPLE, MIXED, "D"),
    "maxrl": (SKY, DASHED, "^"),
}
"""Colour, dashes and marker of known methods; other names take what is free, in this order."""


def looks_of(labels: Mapping[str, str]) -> dict[str, Look]:
    """Return a look for each method, from the methods' labels; when all are taken, they are used again."""
    free = [slot for name, slot in SLOTS.items() if name not in labels] or list(SLOTS.values())
    others = [name for name in labels if name not in SLOTS]
    taken = {name: free[index % len(free)] for index, name in enumerate(others)}
    return {name: Look(label, *(SLOTS.get(name) or taken[name])) for name, label in labels.items()}


def printable(text: str) -> str:
    """Return a text without control characters and what else XML has no way to write."""
    return re.sub(r"[\x00-\x1f\x7f\ud800-\udfff\ufffe\uffff]", " ", text)


def plain(text: str, most: int = 34) -> str:
    """Return a text that matplotlib takes as it is: no formulas, printable, cut at `most` letters."""
    shown = printable(text)
    shown = shown if len(shown) <= most else shown[: most - 1] + "\N{HORIZONTAL ELLIPSIS}"
    return shown.replace("$", r"\$")


def bare_figure(height: float) -> Figure:
    """Return an empty figure of the common width."""
    return Figure(figsize=(WIDTH / 72, height / 72), dpi=72)


def axes_at(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Return axes at a place measured from the figure's upper left corner, with a ground line and nothing else."""
    whole = figure.get_figheight() * 72
    axes = figure.add_axes((left / WIDTH, 1 - (top + height) / whole, width / WIDTH, height / whole))
    axes.patch.set_visible(False)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set(color=INK, alpha=0.5, linewidth=0.8)
    axes.tick_params(length=0, labelsize=SMALL, labelcolor=to_rgba(INK, MUTED), pad=4)
    axes.set_axisbelow(True)
    return axes


def title(axes: Axes, text: str, *, wide: bool = False, **style: Any) -> None:
    """Write a title over the left end of axes."""
    axes.set_title(
        plain(text, 60 if wide else 34),
        **{"loc": "left", "fontsize": TEXT, "fontweight": "bold", "color": INK, **style},
    )


def write(figure: Figure, x: float, y: float, text: str, **style: Any) -> None:
    """Write a text with its baseline at a place measured from the figure's upper left corner."""
    whole = figure.get_figheight() * 72
    figure.text(x / WIDTH, 1 - y / whole, text, **{"fontsize": TEXT, "color": INK, "va": "baseline", **style})


def beside(axes: Axes, place: float, text: str, size: float = SMALL) -> None:
    """Write a text to the right of axes, at the height of a value."""
    axes.annotate(
        text,
        xy=(1, place),
        xycoords=("axes fraction", "data"),
        xytext=(5, 0),
        textcoords="offset points",
        fontsize=size,
        color=INK,
        verticalalignment="center",
        annotation_clip=False,
    )


def step_label(axes: Axes) -> None:
    """Name the horizontal axis."""
    axes.set_xlabel("training step", fontsize=SMALL, color=INK, alpha=MUTED, labelpad=2)


def line(look: Look, steps: Sequence[float] = (), values: Sequence[float] = (), *, every: int = 1) -> Line2D:
    """Return a method's line, with a marker at every so many points."""
    return Line2D(
        steps,
        values,
        label=plain(look.label),
        color=look.colour,
        linestyle=look.dashes,
        linewidth=1.5,
        marker=look.marker,
        markersize=4.5,
        markeredgewidth=0,
        markevery=every,
    )


def legend_rows(shown: Sequence[Look]) -> tuple[int, int]:
    """Return how many rows and columns a legend takes; widths of letters differ, so it is set with room."""
    widest = max((46 + 6.4 * len(plain(look.label)) for look in shown), default=1.0)
    columns = max(1, min(len(shown), int(WIDTH / widest)))
    return math.ceil(len(shown) / columns), columns


def legend(figure: Figure, shown: Sequence[Look]) -> None:
    """Draw one legend along the top of a figure."""
    figure.legend(
        handles=[line(look) for look in shown],
        loc="upper left",
        bbox_to_anchor=(0, 1),
        ncols=legend_rows(shown)[1],
        frameon=False,
        fontsize=TEXT,
        labelcolor=INK,
        borderaxespad=0.1,
        borderpad=0.1,
        handlelength=2.8,
        columnspacing=1.8,
        labelspacing=0.6,
    )


FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
STYLE = (
    "<style>svg{color:#1c2126;background:#fff}@media(prefers-color-scheme:dark){svg{color:#e3e8ed;background:#0f1318}}"
    f"text{{font-family:{FONT}!important}}g[id^=QuadMesh]{{shape-rendering:crispEdges}}</style>"
)
"""Ink and ground as on the pages; the reader's font for the one that matplotlib names at every text; no seams between
the cells of heat maps."""
MARKERS = {
    "o": "M4 0A4 4 0 1 0-4 0 4 4 0 1 0 4 0Z",
    "s": "M-3.5-3.5H3.5V3.5H-3.5Z",
    "D": "M0-4.6 4.6 0 0 4.6-4.6 0Z",
    "^": "M0-4.2 4.2 3.6H-4.2Z",
    "v": "M0 4.2 4.2-3.6H-4.2Z",
    "P": "M-1.6-4.4H1.6V-1.6H4.4V1.6H1.6V4.4H-1.6V1.6H-4.4V-1.6H-1.6Z",
    "X": "M0-1.8 2.2-4 4-2.2 1.8 0 4 2.2 2.2 4 0 1.8-2.2 4-4 2.2-1.8 0-4-2.2-2.2-4Z",
}
"""Outlines of matplotlib's markers, for the legends that tables have."""


@dataclass(frozen=True)
class NamedFigure:
    """A figure and what stands for it where it is not seen."""

    name: str
    """Its own in a report: the name of its files."""
    title: str
    description: str
    figure: Figure


def svg(named: NamedFigure) -> str:
    """Return a figure as an SVG file."""
    target = io.StringIO()
    labels = {"Title": printable(named.title), "Description": printable(named.description)}
    with _any_letter(), matplotlib.rc_context({"svg.hashsalt": named.name, "svg.fonttype": "none"}):
        named.figure.savefig(
            target, format="svg", transparent=True, metadata={**labels, "Date": None, "Creator": None}
        )
    drawn = " ".join(target.getvalue().replace(INK, "currentColor").split())
    attributes, _, inside = drawn.partition("<svg ")[2].partition(">")
    pixels = attributes.replace('pt"', '"')
    return f"<svg {pixels}>{STYLE}{inside}\n"


def png(named: NamedFigure, pixels_per_unit: float = 2.0) -> bytes:
    """Return a figure as PNG on white."""
    target = io.BytesIO()
    with _any_letter():
        named.figure.savefig(
            target, format="png", dpi=72 * pixels_per_unit, facecolor="white", metadata={"Software": None}
        )
    return target.getvalue()


def image(named: NamedFigure) -> Markup:
    """Return a figure as an `img` element that holds its SVG."""
    source = "data:image/svg+xml," + quote(svg(named), safe=" =:;/,()!")
    return Markup('<img class="drawing" alt="{}" src="{}">').format(f"{named.title}. {named.description}", source)


def swatch(look: Look) -> Markup:
    """Return a method's line and marker as a small `svg` element; the method's name stands beside it."""
    colour = look.colour.replace(INK, "currentColor")
    dashes = "" if isinstance(look.dashes, str) else " ".join(f"{1.5 * part:g}" for part in look.dashes[1])
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    return Markup(
        f'<svg class="swatch" viewBox="0 0 28 12" aria-hidden="true"><g transform="translate(14 6)" fill="{colour}" '
        f'stroke="{colour}"><path d="M-14 0H14" stroke-width="2"{dashed}/>'
        f'<path d="{MARKERS[look.marker]}" stroke="none"/></g></svg>'
    )


@contextmanager
def _any_letter() -> Iterator[None]:
    """Letters that matplotlib's font lacks are the reader's font's business in SVG, and boxes in PNG."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        yield
