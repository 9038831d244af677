"""The figures of suites: they hold the numbers of the cells, worked out by hand here."""

from xml.etree import ElementTree

import pytest

from made_up_cells import cell
from rvpo.report.drawing import looks_of
from rvpo.report.figures import curves_figure
from rvpo.report.images import NamedFigure, svg
from rvpo_lab.report.held_out import axis_panels, channel_panels
from rvpo_lab.report.suite_figures import Final, overview_figure
from rvpo_lab.suite.results import channel_means

LOOKS = looks_of({"gdpo": "GDPO", "rvpo": "RVPO"})


def lines(axes):
    return {line.get_label(): line for line in axes.get_lines() if not line.get_label().startswith("_")}


@pytest.fixture(scope="module")
def means():
    """Two seeds of GDPO. Axis a: channel a/x with two prompts, channel a/y with one; axis b: one channel."""
    first = {(0, "a/x"): [0.0, 1.0], (1, "a/x:other"): [1.0, 1.0], (0, "a/y"): [0.0, 0.0], (0, "b/z"): [0.25, 0.5]}
    second = {(0, "a/x"): [0.0, 0.0], (1, "a/x:other"): [0.0, 1.0], (0, "a/y"): [1.0, 1.0], (0, "b/z"): [0.75, 0.0]}
    return channel_means([cell(seed=0, held_out=first), cell(seed=1, held_out=second)])


def test_axis_curves_are_the_means_worked_out_by_hand(means):
    # Seed 0: a/x 0.5, 1.0 and a/y 0, 0: axis 0.25, 0.5. Seed 1: a/x 0, 0.5 and a/y 1, 1: axis 0.5, 0.75.
    panels = axis_panels(means, ["gdpo"])
    assert [panel.title for panel in panels] == ["a", "b"]
    figure = curves_figure(panels, LOOKS)
    of_a, of_b = figure.axes
    assert lines(of_a)["GDPO"].get_xdata() == pytest.approx([0, 10])
    assert lines(of_a)["GDPO"].get_ydata() == pytest.approx([0.375, 0.625])
    assert lines(of_b)["GDPO"].get_ydata() == pytest.approx([0.5, 0.25])


def test_the_band_goes_from_the_lowest_to_the_highest_seed(means):
    (band,) = curves_figure(axis_panels(means, ["gdpo"]), LOOKS).axes[0].collections
    corners = {(x, round(float(y), 6)) for x, y in band.get_paths()[0].vertices}
    assert corners == {(0, 0.25), (0, 0.5), (10, 0.5), (10, 0.75)}


def test_channels_are_ordered_from_the_least_met_at_the_start(means):
    # At step 0: a/x (0.5 + 0) / 2 = 0.25, a/y (0 + 1) / 2 = 0.5, b/z (0.25 + 0.75) / 2 = 0.5.
    panels = channel_panels(means, ["gdpo"])
    assert [panel.title for panel in panels] == ["a/x", "a/y", "b/z"]
    assert panels[0].curves[0].mean == pytest.approx((0.25, 0.75))


def test_a_seed_that_one_method_lacks_leaves_the_others_as_they_are():
    ends = {("gdpo", 0): 0.0, ("gdpo", 1): 1.0, ("rvpo", 0): 0.25}
    records = [cell(*run, held_out={(0, "a/x"): [run[1] / 2, end]}) for run, end in ends.items()]
    (panel,) = axis_panels(channel_means(records), ["gdpo", "rvpo"])
    gdpo, rvpo = panel.curves
    assert (gdpo.mean, gdpo.runs) == ((0.25, 0.5), 2)
    assert (rvpo.mean, rvpo.runs) == ((0.0, 0.25), 1)


def test_the_overview_shows_every_run_and_the_mean():
    finals = [Final("gdpo", (0.25, 0.75), (0.5, 0.7)), Final("rvpo", (0.1,), (0.4,))]
    neglected, mean = overview_figure(finals, LOOKS).axes
    drawn = [list(line.get_xdata()) for line in neglected.get_lines()]
    assert [0.25, 0.75] in drawn
    assert [0.5] in drawn
    assert [text.get_text() for text in mean.texts] == ["0.60", "0.40"]
    assert [text.get_text() for text in neglected.texts] == ["50.0 %", "10.0 %"]


@pytest.mark.parametrize("name", ["$x$", "<b>&", "a" * 500])
def test_the_overview_takes_any_name(name):
    figure = overview_figure([Final("gdpo", (0.5,), (0.5,))], looks_of({"gdpo": name}))
    ElementTree.fromstring(svg(NamedFigure("one", name, name, figure)))
