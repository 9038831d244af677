"""`rvpo report`: one HTML page from the runs of `rvpo train`, to read, send or print."""

import argparse
import shlex
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from rvpo.cli.options import HelpfulParser
from rvpo.errors import ConfigError
from rvpo.files import write_whole

if TYPE_CHECKING:
    from rvpo.report.drawing import NamedFigure
    from rvpo.report.html import FiguresAndPage

__all__ = ["add_options", "check_installed", "main", "write_figure", "write_picture", "write_report"]

PACKAGES = ("jinja2", "matplotlib", "pyarrow")
"""Packages that the extra `report` of rvpo brings."""

DESCRIPTION = """\
Write one self-contained HTML page from training runs: the rewards of each channel,
its weight in the advantage, k, and where rewards are dead or missing, over training,
and sample answers where completions were logged. It needs no network and prints on A4.

RUN is the output folder of `rvpo train`, with metrics.jsonl. Several are shown in one
page. Pages of suites and of the quickstart are made by `rvpo bench report`.
"""

EXAMPLES = """
examples:
  rvpo report runs/rvpo
  rvpo report runs/gdpo runs/rvpo --out compared.html --figures figures
  rvpo report --picture docs/neglect.svg     # only the picture of neglect
"""


def main(arguments: Sequence[str]) -> int:
    """Run the command."""
    options = _parser().parse_args(arguments)
    if options.picture is None and not options.runs:
        raise ConfigError("a report needs at least one RUN folder, or --picture FILE; `rvpo report --help` says more")
    if options.picture is not None:
        print(f"picture: {write_picture(options.picture)}")
    if options.runs:
        check_installed()
        from rvpo.report.html import make_report
        from rvpo.report.runs import read_runs

        made_by = shlex.join(["rvpo", "report", *map(str, options.runs)])
        report = make_report(read_runs(options.runs), reproduce=made_by)
        write_report(report, options.out or options.runs[0] / "report.html", options.figures)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = HelpfulParser(
        prog="rvpo report",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", type=Path, nargs="*", metavar="RUN", help="output folder of a training run")
    parser.add_argument(
        "--picture", type=Path, metavar="FILE", help="write the picture of constraint neglect, as .svg or .png"
    )
    add_options(parser)
    return parser


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of where a report is written."""
    parser.add_argument("--out", type=Path, metavar="FILE", help="page (default: report.html in the first folder)")
    parser.add_argument("--figures", type=Path, metavar="FOLDER", help="save every figure there, as SVG and PNG")


def check_installed() -> None:
    """Raise ConfigError unless the packages are there that reports need."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"a report needs {', '.join(missing)}, not installed here; get it by pip install 'rvpo[report]'"
        )


def write_report(report: "FiguresAndPage", out: Path, figures: Path | None = None) -> None:
    """Write a page, and its figures into a folder if one is given; say where they are.

    Raises ConfigError for a place that cannot be written to.
    """
    write_whole(out, report.html)
    print(f"report: {out} ({out.stat().st_size / 1e6:.1f} MB)")
    if figures is not None:
        for named in report.figures:
            for suffix in (".svg", ".png"):
                write_figure(named, figures / f"{named.name}{suffix}")
        print(f"figures: {figures}")


def write_picture(file: Path) -> Path:
    """Write the picture of constraint neglect as SVG or PNG, by the file's suffix; return the file."""
    check_installed()
    from rvpo.report.html import neglect_picture

    return write_figure(neglect_picture(), file)


def write_figure(named: "NamedFigure", file: Path) -> Path:
    """Write a figure as SVG or PNG, by the file's suffix; return the file."""
    from rvpo.report.drawing import png, svg

    if file.suffix not in (".svg", ".png"):
        raise ConfigError(f"a picture needs a file that ends in .svg or .png, got {file}")
    write_whole(file, png(named) if file.suffix == ".png" else svg(named))
    return file
