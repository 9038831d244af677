"""The page of suites: the page of training runs with findings, held-out curves, scores, answers and settings."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from rvpo.report.curves import Panel
from rvpo.report.drawing import looks_of
from rvpo.report.html import FiguresAndPage, neglect_picture, render
from rvpo.report.runs import TrainingRun
from rvpo.report.training import k_in_words, k_panel
from rvpo.report.training_parts import OWN_RUNS, TrainingPart, group_part, k_of_runs, runs_part, training_section
from rvpo_lab.report.inputs import SuiteInputs, uses_k
from rvpo_lab.report.suite_parts import suite_parts

__all__ = ["make_suite_report"]

TEMPLATES = Path(__file__).parent


def make_suite_report(inputs: SuiteInputs, *, reproduce: str = "") -> FiguresAndPage:
    """Return the page of what was read; `reproduce` is the command line that makes it.

    The same inputs give the same bytes. Sections that nothing is known for are left out.
    """
    own = {run.method: run.method for run in inputs.training if run.method not in inputs.contenders}
    looks = looks_of({**inputs.contenders, **own})
    slug, picture = _slugs(), neglect_picture()
    suites = suite_parts(inputs, looks, slug)
    by_task = _logs(inputs)
    courses = [_k_of_cells([run for runs in by_task.values() for run in runs], inputs.contenders)]
    parts = [group_part(TrainingPart(task), runs, looks, slug(task)) for task, runs in by_task.items()]
    if inputs.training:
        courses.append(k_of_runs(inputs.training, looks))
        parts.append(runs_part(inputs.training, looks))
    training = training_section(courses, parts, looks)
    contents = {
        "findings": ("Findings", suites.findings),
        "neglect": ("Constraint neglect", True),
        "curves": ("Curves", suites.tasks),
        "scores": ("Scores", suites.tasks),
        "training": ("Training", training.parts),
        "answers": ("Answers", suites.samples),
    }
    html = render(
        "suite.html.j2",
        TEMPLATES,
        contents={name: text for name, (text, is_there) in contents.items() if is_there},
        looks=looks,
        picture=picture,
        runs=inputs.training,
        suites=suites,
        training=training,
        reproduce=reproduce,
    )
    return FiguresAndPage(html, (*suites.figures, picture, *training.figures))


def _logs(inputs: SuiteInputs) -> dict[str, list[TrainingRun]]:
    """Return the logs of the cells, task by task."""
    by_task: dict[str, list[TrainingRun]] = {}
    for record in inputs.records:
        if record.logged_steps:
            run = TrainingRun(record.about["contender"], tuple(record.logged_steps), record.log)
            by_task.setdefault(record.about["task"], []).append(run)
    return by_task


def _k_of_cells(runs: list[TrainingRun], contenders: Mapping[str, str]) -> tuple[Panel, str]:
    """Return the course of k of the contenders that use it, and on which it has no effect."""
    trained = {run.method for run in runs}
    used = [name for name in contenders if uses_k(name)]
    unaffected = [label for name, label in contenders.items() if name in trained and name not in used]
    panel = k_panel(runs, used, "k of the suite's methods")
    return panel, k_in_words(panel, unaffected, contenders)


def _slugs() -> Callable[[str], str]:
    """Return what makes names of figures from names of tasks: small letters and numbers, one name for each task."""
    given: dict[str, str] = {}

    def slug(task: str) -> str:
        if task not in given:
            name = re.sub(r"[^a-z0-9]+", "-", task.lower()).strip("-") or "task"
            is_taken = name == OWN_RUNS or name in given.values()
            given[task] = f"{name}-{len(given) + 1}" if is_taken else name
        return given[task]

    return slug
