"""Every method against numbers worked by hand, and against plain-Python loops written from its definition.

The hand-worked group has four rollouts and two channels that know nothing of one another:

    channel 0: 1 1 0 0      channel 1: 1 0 1 0

With ddof 0 and eps 0 both have mean 1/2 and std 1/2, so Z is +1 where the reward is 1 and -1 where it is 0.
"""

import math

import numpy as np
import pytest

from rvpo import METHODS, ConfigError, compute_advantages
from rvpo.core.aggregations import soft_min

GROUP = np.array([[[1.0, 1.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]])
RARE = np.array([[[1.0, 1.0], [1.0, 0.0], [0.0, 0.0], [0.0, 0.0]]])
"""Channel 1 is met once: its mean is 1/4 and its std (ddof 0) sqrt(3)/4, so Z is sqrt(3) or -1/sqrt(3)."""


def by_hand(rewards, method, **settings):
    """Advantages before whitening with population standard deviations and without eps."""
    settings = {"ddof": 0, "eps": 0.0, "whiten": False} | settings
    return compute_advantages(rewards, method=method, **settings).advantages


# --- numbers worked by hand -----------------------------------------------------------------------------------


def test_rvpo_by_hand():
    # Z = (1, 1): -log((e^-1 + e^-1) / 2) = 1; Z = (1, -1): -log((e^-1 + e) / 2) = -log(cosh 1)
    # cosh 1 = (0.3678794412 + 2.7182818285) / 2 = 1.5430806348; log of it = 0.4337808305
    expected = [[1.0, -0.4337808305, -0.4337808305, -1.0]]
    np.testing.assert_allclose(by_hand(GROUP, "rvpo", k=1.0), expected, atol=1e-9)


def test_rvpo_with_weights_by_hand():
    # pi = (3/4, 1/4), k = 1. Rollout 1: 0.75 e^-1 + 0.25 e = 0.2759095809 + 0.6795704571 = 0.9554800380
    # Rollout 2: 0.75 e + 0.25 e^-1 = 2.0387113713 + 0.0919698603 = 2.1306812316. A is -log of them.
    expected = [[1.0, 0.0455414072, -0.7564417556, -1.0]]
    np.testing.assert_allclose(by_hand(GROUP, "rvpo", k=1.0, weights=[3.0, 1.0]), expected, atol=1e-8)


def test_hard_min_by_hand():
    np.testing.assert_allclose(by_hand(GROUP, "hard_min"), [[1.0, -1.0, -1.0, -1.0]], atol=1e-12)


def test_mean_variance_by_hand():
    # beta = k/2 = 1. Rollout 1: mean 0, variance ((1 - 0)^2 + (-1 - 0)^2) / 2 = 1, so 0 - 1.
    np.testing.assert_allclose(by_hand(GROUP, "mean_variance", k=2.0), [[1.0, -1.0, -1.0, -1.0]], atol=1e-12)


def test_mean_variance_with_weights_by_hand():
    # pi = (3/4, 1/4). Rollout 1: mean 3/4 - 1/4 = 1/2, variance 3/4 (1/2)^2 + 1/4 (3/2)^2 = 3/4; 1/2 - 3/4 = -1/4.
    # Rollout 2 is its negative: mean -1/2, the same variance; -1/2 - 3/4 = -5/4.
    expected = [[1.0, -0.25, -1.25, -1.0]]
    np.testing.assert_allclose(by_hand(GROUP, "mean_variance", k=2.0, weights=[6.0, 2.0]), expected, atol=1e-12)


def test_gdpo_by_hand():
    np.testing.assert_allclose(by_hand(GROUP, "gdpo"), [[2.0, 0.0, 0.0, -2.0]], atol=1e-12)
    # 3 Z_0 + 1 Z_1, the weights as they are
    np.testing.assert_allclose(by_hand(GROUP, "gdpo", weights=[3.0, 1.0]), [[4.0, 2.0, -2.0, -4.0]], atol=1e-12)


def test_grpo_by_hand():
    # Sums 2 1 1 0: mean 1, variance (1 + 0 + 0 + 1) / 4 = 1/2.
    root = math.sqrt(2)
    np.testing.assert_allclose(by_hand(GROUP, "grpo"), [[root, 0.0, 0.0, -root]], atol=1e-12)


def test_grpo_with_sample_deviation_and_eps_by_hand():
    # The same sums with ddof 1: variance 2/3; eps 1/2 is added to its root.
    scale = math.sqrt(2 / 3) + 0.5
    expected = [[1 / scale, 0.0, 0.0, -1 / scale]]
    np.testing.assert_allclose(by_hand(GROUP, "grpo", ddof=1, eps=0.5), expected, atol=1e-12)


def test_dvao_by_hand():
    # Channel 0 tripled: deviations +-3/2, std 3/2; channel 1 +-1/2, 1/2. Sums 2 1 -1 -2 over 3/2 + 1/2 = 2.
    rewards = GROUP * np.array([3.0, 1.0])
    np.testing.assert_allclose(by_hand(rewards, "dvao"), [[1.0, 0.5, -0.5, -1.0]], atol=1e-12)


def test_corr_grpo_by_hand():
    # The channels are uncorrelated: the correlations sum to 1 + 1 = 2. Deviations sum to 1 0 0 -1.
    root = math.sqrt(0.5)
    np.testing.assert_allclose(by_hand(GROUP, "corr_grpo"), [[root, 0.0, 0.0, -root]], atol=1e-12)


def test_corr_grpo_of_equal_channels_by_hand():
    # Channel 0 twice: all four correlations are 1, the root of their sum is 2; deviations sum to +-1.
    rewards = GROUP[:, :, [0, 0]]
    np.testing.assert_allclose(by_hand(rewards, "corr_grpo"), [[0.5, 0.5, -0.5, -0.5]], atol=1e-12)


@pytest.mark.parametrize("ddof", [0, 1])
def test_corr_grpo_eps_is_added_under_the_root_only(ddof):
    # Deviations sum to 1 0 0 -1, correlations to 2 whatever ddof; sqrt(2 + 0.25) = 1.5.
    expected = [[1 / 1.5, 0.0, 0.0, -1 / 1.5]]
    np.testing.assert_allclose(by_hand(GROUP, "corr_grpo", ddof=ddof, eps=0.25), expected, atol=1e-12)


def test_corr_grpo_dead_channels_have_no_correlation():
    # A third, constant channel adds nothing: correlations still 2, deviations still 1 0 0 -1.
    rewards = np.concatenate([GROUP, np.full((1, 4, 1), 0.7)], axis=2)
    root = math.sqrt(0.5)
    np.testing.assert_allclose(by_hand(rewards, "corr_grpo"), [[root, 0.0, 0.0, -root]], atol=1e-12)


def test_gd2po_drops_rollouts_whose_channels_cancel():
    # Rollouts 1 and 2 have Z = (1, -1): |sum| / sum|.| = 0. Half of the group is left: (2, -2) * 2/4.
    result = compute_advantages(GROUP, method="gd2po", ddof=0, eps=0.0, whiten=False)
    np.testing.assert_allclose(result.advantages, [[1.0, 0.0, 0.0, -1.0]], atol=1e-12)
    assert float(result.stats.dropped) == 2


def test_gd2po_threshold_0_drops_nothing():
    np.testing.assert_allclose(by_hand(GROUP, "gd2po", threshold=0.0), [[2.0, 0.0, 0.0, -2.0]], atol=1e-12)


@pytest.mark.parametrize(
    ("weight", "threshold", "kept"),
    [
        (8.0, 0.8, False),  # |8 - 1| / (8 + 1) = 0.778 < 0.8
        (9.5, 0.8, True),  # 8.5 / 10.5 = 0.810
        (9.5, 1.0, False),  # every contradiction goes
        (8.0, 0.75, True),
    ],
)
def test_gd2po_threshold_by_hand(weight, threshold, kept):
    advantages = by_hand(GROUP, "gd2po", weights=[weight, 1.0], threshold=threshold)
    total, difference = weight + 1, weight - 1
    expected = [total, difference, -difference, -total] if kept else [total / 2, 0.0, 0.0, -total / 2]
    np.testing.assert_allclose(advantages, [expected], atol=1e-12)


def test_gd2po_dropped_rollouts_take_no_part_in_whitening():
    # Left are (1, -1) as above: mean 0, std (ddof 1) sqrt(2). Were the two zeros counted, it would be sqrt(2/3).
    advantages = by_hand(GROUP, "gd2po", ddof=1, whiten=True)
    np.testing.assert_allclose(advantages, [[math.sqrt(0.5), 0.0, 0.0, -math.sqrt(0.5)]], atol=1e-12)


def test_cvar_by_hand():
    # Three channels: Z = (1, 1, sqrt 3), (1, -1, -1/sqrt 3), (-1, 1, -1/sqrt 3), (-1, -1, -1/sqrt 3); pi = 1/3.
    # share 1/2: the lowest counts 1/3, the next 1/6 of 1/2, that is 2/3 and 1/3.
    rewards = np.concatenate([GROUP, RARE[:, :, 1:]], axis=2)
    rare = -1 / math.sqrt(3)
    middle = 2 / 3 * -1 + rare / 3
    np.testing.assert_allclose(by_hand(rewards, "cvar", share=0.5), [[1.0, middle, middle, -1.0]], atol=1e-12)


def test_cvar_share_1_is_the_mean():
    np.testing.assert_allclose(by_hand(GROUP, "cvar", share=1.0), [[1.0, 0.0, 0.0, -1.0]], atol=1e-12)


@pytest.mark.parametrize("share", [1e-9, 1 / 3, 0.5])
def test_cvar_share_within_the_lowest_channels_mass_is_the_minimum(share):
    # pi = 1/2 for each of two channels, so any share up to 1/2 is taken up by the lowest one.
    np.testing.assert_allclose(by_hand(GROUP, "cvar", share=share), [[1.0, -1.0, -1.0, -1.0]], atol=1e-9)


def test_cvar_third_of_the_mass_by_hand():
    # pi = (1/4, 3/4), share 1/3, rollout 1: channel 1 (Z -1) fills all. Rollout 2: channel 0 (Z -1) fills 1/4 of
    # the 1/3, channel 1 (Z +1) the remaining 1/12: 3/4 * -1 + 1/4 * 1 = -1/2.
    advantages = by_hand(GROUP, "cvar", weights=[1.0, 3.0])
    np.testing.assert_allclose(advantages, [[1.0, -1.0, -0.5, -1.0]], atol=1e-12)


def test_tchebycheff_by_hand():
    # U = -log mean_j exp(1 - r_j): (1, 1) 0; (1, 0) -log((1 + e) / 2) = -log 1.8591409142 = -0.6201145070; (0, 0) -1.
    # Their mean is (0 - 2 * 0.6201145070 - 1) / 4 = -0.5600572535, which is taken out.
    expected = [[0.5600572535, -0.0600572535, -0.0600572535, -0.4399427465]]
    np.testing.assert_allclose(by_hand(GROUP, "tchebycheff", k=1.0), expected, atol=1e-9)


def test_tchebycheff_ideal_point_matters_only_through_the_weights():
    # With equal weights z* only shifts U. With w = (2, 1), k = inf: U = min(2 (r_0 - z*), r_1 - z*).
    # z* = 1: 0, -1, -2, -2: mean -5/4.   z* = 0: 1, 0, 0, 0: mean 1/4.
    settings = {"weights": [2.0, 1.0], "k": math.inf}
    far = by_hand(GROUP, "tchebycheff", **settings)
    near = by_hand(GROUP, "tchebycheff", ideal=0.0, **settings)
    np.testing.assert_allclose(far, [[1.25, 0.25, -0.75, -0.75]], atol=1e-12)
    np.testing.assert_allclose(near, [[0.75, -0.25, -0.25, -0.25]], atol=1e-12)


def test_tchebycheff_centres_over_the_rollouts_with_a_channel_that_counts():
    # Channel 1 is dead and masked; rollout 3 has nothing else. U = r_0 - 1 = 0 0 -1 of the others, mean -1/3.
    rewards = np.array([[[1.0, 0.5], [1.0, 0.5], [0.0, 0.5], [np.nan, 0.5]]])
    advantages = by_hand(rewards, "tchebycheff", k=2.0, dead_channels="mask")
    np.testing.assert_allclose(advantages, [[1 / 3, 1 / 3, -2 / 3, 0.0]], atol=1e-12)


def test_rvpo_policy_by_hand():
    # m = (1/2, 1/4). With k = 4 log 3, exp(-k m) = (1/9, 1/3): weights 1/4 and 3/4.
    # Rollout 0: 1/4 * 1/2 + 3/4 * 3/4 = 11/16; 1: 1/8 - 3/16 = -1/16; 2 and 3: -1/8 - 3/16 = -5/16.
    advantages = by_hand(RARE, "rvpo_policy", k=4 * math.log(3))
    np.testing.assert_allclose(advantages, [[11 / 16, -1 / 16, -5 / 16, -5 / 16]], atol=1e-12)


def test_rvpo_policy_zscore_signal_by_hand():
    # The same weights 1/4 and 3/4 on Z = (+-1, sqrt 3 or -1/sqrt 3).
    advantages = by_hand(RARE, "rvpo_policy", k=4 * math.log(3), signal="zscore")
    high, low = 0.75 * math.sqrt(3), -0.75 / math.sqrt(3)
    np.testing.assert_allclose(advantages, [[0.25 + high, 0.25 + low, -0.25 + low, -0.25 + low]], atol=1e-12)


LOG = {"utility": "log", "signal": "zscore", "total": "sum"}


def test_rvpo_policy_with_logarithmic_utility_by_hand():
    # m = (1/2, 1/4). With k = 4, 1 / (1 + k m) = (1/3, 1/2): shares 2/5 and 3/5 of the two channels' weight 2.
    high, low = math.sqrt(3), -1 / math.sqrt(3)
    advantages = by_hand(RARE, "rvpo_policy", k=4.0, **LOG)
    expected = [[0.8 + 1.2 * high, 0.8 + 1.2 * low, -0.8 + 1.2 * low, -0.8 + 1.2 * low]]
    np.testing.assert_allclose(advantages, expected, atol=1e-12)
    # With importances (3, 4): 3/3 and 4/2, shares 1/3 and 2/3 of 7.
    advantages = by_hand(RARE, "rvpo_policy", k=4.0, weights=[3.0, 4.0], **LOG)
    first, second = 7 / 3, 14 / 3
    expected = [[first + second * high, first + second * low, -first + second * low, -first + second * low]]
    np.testing.assert_allclose(advantages, expected, atol=1e-12)


def test_rvpo_policy_with_logarithmic_utility_at_infinite_k_by_hand():
    # Shares as 1/m: (2, 4), so 1/3 and 2/3 of the weight 2. In the second group channel 1 is at 0 and takes all of
    # it, but has no spread.
    high, low = math.sqrt(3), -1 / math.sqrt(3)
    never = np.array([[[1.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.0, 0.0]]])
    advantages = by_hand(np.concatenate([RARE, never]), "rvpo_policy", k=math.inf, **LOG)
    first, second = 2 / 3, 4 / 3
    expected = [first + second * high, first + second * low, -first + second * low, -first + second * low]
    np.testing.assert_allclose(advantages, [expected, [0.0] * 4], atol=1e-12)


def test_rvpo_policy_total_by_hand():
    # Shares 1/4 and 3/4 adding up to the two channels: weights 1/2 and 3/2.
    high, low = math.sqrt(3), -1 / math.sqrt(3)
    advantages = by_hand(RARE, "rvpo_policy", k=4 * math.log(3), signal="zscore", total="sum")
    expected = [[0.5 + 1.5 * high, 0.5 + 1.5 * low, -0.5 + 1.5 * low, -0.5 + 1.5 * low]]
    np.testing.assert_allclose(advantages, expected, atol=1e-12)


@pytest.mark.parametrize("dead_channels", ["keep", "mask"])
def test_rvpo_policy_without_risk_is_gdpo(dead_channels):
    # Ragged rubrics, a dead channel, missing values and weights: the same sum, term by term.
    rng = np.random.default_rng(5)
    rewards = rng.integers(0, 2, size=(6, 8, 5)).astype(float)
    rewards[0, :, 3:], rewards[1, :, 0], rewards[rng.random(rewards.shape) < 0.1] = np.nan, 1.0, np.nan
    settings = {"weights": [1.0, 0.7, 0.3, 0.9, 2.0], "dead_channels": dead_channels}
    ours = compute_advantages(rewards, method="rvpo_policy", k=0.0, **settings | LOG).advantages
    np.testing.assert_allclose(ours, compute_advantages(rewards, method="gdpo", **settings).advantages, atol=1e-12)


def test_rvpo_policy_batch_anchor_by_hand():
    # Second prompt: channel 0 never, channel 1 in 3 of 4. Batch means (1/4, 1/2) turn the weights around: 3/4, 1/4.
    second = np.array([[[0.0, 1.0], [0.0, 1.0], [0.0, 1.0], [0.0, 0.0]]])
    advantages = by_hand(np.concatenate([RARE, second]), "rvpo_policy", k=4 * math.log(3), anchor="batch")
    # First prompt: 3/4 * +-1/2 + 1/4 * (3/4 or -1/4); second: 1/4 * (1/4 or -3/4), its channel 0 being dead.
    expected = [[9 / 16, 5 / 16, -7 / 16, -7 / 16], [1 / 16, 1 / 16, 1 / 16, -3 / 16]]
    np.testing.assert_allclose(advantages, expected, atol=1e-12)


def test_rvpo_policy_anchor_of_each_channel_by_hand():
    # Anchor (1/4, 1/2) instead of the group's (1/2, 1/4): weights 3/4, 1/4 as in the batch above.
    advantages = by_hand(RARE, "rvpo_policy", k=4 * math.log(3), anchor=[0.25, 0.5])
    np.testing.assert_allclose(advantages, [[9 / 16, 5 / 16, -7 / 16, -7 / 16]], atol=1e-12)


def test_rvpo_policy_anchor_of_each_prompt_by_hand():
    anchor = [[0.25, 0.5], [0.5, 0.25]]
    advantages = by_hand(np.concatenate([RARE, RARE]), "rvpo_policy", k=4 * math.log(3), anchor=anchor)
    expected = [[9 / 16, 5 / 16, -7 / 16, -7 / 16], [11 / 16, -1 / 16, -5 / 16, -5 / 16]]
    np.testing.assert_allclose(advantages, expected, atol=1e-12)


def test_rvpo_policy_at_infinite_k_is_the_lowest_channel_alone():
    # Channel 1 has the lower mean; its deviations are 3/4 and -1/4.
    advantages = by_hand(RARE, "rvpo_policy", k=math.inf)
    np.testing.assert_allclose(advantages, [[0.75, -0.25, -0.25, -0.25]], atol=1e-12)


def test_rvpo_policy_batch_anchor_is_on_the_common_scale():
    # Channel 0 as 6 r - 3 on (-3, 3): its batch mean 0 stands for 1/2, channel 1 has 1/4. Weights 1/4 and 3/4.
    stretched = RARE * np.array([6.0, 1.0]) - np.array([3.0, 0.0])
    settings = {"k": 4 * math.log(3), "anchor": "batch", "ranges": [(-3.0, 3.0), (0.0, 1.0)]}
    advantages = by_hand(stretched, "rvpo_policy", **settings)
    np.testing.assert_allclose(advantages, [[11 / 16, -1 / 16, -5 / 16, -5 / 16]], atol=1e-12)


def test_rvpo_policy_batch_anchor_is_over_the_values_present():
    # Channel 1 loses two of its three zeros: its mean over what is left, 1/2, is that of channel 0. Equal weights;
    # deviations of channel 1: 1/2 (rollout 0), none, -1/2 (rollout 2), none.
    rewards = RARE.copy()
    rewards[0, [1, 3], 1] = np.nan
    advantages = by_hand(rewards, "rvpo_policy", k=3.0, anchor="batch")
    np.testing.assert_allclose(advantages, [[0.5, 0.25, -0.5, -0.25]], atol=1e-12)


@pytest.mark.parametrize("method", ["rvpo_policy", "tchebycheff"])
def test_declared_ranges_put_channels_on_one_scale(method):
    # Tool calling: correctness in [-3, 3] beside format in {0, 1}. Channel 0 as 6 r - 3 is the same reward.
    stretched = GROUP * np.array([6.0, 1.0]) - np.array([3.0, 0.0])
    ranges = [(-3.0, 3.0), (0.0, 1.0)]
    np.testing.assert_allclose(
        by_hand(stretched, method, k=2.0, ranges=ranges), by_hand(GROUP, method, k=2.0), atol=1e-12
    )


def test_one_range_for_all_channels():
    # On (0, 2) every r halves. rvpo_policy, k = 8 log 3: m = (1/4, 1/8), weights as before, deviations halved.
    advantages = by_hand(RARE, "rvpo_policy", k=8 * math.log(3), ranges=(0.0, 2.0))
    np.testing.assert_allclose(advantages, [[11 / 32, -1 / 32, -5 / 32, -5 / 32]], atol=1e-12)


# --- the soft minimum itself ----------------------------------------------------------------------------------


def soft_minimum(values, k, pi=None):
    """soft_min of one rollout's values."""
    values = np.array([[values]])
    pi = np.full(values.shape, 1 / values.size) if pi is None else np.array([[pi]])
    return float(soft_min(values, pi, np.ones_like(values), k).advantages[0, 0])


def test_soft_min_nears_its_expansion_as_k_goes_to_0():
    # -(1/k) log cosh k = -k/2 + k^3/12: at k = 1e-12 the mean 0 less k/2 times the variance 1. A sum formed as
    # log(sum exp) would be off by 1e-16 / k = 1e-4.
    assert soft_minimum([1.0, -1.0], 1e-12) == pytest.approx(-5e-13, abs=1e-15)


def test_soft_min_of_unequal_priors_nears_its_expansion():
    # pi = (3/4, 1/4) on (2, -2): mean 1, variance 3/4 + 1/4 * 9 = 3; k = 1e-6: 1 - 1.5e-6, next term of order k^2.
    assert soft_minimum([2.0, -2.0], 1e-6, pi=[0.75, 0.25]) == pytest.approx(1 - 1.5e-6, abs=1e-10)


def test_soft_min_with_a_large_k_stays_finite_and_next_to_the_minimum():
    # min <= soft_min <= min + log(M)/k
    values = [3.0, -2.0, 0.5, 40.0]
    gap = soft_minimum(values, 1e6) + 2.0
    assert 0 <= gap <= math.log(4) / 1e6 * (1 + 1e-6)
    assert gap == pytest.approx(math.log(4) / 1e6, rel=1e-6)  # the other channels are out of sight


def test_soft_min_of_a_prior_next_to_nothing_is_finite():
    # 1e-20 exp(k) dwarfs 1 * exp(-k) at k = 50: A = -1 - log(1e-20)/50 = -1 + 46.0517018599/50.
    assert soft_minimum([-1.0, 1.0], 50.0, pi=[1e-20, 1.0]) == pytest.approx(-1 + 46.0517018599 / 50, abs=1e-9)


def test_soft_min_of_huge_values_does_not_overflow():
    # -(1/k) log(1/2 (1 + exp(-2e5 k))) - 1e5 with k = 1: -1e5 + log 2
    assert soft_minimum([1e5, -1e5], 1.0) == pytest.approx(-1e5 + math.log(2), abs=1e-9)


def test_soft_min_channel_weights_by_hand():
    # pi exp(-k v) of (1, -1) at k = log(3)/2: exp(-k) : exp(k) = 1 : 3
    values = np.array([[[1.0, -1.0]]])
    weights = soft_min(values, np.full((1, 1, 2), 0.5), np.ones((1, 1, 2)), math.log(3) / 2).channel_weights
    np.testing.assert_allclose(weights, [[[0.25, 0.75]]], atol=1e-12)


# --- channel weights ------------------------------------------------------------------------------------------


def shares_of(rewards, method, **settings):
    """Mean weight of each channel over the rollouts that have it."""
    settings = {"ddof": 0, "eps": 0.0} | settings
    return compute_advantages(rewards, method=method, **settings).stats.weight


def test_mean_variance_weight_is_larger_for_the_lower_channel():
    # RARE, k = 2, pi 1/2: slopes 1/2 |1 - 2 (Z_j - mean)|, as shares. Z (1, 1.7321): 0.8660 and 0.1340.
    # Z (1, -0.5774): 0.2887 and 1.2887 of 1.5774. Z (-1, -0.5774), twice: 0.7113 and 0.2887.
    result = compute_advantages(RARE, method="mean_variance", k=2.0, ddof=0, eps=0.0)
    expected = 0.8660 + 0.1830 + 2 * 0.7113
    np.testing.assert_allclose(result.groups.weight, [[expected, 4 - expected]], atol=1e-3)


def test_dvao_without_any_spread_is_0_without_eps_too():
    np.testing.assert_array_equal(by_hand(np.ones((1, 4, 2)), "dvao"), np.zeros((1, 4)))


def test_rvpo_policy_takes_small_weights_as_shares():
    small, large = (by_hand(RARE, "rvpo_policy", weights=weights) for weights in ([0.25, 0.5], [4.0, 8.0]))
    np.testing.assert_allclose(small, large, atol=1e-12)
    assert abs(small).max() > 0.1


def test_small_spreads_are_shared_out_too():
    # Standard deviations 1/2 and 1/8: shares 4/5 and 1/5.
    result = compute_advantages(GROUP * [1.0, 0.25], method="dvao", ddof=0, eps=0.0)
    np.testing.assert_allclose(result.groups.weight, [[4 * 0.8, 4 * 0.2]], atol=1e-12)


def test_tchebycheff_shares_out_small_weights_too():
    # k = 0, weights 1/2 and 1/4: shares 2/3 and 1/3 of each of four rollouts.
    result = compute_advantages(GROUP, method="tchebycheff", k=0.0, weights=[0.5, 0.25])
    np.testing.assert_allclose(result.groups.weight, [[8 / 3, 4 / 3]], atol=1e-12)


def test_corr_grpo_of_two_rollouts():
    # Equal channels: their correlations add up to 4, the centred sums are 1 and -1.
    result = by_hand(np.array([[[1.0, 1.0], [0.0, 0.0]]]), "corr_grpo", ddof=1)
    np.testing.assert_allclose(result, [[0.5, -0.5]], atol=1e-12)


def test_sums_share_over_the_channels_that_the_group_has():
    # Of three channels one has no value in the group, or a single one.
    rewards = np.concatenate([GROUP, np.full((1, 4, 1), math.nan)], axis=2)
    assert float(compute_advantages(rewards, method="gdpo").stats.effective_channels) == pytest.approx(2.0)
    rewards[0, 0, 2] = 1.0
    assert float(compute_advantages(rewards, method="gdpo").stats.effective_channels) == pytest.approx(3.0)


def test_sums_of_zscores_share_by_the_weights():
    np.testing.assert_allclose(shares_of(GROUP, "gdpo", weights=[3.0, 1.0]), [0.75, 0.25], atol=1e-12)
    np.testing.assert_allclose(shares_of(GROUP, "gd2po", weights=[3.0, 1.0]), [0.75, 0.25], atol=1e-12)


@pytest.mark.parametrize("method", ["grpo", "dvao", "corr_grpo"])
def test_sums_of_rewards_share_by_the_spread(method):
    # Spreads 5 * 1/2 and 1 * 1/2, times weights 1 and 2: 5 to 2.
    rewards = GROUP * np.array([5.0, 1.0])
    np.testing.assert_allclose(shares_of(rewards, method, weights=[1.0, 2.0]), [5 / 7, 2 / 7], atol=1e-12)


def test_hard_min_weight_is_on_the_lowest_and_ties_share():
    # Rollouts (1, 1) and (-1, -1) are ties: 1/2 each; (1, -1) and (-1, 1) have one lowest channel.
    np.testing.assert_allclose(shares_of(GROUP, "hard_min"), [0.5, 0.5], atol=1e-12)
    # Rare channel: ties in none: Z_1 is lower in rollout 1 only ((1, sqrt 3), (1, -0.58), (-1, -0.58) twice).
    np.testing.assert_allclose(shares_of(RARE, "hard_min"), [0.75, 0.25], atol=1e-12)


def test_hard_min_ties_share_by_the_prior():
    # Ties weigh (3/4, 1/4); the two other rollouts put 1 on either channel: (2 * 3/4 + 1) / 4 = 5/8.
    np.testing.assert_allclose(shares_of(GROUP, "hard_min", weights=[3.0, 1.0]), [5 / 8, 3 / 8], atol=1e-12)


def test_cvar_weight_by_hand():
    # share 3/4 of pi = (1/2, 1/2): the lower channel 2/3, the other 1/3; channel 1 is lower in rollout 1 alone.
    weights = shares_of(RARE, "cvar", share=0.75)
    np.testing.assert_allclose(weights, [(3 * 2 / 3 + 1 / 3) / 4, (3 * 1 / 3 + 2 / 3) / 4], atol=1e-12)


def test_mean_variance_weight_is_the_size_of_the_slope():
    # dA/dZ_j = pi (1 - k (Z_j - mean)). Z = (1, -1, -1) and its negative: mean -+1/3, deviations 4/3, -2/3, -2/3,
    # k = 1/2. Rollout 0: 1 - 2/3 : 1 + 1/3 : 1 + 1/3 = 1 : 4 : 4; rollout 1: 1 + 2/3 : 1 - 1/3 : 1 - 1/3 = 5 : 2 : 2.
    opposed = np.array([[[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]]])
    expected = np.array([1 / 9 + 5 / 9, 4 / 9 + 2 / 9, 4 / 9 + 2 / 9]) / 2
    np.testing.assert_allclose(shares_of(opposed, "mean_variance", k=0.5), expected, atol=1e-12)
    # k = 3/2 turns the slope of the high channel around: |1 - 2| : 1 + 1 : 1 + 1 and 1 + 2 : |1 - 1| : |1 - 1|.
    expected = np.array([1 / 5 + 1, 2 / 5 + 0, 2 / 5 + 0]) / 2
    np.testing.assert_allclose(shares_of(opposed, "mean_variance", k=1.5), expected, atol=1e-12)


def test_rvpo_policy_weight_is_the_share_of_each_channel():
    np.testing.assert_allclose(shares_of(RARE, "rvpo_policy", k=4.0, utility="log"), [0.4, 0.6], atol=1e-12)
    np.testing.assert_allclose(shares_of(RARE, "rvpo_policy", k=4 * math.log(3)), [0.25, 0.75], atol=1e-12)


def test_tchebycheff_weight_counts_the_weight_of_the_channel():
    # k = 0: U is the mean of w r, so the shares are those of w.
    np.testing.assert_allclose(shares_of(GROUP, "tchebycheff", k=0.0, weights=[3.0, 1.0]), [0.75, 0.25], atol=1e-12)


# --- plain-Python definitions ---------------------------------------------------------------------------------


def mean_and_std(values, ddof):
    """Mean and standard deviation of the values present; a dead channel has std 0."""
    if not values:
        return 0.0, 0.0
    mean = math.fsum(values) / len(values)
    if min(values) == max(values):
        return mean, 0.0
    return mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - ddof))


