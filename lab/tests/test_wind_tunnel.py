"""The wind tunnel: exact pass rates, base rates, one step against plain loops, and common random numbers."""

import doctest
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rvpo
from rvpo.errors import ConfigError, RvpoError
from rvpo_lab import option_text
from rvpo_lab.wind_tunnel import settings as settings_module
from rvpo_lab.wind_tunnel import simulation
from rvpo_lab.wind_tunnel.settings import DEFAULT_METHODS, SimulatedMethod, SimulationSettings
from rvpo_lab.wind_tunnel.simulation import (
    Draws,
    Instances,
    Simulation,
    compare,
    draw_instances,
    grade,
    initial_probabilities,
    instance_advantages,
    measures,
    pass_rates,
    policy_gradient,
    random_stream,
    sigmoid,
    simulate,
)

GDPO, RVPO = SimulatedMethod.parse("gdpo"), SimulatedMethod.parse("rvpo:0.5-2")
BRIEF = {"channels": 5, "group_size": 6, "groups": 2, "steps": 4, "instances": 7}
OPPONENTS = np.array([[1, -1, 3, 2, 1], [-1, -1, -1, -1, -1], [1, 2, 3, 4, 0]])  # shared, pair, none, cycle


def draws_from(decisions, opponents, **more):
    """Random numbers of a step, the opponents' read one by one."""
    opposing = np.zeros_like(decisions)
    for i, n, j in np.ndindex(*decisions.shape):
        opposing[i, n, j] = decisions[i, n, max(opponents[i, j], 0)]
    return Draws(decisions, opposing, **({"flipped": None, "lost": None, "grades": None} | more))


def uniforms(seed, *shape):
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


def test_the_docstrings_examples_hold():
    for module in (option_text, settings_module):
        tried = doctest.testmod(module)
        assert tried.attempted > 0
        assert tried.failed == 0


def test_pass_rates_by_hand():
    # Criterion 0 needs decision 1 off, criterion 1 is free, 2 and 3 exclude each other.
    rates = pass_rates(np.array([[0.5, 0.2, 0.9, 0.4]]), np.array([[1, -1, 3, 2]]))
    assert rates[0].tolist() == pytest.approx([0.4, 0.2, 0.54, 0.04])


def test_pass_rates_are_what_sampling_tends_to():
    probabilities = np.random.default_rng(0).uniform(0.1, 0.9, (3, 5))
    rollouts = uniforms(1, 3, 20_000, 5)
    opposing = np.take_along_axis(rollouts, np.maximum(OPPONENTS, 0)[:, None, :], axis=2)
    _, rewards = grade(probabilities, OPPONENTS, Draws(rollouts, opposing, None, None, None))
    five_errors = 5 * math.sqrt(0.25 / 20_000)
    assert rewards.mean(axis=1) == pytest.approx(pass_rates(probabilities, OPPONENTS), abs=five_errors)


def test_grading_follows_the_definition_rollout_by_rollout():
    probabilities, numbers = np.random.default_rng(2).uniform(0.1, 0.9, (3, 5)), uniforms(3, 3, 8, 5)
    decisions, rewards = grade(probabilities, OPPONENTS, draws_from(numbers, OPPONENTS))
    for i, n, j in np.ndindex(3, 8, 5):
        on = [numbers[i, n, c] < probabilities[i, c] for c in range(5)]
        opponent = OPPONENTS[i, j]
        assert decisions[i, n, j] == on[j]
        assert rewards[i, n, j] == float(on[j] and not (opponent >= 0 and on[opponent]))


