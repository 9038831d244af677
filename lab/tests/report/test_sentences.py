"""Sentences, tables of scores and sample answers: what they say follows from numbers made up by hand."""

import math

import pandas as pd
import pytest

from made_up_cells import cell
from rvpo_lab.report.held_out import against_baseline, common_runs, differences, finding, score_rows
from rvpo_lab.report.inputs import FinishedSuite, command
from rvpo_lab.report.page import sampled_prompts
from rvpo_lab.suite.results import SCORES

LABELS = {"gdpo": "GDPO", "rvpo": "RVPO", "hard_min": "hard-min"}


def runs(**scores):
    """A table of runs from a method's final scores seed by seed; every score of a run is the same number."""
    rows = [
        {"task": "t", "method": method, "seed": seed, "start_mean": 0.5}
        | {f"{when}_{score}": value for when in ("best", "final") for score in SCORES}
        for method, values in scores.items()
        for seed, value in enumerate(values)
    ]
    return pd.DataFrame(rows)


def test_a_difference_that_every_seed_shows_is_told_with_its_sign():
    # Eight equal differences: p = 2 / 2^8 for each, times two by Holm; hard-min equals GDPO.
    table = runs(gdpo=[0.5] * 8, rvpo=[0.25] * 8, hard_min=[0.5] * 8)
    (sentence,) = against_baseline(table, LABELS, 8)
    assert sentence == (
        "Tested against GDPO over 8 pairs of task and seed, by sign flips with Holm's correction: fewer channels are "
        "neglected by RVPO (-25.0 points, p = 0.016); no difference is shown for hard-min."
    )
    (sentence,) = against_baseline(runs(gdpo=[0.25] * 12, rvpo=[0.5] * 12), LABELS, 12)
    assert "more channels are neglected by RVPO (+25.0 points, p < 0.001)." in sentence


def test_nothing_is_tested_without_gdpo_or_with_few_pairs():
    assert against_baseline(runs(rvpo=[0.5] * 8, hard_min=[0.25] * 8), LABELS, 8) == []
    assert against_baseline(runs(gdpo=[0.5] * 8), LABELS, 8) == []
    (sentence,) = against_baseline(runs(gdpo=[0.5], rvpo=[0.25]), LABELS, 1)
    assert sentence == "This rests on 1 pair of task and seed: too few to test, so it may be chance."


def test_methods_that_end_alike_are_said_to():
    sentences = finding(runs(gdpo=[0.5], rvpo=[0.5]), LABELS)
    assert sentences[0] == "At the end all methods neglect the same share of channels: 50.0 %."
    assert sentences[1] == "All have the same held-out mean, 0.50."


def test_several_methods_may_share_an_end():
    sentences = finding(runs(gdpo=[0.25], rvpo=[0.25], hard_min=[0.75]), LABELS)
    assert sentences[0].startswith(
        "At the end GDPO and RVPO neglect the smallest share of channels (25.0 %), hard-min"
    )


def test_only_pairs_that_all_methods_have_are_compared():
    table = runs(gdpo=[0.5, 0.25], rvpo=[0.75])
    common, complete = common_runs(table)
    assert complete
    assert common["seed"].tolist() == [0, 0]
    assert common_runs(table.assign(seed=[0, 1, 2]))[1] is False


def test_score_rows_are_means_over_seeds():
    (row,) = score_rows(runs(gdpo=[0.25, 0.75]), ["gdpo", "rvpo"])
    assert (row.seeds, row.final["mean"], row.intervals["mean"]) == (2, 0.5, "")
    (row,) = score_rows(runs(gdpo=[0.25, math.nan, 0.75]), ["gdpo"])
    assert (row.final["mean"], row.intervals["mean"]) == (0.5, "")
    (row,) = score_rows(runs(gdpo=[0.5, 0.5, 0.5]), ["gdpo"])
    assert (row.intervals["mean"], row.intervals["neglected"]) == ("0.50 to 0.50", "50.0 to 50.0 %")


def test_differences_need_five_seeds_in_common_and_say_what_the_test_says():
    assert differences(runs(gdpo=[0.5] * 5, rvpo=[0.25] * 4), list(LABELS)) == []
    compared = differences(runs(gdpo=[0.5] * 6, rvpo=[0.25] * 6), list(LABELS))
    assert {difference.method for difference in compared} == {"rvpo"}
    assert [difference.verdict for difference in compared] == ["lower than GDPO"] * 4
    assert compared[0].text == "-0.25 [-0.25 to -0.25]"
    assert compared[0].p == "0.031"  # 2 / 2^6


def test_samples_keep_first_answers_apart_where_they_differ():
    same = sampled_prompts([cell("gdpo"), cell("rvpo")], ["gdpo", "rvpo"], str.upper)
    assert [(answer.method, answer.when) for answer in same[0].answers] == [
        ("", "before training"),
        ("gdpo", "after step 10"),
        ("rvpo", "after step 10"),
    ]
    assert same[0].criteria == ("ACCURACY/CAUSE:FEVER", "COMMUNICATION/CLOSE")
    other = cell("rvpo", samples=[(0, 0, "good day"), (10, 0, "x")])
    (apart,) = sampled_prompts([cell("gdpo"), other], ["gdpo", "rvpo"], str)
    assert [answer.text for answer in apart.answers] == ["hello", "good day", "hello virus take care", "x"]


@pytest.mark.parametrize(
    ("value", "state", "text"),
    [(1.0, "met", "met"), (0.0, "unmet", "not met"), (0.4, "partly", "0.40"), (math.nan, "none", "no verdict")],
)
def test_a_verdict_is_the_criterions_value_at_that_step(value, state, text):
    record = cell(held_out={(0, "a/b"): [0.5, value], (1, "a/b"): [0.0, 0.0]})
    (prompt,) = sampled_prompts([record], ["gdpo"], str)
    (verdict,) = prompt.answers[1].verdicts
    assert (verdict.state, verdict.text) == (state, text)
    assert prompt.answers[1].met == (state == "met")


def test_an_answer_of_a_step_that_was_not_evaluated_has_no_verdict():
    (prompt,) = sampled_prompts([cell(samples=[(7, 0, "hello")])], ["gdpo"], str)
    assert [verdict.state for verdict in prompt.answers[0].verdicts] == ["none", "none"]


def test_the_quickstarts_command_is_known(tmp_path):
    def made(number, **settings):
        settings = {**cell().about["settings"], "steps": 20, "evaluate_every": 2, **settings}
        names = ("grpo", "gdpo", "rvpo", "maxrl")[:number]
        records = [cell(name, 3, settings=settings, catalog_task="rubric") for name in names]
        return command(FinishedSuite("x", tmp_path, tuple(records)))

    assert made(4) == f"rvpo quickstart --seeds 3-3 --steps 20 --out {tmp_path}"
    weak = made(4, warm_start_steps=30)
    assert weak == f"rvpo quickstart --seeds 3-3 --steps 20 --warm-start-steps 30 --out {tmp_path}"
    assert made(4, evaluate_every=3) == ""
    assert made(2) == ""
