"""`rvpo eval bfcl`: its own options, and the benchmark that they ask for."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rvpo.evals.benchmark import Benchmark

__all__ = ["add_options", "build"]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what only BFCL knows."""
    parser.add_argument(
        "--format",
        choices=("prompt", "native", "rlla"),
        default="prompt",
        help="how calls are asked for and read: prompt, BFCL's own system prompt; native, the tool calling of the "
        "server or of the model's chat template; rlla, for models trained on RLLA (default: prompt)",
    )
    parser.add_argument(
        "--categories",
        nargs="+",
        default=["all"],
        metavar="NAME",
        help="all, single_turn, non_live, live, multi_turn, or categories by name (default: all)",
    )
    parser.add_argument(
        "--limit", type=int, metavar="N", help="N cases of each category, drawn by the seed; gives no aggregate"
    )


def build(options: argparse.Namespace) -> "Benchmark":
    """Return the benchmark of parsed options. Raises ConfigError for what cannot be used."""
    from rvpo.evals.bfcl import build as benchmark

    return benchmark(
        answer_format=options.format,
        categories=options.categories,
        number=options.limit,
        repeats=options.repeats,
        seed=options.seed,
    )
