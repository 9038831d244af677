"""The real rows of public sets against a plain loop over the raw files, and the original schemas.

HealthBench and ResearchRubrics are graded over HTTP by a scripted judge: every verdict arrives where it belongs.
Verifiable instructions, the rows of IFEval and IFBench's schema, become rubrics, which a rule judge checks.

No text of a real row stands here: what is expected is computed from the files.
"""

import asyncio
import json
import warnings
from collections import Counter
from zlib import crc32

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from judging.fault_server import FaultServer, blocks
from rvpo import ConfigError
from rvpo.data import load_rubric_rows, write_rows
from rvpo.data.rows import Place
from rvpo.evals.ifeval import followed, read_row
from rvpo.integrations.trl.rows import TRAINING_FORMATS
from rvpo.judging.config import JudgeConfig
from rvpo.judging.criteria import Rubric
from rvpo.judging.grading import Item, RuleJudge, healthbench_score
from rvpo.judging.judge import Judge

AXES = {"accuracy", "completeness", "context_awareness", "communication_quality", "instruction_following"}


@pytest.fixture(scope="module")
def healthbench(shared_data):
    """The loaded rows, and (prompt, criteria) of the raw ones."""
    file = shared_data / "healthbench_val500.parquet"
    raw = pytest.importorskip("pyarrow.parquet").read_table(file).to_pylist()
    return load_rubric_rows(str(file)), [(row["prompt"], row["reward_model"]["rubrics"]) for row in raw]


@pytest.fixture(scope="module")
def researchrubrics(shared_data):
    file = shared_data / "researchrubrics100.jsonl"
    return load_rubric_rows(str(file)), [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def test_all_healthbench_rows_load(healthbench):
    loaded, raw = healthbench
    assert (loaded.format, loaded.read, len(loaded.rows), loaded.dropped) == ("healthbench", 500, 500, 0)
    assert loaded.duplicates == 500 - len({json.dumps(prompt, sort_keys=True) for prompt, _ in raw})
    assert loaded.empty_references == 500
    assert len({row["id"] for row in loaded.rows}) == 500


def test_healthbench_criteria_are_those_of_the_raw_rows(healthbench):
    loaded, raw = healthbench
    for row, (prompt, criteria) in zip(loaded.rows, raw, strict=True):
        assert row["prompt"] == [{"role": message["role"], "content": message["content"]} for message in prompt]
        assert len(row["rubric"]) == len(criteria)
        for criterion, given in zip(row["rubric"], criteria, strict=True):
            assert (criterion["text"], criterion["points"]) == (given["criterion"], given["points"])
            assert criterion["polarity"] == ("negative" if given["points"] < 0 else "positive")
            assert f"axis:{criterion['tags'][0]}" in given["tags"]
            assert sorted(["axis:" + criterion["tags"][0], *criterion["tags"][1:]]) == sorted(given["tags"])


def test_healthbench_channels_are_counted_by_axis(healthbench):
    loaded, raw = healthbench
    rubrics = [Rubric.from_rows(row["rubric"]) for row in loaded.rows]
    axes = Counter(criterion.channel.split("/")[0] for rubric in rubrics for criterion in rubric)
    expected = Counter(
        tag.split(":")[1]
        for _, criteria in raw
        for criterion in criteria
        for tag in criterion["tags"]
        if "axis:" in tag
    )
    assert set(axes) == AXES
    assert axes == expected


def test_healthbench_scores_are_those_of_a_plain_loop(healthbench):
    loaded, raw = healthbench
    for index, (row, (_, criteria)) in enumerate(zip(loaded.rows, raw, strict=True)):
        met = [(index + 7 * at) % 3 == 0 for at in range(len(criteria))]
        reached = possible = 0
        for given, is_met in zip(criteria, met, strict=True):
            if given["points"] > 0:
                possible += given["points"]
            if is_met:
                reached += given["points"]
        rubric = Rubric.from_rows(row["rubric"])
        verdicts = {criterion.id: is_met for criterion, is_met in zip(rubric, met, strict=True)}
        assert healthbench_score(rubric, verdicts) == pytest.approx(reached / possible)


def test_all_researchrubrics_rows_load(researchrubrics):
    loaded, raw = researchrubrics
    assert (loaded.format, loaded.read, len(loaded.rows), loaded.dropped) == ("researchrubrics", 100, 100, 0)
    for row, given in zip(loaded.rows, raw, strict=True):
        assert row["id"] == given["sample_id"]
        assert row["prompt"] == [{"role": "user", "content": given["prompt"]}]
        assert f"domain:{given['domain']}" in row["tags"]
        assert [(criterion["text"], criterion["points"], criterion["tags"]) for criterion in row["rubric"]] == [
            (criterion["criterion"], criterion["weight"], [criterion["axis"]]) for criterion in given["rubrics"]
        ]
        assert [criterion["polarity"] == "negative" for criterion in row["rubric"]] == [
            criterion["weight"] < 0 for criterion in given["rubrics"]
        ]


def test_real_rows_round_trip(healthbench, researchrubrics, tmp_path):
    for loaded, _ in (healthbench, researchrubrics):
        write_rows(loaded.rows, tmp_path / "rows.jsonl")
        read_back = load_rubric_rows(str(tmp_path / "rows.jsonl"))
        assert read_back.format == "plain"
        assert read_back.rows == loaded.rows


ORIGINAL = {
    "example_tags": ["theme:hedging", "physician_agreed_category:any"],
    "ideal_completions_data": {"ideal_completion": "See a doctor.", "ideal_completions_group": "Group1"},
    "prompt": [{"role": "user", "content": "It hurts."}],
    "prompt_id": "abc-1",
    "rubrics": [
        {"criterion": "Asks where.", "points": 5, "tags": ["level:example", "axis:context_awareness"]},
        {"criterion": "Prescribes.", "points": -8, "tags": ["axis:accuracy", "level:cluster", "cluster:x"]},
    ],
    "canary": "made up",
}


def jsonl(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_the_original_healthbench_schema(tmp_path):
    more = ORIGINAL | {"prompt_id": "abc-2", "ideal_completions_data": None, "example_tags": None}
    loaded = load_rubric_rows(jsonl(tmp_path / "oss_eval.jsonl", ORIGINAL, more))
    assert loaded.format == "healthbench"
    assert (loaded.duplicates, loaded.empty_references) == (1, 1)
    first, second = loaded.rows
    assert (first["id"], first["reference"], first["source"]) == ("abc-1", "See a doctor.", "oss_eval.jsonl")
    assert first["tags"] == ORIGINAL["example_tags"]
    assert (second["id"], second["reference"], second["tags"]) == ("abc-2", None, [])
    assert [(criterion["polarity"], criterion["tags"]) for criterion in first["rubric"]] == [
        ("positive", ["context_awareness", "level:example"]),
        ("negative", ["accuracy", "level:cluster", "cluster:x"]),
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rubrics": [{"criterion": "x", "points": "5"}]}, r"'rubrics\[0\].points': must be a finite number, got '5'"),
        ({"rubrics": [{"criterion": "x"}]}, r"'rubrics\[0\].points': must be a finite number, got None"),
        ({"rubrics": {"criterion": "x"}}, "'rubrics': must be a list"),
        ({"example_tags": "theme:x"}, "'example_tags': must be a list, got 'theme:x'"),
        ({"ideal_completions_data": "x"}, "'ideal_completions_data': must be an object"),
    ],
)
def test_a_healthbench_value_of_the_wrong_type_is_an_error(tmp_path, change, message):
    file = jsonl(tmp_path / "rows.jsonl", ORIGINAL, ORIGINAL | change)
    with pytest.raises(ConfigError, match=r"rows\.jsonl, line 2, key " + message):
        load_rubric_rows(file, format="healthbench")


def test_a_repeated_id_of_the_data_set_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match=r"line 2, key 'id': must be unique, but 'abc-1' is the id of .*line 1"):
        load_rubric_rows(jsonl(tmp_path / "rows.jsonl", ORIGINAL, ORIGINAL))


