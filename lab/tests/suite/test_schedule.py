"""Real cells, trained in worker processes: killed, started again, and the same in the end."""

import os
import signal
import subprocess
import sys
import time

import pytest

from rvpo_lab.suite.cell_file import read_cell

COMMAND = [
    *(sys.executable, "-m", "rvpo.cli.main", "bench", "neglect", "--tasks", "rubric", "--methods", "gdpo,rvpo"),
    *("--seeds", "2", "--steps", "4", "--num-iterations", "2", "--warm-start-steps", "5", "--hidden-size", "32"),
]


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """One cache of warm starts for all suites of this file."""
    return os.environ | {"RVPO_CACHE": str(tmp_path_factory.mktemp("cache")), "COLUMNS": "100"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory, environment):
    """A suite that was never stopped: its folder and its table of scores."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, run_to_the_end(folder, environment, workers=2)


def run_to_the_end(folder, environment, *, workers):
    """Run the suite; return the lines of its table of scores."""
    words = [*COMMAND, "--out", folder, "--workers", str(workers)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if line.startswith(("│", "┃"))]


def times_of_cells(folder):
    """File name -> time of its last change."""
    return {file.name: file.stat().st_mtime_ns for file in (folder / "cells").glob("*.parquet")}


def test_a_killed_suite_repeats_no_finished_cell_and_ends_the_same(tmp_path, environment, whole):
    uninterrupted, table = whole
    assert len(times_of_cells(uninterrupted)) == 4

    killed = subprocess.Popen(
        [*COMMAND, "--out", tmp_path, "--workers", "1"],
        env=environment,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 240
    while len(before := times_of_cells(tmp_path)) < 2:
        assert killed.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert 2 <= len(before) < 4
    group_ends(killed.pid)

    assert run_to_the_end(tmp_path, environment, workers=1) == table != []
    after = times_of_cells(tmp_path)
    assert len(after) == 4
    assert {name: after[name] for name in before} == before
    for name in after:
        assert (tmp_path / "cells" / name).read_bytes() == (uninterrupted / "cells" / name).read_bytes()


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
