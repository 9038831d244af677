"""Diagnostics against plain-Python loops over groups, and what they mean for a policy's gradient step."""

import math

import numpy as np
import pytest
import torch

from rvpo import compute_advantages, conflict, forecast
from rvpo.core.diagnostics import by_label, group_conflict, group_forecast

NAN = float("nan")
GROUP = np.array([[[1.0, 1.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]])


def random_rewards(seed=0):
    """Five prompts of six rollouts and four channels: missing values, dead and absent channels, an empty prompt."""
    rng = np.random.default_rng(seed)
    rewards = rng.integers(0, 5, (5, 6, 4)) / 4.0
    rewards[rng.random(rewards.shape) < 0.3] = NAN
    rewards[0, :, 1] = 0.5
    rewards[1, :, 2] = NAN
    rewards[2, 1:, 3] = NAN
    rewards[2, 0, 3] = 1.0
    rewards[3, 2, :] = NAN
    rewards[4, :, :] = NAN
    return rewards


def columns(rewards, channel):
    """The values present in the channel, prompt by prompt."""
    return [[float(v) for v in group[:, channel] if not math.isnan(v)] for group in rewards]


def deviation(values):
    mean = sum(values) / len(values)
    return math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))


def is_dead(values):
    return len(values) < 2 or min(values) == max(values)


def mean_of(values):
    values = list(values)
    return sum(values) / len(values) if values else NAN


def stats_of(rewards, **settings):
    return compute_advantages(rewards, **settings).stats


# --- per channel ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channel", range(4))
def test_mean_is_over_all_values(channel):
    rewards = random_rewards()
    expected = mean_of(v for column in columns(rewards, channel) for v in column)
    assert stats_of(rewards).mean[channel] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("channel", range(4))
def test_std_is_the_mean_over_groups_with_two_values(channel):
    rewards = random_rewards()
    expected = mean_of(deviation(column) for column in columns(rewards, channel) if len(column) >= 2)
    assert stats_of(rewards).std[channel] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("channel", range(4))
def test_dead_share_is_over_the_groups_that_have_the_channel(channel):
    rewards = random_rewards()
    expected = mean_of(is_dead(column) for column in columns(rewards, channel) if column)
    assert stats_of(rewards).dead_share[channel] == pytest.approx(expected, abs=1e-12)
    assert stats_of(rewards, dead_channels="mask").dead_share[channel] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("channel", range(4))
def test_missing_share_is_over_all_rollouts(channel):
    rewards = random_rewards()
    expected = 1 - sum(len(column) for column in columns(rewards, channel)) / 30
    assert stats_of(rewards).missing_share[channel] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("channel", range(4))
def test_absent_share_is_over_all_groups(channel):
    rewards = random_rewards()
    expected = sum(not column for column in columns(rewards, channel)) / 5
    assert stats_of(rewards).absent_share[channel] == pytest.approx(expected, abs=1e-12)


def test_the_random_rewards_hold_all_cases():
    stats = stats_of(random_rewards())
    assert 0 < stats.dead_share[1] < 1
    assert stats.absent_share[2] > stats.absent_share[0] > 0
    assert float(stats.scored) == 23  # 5 * 6 less the empty prompt and the rollout without values


def zscores(group):
    """`z[g]` maps a channel that the rollout has to its z-score, with ddof 1 and eps 1e-4."""
    rows = [{} for _ in group]
    for channel in range(group.shape[1]):
        column = [float(v) for v in group[:, channel] if not math.isnan(v)]
        for g, value in enumerate(group[:, channel]):
            if not math.isnan(value):
                spread = 0.0 if is_dead(column) else deviation(column)
                rows[g][channel] = (float(value) - mean_of(column)) / (spread + 1e-4) if spread else 0.0
    return rows


def softmax_weights(row, k):
    total = sum(math.exp(-k * z) for z in row.values())
    return {channel: math.exp(-k * z) / total for channel, z in row.items()}


