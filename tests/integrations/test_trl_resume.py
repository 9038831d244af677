"""Runs that are killed, or interrupted, and go on from their last checkpoint as if nothing had happened, by the same
or another number of processes; one, two and four processes are the same run."""

import json
import math
import os
import re
import signal
import sys
import time
from importlib.metadata import version
from pathlib import Path

import graders
import pytest
from packaging.version import Version
from recording import read_records
from train_recorded import launch
from transformers.trainer_utils import get_last_checkpoint

import forked
from rvpo.cli.main import main
from rvpo.integrations.checkpoints import what_is_broken

STEPS = 5
SCHEDULE = {"max_steps": STEPS, "k_schedule": "linear", "k": 0.5, "k_end": 2.0}
SAVED = {"save_strategy": "steps", "save_steps": 2}
MOVING = {"method": "rvpo_policy", "method_options": {"anchor": "average"}}
# 3 prompts x 4 rollouts: with four processes of 3 every group lies on two of them, with fewer the rest is gradient
# accumulation.
SPREAD = {**SCHEDULE, "rollouts_per_step": 12, "per_device_train_batch_size": 3}

TARGETS = {
    "rewards": ["sure_warm", "rubric", "rare"],
    "options": {
        **SCHEDULE,
        **SAVED,
        **MOVING,
        "channel_weights": {"sure_warm": "2 -> 0.5 linear"},
        "channel_targets": {"sure_warm": 0.9, "rubric/accuracy": 0.8},
        "target_rate": 0.5,
        "prompt_sampling": "signal",
        "resample_dead": 1,
        "per_device_train_batch_size": 24,
        "resample_signal": "neglected",
    },
}
PAPER = {
    "rewards": ["rubric", "sure_warm", "gappy", "ranked", "different"],
    "options": {**SPREAD, "channel_conditions": {"gappy": "rank >= 0.25"}, "channel_weights": {"rank": "1 -> 0.5"}},
    "fixed": True,
}
AVERAGE = {
    "rewards": ["rubric", "sure_warm", "gappy", "ranked", "rare"],
    "options": {
        **SPREAD,
        **SAVED,
        **MOVING,
        "channel_ranges": {"gappy": [0, 1], "rank": [0, 1], "own_rank": [0, 1]},
        "channel_conditions": {"gappy": "rank >= 0.25"},
        "channel_weights": {"sure_warm": "2 -> 0.5 linear"},
        "prompt_sampling": "signal",
        "prompt_sampling_unbiased": True,
    },
    "fixed": True,
}

CUTS = [float(share) for share in os.environ.get("RVPO_TEST_CUTS", "0.6 0.7 0.8 0.9").split()]
"""Shares of the calls of a save after which a run is killed inside it."""

has_rollout_func = pytest.mark.skipif(
    Version(version("trl")) < Version("1.0"), reason="TRL has no rollout_func, which makes rollouts the same anywhere"
)


def launches(place):
    """Processes, their runs one after the other, and how they end."""

    def checkpoint(name):
        return str(place / name / "checkpoint-2")

    yield 1, [{"name": "unbroken", **TARGETS}], 0
    yield 1, [{"name": "broken", **TARGETS, "kill_at": 3}], -signal.SIGKILL
    yield 1, [{"name": "mended", **TARGETS, "resume": checkpoint("broken")}], 0
    for share in CUTS:
        yield 1, [{"name": f"cut{share}", **TARGETS, "cut": share}], -signal.SIGKILL
        yield 1, [{"name": f"cut{share}", **TARGETS, "resume": "last"}], 0
    if Version(version("trl")) < Version("1.0"):
        return
    killed = {**AVERAGE, "kill_at": 3}
    from4to2 = {"name": "from4to2", **AVERAGE, "resume": checkpoint("killed4")}
    from1to2 = {"name": "from1to2", **AVERAGE, "resume": checkpoint("average1")}
    yield 1, [{"name": "paper1", **PAPER}, {"name": "average1", **AVERAGE}], 0
    yield 4, [{"name": "paper4", **PAPER}, {"name": "killed4", **killed}], -signal.SIGKILL
    yield 2, [{"name": "paper2", **PAPER}, from4to2, from1to2, {"name": "killed2", **killed}], -signal.SIGKILL
    yield 1, [{"name": "from2to1", **AVERAGE, "resume": checkpoint("killed2")}], 0


