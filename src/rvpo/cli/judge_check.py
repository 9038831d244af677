"""`rvpo judge check`: how far a judge can be trusted on a sample of answers, and what training with it would cost."""

import argparse
import json
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rvpo.cli.judge_grade import AnswerLine, batches_graded, locked
from rvpo.errors import ConfigError, JudgeError
from rvpo.files import write_whole
from rvpo.judging.check import PROBES, Probe, agreement, judge_calls
from rvpo.judging.config import JudgeConfig
from rvpo.judging.judge import Judge
from rvpo.text import number, percent

__all__ = ["check"]

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
