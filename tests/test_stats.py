"""Paired tests, bootstrap intervals and Holm's correction: by hand, by properties, by simulation and against scipy."""

import doctest
import itertools
import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rvpo import stats
from rvpo.errors import ConfigError
from rvpo.stats import PairedTest, bootstrap_interval, bootstrap_ratio, holm, lowest_third, paired_test

FEW = settings(max_examples=40)
SCORES = st.integers(-20, 20).map(lambda value: value / 4)
PAIRS = st.lists(st.tuples(SCORES, SCORES), min_size=1, max_size=16)


def columns(pairs):
    """Two lists of scores from pairs."""
    a, b = zip(*pairs, strict=True)
    return list(a), list(b)


def flips_by_loop(differences):
    """Two-sided exact p-value, one sign pattern at a time."""
    observed = abs(sum(differences))
    sums = [
        abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
        for signs in itertools.product((-1, 1), repeat=len(differences))
    ]
    return sum(value >= observed - 1e-9 for value in sums) / len(sums)


def test_the_docstrings_examples_hold():
    tried = doctest.testmod(stats)
    assert tried.attempted > 0
    assert tried.failed == 0


def test_five_equal_differences_have_p_of_2_in_32():
    result = paired_test([2, 3, 4, 5, 6], [1, 2, 3, 4, 5])
    assert result.p_value == 2 / 32
    assert (result.difference, result.low, result.high) == (1.0, 1.0, 1.0)
    assert (result.effect_size, result.pairs, result.blocks, result.dropped) == (math.inf, 5, 5, 0)
    assert result.verdict == "no difference shown"


def test_differences_worked_by_hand():
    # d = 1, 2, -1: |sum| = 2 is reached by +-(4, 2): d's signs (+,+,+), (+,+,-), (-,+,-) and their mirrors: 6 of 8.
    result = paired_test([1.0, 2.0, 0.0], [0.0, 0.0, 1.0])
    assert result.p_value == 6 / 8
    assert result.difference == pytest.approx(2 / 3)
    assert result.effect_size == pytest.approx((2 / 3) / math.sqrt(7 / 3))  # deviations 1/3, 4/3, -5/3; squares 42/9


@pytest.mark.parametrize(
    ("difference", "p_value", "verdict"),
    [
        (0.1, 0.01, "a is higher"),
        (-0.1, 0.01, "b is higher"),
        (0.1, 0.06, "no difference shown"),
        (0.0, 0.01, "no difference shown"),
    ],
)
def test_the_verdict_is_in_plain_words(difference, p_value, verdict):
    assert PairedTest(difference, 0, 0, p_value, 0, 9, 9, 0).verdict == verdict


def test_the_verdict_follows_the_level():
    a, b = [2, 3, 4, 5, 6], [1, 2, 3, 4, 5]
    assert paired_test(a, b, level=0.9).verdict == "a is higher"
    assert paired_test(b, a, level=0.9).verdict == "b is higher"


@FEW
@given(PAIRS)
def test_swapping_a_and_b_mirrors_everything_but_p(pairs):
    a, b = columns(pairs)
    first, other = paired_test(a, b, draws=200), paired_test(b, a, draws=200)
    assert first.p_value == other.p_value
    assert first.difference == -other.difference
    assert (first.low, first.high) == pytest.approx((-other.high, -other.low), nan_ok=True)
    assert first.effect_size == pytest.approx(-other.effect_size, nan_ok=True)


@FEW
@given(PAIRS, st.integers(-1000, 1000))
def test_a_shift_of_both_changes_nothing(pairs, shift):
    a, b = columns(pairs)
    shifted = paired_test([x + shift for x in a], [x + shift for x in b], draws=200)
    assert shifted == paired_test(a, b, draws=200) or len(pairs) == 1  # one pair: NaN differs from itself


@FEW
@given(st.lists(st.tuples(SCORES, SCORES), min_size=1, max_size=7))
def test_few_units_give_the_exact_p_of_a_loop(pairs):
    a, b = columns(pairs)
    assert paired_test(a, b).p_value == flips_by_loop([x - y for x, y in pairs])