PROFESSIONAL = {
    "id": "p-1",
    "conversation": {"messages": [{"role": "user", "content": "Dose?"}]},
    "rubric_items": [{"criterion_text": "Gives a dose.", "points": 7}, {"criterion_text": "Guesses.", "points": -3}],
    "use_case": "consult",
    "type": "good_faith",
    "difficulty": "typical",
    "specialty": "cardiology",
    "physician_response": "5 mg.",
    "canary_string": "made up",
}


def test_healthbench_professional(tmp_path):
    """Its card has the conversation as a list of messages, its file as an object that holds it."""
    listed = PROFESSIONAL | {"id": "p-2", "conversation": PROFESSIONAL["conversation"]["messages"]}
    loaded = load_rubric_rows(jsonl(tmp_path / "professional.jsonl", PROFESSIONAL, listed))
    first, second = loaded.rows
    assert loaded.format == "healthbench_professional"
    assert first["prompt"] == second["prompt"] == [{"role": "user", "content": "Dose?"}]
    assert (first["id"], first["reference"]) == ("p-1", "5 mg.")
    assert first["tags"] == ["use_case:consult", "type:good_faith", "difficulty:typical", "specialty:cardiology"]
    assert [(criterion["text"], criterion["points"], criterion["polarity"]) for criterion in first["rubric"]] == [
        ("Gives a dose.", 7.0, "positive"),
        ("Guesses.", -3.0, "negative"),
    ]


