"""The laboratory's tasks as tasks of inspect, which `rvpo eval` takes by name."""

from collections.abc import Callable, Mapping
from typing import Any

from inspect_ai import task as inspect_task

from rvpo.errors import ConfigError
from rvpo.evals.tasks import as_task
from rvpo_lab.instructions.task import INSTRUCTIONS
from rvpo_lab.tasks.catalog import TASKS
from rvpo_lab.tasks.task import PROMPTS, GradedTask, build

__all__ = ["BENCHMARKS"]


def _as_inspects(task: GradedTask) -> Callable[..., Any]:
    @inspect_task(name=task.name)
    def embedded(prompts: int = PROMPTS, repeats: int = 1, seed: int = 0) -> Any:
        if prompts < 1:
            raise ConfigError(f"--prompts must be at least 1, got {prompts}")
        benchmark = build(task, number=prompts, repeats=repeats, seed=seed)
        return as_task(benchmark, temperature=1.0, max_tokens=task.max_completion_length)

    embedded.__doc__ = f"{task.summary.capitalize()}; --prompts held-out prompts."
    made: Callable[..., Any] = embedded
    return made


BENCHMARKS: Mapping[str, Callable[..., Any]] = {
    task.name: _as_inspects(task) for task in (*TASKS.values(), INSTRUCTIONS)
}
"""The tasks by name; `rvpo eval` finds them in the module of `rvpo bench`."""
