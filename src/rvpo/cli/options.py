"""Options of the command line out of a configuration's fields: name, type, default and help are written once."""

import argparse
import ast
import inspect
import json
import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from itertools import pairwise
from typing import Any, Union, get_args, get_origin, get_type_hints

__all__ = ["add_config_options", "field_help", "given_options"]


def add_config_options(
    parser: argparse.ArgumentParser, config: type, *, defaults: Mapping[str, Any] | None = None
) -> None:
    """Add one option for each field of a configuration class; without it the parsed value is None.

    `defaults` are those of the command where they differ from the class's; the help shows them.
    """
    hints, texts = get_type_hints(config), field_help(config)
    for setting in fields(config):
        default = (defaults or {}).get(setting.name, setting.default)
        shown = "" if default is None or default is MISSING else f" (default: {default})"
        parser.add_argument(
            f"--{setting.name.replace('_', '-')}",
            type=_reader(hints[setting.name]),
            metavar=setting.name.upper(),
            help=(texts.get(setting.name, "") + shown).replace("%", "%%"),
        )


def given_options(options: argparse.Namespace, config: type) -> dict[str, Any]:
    """Return the fields of a configuration class that the command line gives."""
    values = {setting.name: getattr(options, setting.name, None) for setting in fields(config)}
    return {name: value for name, value in values.items() if value is not None}


def field_help(config: type) -> dict[str, str]:
    """Return what a dataclass and its bases say of each field: the text that stands after it in the source."""
    texts = {}
    for base in reversed(config.__mro__):
        if not is_dataclass(base):
            continue
        (definition,) = ast.parse(inspect.getsource(base)).body
        assert isinstance(definition, ast.ClassDef)
        for statement, after in pairwise(definition.body):
            match statement, after:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    texts[name] = " ".join(text.split())
    return texts


def _reader(hint: Any) -> Callable[[str], Any]:
    """Return what reads an option's text as a value of a field's type; a mapping or a truth value is given as JSON."""
    if get_origin(hint) in (types.UnionType, Union):
        (hint,) = [part for part in get_args(hint) if part is not types.NoneType]
    readers: dict[Any, Callable[[str], Any]] = {int: int, float: float, str: str}
    readers |= {bool: json.loads, Mapping: json.loads}
    return readers[get_origin(hint) or hint]