def test_flips_losses_and_grades_change_the_verdict_and_nothing_else():
    probabilities, numbers = np.full((3, 5), 0.5), uniforms(4, 3, 8, 5)
    flipped, lost, grades = uniforms(5, 3, 8, 5) < 0.3, uniforms(6, 3, 8, 5) < 0.3, uniforms(7, 3, 8, 5)
    on, clean = grade(probabilities, OPPONENTS, draws_from(numbers, OPPONENTS))
    same_on, noisy = grade(probabilities, OPPONENTS, draws_from(numbers, OPPONENTS, flipped=flipped))
    _, partial = grade(probabilities, OPPONENTS, draws_from(numbers, OPPONENTS, lost=lost))
    _, graded = grade(probabilities, OPPONENTS, draws_from(numbers, OPPONENTS, grades=grades))
    assert (on == same_on).all()
    assert (noisy == np.where(flipped, 1 - clean, clean)).all()
    assert (np.isnan(partial) == lost).all()
    assert (partial[~lost] == clean[~lost]).all()
    assert ((graded >= 0.5) == (clean == 1)).all()
    assert (graded >= 0).all()
    assert (graded < 1).all()
    assert np.unique(graded).size > 100


def test_initial_probabilities_by_hand():
    # 0.3 = p0 (1 - p1), 0.1 = p1 (1 - p0): p0 - p1 = 0.2, so p0^2 - 1.2 p0 + 0.3 = 0.
    first = (1.2 - math.sqrt(0.24)) / 2
    probabilities, scaled = initial_probabilities(np.array([[0.3, 0.1]]), np.array([[1, 0]]))
    assert probabilities[0].tolist() == pytest.approx([first, first - 0.2])
    assert not scaled.any()
    # A chain: p2 = 0.4 is free, p1 = 0.3 / 0.6, p0 = 0.2 / 0.5.
    probabilities, _ = initial_probabilities(np.array([[0.2, 0.3, 0.4]]), np.array([[1, 2, -1]]))
    assert probabilities[0].tolist() == pytest.approx([0.4, 0.5, 0.4])


@settings(max_examples=40)
@given(st.integers(0, 10**6))
def test_base_rates_below_a_quarter_are_always_attained(seed):
    rng = np.random.default_rng(seed)
    base_rates, opponents = rng.uniform(0.01, 0.24, (6, 7)), rng.integers(-1, 7, (6, 7))
    opponents[opponents == np.arange(7)] = -1
    probabilities, scaled = initial_probabilities(base_rates, opponents)
    assert not scaled.any()
    assert probabilities.max() <= 0.5
    assert pass_rates(probabilities, opponents) == pytest.approx(base_rates, abs=1e-6)


def test_base_rates_that_exclude_each_other_are_scaled_down_together():
    # Against each other, p (1 - p) is at most 1/4: 0.5 each must be halved; the third criterion goes with them.
    base_rates = np.array([[0.5, 0.5, 0.2], [0.5, 0.5, 0.2]])
    opponents = np.array([[1, 0, -1], [-1, -1, -1]])
    probabilities, scaled = initial_probabilities(base_rates, opponents)
    assert scaled.tolist() == [True, False]
    assert pass_rates(probabilities, opponents)[0].tolist() == pytest.approx([0.25, 0.25, 0.1], abs=2e-3)
    assert probabilities[1].tolist() == [0.5, 0.5, 0.2]
    # A chain that would need a decision above the highest start: 0.6 / (1 - 0.6) > 0.95.
    chain, scaled = initial_probabilities(np.array([[0.6, 0.6]]), np.array([[1, -1]]))
    assert scaled.all()
    assert chain[0, 0] == pytest.approx(0.95, abs=1e-4)


@pytest.mark.parametrize("spread", ["log", "uniform", "even"])
def test_instances_start_at_base_rates_in_the_range(spread):
    made = draw_instances(SimulationSettings(**BRIEF, base_rates=(0.02, 0.2), spread=spread, conflict=0.5))
    assert made.base_rates == pytest.approx(pass_rates(sigmoid(made.logits), made.opponents))
    assert (made.base_rates > 0.02 - 1e-6).all()
    assert (made.base_rates < 0.2 + 1e-6).all()
    assert not made.scaled.any()
    if spread == "even":
        assert made.base_rates[3].tolist() == pytest.approx([0.02, 0.065, 0.11, 0.155, 0.2], abs=1e-6)


def test_spreads_have_their_quantiles():
    # Of [0.01, 0.16], the median is 0.04 log-uniformly and 0.085 uniformly.
    for spread, median in (("log", 0.04), ("uniform", 0.085)):
        made = draw_instances(SimulationSettings(instances=2000, base_rates=(0.01, 0.16), spread=spread, conflict=0.0))
        assert np.median(made.base_rates) == pytest.approx(median, rel=0.03)


