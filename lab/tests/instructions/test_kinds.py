"""Kinds of instructions, judged by eye, and the prompts and grades of the task that is made of them."""

import json
import random
import re
import subprocess
import sys

import pytest

from made_up_cells import tiny_policy
from rvpo.cli.main import main
from rvpo.rewards.declarations import declaration
from rvpo_lab.instructions.kinds import EXCLUDED, KINDS, compatible
from rvpo_lab.instructions.task import (
    FEWEST,
    HELD_OUT,
    MOST,
    TRAINING,
    describe,
    grade,
    instructions_reward,
    rows,
)

CASES = {
    # kind: (arguments, answers that meet it, answers that do not)
    "short": (
        {"number": 5},
        ["one two three four five", "one - two *** three\n\nfour five", "well-known 3.5 it's a day"],
        ["one two three four five six", "a b c d e\nf"],
    ),
    "long": (
        {"number": 3},
        ["one two three", "one\ntwo\n\nthree four"],
        ["one two", "one two - ***", "well-known one-two-three"],
    ),
    "sentences": (
        {"number": 3},
        [
            "It rains. I stay in! Why go out?",
            'It costs 3.5 euros. "Really?" Dr. Lee asks e.g. me, and others.',
            "Wait... what? It rains",
            "<<A title>>\nIt rains.\nI stay in.\nYou go (alas).",
            "It **rains.** I stay in.\u2019 You go.",
        ],
        [
            "It rains. I stay in.",
            "It rains. I stay in. You go. And so on",
            "It rains, I stay in, you go.",
            "It rains\nI stay in\nYou go",
            "1. It rains\n2. I stay in\n3. You go",
        ],
    ),
    "bullets": (
        {"number": 2},
        ["Buy:\n- milk\n- salt", "* milk\n  * salt\nThat is all.", "• milk\n+ salt", "- milk\n---\n- salt"],
        ["- milk", "- milk\n- salt\n- bread", "1. milk\n2. salt", "Buy - milk - salt", "-milk\n-salt", "- \n- milk"],
    ),
    "paragraphs": (
        {"number": 2},
        ["One.\n\nTwo.", "One.\nStill one.\n \t\n\n\nTwo.\n\n", "One.\n\n***\n\nTwo."],
        ["One.\nTwo.", "One.\n\nTwo.\n\nThree.", "One."],
    ),
    "begin": (
        {"word": "Well"},
        ["Well, it rains.", "well it rains", '  "Well... it rains."', "**Well** it rains", "Well-known is the rain."],
        ["Wellness is all.", "Oh well, it rains.", "We'll see.", "- Well", "Swell"],
    ),
    "keyword": (
        {"word": "cake"},
        ["I like cake.", "CAKE!", "a cake-shop", "the cake's taste", "*cake*", "a_cake"],
        ["I like cakes.", "pancake", "c a k e", "cupcake and cakewalk"],
    ),
    "twice": (
        {"word": "cake"},
        ["Cake is cake.", "cake, CAKE and cakes", "cake-cake"],
        ["I like cake.", "cake cake cake", "cake and cakes"],
    ),
    "forbidden": (
        {"word": "you"},
        ["Your hat, yours.", "Youth", "I go."],
        ["I see YOU.", "you're late", "thank-you"],
    ),
    "lowercase": ({}, ["all small.", "3 + 4", "éa «small»"], ["All small", "all smalL", "É"]),
    "capitals": (
        {"number": 2},
        ["VERY good and SO", "BIG-BIG", "It is VERY *NEW*, USA"],
        ["VERY good", "I A B", "Very So", "H2O and R2D2 VERY", "VERYgood SO"],
    ),
    "no_comma": ({}, ["No; none at all.", "3.5"], ["No, none.", "1,000"]),
    "no_exclamation": ({}, ["Fine.", "Fine?"], ["Fine!", "Fine?!"]),
    "number": ({}, ["I have 3.", "no2", "1. Go"], ["I have three.", "x² and ½", "IV"]),
    "question": (
        {},
        ["Shall we?", 'He asks: "Shall we?"', "**Shall we?**\n", "We go. Why not?"],
        ["Shall we? Yes.", "Shall we", "Shall we?!", "Shall we? :)"],
    ),
    "end_phrase": (
        {"phrase": "The end."},
        ["So it was. The end.", '"So it was. The end."', "The end.\n", "So it was.\n**The end.**"],
        ["The end. Bye.", "the end.", "The end", "Bathe end.", "The  end.", "The end.)", "xThe end."],
    ),
    "postscript": (
        {},
        ["Dear Ann.\n\nP.S. Call me.", "Hi.\nP.S. Call me.", "Hi.\n\n**P.S.** Call me.\nSoon.", "Hi.\n\nP. S. Call"],
        ["Dear Ann. P.S. Call me.", "Hi.\n\nPS Call me.", "P.S. Call.\n\nBye.", "Hi.\n\nP.S.", "Hi.\n\np.s. call"],
    ),
    "title": (
        {},
        ["<<My day>>\nIt rained.", "It rained. << A day >>"],
        ["<My day>", "<<>>", "<< >>", "<<My\nday>>", "<<**>>", "# My day", "<< My day"],
    ),
    "highlight": (
        {"number": 2},
        ["*one* and **two**", "- *a b*\n- *c*", "**Note:** it is *so*.", "* *one*\n* *two*", "(*one*) *two*"],
        ["*one* and two", "**one**", "* one\n* two\n* three", "* one * two *", "*one\ntwo* *three*", "2*3*4 5*6*7"],
    ),
    "placeholders": (
        {"number": 2},
        ["[name] and [address]", "[[name]] [a b]", "[1][2]"],
        ["[name]", "[] []", "[na\nme] [x", "(name) (address)", "<name> <b>", "[ ] [-]"],
    ),
    "quotation": (
        {},
        ['"It rains."', '  "It rains.\n\nStill." \n', "“It rains.”", '"He said "no"."'],
        ['"It" rains.', "'It rains.'", '"', '""', '"..."', 'So: "It rains."', '"It rains." Yes'],
    ),
    "parts": (
        {},
        ["One.\n***\nTwo.", "One.\n\n  ***  \n\nTwo.\nMore."],
        [
            *("One. *** Two.", "One.\n***\nOne.", "One.\n***", "One.\n---\nTwo.", "One.\n****\nTwo."),
            "One.\n***\nTwo.\n***\nThree.",
        ],
    ),
    "json": (
        {"keys": ["title", "text"]},
        ['{"title": "a", "text": "b"}', '\n{"text": 1,\n "title": []}\n', '```json\n{"title": "a", "text": "b"}\n```'],
        [
            '{"title": "a"}',
            '{"title": "a", "text": "b", "more": 1}',
            "{'title': 'a', 'text': 'b'}",
            'Here: {"title": "a", "text": "b"}',
            '{"title": "a", "text": "b"',
            '[{"title": "a", "text": "b"}]',
            '{"Title": "a", "text": "b"}',
            '{"title": NaN, "text": "b"}',
            "[" * 100_000,
            "null",
        ],
    ),
}  # fmt: skip


