"""From rewards to advantages: steps worked by hand, degenerate batches, array types, and what is known to go wrong."""

import math

import numpy as np
import pytest
import torch

from rvpo import METHODS, PRESETS, RewardError, compute_advantages

NAN = float("nan")
GROUP = np.array([[[1.0, 1.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]])
"""With ddof 0 and eps 0 every Z is +1 or -1, and GDPO's sums are 2 0 0 -2."""

ZSCORE_METHODS = ["cvar", "gd2po", "gdpo", "hard_min", "mean_variance", "rvpo"]
"""Methods that return Z itself for a single channel."""


def advantages_of(rewards, **settings):
    return compute_advantages(rewards, **settings).advantages


def binary(seed, shape, rate=0.5):
    return (np.random.default_rng(seed).random(shape) < rate).astype(float)


# --- the steps ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ddof", "variance"), [(0, 14 / 9), (1, 7 / 3)])
def test_zscore_by_hand(ddof, variance):
    # 1 2 4: mean 7/3, deviations -4/3 -1/3 5/3, squares sum to 42/9; over 3 that is 14/9, over 2 it is 7/3.
    scale = math.sqrt(variance) + 0.1
    advantages = advantages_of([[[1], [2], [4]]], ddof=ddof, eps=0.1, whiten=False)
    np.testing.assert_allclose(advantages, [[-4 / 3 / scale, -1 / 3 / scale, 5 / 3 / scale]], atol=1e-12)


def test_zscore_is_over_the_values_present():
    # 1 2 - 4 has the mean and the deviation of 1 2 4.
    with_gap = advantages_of([[[1], [2], [None], [4]]], whiten=False)
    without = advantages_of([[[1], [2], [4]]], whiten=False)
    np.testing.assert_allclose(with_gap[0, [0, 1, 3]], without[0], atol=1e-12)
    assert with_gap[0, 2] == 0


def test_a_missing_channel_leaves_the_others_of_the_rollout():
    # Rollout 1 lost channel 1. Channel 1 then holds 1 - 1 0: mean 2/3, deviations 1/3 1/3 -2/3, std (ddof 0)
    # sqrt(2)/3: Z = 1/sqrt 2, -, 1/sqrt 2, -sqrt 2. Channel 0 is +-1. hard_min: rollout 1 has channel 0 alone.
    rewards = GROUP.copy()
    rewards[0, 1, 1] = NAN
    advantages = advantages_of(rewards, method="hard_min", ddof=0, eps=0.0, whiten=False)
    np.testing.assert_allclose(advantages, [[math.sqrt(0.5), 1.0, -1.0, -math.sqrt(2)]], atol=1e-12)


def test_whitening_by_hand():
    # 2 0 0 -2: mean 0, squares 8, over 3 (ddof 1): std sqrt(8/3), eps 1/2 in both steps. With Z = +-(1/2)/(s + 1/2),
    # s = sqrt(1/3) the sample deviation of the rewards, the sums are +-2 z.
    z = 0.5 / (math.sqrt(1 / 3) + 0.5)
    scale = z * math.sqrt(8 / 3) + 0.5
    advantages = advantages_of(GROUP, method="gdpo", ddof=1, eps=0.5)
    np.testing.assert_allclose(advantages, [[2 * z / scale, 0.0, 0.0, -2 * z / scale]], atol=1e-12)


def test_whitening_is_over_the_batch_and_subtracts_its_mean():
    # hard_min of GROUP is 1 -1 -1 -1; of a group whose two channels agree, 1 1 -1 -1.
    # All eight: mean -1/4, squares sum to 8 - 8/16 = 7.5, over 8: std sqrt(15)/4.
    batch = np.concatenate([GROUP, GROUP[:, :, [0, 0]]])
    advantages = advantages_of(batch, method="hard_min", ddof=0, eps=0.0)
    high, low = 5 / math.sqrt(15), -3 / math.sqrt(15)
    np.testing.assert_allclose(advantages, [[high, low, low, low], [high, high, low, low]], atol=1e-12)


@pytest.mark.parametrize(("ddof", "divisor"), [(0, 6), (1, 5)])
def test_token_whitening_by_hand(ddof, divisor):
    # 2 0 0 -2 with 3 1 0 2 tokens: mean (6 - 4) / 6 = 1/3, deviations 5/3 -1/3 -1/3 -7/3,
    # squares 3 * 25/9 + 1/9 + 2 * 49/9 = 174/9. The Z-scores use the same ddof: with ddof 1 they are sqrt(3)/2
    # times as large, which whitening takes out again.
    advantages = advantages_of(GROUP, method="gdpo", ddof=ddof, eps=0.0, whiten="token", lengths=[3, 1, 0, 2])
    scale = math.sqrt(174 / 9 / divisor)
    expected = [[5 / 3 / scale, -1 / 3 / scale, -1 / 3 / scale, -7 / 3 / scale]]
    np.testing.assert_allclose(advantages, expected, atol=1e-12)


def test_token_whitening_with_equal_lengths_is_whitening_without_ddof():
    rewards = np.random.default_rng(0).random((3, 5, 4))
    by_token = advantages_of(rewards, ddof=0, whiten="token", lengths=np.full((3, 5), 7))
    np.testing.assert_allclose(by_token, advantages_of(rewards, ddof=0), atol=1e-12)


def test_tokens_of_unscored_rollouts_do_not_count():
    rewards = np.concatenate([GROUP, np.full((1, 2, 2), NAN)], axis=1)
    few = advantages_of(rewards, whiten="token", lengths=[3, 1, 4, 2, 1, 1])
    many = advantages_of(rewards, whiten="token", lengths=[3, 1, 4, 2, 900, 50])
    np.testing.assert_array_equal(few, many)


def test_recentring_by_hand():
    # hard_min 1 -1 -1 -1 has the mean -1/2.
    advantages = advantages_of(GROUP, method="hard_min", ddof=0, eps=0.0, recenter=True, whiten=False)
    np.testing.assert_allclose(advantages, [[1.5, -0.5, -0.5, -0.5]], atol=1e-12)


def test_recentring_is_over_scored_rollouts():
    rewards = np.concatenate([GROUP, np.full((1, 3, 2), NAN)], axis=1)
    advantages = advantages_of(rewards, method="hard_min", ddof=0, eps=0.0, recenter=True, whiten=False)
    np.testing.assert_allclose(advantages, [[1.5, -0.5, -0.5, -0.5, 0.0, 0.0, 0.0]], atol=1e-12)


def test_recentring_comes_before_whitening():
    rewards = np.random.default_rng(2).random((4, 6, 5))
    centred = advantages_of(rewards, k=3.0, recenter=True, whiten=False)
    expected = (centred - centred.mean()) / (centred.std(ddof=1) + 1e-4)
    np.testing.assert_allclose(advantages_of(rewards, k=3.0, recenter=True), expected, atol=1e-12)


SCALED_IN_THE_GROUP = ["corr_grpo", "dvao", "grpo", "maxrl", "pow3r"]


@pytest.mark.parametrize("method", SCALED_IN_THE_GROUP)
def test_methods_that_normalise_in_the_group_are_whitened_only_when_asked(method):
    rewards = np.random.default_rng(3).random((4, 6, 3))
    raw = advantages_of(rewards, method=method, whiten=False)
    np.testing.assert_array_equal(advantages_of(rewards, method=method), raw)
    whitened = (raw - raw.mean()) / (raw.std(ddof=1) + 1e-4)
    np.testing.assert_allclose(advantages_of(rewards, method=method, whiten="sequence"), whitened, atol=1e-12)


@pytest.mark.parametrize("method", sorted(set(METHODS) - set(SCALED_IN_THE_GROUP)))
def test_all_other_methods_are_whitened_by_default(method):
    rewards = np.random.default_rng(3).random((4, 6, 3))
    default = advantages_of(rewards, method=method)
    np.testing.assert_array_equal(default, advantages_of(rewards, method=method, whiten="sequence"))
    assert not np.allclose(default, advantages_of(rewards, method=method, whiten=False), atol=1e-3)


def test_the_defaults_are_the_papers():
    rewards = np.random.default_rng(4).random((3, 5, 4))
    np.testing.assert_array_equal(
        advantages_of(rewards),
        advantages_of(rewards, method="rvpo", k=1.0, ddof=1, eps=1e-4, whiten=True, dead_channels="keep"),
    )
    np.testing.assert_array_equal(advantages_of(rewards), advantages_of(rewards, **PRESETS["trl"]))


# --- degenerate batches ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ZSCORE_METHODS)
def test_one_channel_gives_its_zscore(method):
    rewards = np.random.default_rng(5).random((3, 6, 1))
    mean, std = rewards.mean(axis=1, keepdims=True), rewards.std(axis=1, ddof=1, keepdims=True)
    expected = ((rewards - mean) / (std + 1e-4))[..., 0]
    np.testing.assert_allclose(advantages_of(rewards, method=method, k=3.0, whiten=False), expected, atol=1e-12)


@pytest.mark.parametrize("method", sorted(METHODS))
@pytest.mark.parametrize("whiten", [False, True, "sequence"])
def test_groups_of_one_rollout_give_0(method, whiten):
    rewards = np.random.default_rng(6).random((4, 1, 3))
    rewards[1, 0, 1] = NAN
    np.testing.assert_array_equal(advantages_of(rewards, method=method, whiten=whiten), np.zeros((4, 1)))


@pytest.mark.parametrize("method", sorted(METHODS))
@pytest.mark.parametrize("whiten", [False, True, "sequence"])
def test_dead_channels_alone_give_0(method, whiten):
    rewards = np.broadcast_to(np.array([0.1, 0.7, 0.3]), (3, 5, 3))
    np.testing.assert_allclose(advantages_of(rewards, method=method, whiten=whiten), np.zeros((3, 5)), atol=1e-15)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_nothing_scored_gives_0(method):
    result = compute_advantages(np.full((2, 3, 4), NAN), method=method)
    np.testing.assert_array_equal(result.advantages, np.zeros((2, 3)))
    assert float(result.stats.scored) == 0


@pytest.mark.parametrize("method", sorted(METHODS))
def test_one_scored_rollout_gives_0(method):
    rewards = np.full((2, 3, 2), NAN)
    rewards[1, 2] = [0.2, 0.9]
    np.testing.assert_array_equal(advantages_of(rewards, method=method), np.zeros((2, 3)))


@pytest.mark.parametrize("method", sorted(METHODS))
@pytest.mark.parametrize("shape", [(0, 4, 2), (0, 2)])
def test_a_batch_without_prompts_gives_no_advantages(method, shape):
    group_size = 4 if len(shape) == 2 else None
    result = compute_advantages(np.zeros(shape), method=method, group_size=group_size)
    assert result.advantages.shape == ((0, 4) if len(shape) == 3 else (0,))
    assert result.stats.prompts == result.stats.rollouts == 0


def test_a_rollout_with_dead_channels_only_is_scored_even_where_these_are_masked():
    # Rollout 4 has the dead channel 1 alone: A = 0, and it counts. A = 1 1 -1 -1 0: mean 0, squares 4, over 4.
    rewards = np.array([[[1.0, 0.5], [1.0, 0.5], [0.0, 0.5], [0.0, 0.5], [NAN, 0.5]]])
    result = compute_advantages(rewards, dead_channels="mask", eps=0.0)
    np.testing.assert_allclose(result.advantages, [[1.0, 1.0, -1.0, -1.0, 0.0]], atol=1e-12)
    assert float(result.stats.scored) == 5


def test_equal_advantages_are_0_after_whitening():
    # Opposite channels in every rollout: each rollout has Z = (z, -z), so all A are equal and not 0.
    rewards = np.array([[[0.1, 0.9], [0.9, 0.1]], [[0.1, 0.9], [0.9, 0.1]]])
    raw = advantages_of(rewards, k=2.0, whiten=False, eps=0.0)
    assert raw.max() < -0.1
    np.testing.assert_array_equal(advantages_of(rewards, k=2.0, eps=0.0), np.zeros((2, 2)))


@pytest.mark.parametrize("recenter", [False, True])
def test_advantages_equal_but_for_rounding_are_0_after_whitening(recenter):
    # Rollout g holds the same values as rollout 0, moved on by g channels: equal soft minima, summed in another order.
    for values in np.random.default_rng(0).normal(size=(20, 5)):
        rewards = np.array([[np.roll(values, g) for g in range(5)]])
        advantages = advantages_of(rewards, k=1.3, eps=0.0, recenter=recenter)
        np.testing.assert_array_equal(advantages, np.zeros((1, 5)))


@pytest.mark.parametrize("rollouts", [2, 3, 7, 16, 64, 100, 256, 1024])
def test_equal_rewards_are_dead_whatever_the_size_of_the_group(rollouts):
    # The sum of many equal floats is not exact, so their mean differs from each of them in its last digits.
    values = np.random.default_rng(1).normal(size=200)
    rewards = np.ascontiguousarray(np.broadcast_to(values, (1, rollouts, 200)))
    assert (compute_advantages(rewards).groups.std == 0).all()


@pytest.mark.parametrize("scale", [1e-14, 1e-9, 1e9])
def test_whitening_without_eps_takes_out_the_scale_of_the_advantages(scale):
    # GDPO takes weights as they are: small ones give small sums, which are no rounding errors.
    rewards = np.random.default_rng(14).random((3, 4, 2))
    settings = {"method": "gdpo", "eps": 0.0, "recenter": True}
    scaled = advantages_of(rewards, weights=[scale, 2 * scale], **settings)
    np.testing.assert_allclose(scaled, advantages_of(rewards, weights=[1.0, 2.0], **settings), atol=1e-9)


def test_spread_next_to_nothing_is_still_a_spread():
    # 1 and 1 + 1e-9 differ by far more than rounding: Z = +-sqrt(1/2), to the 1e-7 that 1 + 1e-9 itself is exact.
    advantages = advantages_of([[[1.0], [1.0 + 1e-9]]], eps=0.0, whiten=False)
    np.testing.assert_allclose(advantages, [[-math.sqrt(0.5), math.sqrt(0.5)]], atol=1e-6)


@pytest.mark.parametrize("size", [1e100, 1e160, 1e300])
def test_huge_rewards_give_their_zscores_or_an_error_but_no_zeros(size):
    try:
        advantages = advantages_of([[[size], [-size]]], whiten=False)
    except RewardError:
        return
    np.testing.assert_allclose(advantages, [[math.sqrt(0.5), -math.sqrt(0.5)]], atol=1e-12)


@pytest.mark.parametrize("size", [1e100, 1e160, 1e308, -1e308])
@pytest.mark.parametrize("method", sorted(set(METHODS) - {"rvpo_policy", "tchebycheff"}))
def test_huge_equal_rewards_are_dead_or_an_error(size, method):
    # Their sum, and so their mean, may overflow; the second channel must keep its z-scores.
    rewards = np.array([[[size, 0.0], [size, 1.0]]])
    try:
        advantages = advantages_of(rewards, method=method, k=0.0, eps=0.0)
    except RewardError:
        return
    assert np.isfinite(advantages).all()
    assert advantages[0, 1] == -advantages[0, 0]
    if method in ZSCORE_METHODS:
        assert advantages[0, 1] > 0.5


def test_a_weight_next_to_nothing_does_not_make_infinities():
    # Rollout 0: Z = (-z, z) with z = sqrt(1/2), pi = (1e-20, 1), k = 100: 1e-20 e^(70.7) = 5.1e10 is all that
    # counts: A = -z - log(1e-20)/100. Rollout 1: Z = (z, -z): A = -z.
    z = math.sqrt(0.5)
    advantages = advantages_of([[[0.0, 1.0], [1.0, 0.0]]], k=100.0, weights=[1e-20, 1.0], eps=0.0, whiten=False)
    np.testing.assert_allclose(advantages, [[-z + 20 * math.log(10) / 100, -z]], atol=1e-9)


# --- array types ----------------------------------------------------------------------------------------------


def test_none_in_nested_lists_is_a_missing_value():
    lists = [[[1.0, None], [0.0, 1.0], [1.0, 0.0]], [[None, None], [2.0, 1.0], [1.0, 1.0]]]
    array = np.array([[[1.0, NAN], [0.0, 1.0], [1.0, 0.0]], [[NAN, NAN], [2.0, 1.0], [1.0, 1.0]]])
    advantages = advantages_of(lists)
    assert isinstance(advantages, np.ndarray)
    assert advantages.dtype == np.float64
    np.testing.assert_array_equal(advantages, advantages_of(array))


@pytest.mark.parametrize("dtype", [bool, np.int8, np.int64, np.uint8])
def test_whole_numbers_and_booleans_are_rewards(dtype):
    rewards = binary(7, (3, 6, 4))
    advantages = advantages_of(rewards.astype(dtype))
    assert advantages.dtype == np.float64
    np.testing.assert_array_equal(advantages, advantages_of(rewards))


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64])
def test_whole_numbers_and_booleans_of_torch_are_rewards(dtype):
    rewards = binary(7, (3, 6, 4))
    advantages = advantages_of(torch.tensor(rewards).to(dtype))
    assert advantages.dtype == torch.float64
    np.testing.assert_allclose(advantages.numpy(), advantages_of(rewards), atol=1e-12)


