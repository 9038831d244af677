"""Groups without signal are replaced by those of other prompts: which, by what, and what is then trained on."""

import json
import math

import graders
import numpy as np
import pytest
import torch

from rvpo import ConfigError, compute_advantages
from rvpo.errors import IntegrationError
from rvpo.integrations.trl.resampling import (
    Refill,
    dead_groups,
    draw_rows,
    merge_outputs,
    neglected_channels,
    plan_refill,
)
from rvpo.rewards.channels import Returned, assemble
from rvpo.rewards.declarations import Channel, Declaration

NAN = math.nan


def matrix(rows, group_size=2, weights=None):
    channels = tuple(Channel(name, (0, 1)) for name in rows[0])
    return assemble([Returned("all", Declaration(channels), 1.0, rows)], group_size, weights=weights)


# --- Parts ----------------------------------------------------------------------------------------------------


def test_a_group_is_dead_if_no_channel_with_a_weight_varies():
    rows = [
        *({"a": 0.5, "b": 1.0}, {"a": 0.5, "b": 0.0}),  # b varies
        *({"a": 0.5, "b": 1.0}, {"a": 0.5, "b": 1.0}),  # nothing varies
        *({"a": NAN, "b": 1.0}, {"a": 0.5, "b": NAN}),  # one value each
        *({"a": 0.5, "b": NAN}, {"a": 0.25, "b": NAN}),  # a varies
    ]
    assert dead_groups(matrix(rows), 2, None).tolist() == [False, True, True, False]
    assert dead_groups(matrix(rows, weights={"b": 0.0}), 2, None).tolist() == [True, True, True, False]


def test_by_neglected_channels_a_group_is_dead_if_none_of_those_that_it_has_varies():
    rows = [
        *({"low": 1.0, "high": 1.0}, {"low": 0.0, "high": 1.0}),
        *({"low": 0.0, "high": 1.0}, {"low": 0.0, "high": 0.0}),  # the high one alone varies
        *({"low": NAN, "high": 1.0}, {"low": NAN, "high": 0.0}),  # without the low one's values it is dead in it
        *({"low": 0.0, "high": 1.0}, {"low": 0.0, "high": 1.0}),
    ]
    rewards = matrix(rows)
    assert neglected_channels(rewards, 2) == ["low"]
    assert dead_groups(rewards, 2, ["low"]).tolist() == [False, True, True, True]
    assert (
        dead_groups(rewards, 2, []).tolist() == dead_groups(rewards, 2, None).tolist() == [False, False, False, True]
    )


def test_a_prompt_without_any_neglected_criterion_is_judged_by_all():
    rows = [{"a/x": 0.0, "b/y": 1.0}, {"a/x": 0.0, "b/y": 0.0}, {"b/z": 1.0}, {"b/z": 0.0}]
    rubric = assemble([Returned("rubric", Declaration(template=Channel("", (0, 1))), 1.0, rows)], 2)
    assert neglected_channels(rubric, 2) == ["rubric/a"]
    assert dead_groups(rubric, 2, ["rubric/a"]).tolist() == [True, False]


@pytest.mark.parametrize(("mean", "is_neglected"), [(0.25, True), (0.3, False)])
def test_neglected_is_below_three_tenths_of_the_range(mean, is_neglected):
    rows = [{"a": 2 * mean}, {"a": 0.0}]
    assert neglected_channels(matrix(rows), 2) == (["a"] if is_neglected else [])


def test_places_are_filled_in_order_by_each_process_for_itself():
    dead = np.array([True, False, True, False, False, True])
    # Process 0 has two dead groups and one new one with signal; process 1 one dead and two new with signal.
    refill = plan_refill(dead, np.array([True, False, False, False]), processes=2)
    assert (refill.replaced.tolist(), refill.new.tolist()) == ([0, 5], [1, 2])
    parts = [refill.of_process(index, 3, 2) for index in (0, 1)]
    assert [(part.replaced.tolist(), part.new.tolist()) for part in parts] == [([0], [1]), ([2], [0])]


def test_prompts_are_drawn_without_replacement_and_the_same_for_a_key():
    assert sorted(draw_rows(10, 10, (3, 5, 0)).tolist()) == list(range(10))
    assert draw_rows(4, 1000, (3, 5, 0)).tolist() == draw_rows(4, 1000, (3, 5, 0)).tolist()
    assert draw_rows(4, 1000, (3, 5, 0)).tolist() != draw_rows(4, 1000, (3, 5, 1)).tolist()
    assert sorted(draw_rows(5, 2, (0, 0, 0)).tolist()[:4]) == [0, 0, 1, 1]


