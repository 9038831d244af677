"""`rvpo`: find the command, run it, and turn what goes wrong on purpose into one line."""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from types import ModuleType

from rvpo import __version__
from rvpo.cli.laboratory import laboratory_command
from rvpo.errors import ConfigError, RvpoError

__all__ = ["main"]

COMMANDS = {
    "train": "train a language model on many rewards, in TRL",
    "data": "look at a rubric data set: criteria, tags, polarity, what looks wrong",
    "judge": "grade answers by rubrics with an LLM; check how far it can be trusted",
    "audit": "which reward will be neglected, dead or noisy, from the logs you already have",
    "eval": "evaluate a model or all checkpoints of a run: HealthBench, GPQA, tool calls",
    "compare": "paired tests between results: is one better, by how much, how surely",
    "report": "one HTML page from training runs: rewards, weights, what is dead or missing",
}
"""What each does; `rvpo NAME` is `main` of `rvpo.cli.NAME`."""
LABORATORY = {
    "quickstart": "watch constraint neglect happen and be cured, on a laptop, no downloads",
    "bench": "measure which method neglects which reward: tasks x methods x seeds",
    "simulate": "compare methods on thousands of random conflicting criteria, without a model",
    "tables": "the paper's tables from your results, beside the paper's numbers",
}
"""Those that rvpo-lab brings."""
EXTRAS = {"train": "trl", "data": "judge", "eval": "evals", "compare": "evals"}
"""The extra of rvpo that brings what a command imports, where it has another name."""

EXAMPLES = """
examples:
  rvpo quickstart
  rvpo train --config configs/rlla_tiny.yaml
  rvpo train --config configs/rlla_tiny.yaml --method gdpo --output_dir runs/gdpo
  rvpo report runs/gdpo runs/rvpo
  rvpo audit --example
  rvpo simulate --channels 17 --methods gdpo,rvpo:0.5-2,rvpo_policy:2

'rvpo COMMAND --help' tells a command's options.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status (2: an error of the input, 130: interrupted)."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(
        prog="rvpo",
        description="Train language models on many rewards at once so that none is neglected.\n\n"
        f"commands:\n{_listed(COMMANDS)}\n\nwith the laboratory, rvpo-lab:\n{_listed(LABORATORY)}",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"rvpo {__version__}")
    parser.add_argument(
        "command", choices=[*COMMANDS, *LABORATORY], metavar="COMMAND", help="one of the commands above"
    )
    parsed = parser.parse_args(arguments[:1])  # the rest is the command's own
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


def _listed(commands: Mapping[str, str]) -> str:
    return "\n".join(f"  {name:<12}{text}" for name, text in commands.items())


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
