"""Which prompts a batch has, and what is then trained on.

Prompts are drawn by the expected signal of their lowest channels, and groups without signal are replaced by those of
other prompts.
"""

import json
import math

import graders
import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from reference import replay

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
from rvpo.integrations.trl.sampler import (
    PromptSampler,
    group_signals,
    inclusion,
    prompt_sampler,
    systematic,
)
from rvpo.rewards.channels import Returned, assemble
from rvpo.rewards.declarations import Channel, Declaration

NAN = math.nan

SCORES = st.lists(st.floats(0, 100, allow_subnormal=False), min_size=1, max_size=12)
SHARES = st.floats(0.01, 0.99)


# --- Chances --------------------------------------------------------------------------------------------------


def test_chances_are_in_proportion_to_the_mix_of_floor_and_scores():
    # Shares 0.2 / 4 + 0.8 (0, 0.1, 0.4, 0.5) = 0.05, 0.13, 0.37, 0.45, twice.
    np.testing.assert_allclose(inclusion(np.array([0.0, 1, 4, 5]), 2, 0.2), [0.1, 0.26, 0.74, 0.9])


def test_what_is_above_one_goes_to_the_others_in_proportion():
    # Three of four: 3 (0.05, 0.05, 0.25, 0.65) has 1.95; the other two places in proportion 1 : 1 : 5 would give the
    # third 10/7; so it is sure, too, and the first two share the last place.
    np.testing.assert_allclose(inclusion(np.array([0.0, 0, 1, 3]), 3, 0.2), [0.5, 0.5, 1, 1])


@pytest.mark.parametrize("scores", [[0.0, 0.0, 0.0], [2.0, 2.0, 2.0]])
def test_without_differences_all_are_equal(scores):
    np.testing.assert_allclose(inclusion(np.array(scores), 2, 0.3), [2 / 3] * 3)


@given(SCORES, SHARES, st.data())
def test_chances_add_up_keep_the_floor_and_rise_with_the_score(scores, floor, data):
    number = data.draw(st.integers(1, len(scores)))
    chances = inclusion(np.array(scores), number, floor)
    assert chances.sum() == pytest.approx(number)
    assert chances.max() <= 1
    assert chances.min() >= number * floor / len(scores) - 1e-9
    assert (np.diff(chances[np.argsort(scores, kind="stable")]) >= -1e-9).all()


@given(SCORES, SHARES, st.data())
def test_each_is_chosen_with_its_chance_and_none_twice(scores, floor, data):
    number = data.draw(st.integers(1, len(scores)))
    chances = inclusion(np.array(scores), number, floor)
    grid = (np.arange(400) + 0.5) / 400
    chosen = [systematic(chances, start) for start in grid]
    assert all(len(set(places.tolist())) == number for places in chosen)
    shares = np.bincount(np.concatenate(chosen), minlength=len(scores)) / len(grid)
    np.testing.assert_allclose(shares, chances, atol=1.01 / 400)  # each is chosen over one stretch, or two ends of it


@given(st.lists(st.floats(-1, 1), min_size=5, max_size=5), st.integers(1, 5))
def test_weighted_by_importance_the_mean_of_a_batch_is_that_of_the_data_set(values, number):
    sampler = PromptSampler(5, 0.2)
    sampler.observe([0, 1, 2, 3], [{"a": (float(row % 2), 0.1 * row)} for row in range(4)])
    drawn = [sampler.draw(number, seed) for seed in range(300)]
    for draw in drawn:
        assert max(draw.weights) <= 1 / 0.2 + 1e-9
        assert len(set(draw.rows)) == number
    means = np.array([np.mean(np.array(values)[draw.rows] * draw.weights) for draw in drawn])
    error = means.std() / math.sqrt(len(means))
    assert abs(means.mean() - np.mean(values)) <= 5 * error + 1e-9


# --- What groups show -----------------------------------------------------------------------------------------


def rubric(rows, group_size=2, **options):
    return assemble([Returned("rubric", Declaration(template=Channel("", (0, 1))), 1.0, rows)], group_size, **options)


