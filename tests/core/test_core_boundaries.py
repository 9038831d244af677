"""Every constant of the core that decides something, on both sides of where it decides."""

import math

import array_api_strict
import numpy as np
import pytest

from rvpo import Aggregate, RewardError, compute_advantages, conflict
from rvpo.core.aggregations import fair_shares, lowest, prior, soft_min
from rvpo.ranges import outside

U = np.array([0.5, 0.5, -0.5, -0.5])
V = np.array([0.5, -0.5, 0.5, -0.5])
"""Two channels of one group that know nothing of one another, of mean 0 and length 1."""


def one_group(*channels):
    return np.stack(channels, axis=1)[None]


# --- soft minimum ---------------------------------------------------------------------------------------------


def soft(values, k, active=None):
    values = np.array([[values]])
    active = np.ones_like(values) if active is None else np.array([[active]])
    return float(soft_min(values, active / active.sum(), active, k).advantages[0, 0])


def test_below_no_risk_a_soft_minimum_is_the_mean_to_the_last_bit():
    # k v would be 1e-321, of which a float64 keeps two digits.
    assert soft([0.0, 1e-120], 0.99e-200) == 0.5e-120


def test_above_no_risk_a_soft_minimum_is_below_the_mean():
    # k/2 var = 0.5e-12 * 0.25e12
    assert soft([0.0, 1e6], 1e-12) == pytest.approx(500_000 - 0.125, abs=1e-3)


@pytest.mark.parametrize("value", [2e307, -2e307, 0.0])
def test_a_value_next_to_the_largest_float_is_still_a_value(value):
    values, active = np.array([[[value, -1e307]]]), np.array([[[1.0, 0.0]]])
    assert lowest(values, active)[0, 0, 0] == value


def test_without_an_active_channel_the_lowest_value_is_0():
    for value in (2e307, -2e307):
        assert lowest(np.full((1, 1, 2), value), np.zeros((1, 1, 2)))[0, 0, 0] == 0.0


