"""Every constant that decides: a case at its boundary and a case just past it, with numbers written out."""

import math
from dataclasses import replace

import numpy as np
import pytest
from made_up import NAN, channel, forecast, method, result, sure

from rvpo.audit import Groups, audit_groups, audit_log, audit_page
from rvpo.audit.analysis import _Blocks
from rvpo.audit.columns import find_columns
from rvpo.audit.estimates import _ends, verdict
from rvpo.audit.findings import advise, find, limits
from rvpo.audit.groups import ChannelNames, Rows, TooManyChannelsError, _seen_before, group_rows
from rvpo.audit.result import Estimate, Pair
from rvpo.audit.sums import BlockSums, Layout
from rvpo.errors import ConfigError
from rvpo.text import shown_names

BIT = 1e-9
"""A little, beside thresholds of order 1."""


def kinds(audit):
    """Kinds of an audit's findings."""
    return [finding.kind for finding in find(audit)]


# --- findings ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "at", "past"),
    [
        ("dead", {"dead": sure(0.9)}, {"dead": sure(0.9 - BIT)}),
        ("solved", {"dead": sure(0.9), "solved": sure(0.45 + BIT)}, {"dead": sure(0.9), "solved": sure(0.45)}),
        ("solved", {"dead": sure(0.9), "solved": sure(0.9)}, {"dead": sure(0.9 - BIT), "solved": sure(0.9 - BIT)}),
        ("noise", {"noise": sure(0.1)}, {"noise": sure(0.1 - BIT)}),
        ("noise", {"noise": Estimate(0.1, 0.05, 0.2)}, {"noise": Estimate(0.1, 0.05 - BIT, 0.2)}),
        ("noise", {"noise": sure(0.5), "repeats": 20}, {"noise": sure(0.5), "repeats": 19}),
        ("conflict", {"rest": sure(-0.3)}, {"rest": sure(-0.3 + BIT)}),
        ("conflict", {"rest": Estimate(-0.3, -0.5, -0.15)}, {"rest": Estimate(-0.3, -0.5, -0.15 + BIT)}),
        ("missing", {"missing": sure(0.2)}, {"missing": sure(0.2 - BIT)}),
    ],
)
def test_a_channel_has_a_finding_from_its_threshold_on(kind, at, past):
    assert kinds(result([channel("a", **at), channel("b")])) == [kind]
    assert kind not in kinds(result([channel("a", **past), channel("b")]))


def fading(drift=-0.25, high=-0.125, failed=0.5, **figures):
    """Findings of a channel that fell from 1/2 by `drift`."""
    share = failed if isinstance(failed, Estimate) else sure(failed)
    fell = {"level": 0.5 + drift, "drift": Estimate(drift, drift, high), "recent_failed": share}
    return kinds(result([channel("a", **(fell | figures)), channel("b")]))


@pytest.mark.parametrize(
    "past",
    [
        {"drift": -0.25 + BIT},  # not yet by half
        {"high": -0.125 + BIT},
        {"failed": 0.5 - BIT},
        {"failed": Estimate(0.5, 0.25 - BIT, 0.9)},
        {"dead": sure(0.9)},  # that says more
    ],
)
def test_a_channel_fades_from_its_thresholds_on(past):
    assert fading() == ["fading"]
    assert fading(failed=Estimate(0.5, 0.25, 0.9)) == ["fading"]
    assert "fading" not in fading(**past)


def test_fading_is_measured_from_the_bottom_of_the_range():
    def of_range(level):
        audited = channel("a", drift=sure(level - 2.0), recent=sure(level), recent_failed=sure(0.5))
        return kinds(result([replace(audited, range=(-2.0, 3.0)), channel("b")]))

    assert of_range(0.0) == ["fading"]  # 4 above the bottom, then 2
    assert of_range(0.0 + BIT) == []


def test_figures_far_on_the_healthy_side_are_no_findings():
    far = channel("a", rest=sure(0.9), length=sure(0.9), drift=sure(-0.9))
    assert kinds(result([far, channel("b")])) == []


@pytest.mark.parametrize(
    ("failed", "why"), [(0.475, "all rollouts get the same"), (0.475 + BIT, "every rollout fails it")]
)
def test_a_dead_channel_is_failed_if_most_of_its_dead_groups_are(failed, why):
    (finding,) = find(result([channel("a", dead=sure(0.95), failed=sure(failed)), channel("b")]))
    assert finding.text == f"a is dead: in 95 % of the groups {why}, so no method can raise it"


