import doctest
import json
import random
import re
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rvpo.rewards import tool_calling
from rvpo.rewards.tool_calling import correctness_reward, format_reward

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
GOLDEN = DATA / "rlla_reward_golden.jsonl"
GOLDEN_ROWS = DATA / "rlla_4k_test80.parquet"


def call(name, **parameters):
    return json.dumps({"name": name, "parameters": parameters})


def block(*lines):
    return "<tool_call>\n" + "\n".join(lines) + "\n</tool_call>"


def tools(*lines):
    return "<think> t </think>\n" + block(*lines)


def score_format(completion, truth):
    return format_reward(completions=[completion], ground_truth=[truth])[0]


def score(completion, truth):
    return correctness_reward(completions=[completion], ground_truth=[truth])[0]


OSLO = call("weather", city="Oslo")
THOUGHT = "<think> a\nb </think>"
RESPONSE = "<response> It\nrains. </response>"
FORMS = {
    "neither": THOUGHT,
    "response": f"{THOUGHT}\n{RESPONSE}",
    "tool call": tools(OSLO),
    "both": f"{tools(OSLO)}\n{RESPONSE}",
}


# --- Vectors made with the original reward code ---


@pytest.fixture(scope="module")
def golden():
    if not (GOLDEN.exists() and GOLDEN_ROWS.exists()):
        pytest.skip(f"{DATA} has no RLLA vectors")
    pandas = pytest.importorskip("pandas")
    truths = [cell["ground_truth"] for cell in pandas.read_parquet(GOLDEN_ROWS)["reward_model"]]
    vectors = [json.loads(line) for line in GOLDEN.read_text(encoding="utf-8").split("\n") if line]
    assert len(vectors) == 967
    return vectors, [vector["response"] for vector in vectors], [truths[vector["row"]] for vector in vectors]


def test_format_equals_every_golden_vector(golden):
    vectors, completions, truths = golden
    assert format_reward(completions, truths) == [vector["format"] for vector in vectors]


def test_correctness_equals_every_golden_vector(golden):
    vectors, completions, truths = golden
    expected = [vector["correctness"] for vector in vectors]
    assert correctness_reward(completions, truths) == pytest.approx(expected, rel=0, abs=1e-9)


# --- Format ---


@pytest.mark.parametrize("required", FORMS)
@pytest.mark.parametrize("written", FORMS)
def test_format_asks_for_the_blocks_of_the_ground_truth(required, written):
    assert score_format(FORMS[written], FORMS[required]) == float(written == required)


@pytest.mark.parametrize("truth", ["", "It rains."])
def test_a_ground_truth_without_tags_asks_for_a_thought_alone(truth):
    assert score_format(THOUGHT, truth) == 1.0
    assert score_format("It rains.", truth) == 0.0


@pytest.mark.parametrize("truth", FORMS.values(), ids=FORMS.keys())
@pytest.mark.parametrize("added", [" ", "\n", ".", "<think>", "</think>"])
def test_format_allows_nothing_around_the_form(truth, added):
    assert score_format(truth + added, truth) == 0.0
    assert score_format(added + truth, truth) == 0.0


@pytest.mark.parametrize("truth", FORMS.values(), ids=FORMS.keys())
def test_format_asks_for_each_tag_exactly_once(truth):
    for tag in re.findall(r"</?\w+>", truth):
        assert score_format(truth.replace(tag, ""), truth) == 0.0
        assert score_format(truth.replace(tag, tag + tag), truth) == 0.0
        assert score_format(truth.replace("<think>", f"<think> {tag}"), truth) == 0.0


@pytest.mark.parametrize("truth", [FORMS["response"], FORMS["tool call"], FORMS["both"]])
@pytest.mark.parametrize("between", ["", " ", "\n\n", "\r\n", "\n "])
def test_format_asks_for_exactly_one_line_break_between_blocks(truth, between):
    breaks = [match.start() for match in re.finditer(r"(?<=>)\n(?=<)", truth)]
    assert breaks
    for position in breaks:
        assert score_format(truth[:position] + between + truth[position + 1 :], truth) == 0.0


