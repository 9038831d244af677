"""`rvpo simulate`: methods compared on thousands of random sets of conflicting criteria, in about a minute."""

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from rvpo.cli.options import HelpfulParser
from rvpo.errors import ConfigError
from rvpo.files import write_whole
from rvpo.stats import NEGLECTED, paired_test
from rvpo.text import number, percent, plural, signed
from rvpo_lab.option_text import names_of
from rvpo_lab.wind_tunnel.settings import DEFAULT_METHODS, SPREADS, SimulatedMethod, SimulationSettings
from rvpo_lab.wind_tunnel.simulation import (
    BOOTSTRAP_DRAWS,
    MeasureRow,
    Measures,
    Simulation,
    compare,
    measures,
    simulate,
)

__all__ = ["main"]

FILE = "simulate.json"
MEASURES = ("mean", "lowest_third", "neglected", "hard", "medium", "easy")
TESTED = MEASURES[:3]
HORIZON = (
    "Valid for where a method sends the pressure early, about 100 steps of a real policy: decisions share no weights "
    "here, so no criterion dies out, as it can in longer training."
)
STILL_MOVING = 0.01
"""A mean that changes by more in the last tenth of the steps has not converged."""

DESCRIPTION = """\
Train every method on the same random sets of criteria, some of which exclude
each other, and tell which criteria end up neglected. Policies are exact: no
language model, no sampling in the evaluation. The same seed gives the same
output. The docstring of rvpo_lab.wind_tunnel defines the model.
"""

EXAMPLES = """
METHOD is NAME[:K[:OPTION=VALUE,...]] with K a number or START-END over the steps:
  gdpo    rvpo:2    rvpo:0.5-2    rvpo:2:dead_channels=mask    cvar::share=0.5

examples:
  rvpo simulate
  rvpo simulate --methods gdpo,rvpo:2,rvpo:2:dead_channels=mask,recenter=true
  rvpo simulate --noise 0.1 --channels 17 --out runs/noisy
  rvpo simulate --conflict 0 --spread even --base-rates 0.02 0.27 --steps 60
"""


