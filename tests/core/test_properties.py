"""What holds for every batch: laws of the method, checked by hypothesis on rewards with missing values everywhere.

Rewards are eighths in [0, 1], so ties, dead channels and missing values are frequent and sums are exact: a law is
then not blurred by the rounding that makes a dead channel of one order of summation live in another.
"""

import math

import array_api_strict
import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rvpo import METHODS, compute_advantages
from rvpo.core.aggregations import soft_min

NAN = float("nan")
ALL = sorted(METHODS)
BY_GROUP = [name for name in ALL if not METHODS[name].of_batch]
"""Methods that see no more than a group."""
IN_RANGE = [name for name in ALL if METHODS[name].needs_range]
LINEAR = ["corr_grpo", "dara", "gd2po", "gdpo", "maxrl", "sa_mrpo", "saw"]
"""Methods whose advantages are proportional to the weights."""
ON_ZSCORES = ["cvar", "gd2po", "gdpo", "hard_min", "mean_variance", "rvpo"]
"""Methods that see rewards only as z-scores."""

EIGHTHS = [i / 8 for i in range(9)]
WEIGHTS = [0.25, 0.5, 1.0, 1.5, 4.0]
few = settings(max_examples=50)


# --- strategies -----------------------------------------------------------------------------------------------


seeds = st.integers(0, 2**32 - 1)
"""Batches are drawn by NumPy from a seed of hypothesis: every method and every kind of hole comes up in 100 draws."""


def filled(shape, values):
    return seeds.map(lambda seed: np.random.default_rng(seed).choice(values, size=shape))


def punched(rng, rewards):
    """The rewards with values, rollouts, channels of a prompt and whole channels missing, and some channels dead."""
    prompts, rollouts, channels = rewards.shape
    rewards[(rng.random((prompts, 1, channels)) < 0.15) & np.ones(rewards.shape, bool)] = 0.5
    rewards[rng.random(rewards.shape) < rng.choice([0.0, 0.1, 0.4])] = NAN
    rewards[rng.random((prompts, rollouts)) < rng.choice([0.0, 0.2])] = NAN
    rewards.swapaxes(1, 2)[rng.random((prompts, channels)) < rng.choice([0.0, 0.2])] = NAN
    rewards[:, :, rng.random(channels) < rng.choice([0.0, 0.1])] = NAN
    return rewards


@st.composite
def batches(draw, prompts=(1, 3), missing=True):
    """Rewards (P, G, M): eighths, half of the batches with missing values."""
    rng = np.random.default_rng(draw(seeds))
    shape = rng.integers(*prompts, endpoint=True), rng.choice([1, 2, 3, 4, 5, 6]), rng.choice([1, 2, 2, 3, 3, 4])
    rewards = rng.choice(EIGHTHS, size=shape)
    return punched(rng, rewards) if missing and rng.random() < 0.5 else rewards


OPTIONS = {
    "cvar": {"share": [0.05, 0.3, 1 / 3, 0.7, 1.0]},
    "gd2po": {"threshold": [0.0, 0.3217, 0.7853, 1.0]},  # no ratio of sums is just one of these
    "tchebycheff": {"ideal": [0.0, 1.0]},
    "rvpo_policy": {"utility": ["softmin", "log"], "signal": ["reward", "zscore"], "total": ["mean", "sum"]},
    "sa_mrpo": {"gamma": [0.0, 0.25, 0.5, 1.0, 2.0]},
    "dara": {"cap": [1.0, 1.5, 5.0], "symmetric": [True, False]},
    "pow3r": {"blend": [0.0, 0.5, 1.0], "lowest": [0.0, 0.67], "highest": [1.5, 10.0]},
}


@st.composite
def settings_of(draw, methods, prompts, channels):
    """A method with its options, k, and for half of the draws weights of each channel or of each prompt."""
    rng = np.random.default_rng(draw(seeds))
    method = str(rng.choice(methods))
    chosen = {"method": method, "k": float(rng.choice([0.0, 0.3, 1.0, 2.0, 8.0]))}
    chosen |= {name: rng.choice(values).item() for name, values in OPTIONS.get(method, {}).items()}
    if rng.random() < 0.5:
        chosen["weights"] = rng.choice(WEIGHTS, size=(channels,) if rng.random() < 0.5 else (prompts, channels))
    return chosen


