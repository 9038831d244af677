"""From verl's rows in any order to groups and back; verl itself is not needed here."""

import json
import math

import numpy as np
import pytest

from rvpo import METHODS, compute_advantages
from rvpo.errors import ConfigError, JudgeError, RewardError
from rvpo.integrations.verl.config import VerlConfig
from rvpo.integrations.verl.estimator import Estimator, Rollouts

NAN = float("nan")


def k_of(method, k=2.0):
    return {"k": k} if METHODS[method].takes_k else {}


def estimator(**options):
    return Estimator(VerlConfig(**{"channels": ["a", "b"], **options}))


def rollouts(rewards, **others):
    """Rows of rewards (P, G, 2), prompt by prompt; NaN is None, as a score function returns it."""
    prompts, size, _ = rewards.shape
    infos = [
        {"score": 9.0, "a": None if math.isnan(a) else a, "b": None if math.isnan(b) else b}
        for a, b in rewards.reshape(-1, 2).tolist()
    ]
    names = [f"prompt-{p}" for p in range(prompts) for _ in range(size)]
    return Rollouts(infos, names, [1.0] * len(infos), **others)


def reordered(batch, order):
    return Rollouts(*(None if column is None else [column[row] for row in order] for column in batch))


@pytest.fixture
def rewards():
    rng = np.random.default_rng(0)
    values = rng.integers(0, 5, (4, 6, 2)) / 4.0
    values[1, 2, 0] = NAN
    values[2, :, 1] = NAN  # a channel that the prompt lacks
    values[3, 4, :] = NAN  # an unscored rollout
    return values


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_is_that_of_compute_advantages_whatever_the_order_of_rows(rewards, method):
    expected = compute_advantages(rewards, method=method, k=2.0).advantages.ravel()
    batch = rollouts(rewards)
    order = np.random.default_rng(1).permutation(len(expected))
    scored = estimator(method=method, **k_of(method)).score(reordered(batch, order), 0, 1)
    # The soft minimum and the sums over prompts are the same numbers added up in another order of prompts.
    np.testing.assert_allclose(scored.advantages, expected[order], rtol=0, atol=1e-12)
    assert np.abs(expected).max() > 0.5


def test_weights_follow_the_step(rewards):
    made = estimator(channel_weights={"a": "1 -> 0.2", "b": 0.5}, method="gdpo")
    for step in range(3):
        scored = made.score(rollouts(rewards), step, 4)
        weight = 1 - 0.8 * step / 4
        expected = compute_advantages(rewards, method="gdpo", weights=[weight, 0.5]).advantages.ravel()
        np.testing.assert_allclose(scored.advantages, expected, atol=1e-12)
        assert scored.metrics["channels/a/given_weight"] == pytest.approx(weight)
        assert "channels/b/given_weight" not in scored.metrics


def test_a_condition_is_applied_to_the_channels(rewards):
    expected = rewards.copy()
    a, b = expected[..., 0], expected[..., 1]
    b[:] = np.where(np.isnan(a + b), NAN, np.where(a >= 0.5, b, 0.0))
    scored = estimator(channel_conditions={"b": "a >= 0.5"}).score(rollouts(rewards), 0, 1)
    np.testing.assert_allclose(scored.advantages, compute_advantages(expected, k=1.0).advantages.ravel(), atol=1e-12)
    assert scored.metrics["channels/b/unmet"] == pytest.approx(np.mean(a[~np.isnan(a)] < 0.5))


def test_a_group_that_lacks_rollouts_is_its_own_group(rewards):
    # Prompt 0 has lost two sessions. Without whitening groups do not touch each other, so it is worked alone.
    batch = rollouts(rewards)
    kept = [row for row in range(24) if row not in (1, 4)]
    scored = estimator(whiten="false").score(reordered(batch, kept), 0, 1)
    alone = compute_advantages(rewards[:1, [0, 2, 3, 5]], whiten=False).advantages.ravel()
    others = compute_advantages(rewards[1:], whiten=False).advantages.ravel()
    np.testing.assert_allclose(scored.advantages, np.concatenate([alone, others]), atol=1e-12)
    # Rollouts with a value in a: 4 of 4, 5 of 6, 6 of 6, 5 of 6; rows that fill a group are not missing.
    assert scored.metrics["channels/a/missing"] == pytest.approx(1 - 20 / 22)
    assert scored.metrics["rvpo/unscored"] == 1