@pytest.fixture(scope="module")
def place(policy, rows, tmp_path_factory):
    """A folder with rows, and the records of all runs: NAME-RANK.jsonl and NAME-RANK.log.json."""
    folder = tmp_path_factory.mktemp("resume")
    rows.to_json(folder / "rows.jsonl")
    order = {"policy": str(policy), "rows": str(folder / "rows.jsonl"), "out": str(folder)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
        for processes, runs, end in launches(folder):
            assert launch({**order, "processes": processes, "runs": runs}) == end, runs
    return folder


def generations(place, name, processes=1):
    """Each generation of a run as a whole: the records of its processes one after the other."""
    ranks = [read_records(place / f"{name}-{rank}.jsonl") for rank in range(processes)]
    keys = ("prompts", "completions", "scalars", "advantages")
    return [
        {"step": parts[0]["step"], **{key: [value for part in parts for value in part[key]] for key in keys}}
        for parts in zip(*ranks, strict=True)
    ]


def logged(place, name, rank=0):
    """Step -> what was logged of it."""
    history = json.loads((place / f"{name}-{rank}.log.json").read_text())["history"]
    return {entry["step"]: entry for entry in history if "rvpo/k" in entry}


# --- One process ---


def test_a_killed_run_goes_on_with_the_same_rollouts_rewards_and_advantages(place):
    assert Path(get_last_checkpoint(str(place / "broken"))).name == "checkpoint-2"
    unbroken, before, after = (generations(place, name) for name in ("unbroken", "broken", "mended"))
    assert [generation["step"] for generation in unbroken] == [0, 1, 2, 3, 4]
    assert before == unbroken[:3]
    assert after == unbroken[2:]


def test_a_killed_run_goes_on_with_the_same_multipliers(place):
    whole, resumed = logged(place, "unbroken"), logged(place, "mended")
    for name in ("sure_warm", "rubric/accuracy"):
        course = [whole[step][f"channels/{name}/multiplier"] for step in range(1, 6)]
        assert [resumed[step][f"channels/{name}/multiplier"] for step in range(1, 6)] == course
        assert len(set(course)) == 5
    file = get_last_checkpoint(str(place / "mended")) + "/rvpo_state.json"
    assert json.loads(Path(file).read_text())["multipliers"]["sure_warm"] > 0.1


def test_a_killed_run_goes_on_with_the_same_k_and_weights(place):
    whole, resumed = logged(place, "unbroken"), logged(place, "mended")
    assert set(whole) == set(resumed) == {1, 2, 3, 4, 5}
    for step, entry in resumed.items():
        assert entry["rvpo/k"] == whole[step]["rvpo/k"] == pytest.approx(0.5 + 1.5 * (step - 1) / 5)
        weight = entry["channels/sure_warm/given_weight"]
        assert weight == whole[step]["channels/sure_warm/given_weight"] == pytest.approx(2 - 1.5 * (step - 1) / 5)


@pytest.mark.parametrize("share", CUTS)
def test_a_run_killed_in_a_save_goes_on_from_the_last_whole_checkpoint_as_if_unbroken(place, share):
    unbroken, cut = (generations(place, name) for name in ("unbroken", f"cut{share}"))
    first = cut[4]["step"]  # steps 0 to 3 were before the save
    assert first in (2, 4)
    assert cut == unbroken[:4] + unbroken[first:]
    weights = [place / name / "checkpoint-5" / "model.safetensors" for name in ("unbroken", f"cut{share}")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert what_is_broken(weights[1].parent) is None


def test_a_killed_run_goes_on_with_the_same_groups_in_the_place_of_dead_ones(place):
    whole, resumed = logged(place, "unbroken"), logged(place, "mended")
    spent = [whole[step]["rvpo/generated"] for step in range(1, 6)]
    assert [resumed[step]["rvpo/generated"] for step in range(1, 6)] == spent
    assert max(spent[2:]) > 24


def test_a_killed_run_goes_on_with_what_it_knows_of_the_prompts(place):
    states = [
        json.loads((place / name / "checkpoint-5" / "rvpo_state.json").read_text())["sampling"]
        for name in ("unbroken", "mended")
    ]
    assert states[0] == states[1]
    assert states[0]["draws"] == 5
    prompts = {tuple(dict.fromkeys(generation["prompts"])) for generation in generations(place, "unbroken")}
    assert len(prompts) == 5


# --- Several processes ---


def assert_equal_metrics(entry, expected):
    """Every metric of rvpo is the same number; the loss and its gradient are, to the order of their sums."""
    assert entry.keys() == expected.keys()
    ours = [name for name in expected if name.startswith(("rvpo/", "channels/"))]
    assert len(ours) > 20
    for name in ours:
        same = entry[name] == expected[name] or (math.isnan(entry[name]) and math.isnan(expected[name]))
        assert same, (name, entry[name], expected[name])
    for name in ("loss", "grad_norm"):
        assert entry[name] == pytest.approx(expected[name], rel=1e-5, abs=1e-6), name


@has_rollout_func
@pytest.mark.parametrize("processes", [2, 4])
def test_several_processes_have_the_advantages_of_one(place, processes):
    single = generations(place, "paper1")
    assert [generation["step"] for generation in single] == list(range(STEPS))
    # Prompts, completions, rewards and advantages, in order and to the last bit.
    assert_equal_generations(generations(place, f"paper{processes}", processes), single)
    for generation in single:
        assert len(generation["advantages"]) == 12
        assert len({round(value, 6) for value in generation["advantages"]}) > 6


@has_rollout_func
@pytest.mark.parametrize("processes", [1, 2, 4])
def test_rewards_that_see_the_group_see_all_of_it_on_any_number_of_processes(place, processes):
    for generation in generations(place, f"paper{processes}", processes):
        texts = generation["completions"]
        groups = [texts[start - start % 4 : start - start % 4 + 4] for start in range(12)]
        expected = [graders.unlike(text, group) for text, group in zip(texts, groups, strict=True)]
        assert len(set(expected)) > 1
        # Every process has the rewards of all.
        assert [row[4] for row in generation["scalars"]] == expected * processes


def assert_equal_generations(several, single):
    """TRL gathers the rewards, so that every process has those of all."""
    for generation, expected in zip(several, single, strict=True):
        for key in ("step", "prompts", "completions", "advantages"):
            assert generation[key] == expected[key]


@has_rollout_func
@pytest.mark.parametrize(("processes", "rank"), [(2, 0), (2, 1), (4, 0), (4, 3)])
def test_several_processes_log_the_metrics_of_one(place, processes, rank):
    single, several = logged(place, "paper1"), logged(place, f"paper{processes}", rank)
    assert set(single) == set(several) == set(range(1, STEPS + 1))
    for step, entry in several.items():
        assert entry["rvpo/k"] == pytest.approx(0.5 + 1.5 * (step - 1) / STEPS)
        if rank == 0:
            assert_equal_metrics(entry, single[step])


@has_rollout_func
def test_the_rubrics_are_ragged_and_have_gaps(place):
    prompts = [prompt for generation in generations(place, "paper1") for prompt in generation["prompts"]]
    assert len({len(graders.criteria(prompt)) for prompt in prompts}) > 2
    assert any(
        value > 0 for entry in logged(place, "paper1").values() for key, value in entry.items() if "missing" in key
    )


@has_rollout_func
@pytest.mark.parametrize(("name", "processes"), [("from4to2", 2), ("from1to2", 2), ("from2to1", 1)])
def test_a_run_goes_on_with_another_number_of_processes(place, name, processes):
    whole, rest = generations(place, "average1"), generations(place, name, processes)
    assert [generation["step"] for generation in rest] == [2, 3, 4]
    assert_equal_generations(rest, whole[2:])
    log = logged(place, name)
    for step in (3, 4, 5):
        assert_equal_metrics(log[step], logged(place, "average1")[step])


@has_rollout_func
def test_what_was_killed_had_gone_the_same_way(place):
    whole = generations(place, "average1")
    assert_equal_generations(generations(place, "killed4", 4), whole[:3])
    assert_equal_generations(generations(place, "killed2", 2), whole[:3])
    assert not (place / "killed4-0.log.json").exists()


# --- Ctrl-C ---

SLOW = """
import time

def slow(completions, **columns):
    time.sleep(0.2)
    return [float(len(text)) for text in completions]
"""


def test_ctrl_c_saves_and_tells_a_command_that_resumes(policy, rows, tmp_path, monkeypatch):
    (tmp_path / "my_rewards.py").write_text(SLOW)
    rows.to_json(tmp_path / "rows.jsonl")
    options = {"max_steps": 200, "k_schedule": "linear", "k": 0.5, "k_end": 2.0, "use_cpu": "true", "bf16": "false"}
    options |= {"gradient_checkpointing": "false", "report_to": "none", "disable_tqdm": "true", "logging_steps": 1}
    options |= {"per_device_train_batch_size": 8, "num_generations": 4, "max_completion_length": 8, "seed": 3}
    options |= {"model_name_or_path": policy, "dataset_name": "rows.jsonl", "output_dir": tmp_path / "run"}
    words = ["train", "--reward_funcs", "my_rewards.slow"]
    words += [word for name, value in options.items() for word in (f"--{name}", str(value))]

    monkeypatch.chdir(tmp_path)
    process = forked.start(words, printed=(file := tmp_path / "printed.txt"))
    deadline = time.monotonic() + 120
    while not (file.exists() and "'loss'" in file.read_text()) and time.monotonic() < deadline:
        assert process.is_alive(), file.read_text()
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    process.join(timeout=60)
    assert process.exitcode == 130

    printed = file.read_text()
    assert "Traceback" not in printed
    checkpoint = Path(get_last_checkpoint(str(tmp_path / "run")))
    stopped = int(checkpoint.name.split("-")[1])
    assert 1 <= stopped < 200
    advice = re.search(r"--resume_from_checkpoint \S+ --output_dir \S+", printed.replace(os.linesep, " "))
    assert advice, printed
    assert advice[0] == f"--resume_from_checkpoint last --output_dir {tmp_path / 'run'}"

    # Here, as tests/cli has it that the command is this function.
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "my_rewards", raising=False)
    assert main([*words, "--max_steps", str(stopped + 2), *advice[0].split()]) == 0
    monkeypatch.delitem(sys.modules, "my_rewards")
    history = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    steps = [entry["step"] for entry in history if "rvpo/k" in entry]
    assert steps == list(range(1, stopped + 3))
    assert history[steps.index(stopped + 1)]["rvpo/k"] == pytest.approx(0.5 + 1.5 * stopped / (stopped + 2))
    assert (tmp_path / "run" / "model.safetensors").exists()


def test_a_run_goes_on_with_the_prompts_of_its_later_epochs(build, tmp_path):
    """Two steps an epoch; TRL alone begins a resumed run's first epoch with the order of prompts of its very first."""
    options = {"per_device_train_batch_size": 32, "max_steps": 5, "save_strategy": "steps", "save_steps": 1}
    whole = build([graders.sure_warm], folder=tmp_path / "whole", **options)
    whole.train()
    prompts = [generation["prompts"] for generation in whole.generations]
    assert len({tuple(sorted(set(prompts[step] + prompts[step + 1]))) for step in (0, 2)}) == 1
    assert len({tuple(of_step) for of_step in prompts}) == 5
    for step in (1, 2, 3):
        resumed = build([graders.sure_warm], folder=tmp_path / f"from{step}", **options)
        resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{step}"))
        assert [generation["prompts"] for generation in resumed.generations] == prompts[step:], step