def test_exact_p_agrees_with_scipy():
    scipy_stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(3)
    a, b = rng.normal(0.4, 1.0, 9), rng.normal(0.0, 1.0, 9)

    def mean_difference(x, y, axis):
        return x.mean(axis=axis) - y.mean(axis=axis)

    theirs = scipy_stats.permutation_test((a, b), mean_difference, permutation_type="samples", n_resamples=np.inf)
    assert paired_test(a, b).p_value == pytest.approx(theirs.pvalue, abs=1e-12)


def test_the_interval_agrees_with_scipys_percentile_bootstrap():
    scipy_stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(4).exponential(size=60)
    theirs = scipy_stats.bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, rng=1)
    ours = bootstrap_interval(values, draws=20_000)
    # The Monte Carlo error of a 2.5 % quantile at 20 000 draws is about 0.02 standard errors of the mean.
    tolerance = 0.08 * values.std() / math.sqrt(60)
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs.confidence_interval), abs=tolerance)


def test_the_random_p_is_near_the_normal_limit_and_never_0():
    a = np.random.default_rng(5).normal(0.0, 1.0, 400)
    a += 0.08 - a.mean()
    z = 0.08 / math.sqrt(np.mean(a**2) / 400)
    limit = 2 * (1 - NormalDist().cdf(z))
    assert paired_test(a, np.zeros(400)).p_value == pytest.approx(limit, abs=0.015)
    assert paired_test(np.ones(30), np.zeros(30), draws=99).p_value == 1 / 100


def test_missing_scores_drop_their_pair():
    result = paired_test([1.0, math.nan, 3.0, None, 6.0], [0.0, 1.0, math.nan, None, 4.0])
    assert result.difference == 1.5
    assert (result.pairs, result.blocks, result.dropped) == (2, 2, 3)
    assert bootstrap_interval([1.0, None, 3.0]).mean == 2.0
    assert bootstrap_interval([1.0, None, 3.0]).count == 2


def test_one_unit_has_a_difference_and_nothing_else():
    for result in (paired_test([3.0], [1.0]), paired_test([3.0, 4.0], [1.0, 2.0], blocks=["seed 0", "seed 0"])):
        assert (result.difference, result.p_value, result.blocks) == (2.0, 1.0, 1)
        assert math.isnan(result.low)
        assert math.isnan(result.high)
        assert math.isnan(result.effect_size)
    single = bootstrap_interval([2.5])
    assert (single.mean, single.count) == (2.5, 1)
    assert math.isnan(single.low)
    assert math.isnan(single.high)


def test_equal_scores_show_no_difference():
    result = paired_test([0.1, 0.7, 0.2], [0.1, 0.7, 0.2])
    assert (result.difference, result.low, result.high, result.p_value, result.effect_size) == (0, 0, 0, 1, 0)
    assert result.verdict == "no difference shown"


def test_rounding_of_the_scores_is_no_spread_and_breaks_no_tie():
    # 0.3 - 0.2 and 0.2 - 0.1 differ in the last bit.
    result = paired_test([0.3, 0.2, 0.4, 1000.1], [0.2, 0.1, 0.3, 1000.0])
    assert result.effect_size == math.inf
    assert result.p_value == 2 / 16


def test_the_same_seed_gives_the_same_result_and_another_one_does_not():
    rng = np.random.default_rng(6)
    a, b = rng.random(30), rng.random(30)
    assert paired_test(a, b, seed=1) == paired_test(a, b, seed=1)
    assert paired_test(a, b, seed=1).low != paired_test(a, b, seed=2).low


@FEW
@given(st.lists(st.tuples(SCORES, SCORES, st.integers(1, 4)), min_size=1, max_size=15))
def test_identical_pairs_inside_blocks_count_as_one(blocks):
    a, b, labels = [], [], []
    for label, (x, y, size) in enumerate(blocks):
        a, b, labels = a + [x] * size, b + [y] * size, labels + [f"seed {label}"] * size
    whole = paired_test(a, b, blocks=labels, draws=300)
    means = paired_test([x for x, _, _ in blocks], [y for _, y, _ in blocks], draws=300)
    assert whole.p_value == means.p_value
    assert whole.blocks == len(blocks)
    assert whole.difference == pytest.approx(means.difference, abs=1e-12)
    assert whole.effect_size == pytest.approx(means.effect_size, nan_ok=True)