@pytest.mark.parametrize("k", [0.0, 0.7, 2.0])
def test_weight_is_the_mean_channel_weight_over_rollouts_that_have_a_value(k):
    rewards = random_rewards()
    rows = [softmax_weights(row, k) for group in rewards for row in zscores(group) if row]
    expected = [mean_of(row[channel] for row in rows if channel in row) for channel in range(4)]
    np.testing.assert_allclose(stats_of(rewards, k=k).weight, expected, atol=1e-12)


@pytest.mark.parametrize("k", [0.0, 0.7, 2.0])
def test_effective_channels_is_the_mean_exponential_entropy_over_scored_rollouts(k):
    rewards = random_rewards()
    rows = [softmax_weights(row, k) for group in rewards for row in zscores(group) if row]
    expected = mean_of(math.exp(-sum(w * math.log(w) for w in row.values())) for row in rows)
    assert float(stats_of(rewards, k=k).effective_channels) == pytest.approx(expected, abs=1e-10)


def test_active_channels_is_the_mean_number_of_live_channels():
    rewards = random_rewards()
    expected = mean_of(sum(not is_dead(columns([group], j)[0]) for j in range(4)) for group in rewards)
    assert float(stats_of(rewards).active_channels) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("channels", [1, 2, 5, 17])
def test_gdpo_with_equal_live_channels_rests_on_all_of_them(channels):
    rewards = np.random.default_rng(0).random((3, 4, channels))
    stats = stats_of(rewards, method="gdpo")
    assert float(stats.effective_channels) == pytest.approx(channels, abs=1e-9)
    assert float(stats.active_channels) == channels
    np.testing.assert_allclose(stats.weight, [1 / channels] * channels, atol=1e-12)


def test_hard_min_rests_on_one_channel():
    rewards = np.random.default_rng(0).random((3, 4, 5))  # continuous: no ties
    assert float(stats_of(rewards, method="hard_min").effective_channels) == pytest.approx(1, abs=1e-9)


def test_a_channel_without_values_has_no_statistics():
    rewards = np.random.default_rng(0).random((3, 4, 2))
    rewards[:, :, 1] = NAN
    stats = stats_of(rewards)
    for values in (stats.mean, stats.std, stats.dead_share, stats.weight):
        assert math.isnan(values[1])
        assert math.isfinite(values[0])
    assert (stats.missing_share[1], stats.absent_share[1]) == (1, 1)


def test_a_channel_of_weight_0_is_watched_and_moves_nothing():
    watched = [[[0.0, 1.0], [1.0, 3.0], [1.0, NAN]], [[0.0, 2.0], [1.0, 2.0], [0.0, 2.0]]]
    result = compute_advantages(watched, weights=[1.0, 0.0])
    stats = result.stats
    # Values 1, 3 and 2, 2, 2: the std inside the groups is sqrt(2) and 0.
    assert float(stats.mean[1]) == 2.0
    assert float(stats.std[1]) == pytest.approx(math.sqrt(2) / 2)
    assert float(stats.dead_share[1]) == 0.5
    assert float(stats.missing_share[1]) == pytest.approx(1 / 6)
    assert (float(stats.absent_share[1]), float(stats.weight[1]), float(stats.weight[0])) == (0, 0, 1)
    assert float(stats.active_channels) == 1
    alone = compute_advantages(np.array(watched)[:, :, :1])
    np.testing.assert_array_equal(result.advantages, alone.advantages)


def test_counts():
    stats = stats_of(random_rewards(), method="gd2po")
    assert (stats.prompts, stats.rollouts, stats.channels) == (5, 30, 4)


def test_dropped_rollouts_are_counted():
    # GROUP: rollouts 1 and 2 have Z = (1, -1); a second prompt of agreeing channels and one unscored rollout.
    agreeing = GROUP[:, :, [0, 0]].copy()
    agreeing[0, 3] = NAN
    stats = stats_of(np.concatenate([GROUP, agreeing]), method="gd2po")
    assert (float(stats.scored), float(stats.dropped)) == (7, 2)


