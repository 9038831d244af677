"""Methods at equal distance, and the newcomers' section: whole seeds, tables by hand, every outcome of the rule."""

import pytest

from made_up_cells import write_suite
from rvpo_lab.suite.distance import at_distance, compare_at_distance, compare_at_end
from rvpo_lab.suite.findings import sections
from rvpo_lab.suite.rivals import decision, regimes_section, rivals_section, whole_seeds
from rvpo_lab.tasks.catalog import REGIMES, SUITE


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
