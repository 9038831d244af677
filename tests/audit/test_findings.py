"""What is wrong with a log is named in the first lines, and nothing is named where nothing is wrong."""

import numpy as np
import pytest
from made_up import ALARMS, audit, clean, log, rewards

from rvpo.audit import Groups, audit_groups

SEEDS = range(10)


def first_lines(result):
    return [finding.text for finding in result.findings[:3]]


def opposed(draw, values):
    """A channel that the two worst answers of a group of eight meet, by and large."""
    score = values.mean(axis=2) + draw.normal(scale=0.1, size=values.shape[:2])
    return (score.argsort(axis=1).argsort(axis=1) < 2).astype(float)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_channel_against_the_rest_is_at_risk(seed):
    draw = np.random.default_rng(seed)
    values = rewards(draw)
    values[..., 2] = opposed(draw, np.delete(values, 2, axis=2))
    result = audit(log(values), 5)
    assert result.headline.startswith("c2 is at risk under gdpo: forecast -")
    assert "in conflict with the rest" in result.headline
    assert result.method("gdpo").at_risk == ("c2",)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("value", "why"), [(0.0, "every rollout fails it"), (0.5, "all rollouts get the same")])
def test_a_channel_without_spread_is_dead(seed, value, why):
    values = rewards(np.random.default_rng(seed))
    values[..., 3] = value
    assert f"c3 is dead: in 100 % of the groups {why}" in audit(log(values), 5).headline


def test_a_channel_that_all_meet_is_solved_and_not_first():
    values = rewards(np.random.default_rng(0))
    values[..., 1] = 1.0
    by_kind = {finding.kind: finding for finding in audit(log(values), 5).findings}
    assert by_kind["solved"].channels == ("c1",)
    assert "dead" not in by_kind


def course_of(draw, first, last, steps=12, prompts=8, rollouts=8):
    """Rewards of three channels, of which the first is met by a share that moves from `first` to `last`."""
    values = rewards(draw, prompts=steps * prompts, rollouts=rollouts, channels=3)
    rate = np.repeat(np.linspace(first, last, steps), prompts)
    values[..., 0] = draw.random(values.shape[:2]) < rate[:, None]
    return values


@pytest.mark.parametrize("seed", SEEDS)
def test_a_channel_on_its_way_to_zero_is_named(seed):
    draw = np.random.default_rng(seed)
    (fading,) = [f for f in audit(log(course_of(draw, 0.4, 0.0)), 3).findings if f.kind == "fading"]
    assert fading.channels == ("c0",)
    assert fading.text.startswith("c0 is on its way to zero: mean 0.")


@pytest.mark.parametrize(("first", "last"), [(0.05, 0.05), (0.03, 0.3), (0.9, 0.3), (0.4, 0.2)])
def test_a_channel_that_is_rare_but_not_falling_or_falling_but_not_rare_is_on_no_such_way(first, last):
    """Rare, rising, falling to where groups still have signal: whatever else is said of them."""
    for seed in range(20):
        draw = np.random.default_rng(seed)
        findings = audit(log(course_of(draw, first, last)), 3, draws=200).findings
        assert "fading" not in {finding.kind for finding in findings}


@pytest.mark.parametrize("seed", SEEDS)
def test_a_channel_that_differs_among_equal_answers_is_noisy(seed):
    draw = np.random.default_rng(seed)
    values = rewards(draw)
    text = np.arange(values[..., 0].size).reshape(values.shape[:2])
    text[:, 1], values[:, 1] = text[:, 0], values[:, 0]
    flipped = draw.random(values.shape[:2]) < 0.2
    values[..., 4] = np.where(flipped, 1 - values[..., 4], values[..., 4])
    result = audit(log(values, text=text), 5)
    assert result.headline.startswith("c4 is noisy: equal answers to one prompt differ")
    assert [channel.noise.value for channel in result.channels[:4]] == [0.0] * 4


