"""The figures of an audit against plain loops, hand arithmetic and rvpo's own diagnostics."""

import math
from itertools import combinations

import numpy as np
import pytest
from made_up import log, rewards

from rvpo import compute_advantages
from rvpo.audit import Groups, audit_groups
from rvpo.audit.estimates import HORIZON, verdict
from rvpo.audit.groups import ChannelNames, groups_of_maps
from rvpo.audit.result import Estimate
from rvpo.audit.signals import BY_GROUP, KS, make_signals
from rvpo.audit.sums import BlockSums, Layout, PairSums, group_sums
from rvpo.core import aggregations
from rvpo.core.diagnostics import conflict, forecast
from rvpo.core.methods import METHODS, Method
from rvpo.errors import ConfigError

NAN = math.nan


def some_rewards(missing=0.05):
    draw = np.random.default_rng(5)
    values = rewards(draw, prompts=60, rollouts=6, channels=4)
    values[draw.random(values.shape) < missing] = np.nan
    return values


@pytest.mark.parametrize("method", BY_GROUP)
def test_a_forecast_is_the_covariance_per_unit_of_advantage(method):
    values = some_rewards()
    ranges = {"ranges": (0, 1)} if method in ("rvpo_policy", "tchebycheff") else {}
    advantages = compute_advantages(values, method=method, k=2.0, whiten=False, **ranges).advantages
    scored = ~np.isnan(values).all(axis=2)
    spreads = [group[kept].var(ddof=1) for group, kept in zip(advantages, scored, strict=True)]
    expected = forecast(values, advantages) / np.sqrt(np.mean(spreads))
    result = audit_groups([Groups(values)], list("abcd"), methods=[method], ks=[2.0], draws=10)
    (signal,) = result.methods
    changes = [channel.forecasts[signal.name].change.value for channel in result.channels]
    np.testing.assert_allclose(changes, expected, rtol=1e-9)


def test_whitening_and_recentring_leave_a_forecast_as_it_is():
    values = some_rewards()
    made = compute_advantages(values, method="rvpo", k=2.0, recenter=True).advantages
    groups = Groups(values, logged=np.where(np.isnan(values).all(axis=2), np.nan, made))
    result = audit_groups([groups], list("abcd"), methods=["rvpo"], ks=[2.0], draws=10)
    assert result.reference == "logged"
    for channel in result.channels:
        logged, rvpo = channel.forecasts["logged"], channel.forecasts["rvpo k=2"]
        assert logged.change.value == pytest.approx(rvpo.change.value, rel=1e-6)
        assert math.isnan(logged.weight)


def test_health_of_channels_by_hand():
    values = np.array(
        [
            [[1, 0, NAN], [1, 0, 0.5]],  # solved; failed; one value of two: dead, neither of both
            [[1, 1, NAN], [0, 0, NAN]],  # live; live; absent
        ]
    )
    steps = np.array([1.0, 4.0])
    result = audit_groups([Groups(values, step=steps)], list("abc"), methods=["gdpo"], draws=10)
    a, b, c = result.channels
    assert (a.mean.value, a.recent.value, a.drift.value) == (0.75, 0.5, -0.5)
    assert (a.dead.value, a.solved.value, a.failed.value) == (0.5, 0.5, 0.0)
    assert (b.dead.value, b.solved.value, b.failed.value) == (0.5, 0.0, 0.5)
    assert (c.dead.value, c.solved.value, c.failed.value) == (1.0, 0.0, 0.0)
    assert (a.recent_failed.value, b.recent_failed.value) == (0.0, 0.0)  # step 4 alone
    backwards = audit_groups([Groups(values[::-1], step=steps)], list("abc"), methods=["gdpo"], draws=10)
    assert [channel.recent_failed.value for channel in backwards.channels] == [0.0, 1.0, 0.0]
    assert (a.missing.value, c.missing.value, c.share.value) == (0.0, 0.5, 0.5)
    assert a.std.value == pytest.approx(math.sqrt(0.5) / 2)
    assert (a.values, c.values) == (4, 1)


