"""Dual ascent by hand, targets on the channels' own scales, and the state that goes with checkpoints."""

import pytest

from rvpo.errors import ConfigError, RewardError
from rvpo.integrations.targets import dual_ascent, unit_targets
from rvpo.rewards.channels import Returned, assemble
from rvpo.rewards.declarations import Channel, Declaration


def test_a_step_by_hand():
    before = {"low": 0.2, "met": 0.01, "silent": 0.3, "dropped": 3.0}
    targets = {"low": 0.6, "met": 0.5, "silent": 0.9, "never": 0.9, "new": 0.5}
    means = {"low": 0.35, "met": 0.75, "new": 0.25, "other": 0.0}
    # 0.2 + 0.1 * 0.25; 0.01 - 0.025 is below 0; no mean: as it was, or none; from 0: 0.1 * 0.25.
    expected = {"low": 0.225, "met": 0.0, "silent": 0.3, "new": 0.025}
    assert dual_ascent(before, targets, means, rate=0.1) == pytest.approx(expected)


def test_a_multiplier_rises_below_the_target_and_falls_to_0_above_it():
    multipliers, course = {}, []
    for mean in (0.25, 0.25, 0.75, 0.75, 0.75, 0.25):
        multipliers = dual_ascent(multipliers, {"a": 0.5}, {"a": mean}, rate=0.5)
        course.append(multipliers["a"])
    assert course == [0.125, 0.25, 0.125, 0.0, 0.0, 0.125]


def test_a_target_out_of_reach_stops_at_the_bound():
    assert dual_ascent({"a": 9.9}, {"a": 1.0}, {"a": 0.5}, rate=0.3) == {"a": 10.0}


def matrix(*names, range=(-3.0, 3.0)):
    """A channel `correct` of that range, and a rubric of two prompts with criteria of these names."""
    rewards = [
        Returned("correct", Declaration(template=Channel("", range), is_vector=False), 1.0, [3.0, -3.0]),
        Returned(
            "rubric", Declaration(template=Channel("", (0.0, 2.0))), 1.0, [dict.fromkeys(names, 1.0), {"x/p": 2.0}]
        ),
    ]
    return assemble(rewards, 1)


def test_targets_are_on_the_channels_own_scales():
    # (1.5 + 3) / 6 and 0.5 / 2; x is the first criterion of one prompt and the second of the other.
    targets = unit_targets({"correct": 1.5, "rubric/x": 0.5, "rubric/y": 2.0}, matrix("y/q", "x/r"), {})
    assert targets == {"correct": 0.75, "rubric/x": 0.25, "rubric/y": 1.0}


def test_a_channel_that_does_not_exist_is_an_error_with_those_that_do():
    with pytest.raises(RewardError, match=r"channel_targets names \['corect'\], but the channels are \['correct', "):
        unit_targets({"corect": 1.0}, matrix("y/q"), {})


@pytest.mark.parametrize("name", ["rubric/z", "rubric"])
def test_a_tag_that_no_prompt_had_so_far_is_warned_of(name):
    with pytest.warns(UserWarning, match=f"channel_targets names .'{name}'., but no criterion so far"):
        unit_targets({name: 1.0}, matrix("y/q"), {})
    unit_targets({name: 1.0}, matrix("y/q"), {name: 0.0})  # it was there before: no warning


@pytest.mark.parametrize(("name", "target"), [("correct", 3.5), ("rubric/y", -0.1)])
def test_a_target_outside_the_range_is_an_error(name, target):
    with pytest.raises(ConfigError, match=rf"channel_targets gives '{name}' {target}, outside its range \["):
        unit_targets({name: target}, matrix("y/q"), {})


def test_an_undeclared_range_is_0_to_1():
    with pytest.raises(ConfigError, match=r"outside its range \[0, 1\]; mend the target, or declare"):
        unit_targets({"correct": 1.5}, matrix("y/q", range=None), {})


def test_a_target_for_a_penalty_is_refused():
    declares = Declaration((Channel("long", (0, 10)),))
    penalty = assemble([Returned("f", declares, -1.0, [{"long": 1.0}, {"long": 2.0}])], 2)
    with pytest.raises(ConfigError, match=r"channel_targets names \['long'\], whose weight is negative"):
        unit_targets({"long": 5.0}, penalty, {})
