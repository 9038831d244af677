"""Plans, settings that must agree, and the file of a cell."""

import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from made_up_cells import write_suite
from rvpo.errors import ConfigError
from rvpo_lab.cli.bench import main, parser
from rvpo_lab.cli.seeds import seeds_of
from rvpo_lab.suite.cell_file import read_cell, write_cell
from rvpo_lab.suite.folder import finished, keep_settings, read_cells, read_settings
from rvpo_lab.suite.plan import Cell, SuiteSettings, cells, find_contender
from rvpo_lab.suite.schedule import Standing
from rvpo_lab.tasks.catalog import TASKS
from rvpo_lab.tasks.task import axis


def test_cells_come_seed_by_seed():
    planned = cells(["rubric", "tools"], ["gdpo", "rvpo"], [0, 1])
    assert [cell.name for cell in planned[:4]] == ["rubric-gdpo-0", "rubric-rvpo-0", "tools-gdpo-0", "tools-rvpo-0"]
    assert {cell.seed for cell in planned[4:]} == {1}


@pytest.mark.parametrize(
    ("tasks", "methods", "message"),
    [(["rubrik"], ["gdpo"], "rubric"), (["rubric"], ["gdp"], "gdpo"), ([], ["gdpo"], "needs tasks")],
)
def test_unknown_names_are_told_with_the_known_ones(tasks, methods, message):
    with pytest.raises(ConfigError, match=message):
        cells(tasks, methods, [0])


def test_a_method_can_be_described_instead_of_named():
    written = "gdpo, rvpo_policy:2:signal=zscore,anchor=average,anchor_decay=0.5,rvpo:0.5-2"
    names = parser().parse_args(["neglect", "--methods", written]).methods
    assert names == ["gdpo", "rvpo_policy:2:signal=zscore,anchor=average,anchor_decay=0.5", "rvpo:0.5-2"]
    assert find_contender(names[1]).options == {
        "method": "rvpo_policy",
        "k": 2.0,
        "anchor_decay": 0.5,
        "method_options": {"signal": "zscore", "anchor": "average"},
    }
    assert find_contender(names[2]).options == find_contender("rvpo").options
    assert Cell("rubric", "rvpo_policy:2:a=../b", 0).name == "rubric-rvpo_policy_2_a=.._b-0"


def test_described_targets_are_for_each_axis_under_the_names_of_the_tasks_logs(tmp_path):
    from rvpo_lab.suite.train_cell import config

    cell = Cell("noisy", "gdpo:1:targets=0.6,target_rate=0.2", 0)
    made = config(cell, SuiteSettings(), TASKS["noisy"], tmp_path)
    axes = ("accuracy", "communication", "completeness", "context", "instruction")
    assert made.channel_targets == {f"noisy_reward/{name}": 0.6 for name in axes}
    assert made.target_rate == 0.2
    assert {axis(name) for row in TASKS["noisy"].rows(64, 0) for name in TASKS["noisy"].grade(row, "")} == set(axes)


def test_settings_of_the_update_reach_the_trainer(tmp_path):
    from rvpo_lab.suite.train_cell import config

    made = config(Cell("rubric", "gdpo", 0), SuiteSettings(num_iterations=4, epsilon=0.1), TASKS["rubric"], tmp_path)
    assert (made.num_iterations, made.epsilon) == (4, 0.1)


@pytest.mark.parametrize("name", ["rvpo:x", "rvpo_polcy:2", "rvpo:2:signal", "mean_variance"[:-1]])
def test_a_description_that_fits_nothing_is_an_error(name):
    with pytest.raises(ConfigError):
        find_contender(name)


@pytest.mark.parametrize("text", ["", "x", "1,", "3-x"])
def test_seeds_that_cannot_be_read(text):
    with pytest.raises(ConfigError, match="seeds are"):
        seeds_of(text)


def test_a_folder_keeps_to_its_settings(tmp_path):
    keep_settings(tmp_path / "suite", SuiteSettings(steps=5))
    keep_settings(tmp_path / "suite", SuiteSettings(steps=5))
    with pytest.raises(ConfigError, match="steps 5 there and 6 now"):
        keep_settings(tmp_path / "suite", SuiteSettings(steps=6))


