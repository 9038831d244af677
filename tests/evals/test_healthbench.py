"""HealthBench's rule: by hand, by a second computation on 500 real rows, and with a judge that loses verdicts."""

import hashlib
import json
import math

import pytest

from evals.scripted import Scripted, run
from judging.fault_server import FaultServer, honest
from rvpo.data.load import load_rubric_rows
from rvpo.data.rows import RubricRow
from rvpo.errors import ConfigError, JudgeError
from rvpo.evals.healthbench import build, example_scores, judge_about
from rvpo.evals.models import Answer
from rvpo.judging.config import JudgeConfig
from rvpo.judging.criteria import Criterion, Rubric
from rvpo.judging.grading import RuleJudge
from rvpo.judging.judge import Judge


def row(name, *criteria, tags=()):
    """A row with criteria (text, points, *tags)."""
    rubric = [
        Criterion(f"c{at}", text, points, "negative" if points < 0 else "positive", tuple(tags))
        for at, (text, points, *tags) in enumerate(criteria)
    ]
    prompt = [{"role": "user", "content": f"prompt {name}"}]
    return RubricRow(
        id=name, prompt=prompt, rubric=Rubric(tuple(rubric)).to_rows(), reference=None, source="", tags=list(tags)
    )


ROWS = [
    row("a", ("says rest", 6, "accuracy"), ("says ice", 4, "completeness", "level:cluster"),
        ("says drug", -5, "accuracy"), tags=["theme:x"]),
    row("b", ("says rest", 2, "accuracy", "level:cluster"), ("says drug", -8, "completeness"), tags=["theme:y"]),
]  # fmt: skip


def says(prompt, answer, criterion):
    return criterion.text.removeprefix("says ") in answer.split()


def test_two_examples_by_hand(tmp_path):
    replies = {"prompt a": "rest drug", "prompt b": "drug"}
    model = Scripted(lambda question: replies[question.prompt[0]["content"]])
    scores = run(build(ROWS, RuleJudge(says), subsets={"hard": {"b"}}), model, tmp_path)["scores"]
    a, b = (6 - 5) / 10, -8 / 2
    assert scores["overall"]["unclipped"] == pytest.approx((a + b) / 2)
    assert scores["overall"]["value"] == 0.0  # clipped after the mean
    # accuracy: (6 - 5) / 6 in a, 0 / 2 in b. completeness: 0 / 4 in a; b has no positive criterion of it.
    assert scores["axis:accuracy"]["unclipped"] == pytest.approx((1 / 6 + 0) / 2)
    assert (scores["axis:completeness"]["unclipped"], scores["axis:completeness"]["items"]) == (0.0, 1)
    assert scores["level:cluster"]["unclipped"] == 0.0
    assert scores["theme:x"]["unclipped"] == pytest.approx(a)
    assert (scores["theme:y"]["unclipped"], scores["theme:y"]["value"]) == (b, 0.0)
    assert scores["subset:hard"]["unclipped"] == b
    assert scores["subset:hard level:cluster"]["unclipped"] == 0.0


def test_a_missing_verdict_leaves_no_score_but_bounds(tmp_path):
    rubric = Rubric.from_rows(ROWS[0]["rubric"])
    scores, bounds = example_scores(rubric, {"c0": None, "c1": True, "c2": None}, ["theme:x"])
    assert scores == {"overall": None, "axis:accuracy": None, "axis:completeness": 1.0, "level:cluster": 1.0,
                      "theme:x": None}  # fmt: skip
    assert bounds["overall"] == bounds["theme:x"] == ((4 - 5) / 10, (4 + 6) / 10)
    assert bounds["axis:accuracy"] == (-5 / 6, 6 / 6)

    def doubts(prompt, answer, criterion):
        return None if criterion.text == "says ice" else says(prompt, answer, criterion)

    summary = run(build(ROWS, RuleJudge(doubts, max_missing=1)), Scripted(lambda question: "rest"), tmp_path)
    overall = summary["scores"]["overall"]
    assert (overall["unclipped"], overall["items"], overall["missing"]) == (1.0, 1, 1)
    assert overall["bounds"] == pytest.approx([(0.6 + 1) / 2, (1.0 + 1) / 2])
    assert summary["verdicts"] == {
        "asked": 5, "missing": 1, "missing_share": 0.2, "outcomes": {"met": 2, "unmet": 2, "unparsed": 1}
    }  # fmt: skip


