"""Schedules are functions of the step alone; EffectiveChannels solves k for each group."""

import math

import numpy as np
import pytest

from rvpo import ConfigError, EffectiveChannels, compute_advantages
from rvpo.core.schedules import SCHEDULES, constant, cosine, effective, from_config, linear, step

# --- values ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("now", "k"), [(0, 1.5), (50, 1.5), (100, 1.5), (1000, 1.5)])
def test_constant(now, k):
    assert constant(1.5)(now, 100) == k


@pytest.mark.parametrize(("now", "k"), [(0, 0.5), (20, 0.8), (50, 1.25), (100, 2.0), (101, 2.0), (10**9, 2.0)])
def test_linear_is_the_papers_half_to_two(now, k):
    assert linear(0.5, 2.0)(now, 100) == pytest.approx(k, abs=1e-12)


@pytest.mark.parametrize(
    ("now", "k"),
    # 2 - 1.5 (1 + cos(pi x)) / 2 with cos 0, pi/3, pi/2, 2 pi/3, pi = 1, 1/2, 0, -1/2, -1
    [(0, 0.5), (20, 0.875), (30, 1.25), (40, 1.625), (60, 2.0), (61, 2.0), (10**9, 2.0)],
)
def test_cosine(now, k):
    assert cosine(0.5, 2.0)(now, 60) == pytest.approx(k, abs=1e-12)


@pytest.mark.parametrize(("now", "k"), [(0, 4.0), (100, 0.0), (300, 0.0)])
@pytest.mark.parametrize("schedule", [linear, cosine])
def test_schedules_may_fall(schedule, now, k):
    assert schedule(4.0, 0.0)(now, 100) == pytest.approx(k, abs=1e-12)


@pytest.mark.parametrize(("now", "k"), [(0, 0.5), (49, 0.5), (50, 1.0), (79, 1.0), (80, 2.0), (100, 2.0), (200, 2.0)])
def test_step(now, k):
    assert step({0.8: 2.0, 0.0: 0.5, 0.5: 1.0})(now, 100) == k


def test_step_at_the_very_end():
    schedule = step({0.0: 1.0, 1.0: 3.0})
    assert [schedule(now, 10) for now in (0, 9, 10, 11)] == [1.0, 1.0, 3.0, 3.0]


@pytest.mark.parametrize(("now", "share"), [(0, 0.9), (50, 0.7), (100, 0.5), (150, 0.5)])
def test_effective_goes_linearly_from_share_to_share(now, share):
    k = effective(0.9, 0.5, k_max=7.0)(now, 100)
    assert isinstance(k, EffectiveChannels)
    assert k.share == pytest.approx(share, abs=1e-12)
    assert k.k_max == 7.0


def test_effective_without_an_end_holds_its_share():
    assert [effective(0.6)(now, 10) for now in (0, 5, 10, 20)] == [EffectiveChannels(0.6)] * 4


ALL = {
    "constant": {"k": 1.0},
    "cosine": {"start": 0.5, "end": 2.0},
    "effective": {"share": 0.9, "end": 0.5},
    "linear": {"start": 0.5, "end": 2.0},
    "step": {"values": {0.0: 0.5, 0.5: 2.0}},
}


def test_every_schedule_is_tested():
    assert set(ALL) == set(SCHEDULES)


@pytest.mark.parametrize("name", sorted(ALL))
def test_a_schedule_does_not_depend_on_what_was_asked_before(name):
    steps = [7, 100, 0, 7, 55, 7]
    schedule = from_config(name, ALL[name])
    assert [schedule(now, 100) for now in steps] == [from_config(name, ALL[name])(now, 100) for now in steps]


@pytest.mark.parametrize("name", sorted(ALL))
def test_a_schedule_depends_on_the_share_of_the_run_alone(name):
    schedule = from_config(name, ALL[name])
    assert [schedule(now, 8) for now in range(9)] == [schedule(1000 * now, 8000) for now in range(9)]


@pytest.mark.parametrize("name", sorted(ALL))
def test_a_run_of_no_steps_is_at_its_end(name):
    schedule = from_config(name, ALL[name])
    assert schedule(0, 0) == schedule(5, 5)


@pytest.mark.parametrize("name", sorted(ALL))
def test_every_schedule_gives_what_compute_advantages_takes(name):
    rewards = np.random.default_rng(0).random((2, 4, 3))
    for now in (0, 3, 10):
        result = compute_advantages(rewards, k=from_config(name, ALL[name])(now, 10))
        assert np.isfinite(result.advantages).all()