class Group:
    """One prompt's rollouts: `rows[g]` maps a channel to its reward, missing channels left out."""

    def __init__(self, rewards, weights, ranges, ddof, eps, mask_dead):
        self.weights, self.ranges, self.ddof, self.eps = weights, ranges, ddof, eps
        self.rows = [
            {j: float(r) for j, r in enumerate(row) if not math.isnan(r) and weights[j] > 0} for row in rewards
        ]
        columns = [[row[j] for row in self.rows if j in row] for j in range(len(weights))]
        self.mean, self.std = zip(*(mean_and_std(column, ddof) for column in columns), strict=True)
        self.live = [s > 0 for s in self.std]
        self.counts = [len(column) for column in columns]
        self.active = [[j for j in row if self.live[j] or not mask_dead] for row in self.rows]

    def z(self, g, j):
        return (self.rows[g][j] - self.mean[j]) / (self.std[j] + self.eps) if self.live[j] else 0.0

    def unit(self, j, value):
        low, high = self.ranges[j]
        return (value - low) / (high - low)

    def pi(self, g):
        total = sum(self.weights[j] for j in self.active[g])
        return {j: self.weights[j] / total for j in self.active[g]}

    def terms(self, g):
        return [self.weights[j] * self.z(g, j) for j in self.rows[g]]

    def centred(self, g):
        return sum(self.weights[j] * (self.rows[g][j] - self.mean[j]) for j in self.rows[g])