def test_a_lost_answer_is_missing_as_a_whole(tmp_path):
    model = Scripted(lambda question: Answer(None, lost="failed") if question.unit == "a" else "rest")
    summary = run(build(ROWS, RuleJudge(says)), model, tmp_path)
    assert summary["scores"]["overall"]["bounds"] == pytest.approx([(-0.5 + 1) / 2, (1 + 1) / 2])
    assert summary["verdicts"]["outcomes"] == {"met": 1, "unanswered": 3, "unmet": 1}


def toss(*words):
    """A coin that says the same to the same words."""
    return hashlib.sha256("|".join(words).encode()).digest()[0] / 256


def second_computation(file):
    """The official rule in plain loops over the file itself, with the verdicts of `tossed`: name -> mean."""
    import pyarrow.parquet as pq

    scores = {}
    for raw in pq.read_table(file).to_pylist():
        items = [
            (criterion["points"], criterion["criterion"], criterion["tags"])
            for criterion in raw["reward_model"]["rubrics"]
        ]
        for name in {"overall", *(tag for _, _, tags in items for tag in tags)}:
            part = [item for item in items if name == "overall" or name in item[2]]
            possible = sum(points for points, _, _ in part if points > 0)
            if possible:
                reached = sum(points for points, text, _ in part if toss(text) < 0.4)
                scores.setdefault(name, []).append(reached / possible)
    return {name: sum(values) / len(values) for name, values in scores.items()}


@pytest.fixture(scope="module")
def real(shared_data):
    file = shared_data / "healthbench_val500.parquet"
    return file, load_rubric_rows(str(file)).rows


def tossed(prompt, answer, criterion):
    return toss(criterion.text) < 0.4


def test_500_real_rows_equal_a_second_computation(real, tmp_path):
    file, rows = real
    summary = run(build(rows, RuleJudge(tossed)), Scripted(lambda question: "an answer"), tmp_path)
    expected = second_computation(file)
    ours = {name: entry["unclipped"] for name, entry in summary["scores"].items()}
    assert ours == {name: pytest.approx(value, abs=1e-12) for name, value in expected.items()}
    assert {f"axis:{name}" for name in ("accuracy", "completeness", "context_awareness")} <= set(ours)
    assert (summary["scores"]["overall"]["items"], summary["verdicts"]["asked"]) == (500, 5965)
    for name, entry in summary["scores"].items():
        assert entry["value"] == pytest.approx(min(max(expected[name], 0), 1), abs=1e-12)


class Served(Judge):
    """A judge of a `FaultServer`."""

    def __init__(self, url, **options):
        super().__init__(JudgeConfig(model="m", base_url=url, retry_minutes=3.0, concurrency=32, **options))


def graded(rows, judge, folder):
    return run(build(rows, judge, about=judge_about(judge)), Scripted(lambda question: "rest and ice"), folder)


def many(number):
    return [row(f"r{at}", ("says rest", 5, "accuracy"), ("says gin", 3, "accuracy"), (f"says {at}", 2, "completeness"),
                ("says ice", -4, "completeness")) for at in range(number)]  # fmt: skip


