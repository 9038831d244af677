"""`rvpo bench report`: one HTML page from suites, and training runs beside them."""

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from rvpo.cli.report import add_options, check_installed, write_report

__all__ = ["add_parser", "report_on_suites"]

DESCRIPTION = """\
Write one self-contained HTML page: what was compared and found, held-out curves
per axis and channel, scores, k and weights over training, sample answers with
their verdicts. It needs no network and prints on A4.

FOLDER is that of a suite or of the quickstart, or the output folder of `rvpo train`,
which gives training curves only. Several are shown in one page.
"""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to those of `rvpo bench`."""
    parser = commands.add_parser(
        "report",
        help="one HTML page: findings, curves, scores, sample answers",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="folder of a suite or a training run")
    parser.add_argument(
        "--task", action="append", default=[], metavar="NAME", help="only this task, or a,b; may be repeated"
    )
    add_options(parser)


def report_on_suites(
    folders: Sequence[Path], *, tasks: Sequence[str] = (), out: Path | None = None, figures: Path | None = None
) -> None:
    """Write the page of these folders, limited to these tasks of suites, and its figures if a folder is given."""
    check_installed()
    from rvpo_lab.report.inputs import read_inputs
    from rvpo_lab.report.page import make_suite_report

    names = [name.strip() for text in tasks for name in text.split(",") if name.strip()]
    words = ["rvpo", "bench", "report", *map(str, folders), *(["--task", ",".join(names)] if names else [])]
    report = make_suite_report(read_inputs(folders, names), reproduce=shlex.join(words))
    write_report(report, out or folders[0] / "report.html", figures)
