"""`rvpo judge`: grade answers, check how far a judge can be trusted, look after the store of replies.

The check is made on a sample of answers, and tells what training with the judge would cost.
"""

import argparse
import asyncio
import json
import math
import signal
import sys
from collections import defaultdict
from collections.abc import Coroutine, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rvpo.cli.judge_grade import AnswerLine, batches_graded, grade, locked, read_answers
from rvpo.cli.options import HelpfulParser, add_config_options, given_options
from rvpo.errors import ConfigError, JudgeError
from rvpo.files import write_whole
from rvpo.judging.check import PROBES, Probe, agreement, judge_calls
from rvpo.judging.config import STORE, JudgeConfig
from rvpo.judging.judge import Judge
from rvpo.judging.store import VerdictStore
from rvpo.llm.model_text import json_text
from rvpo.text import number, percent

__all__ = ["check", "judge_config", "main"]

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


def parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    top = HelpfulParser(
        prog="rvpo judge",
        description="Grade answers by rubrics with an LLM behind any OpenAI-compatible server.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="grade|check|store")
    judge = HelpfulParser(add_help=False)
    judge.add_argument("rows", type=Path, help="jsonl file of answers")
    judge.add_argument("--config", type=Path, help="YAML file with options of the judge")
    add_config_options(judge, JudgeConfig, defaults={"store": STORE})
    grade_options = commands.add_parser(
        "grade", parents=[judge], help="answers in, verdicts out; goes on where it stopped"
    )
    grade_options.add_argument("--out", type=Path, default=Path("graded.jsonl"), help="file (default: graded.jsonl)")
    check_options = commands.add_parser(
        "check", parents=[judge], help="how far the judge can be trusted, and what it costs"
    )
    check_options.add_argument("--rows", dest="sample", type=int, default=20, help="answers to check on (default: 20)")
    check_options.add_argument("--retests", type=int, default=3, help="verdicts per criterion to compare (default: 3)")
    check_options.add_argument(
        "--chunk", type=int, default=4, help="criteria per call to compare with one (default: 4)"
    )
    check_options.add_argument("--steps", type=int, default=100, help="of the training run whose cost is estimated")
    check_options.add_argument("--prompts-per-step", type=int, default=16, help="(default: 16)")
    check_options.add_argument("--rollouts", type=int, default=16, help="per prompt (default: 16)")
    check_options.add_argument("--json", type=Path, help="write the results, with reliabilities, to a file")
    store_options = commands.add_parser("store", help="look after stored replies")
    store_options.add_argument("action", choices=["stats", "export", "prune"])
    store_options.add_argument("file", type=Path, help="sqlite file")
    store_options.add_argument("--model", help="prune: replies of this model")
    store_options.add_argument("--older-than-days", type=float, help="prune: replies older than that")
    return top


def main(arguments: Sequence[str]) -> int:
    """Run the command."""
    options = parser().parse_args(arguments)
    if options.command == "store":
        return manage_store(options)
    config = judge_config(options)
    lines = read_answers(options.rows)
    work = grade(config, lines, options.out) if options.command == "grade" else check(config, lines, options)
    try:
        return asyncio.run(_until_sigterm(work))
    except asyncio.CancelledError:
        return 128 + signal.SIGTERM


async def _until_sigterm(work: Coroutine[Any, Any, int]) -> int:
    """Return what the work returns; SIGTERM cancels it as Ctrl-C does, so that what is paid for is still stored."""
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        return await work
    except asyncio.CancelledError:
        print("interrupted; the same command goes on, and what was answered is in the store", file=sys.stderr)
        raise
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


def judge_config(options: argparse.Namespace) -> JudgeConfig:
    """Return the judge's settings from the YAML file and the options, which come first."""
    return JudgeConfig.from_file(options.config, given_options(options, JudgeConfig))


def manage_store(options: argparse.Namespace) -> int:
    """Run `rvpo judge store`."""
    if not options.file.is_file():
        raise ConfigError(f"there is no store {options.file}")
    store = VerdictStore(options.file)
    if options.action == "export":
        for row in store.export():
            sys.stdout.write(json_text(row) + "\n")
        return 0
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


PRICED = 5
"""Answers of the sample that are asked for anew, to see how many tokens a call takes."""

CriterionKey = tuple[int, str]
"""Place of an answer in the sample, and id of a criterion of its rubric."""


async def check(config: JudgeConfig, lines: Sequence[AnswerLine], options: argparse.Namespace) -> int:
    """Measure the judge on a sample of answers; print the results and, if asked, write them."""
    sample = lines[: options.sample]
    if not sample:
        raise ConfigError(f"{options.rows} has no rows to check the judge on")
    if options.json is not None:
        with locked(options.json):  # what cannot be written is said before anything is paid
            pass
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
        write_whole(options.json, json.dumps(_finite(result), indent=2) + "\n")
    return 0


async def _votes(
    config: JudgeConfig, sample: Sequence[AnswerLine], title: str
) -> tuple[dict[CriterionKey, bool | None], dict[CriterionKey, tuple[bool | None, ...]]]:
    """Return verdict and votes of every criterion of the sample."""
    judge, answers = Judge(config), []
    try:
        async for _, graded in batches_graded(judge, sample, title):
            answers += graded
    finally:
        await judge.close()
    verdicts = {
        (place, name): verdict for place, answer in enumerate(answers) for name, verdict in answer.verdicts.items()
    }
    if verdicts and all(verdict.is_lost for verdict in verdicts.values()):
        raise JudgeError(f"the judge gave no verdict on any of {len(verdicts)} criteria: {judge.summary()}")
    met = {key: verdict.met for key, verdict in verdicts.items()}
    return met, {key: verdict.votes for key, verdict in verdicts.items()}


def _reliabilities(
    sample: Sequence[AnswerLine], votes: dict[CriterionKey, tuple[bool | None, ...]]
) -> dict[str, float]:
    """Return the estimated reliability of each tag and of each criterion that several answers share."""
    by_name: dict[str, list[tuple[bool | None, ...]]] = defaultdict(list)
    for place, line in enumerate(sample):
        for criterion in line.item.rubric:
            for tag in criterion.tags[:1]:
                by_name[tag].append(votes[place, criterion.id])
            by_name[f"criterion: {criterion.text}"].append(votes[place, criterion.id])
    return {name: agreement(of_name).reliability for name, of_name in by_name.items()}


async def _probe(config: JudgeConfig, sample: Sequence[AnswerLine], answer: str) -> Probe:
    """Let the judge grade an answer without content in the place of every answer of the sample."""
    judge = Judge(config)
    try:
        graded = await judge.grade_many([line.item._replace(answer=answer) for line in sample])
    finally:
        await judge.close()
    met = [
        probed.verdicts[criterion.id].met
        for probed in graded
        for criterion in probed.rubric
        if criterion.polarity == "positive" and probed.verdicts[criterion.id].met is not None
    ]
    return Probe(answer, sum(map(bool, met)), len(met))


async def _cost(config: JudgeConfig, sample: Sequence[AnswerLine], options: argparse.Namespace) -> dict[str, float]:
    """Estimate calls, tokens and cost of a training run from what a few new calls cost."""
    judge = Judge(replace(config, store=None))
    try:
        await judge.grade_many([line.item for line in sample[:PRICED]])
    finally:
        await judge.close()
    usage = judge.client.usage
    calls = judge_calls(
        sum(len(line.item.rubric) for line in sample) / len(sample),
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
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _print_check(result: dict[str, Any], options: argparse.Namespace) -> None:
    """Print the results of a check."""
    table = Table("check", "result", title=f"judge on {result['answers']} answers", title_justify="left")
    retest, chunked, cost = result["retest"], result["chunked"], result["cost"]
    table.add_row("agrees with itself", _share(retest["share"], f"{retest['pairs']} pairs, {retest['lost']} lost"))
    criteria = f"{chunked['pairs']} criteria, {chunked['lost']} lost"
    table.add_row(f"{options.chunk} per call against 1", _share(chunked["share"], criteria))
    for probe in result["probes"]:
        fooled = _share(probe["share"], f"of {probe['judged']} criteria counted as met")
        table.add_row(f"answer {escape(repr(probe['answer']))}", fooled)
    tokens = f"{cost['prompt_tokens']:,.0f} + {cost['completion_tokens']:,.0f} tokens"
    price = f", cost {cost['cost']:,.2f}" if cost["cost"] else ""
    run = f"{options.steps} steps x {options.prompts_per_step} x {options.rollouts}"
    table.add_row(f"training, {run}", f"{cost['calls']:,} calls, {tokens}{price}")
    console = Console()
    console.print(table)
    named = {name: value for name, value in result["reliability"].items() if not name.startswith("criterion: ")}
    console.print("estimated reliability: " + ", ".join(f"{name} {number(value)}" for name, value in named.items()))


def _share(share: float, basis: str) -> str:
    return f"{percent(share, 1)} ({basis})"