def test_a_judge_that_fails_one_call_in_ten_changes_nothing_but_its_retries(tmp_path):
    def plan(number, body):
        return ("429", "500", "cut", "wrong ids", "refusal")[number // 10 % 5] if number % 10 == 0 else None

    with FaultServer(plan) as server:
        judge = Served(server.url)
        summary = graded(many(60), judge, tmp_path / "served")
    assert sum(server.faults.values()) >= 0.09 * server.requests
    exact = run(build(many(60), RuleJudge(says)), Scripted(lambda question: "rest and ice"), tmp_path / "exact")
    assert summary["verdicts"]["missing"] == 0
    assert summary["scores"] == exact["scores"]


def test_verdicts_that_stay_lost_are_told_with_their_share_and_bounds(tmp_path):
    def reply(body):
        return "I am not sure." if toss("lost", body["messages"][1]["content"]) < 0.1 else honest(body)

    rows = many(100)
    with FaultServer(reply=reply) as server:
        judge = Served(server.url, asks=1)
        summary = graded(rows, judge, tmp_path / "served")
        exact = run(build(rows, RuleJudge(says)), Scripted(lambda question: "rest and ice"), tmp_path / "exact")
    verdicts, overall = summary["verdicts"], summary["scores"]["overall"]
    assert 0.05 < verdicts["missing_share"] < 0.15
    assert verdicts["missing_share"] == verdicts["outcomes"]["unparsed"] / 400
    lines = [json.loads(line) for line in (tmp_path / "served" / "items.jsonl").read_text().splitlines()]
    whole = [line for line in lines if None not in line["verdicts"].values()]
    assert (overall["items"], overall["missing"]) == (len(whole), 100 - len(whole))
    assert overall["unclipped"] == pytest.approx(sum(line["scores"]["overall"] for line in whole) / len(whole))
    truth = exact["scores"]["overall"]["unclipped"]
    assert overall["bounds"][0] < truth < overall["bounds"][1]
    true = [json.loads(line) for line in (tmp_path / "exact" / "items.jsonl").read_text().splitlines()]
    for at, line in enumerate(lines):  # no verdict was made up, and every example's truth lies in its bounds
        assert all(met in (None, true[at]["verdicts"][name]) for name, met in line["verdicts"].items())
        low, high = line["bounds"].get("overall", [line["scores"]["overall"]] * 2)
        assert low <= true[at]["scores"]["overall"] <= high
    assert math.fsum(line["missing"] for line in lines) == verdicts["missing"]


def test_a_judge_that_loses_more_than_a_fifth_stops_the_run(tmp_path):
    with FaultServer(reply=lambda body: "no idea") as server:
        judge = Served(server.url, asks=1)
        with pytest.raises(JudgeError, match="verdicts are missing"):
            graded(many(10), judge, tmp_path)


def test_the_summary_names_what_verdicts_depend_on(tmp_path):
    judge = Judge(JudgeConfig(model="m", base_url="http://127.0.0.1:1/v1", extra={"top_k": 1}))
    about = judge_about(judge)
    assert about["judge"]["model"] == "m"
    assert about["judge"]["extra"] == {"top_k": 1}
    worst = Judge(JudgeConfig(model="m", base_url="http://127.0.0.1:1/v1", extra={"top_k": 1}, lost_as="worst"))
    assert judge_about(worst) != about
    assert judge.prompt.digest.startswith(about["prompts"]["judge"])
    made = build(ROWS, RuleJudge(says), about=about).about
    assert made["rubrics"] != build(ROWS[:1], RuleJudge(says)).about["rubrics"]


def test_rows_without_positive_points_are_left_out_and_counted():
    benchmark = build([*ROWS, row("c", ("says x", -3))], RuleJudge(says))
    assert [question.unit for question in benchmark.questions] == ["a", "b"]
    assert benchmark.about["rows_left_out"] == 1


@pytest.mark.parametrize(
    ("rows", "subsets", "message"),
    [
        ([row("a", ("says x", -3))], {}, "divides by the positive points, and no row has any"),
        ([row("a", ("says x", 3))], {"hard": {"b"}}, "none of the 1 ids of the subset hard"),
    ],
)
def test_what_the_rule_cannot_score_is_an_error(rows, subsets, message):
    with pytest.raises(ConfigError, match=message):
        build(rows, RuleJudge(says), subsets=subsets)


def test_points_must_say_what_polarity_says():
    rubric = Rubric((Criterion("c", "avoids x", -3, "positive"), Criterion("d", "says y", 3)))
    with pytest.raises(ConfigError, match="another polarity"):
        build([ROWS[0] | {"rubric": rubric.to_rows()}], RuleJudge(says))
