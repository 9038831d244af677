"""IFEval: every check by hand, strict and loose, the sums, and agreement with a public implementation.

No prompt of the benchmark is repeated here; the rows are made up.
"""

import functools
import json
import random

import pytest

from evals.scripted import Scripted, run
from rvpo.data.rows import Place, raw_rows
from rvpo.errors import ConfigError
from rvpo.evals.ifeval import CHECKS, LANGUAGE_CHECKS, build, count_sentences, followed, read_row
from rvpo.evals.models import Answer

PLACE = Place("made-up.jsonl", 1)
AT_LEAST, LESS = "at least", "less than"
CASES = [
    # instruction, arguments, answers that follow it, answers that do not
    ("keywords:existence", {"keywords": ["tea", "cup"]}, ["Steam, CUPS"], ["tea"]),
    ("keywords:frequency", {"keyword": " tea ", "frequency": 2, "relation": AT_LEAST}, ["Tea, steam"], ["tea"]),
    ("keywords:frequency", {"keyword": "tea", "frequency": 2, "relation": LESS}, ["tea", "no"], ["tea tea"]),
    ("keywords:forbidden_words", {"forbidden_words": ["tea", "a.b"]}, ["steam", "acb"], ["my Tea", "tea-cup", "a.b"]),
    ("keywords:letter_frequency", {"letter": "Q", "let_frequency": 2, "let_relation": AT_LEAST}, ["qQ"], ["q"]),
    ("keywords:letter_frequency", {"letter": "#", "let_frequency": 2, "let_relation": LESS}, ["# a"], ["##"]),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": LESS}, ["It is."], ["It is. So."]),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, ["a\n***\nb", "***a***b"], ["a", "a *** *** b"]),
    ("length_constraints:number_words", {"num_words": 3, "relation": AT_LEAST}, ["it's it", "a-b-c"], ["a b", "a !"]),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Tea"},
        ["a\n\ntea, b", "a\n\n'Tea' b"],
        ["tea\n\na", "a\n\nteas", "a\n\ntea\n\nb", "a\ntea", "a\n\n\n\ntea"],
    ),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, ["[a] []"], ["[a", "[a\nb] [c]"]),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, ["a\np.s. b", "P. S. b"], ["PS b", "P.S b"]),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, ["P.P.S b", "p. p.s."], ["P.S. b"]),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, ["* a\n- b", "  *a\n--- "], ["* a", "* a\n*b\n-c"]),
    ("detectable_format:number_bullet_lists", {"num_bullets": 1}, ["**a**\n* b"], ["**a**", "- a\n- b"]),
    ("detectable_format:constrained_response", {}, ["So: My answer is no. Bye"], ["my answer is no.", "no"]),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, ["*a* **b**", "*a* *b*"], ["*a*", "* *"]),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "Section", "num_sections": 2},
        ["Section 1 a\nSection 2 b", "Section1 Section2"],
        ["Section 1", "SECTION 1 SECTION 2", "Section a Section b"],
    ),
    ("detectable_format:json_format", {}, ['{"a": 1}', "```json\n[1]\n```", "3"], ["{'a': 1}", '{"a"', "a: 1"]),
    ("detectable_format:title", {}, ["<<a>> b"], ["<a>", "<<>>", "<< >>", "<<a\nb>>"]),
    ("combination:two_responses", {}, ["a ****** b", "******a******b******"], ["a", "a ****** a"]),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say Hi. "}, [" say hi. Hi"], ["Hi. Say hi.", "say hi"]),
    ("startend:end_checker", {"end_phrase": " Bye."}, ['So: "bye."', "BYE.\n"], ["bye. so", "bye"]),
    ("startend:quotation", {}, [' "a" ', '""'], ["'a'", '"a', '"a" b']),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 3, "capital_relation": AT_LEAST},
        ["I SAY, so: A", "DON'T GO", "IT'S *OK*", "GO-GO OH (NO)", "CANNOT B"],
        ["I SAY so", "GO-GO-GO", "McD USb"],
    ),
    ("punctuation:no_comma", {}, ["a; b"], ["a, b"]),
]  # fmt: skip
LANGUAGES = [
    (
        "language:response_language",
        {"language": "fr"},
        ["Bonjour mon ami, je suis content.", "123 !"],
        ["Hello there."],
    ),
    ("change_case:english_capital", {}, ["THIS IS A SENTENCE IN ENGLISH."], ["This is a sentence.", "123"]),
    ("change_case:english_lowercase", {}, ["this is a sentence in english."], ["This is a sentence.", "123"]),
]


