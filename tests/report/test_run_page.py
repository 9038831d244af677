"""The page of training runs: what it says of logs made up by hand, in words and maps; safe, accessible, always alike.

Sample answers are read from tables as TRL writes them, and shown with rewards and the judge's reasons.
"""

import json
import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from report.pages import Page, check_asks_nothing_of_a_server, check_everyone_can_read, everything, logged, write_log
from rvpo.errors import ConfigError
from rvpo.report.html import make_report
from rvpo.report.runs import MOST_LETTERS, TrainingRun, columns_of_log, differing_names, read_answers, read_runs
from rvpo.report.training import (
    MOST_POINTS,
    Curve,
    Panel,
    WeightMap,
    channel_names,
    k_in_words,
    missing_in_words,
    weight_maps,
    weights_in_words,
)

# --- What training logged, worked out by hand ---


LABELS = {"gdpo": "GDPO", "rvpo": "RVPO"}


def panel(*values, method="gdpo"):
    return Panel("tone", (Curve(method, tuple(range(len(values))), values, values, values, 1),))


def test_channel_names_lose_what_all_share():
    def names(*channels):
        return list(
            channel_names([TrainingRun("a", (1,), {f"channels/{name}/mean": [0.0] for name in channels})]).values()
        )

    assert names("judge/tone", "judge/facts/dates") == ["tone", "facts/dates"]
    assert names("tone_reward", "facts_reward") == ["tone", "facts"]
    assert names("judge/tone", "length_reward") == ["judge/tone", "length"]
    assert names("tone", "tone_reward") == ["tone", "tone_reward"]  # would be the same
    assert names("judge") == ["judge"]


def test_weights_are_averaged_over_runs_and_gaps_stay_gaps():
    logs = [
        {"channels/a/weight": [0.25, 0.5], "channels/b/weight": [0.75, math.nan]},
        {"channels/a/weight": [0.75, 0.0]},
    ]
    (weights,) = weight_maps([TrainingRun("gdpo", (5, 10), log) for log in logs], ["gdpo", "rvpo"])
    assert (weights.method, weights.channels, weights.steps) == ("gdpo", ("a", "b"), (5, 10))
    assert weights.values[0] == (0.5, 0.25)
    assert weights.values[1][0] == 0.75
    assert math.isnan(weights.values[1][1])


def test_weights_in_words():
    alike = WeightMap("gdpo", ("a", "b"), (5.0,), ((0.5,), (0.5,)))
    uneven = WeightMap("rvpo", ("a", "b"), (5.0, 10.0), ((0.75, 0.9), (0.25, math.nan)))
    sentence = weights_in_words([alike, uneven], LABELS)
    assert (
        sentence
        == "At the last logged step: GDPO about alike on all (0.50); RVPO most on a (0.90), least on b (0.25)."
    )


def test_k_and_missing_in_words():
    assert k_in_words(panel(2.0, 2.0), ["GRPO"], LABELS) == "k: GDPO stays at 2.00. It has no effect on GRPO."
    assert k_in_words(panel(0.5, math.nan, 1.0), [], LABELS) == "k: GDPO goes from 0.50 to 1.00."
    assert missing_in_words([panel(0.0, math.nan)], LABELS) == "No reward was missing."
    assert missing_in_words([panel(math.nan)], LABELS) == ""


# --- The page ---


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


# --- Sample answers ---


def row(prompt, completion, advantage, *, step=10, **columns):
    return {"step": step, "prompt": prompt, "completion": completion, **columns, "advantage": advantage}


def write_table(folder, rows, step=10):
    (folder / "completions").mkdir(exist_ok=True, parents=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "completions" / f"completions_{step:05d}.parquet")
    return folder


def judged(tone, reason):
    return {
        "brief": 0.25,
        "rubric": 7.0,
        "rubric/reasons": json.dumps({"style/tone": reason, "facts/dose": None}),
        "rubric/channels": json.dumps({"style/tone": tone, "facts/dose": None}),
    }


def test_the_ends_of_a_group_with_every_reward_and_reason(tmp_path):
    rows = [row("p", f"answer {at}", advantage, **judged(1.0, "kind")) for at, advantage in enumerate((0.5, -1, 1))]
    (prompt,) = read_answers(write_table(tmp_path, rows))
    assert (prompt.step, prompt.text) == (10, "p")
    assert [(answer.text, answer.advantage) for answer in prompt.answers] == [("answer 2", 1.0), ("answer 1", -1.0)]
    brief, tone, dose = prompt.answers[0].rewards  # the rubric's own number is not among them
    assert brief == ("brief", 0.25, "")
    assert tone == ("style/tone", 1.0, "kind")
    assert (dose[0], dose[2]) == ("facts/dose", "")
    assert math.isnan(dose[1])


def test_the_last_table_by_step_and_its_first_two_prompts(tmp_path):
    write_table(tmp_path, [row("old", "a", 1.0, step=99_999)], step=99_999)
    write_table(tmp_path, [row(text, "a", 1.0, step=100_000) for text in ("p", "q", "r")], step=100_000)
    assert [(prompt.text, prompt.step) for prompt in read_answers(tmp_path)] == [("p", 100_000), ("q", 100_000)]


def test_messages_are_read_long_texts_cut_and_one_answer_shown_once(tmp_path):
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "x" * MOST_LETTERS}]
    (prompt,) = read_answers(write_table(tmp_path, [row(messages, [{"role": "assistant", "content": "yes"}], None)]))
    assert prompt.text == f"Be kind.\n{'x' * (MOST_LETTERS - 9)} ..."
    (answer,) = prompt.answers
    assert answer.text == "yes"
    assert math.isnan(answer.advantage)


def test_a_run_without_tables_has_no_answers_and_another_file_is_an_error(tmp_path):
    assert read_answers(tmp_path) == ()
    write_table(tmp_path, [{"step": 1, "text": "x"}])
    with pytest.raises(ConfigError, match=r"completions_00010.parquet is no table of completions as TRL writes it"):
        read_answers(tmp_path)
    (tmp_path / "completions/completions_00010.parquet").write_text("no parquet")
    with pytest.raises(ConfigError, match="is no table of completions"):
        read_answers(tmp_path)


def test_the_page_shows_answers_with_reasons_escaped(tmp_path):
    evil = "<script>alert(1)</script>"
    rows = [row(evil, evil, advantage, **judged(tone, evil)) for advantage, tone in ((1.0, 1.0), (-1.0, 0.0))]
    html = make_report(read_runs([write_table(write_log(tmp_path / "run", [logged(1)]), rows)])).html
    page = Page(html)
    check_everyone_can_read(page, 3)
    assert "<script" not in html
    text = everything(page)
    assert "Sample answers of run, step 10" in text
    assert f"Highest advantage +1.00 {evil}" in text
    assert f"style/tone 0.00 {evil} facts/dose - -" in text
    assert page.texts("summary")[-1] == evil
