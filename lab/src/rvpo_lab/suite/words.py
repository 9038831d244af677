"""Contenders, comparisons and paragraphs as the page of findings writes them."""

from textwrap import fill

from rvpo.stats import PairedTest, Ratio
from rvpo.text import NOTHING, interval, number
from rvpo_lab.suite.plan import CONTENDERS

__all__ = ["difference", "label", "paragraph", "ratio"]


def label(contender: str) -> str:
    """Return what tables call a contender; one that was described instead of named stands as code."""
    return CONTENDERS[contender].label if contender in CONTENDERS else f"`{contender}`"


def difference(test: PairedTest | None) -> str:
    """Return a paired difference and its interval; a single pair has no interval.

    >>> difference(None)
    '-'
    """
    return NOTHING if test is None else interval(test.difference, test.low, test.high)


def ratio(means: Ratio) -> str:
    """Return a ratio and its interval.

    >>> ratio(Ratio(1.5, 1.25, 2.0, 8))
    '1.50 [1.25, 2.00]'
    """
    return f"{number(means.value)} [{number(means.low)}, {number(means.high)}]"


def paragraph(text: str) -> str:
    """Return a paragraph in lines of the repository's width, with its line break."""
    return fill(text, 119, break_on_hyphens=False) + "\n"
