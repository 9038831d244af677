"""Figures and names as text. Names come from other people's files: on one line, printable, not too long."""

import math
from collections.abc import Sequence

from rvpo.audit.estimates import Estimate

__all__ = ["interval", "listed", "number", "percent", "shown", "signed"]


def shown(name: str, most: int = 40) -> str:
    """Return a name on one line, without what would steer a terminal, cut in the middle if it is long."""
    text = "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in " ".join(name.split()))
    if len(text) <= most:
        return text or "(no name)"
    half = (most - 3) // 2
    return f"{text[: most - 3 - half]}...{text[len(text) - half :]}"


def number(value: float, digits: int = 2) -> str:
    """Return a number, "-" for NaN."""
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def signed(value: float, digits: int = 3) -> str:
    """Return a number with its sign, "-" for NaN."""
    return "-" if math.isnan(value) else f"{value:+.{digits}f}"


def percent(value: float) -> str:
    """Return a share in percent, "-" for NaN."""
    return "-" if math.isnan(value) else f"{100 * value:.0f} %"


def interval(estimate: Estimate, digits: int = 3) -> str:
    """Return a figure with its interval, as "+0.012 [-0.003, +0.027]"."""
    if math.isnan(estimate.low):
        return signed(estimate.value, digits)
    return f"{signed(estimate.value, digits)} [{signed(estimate.low, digits)}, {signed(estimate.high, digits)}]"


def listed(names: Sequence[str], most: int = 3) -> str:
    """Return names in a row, the first few of many."""
    few = [shown(name) for name in names[:most]]
    rest = len(names) - len(few)
    return ", ".join(few) + (f" and {rest} more" if rest else "")
