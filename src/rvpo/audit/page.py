"""An audit as one HTML page without scripts or requests, and as the part of a page that notebooks show."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from rvpo.audit.compare import Comparison
from rvpo.audit.estimates import HORIZON, LEVEL, NEGLECTED
from rvpo.audit.result import AuditResult, Pair
from rvpo.audit.words import interval, number, percent, shown, signed

__all__ = ["fragment", "page"]

SIGNS = {"rises": "▲", "stalls": "●", "falls": "▼", "neglected": "✕", "unknown": "?"}
MOST_PAIRS = 20
"""Channels of the largest table of pairs; with more, only the most opposed pairs are listed."""


def page(result: AuditResult, comparison: Comparison | None = None) -> str:
    """Return the whole page; everything that comes from the log is escaped."""
    return _render(result, comparison, whole=True)


def fragment(result: AuditResult) -> str:
    """Return the page's content alone."""
    return _render(result, None, whole=False)


def _render(result: AuditResult, comparison: Comparison | None, *, whole: bool) -> str:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters.update(interval=interval, number=number, percent=percent, shown=shown, signed=signed)
    at_risk = result.at_risk(result.reference)
    courses = {
        channel.name: points(mean, channel.range)
        for channel, mean in zip(result.channels, result.course.mean, strict=False)
    }
    return environment.get_template("audit.html.j2").render(
        audit=result,
        at_risk=at_risk,
        comparison=comparison,
        correlations=_correlations(result) if len(result.channels) <= MOST_PAIRS else None,
        opposed=sorted(result.pairs, key=lambda pair: pair.correlation)[:MOST_PAIRS],
        courses=courses,
        weighed=[method for method in result.methods if method.method is not None],
        constants={"horizon": HORIZON, "level": LEVEL, "neglected": NEGLECTED},
        signs=SIGNS,
        whole=whole,
    )


def points(values: tuple[float, ...], range: tuple[float, float], width: float = 96, height: float = 22) -> str:
    """Return a course as the points of an SVG polyline, steps without a value left out."""
    low, high = range
    scale = high - low or 1.0
    step = width / max(len(values) - 1, 1)
    known = [
        (index * step, height * (1 - (value - low) / scale)) for index, value in enumerate(values) if value == value
    ]
    return " ".join(f"{x:.1f},{min(max(y, 0), height):.1f}" for x, y in known)


def _correlations(result: AuditResult) -> Mapping[str, Mapping[str, Any]]:
    """Return the pair of every two channels, by both names in either order."""
    table: dict[str, dict[str, Pair]] = {channel.name: {} for channel in result.channels}
    for pair in result.pairs:
        table[pair.first][pair.second] = table[pair.second][pair.first] = pair
    return table
