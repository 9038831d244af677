"""Verifiable instructions as rubrics, on the real rows of IFEval and on IFBench's schema; checked by a rule judge."""

import asyncio
import json
import warnings

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rvpo.data import load_rubric_rows
from rvpo.data.rows import Place
from rvpo.errors import ConfigError
from rvpo.evals.ifeval import followed, read_row
from rvpo.judging.criteria import Rubric
from rvpo.judging.grading import Item
from rvpo.judging.rule_judge import RuleJudge

IFBENCH = {
    "key": "7",
    "prompt": "Tell me of rivers.",
    "instruction_id_list": ["count:word_count_range", "format:no_whitespace"],
    "kwargs": [{"min_words": 3, "max_words": 5}, {}],
}


def jsonl(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_a_row_of_ifbench(tmp_path):
    loaded = load_rubric_rows(jsonl(tmp_path / "rows.jsonl", IFBENCH))
    (row,) = loaded.rows
    assert (loaded.format, row["id"], row["prompt"][0]["content"]) == ("ifbench", "7", "Tell me of rivers.")
    assert [(criterion["text"], criterion["tags"]) for criterion in row["rubric"]] == [
        ('count:word_count_range {"max_words": 5, "min_words": 3}', ["count:word_count_range"]),
        ("format:no_whitespace {}", ["format:no_whitespace"]),
    ]


def test_arguments_that_parquet_fills_in_are_left_out(tmp_path):
    pq.write_table(pa.Table.from_pylist([IFBENCH]), tmp_path / "rows.parquet")
    assert (
        load_rubric_rows(str(tmp_path / "rows.parquet")).rows[0]["rubric"]
        == (load_rubric_rows(jsonl(tmp_path / "rows.jsonl", IFBENCH)).rows[0]["rubric"])
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kwargs": [{}]}, r"'kwargs': must be a list as long as instruction_id_list \(2\)"),
        ({"kwargs": [{}, 3]}, r"'kwargs\[1\]': must be an object, got 3"),
        ({"instruction_id_list": ["a", 2]}, r"'instruction_id_list\[1\]': must be non-empty text, got 2"),
    ],
)
def test_a_value_of_the_wrong_type_is_an_error(tmp_path, change, message):
    with pytest.raises(ConfigError, match=r"rows\.jsonl, line 1, key " + message):
        load_rubric_rows(jsonl(tmp_path / "rows.jsonl", IFBENCH | change))


def checked(prompt, answer, criterion):
    """Return whether an answer follows an instruction, by the checks of if-verifiable."""
    from if_verifiable.ifbench.instructions_registry import INSTRUCTION_DICT as IFBENCH_CHECKS
    from if_verifiable.ifeval.instructions_registry import INSTRUCTION_DICT as IFEVAL_CHECKS

    name, _, arguments = criterion.text.partition(" ")
    check = (IFBENCH_CHECKS | IFEVAL_CHECKS)[name](name)
    check.build_description(**json.loads(arguments))
    return bool(answer.strip()) and bool(check.check_following(answer))


def graded(rows, answer):
    """Return criterion -> met or not of each row, for one answer to all."""
    items = [Item(row["prompt"], answer, Rubric.from_rows(row["rubric"])) for row in rows]
    return [grade.met() for grade in asyncio.run(RuleJudge(checked).grade_many(items))]


@pytest.fixture
def package():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("if_verifiable")


def test_a_rule_judge_checks_ifbench(package, tmp_path):
    rows = load_rubric_rows(jsonl(tmp_path / "rows.jsonl", IFBENCH)).rows
    assert graded(rows, "Rivers run to the sea") == [{"c1": True, "c2": False}]
    assert graded(rows, "Riversruntothesea") == [{"c1": False, "c2": True}]


def test_a_rule_judge_agrees_with_the_benchmark_on_the_real_rows(package, shared_data):
    file = shared_data / "ifeval_input_data541.jsonl"
    loaded = load_rubric_rows(str(file))
    raw = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    assert (loaded.format, loaded.read, loaded.dropped) == ("ifbench", 541, 0)
    needs_more = ("language:", "length_constraints:number_sentences", "change_case:")  # a download, or a language
    chosen = [
        (row, item)
        for row, item in zip(loaded.rows, raw, strict=True)
        if not any(name.startswith(needs_more) for name in item["instruction_id_list"])
    ][:120]
    answer = 'A *quoted* line, with "marks".\n\n* one\n* two\n\nP.S. [done]'
    for (row, item), met in zip(chosen, graded([row for row, _ in chosen], answer), strict=True):
        assert row["id"] == str(item["key"])
        expected = [strict for strict, _ in followed(read_row(item, Place("rows", 1)), answer)]
        assert list(met.values()) == expected
