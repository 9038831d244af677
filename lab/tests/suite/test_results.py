"""Scores, comparisons and claims; the aim, channels by their start, late training and the places of a document: all on
cells made by hand."""

import json
import math
from dataclasses import asdict

import pytest

from made_up_cells import write_suite
from rvpo.errors import ConfigError
from rvpo.report.drawing import svg
from rvpo.stats import PairedTest, Ratio
from rvpo_lab.cli.bench import main
from rvpo_lab.report.suite_figures import lowest_picture
from rvpo_lab.suite.claims import CLAIMS, Aim, Claim, Judged, hold_against_aim, judge_claims
from rvpo_lab.suite.compare import axis_scores, channel_area, compare_prompts, compare_runs
from rvpo_lab.suite.findings import findings, places, read_conditions, refill, sections
from rvpo_lab.suite.plan import SuiteSettings
from rvpo_lab.suite.results import change_by_band, channel_means, prompt_scores, run_scores
from rvpo_lab.suite.storage import read_cells

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
def six_seeds(make_record):
    """Six seeds in which RVPO is above GDPO by 1/4 on one of two channels, and hard-min below on both."""
    records = []
    for seed in range(6):
        for contender, end in (("gdpo", 0.5), ("rvpo", 0.75), ("hard_min", 0.25)):
            low = 0.5 if contender != "hard_min" else 0.0
            means = {"accuracy/dose": [0.25, end], "communication/close": [0.5, low]}
            records.append(make_record(contender=contender, seed=seed, means=means))
    return records


def test_a_comparison_pairs_seeds(six_seeds):
    test = compare_runs(run_scores(six_seeds), "rvpo", "final_mean")
    assert test.pairs == 6
    assert test.difference == pytest.approx(0.125)
    assert test.p_value == pytest.approx(2 / 64)  # all six differences have one sign
    assert compare_runs(run_scores(six_seeds), "grpo", "final_mean") is None


def test_prompts_are_compared_inside_their_seeds(six_seeds):
    test = compare_prompts(prompt_scores(six_seeds), "rvpo")
    assert (test.pairs, test.blocks) == (24, 6)
    assert test.difference == pytest.approx(0.125)


def verdicts(records):
    judged = judge_claims(run_scores(records), channel_means(records))
    return {judgement.claim.text: judgement.verdict for judgement in judged}


def test_claims_are_judged_by_their_direction(make_record, six_seeds):
    # With all claims of a direction tested, six pairs cannot reach p <= 0.05 after Holm; eight seeds more can.
    records = list(six_seeds)
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
    assert verdicts(six_seeds)["RVPO's final score is above GDPO's"] == "undecided"


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


def test_the_page_has_every_claim_task_and_method(tmp_path, six_seeds):
    page = findings(sections(six_seeds, folder=tmp_path))
    for claim in CLAIMS:
        assert claim.text in page
    assert "### rubric" in page
    assert "| RVPO 0.5-2 | +0.125 [+0.125, +0.125] |" in page
    assert "Not known: no run of a known method has rollouts" in page  # of two evaluations
    assert findings(sections(read_cells(write_suite(tmp_path, six_seeds)), folder=tmp_path)) == page


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


@pytest.fixture
def suite(make_record):
    """Two seeds and two channels; the policy level has the lower one at 1/2 and 1 where GDPO has it at 1/4."""
    records = []
    for seed, low in ((0, 0.5), (1, 1.0)):
        gdpo = {"accuracy/dose": [0.0, 0.25], "communication/close": [0.5, 1.0]}
        ours = {"accuracy/dose": [0.0, low], "communication/close": [1.0, 1.0]}
        records += [
            make_record(contender="gdpo", seed=seed, means=gdpo),
            make_record(contender="rvpo_policy", seed=seed, means=ours),
        ]
    return records


def test_the_aim_by_hand(suite):
    (aim,) = hold_against_aim(run_scores(suite), "rvpo_policy")
    # Lowest third: ceil(2/3) = 1 channel, (1/2 + 1)/2 = 3/4 against 1/4. Means (3/4 + 1)/2 = 7/8 against 5/8.
    assert (aim.lowest_a, aim.lowest_b) == (0.75, 0.25)
    assert aim.lowest.value == pytest.approx(3.0)
    assert (aim.lowest.low, aim.lowest.high) == (2.0, 4.0)  # one seed or the other drawn twice
    assert aim.mean.value == pytest.approx(7 / 5)
    assert aim.kept.value == 1.0
    assert aim.p_value == 2 / 4  # both differences have one sign
    assert aim.missed == []


