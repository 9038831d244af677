"""Criteria and rubrics: orientation, channel names, round trips, scalar scores, and what is flagged."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rvpo import ConfigError, RewardError
from rvpo.judging.check import rubric_problems, suspicious_polarity, wording
from rvpo.judging.criteria import Criterion, Rubric
from rvpo.judging.grading import (
    CATEGORY_WEIGHTS,
    category_weight,
    explicit_score,
    healthbench_bounds,
    healthbench_score,
)
from rvpo.rewards.channels import Returned, assemble
from rvpo.rewards.declarations import Declaration

VERDICTS = [True, False, None]
NAMES = st.text(min_size=1).filter(lambda name: "/" not in name)
POINTS = st.one_of(st.integers(-10, 10), st.floats(-1e6, 1e6))
TAGS = st.lists(st.one_of(st.sampled_from(sorted(CATEGORY_WEIGHTS)), st.text(min_size=1)), max_size=3).map(tuple)
CRITERIA = st.builds(Criterion, NAMES, st.text(), POINTS, st.sampled_from(["positive", "negative"]), TAGS)
RUBRICS = st.lists(CRITERIA, max_size=8, unique_by=lambda criterion: criterion.id).map(tuple).map(Rubric)


@st.composite
def judged(draw, verdicts=VERDICTS):
    """A rubric and a verdict on each of its criteria."""
    rubric = draw(RUBRICS)
    return rubric, {criterion.id: draw(st.sampled_from(verdicts)) for criterion in rubric}


def rubric_of(*points, **more):
    return Rubric(tuple(Criterion(f"c{index}", "x", value, **more) for index, value in enumerate(points)))


class TestCriterion:
    @pytest.mark.parametrize(
        ("polarity", "met", "value"),
        [
            ("positive", True, 1.0),
            ("positive", False, 0.0),
            ("negative", True, 0.0),
            ("negative", False, 1.0),
            ("positive", None, None),
            ("negative", None, None),
        ],
    )
    @pytest.mark.parametrize("points", [3, 0, -3])
    def test_the_polarity_orients_the_value_and_the_points_do_not(self, polarity, met, value, points):
        assert Criterion("c", "x", points, polarity).value(met) == value

    def test_numpy_verdicts_count_as_verdicts(self):
        assert Criterion("c", "x").value(np.True_) == 1.0
        assert Criterion("c", "x", polarity="negative").value(np.False_) == 1.0

    @pytest.mark.parametrize("met", [0.5, "yes", "", math.nan, -1])
    def test_half_a_verdict_is_none(self, met):
        with pytest.raises(RewardError, match="the verdict on criterion 'c' must be True, False or None"):
            Criterion("c", "x").value(met)

    @given(CRITERIA)
    def test_opposite_verdicts_have_opposite_values(self, criterion):
        assert {criterion.value(True), criterion.value(False)} == {0.0, 1.0}

    @given(CRITERIA)
    def test_a_row_gives_the_criterion_back_through_json(self, criterion):
        row = criterion.to_row()
        assert list(row) == ["id", "text", "points", "polarity", "tags"]
        assert Criterion.from_row(json.loads(json.dumps(row))) == criterion

    def test_an_absent_or_null_key_has_its_default(self):
        null = {"id": "c", "text": "", "points": None, "polarity": None, "tags": None}  # as Arrow fills a struct
        assert Criterion.from_row(null) == Criterion.from_row({"id": "c", "text": ""}) == Criterion("c", "")

    def test_the_weight_has_no_sign(self):
        assert [Criterion("c", "x", points).weight for points in (-4, 0, 2.5)] == [4, 0, 2.5]

    def test_the_channel_is_named_by_the_first_tag(self):
        assert Criterion("c", "x", tags=("accuracy", "level:example")).channel == "accuracy/c"
        assert Criterion("c", "x").channel == "c"
        assert Criterion("c", "x", tags=("in/out",)).channel == "in-out/c"

    def test_metrics_of_a_tag_with_a_slash_are_kept_under_the_whole_tag(self):
        rubric = [Criterion("a", "x", tags=("in/out",)), Criterion("b", "x", tags=("in",))]
        rows = [{criterion.channel: 1.0 for criterion in rubric}]
        matrix = assemble([Returned("graded", Declaration(), 1.0, rows)], group_size=1)
        assert matrix.names == ["graded/in-out", "graded/in"]

    @given(RUBRICS)
    def test_channels_of_a_rubric_have_names_of_their_own(self, rubric):
        assert len({criterion.channel for criterion in rubric}) == len(rubric)
        assert all(criterion.channel.count("/") == bool(criterion.tags) for criterion in rubric)

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"id": ""}, "id of a criterion must be non-empty text without '/', got ''"),
            ({"id": "a/b"}, "id of a criterion must be non-empty text without '/', got 'a/b'; make it a tag"),
            ({"id": 3}, "id of a criterion must be text, got 3"),
            ({"text": 3}, "text of a criterion must be text, got 3"),
            ({"points": math.nan}, "points of criterion 'c' must be a finite number, got nan"),
            ({"points": math.inf}, "must be a finite number, got inf"),
            ({"points": True}, "must be a finite number, got True"),
            ({"points": "5"}, "must be a finite number, got '5'"),
            ({"points": 10**400}, "must be a finite number, got 1000"),
            ({"polarity": "negatve"}, "unknown polarity of criterion 'c' 'negatve': did you mean 'negative'"),
            ({"tags": ("a", "")}, "tags of criterion 'c' must be a tuple of non-empty strings"),
            ({"tags": "accuracy"}, "tags of criterion 'c' must be a tuple of non-empty strings, got 'accuracy'"),
            ({"tag": ["a"]}, "unknown key of a criterion 'tag': did you mean 'tags'"),
            ({"text": None}, r"must have id and text, but \['text'\] are absent; there is \['id'\]"),
        ],
    )
    def test_what_does_not_fit_is_an_error(self, fields, message):
        with pytest.raises(ConfigError, match=message):
            Criterion.from_row({"id": "c", "text": "x"} | fields)


class TestRubric:
    @given(RUBRICS)
    def test_rows_give_the_rubric_back(self, rubric):
        rows = json.loads(json.dumps(rubric.to_rows()))
        assert Rubric.from_rows(rows) == rubric
        assert len(rubric) == len(rows) == len(list(rubric))

    def test_ids_are_unique(self):
        with pytest.raises(ConfigError, match=r"unique inside a rubric, but \['a'\] occur more than once among 3"):
            Rubric((Criterion("a", "x"), Criterion("b", "y"), Criterion("a", "z")))

    def test_problems_are_found_and_nothing_is_changed(self):
        rubric = Rubric(
            (
                Criterion("a", "States the  dose."),
                Criterion("b", " states the dose. "),
                Criterion("c", ""),
                Criterion("d", "\n"),
                Criterion("e", "Omits the dose."),
            )
        )
        assert [(problem.kind, problem.ids) for problem in rubric_problems(rubric)] == [
            ("suspicious_polarity", ("e",)),
            ("duplicate_text", ("a", "b")),
            ("empty_text", ("c", "d")),
        ]
        assert rubric.criteria[4].polarity == "positive"

    def test_a_sound_rubric_has_no_problem(self):
        rubric = Rubric((Criterion("a", "States the dose."), Criterion("b", "Omits it.", -1, "negative")))
        assert rubric_problems(rubric) == []


class TestWording:
    @pytest.mark.parametrize(
        "text",
        [
            "Avoids jargon",
            "The response should not omit the unit.",
            "The answer must not recommend bleach",
            "Response avoids guessing",
            "Does not incorrectly assume a fever",
            "The response does not misstate the dose",
            "Doesn't confuse the two",
            "Never gives a diagnosis",
            "Refrains from a diagnosis",
            "- avoid speculation",
            "Is free of spelling mistakes",
        ],
    )
    def test_prohibitions_read_as_good_to_meet(self, text):
        assert wording(text) == "positive"

    @pytest.mark.parametrize(
        "text",
        [
            "Fails to give the dose",
            "The response fails to give the dose",
            "Does not mention the dose",
            "The response doesn\N{RIGHT SINGLE QUOTATION MARK}t explicitly state the dose",
            "INCORRECTLY claims that water is dry",
            "Incorectly claims that water is dry",
            "Omits the dose",
            "Misidentifies the drug",
            "May overlook the allergy",
            "Lacks a source",
            "The model's answer confuses the two",
            "Completely ignores the question",
        ],
    )
    def test_faults_read_as_bad_to_meet(self, text):
        assert wording(text) == "negative"

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "States the dose",
            "Explains that the label incorrectly says daily",  # somebody else's fault
            "Does not recommend surgery",  # good or bad, which depends on the case
            "Mentions avoiding alcohol",
            "The avoidance of alcohol is named",
            "Neverland is named",
        ],
    )
    def test_what_tells_nothing_is_left_undecided(self, text):
        assert wording(text) is None

    @pytest.mark.parametrize(
        ("text", "points", "polarity", "reason"),
        [
            ("Omits the dose", 3, "positive", "reads as a fault, but being met counts as good"),
            ("Omits the dose", -3, "positive", "reads as a fault, but being met counts as good"),
            ("Omits the dose", -3, "negative", None),
            ("Omits the dose", 3, "negative", None),  # points as a size, polarity told
            ("Avoids jargon", -1, "negative", "reads as something to avoid, but being met counts as bad"),
            ("Avoids jargon", -1, "positive", None),  # RaR-Science
            ("Names a drug", -1, "positive", "has negative points, but being met counts as good"),
            ("Names a drug", 1, "negative", "has positive points, but being met counts as bad"),
            ("Names a drug", 0, "negative", None),
            ("Names a drug", -1, "negative", None),
        ],
    )
    def test_a_polarity_is_suspicious_if_wording_or_else_sign_speaks_against_it(self, text, points, polarity, reason):
        assert suspicious_polarity(Criterion("c", text, points, polarity)) == reason

    @given(st.text())
    def test_any_text_can_be_read(self, text):
        assert wording(text) in ("positive", "negative", None)


class TestExplicitScore:
    RUBRIC = Rubric(
        (
            Criterion("dose", "x", 5, tags=("essential",)),
            Criterion("reason", "x", 3, tags=("important",)),
            Criterion("brief", "x", 1, tags=("optional",)),
            Criterion("omits", "x", -2, "negative", ("pitfall",)),
        )
    )

    def test_by_hand(self):
        met = {"dose": True, "reason": False, "brief": True, "omits": False}
        assert explicit_score(self.RUBRIC, met) == pytest.approx((1.0 + 0.3 + 0.9) / 2.9)
        assert explicit_score(self.RUBRIC, met | {"omits": True}) == pytest.approx(1.3 / 2.9)

    def test_a_missing_verdict_leaves_numerator_and_denominator(self):
        assert explicit_score(self.RUBRIC, {"dose": True, "reason": False, "brief": None}) == pytest.approx(1.0 / 1.7)
        assert explicit_score(self.RUBRIC, {"dose": None}) is None
        assert explicit_score(self.RUBRIC, {}) is None

    def test_without_criteria_or_weight_there_is_no_score(self):
        assert explicit_score(Rubric(()), {}) is None
        assert explicit_score(rubric_of(0), {"c0": True}) is None

    @pytest.mark.parametrize(
        ("points", "weight"),
        [(10, 1.0), (5, 1.0), (4.99, 0.7), (4, 0.7), (3, 0.7), (2.99, 0.3), (0.01, 0.3), (0, 0.0), (-0.01, 0.9)],
    )
    def test_without_a_category_the_points_tell_the_weight(self, points, weight):
        assert category_weight(Criterion("c", "x", points, tags=("dosage",))) == weight

    def test_the_category_comes_before_the_points(self):
        assert category_weight(Criterion("c", "x", 5, tags=("dosage", "optional"))) == 0.3

    def test_a_verdict_on_another_criterion_is_an_error(self):
        for score in (explicit_score, healthbench_score, healthbench_bounds):
            with pytest.raises(ConfigError, match="unknown criterion 'doze': did you mean 'dose'"):
                score(self.RUBRIC, {"doze": True})

    @given(judged())
    def test_it_is_the_weighted_mean_of_what_is_known(self, case):
        rubric, met = case
        score, total = 0.0, 0.0
        for criterion in rubric:
            if met[criterion.id] is not None:
                total += category_weight(criterion)
                score += category_weight(criterion) * (met[criterion.id] is (criterion.polarity == "positive"))
        result = explicit_score(rubric, met)
        assert (result is None) == (total == 0)
        assert result is None or result == pytest.approx(score / total)
        assert result is None or 0 <= result <= 1

    @given(judged())
    def test_a_better_verdict_never_lowers_it(self, case):
        rubric, met = case
        for criterion in rubric:
            worse, better = (
                explicit_score(rubric, met | {criterion.id: (criterion.polarity == "positive") is good})
                for good in (False, True)
            )
            assert (worse is None) == (better is None)
            assert worse is None or worse <= better


class TestHealthBenchScore:
    RUBRIC = Rubric((Criterion("a", "x", 5), Criterion("b", "x", 3), Criterion("c", "x", -4, "negative")))

    @pytest.mark.parametrize(
        ("met", "score"),
        [((True, True, False), 1.0), ((True, False, True), 1 / 8), ((False, False, True), -0.5), ((False,) * 3, 0.0)],
    )
    def test_by_hand(self, met, score):
        verdicts = dict(zip("abc", met, strict=True))
        assert healthbench_score(self.RUBRIC, verdicts) == score
        assert healthbench_bounds(self.RUBRIC, verdicts) == (score, score)

    def test_a_missing_verdict_leaves_bounds_and_no_score(self):
        assert healthbench_score(self.RUBRIC, {"a": True, "b": False}) is None
        assert healthbench_bounds(self.RUBRIC, {"a": True, "b": False}) == (1 / 8, 5 / 8)
        assert healthbench_bounds(self.RUBRIC, {}) == (-0.5, 1.0)

    def test_without_positive_points_there_is_no_score(self):
        for rubric in (Rubric(()), rubric_of(-1, 0)):
            met = {criterion.id: True for criterion in rubric}
            assert healthbench_score(rubric, met) is None
            assert healthbench_bounds(rubric, met) is None

    def test_what_is_no_verdict_is_an_error(self):
        with pytest.raises(RewardError, match="verdict on criterion 'b'"):
            healthbench_score(self.RUBRIC, {"a": True, "b": 0.5, "c": True})

    @given(judged(), st.randoms())
    def test_the_bounds_hold_and_are_reached(self, case, random):
        rubric, met = case
        bounds = healthbench_bounds(rubric, met)
        missing = [criterion for criterion in rubric if met[criterion.id] is None]
        whole = [
            met | {criterion.id: pick(criterion) for criterion in missing}
            for pick in (
                lambda criterion: criterion.points < 0,
                lambda criterion: criterion.points > 0,
                lambda criterion: random.random() < 0.5,
            )
        ]
        scores = [healthbench_score(rubric, verdicts) for verdicts in whole]
        if bounds is None:
            assert scores == [None] * 3
        else:
            assert scores[:2] == list(bounds)
            assert bounds[0] <= scores[2] <= bounds[1]

    @given(judged([True, False]))
    def test_it_is_the_points_met_over_the_positive_points(self, case):
        rubric, met = case
        positive = sum(criterion.points for criterion in rubric if criterion.points > 0)
        reached = sum(criterion.points for criterion in rubric if met[criterion.id])
        score = healthbench_score(rubric, met)
        if positive > 0:
            assert score == pytest.approx(reached / positive, rel=1e-6, abs=1e-6 * (1 + abs(reached)) / positive)
        else:
            assert score is None