@pytest.mark.parametrize("sign", [1, -1])
def test_length_counts_from_its_threshold_on(sign):
    def finding(bias, length):
        audit = result([channel("a", length=length), channel("b")], [method(bias=bias)])
        return [(finding.text, finding.channels) for finding in find(audit)]

    ((text, channels),) = finding(sure(0.2 * sign), sure(0.2 * sign))
    assert text.startswith(f"{'longer' if sign > 0 else 'shorter'} answers get more advantage under gdpo")
    assert text.endswith(", through a")
    assert channels == ("a",)
    assert finding(sure((0.2 - BIT) * sign), sure(0.2 * sign)) == []
    clear, unclear = (Estimate(0.2 * sign, *sorted((end * sign, 0.3 * sign))) for end in (0.1, 0.1 - BIT))
    assert finding(clear, sure(0.0))[0][1] == ()
    assert finding(unclear, sure(0.0)) == []
    causes = [channel("a", length=sure(0.3 * sign)), channel("b", length=sure(0.4 * sign))]
    assert find(result(causes, [method(bias=0.5 * sign)]))[0].channels == ("b", "a")
    for other in (0.2 * -sign, (0.2 - BIT) * sign):
        assert finding(sure(0.2 * sign), sure(other))[0][1] == ()


def pair(correlation=-0.5, error=0.01, groups=100):
    return Pair("a", "b", correlation, error, groups)


@pytest.mark.parametrize(
    ("at", "past"),
    [
        (pair(-0.3), pair(-0.3 + BIT)),
        (pair(groups=30), pair(groups=29)),
        (pair(-0.375, 0.125 - BIT), pair(-0.375, 0.125)),
    ],
)
def test_a_pair_is_in_conflict_from_its_thresholds_on(at, past):
    assert kinds(result(pairs=[at])) == ["conflict"]
    assert kinds(result(pairs=[past])) == []


def test_success_is_discounted_at_most_half_as_much_as_under_gdpo_and_below_a_mean_of_0_3():
    def finding(change, level=0.3 - BIT, lowest=BIT):
        forecasts = {"gdpo": forecast(Estimate(0.2, lowest, 0.3)), "rvpo k=2": forecast(Estimate(0.0, -1.0, change))}
        channels = [channel("a", level=level, forecasts=forecasts), channel("b", forecasts={"rvpo k=2": forecast()})]
        return [finding.channels for finding in find(result(channels, [method(), method("rvpo k=2")]))]

    assert finding(0.1 - BIT) == [("a",)]
    assert finding(0.1) == []
    assert finding(0.0, level=0.3) == []
    assert finding(0.0, lowest=0.0) == []


def test_only_the_papers_form_discounts_and_its_smallest_such_k_is_named():
    names = ["gdpo", "cvar", "rvpo k=2", "rvpo k=5", "rvpo_policy k=2"]
    changes = dict.fromkeys(names, 0.0) | {"gdpo": 0.2}

    def rare(name, **other):
        return channel(
            name, level=0.1, forecasts={name: forecast(change) for name, change in (changes | other).items()}
        )

    audit = result([rare("a"), rare("b", **{"rvpo k=2": -0.1})], [method(name) for name in names])
    (finding,) = find(audit)
    assert finding.text == (
        "rvpo k=2 discounts rare success on a and b: forecast of b -0.100 [-0.100, -0.100] against +0.200 under gdpo"
    )
    assert kinds(result(audit.channels, [method("rvpo k=2")], reference="rvpo k=2")) == []


def test_dead_channels_cap_the_advantage_from_a_quarter_of_the_criteria_on():
    def text(dead, methods=("rvpo k=2", "rvpo k=4", "rvpo_policy k=9")):
        forecasts = {name: forecast() for name in methods}
        channels = [
            channel("a", forecasts=forecasts, dead=sure(dead), share=sure(3.0)),
            channel("b", forecasts=forecasts, dead=sure(0.0)),
            channel("absent", forecasts=forecasts, dead=sure(NAN), share=sure(0.0)),
        ]
        return [finding.text for finding in find(result(channels, [method(name) for name in ("gdpo", *methods)]))]

    (at,) = text(1 / 3)  # three criteria of four, dead in a third of the groups
    assert at.startswith("25 % of a prompt's channels are dead, so under rvpo k=4 hardly an advantage exceeds 0.35;")
    assert at.endswith("dead_channels='mask' takes them out")
    assert text(1 / 3 - BIT) == []
    assert text(0.8, methods=["cvar", "rvpo k=0"]) == []
    absent = channel("absent", forecasts={"rvpo k=2": forecast()}, dead=sure(NAN), share=sure(0.0))
    assert kinds(result([absent, absent], [method(), method("rvpo k=2")])) == []


