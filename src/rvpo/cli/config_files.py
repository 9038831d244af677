"""`--config FILE ...`: several YAML files as one configuration, and what a run is called by them.

    rvpo train --config run.yaml gdpo.yaml

Later files come first, the command line before all of them. A file may begin with `include: base.yaml` (or a list),
by a path relative to itself; what it says itself comes before what it includes. Mappings, such as `judge`, are merged
key by key; everything else is replaced.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from rvpo.errors import ConfigError

__all__ = ["Given", "read_config_files"]

INCLUDE = "include"


class Given(NamedTuple):
    """What a command line gives."""

    settings: dict[str, Any]
    """The configuration files, merged."""
    words: list[str]
    """The command line without them."""
    name: str | None
    """The files' names, without endings, joined by "-"; None without any."""


def read_config_files(arguments: Sequence[str]) -> Given:
    """Take `--config FILE ...` out of a command line (also `--config=FILE`, also several times) and read the files.

    An `env` mapping sets environment variables, as in TRL. Raises ConfigError for a file that cannot be read.
    """
    files, words = _split(arguments)
    settings: dict[str, Any] = {}
    for file in files:
        settings = _merged(settings, _read(file, ()))
    environment = settings.pop("env", None) or {}
    if not isinstance(environment, Mapping):
        raise ConfigError(f"env must be a mapping of environment variables, got {environment!r}")
    os.environ.update({str(key): str(value) for key, value in environment.items()})
    return Given(settings, words, "-".join(file.stem for file in files) or None)


def _split(arguments: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Return the configuration files and the other words; files end where the next option begins."""
    files: list[Path] = []
    words: list[str] = []
    is_file = False
    for argument in arguments:
        option, equals, value = argument.partition("=")
        if option == "--config":
            is_file = not equals
            number = len(files)
            files += [Path(value)] if equals else []
        elif argument.startswith("--") or not is_file:
            if is_file and len(files) == number:
                break
            is_file = False
            words.append(argument)
        else:
            files.append(Path(argument))
    if is_file and len(files) == number:
        raise ConfigError("--config needs a file")
    return files, words


def _read(file: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    """Return a file's settings over those it includes; `above` are the files that include it."""
    if file.resolve() in above:
        raise ConfigError(f"{file} includes itself, by way of {above[-1]}")
    try:
        own = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read configuration {file}: {error}") from error
    if not isinstance(own, dict):
        raise ConfigError(f"{file} must be a YAML mapping of options, got {type(own).__name__}")
    included = own.pop(INCLUDE, None) or []
    if isinstance(included, str):
        included = [included]
    if not isinstance(included, list) or not all(isinstance(name, str) for name in included):
        raise ConfigError(f"{file}: include must be a file or a list of files, got {included!r}")
    settings: dict[str, Any] = {}
    for name in included:
        settings = _merged(settings, _read(file.parent / name, (*above, file.resolve())))
    return _merged(settings, {str(key): value for key, value in own.items()})


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merged(merged[key], value) if both else value
    return merged