def soft(pairs, k):
    """Soft minimum of (prior, value) pairs."""
    if not pairs:
        return 0.0
    if k == 0:
        return sum(pi * v for pi, v in pairs)
    if k == math.inf:
        return min(v for _, v in pairs)
    return -math.log(sum(pi * math.exp(-k * v) for pi, v in pairs)) / k


def reference_rvpo(group, k):
    return [soft([(p, group.z(g, j)) for j, p in group.pi(g).items()], k) for g in range(len(group.rows))]


def reference_hard_min(group, k):
    return [min((group.z(g, j) for j in group.active[g]), default=0.0) for g in range(len(group.rows))]


def reference_mean_variance(group, k):
    advantages = []
    for g in range(len(group.rows)):
        pi = group.pi(g)
        mean = sum(p * group.z(g, j) for j, p in pi.items())
        variance = sum(p * (group.z(g, j) - mean) ** 2 for j, p in pi.items())
        advantages.append(mean - k / 2 * variance)
    return advantages


def reference_gdpo(group, k):
    return [sum(group.terms(g)) for g in range(len(group.rows))]


def reference_grpo(group, k):
    sums = [sum(group.weights[j] * r for j, r in row.items()) if row else None for row in group.rows]
    mean, std = mean_and_std([s for s in sums if s is not None], group.ddof)
    return [0.0 if s is None or std == 0 else (s - mean) / (std + group.eps) for s in sums]


