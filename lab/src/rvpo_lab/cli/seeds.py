"""Seeds and names of methods or tasks as an option gives them."""

import re

from rvpo.errors import ConfigError

__all__ = ["names_of", "seeds_of"]


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