def test_a_channel_varies_if_two_of_its_rewards_differ():
    rows = [
        {"a/x": 1.0, "b/y": 0.5, "b/z": 1.0},
        {"a/x": 0.0, "b/y": 0.5, "b/z": NAN},  # b/z has a single value
        {"b/w": 0.0, "a/x": 0.25},
        {"b/w": 0.0, "a/x": 0.75},
    ]
    assert group_signals(rubric(rows), 2) == [
        {"a/x": (1.0, 0.5), "b/y": (0.0, 0.5)},
        {"b/w": (0.0, 0.0), "a/x": (1.0, 0.5)},
    ]
    assert group_signals(rubric(rows, weights={"rubric/a": 0.0}), 2) == [{"b/y": (0.0, 0.5)}, {"b/w": (0.0, 0.0)}]
    assert group_signals(rubric([{}, {}, {"a": 1.0}, {"a": 1.0}]), 2) == [{}, {"a": (0.0, 1.0)}]
    assert group_signals(rubric([{}, {}]), 2) == [{}]


def test_means_are_on_the_range_and_those_of_penalties_turned_round():
    declared = Declaration((Channel("score", (-3, 3)), Channel("flaws", (0, 4))))
    rows = [{"score": 0.0, "flaws": 1.0}, {"score": 3.0, "flaws": 1.0}]
    (score,) = group_signals(assemble([Returned("all", declared, 1.0, rows)], 2), 2)
    assert score == {"score": (1.0, 0.75), "flaws": (0.0, 0.25)}
    (turned,) = group_signals(assemble([Returned("all", declared, -1.0, rows)], 2), 2)
    assert turned == {"score": (1.0, 0.25), "flaws": (0.0, 0.75)}


def test_columns_of_several_rewards_keep_their_names():
    scalar = Returned("plain", Declaration(is_vector=False), 1.0, [0.0, 1.0, 1.0, 1.0])
    rows = [{"a": 1.0, "b": 1.0}, {"a": 1.0, "b": 0.0}, {"c": 1.0}, {"c": 0.0}]
    ragged = Returned("rubric", Declaration(template=Channel("", (0, 1))), 1.0, rows)
    last = Returned("last", Declaration(is_vector=False), 1.0, [0.5, 0.5, 0.0, 0.5])
    assert group_signals(assemble([scalar, ragged, last], 2), 2) == [
        {"plain": (1.0, 0.5), "a": (0.0, 1.0), "b": (1.0, 0.5), "last": (0.0, 0.5)},
        {"plain": (0.0, 1.0), "c": (1.0, 0.5), "last": (1.0, 0.25)},
    ]


# --- Scores ---------------------------------------------------------------------------------------------------


def test_a_prompts_score_is_how_often_its_lowest_channels_are_expected_to_vary():
    sampler = PromptSampler(3, 0.2)
    np.testing.assert_array_equal(sampler.scores(), [0, 0, 0])
    groups = [{"a": (1.0, 0.25), "b": (0.0, 1.0)}, {"a": (0.0, 0.0), "b": (1.0, 0.5)}]
    assert math.isnan(sampler.low_signal(groups))
    sampler.observe([0, 1], groups)
    # Of the two channels "a" is the lower (0.125 against 0.75) and varied in one group of two. With it as one group
    # more: (1 + 0.5) / 2 and (0 + 0.5) / 2; the prompt that was not drawn is as the average of them.
    np.testing.assert_allclose(sampler.scores(), [0.75, 0.25, 0.5])
    assert sampler.low_signal(groups) == 0.5
    # Shares 0.2 / 3 + 0.8 (1/2, 1/6, 1/3).
    draw = sampler.draw(1, 0)
    assert draw.weights[0] == pytest.approx(1 / (3 * [7 / 15, 1 / 5, 1 / 3][draw.rows[0]]))
    assert draw.effective == pytest.approx(1 / ((7 / 15) ** 2 + 1 / 25 + 1 / 9))
    sampler.observe([0], [{"a": (0.0, 0.0)}])
    # Earlier batches count 0.8: 0.8 of 2.6 groups; the prompt's own earlier group counts 0.5.
    share = 0.8 / 2.6
    expected = [(0.5 + share) / 2.5, share / 2]
    np.testing.assert_allclose(sampler.scores(), [*expected, np.mean(expected)])