def test_the_fourth_finding_of_a_kind_shares_its_line():
    def dead(number):
        channels = [channel(f"c{index}", dead=sure(1.0)) for index in range(number)]
        return [finding.channels for finding in find(result(channels))]

    assert dead(3) == [("c0",), ("c1",), ("c2",)]
    assert dead(4) == [("c0",), ("c1",), ("c2",), ("c3",)]
    assert dead(5) == [("c0",), ("c1",), ("c2",), ("c3", "c4")]
    noisy = [channel(f"c{index}", noise=sure(1 - index / 100)) for index in range(10)]
    last = find(result(noisy))[-1]
    assert (last.kind, last.text) == ("noise", "noisy, too: c3, c4, c5, c6, c7, c8 and 1 more")
    many = [Pair("a", f"c{index}", -0.9 + index / 100, 0.0, 100) for index in range(4)]
    assert [finding.channels[1] for finding in find(result(pairs=many[::-1]))] == ["c0", "c1", "c2"]


def test_findings_come_in_the_order_of_their_weight():
    lost = {"gdpo": forecast(-0.1, "at risk", outlook=0.2)}
    channels = [
        channel("solved", dead=sure(1.0), solved=sure(1.0)),
        channel("missing", missing=sure(0.4)),
        channel("less missing", missing=sure(0.3)),
        channel("against", rest=sure(-0.5)),
        channel("noisy", noise=sure(0.3)),
        channel("noisier", noise=sure(2.0)),
        channel("dead", dead=sure(1.0), forecasts=lost),
        channel("lost", forecasts=lost, rest=sure(-0.5), drift=sure(-0.2)),
        channel("more lost", forecasts={"gdpo": forecast(-0.2, "falls", outlook=0.1)}),
    ]
    audit = result(channels, [method(bias=0.5)])
    assert [finding.text for finding in find(audit)] == [
        "more lost falls under gdpo: forecast -0.200 [-0.200, -0.200] at a mean of 0.50",
        "lost is at risk under gdpo: forecast -0.100 [-0.100, -0.100] at a mean of 0.50 (-0.20 over the log); it is "
        "in conflict with the rest (correlation -0.50)",
        "dead is dead: in 100 % of the groups all rollouts get the same, so no method can raise it",
        "noisier is noisy: equal answers to one prompt differ by 100 % of its variance in a group (1000 repeats); a "
        "risk-sensitive method amplifies that",
        "noisy is noisy: equal answers to one prompt differ by 30 % of its variance in a group (1000 repeats); a "
        "risk-sensitive method amplifies that",
        "longer answers get more advantage under gdpo (correlation +0.50 [+0.50, +0.50])",
        "against is in conflict with the rest: correlation -0.50 [-0.50, -0.50]; under gdpo it rises",
        "missing and less missing lack up to 40 % of their rewards",
        "solved, with nothing left to learn in at least 90 % of the groups: solved",
    ]


@pytest.mark.parametrize(
    ("drift", "rest", "words"),
    [
        (Estimate(0.1, 0.0, 0.2), Estimate(-0.1, -0.2, 0.0), ""),
        (Estimate(0.1, BIT, 0.2), Estimate(-0.1, -0.2, 0.0), " (+0.10 over the log)"),
        (
            Estimate(-0.1, -0.2, 0.0),
            Estimate(-0.1, -0.2, -BIT),
            "; it is in conflict with the rest (correlation -0.10)",
        ),
    ],
)
def test_drift_and_conflict_of_a_channel_at_risk_are_named_if_their_interval_excludes_0(drift, rest, words):
    lost = channel("a", forecasts={"gdpo": forecast(-0.1, "at risk")}, drift=drift, rest=rest)
    (finding,) = find(result([lost, channel("b")]))
    assert finding.text == f"a is at risk under gdpo: forecast -0.100 [-0.100, -0.100] at a mean of 0.50{words}"