def test_every_block_counts_once_whatever_its_size():
    # Block means of a - b: 1 (three pairs) and 4 (one pair).
    result = paired_test([1.0, 2.0, 0.0, 4.0], [0.0] * 4, blocks=[7, 7, 7, 8])
    assert result.difference == 2.5
    assert (result.pairs, result.blocks) == (4, 2)
    assert bootstrap_interval([1.0, 2.0, 0.0, 4.0], blocks=[7, 7, 7, 8]).mean == 2.5


def test_a_small_block_is_drawn_from_as_often_as_it_is_large():
    # Drawn blocks have mean 0 or 4 whichever pairs are drawn, so their average is 0, 2 or 4.
    interval = bootstrap_interval([0.0, 0.0, 0.0, 4.0], blocks=["wide", "wide", "wide", "narrow"])
    assert (interval.low, interval.mean, interval.high) == (0.0, 2.0, 4.0)


def test_the_order_of_pairs_and_labels_does_not_matter_to_p():
    rng = np.random.default_rng(7)
    a, b, labels = rng.random(24), rng.random(24), np.arange(24) % 4
    order = rng.permutation(24)
    first, other = paired_test(a, b, blocks=labels), paired_test(a[order], b[order], blocks=labels[order])
    assert (first.p_value, first.difference) == pytest.approx((other.p_value, other.difference))


def test_blocks_lost_as_a_whole_are_no_units():
    result = paired_test([1.0, 2.0, math.nan], [0.0, 0.0, 0.0], blocks=["x", "y", "z"])
    assert (result.blocks, result.dropped) == (2, 1)


def test_the_interval_with_blocks_has_the_variance_of_both_stages():
    # B blocks of n: a drawn block's mean has variance var_between + mean of var_within / n, over B blocks.
    rng = np.random.default_rng(8)
    values = rng.normal(0, 1, (40, 1)) + rng.normal(0, 3, (40, 5))
    labels = np.repeat(np.arange(40), 5)
    interval = bootstrap_interval(values.ravel(), blocks=labels)
    variance = (values.mean(axis=1).var() + values.var(axis=1).mean() / 5) / 40
    expected = 2 * NormalDist().inv_cdf(0.975) * math.sqrt(variance)
    assert interval.high - interval.low == pytest.approx(expected, rel=0.06)


def test_the_interval_covers_the_true_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(9)
    samples = rng.exponential(size=(300, 40))  # true mean 1
    intervals = [bootstrap_interval(sample, seed=i, draws=400) for i, sample in enumerate(samples)]
    covered = np.mean([interval.low <= 1.0 <= interval.high for interval in intervals])
    assert 0.88 <= covered <= 0.97  # percentile intervals of a skewed sample of 40 cover somewhat less than 0.95


def test_the_test_rejects_a_true_hypothesis_about_as_often_as_it_says():
    rng = np.random.default_rng(10)
    p_values = [paired_test(rng.normal(size=20), rng.normal(size=20), seed=i, draws=200).p_value for i in range(400)]
    assert np.mean(np.array(p_values) <= 0.05) == pytest.approx(0.05, abs=0.03)


def test_holm_by_hand():
    # Sorted 0.01, 0.02, 0.03, 0.5 times 4, 3, 2, 1: 0.04, 0.06, 0.06, 0.5.
    assert holm([0.5, 0.01, 0.03, 0.02]).tolist() == pytest.approx([0.5, 0.04, 0.06, 0.06])
    # NaN does not count: three tests are left.
    assert holm([math.nan, 0.01, None, 0.4, 0.02])[[1, 3, 4]].tolist() == pytest.approx([0.03, 0.4, 0.04])
    assert np.isnan(holm([math.nan, 0.01, None])[[0, 2]]).all()
    assert holm([]).tolist() == []
    assert np.isnan(holm([math.nan])).all()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.randoms())
