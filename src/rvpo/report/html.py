"""The page: training runs -> figures, sentences and tables -> one HTML text, and the figures by themselves."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from rvpo import __version__
from rvpo.report.curves import MOST_POINTS
from rvpo.report.drawing import looks_of
from rvpo.report.figures import neglect_figure
from rvpo.report.images import NamedFigure, image, swatch
from rvpo.report.neglect import preferences, sentence
from rvpo.report.runs import TrainingRun
from rvpo.report.training_parts import k_of_runs, runs_part, training_section
from rvpo.text import NOTHING, capital, listed, number, percent, plural, signed

__all__ = ["FiguresAndPage", "make_report", "neglect_picture", "render"]

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