# --- errors ---------------------------------------------------------------------------------------------------


def test_an_unknown_schedule_is_named_with_the_nearest():
    with pytest.raises(ConfigError, match=r"unknown schedule 'linaer': did you mean 'linear'.* Known: constant, cos"):
        from_config("linaer", {})


@pytest.mark.parametrize(
    ("name", "options"), [("linear", {"start": 0.5}), ("constant", {"k": 1.0, "stop": 2.0}), ("step", {})]
)
def test_options_that_a_schedule_does_not_take_are_an_error(name, options):
    with pytest.raises(ConfigError, match=f"schedule '{name}' does not take"):
        from_config(name, options)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("constant", {"k": -1.0}),
        ("linear", {"start": -0.5, "end": 1.0}),
        ("linear", {"start": 0.5, "end": math.nan}),
        ("cosine", {"start": 0.5, "end": -1.0}),
        ("step", {"values": {0.0: -1.0}}),
    ],
)
def test_a_schedule_of_bad_ks_is_an_error(name, options):
    with pytest.raises(ConfigError, match="k must be a number >= 0"):
        from_config(name, options)


@pytest.mark.parametrize("values", [{}, {0.5: 1.0}, {0.0: 1.0, 1.5: 2.0}, {-0.1: 1.0, 0.0: 2.0}])
def test_a_step_schedule_starts_at_0_and_ends_within_1(values):
    with pytest.raises(ConfigError, match="a step schedule starts at share 0"):
        step(values)


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_no_nan_comes_from_infinite_ends(name):
    # inf - inf and 0 * inf are NaN: either an error when the schedule is made, or numbers all along.
    try:
        schedule = from_config(name, {"start": 1.0, "end": math.inf})
    except ConfigError:
        return
    assert not any(math.isnan(schedule(now, 10)) for now in range(11))


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1, math.nan])
def test_effective_channels_needs_a_share(share):
    with pytest.raises(ConfigError, match="0 < share <= 1"):
        EffectiveChannels(share)
    with pytest.raises(ConfigError, match="0 < share <= 1"):
        effective(0.5, share)


@pytest.mark.parametrize("k_max", [0.0, -1.0, math.inf, math.nan])
def test_effective_channels_needs_a_finite_k_max(k_max):
    with pytest.raises(ConfigError, match="finite k_max > 0"):
        EffectiveChannels(0.5, k_max)


# --- k that gives a share of the channels ---------------------------------------------------------------------


def effective_share(rewards, k, eps=1e-4):
    """Mean over the rollouts of exp(entropy of softmax(-k Z)) over the number of channels they have."""
    shares = []
    for row in range(len(rewards)):
        weights = []
        for channel in range(len(rewards[row])):
            column = [r[channel] for r in rewards if not math.isnan(r[channel])]
            if math.isnan(rewards[row][channel]):
                continue
            mean = sum(column) / len(column)
            std = math.sqrt(sum((v - mean) ** 2 for v in column) / (len(column) - 1))
            weights.append(math.exp(-k * (rewards[row][channel] - mean) / (std + eps)))
        if weights:
            total = sum(weights)
            entropy = -sum(w / total * math.log(w / total) for w in weights)
            shares.append(math.exp(entropy) / len(weights))
    return sum(shares) / len(shares)


def continuous(prompts, channels, missing=0.0, seed=0):
    rng = np.random.default_rng(seed)
    rewards = rng.random((prompts, 8, channels))
    rewards[rng.random(rewards.shape) < missing] = np.nan
    return rewards


@pytest.mark.parametrize("missing", [0.0, 0.2])
@pytest.mark.parametrize("channels", [5, 17])
@pytest.mark.parametrize("share", [0.4, 0.6, 0.9])
def test_the_solved_k_gives_the_share_in_every_group(channels, share, missing):
    rewards = continuous(6, channels, missing)
    k = compute_advantages(rewards, k=EffectiveChannels(share)).groups.k
    assert k.shape == (6, 1)
    for p in range(6):
        assert effective_share(rewards[p].tolist(), k[p, 0]) == pytest.approx(share, abs=1e-5)


