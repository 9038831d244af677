"""What `rvpo eval` shows of finished logs: scores with what is missing from them."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rvpo.cli.laboratory import laboratory_command
from rvpo.evals.benchmark import mean_score, summarized
from rvpo.evals.logs import Log
from rvpo.text import NOTHING, number, span

__all__ = ["notes", "print_summaries", "summary_of"]

OWN_MODULES = {name: f"rvpo.evals.{name}" for name in ("healthbench", "gpqa", "rlla", "ifeval", "bfcl")}
COLUMN = 13
"""Room for a score in the table of several models."""

Summary = Mapping[str, Any]


def summary_of(log: Log) -> dict[str, Any]:
    """Return the summary of a log: by its benchmark's own rules, or the means of a foreign task's scores."""
    records = [record for seed in log.seeds for record in seed]
    score = log.score or log.names[0]
    if log.is_own:
        module = import_module(OWN_MODULES[log.task]) if log.task in OWN_MODULES else laboratory_command("bench")
        scores = module.summarize(records)
    else:
        scores = {name: mean_score(records, name) for name in log.names}
        scores = {"headline": score, "shown": log.names, "scores": scores}
    about = {"label": log.model, "step": log.step, "about": dict(log.settings)}
    return about | summarized(log.task, score, scores, records)


def print_summaries(summaries: Sequence[Summary], console: Console | None = None) -> None:
    """Print the scores of one model in full, or of several side by side, and what is missing from them."""
    console = console or Console(highlight=False)
    console.print(_scores(summaries[0]) if len(summaries) == 1 else _overview(summaries, console.width))
    for summary in summaries:
        for line in notes(summary):
            console.print(Text(f"{summary['label']}: {line}" if len(summaries) > 1 else line))


def _table(title: str) -> Table:
    return Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), title=Text(title), title_justify="left")


def _scores(summary: Summary) -> Table:
    table = _table(f"{summary['benchmark']}: {summary['label']}")
    has_clipped = any("unclipped" in summary["scores"][name] for name in summary["shown"])
    table.add_column("score")
    for head in ("value", *(["unclipped"] if has_clipped else []), "95 % interval", "items", "missing"):
        table.add_column(head, justify="right")
    for name in summary["shown"]:
        entry = summary["scores"][name]
        unclipped = [number(entry.get("unclipped"), 3)] if has_clipped else []
        cells = [number(entry["value"], 3), *unclipped, _range(entry["interval"]), str(entry["items"])]
        table.add_row(Text(name), *cells, str(entry["missing"] or NOTHING))
    return table


def _overview(summaries: Sequence[Summary], width: int) -> Table:
    """Return a line for each model: the headline with its interval, and as many other scores as there is room for."""
    first = summaries[0]
    widest = max(len(summary["label"]) for summary in summaries)
    headline, room = first["headline"], width - widest - len("0.000 to 0.000") - 4
    others = [name for name in first["shown"] if name != headline][: max(room // COLUMN - 1, 0)]
    table = _table(str(first["benchmark"]))
    table.add_column("model", no_wrap=True)
    for head in (headline, "95 % interval", *others):
        table.add_column(Text(head.replace("axis:", "").replace("_", " ")), justify="right", overflow="fold")
    for summary in summaries:
        value, *values = (number(summary["scores"].get(name, {}).get("value"), 3) for name in (headline, *others))
        table.add_row(Text(summary["label"]), value, _range(summary["scores"][headline]["interval"]), *values)
    return table


def notes(summary: Summary) -> list[str]:
    """Return what a reader of the scores must know: what is missing, what that could change, what was cut."""
    headline, answers, lines = summary["headline"], summary["answers"], []
    entry, count = summary["scores"][headline], answers["asked"]
    if entry["missing"]:
        total = entry["missing"] + entry["items"]
        share = f"{headline} is missing for {entry['missing']} of {total} answers ({entry['missing'] / total:.1%})"
        kind = "unclipped mean" if "unclipped" in entry else "mean"
        ends = f"; with them the {kind} is anywhere from {_range(entry['bounds'])}" if entry["bounds"] else ""
        lines.append(share + ends)
    verdicts = summary.get("verdicts", {})
    if verdicts.get("missing"):
        lost = ", ".join(f"{number} {name}" for name, number in verdicts["outcomes"].items() if name in LOST)
        share = f"{verdicts['missing']} of {verdicts['asked']} verdicts ({verdicts['missing_share']:.1%})"
        lines.append(f"{share} are missing: {lost}")
    if answers["lost"]:
        why = "; ".join(f"{number}: {reason}" for reason, number in answers["lost_because"].items())
        lines.append(f"{answers['lost']} of {count} answers are lost ({why})")
    if summary.get("unparsed"):
        lines.append(f"{summary['unparsed']} of {count} answers name no letter, and count as wrong")
    if summary.get("malformed"):
        lines.append(f"{summary['malformed']} answers count as refusals that hold a call which cannot be read")
    if summary.get("wrong_because"):
        why = ", ".join(f"{number} {reason}" for reason, number in summary["wrong_because"].items())
        lines.append(f"answers are wrong because of: {why}")
    left_out = summary.get("about", {}).get("settings", {}).get("rows_left_out")
    if left_out:
        lines.append(f"{left_out} rows without positive points were left out, as the official code does")
    if answers["cut_at_max_tokens"]:
        lines.append(f"{answers['cut_at_max_tokens']} of {count} answers were cut at max_tokens")
    return lines


LOST = ("unparsed", "refused", "failed", "unanswered")
"""Outcomes of a criterion that are no verdict."""


def _range(ends: Sequence[float] | None) -> str:
    return NOTHING if ends is None else span(ends[0], ends[1], 3)
