"""Methods against each other: when a curve reaches a level, methods at equal distance, the newcomers' section with
every outcome of the rule, and the lowest third against rollouts."""

import math

import numpy as np
import pytest
from scipy.optimize import isotonic_regression

from made_up_cells import write_suite
from rvpo_lab.suite.compare import (
    at_distance,
    compare_at_distance,
    compare_at_end,
    first_passage,
    isotonic,
    passages,
    steps_table,
)
from rvpo_lab.suite.findings import sections
from rvpo_lab.suite.rivals import (
    ARMS,
    at_rollouts,
    decision,
    generated,
    regimes_section,
    rivals_section,
    rollouts_section,
    whole_seeds,
)
from rvpo_lab.tasks.catalog import REGIMES, SUITE

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


@pytest.fixture
def make_run(make_record):
    """Return a maker of runs of three channels, the lowest one given; the KL to the start rises to `kl`."""

    def run(task, contender, seed, lowest, rest=1.0, kl=1.0):
        means = {"a/x": [0.0, lowest], "b/y": [0.0, rest], "c/z": [0.0, rest]}
        record = make_record(task, contender, seed, means=means)
        record.about["kl_per_token"] = [0.0, kl]
        return record

    return run


def test_a_run_is_taken_where_it_last_is_that_near(make_record):
    record = make_record(means={"a/x": [0.0, 0.25, 0.5, 0.75, 1.0]})
    record.about["kl_per_token"] = [0.0, 1.0, 0.6, 0.8, 1.0]  # fit: 0, then 0.8, 0.8, 0.8, 1
    assert at_distance(record, 0.4)["mean"] == 0.125
    assert at_distance(record, 0.8)["mean"] == pytest.approx(0.75)
    assert at_distance(record, 0.9)["mean"] == pytest.approx(0.875)
    assert at_distance(record, 1.0)["mean"] == 1.0
    assert at_distance(record, 5.0)["mean"] == 1.0


def test_equal_distance_is_the_end_of_the_nearer_run(make_run):
    records = [make_run("rubric", "gdpo", 0, 0.5, kl=2.0), make_run("rubric", "saw", 0, 0.5, kl=1.0)]
    at_end, at_kl = (compare(records, "saw") for compare in (compare_at_end, compare_at_distance))
    assert (at_end.tests["lowest"].difference, at_end.distance, at_end.pairs) == (0.0, 1.0, 1)
    # GDPO is half way at a KL of 1: 1/4.
    assert (at_kl.tests["lowest"].difference, at_kl.distance) == (0.25, 1.0)
    assert compare_at_end(records, "dara") is None


def suite(make_run, tasks=SUITE, seeds=8, **lowest):
    """Runs of GDPO at 1/4, the policy level at 1/2, and newcomers, by name: lowest channel and the other two."""
    ends = {"gdpo": (0.25, 1.0), "rvpo_policy": (0.5, 1.0)} | lowest
    return [
        make_run(task, name, seed, *(end(task) if callable(end) else end))
        for task in tasks
        for seed in range(seeds)
        for name, end in ends.items()
    ]


def test_seeds_that_lack_a_run_are_left_out(make_run, tmp_path):
    records = suite(make_run, tasks=["rubric", "rising"], seeds=3, saw=(0.5, 1.0))
    assert {record.cell.seed for record in whole_seeds(records[:-1])} == {0, 1}
    text = rivals_section(write_suite(tmp_path, records[:-1]))
    assert text.startswith("12 runs: 2 tasks x 3 methods x 2 seeds, 0 and 1. 5 cells of seeds that are not whole are")
    assert "So far, which decides nothing before all seeds are whole, no newcomer is ahead" in " ".join(text.split())


def test_no_whole_seed_is_told(make_run, tmp_path):
    records = suite(make_run, tasks=["rubric"], seeds=1)
    assert "no seed is whole, of 3 cells" in rivals_section(
        write_suite(tmp_path, [*records, make_run("rising", "gdpo", 0, 0.5)])
    )