def test_every_check_has_a_case():
    assert {case[0] for case in CASES + LANGUAGES} == set(CHECKS)
    assert {case[0] for case in LANGUAGES} == set(LANGUAGE_CHECKS)


@pytest.mark.parametrize(("name", "arguments", "right", "wrong"), CASES + LANGUAGES)
def test_checks(name, arguments, right, wrong):
    if name in LANGUAGE_CHECKS:
        pytest.importorskip("langdetect")
    assert [answer for answer in right if not CHECKS[name](answer, **arguments)] == []
    assert [answer for answer in wrong if CHECKS[name](answer, **arguments)] == []


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("", 0),
        ("no mark", 1),
        ("One. Two! Three?", 3),
        ('"Why?" he asks. "No."', 3),
        ("Mr. Li and e.g. I. Go at 5 p.m. today.", 1),
        ("He is from the U.S. The rest is not.", 2),
        ("It costs 3.50. Wait... what? Hi!", 3),
        ("1. Go\n2. Stop\n3. run", 3),
        ("Hi!** Bye.\n\n", 2),
        ("(So it is.) Yes", 2),
    ],
)
def test_sentences(text, number):
    """Numbers as nltk's Punkt model has them."""
    assert count_sentences(text) == number


def row(*instructions, prompt="Say something."):
    names, arguments = zip(*instructions, strict=True)
    return {"prompt": prompt, "instruction_id_list": list(names), "kwargs": list(arguments)}


COMMA, TITLE = ("punctuation:no_comma", {}), ("detectable_format:title", {})
WORDS = ("length_constraints:number_words", {"num_words": 3, "relation": LESS})


@pytest.mark.parametrize(
    ("answer", "strict", "loose"),
    [
        ("one two", True, True),
        ("one two three", False, False),
        ("Sure here it is:\none two", False, True),  # without the first line
        ("one two\nHope this helps you.", False, True),  # without the last
        ("Sure here it is:\none two\nHope this helps you.", False, True),  # without both
        ("Here it is:\nSure here it is:\none two", False, False),
        ("", False, False),
        (" \n", False, False),
        ("<think>one two three</think>one two", True, True),
    ],
)
def test_loose_takes_lines_away(answer, strict, loose):
    assert followed(read_row(row(WORDS), PLACE), answer) == [(strict, loose)]


def test_loose_takes_asterisks_away():
    item = read_row(row(("startend:end_checker", {"end_phrase": "Bye."})), PLACE)
    assert followed(item, "So: **Bye.**") == [(False, True)]


def test_sums_by_hand(tmp_path):
    rows = [row(COMMA, TITLE, prompt="0"), row(COMMA, prompt="1"), row(COMMA, TITLE, WORDS, prompt="2"), row(TITLE)]
    replies = {
        "0": "one, two",  # neither
        "1": "one two",  # followed
        "2": "Of course, here:\n<<one>> two",  # a title; the other two loosely
        "Say something.": Answer(None, lost="failed"),
    }
    model = Scripted(lambda question: replies[question.prompt[0]["content"]])
    summary = run(build([(PLACE, row) for row in rows]), model, tmp_path)
    values = {name: score["value"] for name, score in summary["scores"].items()}
    assert values == pytest.approx(
        {
            "prompt_strict": 1 / 3,
            "prompt_loose": 2 / 3,
            "instruction_strict": 2 / 6,
            "instruction_loose": 4 / 6,
            "kind:punctuation:no_comma": 1 / 3,
            "kind:detectable_format:title": 1 / 2,
            "kind:length_constraints:number_words": 0.0,
        }
    )
    assert summary["scores"]["prompt_strict"]["bounds"] == pytest.approx([1 / 4, 2 / 4])
    assert summary["scores"]["instruction_strict"]["bounds"] == pytest.approx([2 / 7, 3 / 7])
    assert summary["scores"]["instruction_strict"]["missing"] == 1


