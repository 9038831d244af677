"""The tool-calling task, graded by RLLA's own rewards."""

import json
import random

import pytest

from rvpo.rewards.tool_calling import correctness_reward
from rvpo_lab.tasks import tools

CALL = '{"name": "weather", "parameters": {"city": "oslo", "unit": "celsius"}}'
TRUTH = f"<think> weather </think>\n<tool_call>\n{CALL}\n</tool_call>"
ROW = {"prompt": "...", "ground_truth": TRUTH}


@pytest.mark.parametrize(
    ("answer", "form", "call"),
    [
        (TRUTH, 1.0, 1.0),
        (TRUTH.replace("\n", ""), 0.0, 1.0),  # without line breaks the call can still be read
        (TRUTH.replace("weather", "route"), 1.0, 0.0),  # another tool: nothing of it counts
        # names 1/1, parameter names 2/2, one value of two: (1 + 1 + 1) / (1 + 1 + 2)
        (TRUTH.replace("oslo", "rome"), 1.0, 0.75),
        ("hello", 0.0, 0.0),
    ],
)
def test_grades_worked_by_hand(answer, form, call):
    assert tools.grade(ROW, answer) == {"format/form": form, "correctness/call": pytest.approx(call)}


def test_the_prompt_tells_what_the_answer_needs():
    for row in tools.rows(300, 0):
        call = json.loads(row["ground_truth"].split("\n")[2])
        offer, _, ask = row["prompt"].partition(" ; ask ")
        assert f"{call['name']} ( {' '.join(call['parameters'])} )" in offer
        verb, *values = ask.removesuffix(" :").split()
        assert verb in tools.VERBS[call["name"]]
        assert sorted(values) == sorted(call["parameters"].values())


def test_every_verb_means_one_tool():
    verbs = [verb for group in tools.VERBS.values() for verb in group]
    assert len(set(verbs)) == len(verbs)


def test_the_author_is_partly_competent():
    rows = tools.rows(2000, 0)
    draw = random.Random(1)
    grades = []
    for row in rows:
        call = json.loads(row["ground_truth"].split("\n")[2])
        offered = [name for name in tools.TOOLS if f"{name} (" in row["prompt"]]
        grades.append(tools.grade(row, tools._imperfect(draw, call["name"], call["parameters"], offered)))
    form = sum(grade["format/form"] for grade in grades) / len(grades)
    assert form == pytest.approx(tools.AUTHOR["form"], abs=0.04)
    perfect = sum(min(grade.values()) >= 1 for grade in grades) / len(grades)
    assert 0.0 < perfect < 0.15


def test_the_grade_is_the_reward_on_the_unit_interval():
    for _, answer in tools.pairs(200, 0):
        reward = correctness_reward([answer], [TRUTH])[0]
        assert tools.grade(ROW, answer)["correctness/call"] == pytest.approx((reward + 3) / 6)