@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_groups_are_solved_independently(missing):
    rewards = continuous(4, 5, missing)
    together = compute_advantages(rewards, k=EffectiveChannels(0.6), whiten=False)
    assert len(np.unique(together.groups.k)) == 4
    for p in range(4):
        alone = compute_advantages(rewards[p : p + 1], k=EffectiveChannels(0.6), whiten=False)
        np.testing.assert_allclose(together.groups.k[p], alone.groups.k[0], atol=1e-9)
        np.testing.assert_allclose(together.advantages[p], alone.advantages[0], atol=1e-9)


@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_the_solved_k_gives_the_advantages_of_that_k(missing):
    rewards = continuous(3, 5, missing)
    solved = compute_advantages(rewards, k=EffectiveChannels(0.6), whiten=False)
    for p in range(3):
        k = float(solved.groups.k[p, 0])
        np.testing.assert_allclose(
            solved.advantages[p], compute_advantages(rewards[p : p + 1], k=k, whiten=False).advantages[0], atol=1e-9
        )


def test_k_is_k_max_where_no_k_reaches_the_share():
    rewards = continuous(3, 3)
    rewards[0, :, 1:] = np.nan  # one channel: its share is 1 whatever k
    rewards[1, :, :] = 0.3  # dead channels: all shares equal whatever k
    rewards[2, :, 2] = rewards[2, :, 1] = rewards[2, :, 0]  # ties
    k = compute_advantages(rewards, k=EffectiveChannels(0.5, k_max=9.0)).groups.k
    np.testing.assert_array_equal(k, [[9.0]] * 3)


def test_k_is_k_max_where_the_share_would_need_more():
    # Five channels: the share cannot fall below 1/5.
    k = compute_advantages(continuous(3, 5), k=EffectiveChannels(0.1, k_max=4.0)).groups.k
    np.testing.assert_array_equal(k, [[4.0]] * 3)


def test_a_share_of_1_is_the_mean():
    rewards = continuous(3, 5)
    solved = compute_advantages(rewards, k=EffectiveChannels(1.0), whiten=False).advantages
    np.testing.assert_allclose(solved, compute_advantages(rewards, k=0.0, whiten=False).advantages, atol=1e-6)


def test_a_smaller_share_needs_a_larger_k():
    rewards = continuous(3, 5)
    ks = [compute_advantages(rewards, k=EffectiveChannels(share)).groups.k for share in (0.9, 0.7, 0.5)]
    assert (ks[0] < ks[1]).all()
    assert (ks[1] < ks[2]).all()


def test_a_solved_k_rests_on_the_same_share_of_a_short_and_a_long_rubric():
    # At a fixed k = 2 the long rubric rests on a smaller share of its channels.
    short, long = continuous(16, 5), continuous(16, 17)
    fixed = [compute_advantages(r, k=2.0).stats.effective_channels / r.shape[2] for r in (short, long)]
    solved = [
        compute_advantages(r, k=EffectiveChannels(0.5)).stats.effective_channels / r.shape[2] for r in (short, long)
    ]
    assert fixed[1] < fixed[0] - 0.05
    np.testing.assert_allclose(solved, [0.5, 0.5], atol=1e-4)


def test_masked_dead_channels_do_not_count_for_the_share():
    # Two of five channels are dead. Masked, the share is one of three: the k of the three alone.
    rewards = continuous(2, 5)
    rewards[:, :, 3:] = 1.0
    masked = compute_advantages(rewards, k=EffectiveChannels(0.6), dead_channels="mask").groups.k
    alone = compute_advantages(rewards[:, :, :3], k=EffectiveChannels(0.6)).groups.k
    np.testing.assert_allclose(masked, alone, atol=1e-9)


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_rollouts_without_any_value_do_not_count_for_the_share(missing):
    rewards = continuous(2, 5, missing)
    longer = np.concatenate([rewards, np.full((2, 3, 5), np.nan)], axis=1)
    np.testing.assert_allclose(
        compute_advantages(longer, k=EffectiveChannels(0.6)).groups.k,
        compute_advantages(rewards, k=EffectiveChannels(0.6)).groups.k,
        atol=1e-9,
    )


def test_the_reported_k_is_the_mean_over_groups():
    result = compute_advantages(continuous(4, 5), k=EffectiveChannels(0.6))
    assert float(result.stats.k) == pytest.approx(sum(float(k) for k in result.groups.k[:, 0]) / 4, abs=1e-12)