def reference_dvao(group, k):
    spread = sum(w * s for w, s in zip(group.weights, group.std, strict=True))
    return [group.centred(g) / (spread + group.eps) if spread else 0.0 for g in range(len(group.rows))]


def reference_corr_grpo(group, k):
    """Only without missing values, where Pearson's correlation has one reading."""
    live = [j for j in range(len(group.weights)) if group.live[j]]
    columns = {j: [row[j] - group.mean[j] for row in group.rows] for j in live}
    norms = {j: math.sqrt(sum(v * v for v in columns[j])) for j in live}
    correlations = sum(
        sum(a * b for a, b in zip(columns[i], columns[j], strict=True)) / norms[i] / norms[j]
        for i in live
        for j in live
    )
    scale = math.sqrt(correlations + group.eps)
    return [group.centred(g) / scale if live else 0.0 for g in range(len(group.rows))]


def reference_gd2po(group, k, threshold=0.8):
    terms = [group.terms(g) for g in range(len(group.rows))]
    keep = []
    for t in terms:
        contradiction = any(a > 0 for a in t) and any(a < 0 for a in t)
        keep.append(bool(t) and not (contradiction and abs(sum(t)) < threshold * sum(map(abs, t))))
    share = sum(keep) / max(sum(bool(t) for t in terms), 1)
    return [sum(t) * share if kept else 0.0 for t, kept in zip(terms, keep, strict=True)]