# --- limits and advice ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at", "past", "word"),
    [
        ({"groups": 30}, {"groups": 29}, "most things"),
        ({"torn": 0}, {"torn": 1, "single": 10}, "which rows make a group"),
        ({}, {"has_text": False}, "noise"),
        ({"channels": [channel(repeats=19), channel("b", repeats=20)]}, {"channels": [channel(repeats=19)]}, "noise"),
        ({}, {"has_length": False}, "length bias"),
        ({}, {"steps": None}, "drift"),
        ({"steps": (1.0, 1.0 + BIT)}, {"steps": (1.0, 1.0)}, "drift"),
    ],
)  # fmt: skip
def test_what_a_log_cannot_tell(at, past, word):
    assert limits(result(**at)) == []
    (limit,) = limits(result(**past))
    assert limit.split(":")[0] == word
    if word == "which rows make a group":
        assert "1 of 110 came back more than 65,536 rows later" in limit


def advice(*methods, groups=100, channels=None):
    return advise(result(channels, [method(lowest=0.3), *methods], groups=groups))


@pytest.mark.parametrize(
    ("ahead", "groups", "taken"),
    [
        (Estimate(0.1, 0.01, 0.2), 30, "cvar"),
        (Estimate(0.1, 0.01 - BIT, 0.2), 30, None),
        (Estimate(0.1, 0.01, 0.2), 29, None),
        (Estimate(0.1), 30, None),
    ],
)
def test_a_method_is_advised_from_its_thresholds_on(ahead, groups, taken):
    advised = advice(method("cvar", lowest=0.4, ahead=ahead), groups=groups)
    assert (advised.method, advised.ks) == (taken, ())


def test_ks_within_0_02_of_the_best_are_as_good():
    lowest = {5: 0.375 - BIT, 1: 0.355, 2: 0.375, 0.5: 0.355 - BIT}
    forms = [method(f"rvpo k={k:g}", lowest=value, ahead=0.1) for k, value in lowest.items()]
    advised = advice(method("cvar", lowest=0.37, ahead=0.1), method("rvpo_policy k=3", lowest=0.37, ahead=0.1), *forms)
    assert (advised.method, advised.ks) == ("rvpo", (1.0, 2.0, 5.0))
    assert advised.text == (
        "take rvpo with k 1 to 5: projected lowest third 0.38 against 0.30 under gdpo (+0.10 [+0.10, +0.10]), "
        "all 0.38 against 0.30"
    )
    assert advice(forms[2]).text.startswith("take rvpo with k 2: projected")
    assert advice(*forms[1:3]).text.startswith("take rvpo with k 1 to 2: projected")
    assert advice(method("cvar", lowest=0.4, ahead=0.1)).text.startswith("take cvar: projected")


def test_a_single_reward_needs_no_method():
    better = method("cvar", lowest=0.4, ahead=0.1)
    assert advice(better, channels=[channel()]).text.startswith("there is one reward: every method pushes it alike")
    assert advice(better, channels=[channel(), channel("b")]).method == "cvar"


def test_the_logged_advantage_is_compared_with_but_not_advised():
    audit = result(methods=[method("logged", lowest=0.9), method("cvar", lowest=0.4, ahead=-0.5)], reference="logged")
    assert advise(audit).text.startswith("the log does not tell a better method than logged: best is cvar, projected")


# --- estimates -----------------------------------------------------------------------------------------------


def test_intervals_hold_95_percent_of_the_draws():
    for number, low, high in ((40, 0, 39), (41, 1, 39), (42, 1, 40), (100_001, 2500, 97_500)):
        assert _ends(np.random.default_rng(0).permutation(np.arange(float(number)))) == (low, high)


@pytest.mark.parametrize(("known", "has_interval"), [(0, False), (500, False), (501, True)])
def test_a_figure_has_an_interval_if_more_than_half_of_the_draws_have_it(known, has_interval):
    drawn = np.where(np.arange(1000) < known, 1.0, NAN)
    assert np.isfinite(_ends(drawn)).all() == has_interval


@pytest.mark.parametrize(("level", "expected"), [(0.3, "stalls"), (0.3 - BIT, "at risk")])
def test_a_channel_that_does_not_rise_is_at_risk_below_0_3(level, expected):
    assert verdict(Estimate(0.1, 0.0, 0.2), level) == expected