@pytest.mark.parametrize("k", [0.0, 1.5, math.inf])
def test_k_is_the_one_given(k):
    assert float(stats_of(GROUP, k=k).k) == k


# --- per-prompt offset ----------------------------------------------------------------------------------------


def offset_share(groups):
    """Between-group over total sum of squares, from lists of advantages."""
    flat = [a for group in groups for a in group]
    mean = mean_of(flat)
    between = sum(len(group) * (mean_of(group) - mean) ** 2 for group in groups if group)
    return between / sum((a - mean) ** 2 for a in flat)


@pytest.mark.parametrize("method", ["rvpo", "hard_min", "gd2po", "gdpo"])
@pytest.mark.parametrize("whiten", [True, False])
def test_offset_share_is_that_of_the_advantages_before_whitening(method, whiten):
    rewards = random_rewards()
    result = compute_advantages(rewards, method=method, k=2.0, whiten=whiten)
    raw = compute_advantages(rewards, method=method, k=2.0, whiten=False).advantages
    kept = ~np.isnan(rewards).all(axis=2)
    if method == "gd2po":
        kept &= result.kept
    expected = offset_share([raw[p, kept[p]].tolist() for p in range(5)])
    assert float(result.stats.offset_share) == pytest.approx(expected, abs=1e-12)


def test_offset_share_by_hand():
    # hard_min of GROUP (1 -1 -1 -1) beside (1 1 -1 -1): group means -1/2 and 0, mean -1/4.
    # Between: 4/16 + 4/16 = 1/2; total 8 - 8/16 = 7.5.
    rewards = np.concatenate([GROUP, GROUP[:, :, [0, 0]]])
    assert float(stats_of(rewards, method="hard_min", ddof=0, eps=0.0).offset_share) == pytest.approx(1 / 15)


def test_offset_share_of_equal_advantages_is_0():
    assert float(stats_of(np.full((2, 3, 2), 0.3)).offset_share) == 0


# --- conflict -------------------------------------------------------------------------------------------------


def test_opposite_channels_conflict_fully():
    rewards = GROUP[:, :, [0, 0]] * [1.0, -3.0] + [0.0, 5.0]
    np.testing.assert_allclose(conflict(rewards), [-1, -1], atol=1e-12)


def test_channels_that_agree_do_not_conflict():
    rewards = GROUP[:, :, [0, 0]] * [1.0, 3.0] + [0.0, 5.0]
    np.testing.assert_allclose(conflict(rewards), [1, 1], atol=1e-12)


def test_unrelated_channels_have_conflict_0():
    np.testing.assert_allclose(conflict(GROUP), [0, 0], atol=1e-12)


def test_a_channel_alone_has_no_conflict():
    assert np.isnan(conflict(GROUP[:, :, :1])).all()


def test_a_channel_beside_dead_or_absent_ones_has_no_conflict():
    rewards = np.concatenate([GROUP[:, :, :1], np.full((1, 4, 1), 0.3), np.full((1, 4, 1), NAN)], axis=2)
    assert np.isnan(conflict(rewards)).all()


def test_conflict_against_others_that_cancel_is_undefined_not_rounding_noise():
    # Channels 1 and 2 are opposite: what is beside channel 0 sums to 0 and has no correlation with it.
    rng = np.random.default_rng(0)
    for _ in range(20):
        x, y = rng.normal(size=(2, 6))
        assert np.isnan(conflict(np.stack([x, y, -y], axis=1)[None])[0])


def test_conflict_is_the_mean_over_groups_that_have_one():
    # First group -1; in the second channel 1 is dead, in the third both agree.
    opposite, same = GROUP[:, :, [0, 0]] * [1.0, -1.0], GROUP[:, :, [0, 0]]
    alone = same * [1.0, 0.0]
    np.testing.assert_allclose(conflict(np.concatenate([opposite, alone])), [-1, -1], atol=1e-12)
    np.testing.assert_allclose(conflict(np.concatenate([opposite, alone, same])), [0, 0], atol=1e-12)


