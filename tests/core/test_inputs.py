"""Bad input is an error that says where and why: one test for each."""

import sys

import numpy as np
import pytest
import torch

from rvpo import METHODS, ConfigError, RewardError, RvpoError, compute_advantages

NAN, INF = float("nan"), float("inf")


def rewards(prompts=3, rollouts=4, channels=2):
    """Rewards in [0, 1], different everywhere."""
    return np.random.default_rng(0).random((prompts, rollouts, channels))


@pytest.fixture(scope="module")
def unchecked():
    """The package without the type checker of the tests, to see what a user sees who passes a wrong type."""

    def take_out():
        names = [name for name in sys.modules if name == "rvpo" or name.startswith("rvpo.")]
        return {name: sys.modules.pop(name) for name in names}

    checked = take_out()
    import rvpo as package

    assert package.compute_advantages is not compute_advantages  # names are looked up now, while the checker is out
    assert package.ConfigError is not ConfigError
    assert package.RewardError is not RewardError
    take_out()
    sys.modules.update(checked)
    return package


# --- rewards --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [INF, -INF])
@pytest.mark.parametrize("as_rows", [False, True])
def test_an_infinite_reward_is_named_with_its_place(value, as_rows):
    values = rewards()
    values[2, 3, 1] = value
    values[0, 1, 0] = NAN  # missing is not infinite
    # 4 rollouts a prompt: prompt 2, rollout 3 is row 2 * 4 + 3 = 11.
    place = rf"reward {value} of channel 1, prompt 2, rollout 3 \(row 11 of the batch\) is infinite"
    given, group_size = (values.reshape(12, 2), 4) if as_rows else (values, None)
    with pytest.raises(RewardError, match=place):
        compute_advantages(given, group_size=group_size)


def test_the_first_of_several_infinite_rewards_is_named():
    values = rewards()
    values[1, 0, 1], values[1, 2, 0], values[2, 0, 0] = INF, INF, -INF
    with pytest.raises(RewardError, match=r"channel 1, prompt 1, rollout 0 \(row 4 "):
        compute_advantages(values)


def test_an_infinite_reward_is_found_in_every_block(monkeypatch):
    monkeypatch.setattr("rvpo.core.advantages.CPU_BLOCK", 8)  # one prompt a block
    values = rewards(prompts=5)
    values[4, 2, 1] = INF
    with pytest.raises(RewardError, match=r"channel 1, prompt 4, rollout 2 \(row 18 "):
        compute_advantages(values)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_infinite_rewards_of_both_signs_are_an_error_in_every_method(method):
    values = rewards()
    values[0, 0, 0], values[0, 1, 0] = INF, -INF
    with pytest.raises(RewardError, match=r"reward inf of channel 0, prompt 0, rollout 0 .* is infinite"):
        compute_advantages(values, method=method)


def test_an_infinite_reward_of_torch_is_an_error():
    with pytest.raises(RewardError, match="reward inf of channel 1, prompt 0, rollout 0"):
        compute_advantages(torch.tensor([[[1.0, INF], [0.0, 1.0]]], dtype=torch.float16))


@pytest.mark.parametrize("value", [1.01, -0.01, 1e9])
@pytest.mark.parametrize("method", ["rvpo_policy", "tchebycheff"])
def test_a_reward_outside_the_unit_range_is_named_with_its_place(method, value):
    values = rewards()
    values[1, 2, 0] = value
    place = rf"reward {value} of channel 0, prompt 1, rollout 2 \(row 6 of the batch\) lies outside its range"
    with pytest.raises(RewardError, match=place):
        compute_advantages(values, method=method)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_declared_ranges_are_checked_for_every_method(method):
    values = rewards()
    values[..., 1] = 5 * values[..., 1] - 3
    compute_advantages(values, method=method, ranges=[(0, 1), (-3, 3)])
    with pytest.raises(RewardError, match=r"channel 1.* outside its range"):
        compute_advantages(values, method=method, ranges=(0, 1))


