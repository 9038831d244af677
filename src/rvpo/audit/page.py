"""An audit as an HTML page without scripts or requests, or as the part of a page that a notebook shows.

The finding, what to do, and two pictures come first: the channels by their risk, and the forecast under every method.
The tables are folded below.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rvpo.audit.estimates import HORIZON, LEVEL
from rvpo.audit.findings import CONFLICT
from rvpo.audit.result import AuditComparison, AuditResult, ChannelAudit, Estimate, MethodAudit, Pair
from rvpo.stats import NEGLECTED
from rvpo.text import capital, interval, number, percent, shown, signed

__all__ = ["HeatMap", "audit_page", "heat_map"]

SIGNS = {"rises": "▲", "stalls": "●", "falls": "▼", "at risk": "✕", "unknown": "?"}
MOST_PAIRS = 20
"""Channels of the largest table of pairs; with more, only the most opposed pairs are listed."""

MOST_DRAWN = 20
"""Channels of the two pictures, the most at risk; the tables below them have all."""


class HeatMap(NamedTuple):
    """The forecast of the channels most at risk (rows) by the reference and each method at its best k (columns)."""

    channels: list[ChannelAudit]
    methods: list[MethodAudit]
    depth: dict[tuple[str, str], float]
    """(channel, method) -> size of the forecast, on [0, 1] of the channel's range, as a share of the largest."""


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
        advised=[f"{result.advice.method} k={k:g}" for k in result.advice.ks] or [result.advice.method],
        heat_map=heat_map(result),
        constants={"conflict": CONFLICT, "horizon": HORIZON, "level": LEVEL, "neglected": NEGLECTED},
        signs=SIGNS,
        whole=whole,
    )


def heat_map(result: AuditResult) -> HeatMap:
    """Return what the heat map draws: the reference first, then the methods by the lowest third of their outlooks."""
    known = [method for method in result.methods if method.name != result.reference]
    best: dict[str | None, MethodAudit] = {}
    for method in sorted(known, key=lambda method: (math.isnan(method.lowest.value), -method.lowest.value)):
        best.setdefault(method.method, method)
    methods = [result.method(result.reference), *best.values()]
    channels = result.by_outlook(result.reference)[:MOST_DRAWN]
    sizes = {
        (channel.name, method.name): abs(channel.forecasts[method.name].change.value) / _width(channel.range)
        for channel in channels
        for method in methods
    }
    largest = max((size for size in sizes.values() if size == size), default=0.0) or 1.0
    return HeatMap(channels, methods, {cell: size / largest if size == size else 0.0 for cell, size in sizes.items()})


def _width(range: tuple[float, float]) -> float:
    return range[1] - range[0] or 1.0


def _interval(estimate: Estimate, digits: int = 3) -> str:
    return interval(*estimate, digits=digits)


def points(values: tuple[float, ...], range: tuple[float, float], width: float = 96, height: float = 22) -> str:
    """Return a course as the points of an SVG polyline, steps without a value left out."""
    low, scale = range[0], _width(range)
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
