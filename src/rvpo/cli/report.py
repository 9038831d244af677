"""`rvpo report`: one HTML page from the runs of a suite or of `rvpo train`, to read, send or print."""

import argparse
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from rvpo.errors import ConfigError

if TYPE_CHECKING:
    from rvpo.report.svg import NamedFigure

__all__ = ["check_installed", "main", "write_figure", "write_picture", "write_report"]

DRAWING = {"matplotlib": "report", "jinja2": "report"}
LOGS = {"pyarrow": "report"}
CELLS = {"pandas": "report"}
"""Packages, each with the extra of rvpo that brings it: for the page, for logs, and for the cells of suites."""

DESCRIPTION = """\
Write one self-contained HTML page: what was compared and found, held-out curves
per axis and channel, scores, k and weights over training, sample answers with
their verdicts. It needs no network and prints on A4.

RUN is the folder of a suite or quickstart, with cells/*.parquet, or the output
folder of `rvpo train`, with metrics.jsonl, which gives training curves only.
Several are shown in one page.
"""

EXAMPLES = """
examples:
  rvpo report runs/quickstart
  rvpo report runs/neglect --task rubric,tools --out rubric.html
  rvpo report runs/gdpo runs/rvpo --figures figures   # two training runs
  rvpo report --picture docs/neglect.svg              # only the picture of neglect
"""


def main(arguments: Sequence[str]) -> int:
    """Run the command."""
    options = _parser().parse_args(arguments)
    if options.picture is None and not options.runs:
        raise ConfigError("a report needs at least one RUN folder, or --picture FILE; `rvpo report --help` tells more")
    if options.picture is not None:
        print(f"picture: {write_picture(options.picture)}")
    if options.runs:
        tasks = [name.strip() for text in options.task for name in text.split(",") if name.strip()]
        out = options.out or options.runs[0] / "report.html"
        file = write_report(options.runs, out, tasks=tasks, figures=options.figures)
        print(f"report: {file} ({file.stat().st_size / 1e6:.1f} MB)")
        if options.figures is not None:
            print(f"figures: {options.figures}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rvpo report",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", type=Path, nargs="*", metavar="RUN", help="folder of a suite or a training run")
    parser.add_argument("--out", type=Path, metavar="FILE", help="page (default: report.html in the first RUN)")
    parser.add_argument("--figures", type=Path, metavar="FOLDER", help="save every figure there, as SVG and PNG")
    parser.add_argument(
        "--picture", type=Path, metavar="FILE", help="write the picture of constraint neglect, as .svg or .png"
    )
    parser.add_argument(
        "--task",
        action="append",
        default=[],
        metavar="NAME",
        help="only this task, or a,b, of suites; may be repeated",
    )
    return parser


def check_installed(*, cells: bool = True) -> None:
    """Raise ConfigError unless the packages are there that a page needs, with `cells` also those that read cells."""
    wanted = {**DRAWING, **(LOGS | CELLS if cells else {})}
    missing = [name for name in wanted if find_spec(name) is None]
    if missing:
        extras = ",".join(sorted({wanted[name] for name in missing}))
        raise ConfigError(
            f"rvpo report needs {', '.join(missing)}, not installed here; get it by pip install 'rvpo[{extras}]'"
        )


def write_report(runs: Sequence[Path], out: Path, *, tasks: Sequence[str] = (), figures: Path | None = None) -> Path:
    """Write the page of these runs, and its figures into a folder if one is given; return the page's file.

    `tasks` limits suites to these. Raises ConfigError for a folder that is no run, an unknown task, a package that is
    missing, or a place that cannot be written to.
    """
    check_installed(cells=any((folder / "cells").is_dir() for folder in runs))
    from rvpo.report.html import make_report
    from rvpo.report.runs import read_runs

    words = ["rvpo", "report", *map(str, runs), *(["--task", ",".join(tasks)] if tasks else [])]
    report = make_report(read_runs(runs, tasks), reproduce=shlex.join(words))
    with _writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(report.html, encoding="utf-8")
    for named in report.figures if figures is not None else ():
        assert figures is not None
        for suffix in (".svg", ".png"):
            write_figure(named, figures / f"{named.name}{suffix}")
    return out


def write_picture(file: Path) -> Path:
    """Write the picture of constraint neglect as SVG or PNG, by the file's suffix; return the file."""
    check_installed(cells=False)
    from rvpo.report.html import neglect_picture

    return write_figure(neglect_picture(), file)


def write_figure(named: "NamedFigure", file: Path) -> Path:
    """Write a figure as SVG or PNG, by the file's suffix; return the file."""
    from rvpo.report.svg import png, standalone_svg

    if file.suffix not in (".svg", ".png"):
        raise ConfigError(f"a picture needs a file that ends in .svg or .png, got {file}")
    with _writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(named) if file.suffix == ".png" else standalone_svg(named).encode())
    return file


@contextmanager
def _writing(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(f"cannot write {file}: {error}") from error
