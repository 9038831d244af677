"""A run that is killed, or interrupted, and goes on from its last checkpoint as if nothing had happened."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from recording import read_records
from transformers.trainer_utils import get_last_checkpoint

SCRIPT = Path(__file__).parent / "scripts" / "train_recorded.py"
OPTIONS = {
    "max_steps": 5,
    "save_strategy": "steps",
    "save_steps": 2,
    "k_schedule": "linear",
    "k": 0.5,
    "k_end": 2.0,
    "method": "rvpo_policy",
    "method_options": {"anchor": "average"},
    "channel_targets": {"sure_warm": 0.9, "rubric/accuracy": 0.8},
    "target_rate": 0.5,
}
REWARDS = ["sure_warm", "rubric"]


@pytest.fixture(scope="module")
def place(policy, rows, tmp_path_factory):
    """A folder with rows, for runs in processes of their own."""
    folder = tmp_path_factory.mktemp("resume")
    rows.to_json(folder / "rows.jsonl")
    return folder


def start(place, policy, name, **run):
    """Start a training process."""
    order = {"policy": str(policy), "rows": str(place / "rows.jsonl"), "out": str(place)}
    order["runs"] = [{"name": name, "rewards": REWARDS, "options": OPTIONS, **run}]
    with (place / f"{name}.err").open("a") as errors:
        return subprocess.Popen([sys.executable, str(SCRIPT), json.dumps(order)], stderr=errors, stdout=errors)


def log_of(place, name):
    history = json.loads((place / f"{name}-0.log.json").read_text())["history"]
    return {entry["step"]: entry for entry in history if "rvpo/k" in entry}


@pytest.fixture(scope="module")
def runs(place, policy):
    """An unbroken run, and one that was killed after step 3 and resumed from its last checkpoint."""
    unbroken = start(place, policy, "unbroken")
    killed = start(place, policy, "broken", kill_at=3)
    assert killed.wait(timeout=120) == -signal.SIGKILL
    before = read_records(place / "broken-0.jsonl")
    (place / "broken-0.jsonl").unlink()
    checkpoint = get_last_checkpoint(str(place / "broken"))
    assert Path(checkpoint).name == "checkpoint-2"
    assert start(place, policy, "broken", resume=checkpoint).wait(timeout=120) == 0
    assert unbroken.wait(timeout=120) == 0
    return read_records(place / "unbroken-0.jsonl"), before, read_records(place / "broken-0.jsonl")


def test_a_killed_run_goes_on_with_the_same_rollouts_rewards_and_advantages(runs):
    unbroken, before, after = runs
    assert [generation["step"] for generation in unbroken] == [0, 1, 2, 3, 4]
    assert [generation["step"] for generation in before] == [0, 1, 2]
    assert [generation["step"] for generation in after] == [2, 3, 4]
    for whole, part in zip(unbroken[:3] + unbroken[2:], before + after, strict=True):
        assert part["completions"] == whole["completions"]
        assert part["scalars"] == whole["scalars"]
        assert part["advantages"] == whole["advantages"]


def test_a_killed_run_goes_on_with_the_same_multipliers(runs, place):
    whole, resumed = log_of(place, "unbroken"), log_of(place, "broken")
    for name in ("sure_warm", "rubric/accuracy"):
        course = [whole[step][f"channels/{name}/multiplier"] for step in range(1, 6)]
        assert [resumed[step][f"channels/{name}/multiplier"] for step in range(1, 6)] == course
        assert len(set(course)) == 5
    file = get_last_checkpoint(str(place / "broken")) + "/rvpo_state.json"
    assert json.loads(Path(file).read_text())["multipliers"]["sure_warm"] > 0.1


def test_a_killed_run_goes_on_with_the_same_k(runs, place):
    whole, resumed = log_of(place, "unbroken"), log_of(place, "broken")
    assert set(whole) == set(resumed) == {1, 2, 3, 4, 5}
    for step, entry in resumed.items():
        assert entry["rvpo/k"] == whole[step]["rvpo/k"] == pytest.approx(0.5 + 1.5 * (step - 1) / 5)


SLOW = """
import time
from rvpo_lab.tasks.notes import mention_reward

def slow(**columns):
    time.sleep(0.2)
    return mention_reward(**columns)
"""


def test_ctrl_c_saves_and_tells_a_command_that_resumes(place, policy, tmp_path):
    (tmp_path / "my_rewards.py").write_text(SLOW)
    options = {"max_steps": 200, "k_schedule": "linear", "k": 0.5, "k_end": 2.0, "use_cpu": "true", "bf16": "false"}
    options |= {"gradient_checkpointing": "false", "report_to": "none", "disable_tqdm": "true", "logging_steps": 1}
    options |= {"per_device_train_batch_size": 8, "num_generations": 4, "max_completion_length": 8, "seed": 3}
    options |= {"model_name_or_path": policy, "dataset_name": place / "rows.jsonl", "output_dir": tmp_path / "run"}
    command = [sys.executable, "-m", "rvpo.cli.main", "train", "--reward_funcs", "my_rewards.slow"]
    command += [word for name, value in options.items() for word in (f"--{name}", str(value))]

    with (tmp_path / "out").open("w") as out, (tmp_path / "err").open("w") as err:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=out, stderr=err)
        deadline = time.monotonic() + 120
        while "'loss'" not in (tmp_path / "out").read_text() and time.monotonic() < deadline:
            assert process.poll() is None, (tmp_path / "err").read_text()
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130

    printed = (tmp_path / "out").read_text() + (tmp_path / "err").read_text()
    assert "Traceback" not in printed
    checkpoint = Path(get_last_checkpoint(str(tmp_path / "run")))
    stopped = int(checkpoint.name.split("-")[1])
    assert 1 <= stopped < 200
    advice = re.search(r"--resume_from_checkpoint \S+ --output_dir \S+", printed.replace(os.linesep, " "))
    assert advice, printed
    assert advice[0] == f"--resume_from_checkpoint last --output_dir {tmp_path / 'run'}"

    end = str(stopped + 2)
    command[command.index("--max_steps") + 1] = end
    done = subprocess.run([*command, *advice[0].split()], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    history = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    steps = [entry["step"] for entry in history if "rvpo/k" in entry]
    assert steps == list(range(1, stopped + 3))
    assert history[steps.index(stopped + 1)]["rvpo/k"] == pytest.approx(0.5 + 1.5 * stopped / (stopped + 2))
    assert (tmp_path / "run" / "model.safetensors").exists()
