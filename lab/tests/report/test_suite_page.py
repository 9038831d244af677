"""The page of suites: what it says of cells made up by hand, that it is safe, accessible and always the same, and that
its figures hold the numbers of the cells, worked out by hand here."""

import math
from pathlib import Path
from xml.etree import ElementTree

import pytest

from made_up_cells import HELD_OUT, LOG, cell, write_suite
from report.pages import (
    Page,
    check_asks_nothing_of_a_server,
    check_everyone_can_read,
    drawn_texts,
    everything,
    logged,
    write_log,
)
from rvpo.errors import ConfigError
from rvpo.report.drawing import NamedFigure, looks_of, svg
from rvpo.report.figures import curves_figure
from rvpo_lab.report.held_out import axis_panels, channel_panels
from rvpo_lab.report.inputs import FinishedSuite, SuiteInputs, read_inputs
from rvpo_lab.report.page import make_suite_report
from rvpo_lab.report.suite_figures import Final, overview_figure
from rvpo_lab.suite.results import channel_means

EVIL = "<script>alert(1)</script>"


def shown(inputs, **options):
    return Page(make_suite_report(inputs, **options).html)


def whole_suite(folder, seeds=5):
    """GDPO meets two of three channels at the end; RVPO, from seed 0 on, all three."""
    better = {**HELD_OUT, (1, "accuracy/dose"): [0.0, 1.0]}
    cells = [cell("gdpo", seed) for seed in range(seeds)] + [
        cell("rvpo", seed, held_out=better) for seed in range(seeds)
    ]
    return write_suite(folder, cells)


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    return read_inputs([whole_suite(tmp_path_factory.mktemp("suite"))])


@pytest.fixture(scope="module")
def html(suite):
    return make_suite_report(suite, reproduce="rvpo bench report x").html


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


@pytest.fixture(scope="module")
def evil_html():
    """The report of a suite all of whose strings are hostile."""
    name = f"\"quoted'/{EVIL}"
    records = [
        cell(
            f"m{EVIL}\"'",
            task=f"t{EVIL}&",
            prompts=(EVIL, EVIL),
            held_out={(0, f"{name}:{EVIL}"): [0.0, 1.0], (1, 'b/"c"'): [1.0, 1.0]},
            log={f"channels/{name}/weight": [0.5, 0.5], f"channels/{name}/dead": [0.5, 0.5], "rvpo/k": [1.0, 1.0]},
            samples=[(0, 0, EVIL), (10, 0, f"\"'{EVIL}\x00")],
            settings={f"s{EVIL}": EVIL},
            versions={EVIL: EVIL},
            catalog_task=EVIL,
        )
    ]
    suite = FinishedSuite(EVIL, Path(EVIL), tuple(records))
    return make_suite_report(SuiteInputs((suite,)), reproduce=EVIL).html


@pytest.fixture(scope="module")
def evil_page(evil_html):
    return Page(evil_html)


def test_the_sections_come_in_their_order(page):
    assert page.texts("h2") == [
        "Findings",
        "What constraint neglect is",
        "Held-out curves, task by task",
        "Scores, best and final",
        "Training",
        "Sample answers",
        "How it was made",
    ]


def test_the_finding_is_in_words(page):
    # At the end GDPO's channels are 1, 1 and 0: one of three neglected, mean 2/3. RVPO's are all 1.
    text = everything(page)
    assert "At the end RVPO 0.5-2 neglects the smallest share of channels (0.0 %), GDPO the largest (33.3 %)" in text
    assert "Held-out mean: highest RVPO 0.5-2 (1.00), lowest GDPO (0.67)." in text
    assert (
        "Compared: GDPO and RVPO 0.5-2 on 1 task (rubric), 5 seeds (0, 1, 2, 3, 4), 10 training steps; 10 runs."
        in text
    )


def test_five_seeds_are_tested_and_the_verdict_is_the_tests(page):
    # Five equal differences: the smallest two-sided p that five sign flips allow, 2 / 32.
    text = everything(page)
    assert "no difference is shown for RVPO 0.5-2" in text
    assert "+0.33 [0.33 to 0.33]" in text
    assert "-33.3 points [-33.3 to -33.3]" in text
    assert "p 0.062, 5 seeds" in text
    assert "With 5 seeds no p-value can be below 0.062, so these tests cannot show a difference" in text
    assert "no difference shown" in text


