"""Figures as SVG, the same byte for byte whenever their numbers are, as PNG, and as images inside a page.

An SVG brings its ink and ground for light and for dark surroundings, and names its reader's font.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import quote

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure

from rvpo.report.drawing import INK, Look, printable

__all__ = ["NamedFigure", "image", "png", "svg", "swatch"]

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
