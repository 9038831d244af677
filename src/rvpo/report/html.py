"""The page: inputs -> figures, sentences and tables -> one HTML text, and the figures by themselves."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from rvpo import __version__
from rvpo.report.curves import MOST_POINTS
from rvpo.report.drawing import looks_of
from rvpo.report.figures import neglect_figure
from rvpo.report.neglect import preferences, sentence
from rvpo.report.runs import Inputs
from rvpo.report.svg import NamedFigure, inline_svg, swatch
from rvpo.report.training_parts import OWN_RUNS, training_parts
from rvpo.report.words import NOTHING, capital, listed, number, percent, plural

__all__ = ["Report", "make_report", "neglect_picture"]

TEMPLATE = "report.html.j2"


@dataclass(frozen=True)
class Report:
    """A finished report."""

    html: str
    figures: tuple[NamedFigure, ...]
    """Every figure of the page, in its order."""


def neglect_picture() -> NamedFigure:
    """Return the picture of constraint neglect."""
    given = preferences()
    title = "Advantages of two answers of equal mean reward, by method"
    return NamedFigure("neglect", title, sentence(given), neglect_figure(given))


def make_report(inputs: Inputs, *, reproduce: str = "") -> Report:
    """Return the report of what was read; `reproduce` is the command line that makes it.

    The same inputs give the same bytes. Sections that nothing is known for are left out.
    """
    looks = looks_of({name: method.label for name, method in inputs.methods.items()})
    slug = _slugs()
    suites = None
    if inputs.suites:
        from rvpo_lab.report.suite_parts import suite_parts  # needs pandas, which logs alone do not

        suites = suite_parts(inputs, looks, slug)
    training, picture = training_parts(inputs, looks, slug), neglect_picture()
    html = _template().render(
        suites=suites,
        picture=picture,
        training=training,
        runs=inputs.training,
        looks=looks,
        version=__version__,
        reproduce=reproduce,
        is_thinned=any(len(run.steps) > MOST_POINTS for run in inputs.training),
    )
    return Report(html, (*(suites.figures if suites else ()), picture, *training.figures))


def _template() -> Template:
    """Return the template; whatever it is given is escaped, but the figures, which are drawn here."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(
        drawing=lambda named: Markup(inline_svg(named)),
        swatch=lambda look: Markup(swatch(look)),
        number=number,
        percent=percent,
        listed=listed,
        capital=capital,
    )
    environment.globals.update(plural=plural, NOTHING=NOTHING, MOST_POINTS=MOST_POINTS)
    return environment.from_string(files("rvpo.report").joinpath(TEMPLATE).read_text(encoding="utf-8"))


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
