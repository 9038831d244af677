"""`rvpo bench neglect`: every task, method and seed, trained in TRL; `findings`, `gains`: what came out, and why;
`report`: one HTML page from suites, and training runs beside them; `pack`: a suite's cells in one file."""

import argparse
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rvpo.cli.options import HelpfulParser
from rvpo.cli.report import add_options, check_installed, write_figure, write_report
from rvpo.errors import ConfigError
from rvpo.files import write_whole
from rvpo_lab.cli.suite_view import LiveView, print_scores
from rvpo_lab.option_text import names_of, seeds_of
from rvpo_lab.suite.plan import CONTENDERS, OPTIONS, SuiteSettings, cells
from rvpo_lab.suite.results import channel_means, run_scores
from rvpo_lab.suite.schedule import run_cells
from rvpo_lab.suite.storage import CellRecord, keep_settings, pack, read_cells
from rvpo_lab.tasks.catalog import SUITE, TASKS
from rvpo_lab.tasks.task import summarize

__all__ = ["BUDGETS", "embedded_tasks", "main", "report_on_suites", "summarize"]

NINE = ["grpo", "gdpo", "rvpo", "rvpo_k5", "hard_min", "rvpo_policy", "corr_grpo", "gd2po", "tchebycheff"]
BUDGETS = {
    "quick": (["rubric", "tools"], ["grpo", "gdpo", "rvpo", "maxrl"], 1),
    "full": (list(SUITE), NINE, 8),
}
"""Tasks, methods and number of seeds."""

EXAMPLES = """
examples:
  rvpo bench neglect                             # two tasks, four methods, one seed: minutes
  rvpo bench neglect --budget full --out results # all tasks, nine methods, eight seeds: hours
  rvpo bench neglect --tasks noisy --methods gdpo,rvpo,cvar --seeds 0-7 --out noisy
  rvpo bench report results --task rubric        # one HTML page: curves, scores, sample answers
  rvpo bench findings results --out findings.md  # tables and verdicts from the finished cells
  rvpo bench findings results --fill paper.md    # the same into a document's places, <!-- begin aim --> and so on
  rvpo bench gains results --out gains.svg       # what each method teaches, by pass rate
  rvpo bench pack results                        # one file instead of one for each cell

A suite that was stopped goes on with the same command; finished cells are never trained again.
"""


def parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    top: argparse.ArgumentParser = HelpfulParser(
        prog="rvpo bench",
        description="Measure which method neglects which reward: real policies, real trainer, many tasks and seeds.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="neglect|report|findings|gains|pack")
    tasks = "\n".join(f"  {task.name:<12} {task.summary}" for task in TASKS.values())
    methods = "\n".join(f"  {contender.name:<14} {contender.label}" for contender in CONTENDERS.values())
    suite = commands.add_parser(
        "neglect",
        help="train the cells that are missing, then show the scores",
        description="Train each task x method x seed that has no cell yet.\n\n"
        f"tasks:\n{tasks}\n\nmethods:\n{methods}\n"
        "  or METHOD:K:OPTION=VALUE,... as in rvpo_policy:1-4:signal=zscore\n"
        "  or gdpo:1:targets=0.6, a target for each axis of the rubric tasks",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    defaults = SuiteSettings()
    suite.add_argument(
        "--budget", choices=BUDGETS, default="quick", help="what to run where not told (default: quick)"
    )
    suite.add_argument("--tasks", type=names_of, help="comma-separated (default: those of the budget)")
    suite.add_argument("--methods", type=names_of, help="comma-separated (default: those of the budget)")
    suite.add_argument("--seeds", type=seeds_of, help="3 (how many), 0-4 or 1,5 (default: those of the budget)")
    for name, text in OPTIONS.items():
        value = getattr(defaults, name)
        suite.add_argument(
            f"--{name.replace('_', '-')}", type=type(value), default=value, help=f"{text} (default: {value:g})"
        )
    suite.add_argument("--workers", type=int, default=2, help="runs side by side, one thread each (default: 2)")
    suite.add_argument("--out", type=Path, default=Path("runs/neglect"), help="folder (default: runs/neglect)")
    add_report(commands)
    gains = commands.add_parser(
        "gains",
        help="draw what each method teaches about a criterion, by its pass rate",
        description="Draw the first-order gain of a criterion under each method against its pass rate: in a model of "
        "independent criteria, and in the first steps of stored runs, the same rollouts for all methods.",
    )
    gains.add_argument("results", type=Path, nargs="?", help="folder of a suite (default: the model alone)")
    gains.add_argument("--task", choices=TASKS, default="rubric", help="task of the runs (default: rubric)")
    gains.add_argument("--method", default="gdpo", help="what the runs were trained by (default: gdpo)")
    gains.add_argument(
        "--table", action="store_true", help="print gains relative to GDPO by group size, channels and k instead"
    )
    gains.add_argument("--out", type=Path, default=Path("gains.svg"), help=".svg or .png (default: gains.svg)")
    findings = commands.add_parser("findings", help="write the tables and verdicts of a finished suite as Markdown")
    findings.add_argument("results", type=Path, help="folder of a suite")
    place = findings.add_mutually_exclusive_group()
    place.add_argument("--out", type=Path, help="file to write (default: the terminal)")
    place.add_argument(
        "--fill", type=Path, metavar="FILE", help="document whose places <!-- begin NAME --> are filled anew instead"
    )
    findings.add_argument(
        "--method", default="rvpo_policy", help="contender held against the aim (default: rvpo_policy)"
    )
    findings.add_argument(
        "--unseen", type=seeds_of, default=[], help="seeds that nothing was chosen by, told for themselves as well"
    )
    findings.add_argument("--late", type=Path, metavar="FOLDER", help="folder of suites, one for each condition")
    findings.add_argument("--longer", type=Path, metavar="FOLDER", help="suite of some methods with more steps")
    findings.add_argument("--courses", type=Path, metavar="FILE", help="draw the courses of --longer, as .svg or .png")
    findings.add_argument("--figure", type=Path, metavar="FILE", help="draw the lowest thirds too, as .svg or .png")
    findings.add_argument("--rivals-figure", type=Path, metavar="FILE", help="draw the lowest thirds of --rivals")
    findings.add_argument("--candidates", type=Path, metavar="FOLDER", help="suite in which candidates were tried")
    findings.add_argument("--rivals", type=Path, metavar="FOLDER", help="suite of the newest methods, on fresh seeds")
    findings.add_argument("--regimes", type=Path, metavar="FOLDER", help="the same methods on tasks outside the suite")
    findings.add_argument("--sampling", type=Path, metavar="FOLDER", help="suite of the ways to choose prompts")
    findings.add_argument("--real", type=Path, metavar="FOLDER", help="results of `rvpo bench instructions`")
    packing = commands.add_parser("pack", help="join the cells of a finished suite in one file")
    packing.add_argument("results", type=Path, help="folder of a suite")
    return top


def embedded_tasks() -> Mapping[str, Callable[..., Any]]:
    """Return the embedded tasks as `rvpo eval` takes them, by name; inspect is slow to import."""
    from rvpo_lab.cli.eval_tasks import BENCHMARKS

    return BENCHMARKS


def main(arguments: Sequence[str]) -> int:
    """Run the command."""
    if arguments[:1] == ["instructions"]:
        from rvpo_lab.cli.instructions import main as instructions

        return instructions(arguments[1:])
    options = parser().parse_args(arguments)
    if options.command == "report":
        report_on_suites(options.folders, tasks=options.task, out=options.out, figures=options.figures)
        return 0
    if options.command == "pack":
        print(f"written: {pack(options.results)}")
        return 0
    return {"neglect": neglect, "findings": write_findings, "gains": draw_gains}[options.command](options)


def write_findings(options: argparse.Namespace) -> int:
    """Write the tables as a page, or into the places of a document; draw the figures if asked to."""
    from rvpo_lab.instructions.table import markdown
    from rvpo_lab.suite.findings import findings, places, refill, sections

    if options.fill and not options.fill.is_file():
        raise ConfigError(f"--fill needs a document to fill, but there is no file {options.fill}")
    document = options.fill.read_text() if options.fill else None
    records = read_cells(options.results)
    _draw(options, records)
    texts = sections(
        records,
        places(document) if document is not None else (),
        folder=options.results,
        method=options.method,
        unseen=options.unseen,
        late=options.late,
        longer=options.longer,
        candidates=options.candidates,
        rivals=options.rivals,
        regimes=options.regimes,
        sampling=options.sampling,
    )
    if options.real:
        texts["real"] = markdown(options.real)
    page, out = findings(texts) if document is None else refill(document, texts), options.fill or options.out
    if out is None:
        print(page, end="")
    else:
        write_whole(out, page)
        print(f"written: {out}")
    return 0


def _draw(options: argparse.Namespace, records: Sequence[CellRecord]) -> None:
    """Draw the figures of the findings that are asked for."""
    for figure, file, where, folder in (
        ("--rivals-figure", options.rivals_figure, "--rivals", options.rivals),
        ("--courses", options.courses, "--longer", options.longer),
    ):
        if file and not folder:
            raise ConfigError(f"{figure} draws the runs of {where} FOLDER, which is not given")
    if not (options.figure or options.rivals_figure or options.courses):
        return
    check_installed()
    from rvpo_lab.report.suite_figures import courses_picture, lowest_picture
    from rvpo_lab.suite.rivals import whole_seeds

    if file := options.figure:
        print(f"written: {write_figure(lowest_picture(run_scores(records)), file)}")
    if file := options.rivals_figure:
        runs = run_scores(whole_seeds(read_cells(options.rivals)))
        print(f"written: {write_figure(lowest_picture(runs), file)}")
    if file := options.courses:
        print(f"written: {write_figure(courses_picture(read_cells(options.longer)), file)}")


def draw_gains(options: argparse.Namespace) -> int:
    """Draw gains from the model and from the runs of one task and method, or print the model's table."""
    check_installed()
    from rvpo_lab.report.suite_figures import gains_picture
    from rvpo_lab.suite.gains import gains_table

    if options.table:
        print(gains_table(), end="")
        return 0
    records = read_cells(options.results) if options.results else []
    wanted = {"task": options.task, "contender": options.method}
    records = [record for record in records if record.rollouts and wanted.items() <= record.about.items()]
    if options.results and not records:
        raise ConfigError(f"{options.results} has no runs of {options.method} on {options.task}")
    print(f"written: {write_figure(gains_picture(records), options.out)}")
    return 0


def neglect(options: argparse.Namespace) -> int:
    """Train what is missing, write the channel means, show the scores."""
    tasks, methods, seeds = BUDGETS[options.budget]
    planned = cells(options.tasks or tasks, options.methods or methods, options.seeds or list(range(seeds)))
    settings = SuiteSettings(**{name: getattr(options, name) for name in OPTIONS})
    keep_settings(options.out, settings)
    with LiveView() as show:
        run_cells(options.out, planned, settings, workers=options.workers, show=show)
    records = read_cells(options.out, planned)
    file = options.out / "channel_means.parquet"
    channel_means(read_cells(options.out)).to_parquet(file, index=False, compression="zstd")
    print_scores(records)
    print(f"cells: {options.out / 'cells'}\nheld-out mean of every channel at every evaluation: {file}")
    print(f"report: rvpo bench report {options.out}    tables: rvpo bench findings {options.out}")
    return 0


REPORT_DESCRIPTION = """\
Write one self-contained HTML page: what was compared and found, held-out curves
per axis and channel, scores, k and weights over training, sample answers with
their verdicts. It needs no network and prints on A4.

FOLDER is that of a suite or of the quickstart, or the output folder of `rvpo train`,
which gives training curves only. Several are shown in one page.
"""


def add_report(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `report` to the commands of `rvpo bench`."""
    parser = commands.add_parser(
        "report",
        help="one HTML page: findings, curves, scores, sample answers",
        description=REPORT_DESCRIPTION,
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
