"""When a curve reaches a level: by hand, against a peer, and on noisy curves whose crossing is known."""

import math

import numpy as np
import pytest
from scipy.optimize import isotonic_regression

from rvpo_lab.suite.first_passage import first_passage, isotonic, passages, steps_table

STEPS = list(range(0, 101, 10))


def test_the_fit_is_scipys():
    curves = np.random.default_rng(0).normal(size=(50, 3, 9))
    fitted = isotonic(curves)
    for place in np.ndindex(50, 3):
        np.testing.assert_allclose(fitted[place], isotonic_regression(curves[place]).x, atol=1e-12)


def test_passages_by_hand():
    # The fit of 0, 3, 1, 4 is 0, 2, 2, 4.
    steps, curve = [0, 10, 20, 30], [0.0, 3.0, 1.0, 4.0]
    assert first_passage(steps, curve, 1.0) == 5.0
    assert first_passage(steps, curve, 2.0) == 10.0
    assert first_passage(steps, curve, 3.0) == 25.0
    assert first_passage(steps, curve, 4.0) == 30.0
    assert first_passage(steps, curve, 0.0) == 0.0
    assert first_passage(steps, curve, 4.1) == math.inf
    assert first_passage(steps, [curve, [4.0, 4.0, 4.0, 4.0]], [3.0, 3.0]).tolist() == [25.0, 0.0]


def test_a_noisy_curve_is_not_early():
    """The mean rises by 1/100 a step and crosses 1/2 at step 50; the noise is as large as thirty steps of it."""
    noise = np.random.default_rng(0).normal(scale=0.3, size=(2000, 101))
    curves = np.linspace(0, 1, 101) + noise
    is_above = curves >= 0.5
    uncorrected = np.argmax(is_above, axis=1)
    assert uncorrected.mean() < 30
    corrected = first_passage(list(range(101)), curves, np.full(2000, 0.5))
    assert corrected.mean() == pytest.approx(50, abs=2)


def test_two_methods_of_one_course_reach_it_at_one_step():
    """Held against the end of the run, a method that learns exactly as fast as the baseline would seem faster."""
    generator, rise = np.random.default_rng(1), np.linspace(0, 1, 11) ** 0.5
    first, second = (rise + generator.normal(scale=0.05, size=(2000, 11)) for _ in range(2))
    own, baseline = (first_passage(STEPS, curves, second[:, -1]) for curves in (first, second))
    assert np.isfinite(baseline).all()  # the fit never ends below the curve's own end
    own, baseline = np.minimum(own, 100), np.minimum(baseline, 100)
    assert np.median(own) < 100
    assert abs(np.median(own) - np.median(baseline)) < 100 - np.median(own)


def test_passages_of_a_suite(make_record):
    def lowest(*course):
        return {"a/x": list(course), "b/y": [1.0] * len(course)}  # of two channels the lower one

    records = [
        *(make_record(contender="gdpo", seed=seed, means=lowest(0.0, 0.25, 0.5)) for seed in (0, 1)),
        *(make_record(contender="rvpo_policy", seed=seed, means=lowest(0.0, 0.5, 0.75)) for seed in (0, 1)),
        make_record(contender="rvpo", seed=0, means=lowest(0.0, 0.25, 0.25)),
        make_record(contender="rvpo", seed=1, means=lowest(0.0, 0.25, 0.5)),
        make_record(contender="saw", seed=0, means=lowest(0.0, 0.0, 0.25)),
        make_record(contender="dara", seed=7, means=lowest(0.0, 0.0, 0.25)),  # without a partner
    ]
    made = passages(records)
    assert made["rubric", "gdpo"] == (20, 20, 20, 2, 2)
    assert made["rubric", "rvpo_policy"] == (10, 10, 10, 2, 2)
    # The mean of the two ends at 3/8, below 1/2; one run of two reaches it, and one draw in four is of that run alone.
    assert made["rubric", "rvpo"] == (math.inf, 20, math.inf, 1, 2)
    assert ("rubric", "dara") not in made
    table = steps_table(records)
    assert "| GDPO itself | 20 [20, 20] | 2 of 2 |" in table
    assert "| policy k=2 | 10 [10, 10] | 2 of 2 |" in table
    assert "| RVPO 0.5-2 | never [20, never] | 1 of 2 |" in table
    assert "| SAW | never | 0 of 1 |" in table
    assert "not within 20 steps" in table
