"""One, two and four processes are the same run; a killed one goes on with another number of them."""

import json
import math
import socket
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.version import Version
from recording import read_records

pytestmark = pytest.mark.skipif(Version(version("trl")) < Version("1.0"), reason="TRL has no rollout_func")

KILLED = "exitcode: -9"
SCRIPT = Path(__file__).parent / "scripts" / "train_recorded.py"
STEPS = 5
SCALE = {
    # 3 prompts x 4 rollouts: with four processes of 3 every group lies on two of them, with fewer the rest is
    # gradient accumulation.
    "rollouts_per_step": 12,
    "per_device_train_batch_size": 3,
    "max_steps": STEPS,
    "k_schedule": "linear",
    "k": 0.5,
    "k_end": 2.0,
}
PAPER = {"rewards": ["rubric", "sure_warm", "gappy"], "options": SCALE, "fixed": True}
AVERAGE = {
    "rewards": ["rubric", "sure_warm"],
    "options": {
        **SCALE,
        "method": "rvpo_policy",
        "method_options": {"anchor": "average"},
        "save_strategy": "steps",
        "save_steps": 2,
    },
    "fixed": True,
}


def order_of(place, policy, processes, runs):
    common = {"policy": str(policy), "rows": str(place / "rows.jsonl"), "out": str(place), "processes": processes}
    return common | {"runs": runs}


def launch(place, policy, processes, runs):
    """Run under `accelerate launch`; return its exit status and what it wrote."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(processes)]
    command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    command += ["--main_process_port", str(port), str(SCRIPT), json.dumps(order_of(place, policy, processes, runs))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    return done.returncode, done.stderr


@pytest.fixture(scope="module")
def place(policy, rows, tmp_path_factory):
    """A folder with the records of all runs: NAME-RANK.jsonl and NAME-RANK.log.json."""
    place = tmp_path_factory.mktemp("number")
    rows.to_json(place / "rows.jsonl")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
        from train_recorded import train

        def here(**run):
            train(order_of(place, policy, 1, []), **run)

        here(name="paper1", **PAPER)
        here(name="average1", **AVERAGE)
        killed = {**AVERAGE, "kill_at": 3}
        status, errors = launch(place, policy, 4, [{"name": "paper4", **PAPER}, {"name": "killed4", **killed}])
        assert status != 0
        assert KILLED in errors, errors[-4000:]
        resumed = [
            {"name": "from4to2", **AVERAGE, "resume": str(place / "killed4" / "checkpoint-2")},
            {"name": "from1to2", **AVERAGE, "resume": str(place / "average1" / "checkpoint-2")},
        ]
        status, errors = launch(
            place, policy, 2, [{"name": "paper2", **PAPER}, *resumed, {"name": "killed2", **killed}]
        )
        assert status != 0
        assert KILLED in errors, errors[-4000:]
        here(name="from2to1", **AVERAGE, resume=str(place / "killed2" / "checkpoint-2"))
    return place


def generations(place, name, processes):
    """Each generation of a run as a whole: the records of its processes one after the other."""
    ranks = [read_records(place / f"{name}-{rank}.jsonl") for rank in range(processes)]
    keys = ("prompts", "completions", "advantages")
    return [
        {"step": parts[0]["step"], **{key: [value for part in parts for value in part[key]] for key in keys}}
        for parts in zip(*ranks, strict=True)
    ]


def logged(place, name, rank=0):
    """Step -> what was logged of it."""
    history = json.loads((place / f"{name}-{rank}.log.json").read_text())["history"]
    return {entry["step"]: entry for entry in history if "rvpo/k" in entry}


def assert_equal_metrics(found, expected):
    """Every metric of rvpo is the same number; the loss and its gradient are, to the order of their sums."""
    assert found.keys() == expected.keys()
    ours = [name for name in expected if name.startswith(("rvpo/", "channels/"))]
    assert len(ours) > 20
    for name in ours:
        same = found[name] == expected[name] or (math.isnan(found[name]) and math.isnan(expected[name]))
        assert same, (name, found[name], expected[name])
    for name in ("loss", "grad_norm"):
        assert found[name] == pytest.approx(expected[name], rel=1e-5, abs=1e-6), name


@pytest.mark.parametrize("processes", [2, 4])
def test_several_processes_have_the_advantages_of_one(place, processes):
    one, several = (
        generations(place, "paper1", 1),
        generations(place, "paper4" if processes == 4 else "paper2", processes),
    )
    assert [generation["step"] for generation in one] == list(range(STEPS))
    assert several == one  # prompts, completions and advantages, in order and to the last bit
    for generation in one:
        assert len(generation["advantages"]) == 12
        assert len({round(value, 6) for value in generation["advantages"]}) > 6


@pytest.mark.parametrize(("processes", "rank"), [(2, 0), (2, 1), (4, 0), (4, 3)])
def test_several_processes_log_the_metrics_of_one(place, processes, rank):
    one, several = logged(place, "paper1"), logged(place, f"paper{processes}", rank)
    assert set(one) == set(several) == set(range(1, STEPS + 1))
    for step, entry in several.items():
        assert entry["rvpo/k"] == pytest.approx(0.5 + 1.5 * (step - 1) / STEPS)
        if rank == 0:
            assert_equal_metrics(entry, one[step])


def test_the_rubrics_are_ragged_and_have_gaps(place):
    widths = set()
    for generation in generations(place, "paper1", 1):
        import graders

        widths |= {len(graders.criteria(prompt)) for prompt in generation["prompts"]}
    assert len(widths) > 2
    assert any(
        value > 0 for entry in logged(place, "paper1").values() for key, value in entry.items() if "missing" in key
    )


@pytest.mark.parametrize(("name", "processes"), [("from4to2", 2), ("from1to2", 2), ("from2to1", 1)])
def test_a_run_goes_on_with_another_number_of_processes(place, name, processes):
    whole, rest = generations(place, "average1", 1), generations(place, name, processes)
    assert [generation["step"] for generation in rest] == [2, 3, 4]
    assert rest == whole[2:]
    log = logged(place, name)
    for step in (3, 4, 5):
        assert_equal_metrics(log[step], logged(place, "average1")[step])


def test_what_was_killed_had_gone_the_same_way(place):
    whole = generations(place, "average1", 1)
    assert generations(place, "killed4", 4) == whole[:3]
    assert generations(place, "killed2", 2) == whole[:3]
    assert not (place / "killed4-0.log.json").exists()