def test_opponents_are_others_as_often_as_asked_and_each_equally_often():
    made = draw_instances(SimulationSettings(instances=3000, channels=5, conflict=0.4))
    assert np.mean(made.opponents >= 0) == pytest.approx(0.4, abs=0.02)
    for criterion in range(5):
        chosen = made.opponents[:, criterion]
        shares = np.bincount(chosen[chosen >= 0], minlength=5) / np.sum(chosen >= 0)
        assert shares[criterion] == 0
        assert np.delete(shares, criterion) == pytest.approx(0.25, abs=0.06)
    assert (draw_instances(SimulationSettings(**BRIEF, conflict=0.0)).opponents == -1).all()


def test_the_first_instances_do_not_depend_on_how_many_there_are():
    few = draw_instances(SimulationSettings(instances=3))
    many = draw_instances(SimulationSettings(instances=300))
    for first, other in zip(few, many, strict=True):
        assert (first == other[:3]).all()


@pytest.mark.parametrize(
    "text",
    [
        *[method.name for method in DEFAULT_METHODS],
        *sorted(set(rvpo.METHODS)),
        "rvpo:2:dead_channels=mask,recenter=true",
        "gdpo:0:ddof=0,eps=0.1",
        "gd2po:0:threshold=1",
    ],
)
@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_every_instance_is_a_batch_of_its_own(text, missing):
    rng = np.random.default_rng(8)
    rewards = (rng.random((6, 3, 4, 5)) < 0.4).astype(float)
    rewards[rng.random(rewards.shape) < missing] = np.nan
    rewards[0] = 1.0  # dead throughout
    rewards[1] = np.nan
    contender = SimulatedMethod.parse(text)
    result = instance_advantages(rewards, contender, 1.7)
    for i in range(6):
        alone = rvpo.compute_advantages(rewards[i], method=contender.method, k=1.7, **contender.options)
        assert result[i] == pytest.approx(alone.advantages.ravel(), abs=1e-9)


def test_the_gradient_is_the_mean_of_the_score_times_the_advantage():
    rng = np.random.default_rng(9)
    advantages, probabilities = rng.normal(size=(2, 6)), rng.uniform(0.1, 0.9, (2, 3))
    decisions = rng.random((2, 6, 3)) < 0.5
    result = policy_gradient(advantages, decisions, probabilities)
    for i, j in np.ndindex(2, 3):
        terms = [advantages[i, n] * (decisions[i, n, j] - probabilities[i, j]) for n in range(6)]
        assert result[i, j] == pytest.approx(sum(terms) / 6)


def test_in_expectation_the_gradient_is_that_of_the_pass_rate():
    # With A = the reward of criterion 0, p0 (1 - p1): to theta_0 p0 (1 - p0) (1 - p1), to theta_1 -p0 p1 (1 - p1).
    probabilities, opponents = np.array([[0.3, 0.4]]), np.array([[1, -1]])
    expected = np.zeros(2)
    for x in np.ndindex(2, 2):
        numbers = np.array([[[0.0 if on else 0.99 for on in x]]], dtype=np.float32)
        decisions, rewards = grade(probabilities, opponents, draws_from(numbers, opponents))
        chance = (0.3 if x[0] else 0.7) * (0.4 if x[1] else 0.6)
        expected += chance * policy_gradient(rewards[:, :, 0], decisions, probabilities)[0]
    assert expected.tolist() == pytest.approx([0.3 * 0.7 * 0.6, -0.3 * 0.4 * 0.6])


