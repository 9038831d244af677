"""The part of a report about training: k, weights, dead and missing channels, and the rewards of training runs."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from matplotlib.figure import Figure

from rvpo.report.curves import Panel
from rvpo.report.drawing import Look
from rvpo.report.figures import curves_figure, weights_figure
from rvpo.report.runs import Inputs, TrainingRun
from rvpo.report.svg import NamedFigure
from rvpo.report.training import (
    dead_in_words,
    ends_in_words,
    k_in_words,
    k_panel,
    log_panels,
    missing_in_words,
    task_runs,
    weight_maps,
    weights_in_words,
)
from rvpo.report.words import number

__all__ = ["TrainingPart", "TrainingParts", "training_parts"]

OWN_RUNS = "runs"
"""Name of the figures of runs that are no suite's."""


@dataclass(frozen=True)
class TrainingPart:
    """What is shown of the logs of one task, or of the training runs given by themselves."""

    name: str
    """Empty for the training runs."""
    shown: list[tuple[str, NamedFigure]] = field(default_factory=list)
    """Figures, each under its heading; what they show in words is their description."""
    notes: list[str] = field(default_factory=list)
    """Sentences without a figure."""
    table: list[tuple[str, list[str]]] = field(default_factory=list)
    """Channel, and for each run its mean reward at the first and the last logged step; only training runs have it."""


@dataclass(frozen=True)
class TrainingParts:
    """All of it."""

    k: NamedFigure | None
    """None where no k was logged."""
    parts: list[TrainingPart]

    @property
    def headline(self) -> str:
        """What became of the rewards of the training runs; empty without any."""
        return next((figure.description for part in self.parts if part.table for _, figure in part.shown), "")

    @property
    def figures(self) -> list[NamedFigure]:
        """All figures, in the order of the page."""
        first = [self.k] if self.k else []
        return first + [figure for part in self.parts for _, figure in part.shown]


def training_parts(inputs: Inputs, looks: Mapping[str, Look], slug: Callable[[str], str]) -> TrainingParts:
    """Return the parts; `slug` makes a figure's name from a task's."""
    by_task = task_runs(inputs)
    methods = {name: method.label for name, method in inputs.methods.items()}
    parts = [_part(task, runs, methods, looks, slug(task)) for task, runs in by_task.items()]
    if inputs.training:
        own = {run.method: methods[run.method] for run in inputs.training}
        parts.append(_part("", inputs.training, own, looks, OWN_RUNS))
    return TrainingParts(_k(inputs, by_task, looks), [part for part in parts if part.shown or part.notes])


def _k(inputs: Inputs, by_task: Mapping[str, Sequence[TrainingRun]], looks: Mapping[str, Look]) -> NamedFigure | None:
    """Return the figure of k over training, None where no k was logged."""
    of_suites = [run for runs in by_task.values() for run in runs]
    used = [name for name in inputs.methods if inputs.methods[name].uses_k]
    trained = {run.method for run in of_suites}
    left_out = [method.label for name, method in inputs.methods.items() if name in trained and name not in used]
    own = [run.method for run in inputs.training]
    labels = {name: look.label for name, look in looks.items()}
    panels, words = [], []
    for title, runs, methods, without in (
        ("k of the suite's methods", of_suites, used, left_out),
        ("k of the training runs", inputs.training, own, []),
    ):
        panel = k_panel(runs, methods, title)
        if panel.curves:
            panels.append(panel)
            words.append(k_in_words(panel, without, labels))
    if inputs.training and panels:
        words.append("A training run logs k whether its method uses it or not.")
    if not panels:
        return None
    figure = curves_figure(panels, looks, limits=None, columns=2)
    return NamedFigure("k", "Risk coefficient k over training", " ".join(words), figure)


def _part(
    name: str, runs: Sequence[TrainingRun], labels: Mapping[str, str], looks: Mapping[str, Look], slug: str
) -> TrainingPart:
    """Return the part of one task's runs, or of the training runs."""
    part, methods = TrainingPart(name), list(labels)

    def show(kind: str, heading: str, words: str, figure: Figure) -> None:
        title = f"{name}: {heading}" if name else heading
        part.shown.append((heading, NamedFigure(f"{slug}-{kind}", title, words, figure)))

    if not name and (means := log_panels(runs, methods, "mean")):
        figure = curves_figure(means, looks, limits=None)
        show("rewards", "mean reward of each channel", ends_in_words(means, labels), figure)
        part.table.extend(_table(means, methods))
    if maps := weight_maps(runs, methods):
        show("weights", "channel weights", weights_in_words(maps, labels), weights_figure(maps, looks))
    if dead := log_panels(runs, methods, "dead"):
        words = dead_in_words(dead, labels)
        show("dead", "share of groups in which a channel is dead", words, curves_figure(dead, looks))
    if missing := log_panels(runs, methods, "missing"):
        words = missing_in_words(missing, labels)
        if any(value > 0 for panel in missing for one in panel.curves for value in one.high):
            show("missing", "share of rewards that are missing", words, curves_figure(missing, looks))
        else:
            part.notes.append(words)
    return part


def _table(means: Sequence[Panel], methods: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Return each channel's first and last mean reward in every run."""
    rows = []
    for panel in means:
        ends = {}
        for one in panel.curves:
            known = [value for value in one.mean if math.isfinite(value)]
            ends[one.method] = f"{number(known[0])} \N{RIGHTWARDS ARROW} {number(known[-1])}"
        rows.append((panel.title, [ends.get(method, "") for method in methods]))
    return rows