def test_every_kind_has_cases():
    assert list(CASES) == list(KINDS)
    assert len(KINDS) >= 16


@pytest.mark.parametrize("kind", CASES)
def test_checkers(kind):
    arguments, met, missed = CASES[kind]
    assert [answer for answer in met if not KINDS[kind](answer, arguments)] == []
    assert [answer for answer in missed if KINDS[kind](answer, arguments)] == []


@pytest.mark.parametrize("kind", CASES)
def test_a_blank_answer_meets_nothing(kind):
    arguments = CASES[kind][0]
    assert not any(KINDS[kind](blank, arguments) for blank in ("", "  ", "\n\n\t"))


@pytest.mark.parametrize("kind", CASES)
def test_arguments_and_wordings(kind):
    """Every argument is drawn from something, and each wording says all of them."""
    assert set(CASES[kind][0]) == set(KINDS[kind].choices)
    for wording in KINDS[kind].wordings:
        assert set(re.findall(r"{(\w+)", wording)) == set(KINDS[kind].choices)


def obeying(instructions: dict[str, dict]) -> str:
    """Return an answer that meets all instructions of a prompt, written without looking at the checkers."""
    if "json" in instructions:
        return obeying_json(instructions)
    given = {kind: arguments.get("number", 0) for kind, arguments in instructions.items()}
    words = ["wow"] * given.get("sentences", 1)
    words += [f"[{letter}]" for letter in "abc"[: given.get("placeholders", 0)]]
    words += [f"*{letter}*" for letter in "def"[: given.get("highlight", 0)]]
    words += ["WOW", "YES", "OH"][: given.get("capitals", 0)]
    words += ["7"] if "number" in given else []
    words += [instructions["keyword"]["word"]] if "keyword" in given else []
    words += [instructions["twice"]["word"]] * 2 if "twice" in given else []
    words += ["ho"] * (given.get("long", 0) - len(words))
    begins = [f"{instructions['begin']['word']} we go"] if "begin" in given else []
    closing = [instructions["end_phrase"]["phrase"]] if "end_phrase" in given else []
    closing += ["ok?"] if "question" in given else []
    if "sentences" in given:
        middle = given["sentences"] - len(begins) - len(closing)
        chunks = [words[index::middle] for index in range(middle)]
        texts = [f"{text}." for text in begins] + [f"{' '.join(chunk)}." for chunk in chunks]
    else:
        texts = [*begins, " ".join(words)]
    if "title" in given:
        texts[0] = f"<<oh>>\n{texts[0]}"
    texts += [f"- {letter}" for letter in "ghij"[: given.get("bullets", 0)]]
    if "paragraphs" in given:
        filler = ["hm"] * (given["paragraphs"] - len(texts) - len(closing))
        lines = texts + filler + closing
        first = given["paragraphs"] - 1
        text = "\n\n".join([*lines[:first], " ".join(lines[first:])])
    elif "parts" in given:
        text = "\n".join([*texts, "***", "so", *closing])
    else:
        text = "\n".join([*texts, *closing])
    text += "\n\nP.S. hi" if "postscript" in given else ""
    return f'"{text}"' if "quotation" in given else text


