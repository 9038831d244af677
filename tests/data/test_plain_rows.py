"""Users' own rubrics from every kind of file, canonical rows there and back, guesses, and errors with a place."""

import csv
import json

import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from rvpo import ConfigError
from rvpo.data import load_rubric_rows, write_rows
from rvpo.data.describe import describe, histogram
from rvpo.integrations.trl.rows import load_rows
from rvpo.judging.check import rubric_problems
from rvpo.judging.criteria import Rubric

OWN = {"prompt": "How much water?", "rubric": ["Gives an amount.", {"text": "Names a drug.", "points": -2}]}
CONVERSATION = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello?"}]


def jsonl(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_the_short_form_is_filled_in(tmp_path):
    loaded = load_rubric_rows(jsonl(tmp_path / "own.jsonl", OWN))
    assert loaded.format == "plain"
    (row,) = loaded.rows
    assert len(row.pop("id")) == 16
    assert row == {
        "prompt": [{"role": "user", "content": "How much water?"}],
        "rubric": [
            {"id": "c1", "text": "Gives an amount.", "points": 1.0, "polarity": "positive", "tags": []},
            {"id": "c2", "text": "Names a drug.", "points": -2.0, "polarity": "negative", "tags": []},
        ],
        "reference": None,
        "source": "own.jsonl",
        "tags": [],
    }


@pytest.mark.parametrize(("points", "polarity"), [(-0.5, "negative"), (0, "positive"), (0.5, "positive")])
def test_only_negative_points_mean_that_being_met_is_bad(tmp_path, points, polarity):
    (row,) = load_rubric_rows(jsonl(tmp_path / "own.jsonl", OWN | {"rubric": [{"text": "x", "points": points}]})).rows
    assert row["rubric"][0]["polarity"] == polarity


def test_the_long_form_is_kept(tmp_path):
    whole = {"id": "dose", "text": "Names a drug.", "points": -2, "polarity": "positive", "tags": ["scope", "drug"]}
    given = {"id": "w1", "prompt": CONVERSATION, "rubric": [whole], "reference": "Two litres.", "tags": ["health"]}
    (row,) = load_rubric_rows(jsonl(tmp_path / "own.jsonl", given)).rows
    assert row == given | {"source": "own.jsonl"}


def cell(value):
    return value if isinstance(value, str) else "" if value is None else json.dumps(value)


def written(path, rows):
    """Write rows in the form that the name says."""
    match path.suffix:
        case ".jsonl":
            jsonl(path, *rows)
        case ".json":
            path.write_text(json.dumps(rows, indent=1))
        case ".parquet":
            Dataset.from_list(rows).to_parquet(path)
        case ".csv":
            with path.open("w", newline="") as stream:
                table = csv.writer(stream)
                table.writerow(rows[0])
                table.writerows([cell(value) for value in row.values()] for row in rows)
        case _:
            Dataset.from_list(rows).save_to_disk(path)
    return str(path)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.parquet", "rows.csv", "saved"])
def test_rows_come_from_every_kind_of_file(tmp_path, name):
    rows = [
        {"prompt": CONVERSATION, "rubric": [{"text": "Greets,\nkindly.", "points": 2, "tags": ["tone"]}], "id": "a"},
        {"prompt": CONVERSATION[1:], "rubric": [{"text": "x", "points": None, "tags": None}] * 2, "id": "b"},
    ]
    rows = [row | {"reference": None} for row in rows]
    loaded = load_rubric_rows(written(tmp_path / name, rows))
    assert [row["id"] for row in loaded.rows] == ["a", "b"]
    assert [row["prompt"] for row in loaded.rows] == [CONVERSATION, CONVERSATION[1:]]
    assert [
        [(criterion["text"], criterion["points"], criterion["tags"]) for criterion in row["rubric"]]
        for row in loaded.rows
    ] == [
        [("Greets,\nkindly.", 2.0, ["tone"])],
        [("x", 1.0, []), ("x", 1.0, [])],
    ]
    assert {row["source"] for row in loaded.rows} == {name}


def test_a_csv_prompt_in_brackets_is_a_text(tmp_path):
    (tmp_path / "rows.csv").write_text('prompt,rubric\n[sic] is what?,"[""Explains.""]"\n')
    (row,) = load_rubric_rows(str(tmp_path / "rows.csv")).rows
    assert row["prompt"][0]["content"] == "[sic] is what?"
    assert row["rubric"][0]["text"] == "Explains."


def test_a_json_file_may_hold_json_lines_and_blank_lines_count(tmp_path):
    text = f"\ufeff\n{json.dumps(OWN)}\n\n{json.dumps(OWN | {'rubric': 3})}\n"
    (tmp_path / "rows.json").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"rows\.json, line 4, key 'rubric': must be a list, got 3"):
        load_rubric_rows(str(tmp_path / "rows.json"))
    assert load_rubric_rows(str(tmp_path / "rows.json"), limit=1).read == 1


