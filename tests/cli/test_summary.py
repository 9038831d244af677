"""The log file, the table of channels and its lines of blocks."""

import doctest
import json
import math
import re

import pytest

from rvpo.integrations.trl import summary
from rvpo.integrations.trl.summary import print_summary, short_name, sparkline, write_log


def entry(step, **channels):
    """One log entry: mean and other numbers of each channel."""
    made = {"step": step, "loss": 0.1}
    for name, numbers in channels.items():
        made |= {f"channels/{name}/{kind}": value for kind, value in numbers.items()}
    return made


def shown(history, folder, capsys, title="run"):
    """The printed rows, cell by cell, by channel; and all that was printed."""
    print_summary(history, folder, title=title)
    text = capsys.readouterr().out
    rows = [[cell.strip() for cell in re.split("[│┃]", line)[1:-1]] for line in text.splitlines()]
    return {cells[0]: cells[1:] for cells in rows if len(cells) == 8 and cells[0] != "channel"}, text


def test_the_docstrings_examples_hold():
    tried = doctest.testmod(summary)
    assert tried.attempted > 0
    assert tried.failed == 0


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ([], ""),
        ([3.0], "▁"),
        ([2.0, 2.0, 2.0], "▁▁▁"),
        ([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], "▁▂▃▄▅▆▇█"),
        ([7.0, 0.0], "█▁"),
        ([-1.0, 1.0], "▁█"),
    ],
)
def test_a_sparkline_spans_from_the_lowest_to_the_highest(values, line):
    assert sparkline(values) == line


def test_a_long_series_is_averaged_down_to_the_width():
    assert sparkline([0.0, 2.0, 1.0, 1.0, 8.0, 6.0], width=3) == "▁▁█"
    assert len(sparkline([float(value) for value in range(1000)])) == 16


def test_every_value_counts_once_when_the_width_does_not_divide_the_length():
    # Ten values on four blocks: 0-1, 2-4, 5-7, 8-9; the last block alone holds the two large ones.
    assert sparkline([0.0] * 8 + [9.0, 9.0], width=4) == "▁▁▁█"


@pytest.mark.parametrize(
    ("name", "short"), [("format_reward", "format"), ("reward_format", "reward_format"), ("tone", "tone")]
)
def test_the_common_end_of_reward_names_is_left_out(name, short):
    assert short_name(name) == short


def test_the_log_is_one_json_object_a_line(tmp_path):
    history = [{"step": 1, "k": 0.5}, {"step": 2, "k": None}]
    file = write_log(history, tmp_path)
    assert file == tmp_path / "metrics.jsonl"
    assert [json.loads(line) for line in file.read_text().splitlines()] == history


def test_the_log_is_json_by_the_standard_even_for_infinite_k(tmp_path):
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    file = write_log([{"rvpo/k": math.inf, "channels/a/forecast": math.nan}], tmp_path)
    json.loads(file.read_text(), parse_constant=refuse)


def test_each_channel_has_first_best_last_and_the_newest_shares(tmp_path, capsys):
    history = [
        entry(1, a_reward={"mean": 0.25, "dead": 1.0, "missing": 0.5, "weight": 0.3}, b={"mean": 1.0}),
        entry(2, a_reward={"mean": 0.75, "dead": 0.5, "missing": 0.25, "weight": 0.4}, b={"mean": 0.0}),
        entry(3, a_reward={"mean": 0.5, "dead": 0.25, "missing": 0.0, "weight": 0.6}, b={"mean": 0.5}),
        {"train_runtime": 3.0, "step": 3},
    ]
    rows, text = shown(history, tmp_path, capsys, title="gdpo, 3 of 3 steps")
    assert rows == {
        "a": ["0.250", "0.750", "0.500", "▁█▅", "0.250", "0.000", "0.600"],
        "b": ["1.000", "1.000", "0.500", "█▁▅", "-", "-", "-"],
    }
    assert text.splitlines()[0].strip() == "gdpo, 3 of 3 steps"
    assert f"run: {tmp_path}" in text.splitlines()[-1]


def test_a_channel_that_some_logs_lack_uses_those_that_have_it(tmp_path, capsys):
    history = [entry(1, a={"mean": None}), entry(2), entry(3, a={"mean": 0.5}), entry(4, a={"mean": None})]
    rows, _ = shown(history, tmp_path, capsys)
    assert rows["a"][:4] == ["0.500", "0.500", "0.500", "▁"]


def test_a_channel_without_any_value_has_dashes(tmp_path, capsys):
    rows, _ = shown([entry(1, a={"mean": None, "dead": None})], tmp_path, capsys)
    assert rows["a"] == ["-", "-", "-", "", "-", "-", "-"]


def test_nan_in_the_log_counts_as_no_value(tmp_path, capsys):
    """TRL before 1.0 logs NaN where later releases log nothing."""
    history = [entry(1, a={"mean": math.nan}), entry(2, a={"mean": 0.5}), entry(3, a={"mean": 1.0})]
    rows, _ = shown(history, tmp_path, capsys)
    assert rows["a"][:4] == ["0.500", "1.000", "1.000", "▁█"]


def test_evaluation_and_trls_metrics_are_no_channels(tmp_path, capsys):
    history = [{"step": 1, "eval_channels/a/mean": 0.5, "rewards/a/mean": 0.5, "channels/a/std": 0.5}]
    rows, text = shown(history, tmp_path, capsys)
    assert rows == {}
    assert text.strip() == f"run: {tmp_path}"


def test_a_name_with_a_slash_or_brackets_is_shown_as_it_is(tmp_path, capsys):
    rows, _ = shown([entry(1, **{"rubric/tone": {"mean": 0.5}, "[bold]": {"mean": 1.0}})], tmp_path, capsys)
    assert list(rows) == ["rubric/tone", "[bold]"]
