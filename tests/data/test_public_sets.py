"""The real rows of HealthBench and ResearchRubrics against a plain loop over the raw files, and the original schema.

No text of a real row stands here: what is expected is computed from the files.
"""

import json
from collections import Counter

import pytest

from rvpo import ConfigError
from rvpo.data import load_rubric_rows, write_rows
from rvpo.judging.criteria import Rubric
from rvpo.judging.scores import healthbench_score

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
    found, raw = healthbench
    assert (found.format, found.read, len(found.rows), found.dropped) == ("healthbench", 500, 500, 0)
    assert found.duplicates == 500 - len({json.dumps(prompt, sort_keys=True) for prompt, _ in raw})
    assert found.empty_references == 500
    assert len({row["id"] for row in found.rows}) == 500


def test_healthbench_criteria_are_those_of_the_raw_rows(healthbench):
    found, raw = healthbench
    for row, (prompt, criteria) in zip(found.rows, raw, strict=True):
        assert row["prompt"] == [{"role": one["role"], "content": one["content"]} for one in prompt]
        assert len(row["rubric"]) == len(criteria)
        for one, given in zip(row["rubric"], criteria, strict=True):
            assert (one["text"], one["points"]) == (given["criterion"], given["points"])
            assert one["polarity"] == ("negative" if given["points"] < 0 else "positive")
            assert f"axis:{one['tags'][0]}" in given["tags"]
            assert sorted(["axis:" + one["tags"][0], *one["tags"][1:]]) == sorted(given["tags"])


def test_healthbench_channels_are_counted_by_axis(healthbench):
    found, raw = healthbench
    rubrics = [Rubric.from_rows(row["rubric"]) for row in found.rows]
    axes = Counter(one.channel.split("/")[0] for rubric in rubrics for one in rubric)
    expected = Counter(
        tag.split(":")[1] for _, criteria in raw for one in criteria for tag in one["tags"] if "axis:" in tag
    )
    assert set(axes) == AXES
    assert axes == expected


def test_healthbench_scores_are_those_of_a_plain_loop(healthbench):
    found, raw = healthbench
    for index, (row, (_, criteria)) in enumerate(zip(found.rows, raw, strict=True)):
        met = [(index + 7 * at) % 3 == 0 for at in range(len(criteria))]
        reached = possible = 0
        for one, is_met in zip(criteria, met, strict=True):
            if one["points"] > 0:
                possible += one["points"]
            if is_met:
                reached += one["points"]
        rubric = Rubric.from_rows(row["rubric"])
        verdicts = {each.id: is_met for each, is_met in zip(rubric, met, strict=True)}
        assert healthbench_score(rubric, verdicts) == pytest.approx(reached / possible)


def test_all_researchrubrics_rows_load(researchrubrics):
    found, raw = researchrubrics
    assert (found.format, found.read, len(found.rows), found.dropped) == ("researchrubrics", 100, 100, 0)
    for row, given in zip(found.rows, raw, strict=True):
        assert row["id"] == given["sample_id"]
        assert row["prompt"] == [{"role": "user", "content": given["prompt"]}]
        assert f"domain:{given['domain']}" in row["tags"]
        assert [(one["text"], one["points"], one["tags"]) for one in row["rubric"]] == [
            (one["criterion"], one["weight"], [one["axis"]]) for one in given["rubrics"]
        ]
        assert [one["polarity"] == "negative" for one in row["rubric"]] == [
            one["weight"] < 0 for one in given["rubrics"]
        ]


def test_real_rows_round_trip(healthbench, researchrubrics, tmp_path):
    for found, _ in (healthbench, researchrubrics):
        write_rows(found.rows, tmp_path / "rows.jsonl")
        again = load_rubric_rows(str(tmp_path / "rows.jsonl"))
        assert again.format == "plain"
        assert again.rows == found.rows


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
    found = load_rubric_rows(jsonl(tmp_path / "oss_eval.jsonl", ORIGINAL, more))
    assert found.format == "healthbench"
    assert (found.duplicates, found.empty_references) == (1, 1)
    first, second = found.rows
    assert (first["id"], first["reference"], first["source"]) == ("abc-1", "See a doctor.", "oss_eval.jsonl")
    assert first["tags"] == ORIGINAL["example_tags"]
    assert (second["id"], second["reference"], second["tags"]) == ("abc-2", None, [])
    assert [(one["polarity"], one["tags"]) for one in first["rubric"]] == [
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
