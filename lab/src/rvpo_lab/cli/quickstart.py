"""`rvpo quickstart`: watch constraint neglect happen and be cured, on a laptop, with nothing downloaded."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from rvpo.cli.options import HelpfulParser
from rvpo.cli.report import check_installed
from rvpo_lab.cli.bench import report_on_suites
from rvpo_lab.cli.suite_view import LiveView, duration, print_scores
from rvpo_lab.option_text import seeds_of
from rvpo_lab.suite.plan import SuiteSettings, cells
from rvpo_lab.suite.schedule import run_cells
from rvpo_lab.suite.storage import keep_settings, read_cells

__all__ = ["METHODS", "main"]

METHODS = ("grpo", "gdpo", "rvpo", "maxrl")

INTRODUCTION = """\
A policy of 0.8 million parameters answers patients; every prompt brings its
own rubric of 5 to 17 criteria, each a reward. Some are met almost always, some
hardly ever, and a length limit is in conflict with completeness. GRPO, GDPO,
RVPO (the paper's, k from 0.5 to 2.0) and MaxRL, which is what we advise, train
it from the same warm start, on the same prompts, for as many steps, in TRL."""

EXAMPLES = """
examples:
  rvpo quickstart
  rvpo quickstart --seeds 5 --out runs/five   # bands and tests over seeds
  rvpo quickstart --steps 20                  # a first look in a minute or two

Interrupted, it goes on with the same command.
"""


def main(arguments: Sequence[str]) -> int:
    """Run the command."""
    defaults = SuiteSettings()
    parser = HelpfulParser(
        prog="rvpo quickstart",
        description=INTRODUCTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seeds", type=seeds_of, default=[0, 1], help="2 (how many), 0-4 or 1,5 (default: 2)")
    parser.add_argument("--steps", type=int, default=defaults.steps, help=f"per run (default: {defaults.steps})")
    parser.add_argument(
        "--warm-start-steps",
        type=int,
        default=defaults.warm_start_steps,
        help=f"fewer make a weaker start, for trials (default: {defaults.warm_start_steps})",
    )
    parser.add_argument("--workers", type=int, default=2, help="runs side by side, one thread each (default: 2)")
    parser.add_argument("--out", type=Path, default=Path("runs/quickstart"), help="folder (default: runs/quickstart)")
    options = parser.parse_args(arguments)
    planned = cells(["rubric"], METHODS, options.seeds)
    settings = SuiteSettings(
        steps=options.steps,
        evaluate_every=max(options.steps // 10, 1),
        warm_start_steps=options.warm_start_steps,
    )
    check_installed()
    keep_settings(options.out, settings)
    print(INTRODUCTION, end="\n\n")
    with LiveView() as show:
        run_cells(options.out, planned, settings, workers=options.workers, show=show, keep=True)
    records = read_cells(options.out, planned)
    print_scores(records)
    report_on_suites([options.out])
    print(f"{duration(show.elapsed)}. trained policies: {options.out / 'runs'}")
    return 0
