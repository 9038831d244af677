"""`rvpo`: find the command, run it, and turn what goes wrong on purpose into one line."""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType

from rvpo import __version__
from rvpo.cli.laboratory import laboratory_command
from rvpo.cli.options import COMPLETION, complete, nearest
from rvpo.errors import ConfigError, RvpoError

__all__ = ["main"]

PURPOSES = {
    "train": {"train": "train a language model on many rewards, in TRL"},
    "reward": {
        "judge": "grade answers by rubrics with an LLM; how far to trust it",
        "data": "look at a rubric data set: criteria, tags, what looks wrong",
    },
    "see": {
        "audit": "which reward is neglected, dead or noisy, from your logs",
        "report": "one HTML page from training runs: rewards, weights, what is dead",
    },
    "evaluate": {
        "eval": "a model or all checkpoints: HealthBench, IFEval, GPQA, tools",
        "compare": "paired tests of two logs: is one better, by how much, how surely",
    },
}
"""What a person wants to do, and the commands for it; `rvpo NAME` is `main` of `rvpo.cli.NAME`."""
COMMANDS = {name: text for commands in PURPOSES.values() for name, text in commands.items()}
LABORATORY = {
    "quickstart": "watch neglect happen and be cured, on a laptop, no downloads",
    "simulate": "methods on random conflicting criteria, without a model",
    "bench": "which method neglects which reward: tasks x methods x seeds",
    "tables": "the paper's tables from your results, beside the paper's numbers",
}
"""Those that rvpo-lab brings."""
EXTRAS = {"train": "trl", "data": "judge", "eval": "evals", "compare": "evals"}
"""The extra of rvpo that brings what a command imports, where it has another name."""

HELP = """usage: rvpo COMMAND [options]     rvpo COMMAND --help     rvpo --version

Train language models on many rewards at once so that none is neglected.

{commands}

examples:
  rvpo audit --example
  rvpo train --config run.yaml --method maxrl --output_dir runs/maxrl
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status (2: an error of the input, 130: interrupted)."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(prog="rvpo", usage="rvpo COMMAND [options]")
    parser.format_help = _help  # type: ignore[method-assign]
    parser.add_argument("--version", action="version", version=f"rvpo {__version__}")
    parser.add_argument("command", metavar="COMMAND")
    if COMPLETION in os.environ:
        arguments = _words_to_complete(parser)
    parsed = parser.parse_args(arguments[:1])  # the rest is the command's own
    if parsed.command not in (known := [*COMMANDS, *LABORATORY]):
        parser.error(f"there is no COMMAND {parsed.command}{nearest(parsed.command, known)}; see rvpo --help")
    if os.getcwd() not in sys.path:  # methods and rewards of one's own are imported by name, as with python -m
        sys.path.insert(0, os.getcwd())
    try:
        status: int = _module(parsed.command).main(arguments[1:])
    except RvpoError as error:
        print(f"rvpo: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return status


def _words_to_complete(parser: argparse.ArgumentParser) -> list[str]:
    """Return the words before the one that a shell wants completed; complete the command itself here."""
    words = os.environ["COMP_LINE"][: int(os.environ["COMP_POINT"])].split(" ")[1:-1]
    if not words:
        parser._actions[-1].completer = lambda **_: COMMANDS | LABORATORY  # type: ignore[attr-defined]
        complete(parser)
    os.environ[COMPLETION] = "2"  # the program's name is now two words, "rvpo COMMAND"
    return words


def _help() -> str:
    """Return the help of `rvpo` itself: one screen, the commands by what they are for."""
    groups = {**PURPOSES, "laboratory (the package rvpo-lab)": LABORATORY}
    lines = []
    for purpose, commands in groups.items():
        lines += [f"{purpose}:", *(f"  {name:<12}{text}" for name, text in commands.items())]
    return HELP.format(commands="\n".join(lines))


def _module(command: str) -> ModuleType:
    """Return the module of a command; ConfigError names what to install for it."""
    if command in LABORATORY:
        return laboratory_command(command)
    try:
        return import_module(f"rvpo.cli.{command}")
    except ModuleNotFoundError as error:
        if str(error.name).startswith("rvpo"):
            raise
        extra = EXTRAS.get(command, command)
        raise ConfigError(
            f"rvpo {command} needs {error.name}, not installed here: pip install 'rvpo[{extra}]'"
        ) from error


if __name__ == "__main__":
    sys.exit(main())