def test_recent_and_drift_are_of_thirds_of_the_steps():
    steps = 10 + np.array([0.0, 1.0, 1.001, 1.999, 2.0, 3.0])
    values = np.repeat(2.0 ** np.arange(6), 2).reshape(6, 2, 1)
    (report,) = audit_groups([Groups(values, step=steps)], ["a"], methods=["gdpo"], draws=2).channels
    assert (report.recent.value, report.drift.value) == (24.0, 24.0 - 1.5)


@pytest.mark.parametrize(
    ("steps", "points"),
    [
        (np.arange(10.0, 23.0), [*range(11), 11.5]),  # the last step has no part of its own
        (np.array([10.0, 15.0, 22.0]), [0, 5, 12]),
        (np.array([10.0, 10.999, 11.0, 22.0]), [0.4995, 1, 12]),
    ],
)
def test_a_course_has_up_to_12_points(steps, points):
    values = np.stack([steps / 100, steps / 100], axis=1)[..., None]
    course = audit_groups([Groups(values, step=steps)], ["a"], methods=["gdpo"], draws=2).course
    assert course.steps == pytest.approx([10 + point for point in points])
    assert course.mean[0] == pytest.approx([(10 + point) / 100 for point in points])
    assert course.dead[0] == (1.0,) * len(points)


@pytest.mark.parametrize(("number", "counted"), [(3, 1), (4, 2)])
def test_the_lowest_third_of_the_outlooks_is_rounded_up(number, counted):
    values = (np.random.default_rng(0).random((40, 6, number)) < np.linspace(0.2, 0.8, number)).astype(float)
    audit = audit_groups([Groups(values)], [f"c{index}" for index in range(number)], methods=["gdpo"], draws=2)
    outlooks = sorted(channel.forecasts["gdpo"].outlook.value for channel in audit.channels)
    assert audit.methods[0].lowest.value == pytest.approx(np.mean(outlooks[:counted]))
    assert audit.methods[0].all.value == pytest.approx(np.mean(outlooks))


def test_channels_without_any_reward_count_as_1_in_the_lowest_third_alone():
    values = np.full((40, 6, 4), NAN)
    values[..., 2] = np.random.default_rng(0).random((40, 6)) < 0.3
    audit = audit_groups([Groups(values)], list("abcd"), methods=["gdpo"], draws=2)
    outlook = audit.channel("c").forecasts["gdpo"].outlook.value
    assert audit.methods[0].lowest.value == pytest.approx((outlook + 1) / 2)
    assert audit.methods[0].all.value == pytest.approx(outlook)
    assert [channel.name for channel in audit.by_outlook("gdpo")] == list("cabd")


def test_two_groups_have_intervals():
    values = (np.random.default_rng(0).random((2, 6, 1)) < 0.5).astype(float)
    for groups, has_interval in ((values, True), (values[:1], False)):
        mean = audit_groups([Groups(groups)], ["a"], methods=["gdpo"], draws=20).channel("a").mean
        assert math.isfinite(mean.low) == has_interval


def test_a_level_is_the_recent_mean_on_the_range():
    values = np.array([[[0.0], [2.0]], [[1.0], [1.0]]])
    ranges = {"a": (-1.0, 3.0)}
    assert audit_groups([Groups(values)], ["a"], methods=["gdpo"], draws=2, ranges=ranges).channel("a").level == 0.5


def test_a_channel_of_one_value_has_no_level_and_no_verdict():
    channel = audit_groups([Groups(np.full((4, 2, 1), 5.0))], ["a"], methods=["gdpo"], draws=2).channel("a")
    assert (channel.range, channel.dead.value, channel.solved.value) == ((5.0, 5.0), 1.0, 0.0)
    assert math.isnan(channel.level)
    assert channel.forecasts["gdpo"].verdict == "unknown"


def test_a_method_is_ahead_by_the_difference_of_the_lowest_thirds():
    values = (np.random.default_rng(0).random((40, 6, 4)) < [0.1, 0.4, 0.6, 0.9]).astype(float)
    gdpo, rvpo = audit_groups([Groups(values)], list("abcd"), methods=["gdpo", "rvpo"], ks=[5.0], draws=20).methods
    assert gdpo.ahead == (0.0, 0.0, 0.0)
    assert rvpo.ahead.value == pytest.approx(rvpo.lowest.value - gdpo.lowest.value)