def test_rows_without_prompt_or_rubric_are_counted(tmp_path):
    rows = [OWN, OWN | {"prompt": ""}, OWN | {"rubric": []}, OWN | {"prompt": None, "rubric": None}, OWN]
    loaded = load_rubric_rows(jsonl(tmp_path / "own.jsonl", *rows))
    assert (loaded.read, len(loaded.rows), loaded.dropped, loaded.duplicates) == (5, 2, 3, 1)
    assert (loaded.without_prompt, loaded.without_rubric) == (2, 1)


def test_nothing_usable_is_an_error(tmp_path):
    file = jsonl(tmp_path / "own.jsonl", OWN | {"rubric": []}, OWN | {"prompt": " "})
    with pytest.raises(
        ConfigError, match=r"none of the 2 rows of .*own\.jsonl has a prompt and a rubric, read as plain"
    ):
        load_rubric_rows(file)


TEXT = st.text(max_size=20)
FULL = st.text(min_size=1, max_size=20).filter(str.strip)
CRITERIA = st.fixed_dictionaries(
    {"text": TEXT},
    optional={
        "points": st.one_of(st.integers(-10, 10), st.floats(allow_nan=False, allow_infinity=False)),
        "polarity": st.sampled_from(["positive", "negative"]),
        "tags": st.lists(st.text(min_size=1, max_size=9), max_size=3),
    },
)
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": FULL}), min_size=1
)
ROWS = st.fixed_dictionaries(
    {"prompt": st.one_of(FULL, MESSAGES), "rubric": st.lists(st.one_of(TEXT, CRITERIA), min_size=1, max_size=4)},
    optional={"reference": st.one_of(TEXT, st.none()), "tags": st.lists(FULL, max_size=2), "source": TEXT},
)


