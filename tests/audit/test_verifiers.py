"""Saved rollouts of verifiers, in the layout of today and in the earlier one."""

import json

import numpy as np
import pytest

from rvpo.audit import audit_log
from rvpo.audit.readers import open_log
from rvpo.errors import ConfigError

QUICK = {"methods": ["gdpo"], "draws": 20}
GROUPS, ROLLOUTS = 12, 4


def scores():
    """(group, rollout) -> met or not on two rewards."""
    return np.random.default_rng(0).integers(0, 2, size=(GROUPS, ROLLOUTS, 2)).astype(float)


def episode(group, rollout, **rewards):
    """An episode as verifiers 0.4.0 writes it, without what is not read; null values are left out there."""
    question = {"type": "Task", "data": {"idx": group, "prompt": f"question {group}"}, "key": f"key {group}"}
    trace = {
        "version": 1,
        "task": question,
        "agent": {"config": {"model": "m"}, "name": "solver", "trainable": True},
        "nodes": [
            {"message": {"role": "user", "content": f"question {group}"}, "sampled": False},
            {"message": {"role": "assistant", "content": f"answer {rollout}"}, "sampled": True},
        ],
        "rewards": {name: {"score": score, "weight": weight} for name, (score, weight) in rewards.items()},
        "metrics": {"num_turns": 1.0},
        "ok": True,
    }
    run = {"type": "train", "id": "r", "work": {"type": "train", "step": group // 2}}
    return {"id": "e", "env": {"id": "math"}, "task": question, "run": run, "ok": True, "traces": [trace]}


def lines(file, rows):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def traces(file, rewards):
    """Write the episode of every rollout; `rewards` says its rewards from its two scores, group and rollout."""
    met = scores()
    places = [(p, g) for p in range(GROUPS) for g in range(ROLLOUTS)]
    return lines(file, [episode(p, g, **rewards(*met[p, g], p, g)) for p, g in places])


def both(correct, style, *place):
    return {"correct": (correct, 1.0), "style": (style, 0.5)}


def test_named_rewards_of_traces_are_channels(tmp_path):
    file = traces(tmp_path / "traces.jsonl", both)
    result = audit_log(file, **QUICK)
    assert [channel.name for channel in result.channels] == ["correct", "style"]
    # As they were scored: the weights are in what the run maximised, their weighted sum.
    np.testing.assert_allclose([channel.mean.value for channel in result.channels], scores().mean(axis=(0, 1)))
    assert (result.groups, result.rollouts, result.steps) == (GROUPS, GROUPS * ROLLOUTS, (0, 5))
    assert "advantage that the run used: reward, standardised in its group as GRPO does" in open_log(file).reading()
    assert result.reference == "logged"
    assert audit_log(tmp_path, **QUICK).to_dict()["channels"] == result.to_dict()["channels"]


def test_the_weighted_sum_is_what_the_run_maximised(tmp_path):
    """A reward of weight 0 is watched only: the logged advantage pushes the other one alone."""
    watched = traces(tmp_path / "traces.jsonl", lambda c, s, *_: {"correct": (c, 2.0), "style": (s, 0.0)})
    under = audit_log(watched, **QUICK).channel("correct").forecasts
    alone = (
        audit_log(traces(tmp_path / "alone.jsonl", both), rewards=["correct"], **QUICK).channel("correct").forecasts
    )
    assert under["logged"].change.value == pytest.approx(alone["gdpo"].change.value)


def test_a_reward_that_was_not_scored_is_missing(tmp_path):
    def without_the_first_style(correct, style, p, g):
        return {"correct": (correct, 1.0), **({"style": (style, 1.0)} if g else {})}

    result = audit_log(traces(tmp_path / "traces.jsonl", without_the_first_style), **QUICK)
    assert result.channel("style").missing.value == 0.25
    assert result.channel("correct").missing.value == 0.0


def test_only_trained_agents_count_and_each_is_a_group_of_its_own(tmp_path):
    file = traces(tmp_path / "traces.jsonl", both)
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for row in rows:
        (trace,) = row["traces"]
        for agent, trainable in (("critic", True), ("judge", False)):
            row["traces"].append(trace | {"agent": {"name": agent, "trainable": trainable}})
    result = audit_log(lines(file, rows), **QUICK)
    assert (result.groups, result.rollouts) == (2 * GROUPS, 2 * GROUPS * ROLLOUTS)


def test_episodes_of_evaluations_are_kept_apart(tmp_path):
    file = traces(tmp_path / "traces.jsonl", both)
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for row in rows[: 3 * ROLLOUTS]:
        row["run"]["work"]["type"] = "eval"
    assert audit_log(lines(file, rows), **QUICK).groups == GROUPS - 3


def test_names_of_rewards_that_are_names_of_columns(tmp_path):
    file = traces(tmp_path / "traces.jsonl", lambda c, s, *_: {"step": (c, 1.0), "reward": (s, 1.0)})
    result = audit_log(file, **QUICK)
    assert [channel.name for channel in result.channels] == ["step (named)", "reward (named)"]
    assert result.groups == GROUPS


def test_results_of_earlier_versions(tmp_path):
    """`metrics` also stand flattened in the row, and further maps and truth values beside them."""
    met = scores()
    rows = []
    for p in range(GROUPS):
        for g in range(ROLLOUTS):
            metrics = {"correct": met[p, g, 0], "style": met[p, g, 1], "num_turns": 1.0}
            rows.append(
                {
                    "example_id": p,
                    "prompt": [{"role": "user", "content": f"question {p}"}],
                    "completion": [{"role": "assistant", "content": f"answer {g}"}],
                    "answer": "7",
                    "reward": met[p, g, 0] + 0.5 * met[p, g, 1],
                    "timing": {"generation_ms": 3.0, "total_ms": 4.0},
                    "is_completed": True,
                    "is_truncated": False,
                    "metrics": metrics,
                    "token_usage": {"input_tokens": 3.0},
                    **metrics,
                }
            )
    result = audit_log(lines(tmp_path / "results.jsonl", rows), **QUICK)
    assert [channel.name for channel in result.channels] == ["correct", "style"]
    np.testing.assert_allclose([channel.mean.value for channel in result.channels], met.mean(axis=(0, 1)))
    assert (result.groups, result.reference) == (GROUPS, "logged")


@pytest.mark.parametrize(
    "broken",
    [
        {"traces": [{"rewards": {"correct": 1.0}}]},
        {"traces": [{"rewards": {"correct": {"weight": 1.0}}}]},
        {"traces": ["text"]},
        {"task": None, "traces": [{"rewards": {}}]},
    ],
)
def test_what_only_looks_like_an_episode_is_named_with_its_line(tmp_path, broken):
    whole = episode(0, 0, correct=(1.0, 1.0))
    file = lines(tmp_path / "traces.jsonl", [whole, whole | broken])
    with pytest.raises(ConfigError, match=r"traces\.jsonl, line 2 looks like an episode of verifiers"):
        audit_log(file, **QUICK)
