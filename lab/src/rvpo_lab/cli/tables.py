"""`rvpo tables`: the tables of the paper from one's own results, with the paper's numbers beside them."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from rvpo.cli.compare import named_path, write
from rvpo.evals.results import Result, read_result, result_folders
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
    parser = argparse.ArgumentParser(
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
    """Return the runs in NAME=FOLDER or FOLDER: results with a training step that lie side by side are one run's."""
    name, folder = named_path(text)
    runs: dict[tuple[Path, str], list[Result]] = {}
    for place in result_folders(folder):
        result = read_result(place)
        home = place if result.summary["step"] is None or place == folder else place.parent
        runs.setdefault((home, result.summary["benchmark"]), []).append(result)
    return [
        Run(
            name or home.resolve().name,
            tuple(result.summary for result in results),
            tuple(result.records for result in results) if with_records else (),
        )
        for (home, _), results in runs.items()
    ]
