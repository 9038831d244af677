"""The page of suites: the page of training runs with findings, held-out curves, scores, answers and settings.

Answers are every method's first and last ones to held-out prompts, with the verdict on every criterion.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from rvpo.report.drawing import Look, NamedFigure, looks_of
from rvpo.report.figures import curves_figure
from rvpo.report.html import (
    OWN_RUNS,
    FiguresAndPage,
    TrainingPart,
    group_part,
    k_of_runs,
    neglect_picture,
    render,
    runs_part,
    training_section,
)
from rvpo.report.runs import TrainingRun
from rvpo.report.training import Panel, k_in_words, k_panel
from rvpo.stats import NEGLECTED
from rvpo.text import NOTHING, capital, number, percent, plural
from rvpo_lab.report.held_out import (
    ScoreDifference,
    ScoreRow,
    axis_panels,
    channel_panels,
    common_runs,
    compared,
    curves_in_words,
    differences,
    finals,
    finding,
    graded,
    limit_of_tests,
    score_rows,
    scores_in_words,
)
from rvpo_lab.report.inputs import SuiteInputs, command, settings, uses_k, versions
from rvpo_lab.report.suite_figures import overview_figure
from rvpo_lab.suite.results import channel_means, run_scores
from rvpo_lab.suite.storage import CellRecord
from rvpo_lab.tasks.catalog import TASKS
from rvpo_lab.tasks.task import FULL

__all__ = [
    "FindingsPart",
    "GradedCriterion",
    "SampledAnswer",
    "SampledPrompt",
    "SuiteOrigin",
    "SuiteParts",
    "TaskPart",
    "make_suite_report",
    "sampled_prompts",
    "suite_parts",
]


@dataclass(frozen=True)
class GradedCriterion:
    """What an answer has of a criterion."""

    state: str
    """met, partly, unmet or none."""
    symbol: str
    text: str


@dataclass(frozen=True)
class SampledAnswer:
    """An answer of a policy to a held-out prompt."""

    method: str
    """Empty where the answers of all methods are the same."""
    when: str
    text: str
    verdicts: tuple[GradedCriterion, ...]
    """In the order of the prompt's criteria."""

    @property
    def met(self) -> int:
        """How many criteria have their full value."""
        return sum(verdict.state == "met" for verdict in self.verdicts)


@dataclass(frozen=True)
class SampledPrompt:
    """A prompt, what is asked of an answer, and the answers."""

    text: str
    criteria: tuple[str, ...]
    answers: tuple[SampledAnswer, ...]


def verdict(value: float) -> GradedCriterion:
    """Return a criterion's value in [0, 1] in words; NaN is no verdict.

    >>> verdict(1.0).text, verdict(0.25).text, verdict(0.0).text
    ('met', '0.25', 'not met')
    """
    if math.isnan(value):
        return GradedCriterion("none", NOTHING, "no verdict")
    if value >= FULL:
        return GradedCriterion("met", "\N{CHECK MARK}", "met")
    if value <= 1 - FULL:
        return GradedCriterion("unmet", "\N{BALLOT X}", "not met")
    return GradedCriterion("partly", "\N{CIRCLE WITH LEFT HALF BLACK}", number(value))


def sampled_prompts(
    records: Sequence[CellRecord], methods: Sequence[str], describe: Callable[[str], str]
) -> list[SampledPrompt]:
    """Return the sampled prompts of one task and seed, with each method's first and last answer."""
    by_prompt: dict[str, list[tuple[CellRecord, int]]] = {}
    for record in sorted(records, key=lambda record: methods.index(record.about["contender"])):
        for index in dict.fromkeys(prompt for _, prompt, _ in record.samples):
            by_prompt.setdefault(record.prompts[index], []).append((record, index))
    return [_sampled(text, asked, describe) for text, asked in by_prompt.items()]


def _sampled(text: str, asked: Sequence[tuple[CellRecord, int]], describe: Callable[[str], str]) -> SampledPrompt:
    criteria = dict.fromkeys(
        criterion for record, index in asked for prompt, criterion in record.held_out if prompt == index
    )
    firsts, lasts = [], []
    for record, index in asked:
        answers = {step: answer for step, prompt, answer in record.samples if prompt == index}
        first, last = min(answers), max(answers)
        firsts.append(_answer(record, index, first, answers[first], list(criteria)))
        if last > first:
            lasts.append(_answer(record, index, last, answers[last], list(criteria)))
    same = len({(answer.when, answer.text, answer.verdicts) for answer in firsts}) == 1
    if same and len(firsts) > 1:
        firsts = [SampledAnswer("", firsts[0].when, firsts[0].text, firsts[0].verdicts)]
    return SampledPrompt(text, tuple(describe(criterion) for criterion in criteria), (*firsts, *lasts))


def _answer(record: CellRecord, index: int, step: int, text: str, criteria: Sequence[str]) -> SampledAnswer:
    """Return one answer with its verdicts, which are there if the step was evaluated."""
    at = record.steps.index(step) if step in record.steps else None
    values = [
        math.nan if at is None or (index, criterion) not in record.held_out else record.held_out[index, criterion][at]
        for criterion in criteria
    ]
    when = "before training" if step == 0 else f"after step {step}"
    return SampledAnswer(record.about["contender"], when, text, tuple(map(verdict, values)))


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
