"""Options written as text: methods as METHOD[:K[:OPTION=VALUE,...]], names of methods or tasks, and seeds."""

import json
import re
from typing import Any

from rvpo.core.methods import METHODS, find_method
from rvpo.errors import ConfigError

__all__ = ["names_of", "parse_method", "seeds_of"]


def parse_method(text: str) -> tuple[str, float | tuple[float, float], dict[str, Any]]:
    """Read `METHOD[:K[:OPTION=VALUE,...]]`: the method's name, k or its two ends, the options.

    >>> parse_method("rvpo_policy:2:signal=zscore")
    ('rvpo_policy', 2.0, {'signal': 'zscore'})
    >>> parse_method("my_methods:softer:2")  # a function of one's own
    ('my_methods:softer', 2.0, {})

    Raises ConfigError for text of another form.
    """
    method, _, rest = text.partition(":")
    function, _, after = rest.partition(":")
    if method not in METHODS and function.isidentifier() and function not in ("inf", "nan"):
        method, rest = f"{method}:{function}", after
    k, _, options = rest.partition(":")
    pairs = [pair.partition("=") for pair in options.split(",") if pair]
    if not all(name and value for name, _, value in pairs):
        raise ConfigError(f"options of a method are written NAME=VALUE,NAME=VALUE; got {options!r} in {text!r}")
    return (
        method,
        _parse_k(k, text) if k else find_method(method).default_k,
        {name: _parse_value(value) for name, _, value in pairs},
    )


def _parse_k(k: str, text: str) -> float | tuple[float, float]:
    """Return K of METHOD:K as a number or two."""
    try:
        return float(k)
    except ValueError:
        start, _, end = k.partition("-")
    try:
        return float(start), float(end)
    except ValueError:
        raise ConfigError(f"k must be a number or START-END, as in rvpo:0.5-2; got {k!r} in {text!r}") from None


def _parse_value(value: str) -> Any:
    """Return a number or truth value as JSON writes it, anything else as text."""
    try:
        return json.loads(value)
    except ValueError:
        return value


def seeds_of(text: str) -> list[int]:
    """Return seeds from "3" (how many), "0-4" or "1,5".

    >>> seeds_of("3"), seeds_of("2-4"), seeds_of("1,5")
    ([0, 1, 2], [2, 3, 4], [1, 5])
    """
    try:
        if "," in text:
            return [int(part) for part in text.split(",")]
        first, dash, last = text.partition("-")
        return list(range(int(first), int(last) + 1)) if dash else list(range(int(first)))
    except ValueError:
        raise ConfigError(f"seeds are a number, a range 0-4 or a list 1,5; got {text!r}") from None


def names_of(text: str) -> list[str]:
    """Return names separated by commas; a comma before OPTION=VALUE belongs to its method.

    >>> names_of("gdpo,rvpo:2:dead_channels=mask,recenter=true,cvar")
    ['gdpo', 'rvpo:2:dead_channels=mask,recenter=true', 'cvar']
    """
    return [name.strip() for name in re.split(r",(?!\s*\w+=)", text) if name.strip()]