def reference_cvar(group, k, share=1 / 3):
    advantages = []
    for g in range(len(group.rows)):
        total, left = 0.0, share
        for value, p in sorted((group.z(g, j), p) for j, p in group.pi(g).items()):
            total += min(p, left) * value
            left -= min(p, left)
        advantages.append(total / share)
    return advantages


def reference_tchebycheff(group, k, ideal=1.0):
    utilities = []
    for g, row in enumerate(group.rows):
        active = group.active[g]
        pairs = [(1 / len(active), group.weights[j] * (group.unit(j, row[j]) - ideal)) for j in active]
        utilities.append(soft(pairs, k) if active else None)
    there = [u for u in utilities if u is not None]
    return [0.0 if u is None else u - sum(there) / len(there) for u in utilities]


def reference_rvpo_policy(group, k, anchor=None, utility="softmin", signal="reward", total="mean"):
    active = sorted({j for row in group.active for j in row})
    m = {j: group.unit(j, group.mean[j]) if anchor is None else anchor[j] for j in active}
    if k == math.inf:
        lowest = min(m.values(), default=0.0)
        scores = {j: group.weights[j] * (m[j] == lowest) for j in active}
        if utility == "log" and lowest > 0:
            scores = {j: group.weights[j] / m[j] for j in active}
    elif utility == "log":
        scores = {j: group.weights[j] / (1 + k * m[j]) for j in active}
    else:
        scores = {j: group.weights[j] * math.exp(-k * m[j]) for j in active}
    whole = sum(group.weights[j] for j in active) if total == "sum" else 1.0
    advantages = []
    for g, row in enumerate(group.rows):
        advantage = 0.0
        for j in group.active[g]:
            low, high = group.ranges[j]
            value = group.z(g, j) if signal == "zscore" else (row[j] - group.mean[j]) / (high - low)
            advantage += whole * scores[j] / sum(scores.values()) * value
        advantages.append(advantage)
    return advantages


