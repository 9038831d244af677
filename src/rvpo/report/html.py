"""The page: training runs -> figures, sentences and tables -> one HTML text, and the figures by themselves.

The section about training shows k, weights, dead and missing channels, and the rewards of training runs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure

from rvpo import __version__
from rvpo.report.drawing import Look, NamedFigure, image, looks_of, swatch
from rvpo.report.figures import curves_figure, neglect_figure, preferences, sentence, weights_figure
from rvpo.report.runs import TrainingRun
from rvpo.report.training import (
    MOST_POINTS,
    Panel,
    dead_in_words,
    ends_in_words,
    k_in_words,
    k_panel,
    log_panels,
    missing_in_words,
    weight_maps,
    weights_in_words,
)
from rvpo.text import NOTHING, capital, listed, number, percent, plural, signed

__all__ = [
    "OWN_RUNS",
    "FiguresAndPage",
    "TrainingPart",
    "TrainingSection",
    "group_part",
    "k_of_runs",
    "make_report",
    "neglect_picture",
    "render",
    "runs_part",
    "training_section",
]

OWN_RUNS = "runs"
"""What the names of the figures of training runs begin with."""


@dataclass(frozen=True)
class TrainingPart:
    """What is shown of the logs of some runs."""

    name: str
    """Empty for the training runs of a user."""
    shown: list[tuple[str, NamedFigure]] = field(default_factory=list)
    """Figures, each under its heading; what they show in words is their description."""
    notes: list[str] = field(default_factory=list)
    """Sentences without a figure."""
    table: list[tuple[str, list[str]]] = field(default_factory=list)
    """Channel, and for each run its mean reward at the first and the last logged step; of training runs only."""

    def add(self, slug: str, kind: str, heading: str, words: str, figure: Figure) -> None:
        """Add a figure that `words` describe; its own name is `slug` and `kind`."""
        title = f"{self.name}: {heading}" if self.name else heading
        self.shown.append((heading, NamedFigure(f"{slug}-{kind}", title, words, figure)))


@dataclass(frozen=True)
class TrainingSection:
    """The section of the page about training."""

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
        return ([self.k] if self.k else []) + [figure for part in self.parts for _, figure in part.shown]


def k_of_runs(runs: Sequence[TrainingRun], looks: Mapping[str, Look]) -> tuple[Panel, str]:
    """Return the course of k of training runs as a panel and in words."""
    labels = _labels(runs, looks)
    panel = k_panel(runs, list(labels), "k of the training runs")
    return panel, f"{k_in_words(panel, [], labels)} A training run logs k whether its method uses it or not."


def training_section(
    k: Sequence[tuple[Panel, str]], parts: Sequence[TrainingPart], looks: Mapping[str, Look]
) -> TrainingSection:
    """Return the section; of k are given panels and what they show in words. What shows nothing is left out."""
    panels = [panel for panel, _ in k if panel.curves]
    words = " ".join(text for panel, text in k if panel.curves)
    figure = None
    if panels:
        drawn = curves_figure(panels, looks, limits=None, columns=2)
        figure = NamedFigure("k", "Risk coefficient k over training", words, drawn)
    return TrainingSection(figure, [part for part in parts if part.shown or part.notes])


def runs_part(runs: Sequence[TrainingRun], looks: Mapping[str, Look]) -> TrainingPart:
    """Return the part of a user's training runs: the rewards of each channel, then as `group_part`."""
    part, labels = TrainingPart(""), _labels(runs, looks)
    if means := log_panels(runs, list(labels), "mean"):
        words, figure = ends_in_words(means, labels), curves_figure(means, looks, limits=None)
        part.add(OWN_RUNS, "rewards", "mean reward of each channel", words, figure)
        part.table.extend(_first_and_last(means, list(labels)))
    return group_part(part, runs, looks, OWN_RUNS)


def group_part(part: TrainingPart, runs: Sequence[TrainingRun], looks: Mapping[str, Look], slug: str) -> TrainingPart:
    """Return the part with the weights, dead shares and missing shares of these runs added, as far as logged."""
    labels = _labels(runs, looks)
    methods = list(labels)
    if maps := weight_maps(runs, methods):
        part.add(slug, "weights", "channel weights", weights_in_words(maps, labels), weights_figure(maps, looks))
    if dead := log_panels(runs, methods, "dead"):
        words = dead_in_words(dead, labels)
        part.add(slug, "dead", "share of groups in which a channel is dead", words, curves_figure(dead, looks))
    if missing := log_panels(runs, methods, "missing"):
        words = missing_in_words(missing, labels)
        if any(value > 0 for panel in missing for curve in panel.curves for value in curve.high):
            part.add(slug, "missing", "share of rewards that are missing", words, curves_figure(missing, looks))
        else:
            part.notes.append(words)
    return part


def _labels(runs: Sequence[TrainingRun], looks: Mapping[str, Look]) -> dict[str, str]:
    """Return the labels of the methods of these runs, in the order of the looks."""
    methods = {run.method for run in runs}
    return {method: look.label for method, look in looks.items() if method in methods}


def _first_and_last(means: Sequence[Panel], methods: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Return each channel's first and last mean reward in every run."""
    rows = []
    for panel in means:
        ends = {curve.method: " \N{RIGHTWARDS ARROW} ".join(map(number, curve.ends)) for curve in panel.curves}
        rows.append((panel.title, [ends.get(method, "") for method in methods]))
    return rows


TEMPLATES = Path(__file__).parent


@dataclass(frozen=True)
class FiguresAndPage:
    """A finished report."""

    html: str
    figures: tuple[NamedFigure, ...]
    """Every figure of the page, in its order."""


def neglect_picture() -> NamedFigure:
    """Return the picture of constraint neglect."""
    given = preferences()
    title = "Advantages of two answers of equal mean reward, by method"
    return NamedFigure("neglect", title, sentence(given), neglect_figure(given))


def make_report(runs: Sequence[TrainingRun], *, reproduce: str = "") -> FiguresAndPage:
    """Return the report of training runs; `reproduce` is the command line that makes it.

    The same runs give the same bytes. Sections that nothing is known for are left out.
    """
    looks = looks_of({run.method: run.method for run in runs})
    training, picture = training_section([k_of_runs(runs, looks)], [runs_part(runs, looks)], looks), neglect_picture()
    html = render(
        "report.html.j2",
        contents={"neglect": "Constraint neglect", **({"training": "Training"} if training.parts else {})},
        looks=looks,
        picture=picture,
        runs=runs,
        training=training,
        reproduce=reproduce,
    )
    return FiguresAndPage(html, (picture, *training.figures))


def render(template: str, *folders: Path, **given: Any) -> str:
    """Return a page from a template in one of these folders or here; whatever it is given is escaped."""
    environment = Environment(
        loader=FileSystemLoader([*folders, TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = {
        "image": image,
        "swatch": swatch,
        "number": number,
        "signed": signed,
        "listed": listed,
        "capital": capital,
    }
    environment.filters.update(filters, percent=lambda share: percent(share, 1))
    environment.globals.update(plural=plural, NOTHING=NOTHING, MOST_POINTS=MOST_POINTS, version=__version__)
    return environment.get_template(template).render(given)
