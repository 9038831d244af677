"""The embedded tasks and RLLA's rows as benchmarks: by hand, by plain loops, and on the golden vectors."""

import json

import pytest

from evals.scripted import Scripted, run
from rvpo.data.files import raw_rows
from rvpo.data.rows import Place
from rvpo.errors import ConfigError
from rvpo.evals import rlla
from rvpo.evals.models import Answer
from rvpo_lab.tasks import benchmark as embedded
from rvpo_lab.tasks.catalog import TASKS

CALL = '<think> t </think>\n<tool_call>\n{"name": "f", "parameters": {"x": 1, "y": 2}}\n</tool_call>'
ANSWER = "<think> t </think>\n<response> hello </response>"


def test_the_tools_task_by_hand(tmp_path):
    task = TASKS["tools"]
    rows = {row["prompt"]: row for row in task.rows(8, 0, held_out=True)}

    def reply(question):
        truth = rows[question.prompt]["ground_truth"]
        number = list(rows).index(question.prompt)
        # right; the right call without a thought: form 0, and correctness as it is; nothing; lost
        return [truth, truth.split("\n", 1)[1], "", Answer(None, lost="failed")][number % 4]

    summary = run(embedded.build(task, number=8), Scripted(reply), tmp_path)
    scores = summary["scores"]
    assert scores["channel:format/form"]["value"] == pytest.approx(1 / 3)
    assert scores["channel:correctness/call"]["value"] == pytest.approx((1 + 1 + 0) / 3)
    assert scores["prompt_mean"]["value"] == pytest.approx((1 + 0.5 + 0) / 3)
    assert scores["prompt_mean"]["missing"] == 2
    assert scores["prompt_mean"]["bounds"] == pytest.approx([3 / 8, 5 / 8])
    assert scores["all_met"]["value"] == pytest.approx(1 / 3)
    assert scores["lowest"]["value"] == pytest.approx(1 / 3)  # one of two channels
    assert scores["neglected"]["value"] == 0.0
    assert scores["channel_mean"]["value"] == pytest.approx(0.5)


def test_every_criterion_counts_once_in_its_channel(tmp_path):
    task = TASKS["rubric"]
    rows = task.rows(30, 3, held_out=True)
    replies = {row["prompt"]: f"dear patient {at}" for at, row in enumerate(rows)}
    summary = run(
        embedded.build(task, number=30, seed=3), Scripted(lambda question: replies[question.prompt]), tmp_path
    )
    by_kind = {}
    for row in rows:
        for criterion, value in task.grade(row, replies[row["prompt"]]).items():
            by_kind.setdefault(criterion.split(":")[0], []).append(value)
    means = sorted(sum(values) / len(values) for values in by_kind.values())
    third = means[: -(-len(means) // 3)]
    assert summary["scores"]["lowest"]["value"] == pytest.approx(sum(third) / len(third))
    assert summary["scores"]["neglected"]["value"] == sum(mean < 0.3 for mean in means) / len(means)
    assert summary["scores"]["channel_mean"]["value"] == pytest.approx(sum(means) / len(means))
    for name, values in by_kind.items():
        assert summary["scores"][f"channel:{name}"]["value"] == pytest.approx(sum(values) / len(values))


def test_a_channel_without_any_value_leaves_no_score_made_of_channels(tmp_path):
    task = TASKS["tools"]
    summary = run(embedded.build(task, number=2), Scripted(lambda question: Answer(None, lost="x")), tmp_path)
    assert {name: summary["scores"][name]["value"] for name in ("prompt_mean", "lowest", "neglected")} == {
        "prompt_mean": None, "lowest": None, "neglected": None
    }  # fmt: skip


def test_golden_vectors_through_the_benchmark(shared_data):
    places = raw_rows(str(shared_data / "rlla_4k_test80.parquet"), "test")
    calls = [rlla.read_row(row, place) for place, row in places]
    lines = (shared_data / "rlla_reward_golden.jsonl").read_text().splitlines()
    question = rlla.build(places).questions[0]
    seen = 0
    for line in map(json.loads, lines):
        call = calls[line["row"]]
        scores = rlla.record(question, call, Answer(line["response"]))["scores"]
        assert scores["format"] == pytest.approx(line["format"])
        assert scores["correctness"] == pytest.approx(line["correctness"])
        assert ("correct_calls" in scores) == ("<tool_call>" in call.truth)
        seen += 1
    assert seen == 967


def test_rows_that_call_a_tool_are_also_scored_by_themselves(tmp_path):
    truths = (CALL, CALL, ANSWER)
    rows = [(Place("r", at), {"prompt": f"q{at}", "ground_truth": truth}) for at, truth in enumerate(truths)]
    wrong = CALL.replace("2}}", "3}}")
    replies = {"q0": CALL, "q1": wrong, "q2": ANSWER}
    summary = run(rlla.build(rows), Scripted(lambda question: replies[question.prompt[0]["content"]]), tmp_path)
    scores = {name: entry["value"] for name, entry in summary["scores"].items()}
    # the wrong value: names 1, parameter names 1, one of two values equal: (1 + 1 + 1) / (1 + 1 + 2) of the way
    close = 6 * 3 / 4 - 3
    assert scores["format"] == 1.0
    assert scores["correctness"] == pytest.approx((3 + close + 0) / 3)
    assert scores["correctness_of_calls"] == pytest.approx((3 + close) / 2)
    assert scores["correct_calls"] == 0.5


def test_lost_answers_to_rlla_lie_between_the_ends_of_the_reward(tmp_path):
    rows = [(Place("r", 1), {"prompt": "q", "ground_truth": CALL})]
    summary = run(rlla.build(rows), Scripted(lambda question: Answer(None, lost="x")), tmp_path)
    assert summary["scores"]["correctness"]["bounds"] == [-3.0, 3.0]
    assert summary["scores"]["format"]["bounds"] == [0.0, 1.0]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "q"}, "r, row 4: a row needs prompt"),
        ({"ground_truth": CALL}, "r, row 4: a row needs prompt"),
        ({"prompt": "q", "ground_truth": CALL.replace('"name"', "name")}, "r, row 4"),
    ],
)
def test_rows_of_another_schema_are_told_with_their_place(row, message):
    with pytest.raises(ConfigError, match=message):
        rlla.build([(Place("r", 4), row)])