def test_arguments_that_are_none_are_absent():
    """The hub's rows have every argument of every instruction, most of them None."""
    name, arguments = WORDS
    item = read_row(row((name, {**arguments, "keywords": None}), (COMMA[0], {"num_words": None})), PLACE)
    assert item.instructions == [WORDS, COMMA]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": None}, "needs prompt"),
        ({"kwargs": []}, "equally long"),
        ({"instruction_id_list": []}, "needs prompt"),
        ({"instruction_id_list": ["punctuation:no_dots"]}, "'punctuation:no_dots' is not one of IFEval's 25"),
        ({"kwargs": [{"num_words": 3}]}, "missing a required argument: 'relation'"),
        ({"kwargs": [{"num_words": 3, "relation": "at most"}]}, "relation 'at most'"),
        ({"kwargs": [{"num_words": 3, "relation": LESS, "more": 1}]}, "unexpected keyword argument 'more'"),
    ],
)
def test_rows_that_cannot_be_used(change, message):
    with pytest.raises(ConfigError, match=message) as caught:
        read_row(row(WORDS) | change, PLACE)
    assert "made-up.jsonl, row 1" in str(caught.value)


def test_real_rows_are_read(shared_data):
    rows = raw_rows(str(shared_data / "ifeval_input_data541.jsonl"), "test")
    items = [read_row(row, place) for place, row in rows]
    assert len(items) == 541
    assert {name for item in items for name, _ in item.instructions} == set(CHECKS)
    assert sum(len(item.instructions) for item in items) == 834


PIECES = "the rain [name] *fell* on I. SMITH, who said: go! Section 2 e.g. <<now>> - why? P.S. bye"


def distorted(draw, item):
    """Return a text that may or may not follow instructions like the item's."""
    given = {key: value for _, arguments in item.instructions for key, value in arguments.items()}
    words = PIECES.split()
    words += [*given.get("keywords", []), *given.get("forbidden_words", []), given.get("keyword", "so")] * 2
    text = "".join(
        draw.choice(words) + draw.choice([" "] * 9 + ["\n", "\n\n", ". ", "\n* ", "\n- ", "\n***\n", "\n******\n"])
        for _ in range(draw.randint(1, 60))
    ).strip()
    ends = [
        given.get("prompt_to_repeat", "{"),
        given.get("end_phrase", "}"),
        '"',
        "```",
        "Sure:\n",
        "\nBye",
        *[""] * 6,
    ]
    text = draw.choice(ends) + text + draw.choice(ends)
    return draw.choice([text, text, text, text.lower(), text.upper(), json.dumps(text), f'"{text}"']).strip()


def test_agreement_with_a_public_implementation(shared_data, monkeypatch):
    """2,164 distorted texts against if-verifiable; left out is what it draws at random or downloads a model for."""
    langdetect = pytest.importorskip("langdetect")
    common = pytest.importorskip("if_verifiable.common")
    registry = pytest.importorskip("if_verifiable.ifeval.instructions_registry").INSTRUCTION_DICT
    langdetect.DetectorFactory.seed = 0
    monkeypatch.setattr(langdetect, "detect", functools.cache(langdetect.detect))  # both ask for the same texts
    downloads = ("length_constraints:number_sentences", "change_case:capital_word_frequency")
    draw, compared, met = random.Random(0), 0, 0
    for place, raw in raw_rows(str(shared_data / "ifeval_input_data541.jsonl"), "test"):
        item = read_row(raw, place)
        kept = [
            at
            for at, (name, arguments) in enumerate(item.instructions)
            if name not in downloads and str(arguments.get("letter", "a")).isalpha()
        ]
        names, arguments = ([raw[key][at] for at in kept] for key in ("instruction_id_list", "kwargs"))
        for _ in range(4 if kept else 0):
            text = distorted(draw, item)
            theirs, _ = common.evaluate_instructions(text, names, arguments, item.prompt, registry)
            ours = followed(item, text)
            assert [(bool(check.strict_pass), bool(check.loose_pass)) for check in theirs] == [
                ours[at] for at in kept
            ], text
            compared, met = compared + len(kept), met + sum(ours[at][0] for at in kept)
    assert compared > 2_000
    assert 0.15 < met / compared < 0.85


def test_the_task_is_built_from_a_file(tmp_path):
    tasks = pytest.importorskip("rvpo.evals.tasks")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row(COMMA, prompt=text)) + "\n" for text in "abc"))
    made = tasks.ifeval(data=str(tmp_path / "rows.jsonl"), split="train", limit=2, repeats=2)
    assert [sample.input[0].text for sample in made.dataset] == ["a", "a", "b", "b"]
