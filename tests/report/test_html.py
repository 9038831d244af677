"""The page: what it says of cells made up by hand, and that it is whole, safe, accessible and always the same."""

import json
import math
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from made_up_cells import HELD_OUT, LOG, cell, write_suite
from rvpo.errors import ConfigError
from rvpo.report.html import make_report
from rvpo.report.runs import Inputs, Method, Suite, differing_names, read_runs

EVIL = "<script>alert(1)</script>"
VOID = {"meta", "br", "link", "img", "input", "hr"}


class Page(HTMLParser):
    """The elements of a page: tag, attributes and text inside, in their order; fails where tags do not match."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open = [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        if tag in ("small", "br"):
            self.handle_data(" ")
        entry = [tag, dict(attrs), ""]
        self.elements.append(entry)
        if tag not in VOID:
            self.open.append(entry)

    def handle_startendtag(self, tag, attrs):
        self.elements.append([tag, dict(attrs), ""])

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag
        if tag in ("td", "th", "dt", "dd", "small"):
            self.handle_data(" ")

    def handle_data(self, data):
        for entry in self.open:
            entry[2] += data

    def all(self, tag, **wanted):
        return [one for one in self.elements if one[0] == tag and wanted.items() <= one[1].items()]

    def texts(self, tag, **wanted):
        return [" ".join(text.split()) for _, _, text in self.all(tag, **wanted)]


def shown(inputs, **options):
    return Page(make_report(inputs, **options).html)


def everything(page):
    """The text a reader sees."""
    return " ".join(page.texts("body"))


def whole_suite(folder, seeds=5):
    """GDPO meets two of three channels at the end; RVPO, from seed 0 on, all three."""
    better = {**HELD_OUT, (1, "accuracy/dose"): [0.0, 1.0]}
    cells = [cell("gdpo", seed) for seed in range(seeds)] + [
        cell("rvpo", seed, held_out=better) for seed in range(seeds)
    ]
    return write_suite(folder, cells)


def metrics(folder, entries):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return folder


def logged(step, **more):
    return {"step": step, "loss": 0.1, "rvpo/k": 1.0, "channels/tone_reward/mean": 0.1 * step, **more}


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    return read_runs([whole_suite(tmp_path_factory.mktemp("suite"))])


@pytest.fixture(scope="module")
def html(suite):
    return make_report(suite, reproduce="rvpo report x").html


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
    method = Method(f"m{EVIL}\"'", f"m{EVIL}\"'")
    return make_report(
        Inputs((Suite(EVIL, Path(EVIL), tuple(records)),), (), {method.name: method}), reproduce=EVIL
    ).html


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
    assert "\N{MINUS SIGN}33.3 points [\N{MINUS SIGN}33.3 to \N{MINUS SIGN}33.3]" in text
    assert "p 0.062, 5 seeds" in text
    assert "With 5 seeds no p-value can be below 0.062, so these tests cannot show a difference" in text
    assert "no difference shown" in text


def test_scores_have_intervals_from_three_seeds_on(page, tmp_path):
    assert "0.67 to 0.67" in everything(page)
    assert "33.3 to 33.3 %" in everything(page)
    few = shown(read_runs([whole_suite(tmp_path, seeds=2)]))
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
    assert second == "rvpo report x"


def test_unusual_settings_are_options_of_the_command(tmp_path):
    settings = {**cell().about["settings"], "num_iterations": 4, "beta": 0.04}
    inputs = read_runs([write_suite(tmp_path, [cell(settings=settings)])])
    (told,) = shown(inputs).texts("pre")
    assert "--beta 0.04 --learning-rate 0.0005 --num-iterations 4 --out " in told


def test_settings_that_no_command_makes_have_no_command(tmp_path):
    other = {**cell().about["settings"], "held_out_prompts": 3}
    inputs = read_runs([write_suite(tmp_path, [cell(settings=other)])])
    assert shown(inputs).texts("pre") == []


def test_the_same_runs_give_the_same_bytes(suite, html):
    assert make_report(suite, reproduce="rvpo report x").html == html


@pytest.mark.parametrize("which", ["page", "evil_page"])
def test_nothing_is_asked_of_a_server(which, request):
    page = request.getfixturevalue(which)
    ids = [attributes["id"] for _, attributes, _ in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for tag, attributes, _ in page.elements:
        assert tag not in ("script", "link", "iframe", "object", "embed", "image", "img", "base", "form")
        assert not {"src", "srcset", "action", "background", "xlink:href"} & set(attributes)
        assert not any(name.startswith("on") for name in attributes)
        if "href" in attributes:
            assert attributes["href"].startswith("#")
            assert attributes["href"][1:] in ids
        assert "url(" not in attributes.get("style", "").replace("url(#", "")
    assert "url(" not in page.texts("style")[0]
    assert "@import" not in page.texts("style")[0]
    (policy,) = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
    assert policy[1]["content"] == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def test_whatever_comes_from_data_is_escaped(evil_html, evil_page):
    assert "<script" not in evil_html.lower()
    text = everything(evil_page)
    assert 'b/"c"' in text
    assert text.count("alert(1)") > 10
    assert EVIL in evil_page.texts("summary")[-1]


@pytest.mark.parametrize("which", ["page", "evil_page"])
def test_the_page_can_be_read_by_everyone(which, request):
    page = request.getfixturevalue(which)
    assert page.elements[0][:2] == ["html", {"lang": "en"}]
    levels = [int(tag[1]) for tag, _, _ in page.elements if tag in ("h1", "h2", "h3", "h4")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert all(attributes.get("scope") in ("col", "row", "colgroup") for _, attributes, _ in page.all("th"))
    ids = {attributes.get("id") for _, attributes, _ in page.elements}
    drawings = page.all("svg", **{"class": "drawing"})
    assert len(drawings) == len(page.all("figure")) >= 5
    for _, attributes, _ in drawings:
        assert attributes["role"] == "img"
        assert set(attributes["aria-labelledby"].split()) <= ids
    assert all(text for text in page.texts("figcaption"))
    assert page.all("meta", name="viewport")


def test_light_dark_and_paper_are_styled(page):
    (style,) = page.texts("style")
    for wanted in ("prefers-color-scheme: dark", "@media print", "@page", "max-width: 40rem"):
        assert wanted in style


def test_a_missing_seed_and_a_missing_method_are_told(tmp_path):
    cells = [cell("gdpo", 0), cell("gdpo", 1), cell("rvpo", 0), cell("gdpo", 0, task="tools")]
    text = everything(shown(read_runs([write_suite(tmp_path, cells)])))
    assert "4 of the 8 runs that this makes" in text
    assert "Only what all methods share is compared here: 1 pair of task and seed." in text


def test_methods_without_a_common_run_are_not_called_comparable(tmp_path):
    cells = [cell("gdpo", 0), cell("rvpo", 1)]
    text = everything(shown(read_runs([write_suite(tmp_path, cells)])))
    assert "No task and seed has a run of every method" in text


def test_one_cell_of_one_evaluation_is_a_report(tmp_path):
    one = cell(
        steps=(0,), held_out={(0, "a/x"): [0.0], (1, "a/x"): [0.5]}, samples=[(0, 0, "")], logged_steps=(), log={}
    )
    page = shown(read_runs([write_suite(tmp_path, [one])]))
    assert "At the end GDPO neglects 100.0 % of the channels; the held-out mean is 0.25." in everything(page)
    assert "Training" not in page.texts("h2")
    assert "(an empty answer)" in everything(page)


def test_held_out_values_that_are_missing_leave_a_report(tmp_path):
    held_out = {(0, "a/x"): [math.nan, 0.5], (0, "b/y"): [math.nan, math.nan], (1, "a/x"): [0.5, math.nan]}
    log = {**LOG, "rvpo/k": [math.nan, math.nan], "channels/judge/accuracy/weight": [math.nan, math.nan]}
    cells = [cell(held_out=held_out, log=log), cell("rvpo", held_out={(0, "a/x"): [math.nan, math.nan]})]
    page = shown(read_runs([write_suite(tmp_path, cells)]))
    assert "the held-out mean is 0.50" in everything(page)
    assert "no verdict" in everything(page)
    assert "nan" not in everything(page).lower().replace("pregnant", "")


def test_cells_without_any_held_out_number_have_no_findings(tmp_path):
    cells = [cell(held_out={(0, "a/x"): [math.nan, math.nan]}, samples=[])]
    page = shown(read_runs([write_suite(tmp_path, cells)]))
    assert "No held-out value of these cells is a number" in everything(page)
    assert page.texts("h2") == ["What constraint neglect is", "Training", "How it was made"]


def test_a_contender_and_a_criterion_that_nobody_knows_are_shown_by_name(tmp_path):
    cells = [cell("mine", held_out={(0, "new/thing:x"): [0.0, 1.0], (1, "a/b"): [0.0, 0.0]}, task="unheard")]
    text = everything(shown(read_runs([write_suite(tmp_path, cells)])))
    assert "new/thing:x" in text
    assert "mine" in text


def test_training_runs_alone_show_training_and_nothing_held_out(tmp_path):
    first = metrics(tmp_path / "gdpo/out", [logged(1), logged(2), {"step": 2, "train_runtime": 3.0}])
    second = metrics(tmp_path / "rvpo/out", [logged(1, **{"channels/tone_reward/missing": 0.25}), logged(2)])
    inputs = read_runs([first, second])
    page = shown(inputs)
    assert page.texts("h2") == ["What constraint neglect is", "Training", "How it was made"]
    assert [run.method for run in inputs.training] == ["gdpo", "rvpo"]
    text = everything(page)
    assert "tone 0.10 → 0.20 0.10 → 0.20" in text
    assert "Rewards were missing: up to 25.0 % at a logged step, in tone under rvpo." in text
    assert "of 1 channel 1 higher and 0 lower" in text
    assert "no held-out evaluation" in text


def test_null_in_the_log_is_no_value(tmp_path):
    entries = [logged(1), logged(2, **{"channels/tone_reward/mean": None, "rvpo/k": None}), logged(3)]
    (run,) = read_runs([metrics(tmp_path, entries)]).training
    assert run.steps == (1, 2, 3)
    assert math.isnan(run.log["channels/tone_reward/mean"][1])
    assert "tone 0.10 → 0.30" in everything(shown(read_runs([tmp_path])))


def test_suites_and_training_runs_share_a_page(suite, tmp_path):
    folder = metrics(tmp_path / "mine", [logged(1), logged(2)])
    inputs = read_runs([suite.suites[0].folder, folder])
    page = shown(inputs)
    assert "Beside them: 1 training run" in everything(page)
    assert "k of the training runs" in everything(page)
    assert "Findings" in page.texts("h2")


def test_tasks_of_several_suites_are_kept_apart(tmp_path):
    for name in ("a", "b"):
        write_suite(tmp_path / name, [cell()])
    inputs = read_runs([tmp_path / "a", tmp_path / "b"])
    assert [record.about["task"] for record in inputs.records] == ["rubric (a)", "rubric (b)"]
    page = shown(inputs)
    assert "Names the right cause of fever." in everything(page)
    assert {"rubric (a)", "rubric (b)"} <= set(page.texts("h3"))


def test_tasks_can_be_chosen(tmp_path):
    write_suite(tmp_path, [cell(), cell(task="tools", held_out={(0, "format/form"): [0.0, 1.0]})])
    assert [record.about["task"] for record in read_runs([tmp_path], ["tools"]).records] == ["tools"]
    with pytest.raises(ConfigError, match="no cells of task rubrik there; found: rubric, tools"):
        read_runs([tmp_path], ["rubrik"])


def test_a_suite_without_the_chosen_task_is_left_out(tmp_path):
    write_suite(tmp_path / "a", [cell()])
    write_suite(tmp_path / "b", [cell(task="tools", held_out={(0, "format/form"): [0.0, 1.0]})])
    inputs = read_runs([tmp_path / "a", tmp_path / "b"], ["rubric"])
    assert [suite.name for suite in inputs.suites] == ["a"]
    assert len(shown(inputs).texts("pre")) == 1


def test_the_same_folder_counts_once(tmp_path):
    write_suite(tmp_path / "a", [cell()])
    assert len(read_runs([tmp_path / "a", tmp_path / "b/../a"]).suites) == 1


def test_what_is_no_run_is_named_with_what_was_found(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ConfigError, match=r"a RUN is .* cells/\*\.parquet.* metrics.jsonl.*it holds notes.txt"):
        read_runs([tmp_path])
    with pytest.raises(ConfigError, match="there is nothing there"):
        read_runs([tmp_path / "absent"])
    with pytest.raises(ConfigError, match="it is a file"):
        read_runs([tmp_path / "notes.txt"])
    with pytest.raises(ConfigError, match="at least one RUN"):
        read_runs([])


@pytest.mark.parametrize("content", ["{", "[1]\n", '{"step": 1}\n', '{"rvpo/k": 1.0, "step": "x"}\n', ""])
def test_a_log_of_another_kind_is_refused(tmp_path, content):
    (tmp_path / "metrics.jsonl").write_text(content)
    with pytest.raises(ConfigError, match=r"metrics.jsonl must hold"):
        read_runs([tmp_path])


def test_a_file_that_is_no_cell_is_refused(tmp_path):
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells/x.parquet").write_text("no parquet")
    with pytest.raises(ConfigError, match="no cell of a suite"):
        read_runs([tmp_path])


def test_names_are_what_differs(tmp_path):
    assert differing_names([tmp_path / "a", tmp_path / "b"]) == ["a", "b"]
    assert differing_names([tmp_path / "x/1/run", tmp_path / "y/2/run"]) == ["x/1", "y/2"]
    assert differing_names([tmp_path / "a", tmp_path / "a/b"]) == ["a", "b"]
    assert differing_names([tmp_path / "only"]) == ["only"]
