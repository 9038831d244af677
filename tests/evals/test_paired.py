"""Comparisons of results: pairing, seeds as blocks, Holm, bounds, words and JSON."""

import json
import math

import pytest

from evals.scripted import record
from rvpo.errors import ConfigError
from rvpo.evals.paired import cautions, cells, compare, heads, to_json, unit_scores
from rvpo.stats import paired_test


def result(values, bounds=None):
    """A result with these values of units 0, 1, ..."""
    return [record(str(at), value, bounds=bounds if value is None else None) for at, value in enumerate(values)]


LOW = [0.1, 0.5, 0.3, 0.0, 0.2, 0.4, 0.1, 0.0]
HIGH = [value + gain for value, gain in zip(LOW, (0.3, 0.1, 0.2, 0.4, 0.2, 0.3, 0.1, 0.2), strict=True)]


def test_two_results_by_hand():
    (comparison,) = compare({"gdpo": [result(LOW)], "rvpo": [result(HIGH)]}, "s")
    assert comparison.test.difference == pytest.approx(1.8 / 8)
    assert comparison.test.p_value == comparison.adjusted_p == 2 / 2**8  # all eight differ in one direction
    assert (comparison.verdict, comparison.units) == ("higher", "8 items")
    assert comparison.sentence.startswith("rvpo against gdpo: higher by 0.225 [")
    assert comparison.sentence.endswith("p = 0.008")
    assert comparison.cautions == ["one result per name: says nothing about other training seeds"]


def test_the_other_way_round_is_told_as_a_positive_size():
    (comparison,) = compare({"rvpo": [result(HIGH)], "gdpo": [result(LOW)]}, "s")
    assert comparison.verdict == "lower"
    low, high = comparison.sentence.split("[")[1].split("]")[0].split(", ")
    assert 0 < float(low) < 0.225 < float(high)


def test_no_difference_is_a_result_in_words():
    (comparison,) = compare({"a": [result([0.0, 1.0, 0.0, 1.0])], "b": [result([1.0, 0.0, 0.5, 0.5])]}, "s")
    assert comparison.verdict == "no difference shown"
    assert comparison.sentence.startswith("b against a: no difference shown (+0.000 [")


def test_items_pair_by_unit_and_what_has_no_partner_is_told():
    first, second = result(LOW), [record(str(at), HIGH[at]) for at in (7, 6, 5, 4)] + [record("x", 1.0)]
    (comparison,) = compare({"a": [first], "b": [second]}, "s")
    assert comparison.test.difference == pytest.approx((0.2 + 0.3 + 0.1 + 0.2) / 4)
    assert (comparison.only_baseline, comparison.only_name) == (4, 1)
    assert comparison.cautions[0] == "1 items of b and 4 of a have no partner and were left out"


def test_missing_scores_leave_the_pair_and_bound_the_difference():
    (comparison,) = compare({"a": [result([0.5, None], (0.0, 0.4))], "b": [result([0.6, 1.0])]}, "s")
    assert (comparison.test.pairs, comparison.test.dropped) == (1, 1)
    assert comparison.test.difference == pytest.approx(0.1)
    assert comparison.bounds == pytest.approx(((0.1 + 0.6) / 2, (0.1 + 1.0) / 2))
    assert "with what is missing the difference lies between +0.350 and +0.550" in comparison.cautions
    (unknown,) = compare({"a": [result([0.5, None])], "b": [result([0.6, 1.0])]}, "s")
    assert unknown.bounds is None


def test_repeats_are_averaged_before_pairing():
    scores = unit_scores([record("q", 1.0), record("q", 0.0, 1), record("q", None, 2, bounds=(0.0, 1.0))], "s")
    assert scores["q"].value == 0.5
    assert (scores["q"].low, scores["q"].high) == (pytest.approx(1 / 3), pytest.approx(2 / 3))
    assert math.isnan(unit_scores([record("q", None)], "s")["q"].value)