def test_conflict_with_the_rest_is_that_of_the_diagnostics():
    values = some_rewards(missing=0.0)
    result = audit_groups([Groups(values)], list("abcd"), methods=["gdpo"], draws=10)
    np.testing.assert_allclose([channel.rest.value for channel in result.channels], conflict(values), rtol=1e-9)


def test_pairs_are_mean_correlations_of_groups_where_both_vary():
    values = some_rewards(missing=0.0)
    result = audit_groups([Groups(values)], list("abcd"), methods=["gdpo"], draws=10)
    pair = next(pair for pair in result.pairs if (pair.first, pair.second) == ("a", "c"))
    live = [group[:, [0, 2]] for group in values if (group[:, [0, 2]].std(axis=0) > 0).all()]
    correlations = [np.corrcoef(group.T)[0, 1] for group in live]
    assert pair.groups == len(correlations)
    assert [(pair.first, pair.second) for pair in result.pairs] == list(combinations("abcd", 2))
    assert pair.correlation == pytest.approx(np.mean(correlations))
    assert pair.error == pytest.approx(np.std(correlations, ddof=0) / math.sqrt(len(correlations) - 1))


def test_noise_is_the_spread_among_equal_answers():
    values = np.array([[[0.0], [1.0], [0.5], [0.5]], [[0.0], [1.0], [1.0], [1.0]]])
    text = np.array([[1, 1, 2, 2], [1, 2, 2, 3]])
    result = audit_groups([Groups(values, text=text)], ["a"], methods=["gdpo"], draws=10)
    among = 0.5 / 3  # squares 0.5 + 0 + 0 over one degree of freedom for each of the three repeats
    inside = (np.var([0, 1, 0.5, 0.5], ddof=1) + np.var([0, 1, 1, 1], ddof=1)) / 2
    assert result.channel("a").noise.value == pytest.approx(among / inside)
    assert result.channel("a").repeats == 3


def test_length_correlations_are_means_over_groups():
    values = some_rewards(missing=0.0)
    length = np.random.default_rng(0).random(values.shape[:2])
    result = audit_groups([Groups(values, length=length)], list("abcd"), methods=["gdpo"], draws=10)
    live = [(group[:, 1], row) for group, row in zip(values, length, strict=True) if group[:, 1].std() > 0]
    correlations = [np.corrcoef(reward, row)[0, 1] for reward, row in live]
    assert result.channel("b").length.value == pytest.approx(np.mean(correlations))
    advantages = compute_advantages(values, method="gdpo", whiten=False).advantages
    correlations = [np.corrcoef(*pair)[0, 1] for pair in zip(advantages, length, strict=True)]
    assert result.method("gdpo").bias.value == pytest.approx(np.mean(correlations))


def test_an_outlook_moves_the_recent_mean_on_the_logit_scale():
    values = some_rewards(missing=0.0)
    result = audit_groups([Groups(values)], list("abcd"), methods=["gdpo"], draws=10)
    channel, variance = result.channel("b"), np.mean(values[..., 1].var(axis=1, ddof=1))
    logit = math.log(channel.level / (1 - channel.level))
    logit += HORIZON * channel.forecasts["gdpo"].change.value / variance
    assert channel.forecasts["gdpo"].outlook.value == pytest.approx(1 / (1 + math.exp(-logit)))


def test_a_channel_on_another_scale_has_the_same_outlook():
    values = some_rewards(missing=0.0)
    wide = values * np.array([1, 6, 1, 1]) - np.array([0, 3, 0, 0])
    plain, scaled = (
        audit_groups([Groups(v)], list("abcd"), methods=["rvpo", "rvpo_policy"], ks=[2.0], draws=10)
        for v in (values, wide)
    )
    for signal in ("rvpo k=2", "rvpo_policy k=2"):
        wide, narrow = (audit.channel("b").forecasts[signal] for audit in (scaled, plain))
        assert wide.outlook.value == pytest.approx(narrow.outlook.value, abs=1e-3)
        assert wide.change.value == pytest.approx(6 * narrow.change.value, rel=1e-3)