def test_a_criterion_that_was_seldom_met_with_stands_at_its_tag():
    channels = [["a/x", "a/y"], ["b/z"], ["a/new"], ["b/z", "a/y"], ["c/none"], []]
    sampler = PromptSampler(6, 0.2, channels)
    np.testing.assert_array_equal(sampler.scores(), np.zeros(6))
    sampler.observe([0, 1], [{"a/x": (1.0, 0.5), "a/y": (0.0, 0.0)}, {"b/z": (1.0, 1.0)}])
    # Tags: a varied in 1 of 2 with mean 0.25, b in 1 of 1 with mean 1, c as their average: 0.75 and 0.625.
    # Channels: a/x (1 + 0.5) / 2 with mean 0.375, a/y 0.25 with 0.125, b/z 1 with 1, a/new 0.5 with 0.25, c/none 0.75
    # with 0.625. The lowest two of five are a/y and a/new.
    # Prompts: (0 + 0.25) / 2 as it has one group, 0, 0.5, 0.25, 0; one without channels is as the average.
    scores = [0.125, 0.0, 0.5, 0.25, 0.0]
    np.testing.assert_allclose(sampler.scores(), [*scores, np.mean(scores)])


def test_its_state_goes_on_where_it_was():
    def batch(seed):
        rng = np.random.default_rng(seed)
        groups = [{f"{tag}/{i}": tuple(rng.random(2)) for tag in "abc" for i in range(3)} for _ in range(4)]
        return rng.permutation(9)[:4].tolist(), groups

    channels = [[f"a/{row % 3}"] for row in range(9)]
    whole, other = (PromptSampler(9, 0.2, channels) for _ in range(2))
    for seed in range(3):
        whole.draw(2, 0)
        whole.observe(*batch(seed))
    other.restore(json.loads(json.dumps(whole.state())))
    for seed in range(3, 6):
        drawn, redrawn = whole.draw(4, 7), other.draw(4, 7)
        assert drawn.rows == redrawn.rows
        assert drawn.weights.tolist() == redrawn.weights.tolist()
        for sampler in (whole, other):
            sampler.observe(*batch(seed))
    assert whole.state() == other.state()
    unused = PromptSampler(9, 0.2, channels)
    unused.restore({})
    assert unused.state() == PromptSampler(9, 0.2, channels).state()
    with pytest.raises(ConfigError, match="the 9 prompts of the checkpoint by their place, but the data set has 8"):
        PromptSampler(8, 0.2).restore(whole.state())


# --- Data sets ------------------------------------------------------------------------------------------------

RUBRICS = [
    ["a/x", "b/y"],
    [{"id": "r", "text": "Rests.", "tags": ["a/b"]}, {"text": "Greets."}],
    None,
    '[{"id": "s", "text": "Sleeps.", "tags": ["c"]}]',
]


@pytest.mark.parametrize("cell", range(4))
def test_a_row_names_its_channels_or_has_its_rubric(cell):
    rows = [{"prompt": "p", "rubric": RUBRICS[cell]}]
    names = [["a/x", "b/y"], ["a-b/r", "c2"], [], ["c/s"]][cell]
    expected = PromptSampler(1, 0.3, [names]).state()
    assert prompt_sampler(rows, 1, 0.3, "rubric").state() == expected
    assert prompt_sampler(Dataset.from_list(rows), 1, 0.3, "rubric").state() == expected


@pytest.mark.parametrize(
    ("rows", "column", "message"),
    [
        (iter([]), None, "a stream has none"),
        ([{"prompt": "p"}], None, "draws 2 different prompts a batch, but the data set has 1"),
        ([{"prompt": "p"}] * 2, "rubric", "names 'rubric', but the columns are prompt"),
        (Dataset.from_list([{"prompt": "p"}] * 2), "rubric", "names 'rubric', but the columns are prompt"),
    ],
)
def test_data_that_it_cannot_draw_from_is_refused(rows, column, message):
    with pytest.raises(ConfigError, match=message):
        prompt_sampler(rows, 2, 0.2, column)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt_sampling": "random"}, "prompt_sampling must be uniform or signal"),
        ({"prompt_sampling_floor": 0.5}, "prompt_sampling_floor has no effect with prompt_sampling 'uniform'"),
        ({"prompt_sampling_unbiased": True}, "prompt_sampling_unbiased has no effect"),
        ({"prompt_sampling_channels": "rubric"}, "prompt_sampling_channels has no effect"),
        *(
            ({"prompt_sampling": "signal", "prompt_sampling_floor": floor}, "must be a number in \\(0, 1\\)")
            for floor in (0, 0.0, 1, 1.5, True, "much")
        ),
        ({"prompt_sampling": "signal", "shuffle_dataset": False}, "shuffle_dataset false keeps the data set's order"),
        (
            {"prompt_sampling": "signal", "prompt_sampling_unbiased": True, "resample_dead": 1},
            "prompt_sampling_unbiased and resample_dead contradict each other",
        ),
        ({"prompt_sampling": "signal", "prompt_sampling_channels": "rubric"}, "but the columns are"),
    ],
)
def test_options_that_cannot_work_are_errors(build, options, message):
    with pytest.raises(ConfigError, match=message):
        build([graders.sure_warm], **options)