def test_rows_that_only_fill_the_batch_take_part_in_nothing(rewards):
    batch = rollouts(rewards)
    expected = estimator().score(batch, 0, 1)
    filled = Rollouts(
        [*batch.infos, *[batch.infos[0]] * 3],
        [*batch.groups, *["pad"] * 3],
        [*batch.lengths, *[1.0] * 3],
        is_real=[True] * 24 + [False] * 3,
    )
    scored = estimator().score(filled, 0, 1)
    np.testing.assert_array_equal(scored.advantages[:24], expected.advantages)
    np.testing.assert_array_equal(scored.advantages[24:], 0.0)
    assert scored.metrics == expected.metrics


def test_the_last_row_of_a_session_is_scored_for_all_its_rows(rewards):
    batch = rollouts(rewards)
    expected = estimator().score(batch, 0, 1).advantages
    # Every rollout has a first row with another reward before its last one, and the order is shuffled.
    wrong = [{"a": 1.0, "b": 0.0}] * 24
    both = Rollouts(
        [*wrong, *batch.infos],
        [*batch.groups, *batch.groups],
        [1.0] * 48,
        sessions=[(row, 0) for row in range(24)] + [(row, 1) for row in range(24)],
    )
    order = np.random.default_rng(2).permutation(48)
    advantages = estimator().score(reordered(both, order), 0, 1).advantages
    np.testing.assert_allclose(advantages, np.tile(expected, 2)[order], atol=1e-12)


def test_rubrics_of_different_length_come_as_json_and_missing_stays_missing():
    rubrics = {
        "x": [{"tone/p": 1.0, "dose/q": 0.0}, {"tone/p": 0.0, "dose/q": None}, {"tone/p": 0.0, "dose/q": 1.0}],
        "y": [{"dose/r": 1.0}, {"dose/r": 0.0}, {"dose/r": 1.0}],
    }
    infos = [
        {"rubric": json.dumps(row), "format": 0.5 * row_of}
        for name in "xy"
        for row_of, row in enumerate(rubrics[name])
    ]
    options = {"channels": ["rubric", "format"], "k": 2.0, "channel_weights": {"format": 0.5}}
    scored = estimator(**options).score(Rollouts(infos, list("xxxyyy"), [1.0] * 6), 0, 1)
    # Side by side by hand: format, then the criteria of the prompt in its own order.
    values = np.array(
        [
            [[0.0, 1.0, 0.0], [0.5, 0.0, NAN], [1.0, 0.0, 1.0]],
            [[0.0, 1.0, NAN], [0.5, 0.0, NAN], [1.0, 1.0, NAN]],
        ]
    )
    expected = compute_advantages(values, k=2.0, weights=[0.5, 1.0, 1.0]).advantages.ravel()
    np.testing.assert_allclose(scored.advantages, expected, atol=1e-12)
    assert scored.metrics["channels/rubric/tone/mean"] == pytest.approx(1 / 3)
    assert scored.metrics["channels/rubric/dose/mean"] == pytest.approx(3 / 5)
    assert scored.metrics["channels/rubric/dose/missing"] == pytest.approx(1 / 6)
    assert not any(map(math.isnan, scored.metrics.values()))


def test_k_follows_the_step_of_the_run(rewards):
    annealed = estimator(k_schedule="linear", k=0.5, k_end=2.0)
    for step, k in ((0, 0.5), (5, 1.25), (10, 2.0)):
        scored = annealed.score(rollouts(rewards), step, 10)
        assert scored.metrics["rvpo/k"] == pytest.approx(k)
        expected = compute_advantages(rewards, k=k).advantages.ravel()
        np.testing.assert_allclose(scored.advantages, expected, atol=1e-12)


def test_the_moving_average_is_kept_from_batch_to_batch():
    method = {"method": "rvpo_policy", "method_options": {"anchor": "average"}, "anchor_decay": 0.5, "k": 2.0}
    made = estimator(**method)
    first, second = np.zeros((1, 4, 2)), np.ones((1, 4, 2))
    first[0, :2, 0], second[0, 0, 1] = 1.0, 0.0  # means (0.5, 0), then (1, 0.75)
    made.score(rollouts(first), 0, 2)
    scored = made.score(rollouts(second), 1, 2)
    assert made.state.anchor == {"a": pytest.approx(0.75), "b": pytest.approx(0.375)}
    expected = compute_advantages(second, method="rvpo_policy", k=2.0, anchor=[0.75, 0.375]).advantages
    np.testing.assert_allclose(scored.advantages, expected.ravel(), atol=1e-12)