def test_conflict_equals_the_correlation_with_the_sum_of_the_other_zscores():
    rewards = np.random.default_rng(1).random((4, 7, 3))
    z = (rewards - rewards.mean(axis=1, keepdims=True)) / rewards.std(axis=1, keepdims=True)
    expected = [
        np.mean([np.corrcoef(z[p, :, j], z[p].sum(axis=1) - z[p, :, j])[0, 1] for p in range(4)]) for j in range(3)
    ]
    np.testing.assert_allclose(conflict(rewards), expected, atol=1e-12)
    assert group_conflict(rewards).shape == (4, 3)


def test_missing_values_count_as_the_mean_in_conflict():
    # Channel 1 misses rollout 3. Z_0 = (1 1 -1 -1), Z_1 ~ (1 -2 1 0): product 1 - 2 - 1 = -2, norms 2 and sqrt 6.
    rewards = GROUP.copy()
    rewards[0, 3, 1] = NAN
    np.testing.assert_allclose(conflict(rewards), [-1 / math.sqrt(6)] * 2, atol=1e-12)


# --- forecast -------------------------------------------------------------------------------------------------


def test_forecast_is_the_covariance_with_the_advantages():
    rng = np.random.default_rng(2)
    rewards, advantages = rng.random((4, 6, 3)), rng.normal(size=(4, 6))
    by_prompt = [[np.cov(rewards[p, :, j], advantages[p])[0, 1] for j in range(3)] for p in range(4)]
    np.testing.assert_allclose(group_forecast(rewards, advantages), by_prompt, atol=1e-12)
    np.testing.assert_allclose(forecast(rewards, advantages), np.mean(by_prompt, axis=0), atol=1e-12)


def test_forecast_is_over_the_rollouts_that_have_a_value():
    rewards = random_rewards()
    advantages = np.random.default_rng(3).normal(size=(5, 6))
    expected = []
    for j in range(4):
        there = ~np.isnan(rewards[:, :, j])
        groups = [p for p in range(5) if there[p].sum() >= 2]
        expected.append(np.mean([np.cov(rewards[p, there[p], j], advantages[p, there[p]])[0, 1] for p in groups]))
    np.testing.assert_allclose(forecast(rewards, advantages), expected, atol=1e-12)


def test_forecast_of_a_channel_with_single_values_is_undefined():
    rewards = np.array([[[1.0, 0.5], [0.0, NAN]], [[0.0, 0.2], [1.0, NAN]]])
    result = forecast(rewards, np.array([[1.0, -1.0], [1.0, -1.0]]))
    # Channel 0: covariances ((1/2)(1) + (-1/2)(-1)) / 1 = 1 and -1, mean 0.
    assert result[0] == pytest.approx(0, abs=1e-12)
    assert math.isnan(result[1])


def test_forecast_does_not_see_a_per_prompt_offset():
    rng = np.random.default_rng(4)
    rewards, advantages = rng.random((4, 6, 3)), rng.normal(size=(4, 6))
    shifted = advantages + rng.normal(size=(4, 1)) * 10
    np.testing.assert_allclose(forecast(rewards, shifted), forecast(rewards, advantages), atol=1e-12)


def test_forecast_and_conflict_take_torch_tensors():
    rng = np.random.default_rng(5)
    rewards, advantages = rng.random((4, 6, 3)), rng.normal(size=(4, 6))
    lifted = forecast(torch.tensor(rewards), torch.tensor(advantages))
    np.testing.assert_allclose(lifted.numpy(), forecast(rewards, advantages), atol=1e-12)
    np.testing.assert_allclose(conflict(torch.tensor(rewards)).numpy(), conflict(rewards), atol=1e-12)


