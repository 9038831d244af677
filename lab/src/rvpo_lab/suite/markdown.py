"""Numbers and tables as the page of findings writes them."""

import math
from collections.abc import Iterable, Sequence

from rvpo.stats import PairedTest, Ratio
from rvpo_lab.suite.plan import CONTENDERS

__all__ = ["difference", "label", "number", "p_value", "ratio", "table"]


def label(method: str) -> str:
    """Return what tables call a contender."""
    return CONTENDERS[method].label if method in CONTENDERS else f"`{method}`"


def number(value: float, digits: int = 2) -> str:
    """Return a number with fixed digits, a dash for none."""
    return "-" if not math.isfinite(value) else f"{value:.{digits}f}"


def p_value(value: float) -> str:
    """Return a p-value, "< 0.001" or three digits, a dash for none."""
    if not math.isfinite(value):
        return "-"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def difference(test: PairedTest | None) -> str:
    """Return a paired difference and its interval; one pair has none.

    >>> difference(None)
    '-'
    """
    if test is None:
        return "-"
    interval = f" [{test.low:+.3f}, {test.high:+.3f}]" if math.isfinite(test.low) else ""
    return f"{test.difference:+.3f}{interval}"


def ratio(one: Ratio, digits: int = 2) -> str:
    """Return a ratio and its interval.

    >>> ratio(Ratio(1.5, 1.25, 2.0, 8))
    '1.50 [1.25, 2.00]'
    """
    return f"{number(one.value, digits)} [{number(one.low, digits)}, {number(one.high, digits)}]"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; the first column is text, the others numbers."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
