"""MaxRL and POW3R: by hand, against plain loops, where they are another method, and at their boundaries."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rvpo import ConfigError, RewardError, compute_advantages

NAN = math.nan
BATCH = np.array(
    [
        [[1.0, 1.0], [1.0, 0.0], [0.0, 0.0], [0.0, 0.0]],
        [[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 0.0]],
    ]
)
"""Two groups of four. Channel 0 is met by 2 and by 3 of them, channel 1 by 1 and by none."""


def raw(rewards, method, **settings):
    """Advantages as the method defines them, with population standard deviations and without eps."""
    return compute_advantages(rewards, method=method, **{"ddof": 0, "eps": 0.0} | settings).advantages


def random_batch(seed, low=0.0, high=1.0):
    """Rewards (5, 6, 3) in eighths of the range, a fifth of them missing."""
    rng = np.random.default_rng(seed)
    rewards = low + (high - low) * rng.integers(0, 9, (5, 6, 3)) / 8
    rewards[rng.random(rewards.shape) < 0.2] = NAN
    return rewards


# --- MaxRL ----------------------------------------------------------------------------------------------------


def test_maxrl_by_hand():
    # (1 - 1/2) / (1/2) = 1 and -1; (1 - 1/4) / (1/4) = 3 and -1; (1 - 3/4) / (3/4) = 1/3 and -1; all failed: 0.
    expected = [[1 + 3, 1 - 1, -1 - 1, -1 - 1], [1 / 3, 1 / 3, 1 / 3, -1]]
    np.testing.assert_allclose(raw(BATCH, "maxrl"), expected, atol=1e-15)


def test_maxrl_counts_from_the_lowest_reward_of_the_range():
    shifted = BATCH * [6.0, 2.0] - [3.0, 5.0]
    np.testing.assert_allclose(raw(shifted, "maxrl", ranges=[(-3, 3), (-5, -3)]), raw(BATCH, "maxrl"), atol=1e-12)


def loop_maxrl(rewards, low, high, weights):
    advantages = np.zeros(rewards.shape[:2])
    for p, group in enumerate(rewards):
        for j, weight in enumerate(weights):
            values = [(v - low) / (high - low) for v in group[:, j]]
            there = [v for v in values if not math.isnan(v)]
            mean = sum(there) / len(there) if there else 0.0
            for g, value in enumerate(values):
                advantages[p, g] += weight * (value - mean) / mean if mean and not math.isnan(value) else 0.0
    return advantages


@pytest.mark.parametrize("seed", range(8))
def test_maxrl_is_a_plain_loop(seed):
    rewards, weights = random_batch(seed, -2.0, 2.0), [0.5, 1.0, 3.0]
    ours = raw(rewards, "maxrl", ranges=(-2, 2), weights=weights)
    expected = loop_maxrl(rewards, -2.0, 2.0, weights)
    np.testing.assert_allclose(ours, expected, atol=1e-12)


@given(st.integers(0, 10**6))
def test_maxrl_is_the_policy_level_with_log_utility_and_infinite_k_up_to_a_factor_for_each_prompt(seed):
    rewards = random_batch(seed)
    rewards[np.isnan(rewards)] = 0.5
    rewards[:, 0] = 1.0  # no mean is 0
    ours = raw(rewards, "maxrl")
    log = compute_advantages(rewards, method="rvpo_policy", k=math.inf, utility="log", whiten=False).advantages
    for first, other in zip(ours, log, strict=True):
        scale = np.abs(first).max() / max(np.abs(other).max(), 1e-300)
        np.testing.assert_allclose(first, scale * other, atol=1e-9)


def test_one_success_of_a_large_group_is_worth_no_more_than_g_less_1():
    rewards = np.zeros((1, 64, 1))
    rewards[0, 5] = 1e-5  # however small
    ours = raw(rewards, "maxrl")
    assert ours[0, 5] == pytest.approx(63)
    # A reward below its range by rounding counts as the lowest one, and does not take the mean to 0.
    rewards[0, 6] = -1e-6
    assert raw(rewards, "maxrl")[0, 5] == pytest.approx(63)


@pytest.mark.parametrize("p", [0.01, 0.3, 0.9])
def test_the_gain_that_the_documentation_derives(p):
    """Over all groups of four: E Cov(R, A) = 1 - p - (1 - p)^4, 1 - m of a group of mean m > 0."""
    groups = np.array(list(itertools.product((0.0, 1.0), repeat=4)))
    chances = np.prod(np.where(groups == 1, p, 1 - p), axis=1)
    gains = np.mean((groups - groups.mean(axis=1, keepdims=True)) * raw(groups[:, :, None], "maxrl"), axis=1)
    assert chances @ gains == pytest.approx(1 - p - (1 - p) ** 4)


def test_maxrl_is_not_whitened_unless_it_is_asked_for():
    assert raw(BATCH, "maxrl").std() != pytest.approx(1)
    assert raw(BATCH, "maxrl", whiten="sequence").std() == pytest.approx(1)


def test_shares_of_maxrl_are_spread_over_mean():
    # Spread over mean: (1/2) / (1/2) = 1 and (sqrt(3)/4) / (1/4) = sqrt(3).
    groups = compute_advantages(BATCH[:1], method="maxrl", ddof=0).groups
    shares = np.array([1.0, math.sqrt(3)]) / (1 + math.sqrt(3))
    np.testing.assert_allclose(groups.weight, [4 * shares])


# --- POW3R ----------------------------------------------------------------------------------------------------


def test_pow3r_by_hand():
    # Group 0: variances 1/4 and 3/16, mean 7/32, ratios 8/7 and 6/7, factors 15/14 and 13/14: sums 2, 15/14, 0, 0.
    sums = np.array([2, 15 / 14, 0, 0])
    np.testing.assert_allclose(raw(BATCH, "pow3r")[0], (sums - sums.mean()) / sums.std(), atol=1e-12)
    # Group 1: channel 0 alone differs, so its factor does not matter: z-scores of 3/4.
    root = math.sqrt(3)
    np.testing.assert_allclose(raw(BATCH, "pow3r")[1], [1 / root, 1 / root, 1 / root, -root], atol=1e-12)


@pytest.mark.parametrize(("bounds", "factors"), [((0.9, 1.05), (1.05, 13 / 14)), ((0.95, 1.5), (15 / 14, 0.95))])
def test_the_factors_of_pow3r_are_clipped(bounds, factors):
    lowest, highest = bounds
    sums = BATCH[0] @ np.array(factors)
    ours = raw(BATCH[:1], "pow3r", lowest=lowest, highest=highest)
    np.testing.assert_allclose(ours[0], (sums - sums.mean()) / sums.std(), atol=1e-12)


def test_weights_are_the_prior_of_pow3r_and_of_its_mean_variance():
    # Weights 3 and 1: mean variance (3/4 + 3/16) / 4 = 15/64, ratios 16/15 and 4/5, factors 31/30 and 9/10.
    sums = BATCH[0] @ np.array([3 * 31 / 30, 9 / 10])
    ours = raw(BATCH[:1], "pow3r", weights=[3.0, 1.0])
    np.testing.assert_allclose(ours[0], (sums - sums.mean()) / sums.std(), atol=1e-12)


def loop_pow3r(group, low, high, *, ddof, blend=0.5, lowest=0.67, highest=1.5):
    """The advantages of one group (G, M)."""
    columns = [[(v - low) / (high - low) for v in column] for column in group.T]
    scored = [any(not math.isnan(v) for v in row) for row in group]
    there = [[v for v in column if not math.isnan(v)] for column in columns]
    variances = [
        sum((v - sum(values) / len(values)) ** 2 for v in values) / len(values)
        if values and len(values) >= 0.75 * sum(scored)
        else None
        for values in there
    ]
    known = [v for v in variances if v is not None]
    mean = sum(known) / len(known) if known else 0.0
    factors = [
        min(max(1 - blend + blend * v / mean, lowest), highest) if v is not None and mean > 0 else 1.0
        for v in variances
    ]
    sums = [
        math.fsum(f * v for f, v in zip(factors, row, strict=True) if not math.isnan(v))
        for row in zip(*columns, strict=True)
    ]
    counted = [s for s, is_scored in zip(sums, scored, strict=True) if is_scored]
    centre = sum(counted) / len(counted)
    std = math.sqrt(sum((s - centre) ** 2 for s in counted) / (len(counted) - ddof))
    advantages = [(s - centre) / std if std > 1e-12 else 0.0 for s in sums]
    return [a if is_scored else 0.0 for a, is_scored in zip(advantages, scored, strict=True)]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("ddof", [0, 1])
def test_pow3r_is_a_plain_loop(seed, ddof):
    rewards = random_batch(seed, -2.0, 2.0)
    ours = raw(rewards, "pow3r", ranges=(-2, 2), ddof=ddof)
    np.testing.assert_allclose(ours, [loop_pow3r(group, -2.0, 2.0, ddof=ddof) for group in rewards], atol=1e-12)


@pytest.mark.parametrize(("missing", "moves"), [(1, True), (2, False)])
def test_a_channel_needs_three_quarters_of_the_rollouts_to_have_a_factor(missing, moves):
    # Channel 0 has the variance of all four; channel 1 has 3 or 2 values, of variance 2/9 or 1/4.
    rewards = np.array([[[1.0, 1.0], [0.0, 0.0], [1.0, 0.0], [0.0, 0.0]]])
    rewards[0, 4 - missing :, 1] = NAN
    free = {"lowest": 0.0, "highest": 10.0}
    ours, plain = raw(rewards, "pow3r", blend=1.0, **free), raw(rewards, "pow3r", blend=0.0, **free)
    assert (np.abs(ours - plain).max() > 1e-3) == moves
    # A rollout without any value is none of the group's.
    longer = np.concatenate([rewards, np.full((1, 1, 2), NAN)], axis=1)
    np.testing.assert_allclose(raw(longer, "pow3r", blend=1.0, **free)[:, :4], ours, atol=1e-12)


@given(st.integers(0, 10**6))
def test_pow3r_without_blend_is_grpo_on_the_common_scale(seed):
    rewards = random_batch(seed, -3.0, 3.0)
    unit = (rewards + 3) / 6
    np.testing.assert_allclose(raw(rewards, "pow3r", blend=0.0, ranges=(-3, 3)), raw(unit, "grpo"), atol=1e-9)


def test_channels_of_equal_contrast_are_weighed_alike():
    rewards = np.array([[[1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.0, 0.0]]])
    np.testing.assert_allclose(raw(rewards, "pow3r"), raw(rewards, "grpo"), atol=1e-12)


# --- both -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["maxrl", "pow3r"])
@pytest.mark.parametrize("value", [0.0, 1.0, NAN])
def test_a_batch_without_signal_has_no_advantage(method, value):
    result = compute_advantages(np.full((3, 4, 2), value), method=method)
    np.testing.assert_array_equal(result.advantages, np.zeros((3, 4)))


@pytest.mark.parametrize("method", ["maxrl", "pow3r"])
def test_rewards_must_be_in_their_range(method):
    with pytest.raises(RewardError, match="outside its range"):
        raw(2 * BATCH, method)


@pytest.mark.parametrize(
    "options",
    [{"blend": -0.01}, {"blend": 1.01}, {"lowest": 1.01}, {"lowest": -0.01}, {"highest": 0.99}, {"highest": math.inf}],
)
def test_the_options_of_pow3r_have_bounds(options):
    with pytest.raises(ConfigError, match=r"pow3r needs blend in \[0, 1\] and lowest <= 1 <= highest"):
        raw(BATCH, "pow3r", **options)
