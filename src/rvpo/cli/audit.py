"""`rvpo audit`: which reward is at risk of neglect, from the rewards that a run has logged."""

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rvpo.cli.compare import write
from rvpo.cli.options import HelpfulParser
from rvpo.errors import ConfigError
from rvpo.stats import NEGLECTED
from rvpo.text import capital, interval, number, percent, plural, shown, shown_names, signed

if TYPE_CHECKING:
    from rvpo.audit import AuditComparison, AuditResult

__all__ = ["main"]

NEEDED = ("pyarrow", "rich", "jinja2")
WIDTH = 80
MOST_ROWS = 20
"""Channels that a table of the terminal has room for."""
MOST_SIGNALS = 4
"""Signals that it has room for."""
LETTERS = {"rises": "r", "stalls": "s", "falls": "f", "at risk": "!", "unknown": "?"}

DESCRIPTION = """\
Tell which reward is at risk of neglect, dead, noisy or in conflict, what every
method and k would push next, and what to change. Needs no model, no trainer and
no GPU.

LOG is the output folder of a TRL run with log_completions=True, the rollout
folder of a verl run, or a .parquet, .csv, .tsv or .jsonl file (or a folder of
such files) with a row per rollout. What the columns mean is guessed and printed.
"""

EXAMPLES = """
docs/audit.md says how every figure is made and how far it can be trusted.

examples:
  rvpo audit --example
  rvpo audit --example real             # SmolLM2-135M-Instruct, untrained
  rvpo audit output                     # TRL: output/completions/*.parquet
  rvpo audit rollouts --html audit.html # verl: rollouts/1.jsonl, 2.jsonl, ...
  rvpo audit scores.csv --group prompt --step epoch --rewards helpful,short
  rvpo audit runs/gdpo --compare runs/rvpo --steps 1-50
  rvpo audit output --methods gdpo,rvpo --ks 0.5,1,2
  rvpo audit output --only-if "style=correct >= 1"   # what that would have made of the log
"""


