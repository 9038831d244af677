"""`rvpo data`: what is in a rubric data set, before anything is trained or judged by it."""

import argparse
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rvpo.cli.options import HelpfulParser
from rvpo.data.describe import Description, RowProblem, SharedText, describe, histogram
from rvpo.data.formats import POLARITY_RULES
from rvpo.data.load import FORMATS, LoadedRows, load_rubric_rows
from rvpo.data.rows import write_rows
from rvpo.text import plural, shown

__all__ = ["main"]

FEW = 5
"""Problems of a kind that are listed."""
TAGS = 15
"""Tags that are listed."""
BAR = 40
"""Blocks of the longest bar."""
LONGEST_TEXT = 1000
"""Characters of a text that are printed."""

KINDS = {
    "suspicious_polarity": "criteria with suspicious polarity",
    "duplicate_text": "texts more than once in one rubric",
    "empty_text": "rubrics with empty texts",
}

DESCRIPTION = """\
Tell what is in a rubric data set: how many criteria a prompt has, their tags,
points and polarity, what looks wrong, and what was dropped. Shows ids, not
texts, so that evaluation data stays unseen; --show prints the texts as well.
"""

EXAMPLES = """
The name is a hub name, a saved folder, or a .jsonl, .json, .csv or .parquet
file. docs/data.md describes the formats, and how polarity is found.

examples:
  rvpo data rubrics.jsonl
  rvpo data anisha2102/RaR-Science --split val --limit 500 --show
  rvpo data anisha2102/RaR-Medicine --polarity by_wording --out medicine.jsonl
"""


def main(arguments: Sequence[str]) -> int:
    """Run the command."""
    options = _parser().parse_args(arguments)
    loaded = load_rubric_rows(
        options.name, format=options.format, split=options.split, polarity=options.polarity, limit=options.limit
    )
    _print(options.name, loaded, describe(loaded.rows), show=options.show)
    if options.out is not None:
        write_rows(loaded.rows, options.out)
        _say(f"written: {options.out} ({plural(len(loaded.rows), 'row')})")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = HelpfulParser(
        prog="rvpo data",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", metavar="FILE_OR_NAME", help="the data set")
    parser.add_argument("--format", choices=FORMATS, help="how the rows are written (default: guessed from columns)")
    parser.add_argument("--split", default="train", help="part of a hub name or folder (default: train)")
    parser.add_argument(
        "--polarity",
        choices=POLARITY_RULES,
        help="for RaR, whether meeting a pitfall criterion is good (default: by the name of the data set)",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="read the first N rows only")
    parser.add_argument("--show", action="store_true", help="print the texts of the criteria listed")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the rows as canonical JSON Lines")
    return parser


def _say(line: str = "") -> None:
    Console().print(line, markup=False, highlight=False, soft_wrap=True)


def _print(name: str, loaded: LoadedRows, contents: Description, *, show: bool) -> None:
    kept = f"{len(loaded.rows)} kept, {loaded.dropped} dropped"
    _say(f"{name}, read as {loaded.format}: {plural(loaded.read, 'row')}, {kept}")
    for count, label in (
        (loaded.without_prompt, "dropped: no prompt"),
        (loaded.without_rubric, "dropped: no rubric"),
        (loaded.duplicates, "with the prompt of an earlier row"),
        (loaded.empty_references, "without a reference"),
        (loaded.unreadable_categories, "criteria of an unreadable category"),
        (loaded.undecided_polarities, "pitfalls whose wording does not tell the polarity (met counts as bad)"),
    ):
        if count:
            _say(f"{count:>8}  {label}")
    _print_sizes(contents.sizes)
    _print_tags(contents)
    _say(f"\npolarity: {contents.positive} positive (met is good), {contents.negative} negative (met is bad)")
    _print_problems(contents.problems, show)
    _print_shared(contents.shared, show)


def _print_sizes(sizes: Sequence[int]) -> None:
    middle = f"median {statistics.median(sizes):g}, {sum(sizes)} in all"
    _say(f"\ncriteria per prompt: {min(sizes)} to {max(sizes)}, {middle}")
    bins = histogram(sizes)
    highest = max(count for _, _, count in bins)
    for low, high, count in bins:
        label = f"{low}" if low == high else f"{low}-{high}"
        _say(f"{label:>8}  {'█' * max(round(BAR * count / highest), count > 0)} {count}")


def _print_tags(contents: Description) -> None:
    if contents.tags:
        table = _table("Tags of criteria", "tag", ("criteria", "points", "lowest", "highest"))
        for tag, count, *points in contents.tags[:TAGS]:
            table.add_row(escape(_line(tag)), str(count), *(f"{value:g}" for value in points))
        _print_table(table, len(contents.tags))
    if contents.example_tags:
        table = _table("Tags of examples", "tag", ("rows",))
        for tag, count in contents.example_tags[:TAGS]:
            table.add_row(escape(_line(tag)), str(count))
        _print_table(table, len(contents.example_tags))


def _table(title: str, first: str, columns: Iterable[str]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(first, overflow="fold")
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _print_table(table: Table, rows: int) -> None:
    console = Console()
    console.print()
    console.print(table)
    if rows > TAGS:
        _say(f"and {plural(rows - TAGS, 'more tag')}")


def _print_problems(problems: Sequence[RowProblem], show: bool) -> None:
    for kind, label in KINDS.items():
        of_kind = [row_problem for row_problem in problems if row_problem.problem.kind == kind]
        if of_kind:
            _say(f"\n{label}: {len(of_kind)}{_first(len(of_kind))}")
        for row, problem, text in of_kind[:FEW]:
            _say(f"  row {_line(row)}, {', '.join(map(_line, problem.ids))}: {problem.reason}")
            _show(text, show)


def _print_shared(texts: Sequence[SharedText], show: bool) -> None:
    if texts:
        _say(f"\ntexts in several rubrics: {len(texts)}{_first(len(texts))}")
    for count, row, criterion, text in texts[:FEW]:
        _say(f"  in {count} rubrics, first row {_line(row)}, {_line(criterion)}")
        _show(text, show)


def _first(count: int) -> str:
    return f", the first {FEW}" if count > FEW else ""


def _show(text: str, show: bool) -> None:
    if show and text.strip():
        _say(f"    {_line(text)}")


def _line(text: str) -> str:
    """Return a text of the data on one line, without what would steer the terminal."""
    return shown(text, LONGEST_TEXT)
