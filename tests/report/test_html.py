"""The page of training runs: what it says of logs made up by hand, safe, accessible and always alike."""

import json
import math

import pytest

from report.pages import Page, check_asks_nothing_of_a_server, check_everyone_can_read, everything, logged, write_log
from rvpo.errors import ConfigError
from rvpo.report.curves import MOST_POINTS
from rvpo.report.html import make_report
from rvpo.report.runs import TrainingRun, columns_of_log, differing_names, read_runs

EVIL = "<script>alert(1)</script>"
LOG = {
    "rvpo/k": (1.0, 1.0),
    "channels/judge/facts/mean": (0.25, 0.5),
    "channels/judge/facts/weight": (0.5, 0.75),
    "channels/judge/facts/dead": (0.0, 0.25),
    "channels/judge/facts/missing": (0.0, 0.125),
    "channels/judge/tone/mean": (1.0, 0.75),
    "channels/judge/tone/weight": (0.5, 0.25),
}


def shown(runs):
    return Page(make_report(runs).html)


@pytest.fixture(scope="module")
def html():
    return make_report([TrainingRun("gdpo", (5, 10), LOG)], reproduce="rvpo report x").html


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


@pytest.fixture(scope="module")
def evil_html():
    """The page of a run all of whose strings are hostile."""
    log = {f"channels/\"quoted'/{EVIL}/{kind}": (0.5, 0.25) for kind in ("mean", "weight", "dead", "missing")}
    return make_report([TrainingRun(f"m{EVIL}\"'\x00", (5, 10), log | {"rvpo/k": (1.0, 2.0)})], reproduce=EVIL).html


@pytest.fixture(scope="module")
def evil_page(evil_html):
    return Page(evil_html)


def test_what_was_logged_is_in_words(page):
    text = everything(page)
    assert page.texts("h2") == ["What constraint neglect is", "Training", "How it was made"]
    assert "Mean reward at the last logged step against the first: gdpo: of 2 channels 1 higher and 1 lower." in text
    assert "gdpo most on facts (0.75), least on tone (0.25)" in text
    assert "the highest dead share is 25.0 %, in facts under gdpo" in text
    assert "Rewards were missing: up to 12.5 % at a logged step, in facts under gdpo." in text
    assert "k: gdpo stays at 1.00. A training run logs k whether its method uses it or not." in text
    assert page.texts("pre") == ["rvpo report x"]


def test_the_same_runs_give_the_same_bytes(html):
    assert make_report([TrainingRun("gdpo", (5, 10), LOG)], reproduce="rvpo report x").html == html


@pytest.mark.parametrize("which", ["page", "evil_page"])
def test_nothing_is_asked_of_a_server(which, request):
    check_asks_nothing_of_a_server(request.getfixturevalue(which))


def test_whatever_comes_from_data_is_escaped(evil_html, evil_page):
    assert "<script" not in evil_html.lower()
    assert everything(evil_page).count("alert(1)") > 5
    assert evil_page.texts("pre") == [EVIL]


@pytest.mark.parametrize("which", ["page", "evil_page"])
def test_the_page_can_be_read_by_everyone(which, request):
    check_everyone_can_read(request.getfixturevalue(which), 6)


def test_light_dark_and_paper_are_styled(page):
    (style,) = page.texts("style")
    for wanted in ("prefers-color-scheme: dark", "@media print", "@page", "max-width: 40rem"):
        assert wanted in style


def test_training_runs_alone_show_training_and_nothing_held_out(tmp_path):
    first = write_log(tmp_path / "gdpo/out", [logged(1), logged(2), {"step": 2, "train_runtime": 3.0}])
    second = write_log(tmp_path / "rvpo/out", [logged(1, **{"channels/tone_reward/missing": 0.25}), logged(2)])
    runs = read_runs([first, second])
    page = shown(runs)
    assert page.texts("h2") == ["What constraint neglect is", "Training", "How it was made"]
    assert [run.method for run in runs] == ["gdpo", "rvpo"]
    text = everything(page)
    assert "tone 0.10 → 0.20 0.10 → 0.20" in text
    assert "Rewards were missing: up to 25.0 % at a logged step, in tone under rvpo." in text
    assert "of 1 channel 1 higher and 0 lower" in text
    assert "no held-out evaluation" in text


def test_a_run_without_channels_has_no_section_on_training(tmp_path):
    page = shown(read_runs([write_log(tmp_path, [{"step": 1, "rvpo/k": 1.0}])]))
    assert page.texts("h2") == ["What constraint neglect is", "How it was made"]
    assert page.all("a", href="#section-training") == []