@pytest.mark.parametrize("around", [("<tool_call>\n", "<tool_call>"), ("\n</tool_call>", "</tool_call>")])
def test_format_asks_for_line_breaks_inside_the_tool_call_block(around):
    assert score_format(tools(OSLO).replace(*around), tools(OSLO)) == 0.0


def test_the_lines_of_a_tool_call_block_do_not_share_one_line_break():
    truth = tools(OSLO)
    assert score_format("<think> t </think>\n<tool_call>\n</tool_call>", truth) == 0.0
    assert score_format("<think> t </think>\n<tool_call>\n\n</tool_call>", truth) == 1.0


def test_blocks_in_another_order_have_another_form():
    assert score_format(f"{THOUGHT}\n{RESPONSE}\n{block(OSLO)}", FORMS["both"]) == 0.0


def test_a_thought_may_name_tags_that_the_form_does_not_have():
    truth = tools(OSLO)
    assert score_format(truth.replace(" t ", " no <response> is needed "), truth) == 1.0
    assert score_format(truth.replace(" t ", " a <tool_call> is needed "), truth) == 0.0


def test_what_the_ground_truth_only_thinks_about_is_not_asked_for():
    truth = tools(OSLO).replace(" t ", " <tool_call> without a <response> ")
    assert score_format(tools(OSLO), truth) == 1.0
    assert score(tools(OSLO), truth) == 3.0
    assert score(RESPONSE, "<think> is a <tool_call> needed? </think>\n" + RESPONSE) == 0.0


def test_an_unclosed_thought_does_not_hide_the_calls_of_the_ground_truth():
    assert score(tools(OSLO), f"<think> t\n{block(OSLO)}") == 3.0


FORM_PATTERNS = {
    "neither": r"<think>.*</think>",
    "response": r"<think>.*</think>\n<response>.*</response>",
    "tool call": r"<think>.*</think>\n<tool_call>\n.*\n</tool_call>",
    "both": r"<think>.*</think>\n<tool_call>\n.*\n</tool_call>\n<response>.*</response>",
}
PIECES = [
    *("<think>", "</think>", "<tool_call>", "</tool_call>", "<response>", "</response>"),
    *(
        "</think>\n",
        "<tool_call>\n",
        "\n</tool_call>",
        "\n<response>",
        "\n",
        " ",
        "{}",
        OSLO,
        "[",
        "NaN",
        "\ud800",
    ),
]
tagged_text = st.lists(st.sampled_from(PIECES), max_size=14).map("".join)


def nearly(form):
    """Texts that are one small change or none away from a form."""
    pieces = re.split(r"(</?\w+>|\n)", form)
    change = st.tuples(st.integers(0, len(pieces)), st.integers(0, 1), st.sampled_from(["", *PIECES]))
    return change.map(lambda c: "".join([*pieces[: c[0]], c[2], *pieces[c[0] + c[1] :]]))


@settings(deadline=None)
@given(
    text=st.one_of(tagged_text, *(nearly(form) for form in FORMS.values())),
    kind=st.sampled_from(sorted(FORMS)),
)
def test_format_equals_its_pattern_with_each_tag_once(text, kind):
    pattern = FORM_PATTERNS[kind]
    tags = re.findall(r"</?\w+>", pattern)
    matches = re.fullmatch(pattern, text, re.DOTALL) is not None and all(text.count(tag) == 1 for tag in tags)
    assert score_format(text, FORMS[kind]) == float(matches)


# --- Correctness, worked by hand: 6 * score / max - 3 with max = 1 + sum(1 + parameters) ---

