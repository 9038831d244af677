"""Real cells, trained in worker processes: killed, started again, and the same in the end."""

import os
import signal
import subprocess
import sys
import time

import pytest

from rvpo_lab.suite.cell_file import read_cell

COMMAND = [
    *(sys.executable, "-m", "rvpo.cli.main", "bench", "neglect"),
    *("--tasks", "rubric", "--methods", "gdpo,rvpo", "--seeds", "2", "--steps", "3", "--warm-start-steps", "5"),
]


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """One cache of warm starts for all suites of this file."""
    return os.environ | {"RVPO_CACHE": str(tmp_path_factory.mktemp("cache")), "COLUMNS": "100"}


def table(printed):
    """Return the lines of the table of scores."""
    return [line for line in printed.splitlines() if line.startswith(("│", "┃"))]


def finished(folder):
    return {file.name: file.stat().st_mtime_ns for file in (folder / "cells").glob("*.parquet")}


def test_a_killed_suite_repeats_no_finished_cell_and_ends_the_same(tmp_path, environment):
    whole = subprocess.run(
        [*COMMAND, "--out", "whole"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert whole.returncode == 0, whole.stderr
    assert len(finished(tmp_path / "whole")) == 4

    killed = subprocess.Popen(
        [*COMMAND, "--out", "killed", "--workers", "1"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 240
    while len(before := finished(tmp_path / "killed")) < 2:
        assert killed.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    killed.stdout.close()
    assert 2 <= len(before) < 4
    group_ends(killed.pid)

    again = subprocess.run(
        [*COMMAND, "--out", "killed"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert again.returncode == 0, again.stderr
    after = finished(tmp_path / "killed")
    assert len(after) == 4
    assert {name: after[name] for name in before} == before
    assert table(again.stdout) == table(whole.stdout) != []
    for name in after:
        assert (tmp_path / "killed" / "cells" / name).read_bytes() == (
            tmp_path / "whole" / "cells" / name
        ).read_bytes()


def test_several_updates_on_a_batch_keep_its_rollouts_once(tmp_path, environment):
    options = ("--methods", "gdpo", "--seeds", "1", "--steps", "4", "--hidden-size", "32", "--num-iterations", "2")
    done = subprocess.run(
        [*COMMAND, *options, "--out", "suite"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    cell = read_cell(tmp_path / "suite" / "cells" / "rubric-gdpo-0.parquet")
    assert {step for step, *_ in cell.rollouts} == {1, 3}  # steps 2 and 4 train on the same rollouts again
    assert cell.about["settings"]["hidden_size"] == 32


def group_ends(group):
    """Wait until no process of the group is left: workers must not outlive a parent that was killed."""
    for _ in range(200):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    raise AssertionError("workers outlived the suite")