def test_two_steps_agree_with_a_plain_loop(monkeypatch):
    asked = SimulationSettings(**BRIEF | {"steps": 2, "instances": 3}, learning_rate=0.7, conflict=0.5)
    instances = draw_instances(asked)
    steps = [draws_from(uniforms(seed, 3, 12, 5), instances.opponents) for seed in (20, 21)]
    waiting = iter(steps)
    monkeypatch.setattr(simulation, "_draw", lambda *_: next(waiting))
    result = simulate(asked, [RVPO]).final[RVPO.name]
    for i in range(3):
        theta = instances.logits[i].copy()
        for draws, k in zip(steps, (0.5, 1.25), strict=True):
            p = 1 / (1 + np.exp(-theta))
            x = draws.decisions[i] < p
            met = np.zeros((12, 5))
            for n, j in np.ndindex(12, 5):
                opponent = instances.opponents[i, j]
                met[n, j] = x[n, j] and not (opponent >= 0 and x[n, opponent])
            a = rvpo.compute_advantages(met.reshape(2, 6, 5), method="rvpo", k=k).advantages.ravel()
            theta += 0.7 * np.mean([a[n] * (x[n] - p) for n in range(12)], axis=0)
        assert result[i] == pytest.approx(
            pass_rates(sigmoid(theta[None]), instances.opponents[i : i + 1])[0], abs=1e-9
        )


def test_methods_share_their_random_numbers_and_do_not_disturb_each_other():
    twin = SimulatedMethod("twin", "gdpo")
    together = simulate(SimulationSettings(**BRIEF), [GDPO, RVPO, twin]).final
    alone = simulate(SimulationSettings(**BRIEF), [RVPO]).final
    assert (together["gdpo"] == together["twin"]).all()
    assert (together[RVPO.name] == alone[RVPO.name]).all()
    assert (together["gdpo"] != together[RVPO.name]).any()


def test_noise_and_losses_leave_the_decisions_uniforms_as_they_are():
    def drawn(**more):
        asked = SimulationSettings(**BRIEF, **more)
        streams = [random_stream(asked, 3, 0, purpose) for purpose in range(4)]
        return simulation._draw(draw_instances(asked).opponents, asked, streams)

    clean, rough, rougher = drawn(), drawn(noise=0.1, missing=0.2, continuous=True), drawn(noise=0.3)
    assert (clean.decisions == rough.decisions).all()
    assert (clean.flipped, clean.lost, clean.grades) == (None, None, None)
    assert rougher.flipped[rough.flipped].all()  # what is flipped at 0.1 is flipped at 0.3


def test_flips_and_losses_are_as_frequent_as_asked():
    asked = SimulationSettings(**BRIEF | {"instances": 400}, noise=0.2, missing=0.1)
    streams = [random_stream(asked, 3, 0, purpose) for purpose in range(4)]
    draws = simulation._draw(draw_instances(asked).opponents, asked, streams)
    assert draws.flipped.mean() == pytest.approx(0.2, abs=0.01)
    assert draws.lost.mean() == pytest.approx(0.1, abs=0.01)


def test_the_same_seed_gives_the_same_rates_and_another_one_does_not():
    first, other = (simulate(SimulationSettings(**BRIEF, seed=seed), [RVPO]).final[RVPO.name] for seed in (3, 4))
    assert (simulate(SimulationSettings(**BRIEF, seed=3), [RVPO]).final[RVPO.name] == first).all()
    assert (first != other).any()


def test_without_any_verdict_nothing_is_learnt(monkeypatch):
    monkeypatch.setattr(simulation, "BLOCK", 2 * 60)  # two instances at once: blocks keep the order
    result = simulate(SimulationSettings(**BRIEF, missing=1.0))
    for rates in result.final.values():
        assert rates == pytest.approx(result.instances.base_rates, abs=1e-12)


def test_noise_of_1_turns_the_first_step_of_gdpo_around():
    asked = BRIEF | {"steps": 1, "instances": 40}
    instances = draw_instances(SimulationSettings(**asked, conflict=0.0))
    clean, turned = (
        simulate(SimulationSettings(**asked, conflict=0.0, noise=noise), [GDPO]).final["gdpo"] for noise in (0, 1)
    )

    def logits(rates):
        return np.log(rates / (1 - rates))

    assert logits(clean) - instances.logits == pytest.approx(instances.logits - logits(turned), abs=1e-9)
    assert clean.mean() > instances.base_rates.mean() > turned.mean()