def test_the_tables_by_hand(make_run, tmp_path):
    records = suite(make_run, tasks=["rubric"], seeds=3, saw=(0.75, 0.75), sa_mrpo=(0.5, 1.0))
    text = sections(records, ["rivals"], folder=tmp_path, rivals=write_suite(tmp_path, records))["rivals"]
    steps, distance = text.split("At equal distance, against GDPO")
    of_gdpo, of_policy = steps.split("At equal steps, against policy k=2")
    # Three pairs of one sign have p = 2/8, after Holm's correction over two newcomers 1/2.
    lowest, level = "+0.500 [+0.500, +0.500], p 0.500", "+0.250 [+0.250, +0.250], p 0.500"
    mean = "+0.000 [+0.000, +0.000], p 1.000"
    # Mean of SAW 3/4, of GDPO (1/4 + 1 + 1)/3; all of SAW's channels are above 0.3.
    assert f"| SAW | 1.000 | {mean} | {lowest} | -0.333 [-0.333, -0.333], p 0.500 | 3 |" in of_gdpo
    assert f"| {level} | +0.000 [+0.000, +0.000], p 1.000 | 3 |" in of_policy  # none neglected in either
    assert "| policy k=2 | 1.000 | +0.083 [+0.083, +0.083], p 0.250 | +0.250" in of_gdpo
    assert f"| SAW | 1.000 | {mean} | {lowest} |" in distance
    # GDPO's 1/4 is a third of SAW's 3/4, which it rises to in ten steps.
    assert "| SAW | 3 [3, 3] | 3 of 3 |" in text


@pytest.mark.parametrize(
    ("newcomers", "outcome"),
    [
        (
            {"saw": (0.5, 1.0)},
            "no newcomer is ahead of policy k=2, which keeps the recommendation; not shown to differ",
        ),
        ({"saw": (0.75, 1.0)}, "SAW is ahead of policy k=2: SAW takes the recommendation"),
        ({"saw": (0.75, 1.0), "dara": (1.0, 1.0)}, "DARA and SAW are ahead of policy k=2: DARA takes"),
        ({"saw": (0.75, 0.75)}, "no newcomer is ahead of policy k=2"),  # its mean is lower
        ({"saw": (0.25, 1.0)}, "keeps the recommendation; behind it: SAW;"),
        ({"dara": (0.5, 1.0), "sa_mrpo": (0.5, 1.0)}, "not shown to differ from it: SA-MRPO and DARA;"),  # by date
    ],
)
def test_the_decision_follows_the_rule(make_run, newcomers, outcome):
    text = decision(suite(make_run, **newcomers))
    assert text.startswith("By the rule above, ")
    assert outcome in text


def test_a_form_may_be_ahead_where_all_is_rare(make_run):
    text = decision(suite(make_run, saw=lambda task: (0.75 if task == "rising" else 0.25, 1.0)))
    assert "behind it: SAW; where all criteria are rare (`rising`), SAW is ahead of it." in text


def test_what_was_seen_before_is_taken_out(make_run, tmp_path):
    """MaxRL is ahead on `rising` alone, which it had run on before."""
    records = suite(make_run, seeds=2, maxrl=lambda task: (1.0 if task == "rising" else 0.5, 1.0))
    text = " ".join(rivals_section(write_suite(tmp_path, records)).split())
    assert "Without `rising`, on which MaxRL had run before it joined, its lowest third ends +0.000" in text
    assert "from that of policy k=2 (p 1.000, 14 pairs)." in text


def test_fewer_than_eight_tasks_or_seeds_decide_nothing(make_run):
    assert decision(suite(make_run, seeds=7, saw=(1.0, 1.0))).startswith("So far, which decides nothing")
    assert decision(suite(make_run, tasks=SUITE[:7], saw=(1.0, 1.0))).startswith("So far, which decides nothing")


def test_tasks_outside_the_suite_stand_each_for_itself_and_decide_nothing(make_run, tmp_path):
    """SAW is 1/4 above the holder on one task and 1/4 below on the other; over both nothing would be left of it."""
    records = suite(make_run, tasks=REGIMES, seeds=2, saw=lambda task: (0.75 if task == "long" else 0.25, 1.0))
    text = regimes_section(write_suite(tmp_path, records))
    assert text.startswith("12 runs: 2 tasks x 3 methods x 2 seeds, 0 and 1.")
    assert "| GDPO itself | 0.25 | 0.25 |" in text
    long, graded = (text.partition(f"`{task}`, against policy k=2:")[2].partition("\n\n| GDPO")[0] for task in REGIMES)
    rows = [next(line for line in part.splitlines() if line.startswith("| SAW")) for part in (long, graded)]
    assert "+0.250 [+0.250, +0.250]" in rows[0]
    assert "-0.250 [-0.250, -0.250]" in rows[1]
    assert "recommendation" not in text
    assert regimes_section(write_suite(tmp_path / "part", [records[0], records[-1]])).startswith("Not known yet")


UNIFORM, SIGNAL, ANEW, NEGLECTED = ARMS


