import json
import subprocess
import sys

import pytest
from tiny import tiny_policy

from rvpo.cli.main import main
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
            kinds = [instruction["kind"] for instruction in json.loads(row["instructions"])]
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
    kinds = [instruction["kind"] for instruction in json.loads(row["instructions"])]
    assert list(grade(row, "Some answer.")) == kinds
    assert all(describe(kind) for kind in kinds)
    assert set(kinds) <= set(KINDS)


def test_rvpo_eval_scores_what_the_task_grades(tmp_path, monkeypatch):
    log_module = pytest.importorskip("inspect_ai.log")
    monkeypatch.chdir(tmp_path)
    tiny_policy("policy")
    assert main(["eval", "rvpo/instructions", "--model", "policy", "--prompts", "6", "--max-tokens", "12"]) == 0
    (file,) = tmp_path.glob("results/instructions/policy/*.eval")
    samples = log_module.read_eval_log(str(file)).samples
    by_prompt = {row["prompt"][0]["content"]: row for row in rows(6, 0, held_out=True)}
    assert {sample.input[0].text for sample in samples} == set(by_prompt)
    for sample in samples:
        graded = grade(by_prompt[sample.input[0].text], sample.output.completion)
        (score,) = sample.scores.values()
        assert score.value["prompt_mean"] == pytest.approx(sum(graded.values()) / len(graded))
        assert {name: value for name, value in score.value.items() if name.startswith("channel:")} == {
            f"channel:{kind}": value for kind, value in graded.items()
        }