def test_a_suite_older_than_a_setting_had_its_default(tmp_path):
    (tmp_path / "suite.json").write_text(json.dumps({"steps": 5}))
    assert read_settings(tmp_path, SuiteSettings) == SuiteSettings(steps=5)
    keep_settings(tmp_path, SuiteSettings(steps=5))
    with pytest.raises(ConfigError, match="num_iterations 1 there and 4 now"):
        keep_settings(tmp_path, SuiteSettings(steps=5, num_iterations=4))
    (tmp_path / "suite.json").write_text(json.dumps({"steps": 5, "temperature": 2}))
    with pytest.raises(ConfigError, match="does not know: \\['temperature'\\]"):
        read_settings(tmp_path, SuiteSettings)


def test_a_cell_comes_back_as_it_was(tmp_path, make_record):
    cell = make_record(means={"accuracy/dose": [0.25, 0.5], "context/person": [1.0, 0.75]})
    write_cell(cell, tmp_path / "cell.parquet")
    back = read_cell(tmp_path / "cell.parquet")
    assert back.about == cell.about
    assert back.prompts == cell.prompts
    assert back.steps == [0, 10]
    assert {key: list(values) for key, values in back.held_out.items()} == cell.held_out
    assert back.samples == cell.samples
    assert back.logged_steps == [5, 10]
    assert back.log["rvpo/k"] == [0.5, 1.0]
    assert math.isnan(back.log["channels/rubric_reward/accuracy/weight"][1])
    (step, group, channel, rewards) = back.rollouts[0]
    assert (step, group, channel, rewards[:2]) == (1, 0, "accuracy/dose", [1.0, 0.0])
    assert math.isnan(rewards[2])  # missing stays missing
    assert [file.name for file in tmp_path.iterdir()] == ["cell.parquet"]


def test_a_packed_suite_reads_as_before_and_takes_further_cells(tmp_path, make_record, capsys):
    means = {"accuracy/dose": [0.25, 0.5], "context/person": [1.0, 0.75]}
    records = [make_record(contender=name, seed=seed, means=means) for seed in (1, 0) for name in ("rvpo", "x:1:y=0")]
    records[0].steps, records[0].samples = [0, 20], []
    write_suite(tmp_path, records)
    before = [vars(record) for record in read_cells(tmp_path)]
    assert main(["pack", str(tmp_path)]) == 0
    assert [file.name for file in tmp_path.rglob("*.parquet")] == ["cells.parquet"]
    np.testing.assert_equal([vars(record) for record in read_cells(tmp_path)], before)
    assert finished(tmp_path) == {record.cell.name for record in records}

    late = make_record(contender="gdpo", means=means)
    write_suite(tmp_path, [late, records[3]])  # as if a pack had been stopped before it removed a cell's file
    assert finished(tmp_path) == {record.cell.name for record in [late, *records]}
    assert main(["pack", str(tmp_path)]) == 0
    second = read_cells(tmp_path)
    assert [record.cell.name for record in second] == [
        *("rubric-gdpo-0", "rubric-rvpo-0", "rubric-rvpo-1"),
        *("rubric-x_1_y=0-0", "rubric-x_1_y=0-1"),  # contenders that have no name come last
    ]
    assert [record.about["contender"] for record in read_cells(tmp_path, [late.cell])] == ["gdpo"]


def test_a_file_of_something_else_is_an_error(tmp_path):
    pq.write_table(pa.table({"record": ["step"], "step": [1]}), tmp_path / "cells.parquet")
    with pytest.raises(ConfigError, match="no cell of a suite: it must begin"):
        read_cells(tmp_path)


def test_progress_and_time_left():
    planned = [Cell("rubric", "gdpo", seed) for seed in range(4)]
    standing = Standing(planned, SuiteSettings(steps=10), finished={planned[0]}, trained_before=1, began=100.0)
    assert standing.done == 0.25
    assert standing.seconds_left(160.0) is None  # an earlier run's cells tell nothing of this one's speed
    standing.steps[planned[1]] = 5
    assert standing.done == pytest.approx(1.5 / 4)
    # half a cell took 60 s, two and a half are left
    assert standing.seconds_left(160.0) == pytest.approx(300.0)
