"""`rvpo judge`: grade answers, check how far a judge can be trusted, look after the store of replies."""

import argparse
import asyncio
import signal
import sys
from collections.abc import Coroutine, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rvpo.cli.judge_check import check
from rvpo.cli.judge_grade import grade, read_answers
from rvpo.cli.options import HelpfulParser, add_config_options, given_options
from rvpo.errors import ConfigError
from rvpo.judging.config import STORE, JudgeConfig
from rvpo.judging.store import VerdictStore
from rvpo.llm.json_text import json_text

__all__ = ["judge_config", "main"]

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
