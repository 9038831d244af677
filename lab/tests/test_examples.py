"""What the README tells people to run is run here, as it is written there."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from rvpo.cli.main import main
from rvpo.rewards.tool_calling import correctness_reward, format_reward

ROOT = Path(__file__).resolve().parents[2]


def test_the_picture_of_the_readme_is_the_programs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["report", "--picture", "new.svg"]) == 0
    assert (tmp_path / "new.svg").read_text() == (ROOT / "docs" / "neglect.svg").read_text()


def test_the_quickstart_trains_compares_and_reports(tmp_path):
    """The whole path, from warm start to page, in a step of each method."""
    words = ["quickstart", "--seeds", "1", "--steps", "1", "--warm-start-steps", "20", "--workers", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "rvpo.cli.main", *words, "--out", "out"],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1", "RVPO_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        timeout=300,
    )
    printed = done.stdout
    assert done.returncode == 0, printed + done.stderr
    assert "4/4 runs" in printed
    for method in ("GRPO", "GDPO", "RVPO 0.5-2", "MaxRL"):
        assert f"│ {method}" in printed
    page = (tmp_path / "out" / "report.html").read_text()
    assert "MaxRL" in page
    for method in ("grpo", "gdpo", "rvpo", "maxrl"):
        log = (tmp_path / "out" / "runs" / f"rubric-{method}-0" / "metrics.jsonl").read_text().splitlines()
        assert "channels/rubric_reward/accuracy/mean" in json.loads(log[0])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["quickstart", "--steps", "0"], "steps must be at least 1, got 0"),
        (["quickstart", "--warm-start-steps", "-1"], "warm_start_steps must be at least 0, got -1"),
        (["quickstart", "--out", "file"], "cannot write file/suite.json"),
        (["bench", "neglect", "--num-generations", "1"], "num_generations must be at least 2, got 1"),
        (["bench", "neglect", "--hidden-size", "0"], "hidden_size must be at least 1, got 0"),
    ],
)
def test_wrong_settings_of_a_suite_are_one_line(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("rvpo: error: ")
    assert message in line


@pytest.fixture(scope="module")
def rlla(shared_data, tmp_path_factory):
    """The folder where the RLLA example has left its policy, hardly warm-started."""
    folder = tmp_path_factory.mktemp("rlla")
    rows, supervised = shared_data / "rlla_4k_test80.parquet", shared_data / "rlla_sft400.json"
    script = str(ROOT / "examples" / "rlla_policy.py")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", [script, "--rows", str(rows), "--sft", str(supervised), "--steps", "1"])
        runpy.run_path(script, run_name="__main__")
    return folder


@pytest.mark.parametrize("method", ["grpo", "gdpo", "rvpo"])
def test_the_rlla_config_trains_on_real_rows(rlla, shared_data, method, monkeypatch):
    monkeypatch.chdir(rlla)
    few = ["--max_steps", 1, "--per_device_train_batch_size", 4, "--max_completion_length", 8, "--logging_steps", 1]
    rows = shared_data / "rlla_4k_test80.parquet"
    config = ROOT / "configs" / "rlla_tiny.yaml"
    words = ["--config", config, "--dataset_name", rows, "--method", method, "--output_dir", method, *few]
    assert main(["train", *map(str, words)]) == 0
    logged = json.loads((rlla / method / "metrics.jsonl").read_text().splitlines()[0])
    assert 0 <= logged["channels/format_reward/mean"] <= 1
    assert -3 <= logged["channels/correctness_reward/mean"] <= 3


def test_the_rows_own_answers_have_the_form_and_are_correct(shared_data):
    from rvpo.integrations.trl.rows import load_rows

    rows = load_rows(
        str(shared_data / "rlla_4k_test80.parquet"), "train", columns={"ground_truth": "reward_model.ground_truth"}
    )
    truths = list(rows["ground_truth"])
    assert set(format_reward(truths, truths)) == {1.0}
    calls = ["<tool_call>" in truth for truth in truths]
    assert correctness_reward(truths, truths) == [3.0 if call else 0.0 for call in calls]