A, B = "alpha", "beta"
HAND_WORKED = {
    # Names 1/1, parameter names 1/1, one equal value: 3 of max 1 + (1 + 1) = 3.
    "the same call": ([call(A, x=1)], [call(A, x=1)], 3.0),
    # 1 + 1 + 0 = 2 of 3: 6 * 2/3 - 3.
    "another value": ([call(A, x=1)], [call(A, x=2)], 1.0),
    # 1 + 0 + 0 = 1 of 3: 6 * 1/3 - 3.
    "another parameter": ([call(A, x=1)], [call(A, y=1)], -1.0),
    # 0 of 3.
    "another tool": ([call(A, x=1)], [call(B, x=1)], -3.0),
    # Names 1/2, then 2: 2.5 of 3: 6 * 2.5/3 - 3.
    "one call too many": ([call(A, x=1)], [call(A, x=1), call(B)], 2.0),
    # Names {A} and {A, A, A} 1/3, then 2: 7/3 of 3: 6 * 7/9 - 3 = 5/3.
    "a call three times": ([call(A, x=1)], [call(A, x=1)] * 3, 5 / 3),
    # Names 1, parameter names {x, y} of {x, y, z, w} 1/2, x equal: 2.5 of max 1 + (1 + 3) = 5.
    "one value of three": ([call(A, x=1, y=2, z=3)], [call(A, x=1, y=0, w=3)], 0.0),
    # Names 1/2, A gives 1 + 1, B nothing: 2.5 of max 1 + (1 + 1) + (1 + 2) = 6.
    "a call too few": ([call(A, x=1), call(B, y=1, z=1)], [call(A, x=1)], -0.5),
    # Each call finds its own: 1 + 2 + 3 = 6 of 6.
    "another order": ([call(A, x=1), call(B, y=1, z=1)], [call(B, z=1, y=1), call(A, x=1)], 3.0),
    # Names {A, A} and {A} 1/2, the first takes the only prediction: 2.5 of max 1 + 2 + 2 = 5.
    "one prediction for two equal calls": ([call(A, x=1)] * 2, [call(A, x=1)], 0.0),
    # The first call takes x=1 for 1/2 + 1 (y=9 has 1/2 + 0); y=9 has nothing of the second: 1 + 1.5 = 2.5 of
    # max 1 + (1 + 2) + (1 + 1) = 6. (The best assignment would have 1 + 0.5 + 2 = 3.5.)
    "calls choose in turn": (
        [call(A, x=1, y=2), call(A, x=1)],
        [call(A, x=1), call(A, y=9)],
        -0.5,
    ),
    # Both predictions give the first call 1; it takes the earlier, which leaves x=3 (1 + 0) to the second:
    # 1 + 1 + 1 = 3 of max 1 + 2 + 2 = 5: 6 * 3/5 - 3.
    "the earlier of equally good predictions": (
        [call(A, x=1), call(A, x=2)],
        [call(A, x=2), call(A, x=3)],
        0.6,
    ),
    # Nothing in y=1 agrees with the first call, so it is left for the second: 1/2 + 0 + 2 = 2.5 of 5.
    "a prediction without any agreement stays unused": ([call(A, x=1), call(A, y=1)], [call(A, y=1)], 0.0),
    # Names 1, no parameters on both sides count as agreement 1: 2 of max 1 + (1 + 0) = 2.
    "no parameters": ([call(A)], [call(A)], 3.0),
    # Names 1, parameter names 0/1: 1 of 2.
    "a parameter where none is expected": ([call(A)], [call(A, x=1)], 0.0),
    # Names 1, parameter names 0/1: 1 of 3.
    "no parameter where one is expected": ([call(A, x=1)], [call(A)], -1.0),
}


@pytest.mark.parametrize(("expected", "predicted", "value"), HAND_WORKED.values(), ids=HAND_WORKED.keys())
def test_correctness_by_hand(expected, predicted, value):
    assert score(tools(*predicted), tools(*expected)) == pytest.approx(value, rel=0, abs=1e-12)


@pytest.mark.parametrize(
    ("expected", "predicted", "equal"),
    [
        ("1", "1.0", True),
        ("1", "true", True),
        ("1", '"1"', False),
        ("null", "0", False),
        ('"Oslo"', '"oslo"', False),
        ("[1, 2]", "[2, 1]", False),
        ('{"a": 1, "b": [2]}', '{"b": [2], "a": 1}', True),
        ("NaN", "NaN", True),
        ("[NaN]", "[NaN]", True),
        ("NaN", "Infinity", False),
        ("Infinity", "1e999", True),
        ("Infinity", "-Infinity", False),
        ("1.5", "1" + "0" * 4000, False),
        ('"\\ud800"', '"\\ud800"', True),
        ('"a\u2028b\x85c"', '"a\\u2028b\\u0085c"', True),
    ],
)
def test_values_compare_as_python_values(expected, predicted, equal):
    def line(value):
        return '{"name": "alpha", "parameters": {"x": ' + value + "}}"

    # One tool with one parameter: 3 of 3 with an equal value, 2 of 3 with another (6 * 2/3 - 3 = 1).
    assert score(tools(line(predicted)), tools(line(expected))) == (3.0 if equal else 1.0)


