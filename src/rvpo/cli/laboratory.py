"""The laboratory's commands: a package of its own that knows this one, and is found by what it declares."""

from types import ModuleType

from rvpo.errors import ConfigError

__all__ = ["laboratory_command"]

GROUP = "rvpo.commands"
"""Entry points of the laboratory: command -> its module."""


def laboratory_command(name: str, wanted: str = "") -> ModuleType:
    """Return the module of a command of the laboratory.

    Raises ConfigError where the laboratory is not installed; `wanted` is what needs it, the command if not given.
    """
    from importlib.metadata import entry_points  # a quarter of the time of `rvpo --help`

    for entry in entry_points(group=GROUP, name=name):
        module: ModuleType = entry.load()
        return module
    raise ConfigError(
        f"{wanted or f'rvpo {name}'} belongs to the laboratory, rvpo-lab, not installed here; get it by "
        "pip install ./lab in a checkout of rvpo"
    )
