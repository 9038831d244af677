"""Rows from files, folders and streams, columns by dotted path, and what is said when they are not there."""

import json

import pytest
from datasets import Dataset, DatasetDict

from rvpo import ConfigError
from rvpo.integrations.trl.rows import load_rows

ROWS = [
    {"prompt": "a b", "answer": "1", "meta": {"grade": {"truth": "x", "points": 3}}},
    {"prompt": "c", "answer": "2", "meta": {"grade": {"truth": "y", "points": 4}}},
]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Keep what datasets caches out of the home folder."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def jsonl(path, rows=ROWS):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def written(path):
    """Write the rows in the form that the name says."""
    rows = Dataset.from_list(ROWS)
    match path.suffix:
        case ".jsonl":
            jsonl(path)
        case ".json":
            path.write_text(json.dumps(ROWS))
        case ".parquet" | ".PARQUET":
            rows.to_parquet(path)
        case ".csv":
            rows.remove_columns("meta").to_csv(path, index=False)
        case _:
            rows.save_to_disk(path)
    return path


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.parquet", "ROWS.PARQUET", "rows.csv", "saved"])
def test_rows_come_from_files_and_saved_folders(tmp_path, name):
    rows = load_rows(str(written(tmp_path / name)), "train")
    assert rows["prompt"] == ["a b", "c"]
    assert [str(answer) for answer in rows["answer"]] == ["1", "2"]


def test_a_file_is_one_split_whatever_it_is_called(tmp_path):
    assert load_rows(str(jsonl(tmp_path / "rows.jsonl")), "test")["prompt"] == ["a b", "c"]


def test_a_folder_of_files_has_its_splits(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    jsonl(folder / "train.jsonl")
    jsonl(folder / "test.jsonl", ROWS[1:])
    assert load_rows(str(folder), "train")["prompt"] == ["a b", "c"]
    assert load_rows(str(folder), "test")["prompt"] == ["c"]


def test_a_saved_dictionary_gives_the_split_that_is_asked_for(tmp_path):
    splits = {"train": Dataset.from_list(ROWS), "test": Dataset.from_list(ROWS[1:])}
    DatasetDict(splits).save_to_disk(tmp_path / "saved")
    assert load_rows(str(tmp_path / "saved"), "test")["prompt"] == ["c"]
    with pytest.raises(ConfigError, match=r"has no split 'dev', only \['test', 'train'\]"):
        load_rows(str(tmp_path / "saved"), "dev")


@pytest.mark.parametrize("streaming", [False, True])
def test_columns_are_added_by_dotted_path(tmp_path, streaming):
    columns = {"ground_truth": "meta.grade.truth", "points": "meta.grade.points", "again": "answer"}
    rows = load_rows(str(jsonl(tmp_path / "rows.jsonl")), "train", columns=columns, streaming=streaming)
    first, second = list(rows)
    assert (first["ground_truth"], first["points"], first["again"]) == ("x", 3, "1")
    assert (second["ground_truth"], second["points"], second["again"]) == ("y", 4, "2")
    assert first["prompt"] == "a b"


def test_a_stream_is_read_row_by_row(tmp_path):
    rows = load_rows(str(jsonl(tmp_path / "rows.jsonl")), "train", streaming=True)
    assert not isinstance(rows, Dataset)
    assert [row["prompt"] for row in rows] == ["a b", "c"]


def test_the_prompt_may_be_another_column(tmp_path):
    rows = [{"question": {"text": "why ?"}}]
    path = str(jsonl(tmp_path / "rows.jsonl", rows))
    assert load_rows(path, "train", columns={"prompt": "question.text"})["prompt"] == ["why ?"]
    with pytest.raises(ConfigError, match=r"no column 'prompt', only \['question'\]; name one with --dataset_columns"):
        load_rows(path, "train")


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("meta.grade.turth", r"no 'turth' on the path 'meta.grade.turth' of a row; there is \['points', 'truth'\]"),
        ("mata", r"no 'mata' on the path 'mata' of a row; there is \['answer', 'meta', 'prompt'\]"),
        ("answer.text", "no 'text' on the path 'answer.text' of a row; there is str"),
    ],
)
def test_a_column_that_is_not_there_is_named_with_those_that_are(tmp_path, path, message, streaming):
    file = str(jsonl(tmp_path / "rows.jsonl"))
    with pytest.raises(ConfigError, match=message):
        load_rows(file, "train", columns={"truth": path}, streaming=streaming)


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match=r"there is no file .*rows\.jsonl"):
        load_rows(str(tmp_path / "rows.jsonl"), "train")