def test_intervals_are_those_of_a_plain_bootstrap():
    values = some_rewards(missing=0.0)
    result = audit_groups([Groups(values)], list("abcd"), methods=["gdpo"], draws=4000)
    draw = np.random.default_rng(1)
    drawn = [values[draw.integers(0, 60, 60), :, 0].mean() for _ in range(4000)]
    mean = result.channel("a").mean
    np.testing.assert_allclose([mean.low, mean.high], np.quantile(drawn, [0.025, 0.975]), atol=0.01)


def test_the_same_seed_gives_the_same_audit():
    groups = Groups(some_rewards())
    first, same, other = (audit_groups([groups], list("abcd"), draws=50, seed=seed).to_dict() for seed in (0, 0, 1))
    assert first == same
    assert first != other


def test_groups_of_unequal_size_are_as_groups_filled_with_missing_rollouts():
    values = some_rewards(missing=0.0)
    size = np.random.default_rng(0).integers(1, 7, size=60)
    values[np.arange(6) >= size[:, None]] = np.nan
    result = audit_groups([Groups(values, size=size)], list("abcd"), methods=["gdpo"], draws=10)
    assert (result.groups, result.single) == ((size > 1).sum(), (size == 1).sum())
    assert all(channel.missing.value == 0 for channel in result.channels)
    kept = values[size > 1]
    advantages = compute_advantages(kept, method="gdpo", whiten=False).advantages
    present = [a[:n].var(ddof=1) for a, n in zip(advantages, size[size > 1], strict=True)]
    expected = forecast(kept, advantages) / np.sqrt(np.mean(present))
    changes = [channel.forecasts["gdpo"].change.value for channel in result.channels]
    np.testing.assert_allclose(changes, expected)


def test_criteria_of_one_kind_are_one_channel_but_weigh_one_by_one():
    prompts = [
        {"a/x:1": [1.0, 0.0, 1.0, 0.0], "a/x:2": [1.0, 1.0, 0.0, 0.0], "b": [0.0, 0.0, 1.0, 1.0]},
        {"b": [1.0, 0.0, 0.0, NAN]},
    ]
    names = ChannelNames(())
    groups = groups_of_maps(prompts, names)
    result = audit_groups([groups], names.names, methods=["gdpo"], draws=10)
    assert [channel.name for channel in result.channels] == ["a/x", "b"]
    assert (result.channel("a/x").share.value, result.channel("b").share.value) == (1.0, 1.0)
    first = np.array([list(column) for column in prompts[0].values()]).T[None]
    second = np.array(prompts[1]["b"])[None, :, None]
    made = [compute_advantages(group, method="gdpo", whiten=False).advantages[0] for group in (first, second)]
    scale = math.sqrt((made[0].var(ddof=1) + made[1][:3].var(ddof=1)) / 2)
    criteria = [np.cov(prompts[0][name], made[0])[0, 1] for name in ("a/x:1", "a/x:2")]
    assert result.channel("a/x").forecasts["gdpo"].change.value == pytest.approx(np.mean(criteria) / scale)
    assert result.channel("a/x").forecasts["gdpo"].weight == pytest.approx(1 / 3)
    # Both criteria of a/x vary beside b: the mean of the two correlations -1 and 0.
    pair = next(pair for pair in result.pairs if {pair.first, pair.second} == {"a/x", "b"})
    assert pair.groups == 2


def test_blocks_of_prompts_are_added_up_when_there_are_many():
    values = rewards(np.random.default_rng(0), prompts=300, rollouts=4, channels=3)
    signals, ranges = make_signals(["gdpo"], [1.0]), np.tile([0.0, 1.0], (3, 1))
    layout = Layout(3, 1)
    sums, pairs = BlockSums(layout, blocks=64), PairSums.zeros(layout)
    for start in range(0, 300, 7):
        sums.add(group_sums(Groups(values[start : start + 7]), signals, ranges, pairs))
    whole = group_sums(Groups(values), signals, ranges, PairSums.zeros(layout))
    assert (sums.per_block, len(sums.rows)) == (8, 38)
    np.testing.assert_allclose(sums.rows.sum(axis=0), whole.sum(axis=0))
    np.testing.assert_allclose(sums.rows[1], whole[8:16].sum(axis=0))