def obeying_json(instructions: dict[str, dict]) -> str:
    words = [instructions["keyword"]["word"]] if "keyword" in instructions else []
    words += [instructions["twice"]["word"]] * 2 if "twice" in instructions else []
    words += ["WOW", "YES", "OH"][: instructions.get("capitals", {}).get("number", 0)]
    words += ["7", *["ho"] * instructions.get("long", {}).get("number", 0)]
    first, second = instructions["json"]["keys"]
    return json.dumps({first: "hm", second: " ".join(words)})


@pytest.mark.parametrize("held_out", [False, True])
def test_no_prompt_is_contradictory(held_out):
    for row in rows(1500, seed=7, held_out=held_out):
        instructions = {
            instruction["kind"]: instruction["arguments"] for instruction in json.loads(row["instructions"])
        }
        answer = obeying(instructions)
        missed = [kind for kind, arguments in instructions.items() if not KINDS[kind](answer, arguments)]
        assert not missed, (missed, answer, row["prompt"])


def test_excluded_pairs_never_meet_and_the_others_do():
    seen = {
        frozenset((first["kind"], second["kind"]))
        for row in rows(6000, seed=1)
        for first in json.loads(row["instructions"])
        for second in json.loads(row["instructions"])
        if first["kind"] != second["kind"]
    }
    pairs = {frozenset((first, second)) for first in KINDS for second in KINDS if first != second}
    assert seen == pairs - EXCLUDED
    assert compatible("short", "bullets")
    assert not compatible("json", "bullets")


def test_words_of_topics():
    """Keywords cannot be forbidden, demanded elsewhere, or shared between training and evaluation."""
    fixed = {
        word.casefold()
        for kind in ("forbidden", "begin", "end_phrase")
        for values in KINDS[kind].choices.values()
        for text in values
        for word in re.findall(r"\w+", text)
    }
    training, held_out = ({word for words in topics.values() for word in words} for topics in (TRAINING, HELD_OUT))
    assert not fixed & (training | held_out)
    assert not training & held_out
    assert not set(TRAINING) & set(HELD_OUT)
    assert all(len(set(words)) == 4 and " ".join(words).islower() for words in {**TRAINING, **HELD_OUT}.values())


def test_checkers_stand_any_text():
    draw = random.Random(0)
    alphabet = 'aA1 \n\t.!?,"“”*-[]<>{}:\\`_é…\u2028\ud800😀'
    for _ in range(400):
        answer = "".join(draw.choice(alphabet) for _ in range(draw.randint(0, 60)))
        for kind, (arguments, _, _) in CASES.items():
            assert KINDS[kind](answer, arguments) in (True, False)


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