def test_the_error_of_a_pair_of_equal_correlations_is_0_up_to_rounding():
    for seed in range(20):
        group = np.random.default_rng(seed).random((1, 5, 2))
        (correlation,) = audit_groups([Groups(group.repeat(30, axis=0))], ["a", "b"], methods=["gdpo"], draws=2).pairs
        assert 0 <= correlation.error < 1e-6


def test_the_correlation_of_a_pair_has_an_error_from_two_groups_on():
    values = np.random.default_rng(0).random((2, 5, 2))
    errors = []
    for groups in (values[:1], values):
        (correlation,) = audit_groups([Groups(groups)], ["a", "b"], methods=["gdpo"], draws=2).pairs
        errors.append(correlation.error)
    correlations = [np.corrcoef(group.T)[0, 1] for group in values]
    assert math.isnan(errors[0])
    assert errors[1] == pytest.approx(np.std(correlations, ddof=1) / math.sqrt(2))


def outlook(values, name="a"):
    return (
        audit_groups([Groups(values)], ["a"], methods=["gdpo"], draws=2).channel(name).forecasts["gdpo"].outlook.value
    )


def test_an_outlook_looks_2_ahead_from_a_mean_kept_in_0_01_to_0_99():
    balanced = np.tile([0.0, 1.0], (3, 2))[..., None]
    z = (balanced[0] - 0.5) / (balanced[0].std(ddof=1) + 1e-4)
    change = 1.0 / z.std(ddof=1) * np.cov(balanced[0, :, 0], z[:, 0])[0, 1]
    assert outlook(balanced) == pytest.approx(1 / (1 + math.exp(-2 * change / balanced[0].var(ddof=1))), rel=1e-9)
    assert outlook(np.ones((3, 4, 1))) == pytest.approx(0.99)
    assert outlook(np.zeros((3, 4, 1))) == pytest.approx(0.01)


def test_an_outlook_stays_within_a_logit_of_30():
    rare = np.zeros((400, 8, 1))
    rare[0, 0] = 1.0  # the fewer groups vary, the larger is the change per variance
    assert 1 - outlook(rare) == pytest.approx(math.exp(-30), rel=1e-2, abs=0)  # of the few bits that are left at 1


# --- rounding ------------------------------------------------------------------------------------------------


def only(values, **groups):
    """The first channel of an audit of one block under GDPO."""
    names = [f"c{index}" for index in range(values.shape[2])]
    options = {"methods": ["gdpo"], "draws": 2, "ranges": {"c0": (0.0, 1.0)}}
    return audit_groups([Groups(values, **groups)], names, **options).channels[0]


@pytest.mark.parametrize(("distance", "is_at_end"), [(0.995e-9, 1.0), (1.005e-9, 0.0)])
def test_a_dead_channel_at_an_end_of_its_range_is_solved_or_failed(distance, is_at_end):
    top, bottom = only(np.full((2, 2, 1), 1 - distance)), only(np.full((2, 2, 1), distance))
    assert (top.solved.value, top.failed.value, top.dead.value) == (is_at_end, 0.0, 1.0)
    assert (bottom.solved.value, bottom.failed.value, bottom.dead.value) == (0.0, is_at_end, 1.0)


@pytest.mark.parametrize(("norm", "is_known"), [(0.995e-12, False), (1.005e-12, True)])
def test_others_that_cancel_have_no_correlation(norm, is_known):
    angle = math.sqrt(norm)
    first = np.array([1.0, -1.0, 0.0]) / math.sqrt(2)
    apart = np.array([1.0, 1.0, -2.0]) / math.sqrt(6)
    others = [first, -math.cos(angle) * first + math.sin(angle) * apart]
    values = np.stack([[1.0, 0.0, 0.0], *others], axis=1)[None]
    assert math.isfinite(only(values).rest.value) == is_known


@pytest.mark.parametrize(("product", "is_known"), [(0.995e-18, False), (1.005e-18, True)])
def test_rewards_that_hardly_vary_have_no_correlation_with_the_length(product, is_known):
    size = math.sqrt(2 * product)  # two rewards size apart: squares size^2 / 2; two lengths 1 apart: 1/2
    values = np.array([0.0, math.sqrt(2) * size])[None, :, None]
    assert math.isfinite(only(values, length=np.array([[0.0, 1.0]])).length.value) == is_known


