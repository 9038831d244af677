"""`rvpo audit` as a process: its place in `rvpo --help`, and that broken files are one line and exit status 2."""

import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

RUN = [sys.executable, "-W", "error", "-m", "rvpo.cli.main"]


def rvpo(*arguments):
    """Run the command; return status, output and errors."""
    run = subprocess.run([*RUN, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False)
    return run.returncode, run.stdout, run.stderr


def rows(rewards):
    return [{"prompt": f"p{index // 4}", "step": 1, "a": reward} for index, reward in enumerate(rewards)]


def jsonl(rewards):
    return "".join(json.dumps(row) + "\n" for row in rows(rewards)).encode()


def parquet(folder, rewards):
    pq.write_table(pa.Table.from_pylist(rows(rewards)), folder / "whole.parquet")
    return (folder / "whole.parquet").read_bytes()


NUMBERS = np.random.default_rng(0).random(400).tolist()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("cut.parquet", lambda folder: parquet(folder, NUMBERS)[:-100], "cannot be read as parquet"),
        ("mixed.jsonl", lambda folder: jsonl([*NUMBERS, "good"]), "row 401: column 'a' holds 'good'"),
        ("empty.csv", lambda folder: b"", "is empty"),
        ("long.jsonl", lambda folder: jsonl(NUMBERS) + b"x" * 10_000, "line 401 is not JSON"),
        ("nan.parquet", lambda folder: parquet(folder, [float("nan")] * 8), "none of the 8 rollouts has a value"),
    ],
)
def test_a_broken_file_is_one_line_and_status_2(tmp_path, name, content, message):
    file = tmp_path / name
    file.write_bytes(content(tmp_path))
    status, out, err = rvpo("audit", file)
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert err.startswith("rvpo: error: ")
    assert message in err
    assert "Traceback" not in err


def test_help_names_the_command_and_the_command_has_examples():
    status, out, _ = rvpo("--help")
    assert status == 0
    assert "\n  audit " in out
    status, out, _ = rvpo("audit", "--help")
    assert status == 0
    assert "rvpo audit --example" in out