def test_long_runs_are_thinned_and_the_page_says_so(page):
    steps = tuple(range(1, MOST_POINTS + 2))
    long = shown([TrainingRun("long", steps, {"rvpo/k": steps, "channels/tone/mean": steps})])
    text = f"Runs of more than {MOST_POINTS} logged steps are averaged down"
    assert text in everything(long)
    assert text not in everything(page)


def test_null_in_the_log_is_no_value(tmp_path):
    entries = [logged(1), logged(2, **{"channels/tone_reward/mean": None, "rvpo/k": None}), logged(3)]
    (run,) = read_runs([write_log(tmp_path, entries)])
    assert run.steps == (1, 2, 3)
    assert math.isnan(run.log["channels/tone_reward/mean"][1])
    assert "tone 0.10 → 0.30" in everything(shown(read_runs([tmp_path])))


def test_a_log_becomes_columns_with_gaps():
    history = [{"rvpo/k": 1.0, "channels/a/mean": 0.5, "step": 5}, {"rvpo/k": 2.0, "step": 10}, {"train_loss": 1}]
    steps, log = columns_of_log(history)
    assert steps == [5, 10]
    assert log["rvpo/k"] == [1.0, 2.0]
    assert log["channels/a/mean"][0] == 0.5
    assert math.isnan(log["channels/a/mean"][1])


def test_the_same_folder_counts_once(tmp_path):
    write_log(tmp_path / "a", [logged(1)])
    assert len(read_runs([tmp_path / "a", tmp_path / "b/../a"])) == 1


def test_what_is_no_run_is_named_with_what_was_found(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ConfigError, match=r"a RUN is .*, with metrics.jsonl; got .*it holds notes.txt"):
        read_runs([tmp_path])
    with pytest.raises(ConfigError, match="there is nothing there"):
        read_runs([tmp_path / "absent"])
    with pytest.raises(ConfigError, match="it is a file"):
        read_runs([tmp_path / "notes.txt"])


@pytest.mark.parametrize("file", ["suite.json", "cells.parquet"])
def test_the_folder_of_a_suite_names_the_command_that_reports_on_it(tmp_path, file):
    (tmp_path / file).write_text("{}")
    with pytest.raises(ConfigError, match=f"made by `rvpo bench report {tmp_path}`"):
        read_runs([tmp_path])


@pytest.mark.parametrize("content", ["{", "[1]\n", '{"step": 1}\n', '{"rvpo/k": 1.0, "step": "x"}\n', ""])
def test_a_log_of_another_kind_is_refused(tmp_path, content):
    (tmp_path / "metrics.jsonl").write_text(content)
    with pytest.raises(ConfigError, match=r"metrics.jsonl must hold"):
        read_runs([tmp_path])


def test_names_are_what_differs(tmp_path):
    assert differing_names([tmp_path / "a", tmp_path / "b"]) == ["a", "b"]
    assert differing_names([tmp_path / "x/1/run", tmp_path / "y/2/run"]) == ["x/1", "y/2"]
    assert differing_names([tmp_path / "a", tmp_path / "a/b"]) == ["a", "b"]
    assert differing_names([tmp_path / "only"]) == ["only"]


@pytest.mark.parametrize("evaluates", [True, False])
def test_what_is_said_of_evaluations_is_true(tmp_path, evaluates):
    evaluation = [{"step": 2, "eval_loss": 0.1, "eval_channels/tone_reward/mean": 0.5}] if evaluates else []
    runs = read_runs([write_log(tmp_path / "run", [logged(1), logged(2), *evaluation])])
    text = everything(shown(runs))
    assert ("Their evaluations are left out" in text) == evaluates
    assert ("Their logs hold no held-out evaluation" in text) == (not evaluates)


@pytest.mark.parametrize(("end", "steps"), [("", 2), ('{"step": 3, "rvpo', 2), ('{"step": 3, "rvpo/k": 1.0}', 3)])
def test_the_last_line_of_a_running_or_killed_run_counts_if_it_is_whole(tmp_path, end, steps):
    folder = write_log(tmp_path / "run", [logged(1), logged(2)])
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(end)
    (run,) = read_runs([folder])
    assert run.steps == tuple(range(1, steps + 1))


def test_what_runs_say_of_themselves_is_shown_and_escaped(tmp_path):
    folder = write_log(tmp_path / "run", [logged(1)])
    settings = {"method": EVIL, "model_name_or_path": "policy"}
    for text, about in (
        (json.dumps({"max_steps": 9, "settings": settings}), f"{EVIL}, policy, step 1 of 9"),
        ("{", ""),
    ):
        (folder / "run.json").write_text(text)
        (run,) = read_runs([folder])
        assert run.about == about
        assert EVIL not in make_report([run]).html
