"""The exceptions of rvpo.

RvpoError                    whatever the package raises on purpose
├── RewardError (ValueError)     a reward, its shape, range or weight that cannot be used
├── ConfigError (ValueError)     an option, a file or a combination of both that cannot be used
├── IntegrationError (RuntimeError)
│                                the installed trainer does not do what the integration relies on
└── JudgeError (RuntimeError)    a judge that cannot be asked, is over its budget, or has lost too many verdicts
    └── StopRequestedError           its calls were given up because the run was told to stop

A message states what must hold, the values that were seen, and the probable fix.
"""

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = [
    "ConfigError",
    "IntegrationError",
    "JudgeError",
    "RewardError",
    "RvpoError",
    "StopRequestedError",
    "reason",
    "unknown_name",
]


class RvpoError(Exception):
    """Base of every exception that rvpo raises on purpose."""


class RewardError(RvpoError, ValueError):
    """A reward, its shape, its range or its weight cannot be used."""


class ConfigError(RvpoError, ValueError):
    """An option, a configuration file, or a combination of options cannot be used."""


class IntegrationError(RvpoError, RuntimeError):
    """The installed trainer does not do what the integration relies on."""


class JudgeError(RvpoError, RuntimeError):
    """A judge cannot be asked, is over its budget, or has lost too many verdicts to go on."""


class StopRequestedError(JudgeError):
    """Calls of a judge were given up because the run was told to stop."""


def unknown_name(kind: str, name: object, known: Iterable[str]) -> ConfigError:
    """Return the error for a name that is not among the known ones, with the nearest match first.

    >>> str(unknown_name("method", "rvop", ["gdpo", "rvpo"]))
    "unknown method 'rvop': did you mean 'rvpo'? Known: gdpo, rvpo"
    """
    names = sorted(known)
    near = get_close_matches(str(name), names, n=1)
    hint = f" did you mean '{near[0]}'?" if near else ""
    return ConfigError(f"unknown {kind} {name!r}:{hint} Known: {', '.join(names)}")


def reason(error: Exception) -> str:
    """Return what an exception says; that of Python's recursion limit has other words in every version.

    >>> reason(RecursionError("Stack overflow (used 8156 kB)")), reason(ValueError("no JSON"))
    ('nested too deep', 'no JSON')
    """
    return "nested too deep" if isinstance(error, RecursionError) else str(error)