# --- Training on prompts that are drawn --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"max_steps": 4},
        {"max_steps": 8, "num_iterations": 2, "steps_per_generation": 2},
        {"max_steps": 3, "gradient_accumulation_steps": 2, "per_device_train_batch_size": 12},
        {"max_steps": 2, "gradient_accumulation_steps": 4, "steps_per_generation": 2, "num_iterations": 1},
    ],
)
def test_every_prompt_has_its_group_and_every_rollout_is_trained_on(run, options):
    trainer = run([graders.sure_warm], prompt_sampling="signal", **options)
    prompts = trainer.train_dataset["prompt"]
    drawn = [draw for draw, *_ in replay(trainer.generations, prompts, ["sure_warm"])]
    assert len({tuple(draw.rows) for draw in drawn}) == len(drawn) > 1
    times = options.get("num_iterations", 1)
    rollouts = [
        pair
        for generation in trainer.generations
        for pair in zip(generation["ids"], generation["advantages"], strict=True)
    ]
    assert sorted(trainer.trained) == sorted(rollouts * times)
    assert len(trainer.trained) == options["max_steps"] * 8 * options.get("gradient_accumulation_steps", 1) * (
        options.get("per_device_train_batch_size", 8) / 8
    )


def test_on_request_advantages_are_weighted_by_importance(run):
    options = {"prompt_sampling_unbiased": True, "prompt_sampling_floor": 0.5, "per_device_train_batch_size": 16}
    names = ["rare", "patchy", "gappy"]
    trainer = run([getattr(graders, name) for name in names], prompt_sampling="signal", max_steps=4, **options)
    replayed = list(replay(trainer.generations, trainer.train_dataset["prompt"], names, floor=0.5))
    assert len({weight for draw, *_ in replayed for weight in draw.weights.tolist()}) > 4
    entries = [entry for entry in trainer.state.log_history if "rvpo/low_signal" in entry]
    assert len({entry["rvpo/low_signal"] for entry in entries}) > 1
    for generation, entry, drawn in zip(trainer.generations, entries, replayed, strict=True):
        draw, advantages, low_signal = drawn
        np.testing.assert_allclose(generation["advantages"], advantages * np.repeat(draw.weights, 4), atol=1e-6)
        assert entry["rvpo/low_signal"] == low_signal
        assert entry["rvpo/effective_prompts"] == pytest.approx(draw.effective)


def test_groups_generated_anew_are_seen_by_the_sampler_too(run):
    generated = []

    def patchy(prompts, completions, **kwargs):
        generated.extend(prompts)
        return graders.patchy(prompts, completions)

    trainer = run([patchy], prompt_sampling="signal", resample_dead=2, per_device_train_batch_size=24)
    prompts = trainer.train_dataset["prompt"]
    known = {prompts[row] for row, *_ in trainer._prompts.state()["visited"]}
    assert known == set(generated)
    assert len(known) > 6
    (entry,) = [entry for entry in trainer.state.log_history if "rvpo/generated" in entry]
    assert entry["rvpo/generated"] == len(generated)


def matrix(rows, group_size=2, weights=None):
    channels = tuple(Channel(name, (0, 1)) for name in rows[0])
    return assemble([Returned("all", Declaration(channels), 1.0, rows)], group_size, weights=weights)


# --- Groups without signal -------------------------------------------------------------------------------------


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
    by_all = [False, False, False, True]
    assert dead_groups(rewards, 2, []).tolist() == dead_groups(rewards, 2, None).tolist() == by_all
    # Watched only, the low one decides nothing: the groups are judged by the other.
    assert dead_groups(matrix(rows, weights={"low": 0.0}), 2, ["low"]).tolist() == [True, False, False, True]


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


# --- Training on groups that are replaced ------------------------------------------------------------------------


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
