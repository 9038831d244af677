"""Sample answers of training runs: read from tables as TRL writes them, shown with rewards and the judge's reasons."""

import json
import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from report.pages import Page, check_everyone_can_read, everything, logged, write_log
from rvpo.errors import ConfigError
from rvpo.report.answers import MOST_LETTERS, read_answers
from rvpo.report.html import make_report
from rvpo.report.runs import read_runs


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
