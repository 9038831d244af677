"""The embedded tasks as `rvpo eval` takes them."""

import argparse
from collections.abc import Mapping
from functools import partial

from rvpo.cli.eval_benchmarks import Entry
from rvpo.errors import ConfigError
from rvpo.evals.benchmark import Benchmark
from rvpo_lab.tasks.benchmark import PROMPTS, build
from rvpo_lab.tasks.catalog import TASKS
from rvpo_lab.tasks.task import Task

__all__ = ["BENCHMARKS"]


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--prompts", type=int, default=PROMPTS, metavar="N", help="held-out prompts (default: %(default)s)"
    )


def _from_options(options: argparse.Namespace, task: Task) -> Benchmark:
    if options.prompts < 1:
        raise ConfigError(f"--prompts must be at least 1, got {options.prompts}")
    return build(task, number=options.prompts, repeats=options.repeats, seed=options.seed)


BENCHMARKS: Mapping[str, Entry] = {
    name: Entry(
        f"embedded task: {task.summary}",
        _add_options,
        partial(_from_options, task=task),
        temperature=1.0,
        max_tokens=task.max_completion_length,
    )
    for name, task in TASKS.items()
}
"""The tasks as `rvpo eval` takes them; it finds them in the module of `rvpo bench`."""