@st.composite
def cases(draw, methods=ALL, **shape):
    """Rewards and settings that fit them."""
    rewards = draw(batches(**shape))
    return rewards, draw(settings_of(methods, rewards.shape[0], rewards.shape[2]))


def advantages_of(rewards, **chosen):
    return compute_advantages(rewards, **chosen).advantages


def raw(rewards, **chosen):
    """Advantages before whitening."""
    return compute_advantages(rewards, whiten=False, **chosen).advantages


def by_channel(chosen, change):
    """The settings with what has a channel axis changed: weights and, where it is an array, the anchor."""
    arrays = {name: chosen[name] for name in ("weights", "anchor") if isinstance(chosen.get(name), np.ndarray)}
    return chosen | {name: change(value) for name, value in arrays.items()}


def close(first, second, tolerance=1e-9):
    np.testing.assert_allclose(first, second, rtol=tolerance, atol=tolerance)


# --- order ----------------------------------------------------------------------------------------------------


@given(cases(), st.randoms(use_true_random=False), st.sampled_from([False, True, "sequence"]))
def test_permuting_rollouts_permutes_advantages(case, random, whiten):
    rewards, chosen = case
    order = random.sample(range(rewards.shape[1]), rewards.shape[1])
    shuffled = advantages_of(rewards[:, order], whiten=whiten, **chosen)
    close(shuffled, advantages_of(rewards, whiten=whiten, **chosen)[:, order])


@given(cases(), st.randoms(use_true_random=False))
def test_permuting_prompts_permutes_advantages(case, random):
    rewards, chosen = case
    order = random.sample(range(len(rewards)), len(rewards))
    shuffled = chosen | {"weights": chosen["weights"][order]} if np.ndim(chosen.get("weights")) == 2 else chosen
    close(advantages_of(rewards[order], **shuffled), advantages_of(rewards, **chosen)[order])


@given(cases(), st.randoms(use_true_random=False))
def test_permuting_channels_with_their_weights_changes_nothing(case, random):
    rewards, chosen = case
    order = random.sample(range(rewards.shape[2]), rewards.shape[2])
    shuffled = by_channel(chosen, lambda value: value[..., order])
    close(advantages_of(rewards[..., order], **shuffled), advantages_of(rewards, **chosen))


@given(batches(), st.randoms(use_true_random=False), st.sampled_from(IN_RANGE))
def test_permuting_channels_with_their_ranges_changes_nothing(rewards, random, method):
    channels = rewards.shape[2]
    ranges = np.array([(-3, 3), (0, 1), (0, 4), (-1, 2)], dtype=float)[:channels]
    order = random.sample(range(channels), channels)
    shuffled = advantages_of(rewards[..., order], method=method, k=2.0, ranges=ranges[order])
    close(shuffled, advantages_of(rewards, method=method, k=2.0, ranges=ranges))


@given(cases())
def test_equal_rewards_get_equal_advantages(case):
    rewards, chosen = case
    twice = np.concatenate([rewards, rewards[:, :1]], axis=1)
    advantages = advantages_of(twice, **chosen)
    close(advantages[:, -1], advantages[:, 0], 1e-12)


@given(cases())
def test_rows_with_a_group_size_are_groups(case):
    rewards, chosen = case
    prompts, rollouts, channels = rewards.shape
    rows = advantages_of(rewards.reshape(-1, channels), group_size=rollouts, **chosen)
    assert rows.shape == (prompts * rollouts,)
    np.testing.assert_array_equal(rows.reshape(prompts, rollouts), advantages_of(rewards, **chosen))


# --- scale ----------------------------------------------------------------------------------------------------


@given(cases(methods=ON_ZSCORES), st.data())
def test_scale_and_offset_of_a_channel_in_a_group_do_not_matter(case, data):
    rewards, chosen = case
    shape = (rewards.shape[0], 1, rewards.shape[2])
    scale, offset = data.draw(filled(shape, [0.25, 1.0, 3.0, 7.0])), data.draw(filled(shape, [-8.0, 0.0, 2.0]))
    close(raw(scale * rewards + offset, eps=0.0, **chosen), raw(rewards, eps=0.0, **chosen))