def test_many_noisy_channels_are_four_lines():
    draw = np.random.default_rng(0)
    values = rewards(draw, channels=6)
    text = np.arange(values[..., 0].size).reshape(values.shape[:2])
    text[:, 1] = text[:, 0]  # equal answers, rewarded anew
    noisy = [finding for finding in audit(log(values, text=text), 6).findings if finding.kind == "noise"]
    assert len(noisy) == 4
    assert noisy[3].text.startswith("noisy, too: c")
    assert sorted(name for finding in noisy for name in finding.channels) == [f"c{index}" for index in range(6)]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_reward_for_length_is_named(seed):
    draw = np.random.default_rng(seed)
    values = rewards(draw)
    length = draw.lognormal(5, 0.5, size=values.shape[:2])
    values[..., 0] = length > np.median(length)
    text = " | ".join(first_lines(audit(log(values, length=length), 5)))
    assert "longer answers get more advantage under gdpo" in text
    assert "through c0" in text


def test_clean_logs_raise_no_alarm():
    alarms = []
    for seed in range(100):
        groups, channels = clean(seed)
        findings = audit(groups, channels, draws=200).findings
        alarms += [(seed, finding.text) for finding in findings if finding.kind in ALARMS]
    assert alarms == []


def test_a_channel_against_the_rest_that_is_often_met_is_in_conflict():
    draw = np.random.default_rng(3)
    values = rewards(draw)
    values[..., 4] = draw.random(values.shape[:2]) < 0.9 * (1 - values[..., :4].mean(axis=2))
    result = audit(log(values), 5)
    assert result.headline.startswith("c4 is in conflict with the rest: correlation -0.")
    assert result.channel("c4").forecasts["gdpo"].verdict == "stalls"


def test_what_the_log_cannot_tell_is_listed():
    values = rewards(np.random.default_rng(0), prompts=12)
    result = audit_groups([Groups(values)], list("abcde"), methods=["gdpo"], draws=50)
    words = [limit.split(":")[0] for limit in result.limits]
    assert words == ["most things", "noise", "length bias", "drift"]
    assert "does not tell" in result.advice.text
    assert result.advice.method is None


def test_rare_success_is_discounted_by_the_papers_form_and_taken_up_by_the_policys():
    draw = np.random.default_rng(1)
    values = rewards(draw, prompts=200, channels=8, rates=(0.6, 0.8))
    values[..., 0] = draw.random(values.shape[:2]) < 0.08
    result = audit(log(values), 8, methods=["gdpo", "rvpo", "rvpo_policy"], ks=[2.0])
    discount = next(finding for finding in result.findings if finding.kind == "discount")
    assert discount.channels == ("c0",)
    assert "rvpo k=2 discounts rare success on c0" in discount.text
    assert result.advice.method == "rvpo_policy"
    assert result.advice.ks == (2.0,)
    assert result.method("rvpo_policy k=2").ahead.low > 0


def test_dead_channels_that_cap_the_advantage_come_with_the_cap():
    values = rewards(np.random.default_rng(0), channels=4)
    values[..., :2] = 1.0
    text = next(finding.text for finding in audit(log(values), 4).findings if finding.kind == "cap")
    shares = np.mean([(values[..., j].std(axis=1) == 0).mean() for j in range(4)])
    assert f"under rvpo k=2 hardly an advantage exceeds {-np.log(shares) / 2:.2f}" in text


def test_lost_rewards_are_named_once():
    draw = np.random.default_rng(0)
    values = rewards(draw)
    values[..., 1][draw.random(values.shape[:2]) < 0.4] = np.nan
    (finding,) = [finding for finding in audit(log(values), 5).findings if finding.kind == "missing"]
    assert finding.text.startswith("c1 lack up to 38 %")


def test_one_reward_needs_no_method():
    values = rewards(np.random.default_rng(0), channels=1)
    assert "there is one reward" in audit(log(values), 1).advice.text