@pytest.mark.parametrize(("share", "is_noisy"), [(0.995e-12, False), (1.005e-12, True)])
def test_equal_answers_whose_rewards_differ_by_rounding_have_no_noise(share, is_noisy):
    # Deviations a and a + d of two equal answers: d^2 / 2 apart, of about 2 a^2.
    distance = 2 * 0.25 * math.sqrt(share)
    values = np.array([0.25, 0.25, 0.75, 0.75 + distance])[None, :, None]
    assert (only(values, text=np.array([[1, 2, 3, 3]])).noise.value > 0) == is_noisy


# --- sizes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("prompts", "blocks"), [(4096, 4096), (4097, 2049)])
def test_up_to_4096_prompts_are_blocks_of_their_own(prompts, blocks):
    layout = Layout(1, 1)
    sums = BlockSums(layout)
    sums.add(np.ones((prompts, layout.width)))
    assert len(sums.rows) == blocks
    assert sums.rows.sum() == prompts * layout.width


def test_up_to_40_kinds_of_criteria_are_channels():
    names = ChannelNames([])
    assert [names.index(f"c{index}", "r") for index in range(40)] == list(range(40))
    with pytest.raises(TooManyChannelsError):
        names.index("another", "r")


def rows(keys, step=1.0):
    return Rows(np.full(len(keys), step), np.asarray(keys), np.zeros((len(keys), 1)))


@pytest.mark.parametrize(("before", "torn"), [(2**16 - 2, 0), (2**16 - 1, 1)])
def test_rows_of_a_group_are_joined_inside_a_window(before, torn):
    batches = [rows(np.arange(before)), rows([0])]
    blocks = list(group_rows(batches, ChannelNames(["a"]), (), consecutive=False))
    assert sum(int(block.torn.sum()) for block in blocks) == torn


def test_a_block_holds_so_many_rewards():
    blocks = group_rows([rows(np.arange(2**18 + 10))], ChannelNames(["a"]), (), consecutive=False)
    assert len(next(blocks).values) == 2**18


def test_so_many_groups_are_recognised_when_they_come_back():
    seen = set(range(-1, -(2**18), -1))  # a place is left
    _seen_before(rows([1, 2]), np.array([0, 1]), seen)
    assert _seen_before(rows([1, 2]), np.array([0, 1]), seen).tolist() == [True, False]


@pytest.mark.parametrize(("values", "reads"), [(2**23, 1), (2**23 + 1, 2)])
def test_a_log_of_up_to_64_megabytes_is_read_once(values, reads):
    calls = []

    def read():
        calls.append(1)
        yield Groups(np.zeros((2, 1, 2)))
        yield Groups(np.zeros((values - 4, 1, 1)))

    blocks = _Blocks(read)
    assert [[len(block.values) for block in blocks] for _ in range(2)] == [[2, values - 4]] * 2
    assert len(calls) == reads


def test_rewards_are_refused_beyond_1e100():
    pair = np.array([0.0, 1e100])[None, :, None]
    assert audit_groups([Groups(pair)], ["a"], methods=["gdpo"], draws=2).channel("a").range == (0.0, 1e100)
    with pytest.raises(ConfigError, match="go beyond 1e\\+100"):
        audit_groups([Groups(-1.0001 * pair)], ["a"], methods=["gdpo"], draws=2)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-0.995e-6, 1 + 0.995e-6, (0.0, 1.0)),
        (-1.005e-6, 1.0, (-1.0, 1.0)),
        (0.0, 1 + 1.005e-6, (-1.0, 1.0)),
        (-1 - 1.99e-6, 1.0, (-1.0, 1.0)),
        (-1 - 2.01e-6, 1.0, (-1 - 2.01e-6, 1.0)),
    ],
)
def test_a_range_is_usual_up_to_the_rounding_of_rewards(low, high, expected):
    values = np.array([low, high])[None, :, None]
    assert audit_groups([Groups(values)], ["a"], methods=["gdpo"], draws=2).channel("a").range == expected


# --- columns and files ---------------------------------------------------------------------------------------


def head(first, second, third):
    """The first rows of a log with three columns of numbers."""
    columns = {"a": first, "b": second, "c": third}
    return {"prompt": ["p"] * len(first)} | {name: list(map(float, column)) for name, column in columns.items()}


