"""Scores, comparisons and claims on cells made by hand."""

import math

import pytest

from made_up_cells import write_suite
from rvpo.errors import ConfigError
from rvpo.stats import PairedTest
from rvpo_lab.suite.claims import CLAIMS, Claim, Judged, judge_claims
from rvpo_lab.suite.compare import axis_scores, channel_area, compare_prompts, compare_runs
from rvpo_lab.suite.findings import findings, sections
from rvpo_lab.suite.folder import read_cells
from rvpo_lab.suite.results import channel_means, prompt_scores, run_scores

# Channels a..d: the last of three evaluations is not the best.
COURSE = {
    "accuracy/dose": [0.0, 0.25, 0.25],
    "accuracy/cause": [0.25, 0.75, 0.5],
    "context/person": [0.5, 1.0, 1.0],
    "communication/close": [0.75, 1.0, 0.75],
}


def test_scores_worked_by_hand(make_record):
    (run,) = run_scores([make_record(means=COURSE)]).to_dict("records")
    # means: 1.5/4, 3/4, 2.5/4; lowest ceil(4/3) = 2 channels
    assert run["start_mean"] == pytest.approx(0.375)
    assert run["best_mean"] == pytest.approx(0.75)
    assert run["final_mean"] == pytest.approx(0.625)
    assert run["drop"] == pytest.approx(0.125)
    assert run["best_lowest"] == pytest.approx(0.5)
    assert run["final_lowest"] == pytest.approx(0.375)
    assert run["final_neglected"] == pytest.approx(0.25)
    assert run["area"] == pytest.approx((0.375 + 0.75 + 0.625) / 3)
    assert run["steps_to"] == 10
    # only prompt 0 meets all four criteria at the end
    assert run["final_all_met"] == pytest.approx(0.25)


@pytest.mark.parametrize(("met", "neglected"), [(3, 0.0), (2, 1.0)])
def test_a_mean_of_0_3_is_not_neglected(make_record, met, neglected):
    record = make_record(means={"a/x": [1.0]})
    record.held_out = {(prompt, "a/x"): [float(prompt < met)] for prompt in range(10)}
    assert run_scores([record])["final_neglected"].tolist() == [neglected]


def test_a_grade_that_rounding_keeps_from_1_is_full(make_record):
    record = make_record(means={"a/x": [1.0]})
    record.held_out = {(0, "a/x"): [1 - 1e-7], (0, "b/y"): [1.0], (1, "a/x"): [1 - 1e-5]}
    assert run_scores([record])["final_all_met"].tolist() == [0.5]


@pytest.mark.parametrize(("met", "step"), [(6, 0), (5, math.nan)])
def test_the_level_of_0_6_is_reached_at_0_6(make_record, met, step):
    record = make_record(means={"a/x": [1.0]})
    record.held_out = {(prompt, "a/x"): [float(prompt < met)] for prompt in range(10)}
    assert run_scores([record])["steps_to"].tolist() == pytest.approx([step], nan_ok=True)


def test_a_level_never_reached_is_missing(make_record):
    (run,) = run_scores([make_record(means={"context/person": [0.25, 0.5]})]).to_dict("records")
    assert math.isnan(run["steps_to"])


def test_criteria_of_one_kind_are_one_channel(make_record):
    cell = make_record(means={"accuracy/cause:fever": [0.5], "accuracy/cause:cough": [1.0]})
    (row,) = channel_means([cell]).to_dict("records")
    assert (row["channel"], row["mean"], row["count"]) == ("accuracy/cause", 0.75, 8)


def test_the_score_of_a_prompt_is_the_mean_of_its_criteria(make_record):
    scores = prompt_scores([make_record(means={"a/x": [0.25, 1.0], "b/y": [0.75, 1.0]})])
    first = scores[scores["step"] == 0].set_index("prompt")
    assert first["score"].tolist() == [1.0, 0.5, 0.5, 0.0]
    assert first["all_met"].tolist() == [1.0, 0.0, 0.0, 0.0]


def test_prompts_that_are_numbered_like_steps_are_still_prompts(make_record):
    cell = make_record(means={"a/x": [0.25, 1.0]})
    cell.held_out, cell.steps = {key: values for key, values in cell.held_out.items() if key[0] < 2}, [0, 1]
    scores = prompt_scores([cell]).sort_values(["prompt", "step"])
    assert scores["score"].tolist() == [1.0, 1.0, 0.0, 1.0]


def test_axes_count_their_channels_equally(make_record):
    means = channel_means([make_record(means=COURSE)])
    (row,) = axis_scores(means).to_dict("records")
    assert row["accuracy"] == pytest.approx(0.375)
    assert row["context"] == 1.0
    assert channel_area(means, "accuracy/dose")["area"].tolist() == [pytest.approx(0.5 / 3)]


@pytest.fixture
def suite(make_record):
    """Six seeds in which RVPO is above GDPO by 1/4 on one of two channels, and hard-min below on both."""
    records = []
    for seed in range(6):
        for contender, end in (("gdpo", 0.5), ("rvpo", 0.75), ("hard_min", 0.25)):
            low = 0.5 if contender != "hard_min" else 0.0
            means = {"accuracy/dose": [0.25, end], "communication/close": [0.5, low]}
            records.append(make_record(contender=contender, seed=seed, means=means))
    return records