@given(cases(methods=["rvpo_policy"]), st.data())
def test_scale_and_offset_do_not_matter_to_the_policy_level_with_a_given_anchor(case, data):
    rewards, chosen = case
    shape = (rewards.shape[0], 1, rewards.shape[2])
    scale, offset = data.draw(filled(shape, [0.25, 0.5, 1.0])), data.draw(filled(shape, [-0.5, 0.0, 0.5]))
    chosen |= {"signal": "zscore", "anchor": data.draw(filled(rewards.shape[2:], EIGHTHS)), "ranges": (-1, 2)}
    close(raw(scale * rewards + offset, eps=0.0, **chosen), raw(rewards, eps=0.0, **chosen))


@given(cases(methods=["dvao", "grpo"]))
def test_a_common_scale_does_not_matter_to_methods_that_divide_by_a_spread(case):
    rewards, chosen = case
    close(raw(4 * rewards, eps=0.0, **chosen), raw(rewards, eps=0.0, **chosen))


@given(cases(methods=[m for m in ALL if m != "tchebycheff"]), st.sampled_from([0.5, 2.0, 8.0]))
def test_the_scale_of_weights_scales_the_sums_and_does_not_matter_to_the_others(case, scale):
    rewards, chosen = case
    weights = chosen.pop("weights", np.ones(rewards.shape[2]))
    linear = chosen["method"] in LINEAR or chosen.get("total") == "sum"
    eps = 1e-4 if linear else 0.0
    first, other = (raw(rewards, weights=w, eps=eps, **chosen) for w in (weights, scale * weights))
    close(other, scale * first if linear else first)


# --- bounds and monotonicity ----------------------------------------------------------------------------------


@given(batches(), st.floats(0, 50), st.sampled_from(["keep", "mask"]))
def test_rvpo_lies_between_the_minimum_and_the_mean(rewards, k, dead_channels):
    low = raw(rewards, method="hard_min", dead_channels=dead_channels)
    high = raw(rewards, k=0.0, dead_channels=dead_channels)
    advantages = raw(rewards, k=k, dead_channels=dead_channels)
    assert (advantages >= low - 1e-12).all()
    assert (advantages <= high + 1e-12).all()


@given(batches(), st.floats(1e-3, 50))
def test_rvpo_is_within_log_m_over_k_of_the_minimum(rewards, k):
    number = np.maximum((~np.isnan(rewards)).sum(axis=2), 1)
    gap = raw(rewards, k=k) - raw(rewards, method="hard_min")
    assert (gap <= np.log(number) / k + 1e-12).all()


@given(cases(methods=["rvpo"]), st.floats(0, 20), st.floats(0, 20))
def test_rvpo_never_rises_with_k(case, first, second):
    rewards, chosen = case
    chosen.pop("k")
    low, high = sorted([first, second])
    assert (raw(rewards, k=high, **chosen) <= raw(rewards, k=low, **chosen) + 1e-12).all()


@given(cases(methods=["rvpo"]))
def test_rvpo_at_infinite_k_is_the_hard_minimum(case):
    rewards, chosen = case
    infinite = advantages_of(rewards, **chosen | {"k": math.inf})
    np.testing.assert_array_equal(infinite, advantages_of(rewards, **chosen | {"method": "hard_min"}))


@given(batches(missing=False), st.data())
def test_gdpo_is_the_mean_times_the_sum_of_weights(rewards, data):
    weights = data.draw(filled((rewards.shape[2],), WEIGHTS))
    close(raw(rewards, method="gdpo", weights=weights), weights.sum() * raw(rewards, k=0.0, weights=weights))


@st.composite
def soft_minima(draw):
    """Values (P, G, M), their normalised prior, the mask of active channels, and k."""
    shape = (2, 3, draw(st.integers(1, 5)))
    values = draw(hnp.arrays(np.float64, shape, elements=st.floats(-4, 4), fill=st.nothing()))
    active = draw(filled(shape, [0.0, 1.0, 1.0]))
    weights = active * draw(filled(shape[2:], WEIGHTS))
    total = weights.sum(axis=2, keepdims=True)
    pi = np.divide(weights, total, out=np.zeros(shape), where=total > 0)
    return values * active, pi, active, draw(st.floats(0.01, 20))


