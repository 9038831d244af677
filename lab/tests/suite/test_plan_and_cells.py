"""Plans, settings that must agree, and the file of a cell; real cells, trained in worker processes: killed, started
again, and the same in the end.

The workers are forked from processes that have imported TRL; those of the quickstart in test_examples.py are spawned.
"""

import json
import math
import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import forked
from made_up_cells import write_suite
from rvpo.errors import ConfigError
from rvpo_lab.cli.bench import main, parser
from rvpo_lab.option_text import seeds_of
from rvpo_lab.suite import schedule, train_cell
from rvpo_lab.suite.plan import Cell, SuiteSettings, cells, find_contender
from rvpo_lab.suite.schedule import Standing
from rvpo_lab.suite.storage import finished, keep_settings, read_cell, read_cells, read_settings, write_cell
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


COMMAND = [
    *("bench", "neglect", "--tasks", "rubric", "--methods", "gdpo,rvpo"),
    *("--seeds", "2", "--steps", "4", "--num-iterations", "2", "--warm-start-steps", "5", "--hidden-size", "32"),
]


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    """Start a suite in a process of its own; all have one cache of warm starts."""
    assert train_cell.train_cell  # imported, for the workers
    environment = {"RVPO_CACHE": str(tmp_path_factory.mktemp("cache")), "COLUMNS": "100"}
    fork = multiprocessing.get_context("fork")

    def start(folder, *, workers):
        words = [*COMMAND, "--out", folder, "--workers", str(workers)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(schedule.multiprocessing, "get_context", lambda method: fork)
            return forked.start(words, printed=f"{folder}.txt", own_session=True, **environment)

    return start


@pytest.fixture(scope="module")
def whole(tmp_path_factory, suite):
    """A suite that was never stopped: its folder and its table of scores."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, run_to_the_end(suite, folder, workers=2)


def run_to_the_end(suite, folder, *, workers):
    """Run the suite; return the lines of its table of scores."""
    process = suite(folder, workers=workers)
    process.join(timeout=300)
    printed = Path(f"{folder}.txt").read_text()
    assert process.exitcode == 0, printed
    return [line for line in printed.splitlines() if line.startswith(("│", "┃"))]


def times_of_cells(folder):
    """File name -> time of its last change."""
    return {file.name: file.stat().st_mtime_ns for file in (folder / "cells").glob("*.parquet")}


def test_a_killed_suite_repeats_no_finished_cell_and_ends_the_same(tmp_path, suite, whole):
    uninterrupted, table = whole
    assert len(times_of_cells(uninterrupted)) == 4

    folder = tmp_path / "suite"
    killed = suite(folder, workers=1)
    deadline = time.monotonic() + 240
    while len(before := times_of_cells(folder)) < 2:
        assert killed.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    killed.kill()
    killed.join()
    assert 2 <= len(before) < 4
    group_ends(killed.pid)

    Path(f"{folder}.txt").unlink()
    assert run_to_the_end(suite, folder, workers=1) == table != []
    after = times_of_cells(folder)
    assert len(after) == 4
    assert {name: after[name] for name in before} == before
    for name in after:
        assert (folder / "cells" / name).read_bytes() == (uninterrupted / "cells" / name).read_bytes()


def test_a_cell_holds_how_far_its_policy_moved(whole):
    record = read_cell(whole[0] / "cells" / "rubric-gdpo-0.parquet")
    moved = record.about["kl_per_token"]
    assert len(moved) == len(record.about["kl_per_answer"]) == len(record.steps)
    assert moved[0] == 0.0  # the warm start itself
    assert all(value > 0.0 for value in moved[1:])


def test_several_updates_on_a_batch_keep_its_rollouts_once(whole):
    record = read_cell(whole[0] / "cells" / "rubric-gdpo-0.parquet")
    assert {step for step, *_ in record.rollouts} == {1, 3}  # steps 2 and 4 train on the same rollouts again
    assert record.about["settings"]["hidden_size"] == 32


def group_ends(group):
    """Wait until no process of the group is left: workers must not outlive a parent that was killed."""
    for _ in range(200):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    raise AssertionError("workers outlived the suite")
