"""`rvpo compare`: paired tests between results of `rvpo eval`, in the terminal and as JSON."""

import argparse
import json
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from rvpo.errors import ConfigError

if TYPE_CHECKING:
    from rvpo.evals.paired import PairedComparison
    from rvpo.evals.results import Result

__all__ = ["chosen_result", "main", "named_folder", "write"]

DESCRIPTION = """\
Compare results of one benchmark item by item with the first one given: paired
permutation test, bootstrap interval, effect size, p-values corrected by Holm.
A RESULT is a folder of `rvpo eval`, or NAME=FOLDER. The same NAME several
times: training seeds; the seed is then what the test counts. A folder with the
results of several checkpoints stands for its final one, or see --checkpoint.
"""

EXAMPLES = """
examples:
  rvpo compare results/healthbench/gdpo results/healthbench/rvpo
  rvpo compare gdpo=results/tools/gdpo rvpo=results/tools/rvpo --checkpoint best --score all_met
  rvpo compare gdpo=gdpo-0 gdpo=gdpo-1 rvpo=rvpo-0 rvpo=rvpo-1 --json compared.json
"""


def main(arguments: Sequence[str]) -> int:
    """Run the command."""
    options = _parser().parse_args(arguments)
    if find_spec("rich") is None:
        raise ConfigError("rvpo compare needs rich, not installed here: pip install 'rvpo[evals]'")
    from rvpo.evals.paired import compare, to_json

    groups: dict[str, list[Result]] = {}
    for text in options.results:
        name, folder = named_folder(text)
        result = chosen_result(folder, options.checkpoint)
        label = folder.resolve().name if result.folder != folder else str(result.summary["label"] or folder.name)
        groups.setdefault(name or label, []).append(result)
    main_score = _shared_score(groups)
    score = options.score or main_score
    comparisons = compare(
        {name: [result.records for result in results] for name, results in groups.items()},
        score,
        all_pairs=options.all_pairs,
        seed=options.seed,
        draws=options.draws,
        level=options.level,
    )
    benchmark = next(iter(groups.values()))[0].summary["benchmark"]
    notes = _notes(groups, comparisons, options.checkpoint)
    _print(comparisons, f"{benchmark}, {score}: compared", notes)
    if options.json is not None:
        content = {"benchmark": benchmark, "notes": notes, "comparisons": to_json(comparisons)}
        write(options.json, json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rvpo compare",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("results", nargs="+", metavar="RESULT", help="FOLDER or NAME=FOLDER")
    parser.add_argument("--checkpoint", default="final", metavar="WHICH", help="final (default), best, or a step")
    parser.add_argument("--score", metavar="NAME", help="of the items, as axis:accuracy (default: the main one)")
    parser.add_argument("--all-pairs", action="store_true", help="compare all with one another")
    parser.add_argument("--level", type=float, default=0.95, help="of the intervals and verdicts (default: 0.95)")
    parser.add_argument("--draws", type=int, default=10_000, help="of flips and of the bootstrap (default: 10000)")
    parser.add_argument("--seed", type=int, default=0, help="of both (default: 0)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything as JSON")
    return parser


def named_folder(text: str) -> tuple[str, Path]:
    """Return name and folder of NAME=FOLDER; the name is "" without one, or where FOLDER exists as it is."""
    name, equals, folder = text.partition("=")
    if not equals or Path(text).exists():
        return "", Path(text)
    if not name or not folder:
        raise ConfigError(f"a result is FOLDER or NAME=FOLDER, got {text!r}")
    return name, Path(folder)


def chosen_result(folder: Path, checkpoint: str) -> "Result":
    """Return the result in a folder, or that of one of its checkpoints: "final", "best" or a step.

    Raises ConfigError for a folder with results of several benchmarks or runs, or without that checkpoint.
    """
    from rvpo.evals.checkpoints import best_checkpoint
    from rvpo.evals.results import read_result, result_folders

    results = [read_result(place) for place in result_folders(folder)]
    runs = {(result.folder.parent, result.summary["benchmark"]) for result in results}
    if len(runs) > 1:
        raise ConfigError(f"{folder} has the results of several runs; name one of them, as {results[0].folder.parent}")
    if len(results) > 1 and any(result.summary["step"] is None for result in results):
        raise ConfigError(f"the results in {folder} are not those of checkpoints; name one, as {results[0].folder}")
    if checkpoint in ("final", "best"):
        summaries = [result.summary for result in results]
        wanted = best_checkpoint(summaries) if checkpoint == "best" else summaries[-1]
        return next(result for result in results if result.summary is wanted)
    by_step = {str(result.summary["step"]): result for result in results}
    if checkpoint not in by_step:
        steps = ", ".join(by_step)
        raise ConfigError(f"{folder} has no checkpoint {checkpoint}: --checkpoint is final, best or one of {steps}")
    return by_step[checkpoint]


def _shared_score(groups: Mapping[str, Sequence["Result"]]) -> str:
    """Return the item score of the one benchmark; raises ConfigError if there are several."""
    summaries = [result.summary for results in groups.values() for result in results]
    scores = {str(summary["benchmark"]): str(summary["item_score"]) for summary in summaries}
    if len(scores) > 1:
        raise ConfigError(f"results of one benchmark can be compared, these are of {', '.join(sorted(scores))}")
    return next(iter(scores.values()))


def _notes(
    groups: Mapping[str, Sequence["Result"]], comparisons: Sequence["PairedComparison"], checkpoint: str
) -> list[str]:
    """Return what holds for the comparisons beside their own cautions."""
    from rvpo.evals.results import differences

    notes = []
    if checkpoint == "best":
        notes.append("the best checkpoints were chosen by the scores that are compared, which flatters all of them")
    named = [(name, result) for name, results in groups.items() for result in results]
    (first, reference), *others = named
    for name, result in others:
        apart = differences(reference.summary["about"], result.summary["about"])
        if apart:
            notes.append(f"{name} was not evaluated as {first} was: {apart}")
    if reference.summary["benchmark"] == "gpqa":
        from rvpo.evals.gpqa import apart_note

        scores = {name: results[0].summary["scores"]["accuracy"] for name, results in groups.items()}
        notes += [apart_note(made.name, made.baseline, scores) for made in comparisons if made.seeds == 1]
    return notes


def _print(comparisons: Sequence["PairedComparison"], title: str, notes: Sequence[str]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from rvpo.evals.paired import cautions, cells, heads

    console = Console(highlight=False)
    columns = heads(comparisons[0].test.level)[:-1]  # the verdict is in the sentences below
    table = Table(*columns, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), title=Text(title), title_justify="left")
    for comparison in comparisons:
        table.add_row(*map(Text, cells(comparison)[:-1]))
    console.print(table)
    for comparison in comparisons:
        console.print(Text(f"{comparison.sentence}."))
    for sentence in [*notes, *cautions(comparisons)]:
        console.print(Text(f"- {sentence}."), style="dim")


def write(file: Path, text: str) -> None:
    """Write a text, making the folder, and say so; raises ConfigError if it cannot be written."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write {file}: {error}") from error
    print(f"written: {file}")