@given(soft_minima(), st.integers(0, 2**32 - 1))
def test_the_soft_minimum_never_falls_when_a_value_rises(arguments, seed):
    values, pi, active, k = arguments
    raised = values + np.random.default_rng(seed).random(values.shape) * active
    before, after = (soft_min(v, pi, active, k).advantages for v in (values, raised))
    assert (after >= before - 1e-12).all()


@given(soft_minima())
def test_channel_weights_are_the_derivative_of_the_soft_minimum(arguments):
    values, pi, active, k = arguments
    weights = soft_min(values, pi, active, k).channel_weights
    h = 1e-5
    for j in range(values.shape[2]):
        step = np.zeros_like(values)
        step[..., j] = h * active[..., j]
        up, down = (soft_min(v, pi, active, k).advantages for v in (values + step, values - step))
        close((up - down) / (2 * h), weights[..., j], 2e-6)


@given(soft_minima())
def test_channel_weights_sum_to_1_where_a_channel_is_active_and_to_0_elsewhere(arguments):
    values, pi, active, k = arguments
    for result in (soft_min(values, pi, active, kind) for kind in (0.0, k, math.inf)):
        close(np.sum(result.channel_weights, axis=2), active.max(axis=2))
        assert (np.asarray(result.channel_weights) >= 0).all()
        assert (np.asarray(result.channel_weights) * (1 - active) == 0).all()


@given(soft_minima())
def test_the_soft_minimum_is_its_formula(arguments):
    values, pi, active, k = arguments
    advantages = soft_min(values, pi, active, k).advantages
    for p, g in np.ndindex(advantages.shape):
        terms = [pi[p, g, j] * math.exp(-k * values[p, g, j]) for j in range(values.shape[2]) if active[p, g, j]]
        expected = -math.log(math.fsum(terms)) / k if terms else 0.0
        assert advantages[p, g] == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(cases())
def test_weights_of_channels_are_shares_of_each_rollout(case):
    rewards, chosen = case
    stats = compute_advantages(rewards, **chosen).stats
    number = (~np.isnan(rewards)).any(axis=1).sum(axis=1).max()
    if float(stats.scored):
        assert 1 - 1e-9 <= float(stats.effective_channels) <= max(number, 1) + 1e-9
    known = stats.weight[~np.isnan(stats.weight)]
    assert ((known >= 0) & (known <= 1 + 1e-12)).all()


# --- missing, absent, dead ------------------------------------------------------------------------------------


@given(cases(), st.data(), st.sampled_from(["keep", "mask"]))
def test_a_channel_without_values_is_as_no_channel(case, data, dead_channels):
    rewards, chosen = case
    chosen["dead_channels"] = dead_channels
    if chosen["method"] == "rvpo_policy":
        chosen["anchor"] = data.draw(st.sampled_from(["group", "batch"]))
    place = data.draw(st.integers(0, rewards.shape[2]))
    wider = by_channel(chosen, lambda value: np.insert(value, place, 2.5, axis=-1))
    close(advantages_of(np.insert(rewards, place, NAN, axis=2), **wider), advantages_of(rewards, **chosen), 1e-12)


@given(cases(), st.data(), st.sampled_from(["keep", "mask"]))
def test_a_channel_of_weight_0_is_as_no_channel(case, data, dead_channels):
    rewards, chosen = case
    chosen["dead_channels"] = dead_channels
    weights = np.asarray(chosen.pop("weights", np.ones(rewards.shape[2])))
    place = data.draw(st.integers(0, rewards.shape[2]))
    extra = data.draw(filled(rewards.shape[:2], [*EIGHTHS, NAN]))
    wider = {"weights": np.insert(weights, place, 0.0, axis=-1)}
    widened = advantages_of(np.insert(rewards, place, extra, axis=2), **chosen, **wider)
    close(widened, advantages_of(rewards, weights=weights, **chosen), 1e-12)


@given(cases(), st.sampled_from([False, True, "sequence"]), st.booleans())
def test_unscored_rollouts_get_0_and_change_no_other(case, whiten, recenter):
    rewards, chosen = case
    chosen |= {"whiten": whiten, "recenter": recenter}
    longer = np.concatenate([rewards, np.full((len(rewards), 2, rewards.shape[2]), NAN)], axis=1)
    advantages = advantages_of(longer, **chosen)
    close(advantages[:, :-2], advantages_of(rewards, **chosen), 1e-12)
    assert (advantages[np.isnan(longer).all(axis=2)] == 0).all()