def test_a_comparison_pairs_seeds(suite):
    test = compare_runs(run_scores(suite), "rvpo", "final_mean")
    assert test.pairs == 6
    assert test.difference == pytest.approx(0.125)
    assert test.p_value == pytest.approx(2 / 64)  # all six differences have one sign
    assert compare_runs(run_scores(suite), "grpo", "final_mean") is None


def test_prompts_are_compared_inside_their_seeds(suite):
    test = compare_prompts(prompt_scores(suite), "rvpo")
    assert (test.pairs, test.blocks) == (24, 6)
    assert test.difference == pytest.approx(0.125)


def verdicts(records):
    judged = judge_claims(run_scores(records), channel_means(records))
    return {judgement.claim.text: judgement.verdict for judgement in judged}


def test_claims_are_judged_by_their_direction(make_record, suite):
    # With all claims of a direction tested, six pairs cannot reach p <= 0.05 after Holm; eight seeds more can.
    records = list(suite)
    for seed in range(6, 14):
        for contender, end, low in (("gdpo", 0.5, 0.5), ("rvpo", 0.75, 0.5), ("hard_min", 0.25, 0.0)):
            means = {"accuracy/dose": [0.25, end], "communication/close": [0.5, low]}
            records.append(make_record(contender=contender, seed=seed, means=means))
    judged = verdicts(records)
    assert judged["RVPO's final score is above GDPO's"] == "reproduced"
    assert judged["hard-min ends below GDPO"] == "reproduced"
    assert judged["RVPO lowers communication"] == "undecided"  # no difference at all
    assert judged["constant k = 5 has a lower final than 0.5 -> 2.0"] == "not tested"
    swapped = {"gdpo": "rvpo", "rvpo": "gdpo"}
    for cell in records:
        cell.about["contender"] = swapped.get(cell.about["contender"], cell.about["contender"])
    assert verdicts(records)["RVPO's final score is above GDPO's"] == "not reproduced"
    assert verdicts(suite)["RVPO's final score is above GDPO's"] == "undecided"


@pytest.mark.parametrize(
    ("sign", "low", "high", "adjusted", "verdict"),
    [
        (1, 0.1, 0.3, 0.05, "reproduced"),
        (1, 0.1, 0.3, 0.0501, "undecided"),
        (-1, 0.1, 0.3, 0.05, "not reproduced"),
        (0, -0.05, 0.05, math.nan, "reproduced"),
        (0, -0.05, 0.0501, math.nan, "undecided"),
        (0, 0.0001, 0.0501, math.nan, "not reproduced"),
    ],
)
def test_verdicts_at_their_limits(sign, low, high, adjusted, verdict):
    test = PairedTest((low + high) / 2, low, high, 0.01, 1.0, pairs=8, blocks=8, dropped=0)
    assert Judged(Claim("a is above b", "", "a", "b", "final_mean", sign), test, 0.5, 0.4, adjusted).verdict == verdict


def test_equality_needs_a_narrow_interval(make_record):
    def tools(*ends):
        cells = []
        for seed, (gdpo, rvpo) in enumerate(ends):
            for contender, end in (("gdpo", gdpo), ("rvpo", rvpo)):
                means = {"correctness/call": [0.0, end], "format/form": [0.0, 1.0]}
                cells.append(make_record("tools", contender, seed, means=means))
        return verdicts(cells)["tool calling: correctness ends equal"]

    assert tools(*[(0.5, 0.5)] * 5) == "reproduced"
    assert tools(*[(0.5, 0.75)] * 5) == "not reproduced"
    assert tools((0.5, 0.75), (0.5, 0.25), (0.5, 0.75), (0.5, 0.25)) == "undecided"


def test_the_page_has_every_claim_task_and_method(tmp_path, suite):
    page = findings(sections(suite, folder=tmp_path))
    for claim in CLAIMS:
        assert claim.text in page
    assert "### rubric" in page
    assert "| RVPO 0.5-2 | +0.125 [+0.125, +0.125] |" in page
    assert "Not known: no run of a known method has rollouts" in page  # of two evaluations
    assert findings(sections(read_cells(write_suite(tmp_path, suite)), folder=tmp_path)) == page


def test_the_page_holds_forecasts_against_what_happened(tmp_path, make_record):
    means = {"accuracy/dose": [0.0, 0.5, 0.25]}
    records = [make_record(contender=contender, means=means) for contender in ("gdpo", "rvpo")]
    page = findings(sections(records, folder=tmp_path))
    forecast = page[page.index("## The audit's forecast against what happened") :]
    assert "| GDPO | 1 | 1 of 1 |" in forecast
    assert "| all | 2 | 2 of 2 |" in forecast


def test_missing_values_are_left_out_of_means(make_record):
    record = make_record(means={"a/x": [1.0]})
    record.held_out = {(0, "a/x"): [1.0], (1, "a/x"): [math.nan], (2, "a/x"): [0.5], (3, "b/y"): [math.nan]}
    means = channel_means([record]).set_index("channel")
    assert means.loc["a/x", "mean"] == 0.75
    assert math.isnan(means.loc["b/y", "mean"])
    (run,) = run_scores([record]).to_dict("records")
    assert (run["final_mean"], run["final_all_met"]) == (0.75, 0.25)


def test_a_folder_without_cells_is_told(tmp_path):
    with pytest.raises(ConfigError, match="no finished cells"):
        read_cells(tmp_path)