def test_verdicts_that_are_half_noise_teach_nothing_on_average():
    asked = SimulationSettings(channels=4, group_size=8, groups=1, steps=1, instances=3000, noise=0.5)
    result = simulate(asked, [GDPO])
    instances = result.instances
    change = result.final["gdpo"] - instances.base_rates
    assert abs(change.mean()) < 4 * change.mean(axis=1).std() / math.sqrt(3000)


def test_gdpo_meets_criteria_that_do_not_conflict():
    asked = SimulationSettings(channels=4, group_size=8, steps=80, instances=20, conflict=0.0, continuous=True)
    assert simulate(asked, [GDPO]).final["gdpo"].mean() > 0.95


def test_late_rates_are_those_before_the_last_tenth():
    whole = simulate(SimulationSettings(**BRIEF | {"steps": 20}), [GDPO])
    part = simulate(SimulationSettings(**BRIEF | {"steps": 18}), [GDPO])
    assert (whole.late["gdpo"] == part.final["gdpo"]).all()
    single = simulate(SimulationSettings(**BRIEF | {"steps": 1}), [GDPO])
    assert single.late["gdpo"] == pytest.approx(single.instances.base_rates)


def test_progress_ends_at_the_total(monkeypatch):
    monkeypatch.setattr(simulation, "BLOCK", 3 * 60)
    seen = []
    simulate(SimulationSettings(**BRIEF), [GDPO], lambda *progress: seen.append(progress))
    assert seen[-1] == (12, 12)
    assert seen == sorted(seen)


def test_measures_by_hand():
    # Sorted by base rate the rates are 0.1, 0.9, 0.5, 0.2, 0.8, 1.0; thirds of two.
    rates, base_rates = np.array([[0.5, 0.1, 0.9, 1.0, 0.2, 0.8]]), np.array([[0.3, 0.1, 0.2, 0.6, 0.4, 0.5]])
    result = {name: float(value[0]) for name, value in measures(rates, base_rates).items()}
    expected = {"mean": 3.5 / 6, "lowest_third": 0.15, "neglected": 1 / 3, "hard": 0.5, "medium": 0.35, "easy": 0.9}
    assert result == pytest.approx(expected)
    assert list(result) == list(expected)


def test_measures_of_few_criteria():
    two = measures(np.array([[0.2, 0.6]]), np.array([[0.1, 0.2]]))
    assert "medium" not in two
    assert (two["hard"][0], two["easy"][0], two["lowest_third"][0]) == (0.2, 0.6, 0.2)
    single = measures(np.array([[0.2]]), np.array([[0.1]]))
    assert (single["hard"][0], single["easy"][0], single["neglected"][0]) == (0.2, 0.2, 1.0)


def test_the_lowest_third_is_rounded_up_and_the_parts_by_base_rate_leave_a_middle():
    four = measures(np.array([[0.1, 0.2, 0.5, 0.9]]), np.array([[0.4, 0.1, 0.2, 0.3]]))
    assert four["lowest_third"][0] == pytest.approx(0.15)
    assert (four["hard"][0], four["easy"][0]) == (0.2, 0.1)
    assert four["medium"][0] == pytest.approx(0.7)


def test_a_pass_rate_of_0_3_is_not_neglected():
    rates = np.array([[0.3, np.nextafter(0.3, 0.0), 0.31, 0.2]])
    assert measures(rates, rates)["neglected"][0] == 0.5


def test_rows_hold_values_paired_differences_and_corrected_p_values():
    base_rates = np.random.default_rng(30).uniform(0.1, 0.4, (50, 6))
    instances = Instances(base_rates, base_rates, np.full((50, 6), -1), np.zeros(50, dtype=bool))
    final = {"gdpo": base_rates, "higher": base_rates + 0.5, "same": base_rates.copy()}
    rows = {(row.method, row.measure): row for row in compare(Simulation(instances, final, final), "gdpo")}
    assert len(rows) == 18
    higher, same, reference = (rows[name, "mean"] for name in ("higher", "same", "gdpo"))
    assert higher.value.mean == pytest.approx(base_rates.mean() + 0.5)
    assert higher.value.low < higher.value.mean < higher.value.high
    assert higher.test.difference == pytest.approx(0.5)
    assert higher.test.p_value == 1 / 2001
    assert higher.p_holm == pytest.approx(2 / 2001)
    assert (same.test.difference, same.test.p_value, same.p_holm) == (0, 1, 1)
    assert reference.test is None
    assert math.isnan(reference.p_holm)
    with pytest.raises(ConfigError, match="unknown reference 'gpdo': did you mean 'gdpo'"):
        compare(Simulation(instances, final, final), "gpdo")