# --- rounding that is no spread -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rollouts", "roundings", "live"),
    # std above max(n, 8) roundings of the mean, 2.2e-16 each
    [(4, 7, False), (4, 8, False), (4, 9, True), (8, 7, False), (8, 9, True), (16, 15, False), (16, 17, True)],
)
@pytest.mark.parametrize("mean", [1.0, -4.0])
def test_a_channel_is_live_if_it_varies_by_more_than_rounding(rollouts, roundings, live, mean):
    delta = roundings * np.finfo(np.float64).eps * abs(mean)
    rewards = mean + delta * np.tile([1.0, -1.0], rollouts // 2)[None, :, None]
    result = compute_advantages(rewards, ddof=0)
    assert (result.groups.std[0, 0] > 0) == live
    assert float(result.stats.active_channels) == live


def given(advantages):
    """A method that returns these advantages."""
    return lambda channels, k: Aggregate(np.asarray(advantages), prior(channels))


@pytest.mark.parametrize(
    ("advantages", "weight", "spread"),
    [
        # std against 1e-12 times the size of the advantages, 1 here
        ([1 + 2e-12, 1 - 2e-12], 1.0, True),
        ([1 + 5e-13, 1 - 5e-13], 1.0, False),
        # ... but at least the size of a z-score, 1
        ([2e-12, -2e-12], 1.0, True),
        ([5e-13, -5e-13], 1.0, False),
        # ... or of the largest weight, if that is smaller, as in sums
        ([5e-13, -5e-13], 0.25, True),
        ([2e-13, -2e-13], 0.25, False),
        ([2e-12, -2e-12], 8.0, True),
        # the size of large advantages
        ([100 + 2e-10, 100 - 2e-10], 1.0, True),
        ([100 + 5e-11, 100 - 5e-11], 1.0, False),
    ],
)
def test_advantages_are_whitened_if_they_differ_by_more_than_rounding(advantages, weight, spread):
    rewards = np.array([[[0.0], [1.0]]])
    result = compute_advantages(rewards, method=given([advantages]), weights=[weight], ddof=0, eps=0.0)
    np.testing.assert_allclose(result.advantages, [[1.0, -1.0] if spread else [0.0, 0.0]], atol=2e-3)


@pytest.mark.parametrize(("angle", "defined"), [(1.1e-6, True), (0.9e-6, False)])
def test_corr_grpo_has_a_scale_if_correlations_add_up_to_more_than_rounding(angle, defined):
    # Channels at that angle to being opposite: their correlations add up to its square, their sum is -angle V.
    rewards = one_group(U, -(math.cos(angle) * U + math.sin(angle) * V))
    advantages = compute_advantages(rewards, method="corr_grpo", ddof=0, eps=0.0).advantages[0]
    np.testing.assert_allclose(advantages, -V if defined else np.zeros(4), atol=1e-6 if defined else 0)


@pytest.mark.parametrize(("angle", "defined"), [(1.1e-10, True), (0.9e-10, False)])
def test_a_channel_has_a_conflict_with_others_that_do_not_cancel_to_rounding(angle, defined):
    # The others add up to -angle V, of which the square is held against 1e-20.
    value = conflict(one_group(V, U, -(U + angle * V)))[0]
    if defined:
        assert value == pytest.approx(-1, abs=1e-4)
    else:
        assert math.isnan(value)


# --- ranges ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "low", "high", "wrong"),
    [
        (1 + 0.9e-6, 0.0, 1.0, False),
        (1 + 1.1e-6, 0.0, 1.0, True),
        (-0.9e-6, 0.0, 1.0, False),
        (-1.1e-6, 0.0, 1.0, True),
        (3 + 5e-6, -3.0, 3.0, False),
        (3 + 7e-6, -3.0, 3.0, True),
        (-3 - 5e-6, -3.0, 3.0, False),
        (-3 - 7e-6, -3.0, 3.0, True),
    ],
)
def test_a_reward_may_miss_its_range_by_a_millionth_of_its_width(value, low, high, wrong):
    assert bool(outside(np.array([value]), low, high)[0]) == wrong
    rewards = np.array([[[value], [(low + high) / 2]]])
    if wrong:
        with pytest.raises(RewardError, match="outside its range"):
            compute_advantages(rewards, ranges=(low, high))
    else:
        assert np.isfinite(compute_advantages(rewards, ranges=(low, high)).advantages).all()


@pytest.mark.parametrize(("anchor", "wrong"), [(1 + 0.9e-6, False), (1 + 1.1e-6, True), (-1.1e-6, True)])
def test_an_anchor_may_miss_0_to_1_by_a_millionth(anchor, wrong):
    rewards = one_group(U + 0.5)
    if wrong:
        with pytest.raises(RewardError, match="anchor must hold channel means"):
            compute_advantages(rewards, method="rvpo_policy", anchor=[anchor])
    else:
        compute_advantages(rewards, method="rvpo_policy", anchor=[anchor])


# --- sizes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("large", "fits"),
    # deviations of half the value: its square must stay below 1.8e308, twice
    [(1.8e154, True), (2e154, False), (1.7e308, False)],
)
def test_a_reward_whose_square_is_no_number_is_named(large, fits):
    rewards = np.array([[[0.0], [1.0]], [[0.0], [large]]])
    if fits:
        np.testing.assert_allclose(
            compute_advantages(rewards, ddof=0, whiten=False).advantages[1], [-1.0, 1.0], atol=1e-3
        )
    else:
        with pytest.raises(RewardError, match=r"channel 0, prompt 1, rollout 1 .* is too large to square; .* 7e\+153"):
            compute_advantages(rewards)


def test_rewards_whose_sum_is_no_number_are_named():
    with pytest.raises(RewardError, match=r"reward 1\.7e\+308 .* is too large to square"):
        compute_advantages(np.array([[[1.7e308], [1.7e308]]]))


def counting(calls):
    """A method that notes how many prompts it is called with."""

    def method(channels, k=0.0):
        calls.append(channels.z.shape[0])
        return Aggregate(channels.z[:, :, 0], prior(channels))

    return method