REFERENCES = {
    "corr_grpo": reference_corr_grpo,
    "cvar": reference_cvar,
    "dvao": reference_dvao,
    "gd2po": reference_gd2po,
    "gdpo": reference_gdpo,
    "grpo": reference_grpo,
    "hard_min": reference_hard_min,
    "mean_variance": reference_mean_variance,
    "rvpo": reference_rvpo,
    "rvpo_policy": reference_rvpo_policy,
    "tchebycheff": reference_tchebycheff,
}

CASES = [
    ("corr_grpo", 0.0, {}),
    ("cvar", 0.0, {}),
    ("cvar", 0.0, {"share": 1.0}),
    ("cvar", 0.0, {"share": 0.05}),
    ("cvar", 0.0, {"share": 0.7}),
    ("dvao", 0.0, {}),
    ("gd2po", 0.0, {}),
    ("gd2po", 0.0, {"threshold": 0.0}),
    ("gd2po", 0.0, {"threshold": 0.5}),
    ("gd2po", 0.0, {"threshold": 1.0}),
    ("gdpo", 0.0, {}),
    ("grpo", 0.0, {}),
    ("hard_min", 0.0, {}),
    ("mean_variance", 0.0, {}),
    ("mean_variance", 1.5, {}),
    ("rvpo", 0.0, {}),
    ("rvpo", 0.5, {}),
    ("rvpo", 2.0, {}),
    ("rvpo", math.inf, {}),
    ("rvpo_policy", 0.0, {}),
    ("rvpo_policy", 4.0, {}),
    ("rvpo_policy", math.inf, {}),
    ("rvpo_policy", 4.0, {"total": "sum"}),
    ("rvpo_policy", 4.0, {"signal": "zscore"}),
    ("rvpo_policy", 4.0, {"utility": "log"}),
    ("rvpo_policy", math.inf, {"utility": "log"}),
    ("rvpo_policy", math.inf, {"utility": "log", "anchor": [0.3, 0.0, 0.1, 0.0, 0.6]}),
    ("rvpo_policy", 4.0, {"utility": "log", "signal": "zscore", "total": "sum"}),
    ("rvpo_policy", 4.0, {"anchor": [0.3, 0.9, 0.1, 0.5, 0.6]}),
    ("tchebycheff", 0.0, {}),
    ("tchebycheff", 3.0, {}),
    ("tchebycheff", 3.0, {"ideal": 0.0}),
    ("tchebycheff", math.inf, {}),
]