@given(cases(), st.sampled_from([False, True, "sequence"]))
def test_an_unscored_prompt_changes_no_other(case, whiten):
    rewards, chosen = case
    if np.ndim(chosen.get("weights")) == 2:
        chosen["weights"] = chosen["weights"][0]
    longer = np.concatenate([rewards, np.full((1, *rewards.shape[1:]), NAN)])
    close(advantages_of(longer, whiten=whiten, **chosen)[:-1], advantages_of(rewards, whiten=whiten, **chosen), 1e-12)


@given(cases(methods=["cvar", "gdpo", "hard_min", "maxrl", "mean_variance", "rvpo", "rvpo_policy", "tchebycheff"]))
def test_masking_dead_channels_is_dropping_them_in_their_group(case):
    rewards, chosen = case
    masked = raw(rewards, dead_channels="mask", **chosen)
    weights = np.broadcast_to(chosen.pop("weights", 1.0), (len(rewards), rewards.shape[2]))
    for p, group in enumerate(rewards):
        spread = [len({v for v in column if not math.isnan(v)}) for column in group.T]
        live = np.array(spread) >= 2
        if not live.any():
            assert (masked[p] == 0).all()
        else:
            alone = raw(group[None][..., live], weights=weights[p][live], **chosen)
            close(masked[p], alone[0])


@given(
    cases(methods=[name for name in BY_GROUP if name not in ("corr_grpo", "tchebycheff")]),
    st.data(),
)
def test_a_channel_given_twice_at_half_weight_changes_nothing(case, data):
    rewards, chosen = case
    weights = np.asarray(chosen.pop("weights", np.ones(rewards.shape[2])))
    if chosen["method"] == "rvpo_policy" and data.draw(st.booleans()):
        chosen["anchor"] = data.draw(filled(rewards.shape[2:], EIGHTHS))
    j = data.draw(st.integers(0, rewards.shape[2] - 1))
    halved = weights.copy()
    halved[..., j] /= 2
    order = [*range(rewards.shape[2]), j]
    twice = by_channel(chosen | {"weights": halved}, lambda value: value[..., order])
    close(advantages_of(rewards[..., order], **twice), advantages_of(rewards, weights=weights, **chosen))


# --- the policy level ---------------------------------------------------------------------------------------------


@given(cases(methods=["rvpo_policy"]), st.sampled_from(["keep", "mask"]))
def test_the_policy_level_without_risk_is_gdpo(case, dead_channels):
    rewards, chosen = case
    weights = {"weights": chosen["weights"]} if "weights" in chosen else {}
    options = {"utility": chosen["utility"], "signal": "zscore", "total": "sum"}
    ours = raw(rewards, method="rvpo_policy", k=0.0, dead_channels=dead_channels, **options, **weights)
    close(ours, raw(rewards, method="gdpo", dead_channels=dead_channels, **weights))


@given(cases(methods=["rvpo_policy"]), st.data())
def test_the_policy_level_gives_the_lower_channel_the_larger_weight(case, data):
    rewards, chosen = case
    chosen.pop("weights", None)
    anchor = data.draw(filled(rewards.shape[2:], EIGHTHS))
    groups = compute_advantages(rewards, **chosen | {"k": 2.0, "anchor": anchor}).groups
    for weight, count in zip(groups.weight, groups.count, strict=True):  # weights are summed over rollouts
        there = count > 0
        order = np.argsort(-anchor[there], kind="stable")
        assert (np.diff((weight[there] / count[there])[order]) >= -1e-12).all()


# --- independence ---------------------------------------------------------------------------------------------


@given(cases(BY_GROUP, prompts=(2, 4)))
def test_before_whitening_a_prompt_does_not_depend_on_the_others(case):
    rewards, chosen = case
    together = raw(rewards, **chosen)
    for p in range(len(rewards)):
        alone = chosen | {"weights": chosen["weights"][p : p + 1]} if np.ndim(chosen.get("weights")) == 2 else chosen
        close(together[p], raw(rewards[p : p + 1], **alone)[0], 1e-12)


