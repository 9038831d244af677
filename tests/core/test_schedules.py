"""Schedules are functions of the step alone."""

import math

import numpy as np
import pytest

from rvpo import ConfigError, compute_advantages
from rvpo.core.schedules import SCHEDULES, constant, from_config, linear, read_schedule

# --- values ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("now", "k"), [(0, 1.5), (50, 1.5), (100, 1.5), (1000, 1.5)])
def test_constant(now, k):
    assert constant(1.5)(now, 100) == k


@pytest.mark.parametrize(("now", "k"), [(0, 0.5), (20, 0.8), (50, 1.25), (100, 2.0), (101, 2.0), (10**9, 2.0)])
def test_linear_is_the_papers_half_to_two(now, k):
    assert linear(0.5, 2.0)(now, 100) == pytest.approx(k, abs=1e-12)


@pytest.mark.parametrize(("now", "k"), [(0, 4.0), (100, 0.0), (300, 0.0)])
def test_a_schedule_may_fall(now, k):
    assert linear(4.0, 0.0)(now, 100) == pytest.approx(k, abs=1e-12)


ALL = {
    "constant": {"k": 1.0},
    "linear": {"start": 0.5, "end": 2.0},
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


def test_a_run_of_one_step_begins_at_its_beginning():
    assert [linear(0.5, 2.0)(now, 1) for now in (0, 1)] == [0.5, 2.0]


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
    with pytest.raises(ConfigError, match=r"unknown schedule 'linaer': did you mean 'linear'.* Known: constant, l"):
        from_config("linaer", {})


@pytest.mark.parametrize(("name", "options"), [("linear", {"start": 0.5}), ("constant", {"k": 1.0, "stop": 2.0})])
def test_options_that_a_schedule_does_not_take_are_an_error(name, options):
    with pytest.raises(ConfigError, match=f"schedule '{name}' does not take"):
        from_config(name, options)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("constant", {"k": -1.0}),
        ("linear", {"start": -0.5, "end": 1.0}),
        ("linear", {"start": 0.5, "end": math.nan}),
        ("linear", {"start": 0.5, "end": -1.0}),
    ],
)
def test_a_schedule_of_bad_ks_is_an_error(name, options):
    with pytest.raises(ConfigError, match="k must be a number >= 0"):
        from_config(name, options)


def test_a_line_to_infinity_is_an_error():
    with pytest.raises(ConfigError, match="needs finite ends; use method 'hard_min'"):
        linear(1.0, math.inf)


# --- as text --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("1.0 -> 0.2 linear", (1.0, 0.2)),
        ("1->.2", (1.0, 0.2)),
        (" 0 -> 2e1  linear ", (0.0, 20.0)),
        ("+1 -> 1.", (1, 1)),
    ],
)
def test_a_curve_is_read_from_text(text, ends):
    schedule, expected = read_schedule(text), linear(*ends)
    assert [schedule(now, 10) for now in range(12)] == [expected(now, 10) for now in range(12)]


@pytest.mark.parametrize("text", ["", "1", "1 -> x", "1 - 2", "1 -> 2 -> 3", "1 -> nan", "1 -> 2 linear now"])
def test_other_text_is_an_error_that_shows_the_form(text):
    with pytest.raises(ConfigError, match=r"a schedule is written START -> END NAME, as '1\.0 -> 0\.2 linear'"):
        read_schedule(text)


def test_an_unknown_curve_is_named():
    with pytest.raises(ConfigError, match=r"unknown schedule 'linaer': did you mean 'linear'\?"):
        read_schedule("1 -> 2 linaer")