def rubrichub():
    tags = [
        {"verifier": "llm", "function": "", "parameters": {}},
        {"verifier": "rule", "function": "CommaChecker", "parameters": {"at_most": None}},
    ]
    texts = (("Names the cause.", 8), ("Has no comma.", 5))
    criteria = [
        {"criterion": text, "points": points, "tags": of} for (text, points), of in zip(texts, tags, strict=True)
    ]
    return {
        "prompt": [{"role": "user", "content": "Why?"}],
        "ability": "Instruction_Following",
        "data_source": "Instruction_Following",
        "Rubrics": [{"criterion": text, "points": points} for text, points in texts],
        "reward_model": {"ground_truth": "", "style": "rubric", "rubrics": criteria},
        "extra_info": {"index": 0},
    }


@pytest.mark.parametrize("is_parquet", [False, True])
def test_rubrichub(tmp_path, is_parquet):
    raw = rubrichub()
    if is_parquet:  # as it is published
        file = str(tmp_path / "rurbichub_v1_Science.parquet")
        pq.write_table(pa.Table.from_pylist([raw]), file)
    else:
        file = jsonl(tmp_path / "rows.jsonl", raw)
    loaded = load_rubric_rows(file)
    assert loaded.format == "rubrichub"
    (row,) = loaded.rows
    assert (row["prompt"], row["tags"]) == (raw["prompt"], ["ability:Instruction_Following"])
    assert [(criterion["text"], criterion["points"], criterion["tags"]) for criterion in row["rubric"]] == [
        ("Names the cause.", 8.0, ["llm"]),
        ("Has no comma.", 5.0, ["rule"]),
    ]


@pytest.mark.parametrize(("left_out", "tags"), [("Rubrics", [["llm"], ["rule"]]), ("reward_model", [[], []])])
def test_rubrichub_with_one_copy_of_its_criteria(tmp_path, left_out, tags):
    raw = {key: value for key, value in rubrichub().items() if key != left_out}
    loaded = load_rubric_rows(jsonl(tmp_path / "rows.jsonl", raw))
    assert loaded.format == "rubrichub"
    assert [criterion["tags"] for criterion in loaded.rows[0]["rubric"]] == tags


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (PROFESSIONAL | {"rubric_items": [{"criterion_text": "x"}]}, r"'rubric_items\[0\].points': must be a finite"),
        (PROFESSIONAL | {"conversation": 3}, "'conversation': must be a list, got 3"),
        (
            rubrichub() | {"reward_model": {"rubrics": [{"criterion": "x", "points": "8"}]}},
            r"'Rubrics\[0\].points': must be a finite",
        ),
        (rubrichub() | {"ability": 3}, "'ability': must be text, got 3"),
    ],
)
def test_a_value_of_the_wrong_type_in_the_newer_sets_is_an_error(tmp_path, row, message):
    with pytest.raises(ConfigError, match=r"rows\.jsonl, line 1, key " + message):
        load_rubric_rows(jsonl(tmp_path / "rows.jsonl", row))


def test_evaluation_sets_are_not_trained_on():
    assert "rubrichub" in TRAINING_FORMATS
    assert not {"healthbench", "healthbench_professional"} & set(TRAINING_FORMATS)


# --- Graded over HTTP ---


def scripted(answer, text):
    """Return a verdict that only the criterion's text and the answer decide."""
    return crc32((answer + text).encode()) % 3 == 0


def script(body):
    answer, criteria = blocks(body)
    listed = [{"id": name, "reason": "script", "met": scripted(answer, text)} for name, text in criteria]
    return json.dumps({"verdicts": listed})


@pytest.mark.parametrize(("file", "rows"), [("healthbench_val500.parquet", 500), ("researchrubrics100.jsonl", 100)])
def test_all_rows_can_be_graded(shared_data, file, rows):
    loaded = load_rubric_rows(str(shared_data / file)).rows
    assert len(loaded) == rows
    items = [
        Item(row["prompt"], f"answer {index}", Rubric.from_rows(row["rubric"])) for index, row in enumerate(loaded)
    ]

    async def run(judge):
        try:
            return await judge.grade_many(items)
        finally:
            await judge.close()

    with FaultServer(reply=script) as server:
        graded = asyncio.run(run(Judge(JudgeConfig(model="m", base_url=server.url, criteria_per_call=8))))
    for item, result in zip(items, graded, strict=True):
        assert result.met() == {criterion.id: scripted(item.answer, criterion.text) for criterion in item.rubric}
        positive = sum(criterion.points for criterion in item.rubric if criterion.points > 0)
        earned = sum(criterion.points for criterion in item.rubric if scripted(item.answer, criterion.text))
        assert healthbench_score(item.rubric, result.met()) == pytest.approx(earned / positive)
        assert len(result.values()) == len(item.rubric)


# --- Verifiable instructions ---


IFBENCH = {
    "key": "7",
    "prompt": "Tell me of rivers.",
    "instruction_id_list": ["count:word_count_range", "format:no_whitespace"],
    "kwargs": [{"min_words": 3, "max_words": 5}, {}],
}


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