RANGES = [(0.0, 1.0), (-3.0, 3.0), (0.0, 1.0), (0.0, 10.0), (-1.0, 0.0)]


def random_rewards(seed, missing):
    """Seven prompts of six rollouts and five channels; some dead, one prompt lacks a channel, one has nothing."""
    rng = np.random.default_rng(seed)
    low, high = np.array(RANGES).T
    rewards = low + (high - low) * rng.random((7, 6, 5))
    rewards[0, :, 1] = 2.5
    rewards[1, :, :] = 0.0
    if missing:
        rewards[rng.random(rewards.shape) < 0.25] = np.nan
        rewards[2, :, 3] = np.nan
        rewards[3, 1:, 0] = np.nan
        rewards[4, 2, :] = np.nan
        rewards[5, :, :] = np.nan
    return rewards


@pytest.mark.parametrize("dead_channels", ["keep", "mask"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize(("method", "k", "options"), CASES)
def test_method_equals_its_definition(method, k, options, missing, weighted, dead_channels):
    missing = missing and method != "corr_grpo"
    rewards = random_rewards(0, missing)
    rng = np.random.default_rng(1)
    weights = rng.random((7, 5)) * (rng.random((7, 5)) > 0.15) if weighted else np.ones((7, 5))
    result = compute_advantages(
        rewards,
        method=method,
        k=k,
        weights=weights if weighted else None,
        ranges=RANGES,
        ddof=1,
        eps=1e-3,
        dead_channels=dead_channels,
        whiten=False,
        **options,
    )
    expected = [
        REFERENCES[method](Group(rewards[p], weights[p], RANGES, 1, 1e-3, dead_channels == "mask"), k, **options)
        for p in range(7)
    ]
    np.testing.assert_allclose(result.advantages, expected, rtol=1e-9, atol=1e-11)


def test_every_method_has_a_reference_and_a_case():
    here = {name for name, method in METHODS.items() if method.function.__module__ == "rvpo.core.aggregations"}
    assert here == set(REFERENCES) == {method for method, _, _ in CASES}


def test_corr_grpo_with_missing_values_scales_each_channel_by_its_own_count():
    # Channel 1 misses rollout 3. Pure z (ddof 0) as unit vectors: u = z / sqrt(n), z from each channel's own values.
    # Channel 0 (1 1 0 0): u = (1, 1, -1, -1)/2. Channel 1 (1 0 1 -): mean 2/3, deviations (1, -2, 1)/3, norm
    # sqrt(6)/3: u = (1, -2, 1)/sqrt 6. Sum of correlations = |u_0 + u_1|^2 = 1 + 1 + 2 u_0.u_1, and
    # u_0.u_1 = (1 - 2 - 1)/(2 sqrt 6) = -1/sqrt 6. Deviations sum: 1/2 + 1/3, 1/2 - 2/3, -1/2 + 1/3, -1/2.
    rewards = GROUP.copy()
    rewards[0, 3, 1] = np.nan
    scale = math.sqrt(2 - 2 / math.sqrt(6))
    expected = [[5 / 6 / scale, -1 / 6 / scale, -1 / 6 / scale, -1 / 2 / scale]]
    for ddof in (0, 1):
        np.testing.assert_allclose(by_hand(rewards, "corr_grpo", ddof=ddof), expected, atol=1e-12)


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_corr_grpo_of_opposite_channels_without_eps_is_finite(scale):
    # rho = ((1, -1), (-1, 1)) sums to 0 and there is no eps: the quotient has no limit, but no NaN may come out.
    rewards = np.array([[[1.0, 0.0], [0.0, scale]]])
    assert np.isfinite(by_hand(rewards, "corr_grpo")).all()


# --- options --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1, math.nan])
def test_cvar_share_must_be_a_share(share):
    with pytest.raises(ConfigError, match=r"share in \(0, 1\]"):
        compute_advantages(GROUP, method="cvar", share=share)


@pytest.mark.parametrize("threshold", [-0.1, 1.1, math.nan])
def test_gd2po_threshold_must_be_a_share(threshold):
    with pytest.raises(ConfigError, match=r"threshold in \[0, 1\]"):
        compute_advantages(GROUP, method="gd2po", threshold=threshold)


def test_mean_variance_has_no_infinite_limit():
    with pytest.raises(ConfigError, match="hard_min"):
        compute_advantages(GROUP, method="mean_variance", k=math.inf)


@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if not method.takes_k])
def test_methods_without_risk_do_not_read_k(method):
    np.testing.assert_array_equal(by_hand(RARE, method, k=0.3), by_hand(RARE, method, k=7.0))


@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if method.takes_k])
def test_risk_sensitive_methods_read_k(method):
    assert not np.allclose(by_hand(RARE, method, k=0.3), by_hand(RARE, method, k=7.0), atol=1e-3)