@pytest.mark.parametrize(
    ("dtype", "digits"), [(torch.bfloat16, 8), (torch.float16, 11), (torch.float32, 24), (torch.float64, 53)]
)
def test_torch_float_types_come_back_computed_in_float64(dtype, digits):
    # Only the result is rounded: 2^-digits relative, as the type's significand has it.
    rewards = torch.tensor(np.random.default_rng(8).random((3, 6, 4))).to(dtype)
    rewards[0, 0, 0] = NAN
    advantages = advantages_of(rewards)
    assert advantages.dtype == dtype
    assert advantages.device == rewards.device
    assert advantages.shape == (3, 6)
    exact = advantages_of(rewards.to(torch.float64))
    torch.testing.assert_close(advantages.to(torch.float64), exact, rtol=2.0**-digits, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_numpy_float_types_come_back(dtype):
    rewards = np.random.default_rng(8).random((3, 6, 4)).astype(dtype)
    advantages = advantages_of(rewards)
    assert advantages.dtype == dtype
    np.testing.assert_array_equal(advantages, advantages_of(rewards.astype(np.float64)).astype(dtype))


def test_stats_stay_with_the_library_of_the_rewards():
    stats = compute_advantages(torch.rand(2, 4, 3, generator=torch.Generator().manual_seed(0))).stats
    assert isinstance(stats.weight, torch.Tensor)
    assert isinstance(stats.offset_share, torch.Tensor)


def test_rows_of_the_batch_are_rollouts_of_one_prompt_next_to_each_other():
    rewards = np.random.default_rng(9).random((3, 4, 2))
    flat = advantages_of(rewards.reshape(12, 2), group_size=4)
    assert flat.shape == (12,)
    np.testing.assert_array_equal(flat, advantages_of(rewards).reshape(12))


@pytest.mark.parametrize("shape", [(3, 4), (12,)])
def test_lengths_are_taken_by_group_or_flat(shape):
    rewards = np.random.default_rng(9).random((3, 4, 2))
    lengths = np.arange(1, 13)
    expected = advantages_of(rewards, whiten="token", lengths=lengths.reshape(3, 4))
    for given in (lengths.reshape(shape), lengths.reshape(shape).tolist()):
        np.testing.assert_array_equal(advantages_of(rewards, whiten="token", lengths=given), expected)
        flat = advantages_of(rewards.reshape(12, 2), group_size=4, whiten="token", lengths=given)
        np.testing.assert_array_equal(flat, expected.reshape(12))


@pytest.mark.parametrize("convert", [np.asarray, np.ndarray.tolist, torch.tensor])
def test_settings_of_any_array_type_fit_torch_rewards(convert):
    rng = np.random.default_rng(10)
    rewards, weights, anchor = rng.random((3, 4, 2)), rng.random((3, 2)), rng.random((3, 2))
    lengths, ranges = rng.integers(1, 9, (3, 4)), np.array([[0.0, 1.0], [-1.0, 2.0]])
    settings = {"weights": weights, "lengths": lengths, "ranges": ranges, "anchor": anchor}
    expected = advantages_of(rewards, method="rvpo_policy", whiten="token", **settings)
    converted = {name: convert(value) for name, value in settings.items()}
    advantages = advantages_of(torch.tensor(rewards), method="rvpo_policy", whiten="token", **converted)
    np.testing.assert_allclose(advantages.numpy(), expected, atol=1e-12)


# --- what is known to go wrong with the plain formula (docs: section 2 of the method) -------------------------


@pytest.mark.parametrize("dead", [1, 2, 4])
@pytest.mark.parametrize("k", [0.5, 2.0, 10.0])
def test_dead_channels_cap_the_advantage(dead, k):
    rewards = binary(11, (32, 16, 5), rate=0.2)
    rewards[:, :, :dead] = 1.0
    # A bound for each prompt: s of its 5 channels are dead, the s drawn here and those dead by chance.
    result = compute_advantages(rewards, k=k, whiten=False)
    number = (result.groups.std == 0).sum(axis=1, keepdims=True)
    assert (result.advantages <= np.log(5 / number) / k + 1e-12).all()


def test_the_cap_is_reached_and_masking_lifts_it():
    # One pass in 16 of the live channel: Z = 15/4. Kept: -(1/2) log((e^-7.5 + 1)/2), next to log(2)/2 = 0.347.
    rewards = np.ones((1, 16, 2))
    rewards[0, 1:, 0] = 0.0
    kept = advantages_of(rewards, k=2.0, eps=0.0, whiten=False)
    masked = advantages_of(rewards, k=2.0, eps=0.0, whiten=False, dead_channels="mask")
    assert kept[0, 0] == pytest.approx(math.log(2) / 2 - math.log1p(math.exp(-7.5)) / 2, abs=1e-12)
    assert masked[0, 0] == pytest.approx(3.75, abs=1e-12)


@pytest.mark.parametrize("rollouts", [2, 4, 16, 64])
def test_one_failure_in_a_nearly_dead_channel(rollouts):
    # mean 1 - 1/G, squares (1 - 1/G)^2 + (G - 1)/G^2 = (G - 1)/G, over G - 1: std 1/sqrt(G). Z = -(1 - 1/G) sqrt(G).
    rewards = np.ones((1, rollouts, 1))
    rewards[0, 0, 0] = 0.0
    advantages = advantages_of(rewards, eps=0.0, whiten=False)
    assert advantages[0, 0] == pytest.approx(-(rollouts - 1) / math.sqrt(rollouts), abs=1e-12)


def test_the_soft_minimum_leaves_an_offset_per_prompt_that_recentring_takes_out():
    rewards = binary(12, (64, 8, 17), rate=np.linspace(0.1, 0.9, 17))
    plain = compute_advantages(rewards, k=2.0)
    recentred = compute_advantages(rewards, k=2.0, recenter=True)
    mean = compute_advantages(rewards, k=0.0)
    assert 0.05 < float(plain.stats.offset_share) < 0.5  # 0.176 was measured with other rewards
    assert float(recentred.stats.offset_share) == pytest.approx(0, abs=1e-20)
    assert float(mean.stats.offset_share) == pytest.approx(0, abs=1e-20)


def test_a_lost_verdict_must_not_count_as_0():
    rng = np.random.default_rng(13)
    clean = rng.random((128, 16, 5))
    lost = rng.random(clean.shape) < 0.1

    def similarity(rewards):
        advantages = advantages_of(rewards, k=2.0)
        return np.corrcoef(advantages.ravel(), advantages_of(clean, k=2.0).ravel())[0, 1]

    masked, filled = similarity(np.where(lost, NAN, clean)), similarity(np.where(lost, 0.0, clean))
    assert masked > 0.9
    assert filled < 0.8


def test_rvpo_teaches_a_rare_success_less_than_the_mean_and_the_policy_level_teaches_it_more():
    # Four easy channels met by half, one hard channel met by 1 of 16, all independent of one another.
    rewards = np.array([[[float(g >> j & 1) for j in range(4)] + [float(g == 5)] for g in range(16)]])
    policy = {"method": "rvpo_policy", "signal": "zscore"}

    def lift(**settings):
        """Advantage of the one rollout that meets the hard channel, over all it gives to the others."""
        advantages = advantages_of(rewards, whiten=False, recenter=True, **settings)[0]
        return advantages[5] / np.abs(advantages).sum()

    assert lift(k=2.0) < 0.8 * lift(k=0.0)
    assert lift(k=2.0, **policy) > 1.05 * lift(k=0.0)
    assert lift(k=0.0, **policy) == pytest.approx(lift(k=0.0), abs=1e-12)
