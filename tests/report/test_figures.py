"""The figures: they hold the numbers given, worked out by hand here, and become the same self-contained SVG."""

import math
import re
from urllib.parse import unquote
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from matplotlib._pylab_helpers import Gcf

from rvpo.core.advantages import compute_advantages
from rvpo.report.drawing import INK, SLOTS, NamedFigure, image, looks_of, png, svg, swatch
from rvpo.report.figures import GROUP, Preference, curves_figure, neglect_figure, preferences, sentence, weights_figure
from rvpo.report.training import MOST_POINTS, Curve, Panel, WeightMap, bins, mean_curve

SVG = "{http://www.w3.org/2000/svg}"
LOOKS = looks_of({"gdpo": "GDPO", "rvpo": "RVPO"})


def named(figure, name="one"):
    return NamedFigure(name, "A title", "What it shows.", figure)


def lines(axes):
    return {line.get_label(): line for line in axes.get_lines() if not line.get_label().startswith("_")}


def one_panel(method="gdpo", steps=(0, 10), mean=(0.25, 0.5), low=None, high=None, title="accuracy", runs=1):
    return Panel(title, (Curve(method, tuple(steps), tuple(mean), tuple(low or mean), tuple(high or mean), runs),))


def test_runs_of_unequal_steps_and_gaps_are_averaged_where_they_have_values():
    made = mean_curve("gdpo", [((0, 10), (0.0, math.nan)), ((0, 10, 20), (1.0, 0.5, 0.75))])
    assert made.steps == (0, 10, 20)
    assert made.mean == (0.5, 0.5, 0.75)
    assert (made.low, made.high) == ((0.0, 0.5, 0.75), (1.0, 0.5, 0.75))


def test_a_step_without_any_value_is_a_gap_in_the_line():
    made = mean_curve("gdpo", [((0, 10, 20), (0.5, math.nan, 0.25))])
    figure = curves_figure([Panel("a", (made,))], LOOKS)
    assert np.isnan(lines(figure.axes[0])["GDPO"].get_ydata()).tolist() == [False, True, False]
    assert svg(named(figure))


def test_long_curves_are_averaged_down_in_order():
    made = mean_curve("gdpo", [(range(1000), [float(step % 2) for step in range(1000)])])
    assert len(made.steps) == MOST_POINTS
    assert made.steps[-1] == 999
    assert set(made.low) == {0.0}
    assert set(made.high) == {1.0}
    pieces = bins(1000)
    assert [index for piece in pieces for index in range(1000)[piece]] == list(range(1000))


def test_one_step_is_drawn_as_a_marker():
    figure = curves_figure([one_panel(steps=(0,), mean=(0.5,))], LOOKS)
    assert lines(figure.axes[0])["GDPO"].get_marker() == "s"
    assert "<use" in svg(named(figure))


def test_a_single_run_has_no_band():
    assert not curves_figure([one_panel()], LOOKS).axes[0].collections


def test_the_threshold_is_a_line_at_its_height():
    axes = curves_figure([one_panel()], LOOKS, threshold=0.3).axes[0]
    assert [0.3, 0.3] in [list(line.get_ydata()) for line in axes.get_lines()]


def test_the_legend_names_the_methods_that_are_drawn_and_no_other():
    legend = curves_figure([one_panel("rvpo")], LOOKS).legends[0]
    assert [text.get_text() for text in legend.get_texts()] == ["RVPO"]


def test_looks_are_fixed_for_known_methods_and_differ_for_all_of_them():
    alone, together = looks_of({"rvpo": "RVPO"}), looks_of({"gdpo": "GDPO", "mine": "mine", "rvpo": "RVPO"})
    assert alone["rvpo"] == together["rvpo"]
    everyone = looks_of(dict.fromkeys([*SLOTS], "x")).values()
    assert len({(look.colour, look.marker) for look in everyone}) == len(SLOTS)
    assert together["mine"].colour == INK  # the first look that is free
    many = looks_of({f"run {number}": "x" for number in range(40)})
    assert len({(look.colour, look.dashes, look.marker) for look in many.values()}) == len(SLOTS)


def test_weights_become_opacity_and_their_last_value_a_number():
    maps = [WeightMap("gdpo", ("tone", "facts"), (5.0, 10.0), ((0.2, 0.4), (0.1, math.nan)))]
    axes = weights_figure(maps, LOOKS).axes[1]  # the first axes hold the scale
    facts, tone = (mesh.get_array()[0, :, 3].tolist() for mesh in axes.collections)
    assert facts == pytest.approx([0.25, 0.0])
    assert tone == pytest.approx([0.5, 1.0])
    assert [text.get_text() for text in axes.texts] == ["0.10", "0.40"]


def test_one_logged_step_and_no_weight_at_all_are_drawn():
    maps = [WeightMap("gdpo", ("tone",), (5.0,), ((0.0,),)), WeightMap("rvpo", ("facts",), (5.0,), ((math.nan,),))]
    assert svg(named(weights_figure(maps, LOOKS)))