@pytest.mark.parametrize(("prompts", "blocks"), [(256, [256]), (257, [256, 1])])
def test_a_block_holds_2_to_the_18_rewards(prompts, blocks):
    calls = []
    compute_advantages(np.ones((prompts, 32, 32)), method=counting(calls), whiten=False)
    assert calls == blocks


def test_a_prompt_larger_than_a_block_is_a_block():
    calls = []
    compute_advantages(np.ones((3, 1024, 257)), method=counting(calls), whiten=False)
    assert calls == [1, 1, 1]


@pytest.mark.parametrize(("size", "blocks"), [(2**25, [257]), (64 * 1024, [64, 64, 64, 64, 1])])
def test_blocks_of_an_accelerator_are_larger(monkeypatch, size, blocks):
    from rvpo.core import advantages

    if size == 2**25:
        assert size == advantages.ACCELERATOR_BLOCK
    monkeypatch.setattr(advantages, "ACCELERATOR_BLOCK", size)
    calls = []
    rewards = array_api_strict.ones((257, 32, 32), device=array_api_strict.Device("device1"))
    compute_advantages(rewards, method=counting(calls), whiten=False)
    assert calls == blocks


@pytest.mark.parametrize("block", [1, 100])
def test_what_is_given_for_each_of_two_prompts_goes_to_its_prompt(monkeypatch, block):
    # Two prompts of three rollouts: u is (1, 0) where the first channel stands lower and k is infinite, else (0, 1).
    monkeypatch.setattr("rvpo.core.advantages.CPU_BLOCK", block)
    rewards = np.array([[[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]] * 2)
    options = {"method": "rvpo_policy", "k": math.inf, "anchor": [[0.0, 1.0], [1.0, 0.0]]}
    result = compute_advantages(rewards, whiten=False, **options).advantages
    np.testing.assert_array_equal(result, [[0.5, -0.5, 0.0], [-0.5, 0.5, 0.0]])
    # The batch's means are 1/2 and 1/4 for both prompts, so the second channel has all the weight.
    rewards[..., 1] /= 2
    result = compute_advantages(rewards, whiten=False, **options | {"anchor": "batch"}).advantages
    np.testing.assert_array_equal(result, [[-0.25, 0.25, 0.0]] * 2)


# --- few rollouts ---------------------------------------------------------------------------------------------


def test_the_only_rollout_that_is_kept_has_no_advantage_over_others():
    def first_alone(channels, k=0.0):
        kept = np.array([[True, False], [False, False]])
        return Aggregate(np.array([[2.0, 5.0], [7.0, 11.0]]), prior(channels), kept)

    rewards = np.array([[[0.0], [1.0]]] * 2)
    for options in (
        {"recenter": True, "whiten": False},
        {"whiten": True},
        {"whiten": "token", "lengths": [[1, 1]] * 2},
    ):
        result = compute_advantages(rewards, method=first_alone, **options)
        np.testing.assert_array_equal(result.advantages, np.zeros((2, 2)))


def test_the_only_rollout_with_a_reward_is_no_offset_of_its_prompt():
    rewards = np.full((2, 3, 2), np.nan)
    rewards[0, 0, 0] = 1.0
    result = compute_advantages(rewards, method=given([[5.0, 0.0, 0.0]] * 2), whiten=False)
    assert float(result.stats.offset_share) == 0.0


def test_the_offset_share_of_small_advantages():
    # Group means 0 and 0.2 about 0.1: 4 times 0.01, of 0, 0.04, 0.04 and 0.
    rewards = np.array([[[0.0], [1.0]]] * 2)
    result = compute_advantages(rewards, method=given([[0.1, -0.1], [0.3, 0.1]]), whiten=False)
    assert float(result.stats.offset_share) == pytest.approx(0.5)


def test_a_channel_may_be_absent_from_the_only_prompt():
    stats = compute_advantages(np.array([[[0.0, np.nan], [1.0, np.nan]]])).stats
    assert stats.absent_share.tolist() == [0.0, 1.0]


def test_a_batch_of_a_single_rollout_misses_nothing():
    stats = compute_advantages(np.ones((1, 1, 2))).stats
    assert (stats.missing_share.tolist(), stats.absent_share.tolist()) == ([0.0, 0.0], [0.0, 0.0])


def test_groups_of_one_rollout_are_groups():
    assert compute_advantages(np.array([[1.0], [0.0], [1.0]]), group_size=1).advantages.tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("library", [np, array_api_strict])
def test_the_batch_mean_of_whole_numbers_and_of_a_single_value(library):
    # Means 1/2 and 1: an infinite k gives all the weight to the first channel.
    whole = library.asarray([[[1, 1], [0, 1]]])
    options = {"method": "rvpo_policy", "k": math.inf, "anchor": "batch", "whiten": False}
    assert np.asarray(compute_advantages(whole, **options).advantages).tolist() == [[0.5, -0.5]]
    # Means 3/4 and, of the only value, 1: again the first.
    single = library.asarray([[[1.0, 1.0], [0.5, math.nan]]])
    assert np.asarray(compute_advantages(single, **options).advantages).tolist() == [[0.25, -0.25]]


def test_an_anchor_of_the_batch_without_ranges_is_on_the_scale_of_the_rewards():
    means = []

    def noting(channels, k=0.0, *, anchor=None):
        means.append(anchor.ravel().tolist())
        return Aggregate(channels.z.sum(axis=2), prior(channels))

    compute_advantages(np.array([[[10.0, 7.0], [20.0, 5.0]]]), method=noting, anchor="batch")
    assert means == [[15.0, 6.0]]


# --- methods --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("threshold", "kept"), [(0.5, True), (0.5000001, False)])
def test_gd2po_keeps_a_rollout_at_its_threshold(threshold, kept):
    # Weights 3 and 1: the second rollout has 3 - 1 = 2 of 3 + 1 = 4.
    rewards = np.array([[[1.0, 1.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]])
    options = {"ddof": 0, "eps": 0.0, "weights": [3.0, 1.0], "threshold": threshold}
    result = compute_advantages(rewards, method="gd2po", **options)
    assert result.kept.tolist() == [[True, kept, kept, True]]


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("gd2po", {"threshold": 0.8}),
        ("cvar", {"share": 1 / 3}),
        ("tchebycheff", {"ideal": 1.0}),
        ("sa_mrpo", {"gamma": 0.5}),
        ("dara", {"cap": 5.0, "symmetric": False}),
        ("pow3r", {"blend": 0.5, "lowest": 0.67, "highest": 1.5}),
        ("rvpo_policy", {"anchor": "group", "utility": "softmin", "signal": "reward", "total": "mean", "k": 2.0}),
        ("rvpo", {"k": 1.0, "ddof": 1, "eps": 1e-4, "dead_channels": "keep", "recenter": False, "whiten": True}),
        ("mean_variance", {"k": 1.0}),
    ],
)
def test_what_is_not_said_is_the_documented_default(method, options):
    rng = np.random.default_rng(0)
    rewards = (rng.random((40, 4, 5)) < [0.01, 0.3, 0.5, 0.7, 0.9]).astype(float)
    silent = compute_advantages(rewards, method=method).advantages
    np.testing.assert_array_equal(silent, compute_advantages(rewards, method=method, **options).advantages)


def test_shares_of_the_logarithm_without_bound_do_not_overflow():
    pi = np.array([[[0.25, 0.25, 0.5]]])
    # pi / m is 2.5, 1.25 and 1.25
    by_hand = fair_shares(np.array([[[0.1, 0.2, 0.4]]]), pi, np.inf)
    assert by_hand == pytest.approx(np.array([[[0.5, 0.25, 0.25]]]))
    assert fair_shares(np.array([[[1e-313, 0.5, 0.5]]]), pi, np.inf).tolist()[0][0][0] == 1.0
