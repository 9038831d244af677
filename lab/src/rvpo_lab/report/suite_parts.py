"""The parts of a report that need the cells of a suite: findings, curves and scores by task, answers, settings."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from rvpo.report.drawing import Look
from rvpo.report.figures import curves_figure, overview_figure
from rvpo.report.runs import Inputs, Suite
from rvpo.report.svg import NamedFigure
from rvpo.report.words import capital, percent, plural
from rvpo_lab.report.held_out import (
    Difference,
    Row,
    axis_panels,
    channel_panels,
    common_runs,
    differences,
    finals,
    graded,
    score_rows,
)
from rvpo_lab.report.origin import command, settings, versions
from rvpo_lab.report.samples import SampledPrompt, sampled_prompts
from rvpo_lab.report.sentences import compared, curves_in_words, finding, limit_of_tests, scores_in_words
from rvpo_lab.suite.cell_file import CellRecord
from rvpo_lab.suite.results import NEGLECTED, channel_means, run_scores
from rvpo_lab.tasks.catalog import TASKS

__all__ = ["Findings", "Origin", "SuiteParts", "TaskPart", "suite_parts"]


@dataclass(frozen=True)
class Findings:
    """The first section."""

    sentences: list[str]
    overview: NamedFigure
    shares: list[tuple[str, list[str]]]
    """Task and the share that each method neglects at its end; empty with a single task."""


@dataclass(frozen=True)
class TaskPart:
    """What is shown of one task."""

    name: str
    summary: str
    seeds: str
    axes: NamedFigure
    channels: NamedFigure
    number_of_channels: int
    score_words: str
    rows: list[Row]
    differences: dict[str, list[Difference]]
    """Method -> its differences to GDPO, one per score; empty without enough seeds."""
    limit: str
    """What these tests cannot show; empty if they can."""


@dataclass(frozen=True)
class SampledTask:
    """The answers kept of one task, from one seed."""

    name: str
    seed: int
    prompts: list[SampledPrompt]


@dataclass(frozen=True)
class Origin:
    """Where a suite's cells come from."""

    name: str
    settings: dict[str, str]
    versions: dict[str, str]
    command: str


@dataclass(frozen=True)
class SuiteParts:
    """All of it."""

    compared: str
    findings: Findings | None
    """None if no held-out value is a number."""
    methods: list[str]
    tasks: list[TaskPart]
    samples: list[SampledTask]
    origins: list[Origin]
    threshold: float = NEGLECTED
    """Below this mean a channel is neglected."""

    @property
    def figures(self) -> list[NamedFigure]:
        """All figures, in the order of the page."""
        first = [self.findings.overview] if self.findings else []
        return first + [figure for task in self.tasks for figure in (task.axes, task.channels)]


def suite_parts(inputs: Inputs, looks: Mapping[str, Look], slug: Callable[[str], str]) -> SuiteParts:
    """Return the parts; `slug` makes a figure's name from a task's."""
    records = inputs.records
    methods = list(dict.fromkeys(name for name in inputs.methods if name in {r.about["contender"] for r in records}))
    labels = {name: inputs.methods[name].label for name in methods}
    scored = graded(records)
    findings, tasks = None, []
    if scored:
        runs, means = run_scores(scored), channel_means(scored)
        findings = _findings(runs, labels, looks)
        for task in dict.fromkeys(record.about["task"] for record in scored):
            of_task = runs[runs["task"] == task], means[means["task"] == task]
            tasks.append(_task(task, _catalogued(scored, task), *of_task, labels, looks, slug(task)))
    return SuiteParts(
        compared(records, labels),
        findings,
        methods,
        tasks,
        _samples(records, methods),
        [_origin(suite) for suite in inputs.suites],
    )


def _catalogued(records: Sequence[CellRecord], task: str) -> str:
    """Return the name that a task of the report has in the catalogue."""
    return next(str(one.about.get("catalog_task", task)) for one in records if one.about["task"] == task)


def _findings(runs: pd.DataFrame, labels: Mapping[str, str], looks: Mapping[str, Look]) -> Findings:
    common, _ = common_runs(runs)
    sentences = finding(runs, labels)
    overview = NamedFigure(
        "overview",
        "Share of channels neglected and held-out mean at the end, by method",
        " ".join(sentences),
        overview_figure(finals(common, list(labels)), looks),
    )
    by_task = runs.groupby(["task", "method"], sort=False)["final_neglected"].mean()
    tasks = list(dict.fromkeys(runs["task"]))
    shares = [
        (task, [percent(float(by_task.get((task, method), float("nan")))) for method in labels]) for task in tasks
    ]
    return Findings(sentences, overview, shares if len(tasks) > 1 else [])


def _task(
    task: str,
    catalogued: str,
    runs: pd.DataFrame,
    means: pd.DataFrame,
    labels: Mapping[str, str],
    looks: Mapping[str, Look],
    slug: str,
) -> TaskPart:
    words, methods = curves_in_words(means, labels), list(labels)
    panels, rows = channel_panels(means, methods), score_rows(runs, methods)
    tested: dict[str, list[Difference]] = {}
    for one in differences(runs, methods):
        tested.setdefault(one.method, []).append(one)
    pairs = max((one.test.pairs for tests in tested.values() for one in tests), default=0)
    by_axis = curves_figure(axis_panels(means, methods), looks)
    by_channel = curves_figure(panels, looks, threshold=NEGLECTED, columns=4, height=96.0)
    ordered = "One panel per channel, those met least at the start first."
    return TaskPart(
        name=task,
        summary=capital(TASKS[catalogued].summary) if catalogued in TASKS else "",
        seeds=plural(runs["seed"].nunique(), "seed"),
        axes=NamedFigure(f"{slug}-axes", f"{task}: held-out mean of each axis over training", words, by_axis),
        channels=NamedFigure(f"{slug}-channels", f"{task}: held-out mean of each channel", ordered, by_channel),
        number_of_channels=len(panels),
        score_words=scores_in_words(rows, float(runs["start_mean"].mean()), labels),
        rows=rows,
        differences=tested,
        limit=limit_of_tests(pairs) if tested else "",
    )


def describer(task: str) -> Callable[[str], str]:
    """Return what turns a task's criteria into sentences; a criterion that nobody describes is its own name."""

    def describe(criterion: str) -> str:
        try:
            return TASKS[task].describe(criterion)
        except (KeyError, IndexError):
            return criterion

    return describe


def _samples(records: Sequence[CellRecord], methods: Sequence[str]) -> list[SampledTask]:
    """Return the sampled prompts of each task, from its lowest seed that has any."""
    found = []
    for task in dict.fromkeys(record.about["task"] for record in records):
        sampled = [one for one in records if one.about["task"] == task and one.samples]
        if sampled:
            seed = min(one.about["seed"] for one in sampled)
            chosen = [one for one in sampled if one.about["seed"] == seed]
            describe = describer(_catalogued(records, task))
            found.append(SampledTask(task, seed, sampled_prompts(chosen, methods, describe)))
    return found


def _origin(suite: Suite) -> Origin:
    return Origin(suite.name, settings(suite), versions(suite), command(suite))