def test_the_last_of_repeated_keys_counts():
    line = '{"name": "beta", "name": "alpha", "parameters": {"x": 1, "x": 2}}'
    assert score(tools(line), tools(call("alpha", x=2))) == 3.0
    assert score(tools(line), tools(call("alpha", x=1))) == 1.0  # 6 * 2/3 - 3


def test_further_keys_of_a_call_are_ignored():
    assert score(tools('{"id": 7, "name": "alpha", "parameters": {}}'), tools(call("alpha"))) == 3.0


@pytest.mark.parametrize(
    "completion",
    [
        block(OSLO),
        f"Sure! {block(OSLO)} Done.",
        f"<tool_call>{OSLO}</tool_call>",
        f"<tool_call> \n\n\t{OSLO}\r\n </tool_call>",
        f"{block(OSLO)}\n{block('not JSON')}",
        f"</tool_call>{block(OSLO)}",
    ],
)
def test_correctness_reads_the_first_block_whatever_surrounds_it(completion):
    assert score(completion, tools(OSLO)) == 3.0


UNREADABLE = {
    "nothing": "",
    "plain text": "It rains.",
    "only a response": FORMS["response"],
    "no closing tag": f"<tool_call>\n{OSLO}\n",
    "no opening tag": f"{OSLO}\n</tool_call>",
    "tags in the wrong order": f"</tool_call>\n{OSLO}\n<tool_call>",
    "an empty block": block(),
    "a blank line": block(OSLO, "", OSLO),
    "two calls in a line": block(f"{OSLO} {OSLO}"),
    "a call over two lines": block(OSLO.replace(": {", ":\n{")),
    "one bad line of two": block(OSLO, "{" + OSLO),
    "single quotes": block(OSLO.replace('"', "'")),
    "a tag in a value": block(call("weather", city="</tool_call>")),
    "a thought that names the tag": tools(OSLO).replace(" t ", " I need a <tool_call> "),
    "a list": block(f"[{OSLO}]"),
    "a number": block("7"),
    "null": block("null"),
    "text": block('"weather"'),
    "no name": block('{"parameters": {"city": "Oslo"}}'),
    "no parameters": block('{"name": "weather"}'),
    "an unhashable name": block('{"name": ["weather"], "parameters": {"city": "Oslo"}}'),
    "a number as name": block('{"name": 7, "parameters": {}}'),
    "parameters in a list": block('{"name": "weather", "parameters": [["city", "Oslo"]]}'),
    "parameters null": block('{"name": "weather", "parameters": null}'),
    "deep lists": block('{"name": "weather", "parameters": {"city": ' + "[" * 100_000 + "]" * 100_000 + "}}"),
    "deep objects": block('{"a":' * 30_000),
    "a huge integer": block('{"name": "weather", "parameters": {"city": ' + "9" * 100_000 + "}}"),
    "a surrogate": block("\ud800"),
}