@given(st.lists(ROWS, min_size=1, max_size=4))
def test_written_rows_are_read_as_they_were(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("rows")
    loaded = load_rubric_rows(jsonl(folder / "own.jsonl", *rows))
    write_rows(loaded.rows, folder / "new" / "rows.jsonl")
    read_back = load_rubric_rows(str(folder / "new" / "rows.jsonl"))
    assert read_back.rows == loaded.rows
    assert len({row["id"] for row in loaded.rows}) == len(rows)
    assert (
        read_back.duplicates
        == loaded.duplicates
        == len(rows) - len({json.dumps(row["prompt"]) for row in loaded.rows})
    )
    assert Dataset.from_list(loaded.rows).to_list() == loaded.rows  # Arrow neither adds nor loses anything


def test_rows_round_trip_through_parquet(tmp_path):
    loaded = load_rubric_rows(jsonl(tmp_path / "own.jsonl", OWN, OWN | {"prompt": CONVERSATION, "tags": ["a"]}))
    Dataset.from_list(loaded.rows).to_parquet(tmp_path / "rows.parquet")
    assert load_rubric_rows(str(tmp_path / "rows.parquet")).rows == loaded.rows


def test_half_a_surrogate_pair_is_written_and_read(tmp_path):
    (tmp_path / "own.jsonl").write_text('{"prompt": "\\ud800?", "rubric": ["Says it: \\u4f60."]}\n')
    loaded = load_rubric_rows(str(tmp_path / "own.jsonl"))
    write_rows(loaded.rows, tmp_path / "rows.jsonl")
    assert load_rubric_rows(str(tmp_path / "rows.jsonl")).rows == loaded.rows


def test_canonical_rows_train_as_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    loaded = load_rubric_rows(jsonl(tmp_path / "own.jsonl", OWN, OWN | {"prompt": CONVERSATION, "tags": ["a"]}))
    write_rows(loaded.rows, tmp_path / "rows.jsonl")
    assert load_rows(str(tmp_path / "rows.jsonl"), "train").to_list() == loaded.rows


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rubrics": []}, "unknown key 'rubrics': did you mean 'rubric'"),
        ({"prompt": 3}, "key 'prompt': must be a list, got 3"),
        ({"prompt": ["a"]}, r"key 'prompt\[0\]': must be an object, got 'a'"),
        ({"prompt": [{"role": "user"}]}, r"key 'prompt\[0\]': must be an object with role and content only"),
        ({"prompt": [CONVERSATION[0] | {"name": "x"}]}, r"key 'prompt\[0\]': must be an object with role and content"),
        ({"prompt": [{"role": "user", "content": 3}]}, r"key 'prompt\[0\].content': must be text, got 3"),
        ({"rubric": "Is kind."}, "key 'rubric': must be a list, got 'Is kind.'"),
        ({"rubric": ["x", 3]}, r"key 'rubric\[1\]': must be an object, got 3"),
        ({"rubric": ["x", {"points": 3}]}, r"key 'rubric\[1\]': a criterion must have id and text"),
        (
            {"rubric": [{"text": "x", "point": 3}]},
            r"key 'rubric\[0\]': unknown key of a criterion 'point': did you mean",
        ),
        (
            {"rubric": [{"text": "x", "points": "high"}]},
            r"key 'rubric\[0\].points': must be a finite number, got 'high'",
        ),
        ({"rubric": [{"text": "x", "polarity": "bad"}]}, r"key 'rubric\[0\]': unknown polarity of criterion 'c1'"),
        ({"rubric": [{"text": "x", "id": "a/b"}]}, r"key 'rubric\[0\]': id of a criterion must be non-empty text"),
        ({"rubric": [{"text": "x", "id": "c2"}, "y"]}, "key 'rubric': ids must be unique inside a rubric"),
        ({"reference": 3}, "key 'reference': must be text, got 3"),
        ({"tags": "a"}, "key 'tags': must be a list, got 'a'"),
        ({"tags": ["a", ""]}, r"key 'tags\[1\]': must be non-empty text, got ''"),
    ],
)
def test_errors_name_file_line_and_key(tmp_path, change, message):
    file = jsonl(tmp_path / "own.jsonl", OWN, OWN | change)
    with pytest.raises(ConfigError, match=rf"own\.jsonl, line 2(, |: ){message}"):
        load_rubric_rows(file)


def test_a_long_value_is_not_repeated_in_a_message(tmp_path):
    file = jsonl(tmp_path / "own.jsonl", OWN | {"tags": "secret " * 100})
    with pytest.raises(ConfigError) as caught:
        load_rubric_rows(file)
    assert str(caught.value).count("secret") < 8


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"prompt": "a", "rubric": ["x"]}\n{"prompt": \n', r"own\.jsonl, line 2, column \d+: not JSON"),
        ("[" * 100_000, r"own\.jsonl, line 1: JSON that cannot be read: nested too deep"),
        ('{"prompt": ' + "9" * 5_000 + "}", r"own\.jsonl, line 1: JSON that cannot be read: Exceeds the limit"),
        ('["x"]\n', r"own\.jsonl, line 1: a row must be an object, got list"),
        ("", r"own\.jsonl has no rows"),
        ("\n\n", r"own\.jsonl has no rows"),
        (
            '{"question": "a", "answer": "b"}\n',
            r"cannot guess .* columns \['answer', 'question'\]; expected prompt and",
        ),
    ],
)
def test_a_file_that_cannot_be_read_is_an_error_that_says_where(tmp_path, text, message):
    (tmp_path / "own.jsonl").write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_rubric_rows(str(tmp_path / "own.jsonl"))


def test_bytes_that_are_no_text_are_an_error_that_names_the_file(tmp_path):
    for name in ("rows.jsonl", "rows.json", "rows.csv", "rows.parquet"):
        (tmp_path / name).write_bytes(b"\xff\xfe\x00\x9d")
        with pytest.raises(ConfigError, match=name):
            load_rubric_rows(str(tmp_path / name))