@pytest.mark.parametrize(
    ("change", "recent", "expected"),
    [
        (Estimate(0.1, 0.01, 0.2), 0.1, "rises"),
        (Estimate(0.1, -0.01, 0.2), 0.29, "at risk"),
        (Estimate(-0.1, -0.2, -0.01), 0.1, "at risk"),
        (Estimate(0.1, -0.01, 0.2), 0.3, "stalls"),
        (Estimate(-0.1, -0.2, -0.01), 0.5, "falls"),
        (Estimate(0.0, 0.0, 0.0), 1.0, "stalls"),
        (Estimate(0.1), 0.1, "unknown"),
    ],
)
def test_verdicts(change, recent, expected):
    assert verdict(change, recent) == expected


def test_one_group_has_no_interval_and_no_verdict():
    result = audit_groups([Groups(some_rewards()[:1])], list("abcd"), methods=["gdpo"])
    forecasts = [channel.forecasts["gdpo"] for channel in result.channels]
    assert {forecast.verdict for forecast in forecasts} == {"unknown"}
    assert all(math.isnan(forecast.change.low) for forecast in forecasts)


def test_a_course_follows_the_steps():
    values = np.zeros((40, 4, 1))
    values[20:, :2] = 1.0
    result = audit_groups([Groups(values, step=np.arange(40.0))], ["a"], methods=["gdpo"], draws=10)
    assert result.course.mean[0] == (0.0,) * 6 + (0.5,) * 6
    assert result.course.dead[0] == (1.0,) * 6 + (0.0,) * 6
    assert list(result.course.steps) == sorted(result.course.steps)


def test_the_difference_of_two_audits_has_an_interval():
    difference = Estimate(3.0, 0.0, 6.0) - Estimate(1.0, -3.0, 5.0)
    assert difference == Estimate(2.0, -3.0, 7.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"methods": ["rvop"]}, "did you mean 'rvpo'"),
        ({"ks": [-1.0]}, "must be a number >= 0"),
        ({"methods": []}, "at least one method"),
        ({"draws": 0}, "draws >= 1"),
        ({"ranges": {"a": (0.0, 0.5)}}, "must hold its rewards, which go from 0 to 1"),
        ({"ranges": {"z": (0.0, 0.5)}}, "unknown channel 'z'"),
    ],
)
def test_options_out_of_their_domain_are_errors(options, message):
    with pytest.raises(ConfigError, match=message):
        audit_groups([Groups(some_rewards())], list("abcd"), **options)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((0, 4, 2)), "no rollouts"),
        (np.full((3, 4, 2), NAN), "none of the 12 rollouts has a value in any of a and b"),
        (np.zeros((3, 1, 2)), "each of the 3 groups holds one rollout"),
        (np.full((3, 4, 2), -math.inf), "rewards of a and b are infinite"),
        (np.full((3, 4, 2), -1e200), "rewards of a and b go beyond 1e\\+100"),
        (np.zeros((3, 4, 3)), "3 rewards per rollout for 2 names: a and b"),
    ],
)
def test_groups_without_anything_to_audit_are_errors(values, message):
    with pytest.raises(ConfigError, match=message):
        audit_groups([Groups(values)], ["a", "b"])


def test_every_method_and_k_is_a_signal():
    names = [signal.name for signal in make_signals(BY_GROUP, KS)]
    assert {"grpo", "cvar", *(f"{method} k={k}" for method in ("rvpo", "rvpo_policy") for k in (0.5, 1, 2, 5))} < {
        *names
    }
    assert len(names) == 9 + 4 * 4
    assert [s.name for s in make_signals(["mean_variance", "rvpo"], [1, math.inf])] == [
        "mean_variance k=1",
        "rvpo k=1",
        "rvpo k=inf",
    ]


def test_intervals_are_of_1000_draws_unless_given():
    groups = [log(some_rewards())]
    expected = audit_groups(groups, list("abcd"), methods=["gdpo"], draws=1000).to_dict()
    assert audit_groups(groups, list("abcd"), methods=["gdpo"]).to_dict() == expected
    assert audit_groups(groups, list("abcd"), methods=["gdpo"], draws=1001).to_dict() != expected


