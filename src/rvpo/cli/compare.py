"""`rvpo compare`: paired tests between the logs of any harness, in the terminal and as JSON."""

import argparse
import json
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from rvpo.cli.options import HelpfulParser
from rvpo.errors import ConfigError
from rvpo.files import write_whole

if TYPE_CHECKING:
    from rvpo.evals.benchmark import Record
    from rvpo.evals.logs import Log
    from rvpo.evals.paired import PairedComparison

__all__ = ["chosen_log", "main", "named_path", "write"]

DESCRIPTION = """\
Compare two or more evaluations item by item with the first one given: paired
permutation test, bootstrap interval, effect size, p-values corrected by Holm.
A LOG is a file of inspect (.eval, .json), of lm-eval's --log_samples, a plain
.jsonl, .parquet or .csv of ids and scores, a folder of `rvpo eval`, or
NAME=LOG. The same NAME several times: training seeds, or a plain file's column
`seed`; the seed is then what the test counts. Epochs of an item are averaged.
"""

EXAMPLES = """
examples:
  rvpo compare logs/base.eval logs/tuned.eval
  rvpo compare base/samples_gsm8k_2026.jsonl tuned/samples_gsm8k_2026.jsonl --score exact_match,strict-match
  rvpo compare scores_a.parquet scores_b.parquet --id question --score f1 --by subject
  rvpo compare gdpo=gdpo-0.eval gdpo=gdpo-1.eval rvpo=rvpo-0.eval rvpo=rvpo-1.eval --json compared.json
  rvpo compare gdpo=results/tools/gdpo rvpo=results/tools/rvpo --checkpoint best --score all_met
"""


