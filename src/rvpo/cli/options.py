"""The parser of every command, and options out of a configuration's fields: name, type and help are written once."""

import argparse
import ast
import inspect
import json
import os
import re
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from difflib import get_close_matches
from itertools import pairwise
from typing import Any, NoReturn, Union, get_args, get_origin, get_type_hints

__all__ = [
    "COMPLETION",
    "HelpfulParser",
    "add_config_options",
    "complete",
    "field_help",
    "given_options",
    "nearest",
]

COMPLETION = "_ARGCOMPLETE"
"""Set by a shell that asks for completions of COMP_LINE; its value is the number of words in the program's name."""

OPENING_EXAMPLES = 2
"""Examples that stand above the options; the rest follow below."""


class HelpfulParser(argparse.ArgumentParser):
    """A parser whose help opens with two examples, whose errors name the nearest right name; a shell completes it.

    The examples are those of the epilog, a line "examples:" and indented lines after it.
    """

    _is_completing = False

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """Parse, or complete where a shell asks for it."""
        if COMPLETION in os.environ and not self._is_completing:
            complete(self)
        return super().parse_known_args(args, namespace)

    def format_usage(self) -> str:
        """Return one line: the command, what it must be given, and that there are options."""
        if self._subparsers is not None:
            return super().format_usage()
        formatter = self._get_formatter()
        formatter.add_usage(self.usage, self._needed(), [])
        line = " ".join(formatter.format_help().split())
        return f"{line} [options]\n"

    def format_help(self) -> str:
        """Return usage, two examples, then what argparse writes: description, options, the rest of the epilog."""
        opening, rest = _split_examples(self.epilog or "")
        formatter = self._get_formatter()
        formatter.add_text(self.description)
        for group in self._action_groups:
            formatter.start_section(group.title)
            formatter.add_text(group.description)
            formatter.add_arguments(group._group_actions)
            formatter.end_section()
        formatter.add_text(rest)
        return "\n".join(part for part in (self.format_usage(), opening, formatter.format_help()) if part)

    def error(self, message: str) -> NoReturn:
        """Exit with status 2 and the message, with the nearest right name for a wrong option or choice."""
        if unknown := re.match(r"unrecognized arguments: (--?[\w-]+)", message):
            message += nearest(unknown[1], _option_names(self))
        elif choice := re.match(r".*invalid choice: '?([^'\s]+)'? \(choose from (.*)\)", message, re.DOTALL):
            message += nearest(choice[1], re.findall(r"[^\s',]+", choice[2]))
        super().error(message)

    def _needed(self) -> list[argparse.Action]:
        return [action for action in self._actions if action.required or not action.option_strings]


def complete(parser: argparse.ArgumentParser) -> NoReturn:
    """Answer the shell with what can stand at the cursor, and end the process."""
    import argcomplete  # installed by whoever wants it: the variable is set by its script

    HelpfulParser._is_completing = True  # argcomplete parses what stands before the cursor
    argcomplete.autocomplete(parser)
    raise AssertionError("argcomplete ends the process")


def _option_names(parser: argparse.ArgumentParser) -> list[str]:
    """Return the options of a parser and of the commands below it, which leave unknown ones to it."""
    names: list[str] = []
    for action in parser._actions:
        names += action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            names += [name for below in action.choices.values() for name in _option_names(below)]
    return names


def nearest(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean ...?" for the known name that is nearest to a wrong one, or "".

    >>> nearest("--metod", ["--method", "--model"])
    '; did you mean --method?'
    >>> nearest("--metod", ["--k"])
    ''
    """
    near = get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _split_examples(epilog: str) -> tuple[str, str]:
    """Return an epilog's first examples under their heading, and the rest of it."""
    block = re.search(r"^examples:\n((?:  .*\n?)+)", epilog, re.MULTILINE)
    if block is None:
        return "", epilog
    examples = re.findall(r"^  (?=\S)(?:.*\\\n)*.*\n?", block[1], re.MULTILINE)
    opening = "examples:\n" + "".join(examples[:OPENING_EXAMPLES])
    more = "".join(examples[OPENING_EXAMPLES:])
    rest = epilog[: block.start()] + (f"more examples:\n{more}" if more else "") + epilog[block.end() :]
    return opening, rest.strip("\n")


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
