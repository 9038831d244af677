import json
import subprocess
import sys

from rvpo.rewards.declarations import declaration
from rvpo_lab.instructions.task import FEWEST, KINDS, MOST, describe, grade, instructions_reward, rows
from rvpo_lab.instructions.topics import HELD_OUT, TRAINING


def test_rows_depend_on_the_seed_alone():
    script = "import json; from rvpo_lab.instructions.task import rows; print(json.dumps(rows(5, 3)))"
    elsewhere = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert json.loads(elsewhere) == rows(5, 3) == rows(9, 3)[:5]
    assert rows(5, 4) != rows(5, 3)


def test_prompts_have_their_topic_and_five_to_nine_instructions():
    for held_out, topics, others in ((False, TRAINING, HELD_OUT), (True, HELD_OUT, TRAINING)):
        for row in rows(300, 0, held_out=held_out):
            (message,) = row["prompt"]
            assert message["role"] == "user"
            first = message["content"].split(".")[0]
            assert any(topic in first for topic in topics)
            assert not any(topic in first for topic in others)
            kinds = [one["kind"] for one in json.loads(row["instructions"])]
            assert FEWEST <= len(kinds) <= MOST
            assert len(set(kinds)) == len(kinds)


def test_reward_grades_each_completion_by_its_own_instructions():
    given = [
        [{"kind": "no_comma", "arguments": {}}, {"kind": "twice", "arguments": {"word": "cake"}}],
        [{"kind": "question", "arguments": {}}],
        [{"kind": "question", "arguments": {}}],
    ]
    completions = ["cake is cake", [{"role": "assistant", "content": "Why?"}], [{"role": "assistant", "content": ""}]]
    graded = instructions_reward(completions=completions, instructions=list(map(json.dumps, given)), other=None)
    assert graded == [{"no_comma": 1.0, "twice": 1.0}, {"question": 1.0}, {"question": 0.0}]
    declared = declaration(instructions_reward)
    assert declared.is_vector
    assert not declared.channels
    assert declared.template.range == (0.0, 1.0)


def test_grade_is_the_reward():
    row = rows(1, 0)[0]
    kinds = [one["kind"] for one in json.loads(row["instructions"])]
    assert list(grade(row, "Some answer.")) == kinds
    assert all(describe(kind) for kind in kinds)
    assert set(kinds) <= set(KINDS)
