"""Real cells, trained in worker processes: killed, started again, and the same in the end.

The workers are forked from processes that have imported TRL; those of the quickstart in test_examples.py are spawned.
"""

import multiprocessing
import os
import time
from pathlib import Path

import pytest

import forked
from rvpo_lab.suite import schedule, train_cell
from rvpo_lab.suite.cell_file import read_cell

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