def test_a_method_that_weighs_by_the_batch_of_a_step_is_refused():
    for method in set(METHODS) - set(BY_GROUP):
        with pytest.raises(ConfigError, match=f"'{method}' weighs channels by the batch of a training step"):
            audit_groups([log(some_rewards())], list("abcd"), methods=["gdpo", method])


def of_my_own(channels, k):
    """RVPO under another name."""
    return aggregations.rvpo(channels, k)


def of_unit_range(channels, k=0.0):
    """The policy level at its own k, under another name."""
    return aggregations.rvpo_policy(channels, 2.0)


def test_a_method_of_ones_own_is_audited_as_a_built_in_one():
    groups, path = Groups(some_rewards()), f"{__name__}:of_my_own"
    methods = ["rvpo", path, of_my_own, Method(of_unit_range, needs_range=True), "rvpo_policy"]
    result = audit_groups([groups], list("abcd"), methods=methods, ks=[2.0], draws=10)
    names = ["rvpo k=2", f"{path} k=2", "of_my_own k=2", "of_unit_range", "rvpo_policy k=2"]
    assert [signal.name for signal in result.methods] == names
    assert [(signal.method, signal.k) for signal in result.methods[1:4]] == [
        (path, 2.0),
        ("of_my_own", 2.0),
        ("of_unit_range", None),
    ]
    for channel in result.channels:
        built_in, by_path, function, unit, policy = (channel.forecasts[name] for name in names)
        assert built_in == by_path == function
        assert unit == policy


def of_infinities(channels, k=0.0):
    """Not finite for a group of eight."""
    advantages = channels.z[..., 0] + (np.inf if channels.z.shape[1] == 8 else 0.0)
    return aggregations.Aggregate(advantages, np.ones((1, 1, channels.z.shape[2])))


def of_a_wrong_k(channels, k):
    """Refuses k = 3."""
    if k == 3:
        raise ConfigError("k is not 3")
    return aggregations.rvpo(channels, k)


@pytest.mark.parametrize(
    ("methods", "ks", "message"),
    [
        ([of_infinities], [1.0], "'of_infinities' returned an advantage that is not finite"),
        ([of_a_wrong_k], [1.0, 3.0], "k is not 3"),
        (["mean_variance"], [math.inf], "at least one method and a k that it takes"),
        (["gdpo"], [], None),
        (["rvpo"], [], "at least one method and a k that it takes"),
        (["gdpo", Method(aggregations.gdpo)], [1.0], "names of their own, got gdpo, gdpo"),
        (["no_module:function"], [1.0], "cannot load method 'no_module:function'"),
    ],
)
def test_methods_that_cannot_be_used_are_errors(methods, ks, message):
    groups = [Groups(rewards(np.random.default_rng(0), prompts=4, channels=2))]
    if message is None:
        assert audit_groups(groups, ["a", "b"], methods=methods, ks=ks, draws=10).reference == "gdpo"
        return
    with pytest.raises(ConfigError, match=message):
        audit_groups(groups, ["a", "b"], methods=methods, ks=ks, draws=10)


def test_a_method_lists_the_channels_at_risk_and_those_that_fall():
    draw = np.random.default_rng(0)
    a, rare, often = (draw.random((100, 8)) < rate for rate in (0.6, 0.3, 0.4))
    values = np.stack([a, a, a, ~a & rare, ~(a & often)], axis=2).astype(float)  # d and e against the other three
    (gdpo,) = audit_groups([Groups(values)], list("abcde"), methods=["gdpo"], draws=200).methods
    assert (gdpo.at_risk, gdpo.falls) == (("d",), ("e",))


def test_an_audit_is_found_by_names():
    result = audit_groups([log(some_rewards())], list("abcd"), methods=["gdpo"], draws=10)
    with pytest.raises(ConfigError, match="unknown channel 'e'"):
        result.channel("e")
    with pytest.raises(ConfigError, match="unknown method 'grpo'"):
        result.method("grpo")
    assert [channel.name for channel in result.by_outlook("gdpo")] == sorted(
        "abcd", key=lambda name: result.channel(name).forecasts["gdpo"].outlook.value
    )
