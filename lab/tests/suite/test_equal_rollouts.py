"""The lowest third against rollouts: what a run generated, where it then stood, and the table by hand."""

import pytest

from made_up_cells import write_suite
from rvpo_lab.suite.findings import sections
from rvpo_lab.suite.rollouts import ARMS, at_rollouts, generated, rollouts_section

UNIFORM, SIGNAL, ANEW, NEGLECTED = ARMS


@pytest.fixture
def make_run(make_record):
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


def test_rollouts_are_those_of_the_steps_and_of_groups_generated_anew(make_run):
    assert generated(make_run("rubric", UNIFORM, 0, 0.5)).tolist() == [0, 640]
    assert generated(make_run("rubric", ANEW, 0, 0.5, anew=32)).tolist() == [0, 800]
    twice = make_run("rubric", ANEW, 0, 0.5, anew=32)
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


def suite(make_run, seeds=3, **lowest):
    ends = {"uniform": 0.5, "signal": 0.5, "anew": 0.5, "neglected": 0.5} | lowest
    return [
        make_run("rubric", contender, seed, end, anew=None if name in ("uniform", "signal") else 32)
        for seed in range(seeds)
        for contender, (name, end) in zip(ARMS, ends.items(), strict=True)
    ]


def test_the_table_by_hand(make_run, tmp_path):
    records = suite(make_run, signal=0.75, neglected=0.25)
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


def test_a_difference_that_is_shown_is_named(make_run, tmp_path):
    records = suite(make_run, seeds=8, signal=0.75, anew=0.75)
    text = " ".join(rollouts_section(write_suite(tmp_path, records)).split())
    # Eight pairs of one sign: p = 2/256, Holm over three 0.023 at most. 0.75 at 640 of 800 rollouts is 0.6.
    assert "Against uniform sampling by expected signal is higher at the end, dead groups anew is higher at" in text
    assert "dead in the neglected, anew is lower at the end" in text
    assert "by expected signal is higher on the way" in text


def test_without_a_whole_seed_nothing_is_said(make_run, tmp_path):
    records = [*suite(make_run, seeds=1), make_run("rising", UNIFORM, 0, 0.5)]
    assert "no seed is whole, of 5 cells" in rollouts_section(write_suite(tmp_path, records))
