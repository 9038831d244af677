"""An audit as an HTML page without scripts or requests, or as the part of a page that a notebook shows."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rvpo.audit.differences import AuditComparison
from rvpo.audit.estimates import HORIZON, LEVEL
from rvpo.audit.findings import CONFLICT
from rvpo.audit.result import AuditResult, Estimate, Pair
from rvpo.stats import NEGLECTED
from rvpo.text import capital, interval, number, percent, shown, signed

__all__ = ["audit_page"]

SIGNS = {"rises": "▲", "stalls": "●", "falls": "▼", "at risk": "✕", "unknown": "?"}
MOST_PAIRS = 20
"""Channels of the largest table of pairs; with more, only the most opposed pairs are listed."""


def audit_page(result: AuditResult, comparison: AuditComparison | None = None, *, whole: bool = True) -> str:
    """Return an audit as HTML: a page, or without `whole` its content alone, for notebooks.

    Everything that comes from the log is escaped.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters.update(
        capital=capital, interval=_interval, number=number, percent=percent, shown=shown, signed=signed
    )
    courses = {
        channel.name: points(mean, channel.range)
        for channel, mean in zip(result.channels, result.course.mean, strict=False)
    }
    return environment.get_template("audit.html.j2").render(
        audit=result,
        channels=result.by_outlook(result.reference),
        comparison=comparison,
        correlations=_correlations(result) if len(result.channels) <= MOST_PAIRS else None,
        opposed=sorted(result.pairs, key=lambda pair: pair.correlation)[:MOST_PAIRS],
        courses=courses,
        weighed=[method for method in result.methods if method.method is not None],
        constants={"conflict": CONFLICT, "horizon": HORIZON, "level": LEVEL, "neglected": NEGLECTED},
        signs=SIGNS,
        whole=whole,
    )


def _interval(estimate: Estimate, digits: int = 3) -> str:
    return interval(*estimate, digits=digits)


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