@given(cases(prompts=(2, 5)), st.integers(1, 40), st.data())
def test_the_size_of_blocks_does_not_matter(case, block, data):
    rewards, chosen = case
    if chosen["method"] == "rvpo_policy":
        anchor = data.draw(filled((len(rewards), rewards.shape[2]), EIGHTHS))
        chosen["anchor"] = data.draw(st.sampled_from(["group", "batch"])) if data.draw(st.booleans()) else anchor
    whole = compute_advantages(rewards, **chosen)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rvpo.core.advantages.CPU_BLOCK", block)
        sharded = compute_advantages(rewards, **chosen)
    np.testing.assert_array_equal(sharded.advantages, whole.advantages)
    for first, other in zip(sharded.groups, whole.groups, strict=True):
        np.testing.assert_array_equal(first, other)


@given(cases(), st.booleans())
def test_the_input_is_not_modified(case, recenter):
    rewards, chosen = case
    given_arrays = {"lengths": np.ones(rewards.shape[:2]), "ranges": np.array([0.0, 1.0])}
    given_arrays |= {name: value for name, value in chosen.items() if isinstance(value, np.ndarray)}
    if chosen["method"] == "rvpo_policy":
        given_arrays["anchor"] = np.full(rewards.shape[2], 0.5)
    before = {name: value.copy() for name, value in given_arrays.items()}
    original = rewards.copy()
    for array in (rewards, *given_arrays.values()):
        array.setflags(write=False)
    advantages_of(rewards, whiten="token", recenter=recenter, **chosen | given_arrays)
    np.testing.assert_array_equal(rewards, original)
    for name, value in before.items():
        np.testing.assert_array_equal(given_arrays[name], value)


# --- after whitening ------------------------------------------------------------------------------------------


@given(cases(), st.sampled_from([0, 1]), st.booleans())
def test_whitened_advantages_have_mean_0_and_std_1_over_scored_rollouts(case, ddof, recenter):
    rewards, chosen = case
    chosen |= {"eps": 0.0, "ddof": ddof, "recenter": recenter}
    if chosen["method"] == "corr_grpo":
        chosen["eps"] = 1e-30  # opposite channels have no limit without it
    result = compute_advantages(rewards, whiten="sequence", **chosen)
    kept = result.kept
    before = result.unwhitened[kept]
    assume(len(before) > ddof and np.ptp(before) > 1e-6)
    after = result.advantages[kept]
    assert after.mean() == pytest.approx(0, abs=1e-9)
    assert after.std(ddof=ddof) == pytest.approx(1, abs=1e-6)


@given(cases(), st.data())
def test_token_whitening_is_whitening_of_rollouts_repeated_once_per_token(case, data):
    rewards, chosen = case
    lengths = data.draw(hnp.arrays(np.int64, rewards.shape[:2], elements=st.integers(0, 4), fill=st.nothing()))
    result = compute_advantages(rewards, whiten="token", lengths=lengths, **chosen)
    kept = result.kept
    tokens = np.repeat(result.unwhitened[kept], lengths[kept])
    assume(len(tokens) >= 2 and np.ptp(tokens) > 1e-6)
    expected = (result.unwhitened[kept] - tokens.mean()) / (tokens.std(ddof=1) + 1e-4)
    close(result.advantages[kept], expected)


@given(cases())
def test_recentred_groups_have_mean_0(case):
    rewards, chosen = case
    result = compute_advantages(rewards, recenter=True, whiten=False, **chosen)
    for row, kept in zip(result.advantages, result.kept, strict=True):
        if kept.any():
            assert row[kept].mean() == pytest.approx(0, abs=1e-9)
    assert float(result.stats.offset_share) == pytest.approx(0, abs=1e-9)


@given(cases())
def test_recentring_keeps_differences_inside_a_group(case):
    rewards, chosen = case
    plain, recentred = (compute_advantages(rewards, recenter=r, whiten=False, **chosen) for r in (False, True))
    for p, kept in enumerate(plain.kept):
        if kept.any():
            close(recentred.advantages[p, kept], plain.advantages[p, kept] - plain.advantages[p, kept].mean(), 1e-12)