def test_the_picture_of_neglect_has_the_advantages_as_bars():
    given = [Preference("grpo", "GRPO", 1.5, -0.5, "prefers A"), Preference("gdpo", "GDPO", 0.25, 0.75, "prefers B")]
    rewards, advantages = neglect_figure(given).axes
    heights = [bar.get_height() for bar in advantages.patches]
    assert heights == [1.5, 0.25, -0.5, 0.75]  # A by method, then B
    assert [bar.get_height() for bar in rewards.patches] == [0.8, 0.8, 0.8, 0.0, 0.6, 0.6, 0.6, 0.6]


def test_the_preferences_are_those_of_the_methods():
    # Of equal sums GRPO makes equal advantages. GDPO sums z-scores, by a plain loop:
    z = [(column - column.mean()) / (column.std(ddof=1) + 1e-4) for column in GROUP.T]
    sums = np.sum(z, axis=0)
    whitened = (sums - sums.mean()) / (sums.std(ddof=1) + 1e-4)
    grpo, gdpo, rvpo, maxrl = preferences()
    assert grpo.a == pytest.approx(grpo.b)
    assert (gdpo.a, gdpo.b) == pytest.approx((whitened[0], whitened[1]))
    assert gdpo.a - gdpo.b > rvpo.a - rvpo.b > 0
    # The means are 0.65, 0.6375, 0.6375 and 0.225: (0.8 - 0.65) / 0.65 + 2 (0.8 - 0.6375) / 0.6375 - 1, and so on.
    assert (maxrl.a, maxrl.b) == pytest.approx((3 / 13 + 26 / 51 - 1, -1 / 13 - 2 / 17 + 5 / 3))
    verdicts = [preference.verdict for preference in (grpo, gdpo, rvpo, maxrl)]
    assert verdicts == ["sees no difference", "prefers A", "prefers A, by less", "prefers B"]
    assert "GDPO prefers A (+2.08 and +0.09)" in sentence([grpo, gdpo, rvpo, maxrl])


def test_the_picture_says_which_k_it_is_of():
    (shown,) = [preference for preference in preferences() if preference.method == "rvpo"]
    assert shown.label == "RVPO, k = 2"
    ours = compute_advantages(GROUP[None], method="rvpo", k=2.0).advantages[0, :2]
    assert (shown.a, shown.b) == pytest.approx(tuple(ours))


def test_svg_and_png_are_the_same_bytes_twice():
    def drawn():
        return named(curves_figure([one_panel(low=(0.0, 0.25), high=(0.5, 1.0), runs=2)], LOOKS))

    assert svg(drawn()) == svg(drawn())
    assert png(drawn()) == png(drawn())
    assert png(drawn()).startswith(b"\x89PNG")


def test_an_svg_suits_light_and_dark_names_itself_and_refers_to_nothing_outside():
    text = svg(named(curves_figure([one_panel()], LOOKS, threshold=0.3)))
    root = ElementTree.fromstring(text)
    style = next(element.text for element in root.iter(f"{SVG}style"))
    assert "currentColor" in text
    assert INK not in text
    assert "prefers-color-scheme:dark" in style
    assert float(root.get("width")) == 720
    assert root.find(f"{SVG}title").text == "A title"
    assert "What it shows." in "".join(root.itertext())
    ids = {element.get("id") for element in root.iter()} - {None}
    assert set(re.findall(r"#([\w-]+)\)", text)) | set(re.findall(r'href="#([\w-]+)"', text)) <= ids


def test_an_image_holds_the_svg_and_says_what_it_shows():
    figure = named(curves_figure([one_panel()], LOOKS))
    element = ElementTree.fromstring(f"{image(figure)}</img>")
    assert element.get("alt") == "A title. What it shows."
    kind, _, source = element.get("src").partition(",")
    assert (kind, unquote(source)) == ("data:image/svg+xml", svg(figure))


@pytest.mark.parametrize("name", ["$x$ and $\\frac$", '<b>"&', "bell\x07 \ud800", "日本語", "a" * 500, ""])
def test_any_name_can_be_drawn(name):
    looks = looks_of({"gdpo": name})
    for figure in (
        curves_figure([one_panel(title=name)], looks),
        weights_figure([WeightMap("gdpo", (name,), (5.0,), ((0.5,),))], looks),
    ):
        text = svg(NamedFigure("one", name, name, figure))
        ElementTree.fromstring(text)
        assert "<b>" not in text
        assert "<b>" not in image(NamedFigure("one", name, name, figure))
        assert png(named(figure))


def test_the_name_is_written_as_it_is():
    text = svg(named(curves_figure([one_panel(title="a $x$ 'b' \"c\"")], LOOKS)))
    assert "a $x$ 'b' \"c\"" in "".join(ElementTree.fromstring(text).itertext())


def test_no_panel_is_an_empty_figure():
    assert svg(named(curves_figure([], LOOKS)))
    assert svg(named(weights_figure([], LOOKS)))


def test_a_swatch_exists_for_every_look():
    for look in looks_of(dict.fromkeys(SLOTS, "x")).values():
        ElementTree.fromstring(swatch(look))
        assert INK not in swatch(look)


def test_drawing_leaves_matplotlib_as_it_was():
    before = dict(matplotlib.rcParams)
    svg(named(neglect_figure(preferences())))
    assert dict(matplotlib.rcParams) == before
    assert not Gcf.get_all_fig_managers()