@pytest.mark.parametrize("method", sorted(set(METHODS) - {"hard_min"}))
def test_channels_below_their_target_weigh_more_in_every_method(rewards, method):
    seen = [row[0] for group in rewards for row in group if not math.isnan(row[0])]
    lacks = 0.875 - sum(seen) / len(seen)
    assert lacks > 0.1
    options = {"method": method, **k_of(method), "channel_weights": {"b": 0.5}}
    made = estimator(**options, channel_targets={"a": 0.875, "b": 0.0}, target_rate=2.0)
    once = made.score(rollouts(rewards), 0, 2)
    for multiplier, scored in ((2 * lacks, once), (4 * lacks, made.score(rollouts(rewards), 1, 2))):
        assert scored.metrics["channels/a/multiplier"] == pytest.approx(multiplier)
        assert scored.metrics["channels/b/multiplier"] == 0.0
        expected = compute_advantages(rewards, method=method, k=2.0, weights=[1.0 + multiplier, 0.5]).advantages
        np.testing.assert_allclose(scored.advantages, expected.ravel(), atol=1e-12)
    without = estimator(**options).score(rollouts(rewards), 0, 2)
    assert np.abs(once.advantages - without.advantages).max() > 1e-3
    assert "channels/a/multiplier" not in without.metrics


def test_a_channel_of_weight_0_counts_while_it_is_below_its_target(rewards):
    made = estimator(channel_weights={"b": 0.0}, channel_targets={"b": 1.0}, target_rate=1.0)
    lacks = 1.0 - np.nanmean(rewards[..., 1])
    expected = compute_advantages(rewards, weights=[1.0, lacks]).advantages.ravel()
    np.testing.assert_allclose(made.score(rollouts(rewards), 0, 2).advantages, expected, atol=1e-12)
    rewards[..., 1] = 1.0  # above its target from the start
    expected = compute_advantages(rewards[..., :1]).advantages.ravel()
    scored = estimator(channel_weights={"b": 0.0}, channel_targets={"b": 0.5}).score(rollouts(rewards), 0, 2)
    np.testing.assert_allclose(scored.advantages, expected, atol=1e-12)


def test_a_multiplier_follows_its_tag_from_column_to_column_and_batch_to_batch():
    rubrics = {
        "x": [{"tone/p": 1.0, "dose/q": 0.0}, {"tone/p": 0.0, "dose/q": None}, {"tone/p": 0.5, "dose/q": 0.5}],
        "y": [{"dose/r": 1.0}, {"dose/r": 0.0}, {"dose/r": 1.0}],
    }
    infos = [{"rubric": json.dumps(row)} for name in "xy" for row in rubrics[name]]
    made = estimator(channels=["rubric"], k=2.0, channel_targets='{"rubric/dose": 0.75}', target_rate=1.0)
    scored = made.score(Rollouts(infos, list("xxxyyy"), [1.0] * 6), 0, 3)
    # dose: (0, 0.5, 1, 0, 1), the lost verdict left out: 0.75 - 0.5. It is the second column of x and the first of y.
    assert scored.metrics["channels/rubric/dose/multiplier"] == pytest.approx(0.25)
    values = np.array([[[1.0, 0.0], [0.0, NAN], [0.5, 0.5]], [[1.0, NAN], [0.0, NAN], [1.0, NAN]]])
    expected = compute_advantages(values, k=2.0, weights=[[1.0, 1.25], [1.25, 1.0]]).advantages
    np.testing.assert_allclose(scored.advantages, expected.ravel(), atol=1e-12)
    assert np.abs(expected - compute_advantages(values, k=2.0).advantages).max() > 1e-3
    # No dose in the second batch: it stays. All doses met in the third: 0.25 + (0.75 - 1).
    tones = [{"rubric": json.dumps({"tone/s": value})} for value in (0.0, 1.0)]
    scored = made.score(Rollouts(tones, ["z", "z"], [1.0, 1.0]), 1, 3)
    assert scored.metrics["channels/rubric/dose/multiplier"] == pytest.approx(0.25)
    met = [{"rubric": json.dumps({"tone/s": value, "dose/t": 1.0})} for value in (0.0, 1.0)]
    scored = made.score(Rollouts(met, ["z", "z"], [1.0, 1.0]), 2, 3)
    assert scored.metrics["channels/rubric/dose/multiplier"] == 0.0


def test_lost_verdicts_beyond_the_limit_stop_the_run():
    row = {f"c{j}": 1.0 for j in range(5)}
    lost = row | {"c0": None, "c1": None}
    infos = [{"a": json.dumps(lost if i < 2 else row)} for i in range(4)]  # 4 of 20
    batch = Rollouts(infos, ["p"] * 4, [1.0] * 4)
    estimator(channels=["a"], max_missing=0.2).score(batch, 0, 1)
    with pytest.raises(JudgeError, match="4 of 20 verdicts of 'a'"):
        estimator(channels=["a"], max_missing=0.19).score(batch, 0, 1)


