"""SA-MRPO, SAW and DARA: by hand, against plain loops over the batch, and what does not matter to them."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rvpo import ConfigError, RewardError, compute_advantages
from rvpo.core.batch_statistics import density, moments_of_rewards, saturation, variation

METHODS = ["sa_mrpo", "saw", "dara"]
BATCH = np.array(
    [
        [[1.0, 1.0], [1.0, 0.0], [0.0, 0.0], [0.0, 0.0]],
        [[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 0.0]],
    ]
)
"""Two groups of four. Channel 0: 5 of 8, live in both groups. Channel 1: 1 of 8, live in the first."""


def by_hand(rewards, method, **settings):
    """Advantages before whitening, with population standard deviations and without eps."""
    return compute_advantages(rewards, method=method, **{"ddof": 0, "eps": 0.0, "whiten": False} | settings).advantages


# z-scores of BATCH: channel 0 is 1 1 -1 -1, then (mean 3/4, std sqrt(3)/4) 1/sqrt3 three times and -sqrt3.
# Channel 1 is (mean 1/4, std sqrt(3)/4) sqrt3 and three times -1/sqrt3, then 0.
Z = np.array(
    [
        [[1.0, math.sqrt(3)], [1.0, -1 / math.sqrt(3)], [-1.0, -1 / math.sqrt(3)], [-1.0, -1 / math.sqrt(3)]],
        [[1 / math.sqrt(3), 0.0]] * 3 + [[-math.sqrt(3), 0.0]],
    ]
)


@pytest.mark.parametrize("gamma", [0.25, 0.5, 1.0, 3.0])
def test_sa_mrpo_by_hand(gamma):
    # Headroom 1 - 5/8 = 3/8 and 1 - 1/8 = 7/8.
    expected = (3 / 8) ** gamma * Z[..., 0] + (7 / 8) ** gamma * Z[..., 1]
    np.testing.assert_allclose(by_hand(BATCH, "sa_mrpo", gamma=gamma), expected, atol=1e-12)


def test_sa_mrpo_is_at_one_half_where_nothing_is_said():
    np.testing.assert_array_equal(by_hand(BATCH, "sa_mrpo"), by_hand(BATCH, "sa_mrpo", gamma=0.5))


def test_saw_by_hand():
    # CV of a verdict met with probability p is sqrt((1 - p) / p): sqrt(3/5) = 0.7745966692 and sqrt(7).
    first, second = math.sqrt(3 / 5), math.sqrt(7)
    expected = 2 * (first * Z[..., 0] + second * Z[..., 1]) / (first + second)
    np.testing.assert_allclose(by_hand(BATCH, "saw"), expected, atol=1e-12)


def test_saw_shifts_a_channel_by_the_lowest_reward_possible():
    # Channel 0 as in tool calling, -3 or 3: less its low end it is 0 or 6, and its CV that of 0 and 1.
    shifted = BATCH * [6.0, 1.0] - [3.0, 0.0]
    ranges = [(-3.0, 3.0), (0.0, 1.0)]
    np.testing.assert_allclose(by_hand(shifted, "saw", ranges=ranges), by_hand(BATCH, "saw"), atol=1e-12)


def test_saw_takes_the_spread_over_the_whole_batch():
    # Each group is dead in channel 0, which is 0 in one and 1 in the other: CV 1, but no z-score to weigh.
    rewards = BATCH.copy()
    rewards[0, :, 0], rewards[1, :, 0] = 0.0, 1.0
    expected = 2 * math.sqrt(7) / (1 + math.sqrt(7)) * Z[..., 1]
    np.testing.assert_allclose(by_hand(rewards, "saw"), expected, atol=1e-12)


def test_dara_by_hand():
    # pi = 2/2 and 1/2: sqrt(2) for channel 1, where Z > 0 alone, or everywhere.
    weight = np.where(Z[..., 1] > 0, math.sqrt(2), 1.0)
    np.testing.assert_allclose(by_hand(BATCH, "dara"), Z[..., 0] + weight * Z[..., 1], atol=1e-12)
    expected = Z[..., 0] + math.sqrt(2) * Z[..., 1]
    np.testing.assert_allclose(by_hand(BATCH, "dara", symmetric=True), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("live", "cap", "factor"),
    # sqrt(50 / live) up to the cap; at 2 of 50 it is 5 exactly, at 1 it is 7.07.
    [(2, 5.0, 5.0), (1, 5.0, 5.0), (3, 5.0, math.sqrt(50 / 3)), (1, 8.0, math.sqrt(50)), (25, 1.0, 1.0)],
)
def test_dara_is_capped(live, cap, factor):
    rewards = np.zeros((50, 4, 2))
    rewards[:, :2, 0] = 1.0
    rewards[:live, :2, 1] = 1.0
    result = by_hand(rewards, "dara", cap=cap)
    np.testing.assert_allclose(result[0], [1 + factor, 1 + factor, -2.0, -2.0], atol=1e-12)
    np.testing.assert_allclose(result[-1], [1.0, 1.0, -1.0, -1.0] if live < 50 else result[0], atol=1e-12)


def test_the_cap_of_dara_is_5_where_nothing_is_said():
    rewards = np.zeros((50, 4, 2))
    rewards[:, :2, 0] = 1.0
    rewards[:1, :2, 1] = 1.0
    np.testing.assert_allclose(by_hand(rewards, "dara")[0], [6.0, 6.0, -2.0, -2.0])


def test_weights_multiply_the_factors():
    expected = 0.5 * (3 / 8) * Z[..., 0] + 2.0 * (7 / 8) * Z[..., 1]
    np.testing.assert_allclose(by_hand(BATCH, "sa_mrpo", gamma=1.0, weights=[0.5, 2.0]), expected, atol=1e-12)


# --- statistics against plain loops ---------------------------------------------------------------------------


def random_batch(seed, missing=0.3, prompts=5, channels=4):
    rng = np.random.default_rng(seed)
    rewards = (rng.random((prompts, 6, channels)) < rng.random(channels)).astype(float)
    rewards[rng.random(rewards.shape) < missing] = np.nan
    rewards.swapaxes(1, 2)[rng.random((prompts, channels)) < 0.2] = np.nan
    return rewards


def values_of(rewards, j):
    return [v for v in rewards[..., j].ravel().tolist() if not math.isnan(v)]


def loop_saturation(rewards, low, high):
    return [
        (sum(v) / len(v) - low) / (high - low) if (v := values_of(rewards, j)) else 0.0
        for j in range(rewards.shape[2])
    ]


def loop_variation(rewards, low, ddof):
    coefficients = []
    for j in range(rewards.shape[2]):
        values = [v - low for v in values_of(rewards, j)]
        if not values:
            coefficients.append(None)
            continue
        mean = sum(values) / len(values)
        squares = sum((v - mean) ** 2 for v in values)
        coefficients.append(math.sqrt(squares / max(len(values) - ddof, 1)) / mean if mean else 0.0)
    known = [c for c in coefficients if c is not None]
    return [0.0 if c is None else c * len(known) / sum(known) for c in coefficients]


def loop_density(rewards):
    shares = []
    for j in range(rewards.shape[2]):
        groups = [[v for v in group[:, j].tolist() if not math.isnan(v)] for group in rewards]
        having = [group for group in groups if group]
        shares.append(sum(len(set(group)) > 1 for group in having) / len(having) if having else 0.0)
    return [share / max(shares) for share in shares]


def moments(rewards, ddof=1, low=0.0, high=1.0, labels=None):
    ranges = np.tile([low, high], (rewards.shape[2], 1))
    weights = np.ones((1, rewards.shape[2]))
    return moments_of_rewards(rewards, weights=weights, ranges=ranges, ddof=ddof, labels=labels)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("ddof", [0, 1])
def test_statistics_are_those_of_plain_loops(seed, ddof):
    rewards = random_batch(seed) * 4 - 2
    computed = moments(rewards, ddof, -2.0, 2.0)
    np.testing.assert_allclose(saturation(computed)[0, 0], loop_saturation(rewards, -2.0, 2.0), atol=1e-12)
    np.testing.assert_allclose(variation(computed)[0, 0], loop_variation(rewards, -2.0, ddof), atol=1e-12)
    np.testing.assert_allclose(density(computed)[0, 0], loop_density(rewards), atol=1e-12)


def test_statistics_of_single_values_and_pairs():
    # Channel 0 has the values 1/4 and 3/4, channel 1 the value 1/2, channel 2 none: CV sqrt(1/8) / (1/2) and 0.
    rewards = np.array([[[0.25, 0.5, np.nan], [0.75, np.nan, np.nan]]])
    computed = moments(rewards)
    np.testing.assert_allclose(saturation(computed)[0, 0], [0.5, 0.5, 0.0])
    np.testing.assert_allclose(variation(computed)[0, 0], [2.0, 0.0, 0.0])
    np.testing.assert_allclose(density(computed)[0, 0], [1.0, 0.0, 0.0])
    # A group with a single value has the channel, which is dead there: 1 of 2 groups, against 2 of 2.
    halves = np.array([[[0.0, 0.0], [1.0, 1.0]], [[0.0, 0.0], [np.nan, 1.0]]])
    np.testing.assert_allclose(density(moments(halves))[0, 0], [0.5, 1.0])
    # Two channels of pairs: the second varies twice as much about the same mean.
    pairs = np.array([[[0.25, 0.0], [0.75, 1.0]]])
    np.testing.assert_allclose(variation(moments(pairs))[0, 0], [2 / 3, 4 / 3])
    # A pair beside three values: sqrt(1/8) / (1/2) = 0.7071 and sqrt(1/4) / (1/2) = 1 with ddof 1.
    uneven = np.array([[[0.25, 0.0], [0.75, 1.0], [np.nan, 0.5]]])
    root = math.sqrt(0.5)
    np.testing.assert_allclose(variation(moments(uneven))[0, 0], [2 * root / (1 + root), 2 / (1 + root)])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("seed", range(3))
def test_the_statistic_of_the_batch_is_the_one_that_is_handed_over(method, seed):
    rewards = random_batch(seed)
    name, values = {
        "sa_mrpo": ("saturation", loop_saturation(rewards, 0.0, 1.0)),
        "saw": ("variation", loop_variation(rewards, 0.0, 1)),
        "dara": ("density", loop_density(rewards)),
    }[method]
    own = compute_advantages(rewards, method=method).advantages
    for given_values in (values, np.tile(values, (len(rewards), 1))):
        np.testing.assert_allclose(
            compute_advantages(rewards, method=method, **{name: given_values}).advantages, own, atol=1e-12
        )


def test_a_statistic_of_each_prompt_goes_to_its_prompt():
    values = np.array([[0.0, 0.75], [0.75, 0.0]])
    expected = np.sqrt(1 - values)[:, None, :] * Z
    np.testing.assert_allclose(by_hand(BATCH, "sa_mrpo", saturation=values), expected.sum(axis=2), atol=1e-12)


@pytest.mark.parametrize("block", [1, 7, 24, 9 * 24, 10**6])
@pytest.mark.parametrize("method", METHODS)
def test_the_size_of_blocks_does_not_matter(monkeypatch, method, block):
    rewards = random_batch(11, prompts=17)
    weights = np.random.default_rng(0).random((17, 4)) + 0.1
    whole = compute_advantages(rewards, method=method, weights=weights)
    monkeypatch.setattr("rvpo.core.advantages.CPU_BLOCK", block)
    np.testing.assert_array_equal(
        compute_advantages(rewards, method=method, weights=weights).advantages, whole.advantages
    )


@pytest.mark.parametrize("statistic", [saturation, variation, density])
def test_leading_axes_are_batches_of_their_own(statistic):
    batches = [random_batch(seed) for seed in range(3)]
    alone = [statistic(moments(batch)) for batch in batches]
    together = [np.stack(parts) for parts in zip(*(moments(batch)[:3] for batch in batches), strict=True)]
    stacked = moments(batches[0])._replace(count=together[0], mean=together[1], std=together[2])
    np.testing.assert_allclose(statistic(stacked), np.stack(alone), atol=1e-14)


# --- prompts with channels of their own -----------------------------------------------------------------------


@pytest.mark.parametrize("statistic", [saturation, variation, density])
def test_a_statistic_by_label_is_that_of_the_labels_side_by_side(statistic):
    # Six labels, of which each prompt has three, in an order of its own; the last prompt has two.
    rng = np.random.default_rng(5)
    labels = np.array([rng.permutation(6)[:3] for _ in range(7)])
    labels[-1, 2] = -1
    rewards = rng.integers(0, 3, (7, 5, 3)) / 2
    rewards[rng.random(rewards.shape) < 0.2] = np.nan
    rewards[-1, :, 2] = np.nan
    side_by_side = np.full((7, 5, 6), np.nan)
    for p, row in enumerate(labels):
        for column, label in enumerate(row):
            if label >= 0:
                side_by_side[p, :, label] = rewards[p, :, column]
    expected = statistic(moments(side_by_side))[0, 0]
    computed = statistic(moments(rewards, labels=labels))
    assert computed.shape == (7, 1, 3)
    for p, row in enumerate(labels):
        for column, label in enumerate(row):
            assert computed[p, 0, column] == pytest.approx(expected[label] if label >= 0 else 0.0, abs=1e-12)


# --- where they are GDPO, and degenerate batches --------------------------------------------------------------


@given(st.integers(0, 10**6))
def test_without_gamma_without_room_for_the_cap_and_with_equal_statistics_they_are_gdpo(seed):
    rewards = random_batch(seed)
    expected = by_hand(rewards, "gdpo")
    np.testing.assert_array_equal(by_hand(rewards, "sa_mrpo", gamma=0.0), expected)
    np.testing.assert_array_equal(by_hand(rewards, "dara", cap=1.0), expected)
    np.testing.assert_array_equal(by_hand(rewards, "saw", variation=[1.0] * 4), expected)


def test_channels_that_stand_alike_are_weighed_alike():
    # Both channels are met by half of the rollouts, in every group.
    rewards = np.array([[[1.0, 1.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]] * 3)
    expected = by_hand(rewards, "gdpo")
    np.testing.assert_allclose(by_hand(rewards, "saw"), expected, atol=1e-12)
    np.testing.assert_allclose(by_hand(rewards, "dara"), expected, atol=1e-12)
    np.testing.assert_allclose(by_hand(rewards, "sa_mrpo", gamma=1.0), 0.5 * expected, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [0.0, 1.0, np.nan])
def test_a_batch_without_signal_has_no_advantage(method, value):
    rewards = np.full((3, 4, 2), value)
    result = compute_advantages(rewards, method=method)
    np.testing.assert_array_equal(result.advantages, np.zeros((3, 4)))


@pytest.mark.parametrize("method", METHODS)
def test_a_channel_without_values_changes_nothing(method):
    rewards = random_batch(3)
    more = np.concatenate([rewards, np.full((*rewards.shape[:2], 1), np.nan)], axis=2)
    np.testing.assert_allclose(by_hand(more, method), by_hand(rewards, method), atol=1e-12)
    dead = np.concatenate([rewards, np.ones((*rewards.shape[:2], 1))], axis=2)
    np.testing.assert_allclose(by_hand(dead, method, weights=[1, 1, 1, 1, 0]), by_hand(rewards, method), atol=1e-12)


def test_shares_of_channels_follow_the_factors():
    # SA-MRPO with gamma 1 weighs 3/8 to 7/8, DARA 1 to sqrt(2) where Z > 0; the weights are summed over the rollouts.
    sums = compute_advantages(BATCH, method="sa_mrpo", gamma=1.0).groups.weight
    np.testing.assert_allclose(sums, [[4 * 0.3, 4 * 0.7]] * 2)
    met, failed = math.sqrt(2) / (1 + math.sqrt(2)), 0.5
    sums = compute_advantages(BATCH, method="dara").groups.weight
    np.testing.assert_allclose(sums[0, 1], met + 3 * failed)


# --- errors ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [-0.1, math.inf, math.nan])
def test_gamma_must_be_finite_and_not_negative(gamma):
    with pytest.raises(ConfigError, match="sa_mrpo needs a finite gamma >= 0"):
        by_hand(BATCH, "sa_mrpo", gamma=gamma)


@pytest.mark.parametrize("cap", [0.99, math.inf, math.nan])
def test_the_cap_must_be_finite_and_at_least_1(cap):
    with pytest.raises(ConfigError, match="dara needs a finite cap >= 1"):
        by_hand(BATCH, "dara", cap=cap)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0.5], r"saturation must have shape \(2,\) or \(2, 2\), got \(1,\)"),
        ([0.5, -0.1], "saturation must be finite and >= 0"),
        ([0.5, math.nan], "saturation must be finite and >= 0"),
        ([0.5, math.inf], "saturation must be finite and >= 0"),
    ],
)
def test_a_statistic_must_fit_and_be_a_number(values, message):
    with pytest.raises(RewardError, match=message):
        by_hand(BATCH, "sa_mrpo", saturation=values)


@pytest.mark.parametrize("method", ["sa_mrpo", "saw"])
def test_rewards_must_be_in_their_range(method):
    with pytest.raises(RewardError, match="outside its range"):
        by_hand(2 * BATCH, method)