def test_holm_raises_keeps_the_order_and_goes_with_the_values(p_values, random):
    adjusted = holm(p_values)
    assert (adjusted >= np.array(p_values)).all()
    assert (adjusted <= 1).all()
    order = np.argsort(p_values, kind="stable")
    assert (np.diff(adjusted[order]) >= 0).all()
    shuffled = list(range(len(p_values)))
    random.shuffle(shuffled)
    assert holm([p_values[i] for i in shuffled]).tolist() == [adjusted[i] for i in shuffled]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: paired_test([1.0], [1.0, 2.0]), "equal lengths, got 1 and 2"),
        (lambda: paired_test([], []), "none of the 0"),
        (lambda: paired_test([math.nan], [1.0]), "none of the 1"),
        (lambda: paired_test([math.inf], [1.0]), "finite scores, got inf"),
        (lambda: paired_test([[1.0]], [[1.0]]), r"one axis, got shape \(1, 1\)"),
        (lambda: paired_test(["x"], [1.0]), "a must hold numbers"),
        (lambda: paired_test([1.0, 2.0], [1.0, 2.0], blocks=["x"]), "got 1 for 2"),
        (lambda: paired_test([1.0], [1.0], blocks=[None]), "a None or NaN"),
        (lambda: paired_test([1.0], [1.0], blocks=[math.nan]), "a None or NaN"),
        (lambda: paired_test([1.0], [1.0], draws=0), "draws must be a whole number >= 1, got 0"),
        (lambda: paired_test([1.0], [1.0], draws=True), "draws must be"),
        (lambda: paired_test([1.0], [1.0], seed=-1), "seed must be a whole number >= 0, got -1"),
        (lambda: paired_test([1.0], [1.0], level=95), "level must lie in"),
        (lambda: bootstrap_interval([]), "none of the 0"),
        (lambda: bootstrap_interval([1.0], level=0), "level must lie in"),
        (lambda: holm([0.5, 1.5]), "0.5 to 1.5"),
        (lambda: holm([-0.1]), "-0.1 to -0.1"),
    ],
)
def test_bad_input_is_an_error_that_names_it(call, message):
    with pytest.raises(ConfigError, match=message):
        call()


# --- ratios ---------------------------------------------------------------------------------------------------


def test_a_ratio_is_of_means_and_its_interval_over_pairs():
    # (1 + 3) / (1 + 1) = 2; a draw of two pairs gives 1, 2 or 3, the ends with a quarter each.
    ratio = bootstrap_ratio([1.0, 3.0, None], [1.0, 1.0, 5.0])
    assert (ratio.value, ratio.low, ratio.high, ratio.pairs) == (2.0, 1.0, 3.0, 2)


def test_draws_without_a_baseline_are_left_out():
    # Draws of the second pair alone have no ratio; all others have a = 2 b.
    ratio = bootstrap_ratio([4.0, 0.0], [2.0, 0.0])
    assert (ratio.value, ratio.low, ratio.high) == (2.0, 2.0, 2.0)


def test_a_ratio_to_nothing_is_nothing():
    assert math.isnan(bootstrap_ratio([1.0, 2.0], [0.0, 0.0]).value)
    single = bootstrap_ratio([1.0], [2.0])
    assert single.value == 0.5
    assert math.isnan(single.low)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [([1.0], [1.0, 2.0], "equal lengths"), ([None], [1.0], "complete pairs"), ([1.0], [-1.0], "b >= 0")],
)
def test_what_has_no_ratio_is_an_error(a, b, message):
    with pytest.raises(ConfigError, match=message):
        bootstrap_ratio(a, b)


# --- lowest third ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("means", "expected"),
    [
        ([0.9], 0.9),
        ([0.1, 0.9], 0.1),
        ([0.3, 0.1, 0.9], 0.1),
        ([0.4, 0.1, 0.2, 0.9], 0.15),  # M mod 3 = 1: two of four, where round(M / 3) would take one
        ([0.5, 0.7, 0.1, 0.3, 0.9, 0.2, 0.8], 0.2),  # three of seven
    ],
)
def test_the_lowest_third_is_rounded_up(means, expected):
    assert lowest_third(means) == pytest.approx(expected)


def test_the_lowest_third_of_each_row():
    assert lowest_third([[0.5, 0.25, 1.0, 0.75], [0.0, 1.0, 1.0, 1.0]]).tolist() == [0.375, 0.5]