def test_a_file_of_an_unknown_kind_is_an_error_that_names_the_known_ones(tmp_path):
    (tmp_path / "rows.txt").write_text("a")
    with pytest.raises(ConfigError, match=r"rows\.txt is not a file of a known kind: \.jsonl, \.json, \.parquet"):
        load_rows(str(tmp_path / "rows.txt"), "train")


def test_a_name_that_is_nowhere_is_an_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="cannot load data set 'no_such_rows', split 'train'"):
        load_rows("no_such_rows", "train")


def test_a_folder_without_the_split_is_an_error(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    jsonl(folder / "train.jsonl")
    with pytest.raises(ConfigError, match="split 'dev'"):
        load_rows(str(folder), "dev")


@pytest.mark.parametrize("text", ["", "{broken\n", '{"prompt": "a"}\nnot json\n'], ids=["empty", "broken", "half"])
def test_a_file_that_cannot_be_read_is_an_error_that_names_it(tmp_path, text):
    (tmp_path / "rows.jsonl").write_text(text)
    with pytest.raises(ConfigError, match=r"rows\.jsonl"):
        load_rows(str(tmp_path / "rows.jsonl"), "train")


def test_a_data_set_without_rows_is_an_error(tmp_path):
    (tmp_path / "rows.csv").write_text("prompt,answer\n")
    with pytest.raises(ConfigError, match=r"rows\.csv"):
        load_rows(str(tmp_path / "rows.csv"), "train")


# --- Rubric data sets as they are published ---

RAR = [
    {
        "question": "How much water?",
        "reference_answer": "Two litres.",
        "question_source": "made up",
        "rubric": [
            {"title": "Amount", "description": "Essential Criteria: Gives an amount.", "weight": 5},
            {"title": "Alarm", "description": "Pitfall Criteria: Avoids alarm.", "weight": -1},
        ],
        "rubric_count": 2,
    },
    {"question": "", "reference_answer": "", "question_source": "made up", "rubric": [], "rubric_count": 0},
]


def rar(form, folder, name):
    """RaR's columns in a file, or as the hub has them: a data set with splits."""
    if form == "file":
        return str(jsonl(folder / f"{name}.jsonl", RAR))
    saved = DatasetDict({"train": Dataset.from_list(RAR), "val": Dataset.from_list(RAR[:1])})
    saved.save_to_disk(folder / name)
    return str(folder / name)


@pytest.mark.parametrize("form", ["file", "splits"])
def test_questions_and_rubrics_of_rar_become_prompts_and_criteria(tmp_path, form):
    rows = load_rows(rar(form, tmp_path, "RaR-Science"), "train", format="rar")
    (row,) = rows  # the second one has no prompt
    assert row["prompt"] == [{"role": "user", "content": "How much water?"}]
    assert [(criterion["text"], criterion["points"], criterion["tags"]) for criterion in row["rubric"]] == [
        ("Gives an amount.", 5.0, ["essential"]),
        ("Avoids alarm.", -1.0, ["pitfall"]),
    ]
    assert row["rubric"][1]["polarity"] == "positive"  # RaR-Science: met is good


def test_the_polarity_of_pitfalls_may_be_given(tmp_path):
    (row,) = load_rows(rar("file", tmp_path, "RaR-Science"), "train", format="rar", polarity="met_is_bad")
    assert row["rubric"][1]["polarity"] == "negative"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {},
            r"no column 'prompt', only \['question'.*--dataset_format, one of rar, ifbench, rubrichub, .*, plain",
        ),
        ({"format": "raar"}, "unknown dataset_format 'raar': did you mean 'rar'"),
        ({"format": "healthbench"}, "never train on it"),
        ({"format": "rar", "streaming": True}, "do nothing with dataset_format"),
        ({"format": "plain", "polarity": "met_is_bad"}, "polarity"),
    ],
)
def test_formats_that_do_not_fit_are_named(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        load_rows(rar("file", tmp_path, "rows"), "train", **options)