def main(arguments: Sequence[str]) -> int:
    """Run the command."""
    options = _parser().parse_args(arguments)
    if (options.log is None) == (options.example is None):
        raise ConfigError("rvpo audit needs either LOG or --example; `rvpo audit --help` tells more")
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise ConfigError(f"rvpo audit needs {', '.join(missing)}, not installed here: pip install 'rvpo[audit]'")
    from rvpo.audit import EXAMPLE, REAL_EXAMPLE, audit_page, compare

    log = {None: options.log, "small": EXAMPLE, "real": REAL_EXAMPLE}[options.example]
    result = _audit(options, log)
    other = None
    if options.compare is not None:
        other = _audit(options, options.compare)
    elif options.only_if:
        plain = _audit(options, log, conditioned=False)
        other = replace(plain, source="the log without the condition")
    comparison = None if other is None else compare(result, other)
    _print(result, comparison)
    if options.html is not None:
        write(options.html, audit_page(result, comparison))
    if options.json is not None:
        figures = result.to_dict() | ({} if comparison is None else {"compared": comparison.to_dict()})
        write(options.json, json.dumps(figures, indent=1, allow_nan=False, ensure_ascii=False) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = HelpfulParser(
        prog="rvpo audit",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("log", type=Path, nargs="?", metavar="LOG", help="file or folder to audit")
    parser.add_argument(
        "--example",
        nargs="?",
        const="small",
        choices=["small", "real"],
        help="audit a log that comes with rvpo: of a small policy in training (default), or of a real language model",
    )
    parser.add_argument("--group", metavar="COLUMN", help="column that the rollouts of one prompt share")
    parser.add_argument("--step", metavar="COLUMN", help="column of the training step")
    parser.add_argument("--rewards", metavar="A,B,C", default="", help="columns of rewards")
    parser.add_argument("--steps", metavar="A-B", help="read these training steps only")
    parser.add_argument("--by-tag", action="store_true", help='channels of rubrics by tag, the name up to "/"')
    parser.add_argument("--methods", metavar="A,B", help="methods to forecast, also module:function (default: all)")
    parser.add_argument("--ks", metavar="K,K", help="risk coefficients (default: 0.5,1,2,5)")
    parser.add_argument("--range", metavar="NAME=LOW,HIGH", action="append", default=[], help="range of a reward")
    parser.add_argument(
        "--only-if",
        metavar="NAME=CONDITION",
        action="append",
        default=[],
        help="audit what a condition would have made of the log, as 'style=correct >= 1 else 0' (or else missing)",
    )
    parser.add_argument("--compare", type=Path, metavar="OTHER", help="a second log, read with the same options")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write everything as one page")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything as JSON")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (default: 0)")
    return parser


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _numbers(text: str) -> list[float]:
    try:
        return [float(k) for k in _names(text)]
    except ValueError:
        raise ConfigError(f"--ks takes numbers, as 0.5,1,2; got {text!r}") from None


def _steps(text: str) -> tuple[float, float]:
    first, dash, last = text.partition("-")
    try:
        steps = (float(first or "-inf"), float(last or "inf") if dash else float(first))
    except ValueError:
        steps = (math.inf, -math.inf)
    if not steps[0] <= steps[1]:
        raise ConfigError(f"--steps takes FIRST-LAST, as 1-50; got {text!r}")
    return steps


def _range(text: str) -> tuple[str, tuple[float, float]]:
    name, _, ends = text.rpartition("=")
    try:
        low, high = map(float, ends.split(","))
    except ValueError:
        raise ConfigError(f"--range takes NAME=LOW,HIGH, as correct=-3,3; got {text!r}") from None
    return name, (low, high)


def _rule(text: str) -> tuple[str, str]:
    name, equals, condition = text.partition("=")
    if not equals:
        raise ConfigError(f"--only-if takes NAME=CONDITION, as 'style=correct >= 1'; got {text!r}")
    return name.strip(), condition


def _audit(options: argparse.Namespace, log: Path, *, conditioned: bool = True) -> "AuditResult":
    from rvpo.audit import audit_log

    chosen: dict[str, Any] = {}
    if options.methods is not None:
        chosen["methods"] = _names(options.methods)
    if options.ks is not None:
        chosen["ks"] = _numbers(options.ks)
    return audit_log(
        log,
        group=options.group,
        step=options.step,
        rewards=_names(options.rewards),
        steps=None if options.steps is None else _steps(options.steps),
        by_tag=options.by_tag,
        ranges=dict(map(_range, options.range)),
        conditions=dict(map(_rule, options.only_if)) if conditioned else None,
        seed=options.seed,
        **chosen,
    )


def _print(result: "AuditResult", comparison: "AuditComparison | None") -> None:
    """Print findings, then tables, in 80 columns; names from the log are plain text to the terminal."""
    from rich.console import Console

    console = Console(width=WIDTH, highlight=False, markup=False, emoji=False)
    console.print(result.headline, style="bold")
    for finding in result.findings:
        if finding.text != result.headline:
            console.print(f"- {finding.text}")
    console.print(f"\n{capital(result.advice.text)}.")
    if result.limits:
        console.print(f"The log cannot tell {'; '.join(result.limits)}.", style="dim")
    console.print(f"\n{shown(result.source, 70)}: {_size(result)}", style="dim")
    for line in result.reading:
        console.print(f"  {line}", style="dim")
    console.print(_channels(result))
    console.print(
        f"r rises, s stalls, f falls, ! at risk: not raised at a mean below {NEGLECTED:g}. Change of the mean reward "
        "per unit of advantage; 95 % intervals over prompts: --html, --json.",
        style="dim",
    )
    if comparison is not None:
        console.print(f"\nAgainst {shown(comparison.after.source, 60)}: {comparison.headline}", style="bold")
        for where, findings in (("here", comparison.gone), ("there", comparison.new)):
            for finding in findings:
                console.print(f"- found {where} only: {finding.text}")
        for where, names in (("here", comparison.only_before), ("there", comparison.only_after)):
            if names:
                console.print(f"- channels {where} only: {shown_names(names, 6)}")
        console.print(_changes(comparison))


def _size(result: "AuditResult") -> str:
    size = f"{plural(result.rollouts, 'rollout')} in {plural(result.groups, 'group')}"
    if result.single:
        size += f" ({result.single} of one rollout left out)"
    if result.steps is not None and result.steps[0] != result.steps[1]:
        size += f", steps {result.steps[0]:g} to {result.steps[1]:g}"
    return size


def _signals(result: "AuditResult") -> list[str]:
    """Return the signals that the terminal shows: the reference, GDPO, the advised one, RVPO and its policy form."""
    names = [method.name for method in result.methods]
    advice = result.advice
    advised = [f"{advice.method} k={k:g}" for k in advice.ks[:1]] or [str(advice.method)]
    rvpo, policy = ([m.name for m in result.methods if m.method == form] for form in ("rvpo", "rvpo_policy"))
    wanted = [result.reference, "gdpo", *advised, *rvpo[-2:-1], *policy[-2:-1], *rvpo[-1:], *names]
    return [name for name in dict.fromkeys(wanted) if name in names][:MOST_SIGNALS]


def _table() -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, padding=0, pad_edge=False)
    table.add_column("channel", no_wrap=True)
    return table


def _channels(result: "AuditResult") -> Any:
    from rich.text import Text

    signals, table = _signals(result), _table()
    for head in ("mean", "drift", "dead", *(name.replace("_", "\n").replace(" ", "\n") for name in signals)):
        table.add_column(head, justify="right", no_wrap=True)
    channels = result.by_outlook(result.reference)
    for channel in channels[:MOST_ROWS]:
        forecasts = [channel.forecasts[name] for name in signals]
        table.add_row(
            Text(shown(channel.name, 24)),
            number(channel.recent.value),
            signed(channel.drift.value, 2),
            percent(channel.dead.value).replace(" ", ""),
            *(f"{signed(forecast.change.value)} {LETTERS[forecast.verdict]}" for forecast in forecasts),
        )
    if len(channels) > MOST_ROWS:
        table.caption = f"and {len(channels) - MOST_ROWS} more, in --html and --json"
    return table


def _changes(comparison: "AuditComparison") -> Any:
    from rich.text import Text

    table = _table()
    for head in ("mean\nhere", "mean\nthere", "difference"):
        table.add_column(head, justify="right", no_wrap=True)
    for change in comparison.changes[:MOST_ROWS]:
        table.add_row(
            Text(shown(change.name, 30)),
            number(change.before.mean.value),
            number(change.after.mean.value),
            interval(*change.mean),
        )
    return table
