"""`rvpo tables`: the tables of the paper from one's own results, with the paper's numbers beside them."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from rvpo.cli.compare import named_path, write
from rvpo.cli.eval_view import summary_of
from rvpo.cli.options import HelpfulParser
from rvpo.evals.logs import Log, read_logs
from rvpo_lab.paper_tables import Run, tables

__all__ = ["main"]

DESCRIPTION = """\
Write the tables of the paper from results of `rvpo eval`, as Markdown: best and
final checkpoint, axes, ablation of k, intervals, paired tests, what is missing.
The paper's own numbers stand beside them and are marked as quoted.

A FOLDER is the results of one training run (of a model or of its checkpoints)
or a folder of such. Names carry what tables are sorted by: size, method, k, as
"7B RVPO k=0.5-2"; without NAME= it is the folder's. Equal names are seeds.
"""

EXAMPLES = """
examples:
  rvpo tables results
  rvpo tables "7B GDPO=results/healthbench/7b-gdpo" "7B RVPO k=0.5-2=results/healthbench/7b-rvpo" --out tables.md
"""


def main(arguments: Sequence[str]) -> int:
    """Run the command."""
    parser = HelpfulParser(
        prog="rvpo tables",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="FOLDER or NAME=FOLDER")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write to a file (default: print)")
    parser.add_argument("--no-tests", action="store_true", help="leave out the paired tests")
    options = parser.parse_args(arguments)
    runs = [run for text in options.folders for run in read_runs(text, with_records=not options.no_tests)]
    made = tables(runs)
    if options.out is None:
        print(made, end="")
    else:
        write(options.out, made)
    return 0


def read_runs(text: str, *, with_records: bool = True) -> list[Run]:
    """Return the runs in NAME=FOLDER or FOLDER: a folder's logs of a task with a training step are one run's."""
    name, folder = named_path(text)
    runs: dict[tuple[Path, str, str], list[Log]] = {}
    for log in read_logs(folder):
        alone = "" if log.step is not None else log.path.name
        runs.setdefault((log.path.parent, log.task, alone), []).append(log)
    return [
        Run(
            name or home.resolve().name,
            tuple(summary_of(log) for log in logs),
            tuple(log.seeds[0] for log in logs) if with_records else (),
        )
        for (home, _, _), logs in runs.items()
    ]
