"""What a run leaves to read: its log file, the table of channels with lines of blocks, the page of `rvpo report`."""

import doctest
import json
import math
import re
import sys
from xml.etree import ElementTree

import pytest

from report.pages import logged
from report.pages import write_log as write_run
from rvpo.cli.report import main
from rvpo.errors import ConfigError
from rvpo.integrations.trl import summary
from rvpo.integrations.trl.run_log import write_log
from rvpo.integrations.trl.summary import print_summary, short_name, sparkline

# --- In the terminal ---


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


# --- rvpo report ---


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    more = {f"channels/tone_reward/{kind}": 0.5 for kind in ("weight", "dead", "missing")}
    return write_run(tmp_path_factory.mktemp("run"), [logged(step, **more) for step in (1, 2)])


def test_the_page_lies_in_the_first_run_unless_told_otherwise(run, tmp_path, capsys):
    assert main([str(run)]) == 0
    file = run / "report.html"
    assert f"report: {file} (0." in capsys.readouterr().out
    assert main([str(run), "--out", str(tmp_path / "new/page.html")]) == 0
    assert (tmp_path / "new/page.html").read_text() == file.read_text()
    assert f"rvpo report {run}" in file.read_text()


def test_figures_are_saved_as_svg_and_png(run, tmp_path):
    assert main([str(run), "--out", str(tmp_path / "r.html"), "--figures", str(tmp_path / "figures")]) == 0
    names = sorted(file.name for file in (tmp_path / "figures").iterdir())
    stems = ["k", "neglect", "runs-dead", "runs-missing", "runs-rewards", "runs-weights"]
    assert names == [f"{stem}{suffix}" for stem in stems for suffix in (".png", ".svg")]
    for file in (tmp_path / "figures").glob("*.svg"):
        ElementTree.parse(file)


@pytest.mark.parametrize(("name", "begins"), [("a/neglect.svg", b"<svg"), ("neglect.png", b"\x89PNG")])
def test_the_picture_needs_no_run(tmp_path, capsys, name, begins):
    assert main(["--picture", str(tmp_path / name)]) == 0
    assert (tmp_path / name).read_bytes().startswith(begins)
    assert capsys.readouterr().out == f"picture: {tmp_path / name}\n"


def test_the_picture_of_another_kind_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"ends in .svg or .png"):
        main(["--picture", str(tmp_path / "neglect.pdf")])


def test_nothing_to_report_is_an_error():
    with pytest.raises(ConfigError, match="at least one RUN folder, or --picture FILE"):
        main([])


def test_a_place_that_cannot_be_written_to_is_named(run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write"):
        main([str(run), "--out", str(tmp_path / "file/report.html")])
    with pytest.raises(ConfigError, match="cannot write"):
        main([str(run), "--out", str(tmp_path / "r.html"), "--figures", str(tmp_path / "file")])


def test_a_missing_extra_is_named_with_what_brings_it(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    wanted = r"matplotlib.*pip install 'rvpo\[report\]'"
    with pytest.raises(ConfigError, match=wanted):
        main([str(run), "--out", str(tmp_path / "r.html")])
    with pytest.raises(ConfigError, match=wanted):
        main(["--picture", str(tmp_path / "n.svg")])


def test_help_shows_what_a_run_is_and_examples(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert "RUN is the output folder of `rvpo train`" in text
    assert "rvpo report runs/gdpo runs/rvpo" in text
    assert max(map(len, text.splitlines())) <= 100
