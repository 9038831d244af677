"""`rvpo judge`: grade answers, check how far a judge can be trusted, look after the store of replies."""

import argparse
import asyncio
import json
import math
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.markup import escape
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from rvpo.errors import ConfigError
from rvpo.judging.check import PROBES, Probe, agreement, judge_calls
from rvpo.judging.config import JudgeConfig
from rvpo.judging.criteria import Rubric, explicit_score
from rvpo.judging.judge import Graded, Item, Judge
from rvpo.judging.store import VerdictStore

__all__ = ["main"]

BATCH = 64
"""Answers graded at once: what an interrupted run may have to look up again in the store."""

EXAMPLES = """
examples:
  rvpo judge grade answers.jsonl --model Qwen/Qwen3-8B --base-url http://localhost:8001/v1 --out graded.jsonl
  rvpo judge check answers.jsonl --config judge.yaml --rows 50
  rvpo judge store stats verdicts.sqlite
  rvpo judge store export verdicts.sqlite > replies.jsonl
  rvpo judge store prune verdicts.sqlite --older-than-days 30

answers.jsonl has one object a line: "prompt" (text or chat messages), "rubric" (list of criteria, see docs/data.md)
and "answer", or "answers", a list. Every option of the judge can stand in a YAML file given with --config.
"""

SHOWN = {
    "model": "model name, as the server knows it",
    "base_url": "server, for example http://localhost:8001/v1",
    "api_key_env": "environment variable with the key (default: OPENAI_API_KEY)",
    "criteria_per_call": "criteria asked in one call, 1 to 8 (default: 1)",
    "repeats": "odd number of verdicts per criterion, decided by majority (default: 1)",
    "temperature": "sampling temperature (default: 0)",
    "max_tokens": "longest reply (default: 1024)",
    "concurrency": "calls at once (default: 64)",
    "timeout": "seconds for one call (default: 120)",
    "retry_minutes": "how long a failing call is tried again (default: 10)",
    "max_missing": "share of missing verdicts that stops the run (default: 0.2)",
    "max_calls": "calls after which to stop",
    "max_cost": "cost after which to stop; needs the prices",
    "price_input": "price of a million prompt tokens",
    "price_output": "price of a million completion tokens",
    "store": "sqlite file of replies (default: verdicts.sqlite)",
}
NUMBERS = {
    **dict.fromkeys(("criteria_per_call", "repeats", "max_tokens", "concurrency", "max_calls"), int),
    **dict.fromkeys(
        ("temperature", "timeout", "retry_minutes", "max_missing", "max_cost", "price_input", "price_output"), float
    ),
}


def parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    top = argparse.ArgumentParser(
        prog="rvpo judge",
        description="Grade answers by rubrics with an LLM behind any OpenAI-compatible server.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="grade|check|store")
    judge = argparse.ArgumentParser(add_help=False)
    judge.add_argument("rows", type=Path, help="jsonl file of answers")
    judge.add_argument("--config", type=Path, help="YAML file with options of the judge")
    for name, text in SHOWN.items():
        judge.add_argument(f"--{name.replace('_', '-')}", type=NUMBERS.get(name, str), help=text)
    grade = commands.add_parser("grade", parents=[judge], help="answers in, verdicts out; goes on where it stopped")
    grade.add_argument("--out", type=Path, default=Path("graded.jsonl"), help="file (default: graded.jsonl)")
    check = commands.add_parser("check", parents=[judge], help="how far the judge can be trusted, and what it costs")
    check.add_argument("--rows", dest="sample", type=int, default=20, help="answers to check on (default: 20)")
    check.add_argument("--retests", type=int, default=3, help="verdicts per criterion to compare (default: 3)")
    check.add_argument("--chunk", type=int, default=4, help="criteria per call to compare with one (default: 4)")
    check.add_argument("--steps", type=int, default=100, help="of the training run whose cost is estimated")
    check.add_argument("--prompts-per-step", type=int, default=16, help="(default: 16)")
    check.add_argument("--rollouts", type=int, default=16, help="per prompt (default: 16)")
    check.add_argument("--json", type=Path, help="write the results, with reliabilities, to a file")
    store = commands.add_parser("store", help="look after stored replies")
    store.add_argument("action", choices=["stats", "export", "prune"])
    store.add_argument("file", type=Path, help="sqlite file")
    store.add_argument("--model", help="prune: replies of this model")
    store.add_argument("--older-than-days", type=float, help="prune: replies older than that")
    return top


def main(arguments: Sequence[str]) -> int:
    """Run the command."""
    options = parser().parse_args(arguments)
    if options.command == "store":
        return look_after(options)
    config = judge_config(options)
    entries = list(read_entries(options.rows))
    if options.command == "grade":
        return asyncio.run(grade(config, entries, options.out))
    return asyncio.run(check(config, entries, options))


def judge_config(options: argparse.Namespace) -> JudgeConfig:
    """Return the judge's settings from the YAML file and the options, which come first."""
    given: dict[str, Any] = {"store": "verdicts.sqlite"}
    if options.config is not None:
        try:
            read = yaml.safe_load(options.config.read_text())
        except (OSError, yaml.YAMLError) as error:
            raise ConfigError(f"cannot read {options.config}: {error}") from error
        if not isinstance(read, dict):
            raise ConfigError(f"{options.config} must hold options of the judge, as 'model: NAME'")
        given |= read
    names = [one.name for one in fields(JudgeConfig)]
    given |= {name: value for name in names if (value := getattr(options, name, None)) is not None}
    return JudgeConfig.from_mapping(given)


class Entry:
    """One answer of the input file."""

    def __init__(self, name: str, item: Item) -> None:
        self.name, self.item = name, item


def read_entries(file: Path) -> Iterator[Entry]:
    """Yield the answers of a jsonl file; raise ConfigError with file and line for what cannot be used."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error}") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            rubric = Rubric.from_rows(row["rubric"])
            answers = row["answers"] if "answers" in row else [row["answer"]]
            for index, answer in enumerate(answers):
                if not isinstance(answer, str):
                    raise ConfigError(f"an answer is text, got {type(answer).__name__}")
                yield Entry(f"{row.get('id', number)}/{index}", Item(row["prompt"], answer, rubric))
        except KeyError as error:
            raise ConfigError(
                f"{file}, line {number}: no key {error}; a row has prompt, rubric and answer (or answers)"
            ) from None
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{file}, line {number}: {error}") from error


async def grade(config: JudgeConfig, entries: Sequence[Entry], out: Path) -> int:
    """Grade what the output file does not have yet, a batch at a time."""
    done = finished_names(out)
    left = [entry for entry in entries if entry.name not in done]
    if done:
        print(f"{len(entries) - len(left)} of {len(entries)} answers are in {out} already")
    judge = Judge(config)
    try:
        with out.open("a", encoding="utf-8") as file:
            async for batch, graded in _graded(judge, left, f"judging with {config.model}"):
                for entry, one in zip(batch, graded, strict=True):
                    file.write(json.dumps(as_line(entry, one), ensure_ascii=False) + "\n")
                file.flush()
    finally:
        await judge.close()
        print(judge.summary())
    print(f"verdicts: {out}")
    return 0


async def _graded(judge: Judge, entries: Sequence[Entry], title: str) -> Any:
    """Yield batches of entries with their verdicts, showing progress."""
    columns = (TextColumn("{task.description}"), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task(title, total=len(entries))
        for start in range(0, len(entries), BATCH):
            batch = entries[start : start + BATCH]
            items = [entry.item for entry in batch]
            yield batch, await judge.grade_many(items, progress=lambda done, of: progress.advance(bar))


def finished_names(out: Path) -> set[str]:
    """Return the names in an output file; a last line that was cut short is taken out of it."""
    if not out.is_file():
        return set()
    lines = out.read_text(encoding="utf-8").splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines.pop()
        out.write_text("".join(lines), encoding="utf-8")
    return {json.loads(line)["id"] for line in lines if line.strip()}


def as_line(entry: Entry, graded: Graded) -> dict[str, Any]:
    """Return one graded answer for the output file."""
    verdicts = {name: {"met": one.met, "outcome": str(one.outcome)} for name, one in graded.verdicts.items()}
    return {
        "id": entry.name,
        "verdicts": verdicts,
        "values": graded.values(),
        "explicit": explicit_score(graded.rubric, graded.met()),
    }


async def check(config: JudgeConfig, entries: Sequence[Entry], options: argparse.Namespace) -> int:
    """Measure the judge on a sample of answers; print and, if asked, write what came out."""
    sample = entries[: options.sample]
    if not sample:
        raise ConfigError(f"{options.rows} has no rows to check the judge on")
    # A check wants to see what is missing, not to be stopped by it.
    config = replace(config, max_missing=1.0)
    retest = replace(config, criteria_per_call=1, repeats=options.retests | 1)
    single, votes = await _votes(retest, sample, "test and retest")
    chunked, _ = await _votes(replace(config, criteria_per_call=options.chunk, repeats=1), sample, "in chunks")
    probes = [await _probe(replace(config, criteria_per_call=1, repeats=1), sample, answer) for answer in PROBES]
    result = {
        "answers": len(sample),
        "retest": asdict(agreement(votes.values())),
        "reliability": {"all": agreement(votes.values()).reliability, **_reliabilities(sample, votes)},
        "chunked": asdict(agreement((single[key], chunked[key]) for key in single)),
        "probes": [{**asdict(probe), "share": probe.share} for probe in probes],
        "cost": await _cost(config, sample, options),
    }
    _print_check(result, options)
    if options.json is not None:
        options.json.write_text(json.dumps(_finite(result), indent=2) + "\n")
    return 0


Key = tuple[int, str]


async def _votes(
    config: JudgeConfig, sample: Sequence[Entry], title: str
) -> tuple[dict[Key, bool | None], dict[Key, tuple[bool | None, ...]]]:
    """Return verdict and votes of every criterion of the sample."""
    judge, met, votes = Judge(config), {}, {}
    try:
        place = 0
        async for _, graded in _graded(judge, sample, title):
            for one in graded:
                for name, verdict in one.verdicts.items():
                    met[place, name], votes[place, name] = verdict.met, verdict.votes
                place += 1
    finally:
        await judge.close()
    return met, votes


def _reliabilities(sample: Sequence[Entry], votes: dict[Key, tuple[bool | None, ...]]) -> dict[str, float]:
    """Return the estimated reliability of each tag and of each criterion that several answers share."""
    by_name: dict[str, list[tuple[bool | None, ...]]] = defaultdict(list)
    for place, entry in enumerate(sample):
        for one in entry.item.rubric:
            for tag in one.tags[:1]:
                by_name[tag].append(votes[place, one.id])
            by_name[f"criterion: {one.text}"].append(votes[place, one.id])
    return {name: agreement(found).reliability for name, found in by_name.items()}


async def _probe(config: JudgeConfig, sample: Sequence[Entry], answer: str) -> Probe:
    """Let the judge grade an answer without content in the place of every answer of the sample."""
    judge = Judge(config)
    try:
        graded = await judge.grade_many([entry.item._replace(answer=answer) for entry in sample])
    finally:
        await judge.close()
    verdicts = [
        one.verdicts[criterion.id].met
        for one in graded
        for criterion in one.rubric
        if criterion.polarity == "positive" and one.verdicts[criterion.id].met is not None
    ]
    return Probe(answer, sum(map(bool, verdicts)), len(verdicts))


async def _cost(config: JudgeConfig, sample: Sequence[Entry], options: argparse.Namespace) -> dict[str, float]:
    """Estimate calls, tokens and cost of a training run from what a few new calls cost."""
    judge = Judge(replace(config, store=None))
    try:
        await judge.grade_many([entry.item for entry in sample[:5]])
    finally:
        await judge.close()
    usage = judge.client.usage
    calls = judge_calls(
        sum(len(entry.item.rubric) for entry in sample) / len(sample),
        steps=options.steps,
        prompts_per_step=options.prompts_per_step,
        rollouts=options.rollouts,
        criteria_per_call=config.criteria_per_call,
        repeats=config.repeats,
    )
    per_call = 1 / max(usage.calls, 1)
    return {
        **calls,
        "prompt_tokens": calls["calls"] * usage.prompt_tokens * per_call,
        "completion_tokens": calls["calls"] * usage.completion_tokens * per_call,
        "cost": calls["calls"] * usage.cost(config) * per_call,
    }


def _finite(value: Any) -> Any:
    """Return a structure with None where a number is not finite, as JSON needs it."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _print_check(result: dict[str, Any], options: argparse.Namespace) -> None:
    """Print the results of a check."""
    table = Table("check", "result", title=f"judge on {result['answers']} answers", title_justify="left")
    retest, chunked, cost = result["retest"], result["chunked"], result["cost"]
    table.add_row("agrees with itself", _share(retest["share"], f"{retest['pairs']} pairs, {retest['lost']} lost"))
    told = f"{chunked['pairs']} criteria, {chunked['lost']} lost"
    table.add_row(f"{options.chunk} per call against 1", _share(chunked["share"], told))
    for probe in result["probes"]:
        kind = _share(probe["share"], f"of {probe['judged']} criteria counted as met")
        table.add_row(f"answer {escape(repr(probe['answer']))}", kind)
    tokens = f"{cost['prompt_tokens']:,.0f} + {cost['completion_tokens']:,.0f} tokens"
    price = f", cost {cost['cost']:,.2f}" if cost["cost"] else ""
    run = f"{options.steps} steps x {options.prompts_per_step} x {options.rollouts}"
    table.add_row(f"training, {run}", f"{cost['calls']:,} calls, {tokens}{price}")
    console = Console()
    console.print(table)
    named = {name: value for name, value in result["reliability"].items() if not name.startswith("criterion: ")}
    console.print("estimated reliability: " + ", ".join(f"{name} {value:.2f}" for name, value in named.items()))


def _share(share: float, told: str) -> str:
    return f"{'-' if math.isnan(share) else f'{share:.1%}'} ({told})"


def look_after(options: argparse.Namespace) -> int:
    """Run `rvpo judge store`."""
    if not options.file.is_file():
        raise ConfigError(f"there is no store {options.file}")
    store = VerdictStore(options.file)
    if options.action == "export":
        return _export(store.export())
    if options.action == "prune":
        deleted = store.prune(model=options.model, older_than_days=options.older_than_days)
        print(f"deleted: {deleted} replies")
        return 0
    table = Table("model", "replies", "prompt tokens", "completion tokens", "first", "last")
    for row in store.statistics():
        times = [datetime.fromtimestamp(row[name]).isoformat(" ", "minutes") for name in ("first", "last")]
        numbers = [f"{row[name]:,}" for name in ("replies", "prompt_tokens", "completion_tokens")]
        table.add_row(escape(row["model"]), *numbers, *times)
    Console().print(table)
    return 0


def _export(rows: Iterable[dict[str, Any]]) -> int:
    for row in rows:
        sys.stdout.write(json.dumps(row, ensure_ascii=False) + "\n")
    return 0