def test_scores_have_intervals_from_three_seeds_on(page, tmp_path):
    assert "0.67 to 0.67" in everything(page)
    assert "33.3 to 33.3 %" in everything(page)
    few = shown(read_inputs([whole_suite(tmp_path, seeds=2)]))
    assert "0.67 to 0.67" not in everything(few)
    assert "Intervals need 3 seeds; here a method has 2." in everything(few)
    assert "too few to test, so it may be chance" in everything(few)


def test_a_table_of_scores_has_best_and_final(page):
    rows = [text.split() for text in page.texts("tr") if text.startswith("GDPO 5")]
    assert rows[0][:4] == ["GDPO", "5", "0.67", "0.67"]


def test_samples_show_criteria_as_sentences_and_verdicts_as_symbol_and_text(page):
    text = everything(page)
    assert "Names the right cause of fever." in text
    (first,) = (row for row in page.texts("tr") if row.startswith("Names the right cause"))
    assert first.split("fever. ")[1] == "✗ not met ✓ met ✓ met"
    assert "All methods before training, 1 of 2 met" in text


def test_k_and_weights_are_told(page):
    text = everything(page)
    assert "k: RVPO 0.5-2 goes from 0.50 to 2.00. It has no effect on GDPO." in text
    assert "GDPO most on accuracy (0.75), least on communication (0.25)" in text
    assert "the highest dead share is 100.0 %, in communication under GDPO" in text
    assert "No reward was missing." in text


def test_the_command_that_made_the_runs_is_given(suite, page):
    first, second = page.texts("pre")
    folder = suite.suites[0].folder
    assert first == (
        f"rvpo bench neglect --tasks rubric --methods gdpo,rvpo --seeds 0-4 --steps 10 --beta 0.0 "
        f"--learning-rate 0.0005 --out {folder}"
    )
    assert second == "rvpo bench report x"


def test_unusual_settings_are_options_of_the_command(tmp_path):
    settings = {**cell().about["settings"], "num_iterations": 4, "beta": 0.04}
    inputs = read_inputs([write_suite(tmp_path, [cell(settings=settings)])])
    (text,) = shown(inputs).texts("pre")
    assert "--beta 0.04 --learning-rate 0.0005 --num-iterations 4 --out " in text


def test_settings_that_no_command_makes_have_no_command(tmp_path):
    other = {**cell().about["settings"], "held_out_prompts": 3}
    inputs = read_inputs([write_suite(tmp_path, [cell(settings=other)])])
    assert shown(inputs).texts("pre") == []


def test_the_same_runs_give_the_same_bytes(suite, html):
    assert make_suite_report(suite, reproduce="rvpo bench report x").html == html


def test_whatever_comes_from_data_is_escaped(evil_html, evil_page):
    assert "<script" not in evil_html.lower()
    text = everything(evil_page)
    assert 'b/"c"' in drawn_texts(evil_page)
    assert text.count("alert(1)") > 10
    assert EVIL in evil_page.texts("summary")[-1]


def test_a_missing_seed_and_a_missing_method_are_told(tmp_path):
    cells = [cell("gdpo", 0), cell("gdpo", 1), cell("rvpo", 0), cell("gdpo", 0, task="tools")]
    text = everything(shown(read_inputs([write_suite(tmp_path, cells)])))
    assert "4 of the 8 runs that this makes" in text
    assert "Only what all methods share is compared here: 1 pair of task and seed." in text


def test_methods_without_a_common_run_are_not_called_comparable(tmp_path):
    cells = [cell("gdpo", 0), cell("rvpo", 1)]
    text = everything(shown(read_inputs([write_suite(tmp_path, cells)])))
    assert "No task and seed has a run of every method" in text


def test_one_cell_of_one_evaluation_is_a_report(tmp_path):
    record = cell(
        steps=(0,), held_out={(0, "a/x"): [0.0], (1, "a/x"): [0.5]}, samples=[(0, 0, "")], logged_steps=(), log={}
    )
    page = shown(read_inputs([write_suite(tmp_path, [record])]))
    assert "At the end GDPO neglects 100.0 % of the channels; the held-out mean is 0.25." in everything(page)
    assert "Training" not in page.texts("h2")
    assert "(an empty answer)" in everything(page)