def test_what_is_missed_is_named(suite):
    (aim,) = hold_against_aim(run_scores(suite), "gdpo", baseline="rvpo_policy")
    assert aim.missed == ["lowest third", "mean"]
    assert hold_against_aim(run_scores(suite), "rvpo") == []


@pytest.mark.parametrize(
    ("lowest", "mean", "kept", "missed"),
    [
        (1.21, 0.98, 0.97, []),
        (1.2099, 0.98, 0.97, ["lowest third"]),
        (1.21, 0.9799, 0.97, ["mean"]),
        (1.21, 0.98, 0.9699, ["final / best"]),
        (math.nan, 1.0, 1.0, ["lowest third"]),
    ],
)
def test_the_aim_is_reached_at_its_figures_and_missed_below(lowest, mean, kept, missed):
    ratios = [Ratio(value, math.nan, math.nan, 8) for value in (lowest, mean, kept)]
    assert Aim("rubric", 0.5, 0.4, *ratios, 0.5, 0.5).missed == missed


def test_an_end_below_its_best_is_given_back(make_record):
    runs = run_scores([make_record(means={"a/x": [0.0, 1.0, 0.75]})])
    (aim,) = hold_against_aim(runs, "gdpo")
    assert aim.kept.value == 0.75
    assert "final / best" in aim.missed


def test_channels_are_in_the_band_of_their_start(make_record):
    # a/x starts at 0, a/y at 1/4, b/z at 1: bands 0, 1 and 3. Changes 1/2; 1/2; -1/4.
    means = {"a/x": [0.0, 0.5], "a/y": [0.25, 0.75], "b/z": [1.0, 0.75]}
    table = change_by_band(channel_means([make_record(means=means)]))
    assert dict(zip(table["band"], table["change"], strict=True)) == {0: 0.5, 1: 0.5, 3: -0.25}
    assert table["channels"].tolist() == [1, 1, 1]


@pytest.mark.parametrize(("start", "band"), [(0.2, 1), (0.5, 2), (0.8, 3), (1.0, 3)])
def test_a_band_begins_at_its_lower_edge(make_record, start, band):
    means = channel_means([make_record(means={"a/x": [0.0, 0.0]})])
    means.loc[means["step"] == 0, "mean"] = start
    assert change_by_band(means)["band"].tolist() == [band]


def test_the_band_of_a_channel_is_the_same_in_all_runs_of_a_task(make_record):
    runs = [make_record(seed=seed, means={"a/x": [start, 1.0]}) for seed, start in ((0, 0.75), (1, 1.0))]
    assert set(change_by_band(channel_means(runs))["band"]) == {3}  # 7/8 on average


def test_conditions_are_told_by_what_is_not_usual(tmp_path, suite):
    for name, settings in (("b", SuiteSettings(beta=0.04, steps=200, num_iterations=4)), ("a", SuiteSettings())):
        write_suite(tmp_path / name, suite)
        (tmp_path / name / "suite.json").write_text(json.dumps(asdict(settings)))
    usual, other = read_conditions(tmp_path)
    assert (usual.words, other.words) == ("the suite's settings", "200 steps, KL penalty 0.04, 4 updates a batch")
    assert len(other.runs) == 4
    with pytest.raises(ConfigError, match="holds no suites"):
        read_conditions(tmp_path / "a")