def test_the_ends_of_a_range_are_inside_and_so_is_rounding():
    compute_advantages([[[-3.0, 0.0], [3.0, 1.0], [3.0 + 1e-9, 1.0]]], ranges=[(-3, 3), (0, 1)])


def test_missing_values_are_not_outside_a_range_without_0():
    values = rewards() + 10
    values[0, 0, 0] = NAN
    assert np.isfinite(compute_advantages(values, ranges=(10, 11)).advantages).all()


def test_methods_that_compare_no_channels_take_rewards_of_any_size_without_ranges():
    assert np.isfinite(compute_advantages(rewards() * 1e6).advantages).all()


@pytest.mark.parametrize("shape", [(), (4,), (2, 3, 4, 5), (2, 3, 0), (4, 0)])
def test_rewards_of_another_number_of_axes_or_without_channels_are_an_error(shape):
    with pytest.raises(RewardError, match=r"must be \(P, G, M\), or \(N, M\) with group_size, with G, M >= 1"):
        compute_advantages(np.zeros(shape), group_size=2)


def test_groups_without_rollouts_are_an_error():
    # group_size=0 is one for rows, so (P, 0, M) is one too.
    with pytest.raises(RewardError, match=r"with G, M >= 1; got \(2, 0, 3\)"):
        compute_advantages(np.zeros((2, 0, 3)))


@pytest.mark.parametrize("lists", [[[[1.0, 2.0], [3.0]]], [[[1.0], [2.0]], [[3.0]]]])
def test_ragged_lists_are_a_reward_error(lists):
    with pytest.raises(RewardError):
        compute_advantages(lists)


def test_words_are_a_reward_error():
    with pytest.raises(RewardError):
        compute_advantages([[["good"], ["bad"]]])


# --- group size -----------------------------------------------------------------------------------------------


def test_rows_need_a_group_size():
    with pytest.raises(RewardError, match=r"rewards of shape \(12, 2\) need group_size"):
        compute_advantages(np.zeros((12, 2)))


def test_rows_must_fill_the_groups():
    with pytest.raises(RewardError, match="12 rollouts cannot be split into groups of group_size=5; fill"):
        compute_advantages(np.zeros((12, 2)), group_size=5)


def test_group_size_must_fit_the_rewards():
    with pytest.raises(RewardError, match=r"group_size=3, but the rewards \(3, 4, 2\) have 4 rollouts"):
        compute_advantages(rewards(), group_size=3)


def test_the_right_group_size_may_be_said_twice():
    np.testing.assert_array_equal(
        compute_advantages(rewards(), group_size=4).advantages, compute_advantages(rewards()).advantages
    )


@pytest.mark.parametrize("group_size", [0, -4])
def test_group_size_must_be_positive(group_size):
    with pytest.raises(RewardError, match=f"group_size must be a whole number >= 1, got {group_size}"):
        compute_advantages(np.zeros((12, 2)), group_size=group_size)


@pytest.mark.parametrize("group_size", [4.0, "4"])
def test_group_size_must_be_a_whole_number(unchecked, group_size):
    with pytest.raises(unchecked.RewardError, match="group_size must be a whole number >= 1, got"):
        unchecked.compute_advantages(np.zeros((12, 2)), group_size=group_size)


# --- weights --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "weights",
    [
        [1.0, -0.1],
        [0.0, 0.0],
        [1.0, NAN],
        [INF, 1.0],
        [[1.0, 1.0], [0.0, 0.0], [1.0, 1.0]],  # nothing is left for prompt 1
        [[1.0, 1.0], [1.0, 1.0], [1.0, -1.0]],
    ],
)
def test_weights_must_be_finite_not_negative_and_not_all_0(weights):
    with pytest.raises(RewardError, match=r"weights must be finite, >= 0 and not all 0, got"):
        compute_advantages(rewards(), weights=weights)