@pytest.mark.parametrize("method", ["gdpo", "rvpo", "rvpo_policy", "hard_min", "grpo"])
def test_forecast_is_what_an_exact_gradient_step_does_to_a_softmax_bandit(method):
    # A policy over 6 answers with logits l; each answer has fixed rewards. The group holds every answer as often as
    # the policy draws it (uniform: once). One step l += eta * E[A grad log pi] changes E[R_j] by eta * Cov(R_j, A)
    # times 1/6 to first order, since d pi_i = pi_i (A_i - mean A) / 6 under a uniform policy.
    for seed in range(10):
        rewards = np.random.default_rng(seed).integers(0, 3, (1, 6, 4)) / 2.0
        advantages = compute_advantages(rewards, method=method, k=2.0).advantages
        eta = 1e-4
        policy = np.full(6, 1 / 6)
        gradient = policy * (advantages[0] - policy @ advantages[0])  # of sum_i pi_i A_i to the logits, A fixed
        stepped = np.exp(eta * gradient)
        change = (stepped / stepped.sum() - policy) @ rewards[0]
        # np.cov's ddof 1 and the population covariance differ by 5/6.
        predicted = eta / 6 * forecast(rewards, advantages) * 5 / 6
        np.testing.assert_allclose(change, predicted, rtol=1e-3, atol=1e-10)
        clear = np.abs(predicted) > 1e-8
        np.testing.assert_array_equal(np.sign(change[clear]), np.sign(predicted[clear]))
        assert clear.any()


# --- by label -------------------------------------------------------------------------------------------------

LABELS = np.array([[0, 1, 2, -1], [1, 0, -1, 2], [2, 1, 0, -1], [0, 0, 1, 2], [-1, -1, -1, 2]])


def labelled(rewards, label):
    """Columns of values of all criteria with the label, one for each prompt and criterion."""
    return [columns([rewards[p]], j)[0] for p in range(5) for j in range(4) if LABELS[p, j] == label]


@pytest.mark.parametrize("label", range(3))
def test_by_label_collects_the_columns_of_a_label(label):
    rewards = random_rewards()
    result = compute_advantages(rewards, k=2.0)
    outcome = by_label(result.groups, LABELS, 3, {})
    values = labelled(rewards, label)
    assert outcome["mean"][label] == pytest.approx(mean_of(v for column in values for v in column), abs=1e-12)
    assert outcome["std"][label] == pytest.approx(mean_of(deviation(c) for c in values if len(c) >= 2), abs=1e-12)
    assert outcome["dead"][label] == pytest.approx(mean_of(is_dead(c) for c in values if c), abs=1e-12)
    missing = 1 - sum(len(c) for c in values) / (6 * len(values))
    assert outcome["missing"][label] == pytest.approx(missing, abs=1e-12)


def test_by_label_weight_is_the_mean_over_rollouts_that_have_a_value():
    rewards = random_rewards()
    weights = [[] for _ in range(3)]
    for p, group in enumerate(rewards):
        for row in zscores(group):
            for j, weight in softmax_weights(row, 2.0).items():
                if LABELS[p, j] >= 0:
                    weights[LABELS[p, j]].append(weight)
    result = by_label(compute_advantages(rewards, k=2.0).groups, LABELS, 3, {})
    np.testing.assert_allclose(result["weight"], [mean_of(w) for w in weights], atol=1e-12)


def test_by_label_takes_the_mean_of_extras_where_they_are_known():
    groups = compute_advantages(random_rewards()).groups
    extra = np.arange(20.0).reshape(5, 4)
    extra[0, 0] = NAN
    # Label 0: cells (1,1) 5, (2,2) 10, (3,0) 12, (3,1) 13, and (0,0) unknown.
    assert by_label(groups, LABELS, 4, {"x": extra})["x"][0] == pytest.approx((5 + 10 + 12 + 13) / 4)
    assert math.isnan(by_label(groups, LABELS, 4, {"x": extra})["x"][3])