@pytest.fixture
def make_arm(make_record):
    """Return a maker of runs of ten steps of 64 rollouts; `anew` are those of the last five steps beyond these."""

    def run(task, contender, seed, lowest, anew=None):
        means = {"a/x": [0.0, lowest], "b/y": [0.0, 1.0], "c/z": [0.0, 1.0]}
        record = make_record(task, contender, seed, means=means)
        if contender == SIGNAL:
            record.log |= {"rvpo/effective_prompts": [80.0, 60.0], "rvpo/low_signal": [0.25, 0.75]}
        if anew is not None:
            record.log["rvpo/generated"] = [64.0, 64.0 + anew]
        return record

    return run


def test_rollouts_are_those_of_the_steps_and_of_groups_generated_anew(make_arm):
    assert generated(make_arm("rubric", UNIFORM, 0, 0.5)).tolist() == [0, 640]
    assert generated(make_arm("rubric", ANEW, 0, 0.5, anew=32)).tolist() == [0, 800]
    twice = make_arm("rubric", ANEW, 0, 0.5, anew=32)
    twice.about["settings"]["num_iterations"] = 2  # a batch of rollouts is for two steps
    assert generated(twice).tolist() == [0, 400]


def test_between_evaluations_a_run_moves_straight_on(make_record):
    record = make_record(means={"a/x": [0.0, 0.5, 0.25], "b/y": [0.0, 1.0, 1.0], "c/z": [0.0, 1.0, 1.0]})
    # 640 rollouts an evaluation; at 960 it is half way from 0.5 to 0.25. Its area: 640 x 0.25 + 320 x 0.4375.
    scores = at_rollouts(record, 960.0)
    assert scores["lowest"] == pytest.approx(0.375)
    assert scores["way"] == pytest.approx((160 + 140) / 960)
    assert scores["mean"] == pytest.approx((0.375 + 2) / 3)
    assert at_rollouts(record, 1280.0)["lowest"] == 0.25


def arms(make_arm, seeds=3, **lowest):
    ends = {"uniform": 0.5, "signal": 0.5, "anew": 0.5, "neglected": 0.5} | lowest
    return [
        make_arm("rubric", contender, seed, end, anew=None if name in ("uniform", "signal") else 32)
        for seed in range(seeds)
        for contender, (name, end) in zip(ARMS, ends.items(), strict=True)
    ]


def test_the_table_by_hand(make_arm, tmp_path):
    records = arms(make_arm, signal=0.75, neglected=0.25)
    text = sections(records, ["rollouts"], folder=tmp_path, sampling=write_suite(tmp_path, records))["rollouts"]
    assert text.startswith(
        "12 runs of `rvpo_policy`: 1 task x 4 ways to choose prompts x 3 seeds, 0, 1 and 2. All are"
    )
    assert "compared after 640 rollouts." in " ".join(text.split())
    # At 640 of 800 rollouts 0.8 of the way to the end. Three pairs of one sign: p = 1/4, Holm over three 3/4.
    assert "| uniform | 0.500 |  |  |  | 0.0 % |" in text
    way = "+0.125 [+0.125, +0.125], p 0.750 | +0.083 [+0.083, +0.083], p 0.750"
    assert f"| by expected signal | 0.750 | +0.250 [+0.250, +0.250], p 0.750 | {way} | 0.0 % |" in text
    assert "| dead groups anew | 0.400 | -0.100 [-0.100, -0.100], p 0.750 | -0.050 [" in text
    assert "| dead in the neglected, anew | 0.200 | -0.300 [" in text
    assert text.count("| 25.0 % |") == 2
    signal = "left an effective number of 70 on `rubric`, where 50 % of the groups had signal in it."
    assert f"Of 80 prompts, drawing by the expected signal of the lowest third {signal}" in " ".join(text.split())
    assert text.rstrip().endswith("So far, with 3 of 8 seeds, no effect on the lowest third is shown.")


def test_a_difference_that_is_shown_is_named(make_arm, tmp_path):
    records = arms(make_arm, seeds=8, signal=0.75, anew=0.75)
    text = " ".join(rollouts_section(write_suite(tmp_path, records)).split())
    # Eight pairs of one sign: p = 2/256, Holm over three 0.023 at most. 0.75 at 640 of 800 rollouts is 0.6.
    assert "Against uniform sampling by expected signal is higher at the end, dead groups anew is higher at" in text
    assert "dead in the neglected, anew is lower at the end" in text
    assert "by expected signal is higher on the way" in text


def test_without_a_whole_seed_nothing_is_said(make_arm, tmp_path):
    records = [*arms(make_arm, seeds=1), make_arm("rising", UNIFORM, 0, 0.5)]
    assert "no seed is whole, of 5 cells" in rollouts_section(write_suite(tmp_path, records))