@pytest.mark.parametrize(("rows", "left_out"), [(7, {}), (8, {"c": "the sum of a and b"})])
def test_a_sum_of_columns_shows_in_8_rows(rows, left_out):
    a, b = np.random.default_rng(0).random((2, rows))
    assert find_columns(head(a, b, a + b)).left_out == left_out


@pytest.mark.parametrize(("error", "left_out"), [(0.995e-5, ["c"]), (1.005e-5, [])])
def test_a_mean_of_columns_may_differ_by_rounding(error, left_out):
    a, b = 1e6 * (1 + np.random.default_rng(0).random((2, 20)))
    assert list(find_columns(head(a, b, (a + b) / 2 * (1 + error))).left_out) == left_out


@pytest.mark.parametrize(("error", "left_out"), [(0.995e-7, ["c"]), (1.005e-7, [])])
def test_a_sum_of_columns_may_differ_by_rounding_near_0(error, left_out):
    a = np.random.default_rng(0).random(20)
    assert list(find_columns(head(a, -a, np.tile([error, -error], 10))).left_out) == left_out


def test_totals_are_found_among_hundreds_of_columns():
    rewards = np.random.default_rng(0).integers(0, 2, size=(300, 64)).astype(float)
    rewards[np.random.default_rng(1).random(rewards.shape) < 0.3] = np.nan
    rewards[101] = np.arange(64) % 2
    rewards[0, 0] = np.inf
    columns = {f"tag {index}": list(column) for index, column in enumerate(rewards)}
    columns |= {"of three": list(np.nanmean(rewards[100:103], axis=0)), "of all": list(np.nansum(rewards[1:], axis=0))}
    parts = [f"tag {index}" for index in range(1, 300)]
    assert find_columns({"prompt": ["p"] * 64} | columns).left_out == {
        "of three": "the mean of tag 100, tag 101 and tag 102",
        "of all": f"the sum of {shown_names(parts)}",
    }


def csv(folder, column):
    file = folder / "log.csv"
    file.write_text("prompt,a,b\n" + "".join(f"p{row // 2},{row % 2},{entry}\n" for row, entry in enumerate(column)))
    return file


def test_columns_are_guessed_from_512_rows(tmp_path):
    audit = audit_log(csv(tmp_path, [*["1"] * 511, "word", "1"]), methods=["gdpo"], draws=2)
    assert "b (numbers and other things)" in " ".join(audit.reading)
    with pytest.raises(ConfigError, match="row 513: column 'b' holds 'word'"):
        audit_log(csv(tmp_path, [*["1"] * 512, "word"]), methods=["gdpo"], draws=2)


@pytest.mark.parametrize(("numbers", "reading"), [(2, "b (numbers and other things)"), (1, "rewards: a")])
def test_a_text_column_holds_numbers_if_half_of_it_does(tmp_path, numbers, reading):
    audit = audit_log(csv(tmp_path, [*["1"] * numbers, *["word"] * (4 - numbers)]), methods=["gdpo"], draws=2)
    assert reading in " ".join(audit.reading)
    assert ("b (" in " ".join(audit.reading)) == (numbers == 2)


# --- views ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("channels", "has_table"), [(20, True), (21, False)])
def test_up_to_20_channels_have_a_table_of_correlations(channels, has_table):
    names = [f"c{index}" for index in range(channels)]
    pairs = [Pair("c0", name, -0.3, 0.0, 100) for name in names[1:]]
    page = audit_page(result([channel(name) for name in names], pairs=pairs))
    assert ('<td class="falls">-0.30</td>' in page) == has_table
    assert ("<li>c0 and c1: -0.30" in page) != has_table


@pytest.mark.parametrize(("correlation", "marked"), [(-0.3, True), (-0.3 + BIT, False)])
def test_conflicts_are_marked_on_the_page(correlation, marked):
    page = audit_page(result(pairs=[Pair("a", "b", correlation, 0.1, 100)]))
    assert ('<td class="falls">-0.30</td>' in page) == marked


@pytest.mark.parametrize(("level", "marked"), [(0.3, False), (0.3 - BIT, True)])
def test_low_means_are_marked_on_the_page(level, marked):
    assert ('<i class="bad" style="width:30.0%">' in audit_page(result([channel(level=level)]))) == marked
