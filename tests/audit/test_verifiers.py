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


def episode(group, rollout, *, work="train", agent="solver", trainable=True, **rewards):
    """An episode as verifiers 0.4.0 writes it, without what is not read; null values are left out there."""
    question = {"type": "Task", "data": {"idx": group, "prompt": f"question {group}"}, "key": f"key {group}"}
    trace = {
        "version": 1,
        "task": question,
        "agent": {"config": {"model": "m"}, "name": agent, "trainable": trainable},
        "nodes": [
            {"message": {"role": "user", "content": f"question {group}"}, "sampled": False},
            {"message": {"role": "assistant", "content": f"answer {rollout}"}, "sampled": True},
        ],
        "rewards": {name: {"score": score, "weight": weight} for name, (score, weight) in rewards.items()},
        "metrics": {"num_turns": 1.0},
        "ok": True,
    }
    run = {"type": "train", "id": "r", "work": {"type": work, "step": group // 2}}
    return {"id": "e", "env": {"id": "math"}, "task": question, "run": run, "ok": True, "traces": [trace]}


def lines(file, rows):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_named_rewards_of_traces_are_channels(tmp_path):
    met = scores()
    rows = [
        episode(p, g, correct=(met[p, g, 0], 1.0), style=(met[p, g, 1], 0.5))
        for p in range(GROUPS)
        for g in range(ROLLOUTS)
    ]
    file = lines(tmp_path / "traces.jsonl", rows)
    result = audit_log(file, **QUICK)
    assert [channel.name for channel in result.channels] == ["correct", "style"]
    # As they were scored: the weights are in what the run maximised, their weighted sum.
    np.testing.assert_allclose([channel.mean.value for channel in result.channels], met.mean(axis=(0, 1)))
    assert (result.groups, result.rollouts, result.steps) == (GROUPS, GROUPS * ROLLOUTS, (0, 5))
    assert "advantage that the run used: reward, standardised in its group as GRPO does" in open_log(file).reading()
    assert result.reference == "logged"
    assert audit_log(tmp_path, **QUICK).to_dict()["channels"] == result.to_dict()["channels"]


def test_the_weighted_sum_is_what_the_run_maximised(tmp_path):
    """A reward of weight 0 is watched only: the logged advantage pushes the other one alone."""
    met = scores()
    rows = [
        episode(p, g, correct=(met[p, g, 0], 2.0), style=(met[p, g, 1], 0.0))
        for p in range(GROUPS)
        for g in range(ROLLOUTS)
    ]
    result = audit_log(lines(tmp_path / "traces.jsonl", rows), **QUICK)
    alone = audit_log(
        lines(tmp_path / "alone.jsonl", [episode(p, g, correct=(met[p, g, 0], 1.0), style=(met[p, g, 1], 1.0))
                                         for p in range(GROUPS) for g in range(ROLLOUTS)]),
        rewards=["correct"], **QUICK,
    )  # fmt: skip
    under = result.channel("correct").forecasts
    assert under["logged"].change.value == pytest.approx(alone.channel("correct").forecasts["gdpo"].change.value)


def test_a_reward_that_was_not_scored_is_missing(tmp_path):
    met = scores()
    rows = [
        episode(p, g, correct=(met[p, g, 0], 1.0), **({"style": (met[p, g, 1], 1.0)} if g else {}))
        for p in range(GROUPS)
        for g in range(ROLLOUTS)
    ]
    result = audit_log(lines(tmp_path / "traces.jsonl", rows), **QUICK)
    assert result.channel("style").missing.value == 0.25
    assert result.channel("correct").missing.value == 0.0


def test_only_trained_agents_count_and_each_is_a_group_of_its_own(tmp_path):
    met = scores()
    rows = []
    for p in range(GROUPS):
        for g in range(ROLLOUTS):
            rewards = {"correct": (met[p, g, 0], 1.0), "style": (met[p, g, 1], 1.0)}
            joined = episode(p, g, **rewards)
            for agent, trainable in (("critic", True), ("judge", False)):
                joined["traces"] += episode(p, g, agent=agent, trainable=trainable, **rewards)["traces"]
            rows.append(joined)
    result = audit_log(lines(tmp_path / "traces.jsonl", rows), **QUICK)
    assert (result.groups, result.rollouts) == (2 * GROUPS, 2 * GROUPS * ROLLOUTS)


def test_episodes_of_evaluations_are_kept_apart(tmp_path):
    met = scores()
    rows = [
        episode(p, g, work="eval" if p < 3 else "train", correct=(met[p, g, 0], 1.0), style=(met[p, g, 1], 1.0))
        for p in range(GROUPS)
        for g in range(ROLLOUTS)
    ]
    assert audit_log(lines(tmp_path / "traces.jsonl", rows), **QUICK).groups == GROUPS - 3


def test_names_of_rewards_that_are_names_of_columns(tmp_path):
    met = scores()
    rows = [
        episode(p, g, step=(met[p, g, 0], 1.0), reward=(met[p, g, 1], 1.0))
        for p in range(GROUPS)
        for g in range(ROLLOUTS)
    ]
    result = audit_log(lines(tmp_path / "traces.jsonl", rows), **QUICK)
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