def test_seeds_are_blocks_as_in_paired_test():
    seeds = [[value + shift for value in HIGH] for shift in (0.0, 0.05, -0.1)]
    (comparison,) = compare({"a": [result(LOW)] * 3, "b": [result(values) for values in seeds]}, "s")
    flat = [value for values in seeds for value in values]
    expected = paired_test(flat, LOW * 3, blocks=[seed for seed in range(3) for _ in LOW])
    assert comparison.test == expected
    assert comparison.units == "24 items in 3 seeds"
    assert comparison.test.p_value == 2 / 2**3
    assert comparison.verdict == "no difference shown"
    assert comparison.cautions == ["3 seeds allow no p-value below 0.25"]


def test_right_and_wrong_answers_have_mcnemars_mid_p():
    binom = pytest.importorskip("scipy.stats").binom
    gained, lost, same = 24, 11, 65  # items that one of two models has right, and those that both have
    first, second = (
        result([0.0] * gained + [1.0] * (lost + same)),
        result([1.0] * gained + [0.0] * lost + [1.0] * same),
    )
    (made,) = compare({"a": [first], "b": [second]}, "s", draws=200_000)
    expected = 2 * binom.sf(gained, gained + lost, 0.5) + binom.pmf(gained, gained + lost, 0.5)
    assert made.test.p_value == pytest.approx(expected, abs=0.002)
    assert 2 * binom.sf(gained - 1, gained + lost, 0.5) - expected > 0.01  # without halving the ties
    (equal,) = compare({"a": [first], "b": [first]}, "s")
    assert equal.test.p_value == 1.0


def test_p_values_are_corrected_over_all_comparisons():
    groups = {"a": [result(LOW)], "b": [result(HIGH)], "c": [result(LOW)]}
    against = compare(groups, "s")
    assert [(comparison.name, comparison.baseline) for comparison in against] == [("b", "a"), ("c", "a")]
    assert [comparison.adjusted_p for comparison in against] == [2 * 2 / 2**8, 1.0]
    assert [(comparison.name, comparison.baseline) for comparison in compare(groups, "s", all_pairs=True)] == [
        ("b", "a"), ("c", "a"), ("c", "b")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("groups", "score", "message"),
    [
        ({"a": [result(LOW)]}, "s", "at least two names"),
        ({"a": [result(LOW)], "b": [result(LOW)] * 2}, "s", "equally many results"),
        ({"a": [result(LOW)], "b": [[record("x", 1.0)]]}, "s", "no item in common"),
        ({"a": [result(LOW)], "b": [result(LOW)]}, "t", "no item of a has a score 't'; there are s"),
        ({"a": [result([None])], "b": [result([1.0])]}, "s", "nothing to compare"),
    ],
)
def test_what_cannot_be_compared_is_an_error(groups, score, message):
    with pytest.raises(ConfigError, match=message):
        compare(groups, score)


def test_a_caution_about_all_comparisons_is_given_once_and_one_about_some_with_their_names():
    made = compare({"a": [result(LOW)], "b": [result(HIGH)], "c": [result(LOW[:-1])]}, "s")
    assert cautions(made) == [
        "one result per name: says nothing about other training seeds",
        "c against a: 0 items of c and 1 of a have no partner and were left out",
    ]


def test_the_cells_of_a_table():
    (made,) = compare({"a": [result([0.0, 0.0])], "b": [result([0.5, 0.5])]}, "s", level=0.9)
    assert dict(zip(heads(0.9), cells(made), strict=True)) == {
        "": "b against a",
        "difference": "+0.500",
        "90 % interval": "+0.500 to +0.500",
        "p (Holm)": "0.500",  # of the four ways to swap two pairs, two differ as much
        "p": "0.500",
        "effect size": "+inf",  # no spread
        "items": "2 items",
        "verdict": "no difference shown",
    }
    (single,) = compare({"a": [result([0.0])], "b": [result([0.5])]}, "s")
    assert cells(single)[2] == cells(single)[5] == ""


def test_json_has_no_numbers_that_json_has_not():
    made = compare({"a": [result([0.5])], "b": [result([0.5])]}, "s")
    (stored,) = json.loads(json.dumps(to_json(made), allow_nan=False))
    assert (stored["difference"], stored["low"], stored["effect_size"]) == (0.0, None, None)
    assert stored["verdict"] == "no difference shown"