@pytest.mark.parametrize("shape", [(3,), (1,), (), (2, 2), (1, 2), (3, 1), (3, 4, 2)])
def test_weights_must_fit_channels_or_prompts_and_channels(shape):
    with pytest.raises(RewardError, match=r"weights must have shape \(2,\) or \(3, 2\) .*, got"):
        compute_advantages(rewards(), weights=np.ones(shape))


# --- ranges ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ranges", [(1.0, 0.0), (0.0, 0.0), (0.0, INF), (-INF, 1.0), (NAN, 1.0), [(0, 1), (3, -3)]])
def test_ranges_must_be_finite_with_low_below_high(ranges):
    with pytest.raises(RewardError, match="every range must be finite with low < high, got"):
        compute_advantages(rewards(), ranges=ranges)


@pytest.mark.parametrize("shape", [(), (3,), (3, 2), (2, 3), (1, 2)])
def test_ranges_must_be_one_pair_or_one_for_each_channel(shape):
    with pytest.raises(RewardError, match=r"ranges must be \(low, high\) or one pair for each of the 2 channels"):
        compute_advantages(rewards(), ranges=np.ones(shape))


# --- method and options ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "near"), [("rvop", "rvpo"), ("gdppo", "gdpo"), ("hard-min", "hard_min")])
def test_an_unknown_method_is_named_with_the_nearest(name, near):
    with pytest.raises(ConfigError, match=f"unknown method '{name}': did you mean '{near}'.* Known: corr_grpo, cvar"):
        compute_advantages(rewards(), method=name)


def test_an_unknown_method_far_from_all_has_no_hint():
    with pytest.raises(ConfigError, match=r"unknown method 'ppo_clip_x':(?!.*did you mean)"):
        compute_advantages(rewards(), method="ppo_clip_x")


@pytest.mark.parametrize(
    ("method", "option", "known"),
    [
        ("rvpo", "anchor", "no options"),
        ("gdpo", "share", "no options"),
        ("cvar", "threshold", "share"),
        ("gd2po", "share", "threshold"),
        ("tchebycheff", "anchor", "ideal"),
        ("rvpo_policy", "anchors", "anchor, utility, signal, total"),
    ],
)
def test_an_unknown_option_is_named_with_those_of_the_method(method, option, known):
    with pytest.raises(ConfigError, match=f"method '{method}' has no option '{option}'; it takes {known}"):
        compute_advantages(rewards(), method=method, **{option: 0.5})


def test_arguments_of_the_aggregation_are_not_options():
    with pytest.raises(ConfigError, match="method 'cvar' has no option 'channels'; it takes share"):
        compute_advantages(rewards(), method="cvar", channels=rewards())


@pytest.mark.parametrize(
    ("option", "known"),
    [("utility", "'softmin' or 'log'"), ("signal", "'reward' or 'zscore'"), ("total", "'mean' or 'sum'")],
)
def test_an_unknown_option_of_the_policy_level_is_an_error(unchecked, option, known):
    with pytest.raises(unchecked.ConfigError, match=f"rvpo_policy needs {option} {known}, got 'rank'"):
        unchecked.compute_advantages(rewards(), method="rvpo_policy", **{option: "rank"})


# --- settings -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [-1.0, -1e-9, NAN, -INF])
def test_k_must_not_be_negative_or_nan(k):
    with pytest.raises(ConfigError, match=r"k must be a number >= 0 .*, got"):
        compute_advantages(rewards(), k=k)


@pytest.mark.parametrize(("method", "k"), [("rvpo", 1.0), ("mean_variance", 1.0), ("rvpo_policy", 2.0)])
def test_without_a_k_a_method_has_its_own(method, k):
    chosen = compute_advantages(rewards(), method=method).advantages
    np.testing.assert_array_equal(chosen, compute_advantages(rewards(), method=method, k=k).advantages)