def test_outputs_of_two_widths_are_padded_as_trl_pads():
    old = {
        "prompt_ids": torch.tensor([[1, 2], [1, 2], [3, 4], [3, 4]]),
        "completion_mask": torch.tensor([[1], [1], [1], [1]]),
        "old_per_token_logps": None,
        "num_items_in_batch": 4,
    }
    new = {
        "prompt_ids": torch.tensor([[5, 6, 7], [5, 6, 7]]),
        "completion_mask": torch.tensor([[1, 1], [1, 0]]),
        "old_per_token_logps": None,
        "num_items_in_batch": 3,
    }
    merged = merge_outputs(old, new, Refill(np.array([1]), np.array([0])), 2)
    assert merged["prompt_ids"].tolist() == [[0, 1, 2], [0, 1, 2], [5, 6, 7], [5, 6, 7]]
    assert merged["completion_mask"].tolist() == [[1, 0], [1, 0], [1, 1], [1, 0]]
    assert old["completion_mask"].tolist() == [[1], [1], [1], [1]]
    with pytest.raises(IntegrationError, match="resample_dead cannot put 'pixel_values' of two batches together"):
        merge_outputs({"pixel_values": 1}, {}, Refill(np.array([1]), np.array([0])), 2)


# --- Training -------------------------------------------------------------------------------------------------


def table(trainer):
    logs = trainer._logs
    return list(logs["prompt"]), list(logs["completion"]), logs["rewards"], list(logs["advantages"])


@pytest.mark.parametrize("times", [1, 3])
def test_dead_groups_are_replaced_by_groups_with_signal(run, times):
    trainer = run([graders.patchy], resample_dead=times, per_device_train_batch_size=24)
    prompts, completions, rewards, advantages = table(trainer)
    assert [graders.patchy([p], [c])[0] for p, c in zip(prompts, completions, strict=True)] == list(rewards["patchy"])
    groups = np.asarray(list(rewards["patchy"])).reshape(-1, 4)
    assert all(len(set(prompts[i : i + 4])) == 1 for i in range(0, 24, 4))
    (entry,) = [entry for entry in trainer.state.log_history if "rvpo/dropped" in entry]
    dead = float((np.ptp(groups, axis=1) == 0).mean())
    assert entry["rvpo/dead_after"] == pytest.approx(dead)
    assert entry["rvpo/dead_before"] > dead
    assert 0 < entry["rvpo/dropped"] <= times / (times + 1)
    expected = compute_advantages(np.asarray(list(rewards["patchy"]))[:, None], group_size=4, k=1.0).advantages
    np.testing.assert_allclose(advantages, expected, atol=3e-7)


def test_what_is_trained_on_are_the_rollouts_of_the_merged_batch(run):
    trainer = run([graders.patchy], resample_dead=2, per_device_train_batch_size=24, beta=0.1, num_iterations=2)
    _, completions, _, advantages = table(trainer)
    (generation,) = trainer.generations
    decode = trainer.processing_class.decode
    texts = [decode(json.loads("[" + ids.split("] [")[1]), skip_special_tokens=True) for ids in generation["ids"]]
    masked = [text.split()[: len(completion.split())] for text, completion in zip(texts, completions, strict=True)]
    assert masked == [completion.split() for completion in completions]
    np.testing.assert_allclose(generation["advantages"], advantages, atol=3e-7)
    assert sorted(trainer.trained) == sorted(zip(generation["ids"], generation["advantages"], strict=True))


def test_a_run_without_dead_groups_is_as_without_resampling(run):
    plain, resampling = (run([graders.sure_warm], max_steps=2, resample_dead=times) for times in (0, 2))
    for first, other in zip(plain.generations, resampling.generations, strict=True):
        assert first == other
    assert [entry["rvpo/dropped"] for entry in resampling.state.log_history if "rvpo/dropped" in entry] == [0.0, 0.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resample_dead": -1}, "resample_dead must be a whole number >= 0"),
        ({"resample_signal": "some"}, "resample_signal must be any or neglected"),
        ({"resample_signal": "neglected"}, "resample_signal 'neglected' has no effect without resample_dead"),
    ],
)
def test_options_out_of_their_domain_are_errors(build, options, message):
    with pytest.raises(ConfigError, match=message):
        build([graders.sure_warm], **options)