@pytest.mark.parametrize("completion", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_unreadable_calls_are_the_worst(completion):
    assert score(completion, tools(OSLO)) == -3.0


@pytest.mark.parametrize("completion", [*UNREADABLE.values(), tools(OSLO)], ids=[*UNREADABLE, "a call"])
@pytest.mark.parametrize("truth", ["", "It rains.", FORMS["neither"], FORMS["response"]])
def test_correctness_is_zero_where_no_tool_is_expected(completion, truth):
    assert score(completion, truth) == 0.0


def test_comparing_values_that_are_too_deep_is_unequal():
    def nested():
        value = []
        for _ in range(1_000_000):  # 3.14 compares 100,000
            value = [value]
        return value

    # Values this deep cannot come out of json, but how deep they can come differs between Python versions.
    assert tool_calling._is_equal(nested(), nested()) is False


# --- Untrusted and adversarial completions ---

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
calls = st.builds(
    lambda name, parameters: json.dumps({"name": name, "parameters": parameters}),
    st.sampled_from(["alpha", "beta"]),
    st.dictionaries(st.sampled_from("xyz"), json_values | st.integers(0, 2), max_size=3),
)
call_lists = st.lists(calls, min_size=1, max_size=5)
loose_lines = st.lists(calls | json_values.map(json.dumps), max_size=4)
any_text = st.text(st.characters(exclude_categories=())) | tagged_text | loose_lines.map(lambda x: tools(*x))


@settings(deadline=None)
@given(completion=any_text, truth=st.sampled_from([*FORMS.values(), tools(OSLO, call("alpha", x=1, y=2))]))
@example(completion="<tool_call>" * 3, truth=tools(OSLO))
def test_any_text_has_both_rewards_in_range(completion, truth):
    assert score_format(completion, truth) in (0.0, 1.0)
    assert -3.0 <= score(completion, truth) <= 3.0


@settings(deadline=None)
@given(expected=call_lists, predicted=call_lists, seed=st.integers(0, 99))
def test_only_the_expected_calls_in_any_order_are_the_best(expected, predicted, seed):
    truth = tools(*expected)
    shuffled = random.Random(seed).sample(expected, len(expected))
    assert score(tools(*shuffled), truth) == 3.0
    value = score(tools(*predicted), truth)
    assert -3.0 <= value <= 3.0
    if len(predicted) != len(expected):
        assert value < 3.0


ADVERSARIAL = {
    "opening thoughts": "<think>" * 100_000,
    "thoughts": "<think></think>\n" * 20_000,
    "opening calls": "<think>a</think>\n" + "<tool_call>\n" * 20_000,
    "closing calls": "<think>a</think>\n<tool_call>" + "\n</tool_call" * 20_000,
    "almost the end": "<think>" + "</think>\n<tool_call>\n\n</tool_call>\n" * 5_000 + "<response></response",
    "spaces": "<think>" + " " * 200_000 + "</think>",
    "line breaks": "<tool_call>" + "\n" * 200_000 + "</tool_call>",
    "many calls": tools(*[call("weather", city=str(n)) for n in range(4_000)]),
    "many parameters": tools(call("weather", **{f"city{n}": n for n in range(12_000)})),
    "a long name": tools(call("w" * 200_000)),
    "open lists": block("[" * 200_000),
    "open objects": block('{"a":' * 40_000),
    "open text": block('{"name": "' + '\\"' * 100_000),
    "digits": block('{"name": "weather", "parameters": {"city": ' + "9" * 200_000 + ".5}}"),
    "integers": tools(*[call("weather", city=10**4000) for _ in range(50)]),
}


@pytest.mark.parametrize("completion", ADVERSARIAL.values(), ids=ADVERSARIAL.keys())
def test_long_adversarial_completions_are_read_in_one_pass(completion):
    assert len(completion) > 150_000  # a quadratic search would take minutes
    for truth in (*FORMS.values(), tools(*[OSLO] * 5)):
        assert score_format(completion, truth) in (0.0, 1.0)
        assert -3.0 <= score(completion, truth) <= 3.0


# --- Arguments ---


@pytest.mark.parametrize("text", [tools(OSLO), tools(call("weather", city="Rome")), RESPONSE, ""])
def test_chat_messages_have_the_rewards_of_their_text(text):
    user = {"role": "user", "content": FORMS["both"]}
    forms = [
        [{"role": "assistant", "content": text}],
        [{"role": "assistant", "content": "earlier turn"}, user, {"role": "assistant", "content": text}],
        [{"role": "assistant", "content": text}, user],
        [{"role": "assistant", "content": [{"type": "text", "text": text}]}],
        [
            {
                "role": "assistant",
                "content": [
                    {"type": "text", "text": text[:9]},
                    {"type": "image", "text": "<tool_call></tool_call>"},
                    {"type": "text", "text": text[9:]},
                ],
            }
        ],
    ]
    truths = [tools(OSLO)] * len(forms)
    assert format_reward(forms, truths) == [score_format(text, tools(OSLO))] * len(forms)
    assert correctness_reward(forms, truths) == [score(text, tools(OSLO))] * len(forms)


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [{"role": "user", "content": tools(OSLO)}],
        [{"role": "assistant", "content": None}],
        [{"role": "assistant"}],
        [{"role": "assistant", "content": []}],
        [{"role": "assistant", "content": [None, "text", {"type": "text"}, {"type": "text", "text": None}]}],
        [{"role": "assistant", "content": 7}],
    ],
)
def test_messages_without_assistant_text_are_empty_completions(messages):
    assert score_format(messages, tools(OSLO)) == 0.0
    assert score(messages, tools(OSLO)) == -3.0


