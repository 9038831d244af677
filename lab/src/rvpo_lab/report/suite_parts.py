"""What a page shows of the cells of suites: findings, curves and scores by task, answers, settings."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from rvpo.report.drawing import Look
from rvpo.report.figures import curves_figure
from rvpo.report.images import NamedFigure
from rvpo.stats import NEGLECTED
from rvpo.text import capital, percent, plural
from rvpo_lab.report.held_out import (
    ScoreDifference,
    ScoreRow,
    axis_panels,
    channel_panels,
    common_runs,
    differences,
    finals,
    graded,
    score_rows,
)
from rvpo_lab.report.inputs import SuiteInputs
from rvpo_lab.report.origin import command, settings, versions
from rvpo_lab.report.samples import SampledPrompt, sampled_prompts
from rvpo_lab.report.sentences import compared, curves_in_words, finding, limit_of_tests, scores_in_words
from rvpo_lab.report.suite_figures import overview_figure
from rvpo_lab.suite.cell_file import CellRecord
from rvpo_lab.suite.results import channel_means, run_scores
from rvpo_lab.tasks.catalog import TASKS

__all__ = ["FindingsPart", "SuiteOrigin", "SuiteParts", "TaskPart", "suite_parts"]

Labels = Mapping[str, str]
"""Method -> what it is called."""


@dataclass(frozen=True)
class FindingsPart:
    """The first section: the main finding over all tasks."""

    sentences: list[str]
    overview: NamedFigure
    shares: list[tuple[str, list[str]]]
    """Task and the share of channels that each method neglects at its end; empty with a single task."""


@dataclass(frozen=True)
class TaskPart:
    """The curves and scores of one task."""

    name: str
    summary: str
    seeds: str
    axes: NamedFigure
    channels: NamedFigure
    number_of_channels: int
    score_words: str
    rows: list[ScoreRow]
    differences: dict[str, list[ScoreDifference]]
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
class SuiteOrigin:
    """How a suite's cells were made."""

    name: str
    settings: dict[str, str]
    versions: dict[str, str]
    command: str


@dataclass(frozen=True)
class SuiteParts:
    """The sections of a page that are made from cells; `suite.html.j2` has their order."""

    compared: str
    """Which tasks, methods and seeds there are, in a sentence."""
    findings: FindingsPart | None
    """None if no held-out value is a number."""
    methods: list[str]
    """Names of the methods, in the order of all tables."""
    tasks: list[TaskPart]
    samples: list[SampledTask]
    origins: list[SuiteOrigin]
    threshold: float = NEGLECTED
    """Below this mean a channel is neglected."""

    @property
    def figures(self) -> list[NamedFigure]:
        """The figures of findings and tasks, in the order of the page."""
        first = [self.findings.overview] if self.findings else []
        return first + [figure for task in self.tasks for figure in (task.axes, task.channels)]


def suite_parts(inputs: SuiteInputs, looks: Mapping[str, Look], slug: Callable[[str], str]) -> SuiteParts:
    """Return the sections; `slug` makes a figure's name from a task's."""
    records, labels = inputs.records, inputs.contenders
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
        list(labels),
        tasks,
        _samples(records, list(labels)),
        [SuiteOrigin(suite.name, settings(suite), versions(suite), command(suite)) for suite in inputs.suites],
    )


def _catalogued(records: Sequence[CellRecord], task: str) -> str:
    """Return the name that a task of the page has in the catalogue."""
    return next(str(record.about.get("catalog_task", task)) for record in records if record.about["task"] == task)


def _findings(runs: pd.DataFrame, labels: Labels, looks: Mapping[str, Look]) -> FindingsPart:
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
        (task, [percent(float(by_task.get((task, method), float("nan"))), 1) for method in labels]) for task in tasks
    ]
    return FindingsPart(sentences, overview, shares if len(tasks) > 1 else [])


def _task(
    task: str,
    catalogued: str,
    runs: pd.DataFrame,
    means: pd.DataFrame,
    labels: Labels,
    looks: Mapping[str, Look],
    slug: str,
) -> TaskPart:
    """Return the part of one task from its runs and channel means; `catalogued` is its name in the catalogue."""
    words, methods = curves_in_words(means, labels), list(labels)
    panels, rows = channel_panels(means, methods), score_rows(runs, methods)
    tested: dict[str, list[ScoreDifference]] = {}
    for difference in differences(runs, methods):
        tested.setdefault(difference.method, []).append(difference)
    pairs = max((difference.test.pairs for tests in tested.values() for difference in tests), default=0)
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
    tasks = []
    for task in dict.fromkeys(record.about["task"] for record in records):
        sampled = [record for record in records if record.about["task"] == task and record.samples]
        if sampled:
            seed = min(record.about["seed"] for record in sampled)
            chosen = [record for record in sampled if record.about["seed"] == seed]
            describe = describer(_catalogued(records, task))
            tasks.append(SampledTask(task, seed, sampled_prompts(chosen, methods, describe)))
    return tasks
