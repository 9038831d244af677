"""`rvpo`: find the command, run it, and turn what goes wrong on purpose into one line."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from rvpo import __version__
from rvpo.errors import RvpoError

__all__ = ["main"]

COMMANDS = {
    "train": ("rvpo.cli.train", "train a language model on many rewards, in TRL"),
    "data": ("rvpo.cli.data", "look at a rubric data set: criteria, tags, polarity, what looks wrong"),
    "judge": ("rvpo.cli.judge", "grade answers by rubrics with an LLM; check how far it can be trusted"),
    "audit": ("rvpo.cli.audit", "which reward will be neglected, dead or noisy, from the logs you already have"),
    "eval": ("rvpo.cli.eval", "evaluate a model or all checkpoints of a run: HealthBench, GPQA, tool calls"),
    "compare": ("rvpo.cli.compare", "paired tests between results: is one better, by how much, how surely"),
    "tables": ("rvpo_lab.cli.tables", "the paper's tables from your results, beside the paper's numbers"),
    "report": ("rvpo.cli.report", "one HTML page from runs: curves, scores, weights, sample answers"),
    "simulate": (
        "rvpo_lab.cli.simulate",
        "compare methods on thousands of random conflicting criteria, without a model",
    ),
    "quickstart": (
        "rvpo_lab.cli.quickstart",
        "watch constraint neglect happen and be cured, on a laptop, no downloads",
    ),
    "bench": ("rvpo_lab.cli.bench", "measure which method neglects which reward: tasks x methods x seeds"),
}

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
    commands = "\n".join(f"  {name:<12}{text}" for name, (_, text) in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="rvpo",
        description="Train language models on many rewards at once so that none is neglected.\n\n"
        f"commands:\n{commands}",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"rvpo {__version__}")
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="one of the commands above")
    parsed = parser.parse_args(arguments[:1])  # the rest is the command's own
    try:
        status: int = import_module(COMMANDS[parsed.command][0]).main(arguments[1:])
    except RvpoError as error:
        print(f"rvpo: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return status


if __name__ == "__main__":
    sys.exit(main())