def main(arguments: Sequence[str]) -> int:
    """Run the command."""
    options = _parser().parse_args(arguments)
    values = {field.name: getattr(options, field.name) for field in fields(SimulationSettings)}
    settings = SimulationSettings(**values | {"base_rates": tuple(options.base_rates)})
    methods = [SimulatedMethod.parse(text) for word in options.methods for text in names_of(word)]
    if options.out is not None:
        _make_folder(options.out)  # before the work, which would be lost
    with _progress() as show:
        simulation = simulate(settings, methods, show)
    reference = "gdpo" if "gdpo" in simulation.final else methods[0].name
    rows = compare(simulation, reference, seed=settings.seed)
    headline = _finding(simulation, settings.seed)
    _print(headline, rows, simulation, settings, reference)
    if options.out is not None:
        report = _report(headline, rows, simulation, settings, reference)
        write_whole(options.out / FILE, json.dumps(report, indent=2, allow_nan=False) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = HelpfulParser(
        prog="rvpo simulate",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )

    def add(name: str, kind: Callable[[str], Any], text: str, **more: Any) -> None:
        default = getattr(SimulationSettings, name)
        shown = " ".join(map(str, default)) if isinstance(default, tuple) else default
        flag = "--" + name.replace("_", "-")
        parser.add_argument(flag, type=kind, default=default, help=f"{text} (default: {shown})", **more)

    add("channels", int, "criteria of an instance", metavar="M")
    add("group_size", int, "rollouts of a group", metavar="G")
    add("groups", int, "groups of an instance in a step", metavar="P")
    add("steps", int, "training steps", metavar="N")
    add("instances", int, "random sets of criteria", metavar="N")
    add("base_rates", float, "lowest and highest pass rate at the start", nargs=2, metavar=("LOW", "HIGH"))
    add("spread", str, "how base rates lie between the two", choices=SPREADS)
    add("conflict", float, "probability that a criterion excludes another one", metavar="P")
    add("noise", float, "probability that a verdict is flipped", metavar="P")
    add("missing", float, "probability that a verdict is lost", metavar="P")
    parser.add_argument("--continuous", action="store_true", help="grades in [0, 1) instead of verdicts 0 and 1")
    add("learning_rate", float, "step size of the logits", metavar="X")
    add("seed", int, "seed of everything random", metavar="N")
    names = [method.name for method in DEFAULT_METHODS]
    help_text = f"what to compare, comma-separated (default: {','.join(names)})"
    parser.add_argument("--methods", nargs="+", default=names, metavar="METHOD", help=help_text)
    parser.add_argument("--out", type=Path, metavar="FOLDER", help=f"write settings and results to FOLDER/{FILE}")
    return parser


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out must name a folder that can be written to, got {folder}: {error}") from error


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """Show a bar on standard error if that is a terminal; it vanishes at the end."""
    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("training", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _finding(simulation: Simulation, seed: int) -> str:
    """Return in a line who neglects the fewest and the most criteria, if the two differ by more than chance."""
    base_rates = simulation.instances.base_rates
    shares = {name: measures(rates, base_rates)["neglected"] for name, rates in simulation.final.items()}
    ordered = sorted(shares, key=lambda name: float(shares[name].mean()))
    least, most = ordered[0], ordered[-1]
    lowest, highest = (percent(float(shares[name].mean()), 1) for name in (least, most))
    if least == most:
        return f"{least} neglects {lowest} of the criteria."
    low = _not_shown_to_differ(shares, least, seed)
    if most in low:
        return f"No method is shown to neglect more than another ({lowest} to {highest})."
    high = [name for name in _not_shown_to_differ(shares, most, seed) if name not in low]
    verb = "neglect" if low else "neglects"
    return f"{least}{_others(low)} {verb} least ({lowest}), {most}{_others(high)} most ({highest})."


def _not_shown_to_differ(shares: Measures, end: str, seed: int) -> list[str]:
    """Return the methods that share an end. As it was picked among all, the level is 0.05 over their pairs."""
    pairs = math.comb(len(shares), 2)
    draws = max(BOOTSTRAP_DRAWS, 40 * pairs)  # so that the smallest p-value, 1 / (1 + draws), can pass
    tests = {
        name: paired_test(share, shares[end], seed=seed, draws=draws, level=1 - 0.05 / pairs)
        for name, share in shares.items()
        if name != end
    }
    return [name for name, test in tests.items() if test.verdict == "no difference shown"]


def _others(names: Sequence[str]) -> str:
    """Return how many more share a place, in words."""
    return f" and {plural(len(names), 'other')}" if names else ""


def _late_changes(simulation: Simulation) -> dict[str, float]:
    """Return by how much the last tenth of the steps changed each method's mean pass rate."""
    return {name: float((rates - simulation.late[name]).mean()) for name, rates in simulation.final.items()}


def _start(simulation: Simulation) -> dict[str, float]:
    """Return the measures of the policies that training starts from."""
    base_rates = simulation.instances.base_rates
    return {name: float(values.mean()) for name, values in measures(base_rates, base_rates).items()}


def _print(
    headline: str, rows: Sequence[MeasureRow], simulation: Simulation, settings: SimulationSettings, reference: str
) -> None:
    """Print the finding and two tables, always for 80 columns and without anything that differs between runs."""
    console = Console(width=80, highlight=False)
    console.print(headline, markup=False)
    console.print(
        f"{settings.instances} instances of {settings.channels} criteria, {settings.steps} steps of {settings.groups} "
        f"x {settings.group_size} rollouts, seed {settings.seed}.\n",
        markup=False,
    )
    console.print(_rates_table(rows, simulation))
    if len(simulation.final) > 1:
        console.print(_differences_table(rows, reference))
    console.print(HORIZON, markup=False)
    changes = _late_changes(simulation)
    moving = [f"{name} ({signed(change)})" for name, change in changes.items() if abs(change) > STILL_MOVING]
    if moving:
        console.print(
            f"Not converged, still moving in the last tenth of the steps: {', '.join(moving)}.", markup=False
        )
    else:
        console.print(f"Converged: the last tenth of the steps moved no mean by more than {STILL_MOVING}.")


def _table(title: str, note: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", caption=note, caption_justify="left", padding=(0, 1, 0, 0))
    table.add_column("method", overflow="fold")
    for column in columns:
        table.add_column(column.removesuffix("_third"), justify="right")
    return table


def _rates_table(rows: Sequence[MeasureRow], simulation: Simulation) -> Table:
    """Return the measures of every method, the start first."""
    note = (
        "lowest: the third of each instance's criteria that ends lowest;\n"
        f"neglected: share of criteria below {NEGLECTED};\n"
        "hard, medium, easy: the thirds that start lowest, between, and highest."
    )
    table = _table("Exact pass rates at the end", note, MEASURES)
    values = {(row.method, row.measure): row.value.mean for row in rows}
    start = _start(simulation)
    table.add_row("(start)", *(number(start.get(measure, math.nan), 3) for measure in MEASURES))
    for name in simulation.final:
        table.add_row(escape(name), *(number(values.get((name, measure), math.nan), 3) for measure in MEASURES))
    return table


def _differences_table(rows: Sequence[MeasureRow], reference: str) -> Table:
    """Return the paired differences to the reference with half the width of their intervals."""
    note = "+-: half of the 95 % bootstrap interval over instances;\n*: p < 0.05 by Holm's correction over methods."
    table = _table(f"Difference to {escape(reference)}", note, TESTED)
    tested = {(row.method, row.measure): row for row in rows if row.test is not None}
    for name in dict.fromkeys(method for method, _ in tested):
        table.add_row(escape(name), *(_difference(tested[name, measure]) for measure in TESTED))
    return table


def _difference(row: MeasureRow) -> str:
    assert row.test is not None
    star = "*" if row.p_holm < 0.05 else " "
    return f"{signed(row.test.difference)} +-{number((row.test.high - row.test.low) / 2, 3)}{star}"


def _report(
    headline: str, rows: Sequence[MeasureRow], simulation: Simulation, settings: SimulationSettings, reference: str
) -> dict[str, Any]:
    """Return what the file holds: settings, summary, and a table with one row per method and measure."""
    return {
        "settings": asdict(settings) | {"methods": list(simulation.final)},
        "summary": {
            "finding": headline,
            "reference": reference,
            "start": _start(simulation),
            "scaled_instances": int(simulation.instances.scaled.sum()),
            "late_change": _late_changes(simulation),
        },
        "table": [_record(row) for row in rows],
    }


def _record(row: MeasureRow) -> dict[str, Any]:
    """Return a row as flat JSON; null where there is no finite number, as in the reference's own tests."""
    numbers = {"value": row.value.mean, "low": row.value.low, "high": row.value.high, "p_holm": row.p_holm}
    for key in ("difference", "low", "high", "effect_size", "p_value"):
        name = f"difference_{key}" if key in ("low", "high") else key
        numbers[name] = math.nan if row.test is None else getattr(row.test, key)
    finite = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
    return {"method": row.method, "measure": row.measure, **finite}