def main(arguments: Sequence[str]) -> int:
    """Run the command."""
    options = _parser().parse_args(arguments)
    if find_spec("rich") is None:
        raise ConfigError("rvpo compare needs rich, not installed here: pip install 'rvpo[evals]'")
    from rvpo.evals.paired import to_json

    groups = _named([(*named_path(text), text) for text in options.logs], options)
    score = options.score or _shared_score(groups)
    comparisons = _comparisons(groups, score, options)
    task = next(iter(groups.values()))[0].task
    notes = _notes(groups, comparisons, options.checkpoint)
    _print(comparisons, ", ".join([*filter(None, [task]), score]) + ": compared", notes)
    if options.json is not None:
        content = {"benchmark": task, "score": score, "notes": notes, "comparisons": to_json(comparisons)}
        write(options.json, json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = HelpfulParser(
        prog="rvpo compare",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("logs", nargs="+", metavar="LOG", help="LOG or NAME=LOG")
    parser.add_argument("--score", metavar="NAME", help="which score of the items (default: the main or only one)")
    parser.add_argument("--by", metavar="TAG", help="compare also by this metadata or column of the items, as subject")
    parser.add_argument("--id", metavar="COLUMN", help="of a plain file: what names the items (default: id)")
    parser.add_argument("--checkpoint", default="final", metavar="WHICH", help="final (default), best, or a step")
    parser.add_argument("--all-pairs", action="store_true", help="compare all with one another")
    parser.add_argument("--level", type=float, default=0.95, help="of the intervals and verdicts (default: 0.95)")
    parser.add_argument("--draws", type=int, default=10_000, help="of flips and of the bootstrap (default: 10000)")
    parser.add_argument("--seed", type=int, default=0, help="of both (default: 0)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything as JSON")
    return parser


def named_path(text: str) -> tuple[str, Path]:
    """Return name and path of NAME=PATH; the name is "" without one, or where PATH exists as it is."""
    name, equals, path = text.partition("=")
    if not equals or Path(text).exists():
        return "", Path(text)
    if not name or not path:
        raise ConfigError(f"a log is LOG or NAME=LOG, got {text!r}")
    return name, Path(path)


Groups = Mapping[str, Sequence["Log"]]


def _named(given: Sequence[tuple[str, Path, str]], options: argparse.Namespace) -> Groups:
    """Return the logs by name; without one the model's, or the path's where two logs are of one model."""
    logs = [(name, _log(path, options), text) for name, path, text in given]
    models = [log.model for name, log, _ in logs if not name]
    groups: dict[str, list[Log]] = {}
    for name, log, text in logs:
        model = Path(text).name if Path(text).is_dir() else log.model
        label = name or (model if model and models.count(log.model) == 1 else text)
        groups.setdefault(label, []).append(log)
    return groups


def _log(path: Path, options: argparse.Namespace) -> "Log":
    from rvpo.evals.logs import is_log_file, read_log

    if is_log_file(path):
        return read_log(path, id_column=options.id)
    return chosen_log(path, options.checkpoint)


def chosen_log(folder: Path, checkpoint: str) -> "Log":
    """Return the log in a folder, or that of one of its checkpoints: "final", "best" or a step.

    Raises ConfigError for a folder with logs of several tasks or runs, or without that checkpoint.
    """
    from rvpo.cli.eval_view import summary_of
    from rvpo.evals.benchmark import best_checkpoint
    from rvpo.evals.logs import read_logs

    logs = read_logs(folder)
    if len({(log.path.parent, log.task) for log in logs}) > 1:
        raise ConfigError(f"{folder} has the results of several runs; name one of them, as {logs[0].path.parent}")
    by_step = {str(log.step): log for log in logs}
    if len(by_step) < len(logs):
        raise ConfigError(f"{folder} has several logs of one model; name one, as {logs[0].path}")
    if checkpoint == "final" or (len(logs) == 1 and checkpoint == "best"):
        return logs[-1]
    if checkpoint == "best":
        best = best_checkpoint([summary_of(log) for log in logs])
        return next(log for log in logs if log.step == best["step"])
    if checkpoint not in by_step:
        steps = ", ".join(by_step)
        raise ConfigError(f"{folder} has no checkpoint {checkpoint}: --checkpoint is final, best or one of {steps}")
    return by_step[checkpoint]


def _shared_score(groups: Groups) -> str:
    """Return the main score of all logs; raises ConfigError where they do not agree on one."""
    logs = [log for several in groups.values() for log in several]
    scores = {log.score for log in logs}
    if len(scores) == 1 and "" not in scores:
        return scores.pop()
    shared = [name for name in logs[0].names if all(name in log.names for log in logs)]
    if len(shared) == 1:
        return shared[0]
    which = f"--score is one of {', '.join(shared)}" if shared else "they have no score in common"
    tasks = ", ".join(sorted({log.task for log in logs if log.task}))
    raise ConfigError(f"say which score is to be compared: {which}" + (f"; these are of {tasks}" if tasks else ""))


def _comparisons(groups: Groups, score: str, options: argparse.Namespace) -> list["PairedComparison"]:
    """Return the comparisons over all items, and with --by those over the items with each text of that tag."""
    from rvpo.evals.paired import adjusted, compare

    records = {name: [seed for log in logs for seed in log.seeds] for name, logs in groups.items()}
    settings = {name: getattr(options, name) for name in ("all_pairs", "seed", "draws", "level")}
    comparisons = compare(records, score, **settings)
    if options.by is None:
        return comparisons
    texts = sorted(_texts_of(records, options.by))
    if not texts:
        items = [item for seeds in records.values() for some in seeds for item in some]
        known = sorted({tag for item in items for tag in item.get("tags", ())})
        which = f"--by is one of {', '.join(known)}" if known else "the items of these logs have no tags"
        raise ConfigError(f"no item has {options.by!r}; {which}")
    for text in texts:
        some = {
            name: [[item for item in items if text in item["tags"].get(options.by, ())] for items in seeds]
            for name, seeds in records.items()
        }
        comparisons += compare(some, score, part=f"{options.by} {text}", **settings)
    return adjusted(comparisons)


def _texts_of(records: Mapping[str, Sequence[Sequence["Record"]]], tag: str) -> set[str]:
    """Return the texts of a tag that items of every name and seed have."""
    texts = [
        {text for item in items for text in item.get("tags", {}).get(tag, ())}
        for seeds in records.values()
        for items in seeds
    ]
    return set.intersection(*texts)


def _notes(groups: Groups, comparisons: Sequence["PairedComparison"], checkpoint: str) -> list[str]:
    """Return what holds for the comparisons beside their own cautions."""
    from rvpo.evals.logs import differences

    notes = []
    if checkpoint == "best":
        notes.append("the best checkpoints were chosen by the scores that are compared, which flatters all of them")
    named = [(name, log) for name, logs in groups.items() for log in logs]
    (first, reference), *others = named
    for name, log in others:
        apart = differences(reference.settings, log.settings)
        if apart:
            notes.append(f"{name} was not evaluated as {first} was: {apart}")
    if "gpqa" in reference.task:
        from rvpo.evals.gpqa import apart_note, with_wilson

        scores = {name: with_wilson(logs[0].seeds[0], comparisons[0].score) for name, logs in groups.items()}
        notes += [
            apart_note(test.name, test.baseline, scores) for test in comparisons if test.seeds == 1 and not test.part
        ]
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
    """Write a text and say so; raises ConfigError if it cannot be written."""
    write_whole(file, text)
    print(f"written: {file}")