def test_what_is_given_back_by_hand(tmp_path, suite, make_record):
    rvpo = make_record(
        contender="rvpo", means={"accuracy/dose": [0.0, 1.0, 0.5], "communication/close": [0.5, 0.5, 0.5]}
    )
    folder = write_suite(tmp_path / "late" / "noise", [*suite, rvpo])
    (folder / "suite.json").write_text(json.dumps(asdict(SuiteSettings(epsilon=100.0, num_iterations=4))))
    text = sections(suite, ["late"], folder=tmp_path, late=folder.parent)["late"]
    # RVPO: at best (1 + 1/2)/2, at the end 1/2. One pair with GDPO, seed 0, has no interval.
    ends = "0.625 / 0.625: 0.000 | 0.750 / 0.500: 0.250 | 0.875 / 0.875: 0.000"
    assert f"| 4 updates a batch, clipped beyond 100 | rubric | {ends} | +0.250 | 0.25 / 0.50 / 0.75 | 1 |" in text
    assert "| 10 steps | rubric | 0.625 / 0.625: 0.000 | - | " in text


def test_all_methods_against_gdpo_by_hand(tmp_path, suite):
    text = sections(suite, ["methods"], folder=tmp_path)["methods"]
    # Lowest third: 1/2 and 1 against 1/4, so differences of 1/4 and 3/4 of one sign; one method, so Holm adds nothing.
    assert "| policy k=2 | 3.00 [2.00, 4.00] | +0.500 [+0.250, +0.750] | 0.500 | 2 |" in text


def test_places_of_a_document_are_filled_anew(tmp_path, suite):
    results = write_suite(tmp_path / "results", suite)
    document = tmp_path / "findings.md"
    document.write_text("Before.\n\n<!-- begin aim -->\nold\n<!-- end aim -->\n\nAfter.\n")
    assert main(["findings", str(results), "--fill", str(document)]) == 0
    text = document.read_text()
    assert text.startswith("Before.\n\n<!-- begin aim -->\n\n| task |")
    assert text.endswith("<!-- end aim -->\n\nAfter.\n")
    assert "| rubric | 0.75 / 0.25 | 3.00 [2.00, 4.00] | 0.500 | 0.500 | 1.40 [" in text
    assert "old" not in text
    assert main(["findings", str(results), "--fill", str(document)]) == 0
    assert document.read_text() == text


def test_a_document_that_is_not_there_is_an_error(tmp_path, suite):
    with pytest.raises(ConfigError, match="no file"):
        main(["findings", str(write_suite(tmp_path, suite)), "--fill", str(tmp_path / "nothing.md")])


def test_a_place_without_a_section_is_an_error(tmp_path, suite):
    texts = sections(suite, ["aim", "late"], folder=tmp_path)
    assert list(texts) == ["aim"]
    with pytest.raises(ConfigError, match="places for late"):
        refill("<!-- begin aim --><!-- end aim --> <!-- begin late --><!-- end late -->", texts)
    with pytest.raises(ConfigError, match="no place to fill"):
        places("nothing")


def test_unseen_seeds_are_told_for_themselves(tmp_path, suite):
    text = sections(suite, ["aim"], folder=tmp_path, unseen=[1])["aim"]
    # Seed 1 alone: lowest third 1 - 1/4, mean 1 - 5/8.
    assert "On seeds 1 to 1 alone, 1 pairs" in text.replace("\n", " ")
    assert "lowest third +0.750" in text.replace("\n", " ")


def test_candidates_and_late_conditions_are_tables(tmp_path, suite):
    results = write_suite(tmp_path / "results", suite)
    write_suite(tmp_path / "late" / "long", suite)
    (tmp_path / "late" / "long" / "suite.json").write_text(json.dumps(asdict(SuiteSettings(steps=200))))
    texts = sections(suite, ["late", "candidates"], folder=results, late=tmp_path / "late", candidates=results)
    assert "| policy k=2 | +0.500 [+0.250, +0.750] |" in texts["candidates"]
    # GDPO: (1/4 + 1)/2 at best and at the end; the policy level (3/4 + 1)/2.
    row = "rubric | 0.625 / 0.625: 0.000 | - | 0.875 / 0.875: 0.000 | - | 0.25 / - / 0.75 | 0 |"
    assert f"| 10 steps | {row}" in texts["late"]
    assert f"| 200 steps | {row}" in texts["late"]


def test_the_picture_has_every_task_and_method(suite):
    picture = lowest_picture(run_scores(suite))
    assert "rubric policy k=2 0.75" in picture.description
    assert "rubric GDPO 0.25" in picture.description
    assert svg(picture) == svg(lowest_picture(run_scores(suite)))