# --- array types ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("convert", [torch.tensor, array_api_strict.asarray])
@given(case=cases(), recenter=st.booleans(), dead_channels=st.sampled_from(["keep", "mask"]), data=st.data())
def test_every_library_gives_the_same(convert, case, recenter, dead_channels, data):
    rewards, chosen = case
    lengths = data.draw(filled(rewards.shape[:2], [1.0, 3.0, 8.0]))
    chosen |= {"recenter": recenter, "dead_channels": dead_channels}
    chosen |= {"whiten": "token"} if data.draw(st.booleans()) else {}
    expected = compute_advantages(rewards, lengths=lengths, **chosen)
    if "weights" in chosen:
        chosen["weights"] = convert(chosen["weights"])
    result = compute_advantages(convert(rewards), lengths=convert(lengths), **chosen)
    assert type(result.advantages) is type(convert(rewards))
    close(np.asarray(result.advantages), expected.advantages)
    for ours, theirs in zip(result.stats, expected.stats, strict=True):
        close(np.asarray(ours), theirs)


@given(cases(), st.booleans())
def test_float32_is_computed_in_float64(case, missing_weights):
    rewards, chosen = case  # eighths are exact in float32
    advantages = advantages_of(rewards.astype(np.float32), **chosen)
    assert advantages.dtype == np.float32
    np.testing.assert_array_equal(advantages, advantages_of(rewards, **chosen).astype(np.float32))


# --- no NaN ---------------------------------------------------------------------------------------------------

TINY_TO_HUGE = st.floats(-1e100, 1e100, allow_nan=False, width=64)
VERDICTS = st.sampled_from([0.0, 1.0, NAN])
ANYWHERE = st.one_of(st.sampled_from([0.0, 1.0, NAN, NAN]), TINY_TO_HUGE, st.floats(-1, 1))
WITHIN_1 = st.one_of(st.sampled_from([0.0, 1.0, NAN, NAN]), st.floats(0, 1))
KS = [0.0, 1e-300, 1e-12, 1.0, 1e6, math.inf]


@pytest.mark.parametrize("method", ALL)
@few
@given(data=st.data(), k=st.sampled_from(KS), eps=st.sampled_from([0.0, 1e-6, 1e-4]))
def test_nothing_but_numbers_comes_out(method, data, k, eps):
    shape = tuple(data.draw(st.integers(1, 4)) for _ in range(3))
    floats = WITHIN_1 if method in IN_RANGE else ANYWHERE
    elements = data.draw(st.sampled_from([VERDICTS, floats]))
    rewards = data.draw(hnp.arrays(np.float64, shape, elements=elements, fill=st.nothing()))
    chosen = data.draw(settings_of([method], shape[0], shape[2])) | {"k": k, "eps": eps}
    if method == "mean_variance" and k == math.inf:
        chosen["k"] = 10.0  # an infinite k is an error there: test_aggregations
    chosen |= {
        "ddof": data.draw(st.sampled_from([0, 1])),
        "dead_channels": data.draw(st.sampled_from(["keep", "mask"])),
        "recenter": data.draw(st.booleans()),
        "whiten": data.draw(st.sampled_from([False, True, "sequence", "token"])),
        "lengths": np.arange(shape[0] * shape[1]),
    }
    result = compute_advantages(rewards, **chosen)
    assert np.isfinite(result.advantages).all()
    assert np.isfinite(result.unwhitened).all()
    assert np.isfinite(result.groups.weight).all()
    stats = result.stats
    for scalar in (stats.active_channels, stats.offset_share, *stats.missing_share, *stats.absent_share):
        assert 0 <= float(scalar) <= max(1, shape[2])
    assert math.isnan(float(stats.effective_channels)) == np.isnan(rewards).all()


@few
@given(batches(), st.sampled_from([5e-324, 1e-300, 1e-12, 1e-6]))
def test_a_k_next_to_0_is_the_mean(rewards, k):
    close(raw(rewards, k=k), raw(rewards, k=0.0), 1e-5)


@few
@given(cases(methods=["rvpo", "rvpo_policy", "tchebycheff"]))
def test_a_large_k_is_the_minimum(case):
    rewards, chosen = case
    close(raw(rewards, **chosen | {"k": 1e8}), raw(rewards, **chosen | {"k": math.inf}), 1e-6)