@pytest.mark.parametrize(
    ("text", "method", "k", "options"),
    [
        ("gdpo", "gdpo", 1.0, {}),
        ("rvpo:5", "rvpo", 5.0, {}),
        ("rvpo:inf", "rvpo", math.inf, {}),
        ("rvpo:1e-3", "rvpo", 1e-3, {}),
        ("rvpo:0.5-2", "rvpo", (0.5, 2.0), {}),
        ("cvar::share=0.5", "cvar", 1.0, {"share": 0.5}),
        ("rvpo:2:dead_channels=mask,recenter=true", "rvpo", 2.0, {"dead_channels": "mask", "recenter": True}),
    ],
)
def test_contenders_are_read_from_text(text, method, k, options):
    contender = SimulatedMethod.parse(text)
    assert (contender.name, contender.method, contender.k, contender.options) == (text, method, k, options)


def test_k_goes_from_start_to_end_over_the_steps():
    assert [RVPO.k_at(step, 100) for step in (0, 50, 100)] == [0.5, 1.25, 2.0]
    assert SimulatedMethod.parse("rvpo:3").k_at(7, 10) == 3.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rvop", "unknown method 'rvop': did you mean 'rvpo'"),
        ("rvpo:high", "k must be a number or START-END"),
        ("rvpo:-1", "k must be a number >= 0"),
        ("rvpo:0.5-inf", "needs finite ends"),
        ("mean_variance:inf", "needs a finite k"),
        ("rvpo:2:mask", "written NAME=VALUE"),
        ("rvpo:2:share=0.5", "has no option 'share'"),
        ("rvpo:2:whiten=false", "'whiten' has no place"),
        ("rvpo:2:recenter=yes", "recenter must be true or false, got 'yes'"),
        ("rvpo:2:dead_channels=drop", "dead_channels must be"),
        ("cvar:1:share=half", "'cvar:1:share=half': an option of method 'cvar' has a wrong type"),
        ("rvpo_policy:2:anchor=token", "anchor must be"),
        ("rvpo_policy:2:anchor=0.5", "anchor must have shape"),
    ],
)
def test_contenders_that_cannot_run_are_refused_before_the_start(text, message):
    with pytest.raises(RvpoError, match=message):
        SimulatedMethod.parse(text)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"channels": 0}, "channels must be a whole number >= 1, got 0"),
        ({"steps": True}, "steps must be a whole number"),
        ({"seed": -1}, "seed must be a whole number >= 0"),
        ({"noise": 1.1}, r"noise is a probability and must lie in \[0, 1\], got 1.1"),
        ({"missing": math.nan}, "missing is a probability"),
        ({"conflict": -0.1}, "conflict is a probability"),
        ({"learning_rate": 0.0}, "learning_rate must be"),
        ({"base_rates": (0.0, 0.5)}, "0 < low <= high <= 0.95, got 0.0 and 0.5"),
        ({"base_rates": (0.5, 0.2)}, "0 < low <= high"),
        ({"base_rates": (0.5, 1.0)}, "0 < low <= high"),
        ({"spread": "normal"}, "spread must be one of log, uniform, even"),
        ({"channels": 1}, "use channels >= 2 or conflict 0"),
    ],
)
def test_settings_out_of_their_domain_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        SimulationSettings(**values)


@pytest.mark.parametrize("contenders", [[], [GDPO, GDPO]])
def test_contenders_need_names_of_their_own(contenders):
    with pytest.raises(ConfigError, match="different names"):
        simulate(SimulationSettings(**BRIEF), contenders)