@pytest.mark.parametrize("reward", [format_reward, correctness_reward])
class TestArguments:
    def test_what_else_a_trainer_passes_is_ignored(self, reward):
        arguments = {"completions": [tools(OSLO), ""], "ground_truth": [tools(OSLO)] * 2}
        extra = {"prompts": ["p", "q"], "completion_ids": [[1], [2]], "trainer_state": object()}
        assert reward(**arguments, **extra) == reward(**arguments)

    def test_no_rows_have_no_rewards(self, reward):
        assert reward(completions=[], ground_truth=[]) == []

    def test_rewards_are_python_floats_in_row_order(self, reward):
        values = reward(completions=["", tools(OSLO), ""], ground_truth=[tools(OSLO)] * 3)
        assert [type(value) for value in values] == [float] * 3
        assert values[0] == values[2] < values[1]

    @pytest.mark.parametrize(("completions", "truths"), [(["", ""], [""]), ([], [""]), ([""], [])])
    def test_lengths_must_agree(self, reward, completions, truths):
        with pytest.raises(ValueError, match=f"same length, got {len(completions)} and {len(truths)}"):
            reward(completions=completions, ground_truth=truths)

    @pytest.mark.parametrize("completion", [None, 7, {"role": "assistant"}, ["text"], [None]])
    def test_a_completion_is_text_or_messages(self, reward, completion):
        with pytest.raises(TypeError, match=r"completions\[1\] must be a str or a list of message dicts"):
            reward(completions=["", completion], ground_truth=["", ""])

    @pytest.mark.parametrize("truth", [None, 7, ["text"]])
    def test_a_ground_truth_is_text(self, reward, truth):
        with pytest.raises(TypeError, match=r"ground_truth\[1\] must be a str, got"):
            reward(completions=["", ""], ground_truth=["", truth])


@pytest.mark.parametrize(
    ("truth", "problem"),
    [
        ("<tool_call>", "there is no <tool_call> ... </tool_call> block"),
        (block(), "line 1 is not JSON"),
        (tools(OSLO, "", OSLO), "line 2 is not JSON"),
        (tools(OSLO, "[]"), "line 2 is not a JSON object"),
        (tools('{"parameters": {}}'), 'line 1 has no text "name"'),
        (tools('{"name": "weather", "parameters": []}'), 'line 1 has no object "parameters"'),
        (tools("[" * 100_000), "line 1 is not JSON"),
    ],
)
@pytest.mark.parametrize("completion", ["", tools(OSLO)])
def test_an_unreadable_ground_truth_is_named(truth, problem, completion):
    message = re.escape(f"ground_truth[1] has an unreadable tool call: {problem}")
    with pytest.raises(ValueError, match=message):
        correctness_reward(completions=["", completion], ground_truth=[tools(OSLO), truth])
    assert format_reward(completions=[""], ground_truth=[truth]) == [0.0]


def test_the_usage_example_is_true():
    results = doctest.testmod(tool_calling)
    assert results.attempted > 0
    assert results.failed == 0


def test_a_thought_that_the_prompt_opened_is_no_part_of_the_form_or_of_the_calls():
    truth = tools(OSLO)
    opened = truth.removeprefix("<think>")
    assert tool_calling.format_reward_opened([opened, truth], [truth] * 2) == [1.0, 0.0]
    assert format_reward([opened, truth], [truth] * 2) == [0.0, 1.0]
    thinking = "I would call <tool_call>\nno JSON\n</tool_call> or not." + opened[opened.index("</think>") :]
    assert correctness_reward([opened, thinking, truth], [truth] * 3) == [3.0, 3.0, 3.0]
    assert correctness_reward(["<think>" + thinking], [truth]) == [-3.0]  # ToolRL reads the first block
