"""Numbers, intervals, tables and names as text, formatted once for every page, table and message.

`NOTHING` stands wherever there is no number. Digits are fixed, so that columns line up.
"""

import math
from collections.abc import Iterable, Sequence

__all__ = [
    "NOTHING",
    "capital",
    "interval",
    "listed",
    "markdown_table",
    "number",
    "p_value",
    "percent",
    "plural",
    "shown",
    "shown_names",
    "signed",
    "span",
]

NOTHING = "-"
"""Stands where there is no number."""


def number(value: float | None, digits: int = 2) -> str:
    """Return a number with fixed digits.

    >>> number(0.456), number(-0.001), number(float("nan")), number(None)
    ('0.46', '0.00', '-', '-')
    """
    if value is None or not math.isfinite(value):
        return NOTHING
    return f"{round(value, digits) + 0.0:.{digits}f}"


def signed(value: float, digits: int = 3) -> str:
    """Return a number with its sign, also where it rounds to 0: a direction is worth telling.

    >>> signed(0.5), signed(-0.25, 2), signed(-0.0001), signed(float("nan"))
    ('+0.500', '-0.25', '-0.000', '-')
    """
    return f"{value:+.{digits}f}" if math.isfinite(value) else NOTHING


def percent(share: float, digits: int = 0) -> str:
    """Return a share of 1 in percent.

    >>> percent(0.125), percent(0.125, 1), percent(float("nan"))
    ('12 %', '12.5 %', '-')
    """
    return f"{number(100 * share, digits)} %" if math.isfinite(share) else NOTHING


def p_value(value: float) -> str:
    """Return a p-value.

    >>> p_value(0.0314), p_value(0.0004)
    ('0.031', '< 0.001')
    """
    return "< 0.001" if value < 0.001 else number(value, 3)


def span(low: float, high: float, digits: int = 2) -> str:
    """Return an interval, empty if an end is missing.

    >>> span(0.25, 0.5), span(float("nan"), 0.5)
    ('0.25 to 0.50', '')
    """
    return f"{number(low, digits)} to {number(high, digits)}" if math.isfinite(low + high) else ""


def interval(value: float, low: float, high: float, digits: int = 3) -> str:
    """Return a difference with its interval; a difference of one pair has none.

    >>> interval(0.012, -0.003, 0.027), interval(0.012, float("nan"), float("nan"))
    ('+0.012 [-0.003, +0.027]', '+0.012')
    """
    ends = f" [{signed(low, digits)}, {signed(high, digits)}]" if math.isfinite(low + high) else ""
    return signed(value, digits) + ends


def plural(count: int, noun: str) -> str:
    """Return a count and its noun.

    >>> plural(1, "seed"), plural(5, "seed")
    ('1 seed', '5 seeds')
    """
    return f"{count} {noun}{'' if count == 1 else 's'}"


def capital(text: str) -> str:
    """Return a text with a capital first letter, the rest as it is."""
    return text[:1].upper() + text[1:]


def shown(name: str, most: int = 40) -> str:
    """Return a name from somebody else's file on one line, printable, cut in the middle if it is long.

    >>> shown("a\\nb\\x1b[31m"), shown("abcdefghij", most=8)
    ('a b\\ufffd[31m', 'abc...ij')
    """
    text = "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in " ".join(name.split()))
    if len(text) <= most:
        return text or "(no name)"
    half = (most - 3) // 2
    return f"{text[: most - 3 - half]}...{text[len(text) - half :]}"


def listed(names: Sequence[str], most: int | None = None) -> str:
    """Return names as a sentence lists them; of more than `most` the first, and how many are left out.

    >>> listed(["a"]), listed(["a", "b", "c"]), listed(["a", "b", "c", "d"], most=2)
    ('a', 'a, b and c', 'a, b and 2 more')
    """
    names = list(names)
    if most is not None and len(names) > most:
        names = [*names[:most], f"{len(names) - most} more"]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def shown_names(names: Iterable[str], most: int = 3) -> str:
    """Return names from somebody else's file as a sentence lists them, at most so many of them.

    >>> shown_names(["a\\nb", "c", "d", "e"])
    'a b, c, d and 1 more'
    """
    return listed([shown(name) for name in names], most)


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; the first column is text, the others numbers. A bar inside a cell ends no cell.

    >>> print(markdown_table(["method", "mean"], [["gdpo", "0.5"]]), end="")
    | method | mean |
    | --- | ---: |
    | gdpo | 0.5 |
    """
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)
