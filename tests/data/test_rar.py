"""RaR rows in the schema of the hub: categories however written, both polarities, and what is counted."""

import json

import pytest
from datasets import Dataset, DatasetDict

from rvpo import ConfigError
from rvpo.data import load_rubric_rows
from rvpo.data.formats import default_rule, read_category
from rvpo.judging.criteria import Rubric
from rvpo.judging.grading import CATEGORY_WEIGHTS, explicit_score


def item(description, weight, title="Names It"):
    return {"title": title, "description": description, "weight": weight}


def row(*items, question="Why is the sky blue?", reference="Rayleigh scattering.", origin="natural_reasoning"):
    return {
        "question": question,
        "reference_answer": reference,
        "question_source": origin,
        "rubric": list(items),
        "rubric_list": [criterion["description"] for criterion in items],
        "rubric_count": len(items),
    }


ITEMS = (
    item("Essential Criteria: Names the scattering.", 5),
    item("Important Criteria: Explains the wavelength.", 4),
    item("Optional Criteria: Is brief.", 1),
    item("Pitfall Criteria: Avoids blaming the sea.", -1),
    item("Pitfall Criteria: Does not mention light.", -2),
    item("Pitfall Criteria: The ozone is blamed.", -1),
)


@pytest.fixture
def loaded(tmp_path, monkeypatch):
    """Write rows as a saved data set of a name, as the hub would give them, and load them."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")

    def load(*rows, name="RaR-Science", **options):
        DatasetDict({"train": Dataset.from_list(list(rows))}).save_to_disk(tmp_path / name)
        return load_rubric_rows(str(tmp_path / name), **options)

    return load


def polarities(rar):
    return [criterion["polarity"] for criterion in rar.rows[0]["rubric"]]


def test_a_row_of_the_hub_becomes_a_canonical_row(loaded):
    rar = loaded(row(*ITEMS[:2]))
    assert rar.format == "rar"
    (only,) = rar.rows
    assert only.pop("id")
    assert only == {
        "prompt": [{"role": "user", "content": "Why is the sky blue?"}],
        "rubric": [
            {
                "id": "c1",
                "text": "Names the scattering.",
                "points": 5.0,
                "polarity": "positive",
                "tags": ["essential"],
            },
            {
                "id": "c2",
                "text": "Explains the wavelength.",
                "points": 4.0,
                "polarity": "positive",
                "tags": ["important"],
            },
        ],
        "reference": "Rayleigh scattering.",
        "source": "RaR-Science",
        "tags": ["question_source:natural_reasoning"],
    }


@pytest.mark.parametrize(
    ("name", "polarity", "pitfalls", "undecided"),
    [
        ("RaR-Science", None, ["positive"] * 3, 0),
        ("RaR-Science-20k-o3-mini", None, ["positive"] * 3, 0),
        ("RaR-Medicine", None, ["negative"] * 3, 0),
        ("own", None, ["positive", "negative", "negative"], 1),
        ("RaR-Medicine", "by_wording", ["positive", "negative", "negative"], 1),
        ("RaR-Medicine", "met_is_good", ["positive"] * 3, 0),
        ("RaR-Science", "met_is_bad", ["negative"] * 3, 0),
    ],
)
def test_the_polarity_of_pitfalls_comes_from_name_or_option(loaded, name, polarity, pitfalls, undecided):
    rar = loaded(row(*ITEMS), name=name, polarity=polarity)
    assert polarities(rar) == ["positive"] * 3 + pitfalls
    assert rar.undecided_polarities == undecided
    weights = [criterion["points"] for criterion in rar.rows[0]["rubric"]]
    assert weights == [5, 4, 1, -1, -2, -1]  # as they are


@pytest.mark.parametrize(("name", "good", "bad"), [("RaR-Science", True, False), ("RaR-Medicine", False, True)])
def test_an_answer_that_steps_into_every_pitfall_scores_less(loaded, name, good, bad):
    rubric = Rubric.from_rows(loaded(row(*ITEMS), name=name).rows[0]["rubric"])
    basis = {"c1": True, "c2": True, "c3": False}
    scores = [explicit_score(rubric, basis | dict.fromkeys(["c4", "c5", "c6"], met)) for met in (good, bad)]
    assert scores == pytest.approx([(1.0 + 0.7 + 3 * 0.9) / (2.0 + 3 * 0.9), 1.7 / (2.0 + 3 * 0.9)])


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("anisha2102/RaR-Science", "met_is_good"),
        ("ScaleAI/RaR-Medicine", "met_is_bad"),
        ("/home/science/RaR-Medicine.parquet", "met_is_bad"),
        ("medical_science.jsonl", "by_wording"),
        ("rows.jsonl", "by_wording"),
    ],
)
def test_the_last_part_of_the_name_tells_the_rule(name, rule):
    assert default_rule(name) == rule


def swapped(word, at):
    """The word with two letters in the wrong order."""
    return word[:at] + word[at + 1] + word[at] + word[at + 2 :]


WRITTEN = [
    "{} Criteria: ",
    "{} criteria: ",
    "{} Criteria:",
    "{} Criteria ",
    "{} Criterion: ",
    "{} Critera: ",
    "{}  Criteria : ",
    "{}: ",
    "**{} Criteria:** ",
    "**{} Criteria**: ",
    "{} Criteria - ",
    "- {} Criteria \N{EN DASH} ",
]


@pytest.mark.parametrize("category", CATEGORY_WEIGHTS)
@pytest.mark.parametrize("written", WRITTEN)
def test_a_category_is_read_however_it_is_written(category, written):
    for word in (category, category.upper(), category.capitalize()):
        assert read_category(written.format(word) + "Names x.") == (category, "Names x.")


@pytest.mark.parametrize("category", CATEGORY_WEIGHTS)
def test_a_typo_in_a_category_is_forgiven(category):
    word = category.capitalize()
    typos = [word[:at] + word[at + 1 :] for at in range(1, len(word))]
    typos += [word[:at] + word[at] + word[at:] for at in range(len(word))]
    typos += [swapped(word, at) for at in range(1, len(word) - 1)]
    for typo in typos:
        assert read_category(f"{typo} Criteria: Names x.") == (category, "Names x."), typo


@pytest.mark.parametrize(
    ("description", "category"),
    [("Importance Criteria: x", "important"), ("Esssential Criteria: x", "essential"), ("Option: x", "optional")],
)
def test_the_misspellings_of_the_real_rows_are_read(description, category):
    assert read_category(description) == (category, "x")


@pytest.mark.parametrize(
    "description",
    [
        "",
        "Names the scattering.",
        "Universal Criteria: Names x.",
        "Mandatory Criteria: Names x.",
        "Important criteria are listed.",
        "Important caveats: heat and light.",
        "The response must: name x.",
        "Operational: yes",
        "Essential",
    ],
)
def test_what_is_no_category_is_left_in_the_text(description):
    assert read_category(description) == (None, description)


@pytest.mark.parametrize(
    ("description", "category"),
    [
        # Likeness to "criteria": 2 x 6 / (8 + 8) = 0.75, and 2 x 7 / (11 + 8) = 0.737.
        ("Essential criqvria: x", "essential"),
        ("Essential critxzeziqa: x", None),
        # To "important", before "Criteria": 2 x 7 / (11 + 9) = 0.7; to "pitfall" 2 x 4 / (5 + 7) = 0.667.
        ("imzqorztaxt Criteria: x", "important"),
        ("pitav Criteria: x", None),
        # To "optional", alone: 2 x 7 / (9 + 8) = 0.824; to "pitfall" 2 x 6 / (8 + 7) = 0.8.
        ("qptionqal: x", "optional"),
        ("vpitfalx: x", None),
        # As alike as 0.9 and 0.86, but two and three letters longer.
        ("Essentialxy Criteria: x", "essential"),
        ("Essentialxyz Criteria: x", None),
    ],
)
def test_a_word_just_alike_enough_is_read_and_one_just_not_is_left(description, category):
    assert read_category(description) == (category, "x" if category else description)


def test_a_minus_after_the_category_stays():
    assert read_category("Essential Criteria: -3 is named.") == ("essential", "-3 is named.")


def test_unreadable_categories_are_counted_and_keep_their_weight(loaded):
    items = (
        item("The response must name x.", 5),
        item("Mandatory Criteria: Names y.", 2),
        item("Should avoid z.", -1),
        item("Names z.", 3, title="Important Criteria"),
        ITEMS[0],
    )
    rar = loaded(row(*items), row(*items[:1], question="And the sea?"))
    assert rar.unreadable_categories == 4
    rubric = rar.rows[0]["rubric"]
    assert [criterion["tags"] for criterion in rubric] == [[], [], [], ["important"], ["essential"]]
    assert [criterion["points"] for criterion in rubric] == [5, 2, -1, 3, 5]
    assert [criterion["text"] for criterion in rubric[:4]] == [criterion["description"] for criterion in items[:4]]
    assert explicit_score(Rubric.from_rows(rubric), {"c1": True, "c2": False, "c3": True, "c4": True}) == (
        pytest.approx((1.0 + 0.9 + 0.7) / (1.0 + 0.3 + 0.9 + 0.7))
    )


def test_duplicates_and_empty_references_are_counted_and_kept(loaded):
    rows = [row(*ITEMS), row(*ITEMS[:2], reference=""), row(*ITEMS, question="And the sea?", reference=" \n")]
    rar = loaded(*rows)
    assert (rar.read, len(rar.rows), rar.dropped) == (3, 3, 0)
    assert (rar.duplicates, rar.empty_references) == (1, 2)
    assert [row["reference"] for row in rar.rows] == ["Rayleigh scattering.", None, None]
    first, second, third = (row["id"] for row in rar.rows)
    assert second == f"{first}-2"
    assert third not in (first, second)


def test_rows_without_question_or_rubric_are_dropped_and_counted(loaded):
    rar = loaded(row(*ITEMS), row(question="Alone?"), row(*ITEMS, question=" "), row(question=""))
    assert (rar.read, len(rar.rows), rar.dropped) == (4, 1, 3)
    assert (rar.without_prompt, rar.without_rubric) == (2, 1)
    assert rar.unreadable_categories == 0


def test_a_row_has_the_same_id_in_every_split(tmp_path):
    splits = {"train": [row(*ITEMS), row(*ITEMS, question="B?")], "test": [row(*ITEMS[:2], question="B?")]}
    DatasetDict({name: Dataset.from_list(rows) for name, rows in splits.items()}).save_to_disk(
        tmp_path / "RaR-Science"
    )
    train, test = (load_rubric_rows(str(tmp_path / "RaR-Science"), split=split) for split in splits)
    assert test.rows[0]["id"] == train.rows[1]["id"]


def test_the_limit_is_of_raw_rows(loaded):
    rar = loaded(row(*ITEMS), row(question="Alone?"), row(*ITEMS, question="C?"), limit=2)
    assert (rar.read, len(rar.rows)) == (2, 1)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (item("Essential Criteria: x", None), r"row 2, key 'rubric\[1\].weight': must be a finite number, got None"),
        (
            item("Essential Criteria: x", "five"),
            r"row 2, key 'rubric\[1\].weight': must be a finite number, got 'five'",
        ),
        (item(["x"], 5), r"row 2, key 'rubric\[1\].description': must be text, got \['x'\]"),
        ("Essential Criteria: x", r"row 2, key 'rubric\[1\]': must be an object, got 'Essential Criteria: x'"),
    ],
)
def test_a_value_of_the_wrong_type_is_an_error_that_names_row_and_key(tmp_path, broken, message):
    rows = [row(*ITEMS), row(ITEMS[0]) | {"rubric": [ITEMS[0], broken]}]
    file = tmp_path / "rows.json"
    file.write_text(json.dumps(rows))
    with pytest.raises(ConfigError, match=message):
        load_rubric_rows(str(file))