def test_a_json_list_that_breaks_off_and_a_row_with_too_many_cells_are_errors(tmp_path):
    (tmp_path / "rows.json").write_text('[{"prompt": "a"}')
    with pytest.raises(ConfigError, match=r"cannot read .*rows\.json"):
        load_rubric_rows(str(tmp_path / "rows.json"))
    (tmp_path / "rows.csv").write_text("prompt,rubric\na,b,c\n")
    with pytest.raises(ConfigError, match=r"rows\.csv, row 1: has more cells"):
        load_rubric_rows(str(tmp_path / "rows.csv"))


def test_options_that_do_not_fit_are_errors(tmp_path):
    file = jsonl(tmp_path / "own.jsonl", OWN)
    for options, message in (
        ({"format": "plane"}, "unknown format 'plane': did you mean 'plain'"),
        ({"polarity": "met_is_god"}, "unknown polarity 'met_is_god': did you mean 'met_is_good'"),
        ({"polarity": "met_is_good"}, r"polarity is an option of the format rar, but .*own\.jsonl is plain"),
        ({"limit": 0}, "limit must be at least 1, got 0"),
        ({"format": "rar"}, r"key 'rubric\[0\]': must be an object"),
        (
            {"format": "healthbench"},
            r"none of the 1 rows of .* as healthbench; their columns are \['prompt', 'rubric'\]",
        ),
    ):
        with pytest.raises(ConfigError, match=message):
            load_rubric_rows(file, **options)


def test_a_missing_or_unknown_file_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="there is no file"):
        load_rubric_rows(str(tmp_path / "rows.jsonl"))
    (tmp_path / "rows.txt").write_text("a")
    with pytest.raises(ConfigError, match="not a file of a known kind"):
        load_rubric_rows(str(tmp_path / "rows.txt"))


def test_rows_that_cannot_be_written_are_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write"):
        write_rows([], tmp_path / "file" / "rows.jsonl")


@given(st.lists(st.integers(0, 60), max_size=30), st.integers(1, 12))
def test_every_size_is_in_one_bin(sizes, bins):
    counts = histogram(sizes, bins)
    assert len(counts) <= bins
    for low, high, count in counts:
        assert count == sum(low <= size <= high for size in sizes)
    assert sum(count for _, _, count in counts) == len(sizes)


def test_ten_bins_are_the_most_without_being_asked():
    assert histogram(range(10)) == [(size, size, 1) for size in range(10)]
    assert histogram(range(11)) == [(size, size + 1, 2 if size < 10 else 1) for size in range(0, 11, 2)]


@pytest.mark.parametrize(("digits", "shown"), [(40, "1" * 40), (41, "int " + "1" * 40 + "...")])
def test_forty_characters_of_a_wrong_value_are_shown(tmp_path, digits, shown):
    file = jsonl(tmp_path / "own.jsonl", OWN | {"rubric": int("1" * digits)})
    with pytest.raises(ConfigError) as error:
        load_rubric_rows(file)
    assert str(error.value).endswith(f"key 'rubric': must be a list, got {shown}")


def test_a_description_by_hand(tmp_path):
    rows = [
        {"id": "a", "prompt": "A?", "rubric": ["Is kind.", {"text": "is  Kind.", "points": 3, "tags": ["tone", "x"]}]},
        {"id": "b", "prompt": "B?", "rubric": [{"text": "IS KIND.", "points": -1, "tags": ["tone"]}], "tags": ["t"]},
        {"id": "c", "prompt": "C?", "rubric": ["Omits it."], "tags": ["t"]},
    ]
    description = describe(load_rubric_rows(jsonl(tmp_path / "own.jsonl", *rows)).rows)
    assert description.sizes == [2, 1, 1]
    assert [tuple(count) for count in description.tags] == [("tone", 2, 2.0, -1.0, 3.0), ("x", 1, 3.0, 3.0, 3.0)]
    assert description.example_tags == [("t", 2)]
    assert (description.positive, description.negative) == (3, 1)
    assert [
        (row_problem.row, row_problem.problem.kind, row_problem.problem.ids) for row_problem in description.problems
    ] == [
        ("a", "duplicate_text", ("c1", "c2")),
        ("c", "suspicious_polarity", ("c1",)),
    ]
    assert [tuple(shared) for shared in description.shared] == [(2, "a", "c1", "Is kind.")]
    assert rubric_problems(Rubric.from_rows([])) == []
