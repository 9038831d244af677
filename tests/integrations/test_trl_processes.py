"""Two processes over gloo, launched as users launch them: each trains on its part of the same advantages."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from importlib.metadata import version
from pathlib import Path

import graders
import numpy as np
import pytest
from packaging.version import Version
from recording import read_records
from reference import (
    assert_metrics,
    completions_table,
    expected_metrics,
    moving_average,
    replay,
    weights_with_multipliers,
)

from rvpo import compute_advantages

SCRIPT = Path(__file__).parent / "scripts" / "train_recorded.py"
NAMES = ["sure_warm", "graded", "gappy_async", "rubric", "marked"]
TARGETS = {"sure_warm": 0.875, "rubric/style": 0.75}
SPLIT = {"per_device_train_batch_size": 6, "max_steps": 3}  # 12 rollouts: the middle group of 4 lies on both
RUNS = {
    "linear": {
        "rewards": NAMES,
        "options": {
            **SPLIT,
            "k_schedule": "linear",
            "k": 0.5,
            "k_end": 2.0,
            "eval_strategy": "steps",
            "eval_steps": 2,
            "num_generations_eval": 2,
            "per_device_eval_batch_size": 3,
            "log_completions": True,
        },
    },
    "token": {
        "rewards": ["gappy", "rubric"],
        "options": {**SPLIT, "whiten": "token", "steps_per_generation": 2, "max_steps": 2},
    },
    "average": {
        "rewards": ["rubric", "sure_warm"],
        "options": {
            **SPLIT,
            "method": "rvpo_policy",
            "method_options": {"anchor": "average"},
            "channel_targets": TARGETS,
            "target_rate": 1.0,
        },
    },
    "of the batch": {"rewards": ["graded", "sure_warm"], "options": {**SPLIT, "method": "saw", "max_steps": 1}},
    "resampled": {
        "rewards": ["patchy", "rare"],
        "options": {
            "per_device_train_batch_size": 12,
            "max_steps": 2,
            "resample_dead": 2,
            "resample_signal": "neglected",
            "log_completions": True,
            "save_strategy": "steps",
            "save_steps": 1,
        },
    },
    "sampled": {
        "rewards": ["rare", "patchy"],
        "options": {**SPLIT, "max_steps": 6, "prompt_sampling": "signal", "prompt_sampling_unbiased": True},
    },
    # Goes on from the first checkpoint of the run that was not stopped.
    "resampled on": {"resume": "resampled/checkpoint-1"},
    "interrupted": {"rewards": ["sure_warm"], "options": {**SPLIT, "max_steps": 9}, "interrupt_rank": 1},
}
RUNS["resampled on"] |= RUNS["resampled"]


LINGERING = 240.0
"""Seconds that processes may take to end; those that hang never do."""
LONGEST = 600.0


def free_port():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


@pytest.fixture(scope="module")
def out(policy, rows, tmp_path_factory):
    """Folder with the records of both processes."""
    folder = tmp_path_factory.mktemp("processes")
    rows.to_parquet(folder / "rows.parquet")
    order = {
        "policy": str(policy),
        "rows": str(folder / "rows.parquet"),
        "out": str(folder),
        "processes": 2,
        "runs": [
            {"name": name, **run} | ({"resume": str(folder / run["resume"])} if "resume" in run else {})
            for name, run in RUNS.items()
        ],
    }
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    command = [*launch, "--main_process_port", str(free_port()), str(SCRIPT), json.dumps(order)]
    (folder / "end.json").write_text(json.dumps(ended(command, folder / "errors")))
    return folder


def ended(command, errors):
    """Run a launcher of two processes, which say when they have trained; return how it ended, after how many said so.

    What is still there `LINGERING` seconds after the second one is killed.
    """
    with errors.open("w") as file:
        launched = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=file, text=True, start_new_session=True)
    kill = threading.Timer(LONGEST, os.killpg, (launched.pid, signal.SIGKILL))
    kill.start()
    trained = 0
    while trained < 2 and (line := launched.stdout.readline()):
        trained += line.count("<trained>")  # two processes may share a line
    try:
        status = launched.wait(timeout=LINGERING)
    except subprocess.TimeoutExpired:
        status = "still there"
        os.killpg(launched.pid, signal.SIGKILL)
    kill.cancel()
    launched.stdout.close()
    return {"status": status, "trained": trained, "errors": errors.read_text()[-4000:]}


def test_both_processes_end_when_the_last_run_ends(out):
    end = json.loads((out / "end.json").read_text())
    assert (end["trained"], end["status"]) == (2, 0), end["errors"]


def records(out, name):
    """For each generation the records of rank 0 and 1."""
    return list(zip(*(read_records(out / f"{name}-{rank}.jsonl") for rank in (0, 1)), strict=True))


def joined(pair, key):
    return pair[0][key] + pair[1][key]


def float32(values):
    return np.asarray(values, dtype=np.float32)


def k_at(step):
    return 0.5 + 1.5 * step / 3


def table(pair, names, group_size=4):
    return graders.matrix(names, joined(pair, "prompts"), joined(pair, "completions"), group_size)


def test_each_rank_trains_on_its_slice_of_what_one_process_computes(out):
    pairs = [pair for pair in records(out, "linear") if pair[0]["training"]]
    assert len(pairs) == 3
    for pair in pairs:
        values, _, weights = table(pair, NAMES)
        assert values.shape[0] == 12
        expected = compute_advantages(values, group_size=4, k=k_at(pair[0]["step"]), weights=weights).advantages
        np.testing.assert_array_equal(float32(pair[0]["advantages"]), float32(expected[:6]))
        np.testing.assert_array_equal(float32(pair[1]["advantages"]), float32(expected[6:]))


def test_a_statistic_of_the_batch_is_over_the_rollouts_of_all_ranks(out):
    (pair,) = records(out, "of the batch")
    values, _, weights = table(pair, ["graded", "sure_warm"])
    expected = compute_advantages(values, group_size=4, method="saw", weights=weights).advantages
    np.testing.assert_array_equal(float32(joined(pair, "advantages")), float32(expected))
    # What rank 0 alone holds has another statistic: its own groups do not give its advantages.
    of_a_rank = compute_advantages(values[:4], group_size=4, method="saw", weights=weights, whiten=False).unwhitened
    whole = compute_advantages(values, group_size=4, method="saw", weights=weights, whiten=False).unwhitened
    assert abs(of_a_rank - whole[:1]).max() > 1e-3


def test_the_rollouts_of_a_prompt_lie_on_both_ranks_and_differ(out):
    for first, second in records(out, "linear"):
        if first["training"]:
            assert first["prompts"][-2:] == second["prompts"][:2]
            assert first["completions"] != second["completions"]


def test_evaluation_over_two_ranks_is_that_of_one(out):
    pairs = [pair for pair in records(out, "linear") if not pair[0]["training"]]
    assert {pair[0]["step"] for pair in pairs} >= {2}
    for pair in pairs:
        values, _, weights = table(pair, NAMES, group_size=2)
        assert values.shape[0] == 6
        expected = compute_advantages(values, group_size=2, k=k_at(pair[0]["step"]), weights=weights).advantages
        np.testing.assert_array_equal(float32(joined(pair, "advantages")), float32(expected))


def test_metrics_and_k_are_those_of_all_ranks_rollouts_on_every_rank(out):
    histories = [json.loads((out / f"linear-{rank}.log.json").read_text())["history"] for rank in (0, 1)]
    pairs = [pair for pair in records(out, "linear") if pair[0]["training"]]
    for history in histories:
        entries = [entry for entry in history if "rvpo/k" in entry]
        for entry, pair in zip(entries, pairs, strict=True):
            values, labels, weights = table(pair, NAMES)
            expected = expected_metrics(
                values, labels, 4, joined(pair, "advantages"), k=k_at(entry["step"] - 1), weights=weights
            )
            assert_metrics(entry, expected)


def test_whitening_over_tokens_uses_the_lengths_of_all_ranks(out):
    pairs = records(out, "token")
    assert len(pairs) == 1
    for pair in pairs:
        values, _, _ = table(pair, ["gappy", "rubric"])
        assert values.shape[0] == 24
        lengths = np.asarray(joined(pair, "lengths"))
        assert len(set(lengths)) > 2
        expected = compute_advantages(values, group_size=4, k=1.0, whiten="token", lengths=lengths).advantages
        np.testing.assert_array_equal(float32(joined(pair, "advantages")), float32(expected))


def test_the_moving_averages_and_multipliers_are_the_same_on_every_rank(out):
    names = ["rubric", "sure_warm"]
    averages, multipliers = {}, {}
    for pair in records(out, "average"):
        values, labels, weights = table(pair, names)
        anchor = moving_average(values, labels, averages, group_size=4, decay=0.9)
        weights = weights_with_multipliers(values, labels, weights, multipliers, TARGETS, group_size=4, rate=1.0)
        expected = compute_advantages(
            values, group_size=4, method="rvpo_policy", weights=weights, anchor=anchor
        ).advantages
        np.testing.assert_allclose(joined(pair, "advantages"), expected, rtol=0, atol=3e-7)


def test_the_completions_table_holds_all_ranks_rollouts(out):
    pair = records(out, "linear")[0]
    result = completions_table(out / "linear", 1)
    assert result["completion"].tolist() == joined(pair, "completions")
    np.testing.assert_allclose(result["advantage"], joined(pair, "advantages"), atol=3e-7)
    tone = [graders.value("tone", *texts) for texts in zip(result["prompt"], result["completion"], strict=True)]
    np.testing.assert_array_equal(result["tone"].astype(float), np.asarray(tone, dtype=float))
    if Version(version("trl")) < Version("1.0"):
        return  # its table has no room for the rubrics' rows
    rubrics = [graders.rubric_row(*texts) for texts in zip(result["prompt"], result["completion"], strict=True)]
    assert [set(json.loads(cell)) for cell in result["rubric/channels"]] == [set(row) for row in rubrics]


def test_groups_replaced_by_those_of_other_prompts_are_trained_on_where_they_were_generated(out):
    history = json.loads((out / "resampled-0.log.json").read_text())["history"]
    entries = [entry for entry in history if "rvpo/dropped" in entry]
    for step, (pair, entry) in enumerate(zip(records(out, "resampled"), entries, strict=True), 1):
        result = completions_table(out / "resampled", step)
        rewards = [
            [function([p], [c])[0] for function in (graders.patchy, graders.rare)]
            for p, c in result[["prompt", "completion"]].to_numpy()
        ]
        np.testing.assert_array_equal(result[["patchy", "rare"]].to_numpy(float), rewards)
        expected = compute_advantages(rewards, group_size=4, k=1.0).advantages
        np.testing.assert_allclose(joined(pair, "advantages"), expected, atol=3e-7)
        np.testing.assert_allclose(result["advantage"], expected, atol=3e-7)
        of_groups = np.asarray(rewards)[:, 1].reshape(-1, 4)
        assert entry["rvpo/dead_after"] == pytest.approx((np.ptp(of_groups, axis=1) == 0).mean())
        assert entry["rvpo/dead_after"] < entry["rvpo/dead_before"]
        assert 0 < entry["rvpo/dropped"] < 2 / 3


def test_a_run_that_goes_on_draws_the_same_prompts_for_dead_groups(out):
    (whole,) = [pair for pair in records(out, "resampled") if pair[0]["step"] == 1]
    assert records(out, "resampled on") == [whole]


def test_both_ranks_draw_prompts_by_what_the_rollouts_of_both_show(out, rows):
    pairs = records(out, "sampled")
    joint = [{key: joined(pair, key) for key in ("prompts", "completions", "advantages")} for pair in pairs]
    weights = set()
    for generation, (draw, advantages, _) in zip(
        joint, replay(joint, rows["prompt"], ["rare", "patchy"]), strict=True
    ):
        np.testing.assert_allclose(generation["advantages"], advantages * np.repeat(draw.weights, 4), atol=1e-6)
        weights |= set(draw.weights.tolist())
    assert len(weights) > 2


def test_a_signal_to_one_rank_stops_both_with_a_checkpoint(out):
    ends = [json.loads((out / f"interrupted-{rank}.log.json").read_text()) for rank in (0, 1)]
    assert [end["stopped_by"] for end in ends] == [signal.SIGTERM, signal.SIGTERM]
    steps = {end["step"] for end in ends}
    assert len(steps) == 1
    assert steps <= {1, 2}
    assert (out / "interrupted" / f"checkpoint-{steps.pop()}" / "model.safetensors").exists()