@pytest.mark.parametrize(
    ("info", "error", "message"),
    [
        ({"a": 1.0, "c": 1.0}, ConfigError, r"names \['b'\], but the score function returns \['a', 'c'\]"),
        ({"a": 1.0, "b": "fine"}, RewardError, "'b', rollout 0 of the batch, is text but no JSON"),
        ({"a": 1.0, "b": "[1]"}, RewardError, "not of an object"),
        ({"a": 1.0, "b": math.inf}, RewardError, "returned inf"),
        ({"a": [1.0], "b": 0.0}, RewardError, r"channel 'a' returned \[1.0\]"),
    ],
)
def test_what_is_no_reward_is_an_error_that_names_it(info, error, message):
    with pytest.raises(error, match=message):
        estimator().score(Rollouts([info, info], ["p", "p"], [1.0, 1.0]), 0, 1)


def test_a_channel_is_a_rubric_in_all_rollouts_or_in_none():
    infos = [{"a": 1.0, "b": '{"c": 1.0}'}, {"a": 1.0, "b": 0.5}]
    with pytest.raises(RewardError, match=r"'b' is a rubric in some rollouts and 0\.5 in others"):
        estimator().score(Rollouts(infos, ["p", "p"], [1.0, 1.0]), 0, 1)


@pytest.mark.parametrize(
    ("algorithm", "message"),
    [
        ({}, "must name, each once"),
        ({"rvpo": {"channels": "abc"}}, "must be a list of names"),
        ({"rvpo": {"channels": ["a", "a"]}}, "each once"),
        ({"rvpo": {"channel": ["a"]}}, "did you mean 'channels'"),
        ({"rvpo": {"channels": ["a"], "method": "rvop"}}, "did you mean 'rvpo'"),
        ({"rvpo": {"channels": ["a"], "max_missing": 2}}, "share in"),
        ({"rvpo": {"channels": ["a"], "channel_targets": {"a": "x"}}}, "a target is a finite number"),
        ({"rvpo": {"channels": ["a"]}, "use_kl_in_reward": True}, "use_kl_loss=True"),
        ({"rvpo": "gdpo"}, "mapping of options"),
        ({"gdpo_reward_keys": ["a", "b"], "gdpo_reward_weights": [1.0]}, "1 weights for the 2"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(algorithm, message):
    with pytest.raises(ConfigError, match=message):
        VerlConfig.from_algorithm(algorithm)


def test_verls_own_keys_for_gdpo_are_taken():
    algorithm = {"gdpo_reward_keys": ["a", "b"], "gdpo_reward_weights": [1.0, 0.5], "rvpo": {"k": 3.0}}
    config = VerlConfig.from_algorithm(algorithm)
    assert (config.channels, config.channel_weights, config.k) == (["a", "b"], {"a": 1.0, "b": 0.5}, 3.0)
    assert VerlConfig.from_algorithm(algorithm | {"rvpo": {"channels": ["c"], "channel_weights": None}}).channels == [
        "c"
    ]


def test_a_rollout_alone_with_its_prompt_gets_0_and_moves_no_other():
    rewards = np.array([[[0.0, 0.0], [1.0, 0.5], [0.5, 1.0]], [[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]]])
    batch = rollouts(rewards)
    alone = Rollouts([*batch.infos, {"a": 1.0, "b": 1.0}], [*batch.groups, "alone"], [*batch.lengths, 1.0])
    scored = estimator(k=2.0).score(alone, 0, 1)
    expected = compute_advantages(rewards, k=2.0).advantages.ravel()
    np.testing.assert_allclose(scored.advantages, [*expected, 0.0], rtol=0, atol=1e-12)
    assert scored.metrics["rvpo/lone"] == 1.0
    assert scored.metrics["channels/a/mean"] == pytest.approx(2.5 / 6)


def test_rollouts_that_are_all_alone_stop_the_run():
    infos = [{"a": 1.0, "b": 0.0}] * 3
    with pytest.raises(RewardError, match=r"each of the 3 rollouts is alone with its prompt \(uid\)"):
        estimator().score(Rollouts(infos, ["p", "q", "r"], [1.0] * 3), 0, 1)


def test_verls_option_of_unscaled_advantages_holds_for_grpo():
    algorithm = {"norm_adv_by_std_in_grpo": False, "rvpo": {"channels": ["a", "b"], "method": "grpo"}}
    rewards = np.array([[[0.0, 0.0], [1.0, 0.5]], [[1.0, 0.0], [0.25, 0.0]]])
    scored = Estimator(VerlConfig.from_algorithm(algorithm)).score(rollouts(rewards), 0, 1)
    assert scored.advantages.tolist() == [-0.75, 0.75, 0.375, -0.375]
    with pytest.raises(ConfigError, match=r"norm_adv_by_std_in_grpo=False has no effect .*method is 'rvpo'"):
        VerlConfig.from_algorithm({"norm_adv_by_std_in_grpo": False, "rvpo": {"channels": ["a"]}})