def test_held_out_values_that_are_missing_leave_a_report(tmp_path):
    held_out = {(0, "a/x"): [math.nan, 0.5], (0, "b/y"): [math.nan, math.nan], (1, "a/x"): [0.5, math.nan]}
    log = {**LOG, "rvpo/k": [math.nan, math.nan], "channels/judge/accuracy/weight": [math.nan, math.nan]}
    cells = [cell(held_out=held_out, log=log), cell("rvpo", held_out={(0, "a/x"): [math.nan, math.nan]})]
    page = shown(read_inputs([write_suite(tmp_path, cells)]))
    assert "the held-out mean is 0.50" in everything(page)
    assert "no verdict" in everything(page)
    assert "nan" not in everything(page).lower().replace("pregnant", "")


def test_cells_without_any_held_out_number_have_no_findings(tmp_path):
    cells = [cell(held_out={(0, "a/x"): [math.nan, math.nan]}, samples=[])]
    page = shown(read_inputs([write_suite(tmp_path, cells)]))
    assert "No held-out value of these cells is a number" in everything(page)
    assert page.texts("h2") == ["What constraint neglect is", "Training", "How it was made"]


def test_a_contender_and_a_criterion_that_nobody_knows_are_shown_by_name(tmp_path):
    cells = [cell("mine", held_out={(0, "new/thing:x"): [0.0, 1.0], (1, "a/b"): [0.0, 0.0]}, task="unheard")]
    text = everything(shown(read_inputs([write_suite(tmp_path, cells)])))
    assert "new/thing:x" in text
    assert "mine" in text


def test_suites_and_training_runs_share_a_page(suite, tmp_path):
    folder = write_log(tmp_path / "mine", [logged(1), logged(2)])
    inputs = read_inputs([suite.suites[0].folder, folder])
    page = shown(inputs)
    assert "Beside them: 1 training run" in everything(page)
    assert "k of the training runs" in drawn_texts(page)
    assert "Findings" in page.texts("h2")


def test_tasks_of_several_suites_are_kept_apart(tmp_path):
    for name in ("a", "b"):
        write_suite(tmp_path / name, [cell()])
    inputs = read_inputs([tmp_path / "a", tmp_path / "b"])
    assert [record.about["task"] for record in inputs.records] == ["rubric (a)", "rubric (b)"]
    page = shown(inputs)
    assert "Names the right cause of fever." in everything(page)
    assert {"rubric (a)", "rubric (b)"} <= set(page.texts("h3"))


def test_tasks_can_be_chosen(tmp_path):
    write_suite(tmp_path, [cell(), cell(task="tools", held_out={(0, "format/form"): [0.0, 1.0]})])
    assert [record.about["task"] for record in read_inputs([tmp_path], ["tools"]).records] == ["tools"]
    with pytest.raises(ConfigError, match="no cells of task rubrik there; found: rubric, tools"):
        read_inputs([tmp_path], ["rubrik"])


def test_a_suite_without_the_chosen_task_is_left_out(tmp_path):
    write_suite(tmp_path / "a", [cell()])
    write_suite(tmp_path / "b", [cell(task="tools", held_out={(0, "format/form"): [0.0, 1.0]})])
    inputs = read_inputs([tmp_path / "a", tmp_path / "b"], ["rubric"])
    assert [suite.name for suite in inputs.suites] == ["a"]
    assert len(shown(inputs).texts("pre")) == 1


def test_a_file_that_is_no_cell_is_refused(tmp_path):
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells/x.parquet").write_text("no parquet")
    with pytest.raises(ConfigError, match="no cell of a suite"):
        read_inputs([tmp_path])


@pytest.mark.parametrize("which", ["page", "evil_page"])
def test_nothing_is_asked_of_a_server(which, request):
    check_asks_nothing_of_a_server(request.getfixturevalue(which))


@pytest.mark.parametrize("which", ["page", "evil_page"])
def test_the_page_can_be_read_by_everyone(which, request):
    check_everyone_can_read(request.getfixturevalue(which), 5)


def test_the_same_folder_counts_once(tmp_path):
    write_suite(tmp_path / "a", [cell()])
    assert len(read_inputs([tmp_path / "a", tmp_path / "b/../a"]).suites) == 1


def test_what_is_neither_suite_nor_run_is_named_with_what_was_found(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ConfigError, match=r"folders of suites, .* metrics.jsonl.*it holds notes.txt"):
        read_inputs([tmp_path])
    with pytest.raises(ConfigError, match="there is nothing there"):
        read_inputs([tmp_path / "absent"])


def test_training_runs_alone_are_another_command(tmp_path):
    with pytest.raises(ConfigError, match="page of training runs is made by `rvpo report`"):
        read_inputs([write_log(tmp_path, [logged(1)])])


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