@pytest.mark.parametrize("k", [True, "1.0", [1.0], 1j])
def test_k_must_be_a_number(unchecked, k):
    with pytest.raises(unchecked.ConfigError, match=r"k must be a number >= 0 .*, got"):
        unchecked.compute_advantages(rewards(), k=k)


def test_k_may_be_a_whole_number(unchecked):
    np.testing.assert_array_equal(
        unchecked.compute_advantages(rewards(), k=2).advantages, compute_advantages(rewards(), k=2.0).advantages
    )


@pytest.mark.parametrize("ddof", [-1, 2])
def test_ddof_must_be_0_or_1(ddof):
    with pytest.raises(ConfigError, match=f"ddof must be 0 or 1, got {ddof}"):
        compute_advantages(rewards(), ddof=ddof)


@pytest.mark.parametrize("eps", [-1e-9, NAN, INF])
def test_eps_must_be_finite_and_not_negative(eps):
    with pytest.raises(ConfigError, match=r"eps must be a finite number >= 0, got"):
        compute_advantages(rewards(), eps=eps)


def test_dead_channels_must_be_kept_or_masked(unchecked):
    with pytest.raises(unchecked.ConfigError, match="dead_channels must be 'keep' or 'mask', got 'drop'"):
        unchecked.compute_advantages(rewards(), dead_channels="drop")


@pytest.mark.parametrize("whiten", ["tokens", "batch", None, 1, 0])
def test_whiten_must_be_one_of_its_four_values(unchecked, whiten):
    with pytest.raises(unchecked.ConfigError, match="whiten must be True, False, 'sequence' or 'token', got"):
        unchecked.compute_advantages(rewards(), whiten=whiten)


def test_token_whitening_needs_lengths():
    with pytest.raises(ConfigError, match=r"whiten='token' needs .* pass lengths="):
        compute_advantages(rewards(), whiten="token")


@pytest.mark.parametrize("shape", [(3, 3), (4, 3), (11,), (12, 1), ()])
def test_lengths_must_have_one_number_for_each_rollout(shape):
    with pytest.raises(RewardError, match=r"lengths must be \(3, 4\) or flat, got"):
        compute_advantages(rewards(), whiten="token", lengths=np.ones(shape))


@pytest.mark.parametrize("length", [-1.0, NAN, INF])
def test_lengths_must_be_finite_and_not_negative(length):
    lengths = np.full((3, 4), 5.0)
    lengths[1, 1] = length
    with pytest.raises(RewardError, match="lengths must be finite numbers of tokens >= 0"):
        compute_advantages(rewards(), whiten="token", lengths=lengths)


# --- anchor and solved k --------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [-0.01, 1.01, NAN, INF])
def test_an_anchor_must_lie_on_the_common_scale(value):
    with pytest.raises(RewardError, match=r"anchor must hold channel means on the common scale \[0, 1\], got"):
        compute_advantages(rewards(), method="rvpo_policy", anchor=[0.5, value])


@pytest.mark.parametrize("shape", [(), (3,), (2, 2), (1, 2), (3, 4, 2)])
def test_an_anchor_must_fit_channels_or_prompts_and_channels(shape):
    with pytest.raises(RewardError, match=r"anchor must have shape \(2,\) or \(3, 2\), got"):
        compute_advantages(rewards(), method="rvpo_policy", anchor=np.zeros(shape))


def test_an_anchor_of_an_unknown_name_is_an_error():
    with pytest.raises(ConfigError, match=r"anchor must be 'group', 'batch' or channel means .*, got 'global'"):
        compute_advantages(rewards(), method="rvpo_policy", anchor="global")


def test_the_ends_of_the_scale_are_anchors():
    assert np.isfinite(compute_advantages(rewards(), method="rvpo_policy", anchor=[0.0, 1.0]).advantages).all()


def test_every_error_is_one_of_the_package():
    for error in (RewardError, ConfigError):
        assert issubclass(error, RvpoError)
        assert issubclass(error, ValueError)
