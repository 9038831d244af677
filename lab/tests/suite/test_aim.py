"""The aim, channels by their start, late training and the places of a document, on cells made by hand."""

import json
import math
from dataclasses import asdict

import pytest

from made_up_cells import write_suite
from rvpo.errors import ConfigError
from rvpo.report.images import svg
from rvpo.stats import Ratio
from rvpo_lab.cli.bench import main
from rvpo_lab.report.pictures import lowest_picture
from rvpo_lab.suite.aim import Aim, hold_against_aim
from rvpo_lab.suite.findings import places, refill, sections
from rvpo_lab.suite.late import read_conditions
from rvpo_lab.suite.plan import SuiteSettings
from rvpo_lab.suite.regressions import change_by_band
from rvpo_lab.suite.results import channel_means, run_scores


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
