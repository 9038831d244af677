"""Numbers and lists as the report's sentences and tables write them."""

import math
from collections.abc import Sequence

__all__ = ["NOTHING", "capital", "listed", "number", "p_value", "percent", "plural", "share_span", "signed", "span"]

NOTHING = "\N{EN DASH}"
"""Stands where there is no number."""
MINUS = "\N{MINUS SIGN}"


def number(value: float, digits: int = 2) -> str:
    """Return a number with fixed digits, a dash for none.

    >>> number(0.456), number(float("nan"))
    ('0.46', '–')
    """
    if not math.isfinite(value):
        return NOTHING
    rounded = round(value, digits) + 0.0  # -0.0 would be written with its sign
    return f"{rounded:.{digits}f}".replace("-", MINUS)


def signed(value: float, digits: int = 2) -> str:
    """Return a number with its sign, a dash for none.

    >>> signed(0.5), signed(-0.5)
    ('+0.50', '−0.50')
    """
    if not math.isfinite(value):
        return NOTHING
    return f"{round(value, digits) + 0.0:+.{digits}f}".replace("-", MINUS)


def percent(share: float) -> str:
    """Return a share of 1 as a percentage, a dash for none.

    >>> percent(0.125), percent(float("nan"))
    ('12.5\\xa0%', '–')
    """
    return f"{100 * share:.1f}\N{NO-BREAK SPACE}%" if math.isfinite(share) else NOTHING


def p_value(value: float) -> str:
    """Return a p-value: "< 0.001" or three digits."""
    if not math.isfinite(value):
        return NOTHING
    return "<\N{NO-BREAK SPACE}0.001" if value < 0.001 else f"{value:.3f}"


def span(low: float, high: float, digits: int = 2) -> str:
    """Return an interval, empty if it has no ends.

    >>> span(0.25, 0.5), span(float("nan"), 0.5)
    ('0.25 to 0.50', '')
    """
    if not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f"{number(low, digits)} to {number(high, digits)}"


def share_span(low: float, high: float) -> str:
    """Return an interval of shares of 1 in percent, empty if it has no ends.

    >>> share_span(0.25, 0.5)
    '25.0 to 50.0\\xa0%'
    """
    ends = span(100 * low, 100 * high, 1)
    return ends and f"{ends}\N{NO-BREAK SPACE}%"


def listed(names: Sequence[str]) -> str:
    """Return names as a sentence lists them.

    >>> listed(["a"]), listed(["a", "b"]), listed(["a", "b", "c"])
    ('a', 'a and b', 'a, b and c')
    """
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else list(names))


def plural(count: int, noun: str) -> str:
    """Return a count and its noun.

    >>> plural(1, "seed"), plural(5, "seed")
    ('1 seed', '5 seeds')
    """
    return f"{count} {noun}{'' if count == 1 else 's'}"


def capital(text: str) -> str:
    """Return a text with a capital first letter, the rest as it is."""
    return text[:1].upper() + text[1:]
