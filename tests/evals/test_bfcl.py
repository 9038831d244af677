"""BFCL v3: accepted and spoiled answers of single turns, aggregates by hand and by the package itself.

What the package itself reads and computes is the peer; it is given accepted answers and texts of this file only.
"""

import csv
import random
import sys
import warnings
from types import ModuleType, SimpleNamespace

import pytest
from bfcl_answers import accepted, answer_text, in_source, with_a_spoiled_value
from hypothesis import given, settings
from hypothesis import strategies as st

from call_forms import WRITERS
from rvpo.errors import ConfigError
from rvpo.evals import bfcl, bfcl_library
from rvpo.evals.bfcl import CATEGORIES, GROUPS, WEIGHTS, record, summarize
from rvpo.evals.bfcl_forms import FORMS, RLLA_SYSTEM, native_calls, prompted_calls, rlla_calls, turns_of
from rvpo.evals.bfcl_library import language_of, load_cases, module, tools
from rvpo.evals.bfcl_turns import AskedCase, read_calls
from rvpo.evals.models import Answer, Question, native_text
from rvpo_lab.paper_tables import Run, tables

pytest.importorskip("bfcl_eval")

WITH_CALLS = [name for name in GROUPS["single_turn"] if "relevance" not in name]
EVERY = {"prompt": 1, "native": 4, "rlla": 4}
"""Each case in one form, each fourth in the others: `python tests/evals/bfcl_answers.py` has all of them in all."""
REFUSED = {
    # Lists of mixed types, which the checker makes texts of, so that its own accepted answer cannot be given.
    "java_36": "all", "java_65": "all",
    # No value is accepted for a parameter, or one that the function does not have.
    "live_simple_106-63-0": "all", "live_simple_112-68-0": "all", "live_multiple_862-181-3": "all",
    # A required parameter is not among the accepted ones.
    "live_multiple_964-207-0": "all",
    # The package's Java parser drops what is put into a map, and cannot read an array's texts without quotes, while
    # its checker wants them so.
    "java_1": "prompt", "java_67": "prompt", "java_68": "prompt", "java_35": "prompt", "java_85": "prompt",
    # A text stands where the list of accepted values belongs, of which the checker takes the letters.
    "java_64": "not prompt",
}  # fmt: skip
"""Accepted answers that the checker refuses, and in which forms."""


def is_refused(form, case):
    """Whether this accepted answer is a known exception."""
    where = REFUSED.get(case["id"])
    return where in ("all", "prompt" if form == "prompt" else "not prompt")


def score(form, category, case, text):
    """The record of an answer."""
    return record(Question.of(case["id"], 0, "", 0), AskedCase(case, category, FORMS[form]), Answer(text))


def is_right(form, category, case, text):
    return score(form, category, case, text)["scores"] == {"accuracy": 1.0, f"category:{category}": 1.0}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("category", WITH_CALLS)
def test_accepted_answers_are_right_spoiled_and_doubled_ones_wrong(form, category):
    language = language_of(category)
    for place, case in enumerate(load_cases(category)[:: EVERY[form]]):
        calls = accepted(case)
        text = answer_text(form, case, calls, language)
        assert is_right(form, category, case, text) is not is_refused(form, case), (case["id"], text)
        if place % 4:
            continue
        assert not is_right(form, category, case, answer_text(form, case, [*calls, calls[-1]], language))
        spoiled = with_a_spoiled_value(calls)
        if spoiled:
            assert not is_right(form, category, case, answer_text(form, case, spoiled, language))


def test_a_call_is_right_or_wrong_by_hand():
    case = {
        "id": "simple_0",
        "function": [
            {
                "name": "geo.area",
                "description": "Area.",
                "parameters": {
                    "type": "dict",
                    "properties": {"base": {"type": "integer"}, "unit": {"type": "string"}},
                    "required": ["base"],
                },
            }
        ],
        "truth": [{"geo.area": {"base": [10], "unit": ["m", ""]}}],
    }
    for text, right in {
        "[geo.area(base=10)]": True,
        "geo.area(unit='M', base=10)": True,  # case and the outer brackets do not matter
        "<think>[geo.area(base=9)]</think>\n[geo.area(base=10)]": True,
        "[geo.area(base=5 + 5)]": True,
        "[geo.area(base=10.5)]": False,
        "[geo.area(base='10')]": False,
        "[geo.area(10)]": False,  # positional arguments are not read
        "[area(base=10)]": False,
        "[geo.area(base=10, height=3)]": False,
        "[geo.area(base=10), geo.area(base=10)]": False,
        "The area is 10.": False,
    }.items():
        assert is_right("prompt", "simple", case, text) is right, text
    block = '<tool_call>\n{"name": "%s", "arguments": {"base": 10}}\n</tool_call>'
    assert is_right("native", "simple", case, block % "geo_area")
    assert not is_right("native", "simple", case, block % "geo.area")  # it was told of geo_area
    assert score("prompt", "simple", case, "[geo.area(base=9)]")["why"] == "value_error:others"
    assert score("prompt", "simple", case, "no")["why"] == "decoder:no_calls"


def test_where_no_call_is_wanted_only_a_readable_call_is_wrong():
    case = load_cases("irrelevance")[0]
    wanted = load_cases("live_relevance")[0]
    for form, call in {
        "prompt": "[f(a=1)]",
        "native": '<tool_call>{"name": "f", "arguments": {}}</tool_call>',
        "rlla": '<think> x </think>\n<tool_call>\n{"name": "f", "parameters": {}}\n</tool_call>',
    }.items():
        for text, calls in {call: True, "None of the functions fits.": False, "": False, call[:-4]: False}.items():
            assert is_right(form, "irrelevance", case, text) is not calls
            assert is_right(form, "live_irrelevance", case, text) is not calls
            assert is_right(form, "live_relevance", wanted, text) is calls
            assert score(form, "irrelevance", case, text).get("malformed") is (text == call[:-4])
    for text in (
        '[TOOL_CALLS] [{"name": "f", "arguments": {}}]',
        '<|python_tag|>{"name": "f", "parameters": {}}',
        '{"name": "f", "parameters": {}}',
        "<function=f>\n<parameter=a>\n1\n</parameter>\n</function>",
    ):
        assert score("native", "irrelevance", case, text)["why"] == "irrelevance:calls"
        assert is_right("native", "live_relevance", wanted, text)
        assert score("native", "irrelevance", case, text[:-4])["malformed"]
    assert not score("native", "irrelevance", case, 'The object {"name": "f"} is no call.')["malformed"]
    none = '<tool_call>\n{"name": "None", "parameters": {}}\n</tool_call>'
    assert is_right("rlla", "irrelevance", case, none)


def test_a_value_that_the_checker_cannot_take_is_wrong_and_stops_nothing():
    case = next(
        candidate
        for candidate in load_cases("simple")
        if "list" in str(candidate["truth"]) or "[{" in str(candidate["truth"])
    )
    ((name, choices),) = case["truth"][0].items()
    for value in ({}, [], [[]], [None], {"a": {"b": [1]}}, 1e999, None, "", [1, "a"]):
        text = answer_text("rlla", case, [(name, dict.fromkeys(choices, value))], "Python")
        assert not is_right("rlla", "simple", case, text)


NESTED = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)
CALLS = st.lists(
    st.tuples(
        st.sampled_from(["f", "f.g", "f_1.g.h"]),
        st.dictionaries(st.sampled_from(["a", "b2", "_c"]), NESTED, max_size=3),
    ),
    min_size=1,
    max_size=3,
)


def theirs(text, language="Python"):
    """What the package's own decoder reads; None for nothing. Only for texts that are safe to evaluate."""
    utils = module("bfcl_eval.model_handler.utils")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = utils.default_decode_ast_prompting(text, language)
    except Exception:
        return None
    return result or None


def ours(text, language="Python"):
    try:
        return prompted_calls(text, language)
    except ValueError:
        return None


@settings(max_examples=50)
@given(CALLS)
def test_python_calls_are_read_as_the_package_reads_them(calls):
    parts = [f"{name}({', '.join(f'{key}={value!r}' for key, value in values.items())})" for name, values in calls]
    for text in (", ".join(parts), f"[{', '.join(parts)}]", f"```\n[{', '.join(parts)}]\n```"):
        assert ours(text) == theirs(text)


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "I cannot.", "[f]", "[f()]", "f(a=1", "[f(1, b=2)]", "[f(a=b.c)]", "[f(a=b)]", "[f(a=g(1))]",
        "[f(a=g(b=1))]", "[f(a=x[0])]", "[f(a=-1)]", "[f(a=+1)]", "[f(a=-x)]", "[f(a=not True)]", "[f(a=2*3+1)]",
        "[f(a=7//2, b=7%4, c=2**10, d=1/4)]", "[f(a='x'+'y')]", "[f(a=x+1)]", "[f(a=(1, 2))]", "[f(a=...)]",
        "[f(a={1, 2})]", "[f(a={**b})]", "[f(a=lambda: 1)]", "[f(a=[i for i in b])]", "[f(a=f'{b}')]", "[f(**a)]",
        "[f(a=1) if b else g(c=2)]", "[f(a=1), 2]", "{'f': 1}", "[f(a=1)]; [g(b=2)]", "'[f(a=1)]'", "f(a=1)\x00",
        "[f(a=0x10, b=1e3, c=1_000)]", "[f(a='\\d')]", "[f(a='it''s')]", "[f()(a=1)]", "[f(a=b'c')]", "[[f(a=1)]]",
    ],
)  # fmt: skip
def test_odd_python_is_read_as_the_package_reads_it(text):
    assert ours(text) == theirs(text)


@pytest.mark.parametrize("category", ["java", "javascript"])
def test_other_languages_are_read_as_the_package_reads_them(category):
    language = language_of(category)
    for case in load_cases(category):
        text = answer_text("prompt", case, accepted(case), language)
        for variant in (text, text[1:-1], text[:-3], f"```{text}```"):
            assert ours(variant, language) == theirs(variant, language)


def test_a_models_text_is_never_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    effect = "__import__('pathlib').Path('ran').touch()"
    for argument in (
        f"{effect} + 1", f"1 + {effect}", f"(lambda: {effect})()", f"[{effect}]", f"x[{effect}]", f"f'{{{effect}}}'",
        f"-{effect}", f"{effect} or 1", "9 ** 9 ** 9", "'a' * 10 ** 12", "(10 ** 1000) * (10 ** 1000)", "1 / 0",
        "2 ** -5000",
    ):  # fmt: skip
        ours(f"[f(a={argument})]")
    assert not list(tmp_path.iterdir())
    for deep in ("(" * 5000, "[" * 5000, "-" * 100_000 + "1", "f(a=" * 300, "a." * 20_000 + "b(c=1)"):
        ours(f"[f(a={deep})]")


def test_blocks_of_native_and_rlla_calls():
    assert native_calls('a <tool_call>{"name": "f", "arguments": "{\\"a\\": 1}"}</tool_call>') == [{"f": {"a": 1}}]
    for bad in (
        "{}",
        "[]",
        "7",
        '{"name": "f"}',
        '{"name": "f", "arguments": [1]}',
        '{"name": "f", "arguments": "no"}',
    ):
        with pytest.raises(ValueError, match=r"cannot be read|one name with its parameters"):
            native_calls(f"<tool_call>{bad}</tool_call>")
    with pytest.raises(ValueError, match="no call"):
        native_calls('<think><tool_call>{"name": "f", "arguments": {}}</tool_call></think> No.')
    text = native_text("Look:", [("f", '{"a": "</tool_call>"}'), ("g", "{}"), ("h", "no JSON")])
    assert text.startswith("Look:\n<tool_call>")
    assert native_calls(native_text("", [("f", '{"a": "</tool_call> <x>"}')])) == [{"f": {"a": "</tool_call> <x>"}}]
    with pytest.raises(ValueError, match="cannot be read"):
        native_calls(text)
    with pytest.raises(ValueError, match="no call"):
        rlla_calls('<tool_call>\n{"name": "none", "parameters": {}}\n</tool_call>')


def written_as_text(case, category, calls):
    """Whether each value that is declared a text is one: bare text cannot tell a text from a truth value."""
    of = {tool["function"]["name"]: tool["function"]["parameters"] for tool in tools(case["function"], category)}
    kinds = [(of[name]["properties"][key]["type"], value) for name, values in calls for key, value in values.items()]
    return all(isinstance(value, str) for kind, value in kinds if kind == "string")


@pytest.mark.parametrize("form", WRITERS)
def test_accepted_answers_in_every_models_own_form_are_read_as_in_hermes(form):
    read = 0
    for category in WITH_CALLS:
        for case in load_cases(category)[::8]:
            given = [(name, in_source(case, name, values, language_of(category))) for name, values in accepted(case)]
            calls = [(name.replace(".", "_"), values) for name, values in given]
            if case["id"] in REFUSED or ("coder" in form and not written_as_text(case, category, calls)):
                continue
            setting = AskedCase(case, category, FORMS["native"])
            assert read_calls(setting, WRITERS[form](calls)) == read_calls(setting, WRITERS["hermes"](calls)), case[
                "id"
            ]
            read += 1
    assert read > 270


def test_the_numbers_of_cases_are_the_packages():
    assert {name: len(load_cases(name)) for name in CATEGORIES} == CATEGORIES
    assert sum(CATEGORIES.values()) == 4441


# By hand: simple_ast = (0.9 + 0.6 + 0.5) / 3 = 2/3; non_live = (2/3 + 0.8 + 0.7 + 0.6 + 0.9) / 5 = 11/15;
# live counts cases, 0.5 * 258 + 0.8 * 1053 + 0.5 * 16 + 0.25 * 24 + 0.5 * 882 + 0.5 * 18 = 1435.4 of 2251 = 0.63767;
# multi_turn = (0.2 + 0.1 + 0 + 0.1) / 4 = 0.1; overall = (0.73333 + 0.63767 + 0.1) / 3 = 0.49034.
SHARES = {
    "simple": 0.9, "java": 0.6, "javascript": 0.5, "multiple": 0.8, "parallel": 0.7, "parallel_multiple": 0.6,
    "irrelevance": 0.9,
    "live_simple": 0.5, "live_multiple": 0.8, "live_parallel": 0.5, "live_parallel_multiple": 0.25,
    "live_irrelevance": 0.5, "live_relevance": 0.5,
    "multi_turn_base": 0.2, "multi_turn_miss_func": 0.1, "multi_turn_miss_param": 0.0, "multi_turn_long_context": 0.1,
}  # fmt: skip
BY_HAND = {
    "simple_ast": 2 / 3,
    "non_live_ast": (2 / 3 + 0.8 + 0.7 + 0.6) / 4,
    "non_live": 11 / 15,
    "live": 1435.4 / 2251,
    "live_ast": (129 + 842.4 + 8 + 6) / 1351,
    "multi_turn": 0.1,
    "single_turn": (11 / 15 + 1435.4 / 2251) / 2,
    "irrelevance_detection": 0.7,
    "overall": (11 / 15 + 1435.4 / 2251 + 0.1) / 3,
}


def test_aggregates_by_hand():
    result = {name: sum(weight * SHARES[part] for part, weight in parts.items()) for name, parts in WEIGHTS.items()}
    assert result == pytest.approx(BY_HAND)
    assert result["overall"] == pytest.approx(0.49034, abs=5e-6)
    assert {name: sum(parts.values()) for name, parts in WEIGHTS.items()} == pytest.approx(dict.fromkeys(WEIGHTS, 1.0))


def test_aggregates_are_those_of_the_packages_leaderboard(tmp_path, monkeypatch):
    table = ModuleType("bfcl_eval.constants.model_config")
    named = dict.fromkeys(("display_name", "url", "org", "license"), "x")
    table.MODEL_CONFIG_MAPPING = {"m": SimpleNamespace(**named, input_price=None, output_price=None)}
    monkeypatch.setitem(sys.modules, "bfcl_eval.constants.model_config", table)
    monkeypatch.setenv("BFCL_PROJECT_ROOT", str(tmp_path))  # importing it makes folders
    helper = pytest.importorskip("bfcl_eval.eval_checker.eval_runner_helper")
    draw = random.Random(4)
    for shares in (SHARES, {name: draw.random() for name in SHARES}):
        rows = {name: {"accuracy": share, "total_count": CATEGORIES[name]} for name, share in shares.items()}
        helper.generate_leaderboard_csv({"m": rows}, tmp_path)
        read = {}
        for part in ("overall", "live", "non_live", "multi_turn"):
            with (tmp_path / f"data_{part}.csv").open() as file:
                read[part] = next(csv.DictReader(file))
        columns = {
            "overall": read["overall"]["Overall Acc"],
            "live": read["live"]["Live Overall Acc"],
            "live_ast": read["live"]["AST Summary"],
            "non_live": read["non_live"]["Non_Live Overall Acc"],
            "non_live_ast": read["non_live"]["AST Summary"],
            "simple_ast": read["non_live"]["Simple AST"],
            "multi_turn": read["multi_turn"]["Multi Turn Overall Acc"],
            "irrelevance_detection": read["overall"]["Irrelevance Detection"],
        }
        for name, shown in columns.items():
            ours = sum(weight * shares[part] for part, weight in WEIGHTS[name].items())
            assert f"{100 * ours:.2f}%" == shown, name


def made_up(shares, *, lost=(), without=()):
    """Records of every case, the first ones of each category right; some lost, some categories not asked."""
    records = []
    for category, number in CATEGORIES.items():
        for place in range(number if category not in without else 0):
            unit = f"{category}_{place}"
            names = ("accuracy", f"category:{category}")
            is_lost = unit in lost
            value = None if is_lost else float(place < round(shares[category] * number))
            records.append(
                {
                    "id": f"{unit}/0",
                    "unit": unit,
                    "scores": dict.fromkeys(names, value),
                    "bounds": {name: [0.0, 1.0] for name in names} if is_lost else {},
                    "missing": int(is_lost),
                    "category": category,
                    "why": None if value != 0.0 else "made up",
                }
            )
    return records


def test_a_summary_of_all_cases_names_its_aggregate_and_lists_every_category():
    result = summarize(made_up(SHARES))
    assert result["headline"] == "overall"
    assert result["not_run"] == {}
    assert list(result["scores"]) == result["shown"]
    assert [name for name in result["shown"] if name.startswith("category:")] == [f"category:{c}" for c in CATEGORIES]
    # 842 of 1053 live_multiple cases are right, where 0.8 would be 842.4.
    expected = BY_HAND | {"live": 1435 / 2251, "live_ast": 985 / 1351}
    expected["overall"] = (11 / 15 + 1435 / 2251 + 0.1) / 3
    for name in ("overall", "live", "non_live", "multi_turn", "live_ast", "simple_ast"):
        assert result["scores"][name]["value"] == pytest.approx(expected[name])
        assert result["scores"][name]["bounds"] == pytest.approx([expected[name]] * 2)
    assert result["wrong_because"] == {"made up": sum(record["scores"]["accuracy"] == 0 for record in made_up(SHARES))}


def test_the_interval_of_an_aggregate_by_hand():
    # multi_turn: shares 0.2, 0.1, 0, 0.1 of 200 cases each; s^2/n = p(1-p)/199; weights 1/4.
    error = ((0.16 + 0.09 + 0.09) / 199) ** 0.5 / 4
    low, high = summarize(made_up(SHARES))["scores"]["multi_turn"]["interval"]
    assert (low, high) == pytest.approx((0.1 - 1.959964 * error, 0.1 + 1.959964 * error))


def test_an_aggregate_without_one_of_its_categories_has_no_value():
    result = summarize(made_up(SHARES, without=GROUPS["multi_turn"]))
    assert result["headline"] == "single_turn"
    assert result["scores"]["single_turn"]["value"] == pytest.approx((11 / 15 + 1435 / 2251) / 2)
    for name in ("overall", "multi_turn", "category:multi_turn_base"):
        assert result["scores"][name]["value"] is None
        assert result["scores"][name]["bounds"] is None
    assert result["not_run"] == {name: [0, 200] for name in GROUPS["multi_turn"]}

    result = summarize(made_up(SHARES, without=("java", "live_relevance")))
    assert result["headline"] == "multi_turn"
    assert [name for name in WEIGHTS if result["scores"][name]["value"] is not None] == [
        "multi_turn", "live_ast", "irrelevance_detection",
    ]  # fmt: skip
    # One case fewer is a category that is not whole.
    assert summarize(made_up(SHARES)[1:])["headline"] == "live"
    assert summarize(made_up(SHARES)[:7])["headline"] == "accuracy"


def test_lost_answers_widen_the_bounds_and_are_no_zeros():
    # Lost: 100 of 200 multi_turn_base, all wrong ones of which 160 there are: 40 of 100 are right.
    lost = {f"multi_turn_base_{place}" for place in range(100, 200)}
    result = summarize(made_up(SHARES, lost=lost))["scores"]["multi_turn"]
    assert result["value"] == pytest.approx((0.4 + 0.1 + 0 + 0.1) / 4)
    # From none to all of the lost ones right: 40 to 140 of 200.
    assert result["bounds"] == pytest.approx([(0.2 + 0.2) / 4, (0.7 + 0.2) / 4])
    assert (result["items"], result["missing"]) == (700, 100)

    every = {f"multi_turn_base_{place}" for place in range(200)}
    result = summarize(made_up(SHARES, lost=every))["scores"]["multi_turn"]
    assert result["value"] is None
    assert result["bounds"] == pytest.approx([0.2 / 4, 1.2 / 4])
    case = load_cases("simple")[0]
    lost_record = record(
        Question.of("simple_0", 0, "", 0), AskedCase(case, "simple", FORMS["rlla"]), Answer(None, lost="why")
    )
    assert lost_record["scores"] == {"accuracy": None, "category:simple": None}
    assert (lost_record["missing"], lost_record["bounds"]["accuracy"]) == (1, [0.0, 1.0])


def test_build_draws_the_same_cases_and_says_what_they_depend_on():
    first = bfcl.build(categories=("live", "java"), number=3, repeats=2, seed=5)
    second = bfcl.build(categories=("java", "live"), number=3, repeats=2, seed=5)
    assert first.questions == second.questions
    assert first.questions != bfcl.build(categories=("live", "java"), number=3, repeats=2, seed=6).questions
    assert len(first.questions) == 7 * 3 * 2
    assert first.about["categories"] == ["java", *(name for name in CATEGORIES if name.startswith("live"))]
    assert bfcl.build(categories=("live_parallel",), number=99).about["number"] == 99


def test_prompts_of_the_three_forms():
    case = load_cases("multiple")[0]
    names = [function["name"] for function in case["function"]]
    user_text = case["question"][0][0]["content"]
    system, user = FORMS["prompt"].ask(case, "multiple", turns_of(case)).prompt
    assert "You are an expert in composing functions" in system["content"]
    assert all(name in system["content"] for name in names)
    assert user == {"role": "user", "content": user_text}
    asked = FORMS["native"].ask(case, "multiple", turns_of(case))
    assert asked.prompt == [user]
    assert [function["function"]["name"] for function in asked.tools] == [name.replace(".", "_") for name in names]
    system, user = FORMS["rlla"].ask(case, "multiple", turns_of(case)).prompt
    assert [f"{place}. Name: {name}\n" in system["content"] for place, name in enumerate(names, 1)] == [True] * len(
        names
    )
    assert user["content"].startswith(f"**Dialogue Records History**\n<user> {user_text}")
    # A case with a system message and an assistant's.
    case = next(case for case in load_cases("live_irrelevance") if len(case["question"][0]) == 4)
    roles = [message["role"] for message in case["question"][0]]
    assert roles == ["system", "user", "assistant", "user"]
    assert [
        message["role"] for message in FORMS["prompt"].ask(case, "live_irrelevance", turns_of(case)).prompt
    ] == roles
    system, user = FORMS["rlla"].ask(case, "live_irrelevance", turns_of(case)).prompt
    assert system["content"].endswith(case["question"][0][0]["content"])
    assert user["content"].count("<user>") == 2
    assert user["content"].count("<response>") == 1


def test_tools_have_the_types_of_json_schema():
    allowed = {"string", "integer", "number", "boolean", "array", "object"}
    for category in ("java", "javascript", "multiple", "live_multiple"):
        for case in load_cases(category)[::10]:
            for function in tools(case["function"], category):
                assert set(function) == {"type", "function"}
                assert {
                    schema["type"] for schema in function["function"]["parameters"]["properties"].values()
                } <= allowed
                assert "." not in function["function"]["name"]


def test_the_rlla_prompt_is_that_of_its_rows(shared_data):
    parquet = pytest.importorskip("pyarrow.parquet")
    for row in parquet.read_table(shared_data / "rlla_4k_test80.parquet").to_pylist():
        system, user = row["prompt"]
        before, after = RLLA_SYSTEM.split("TOOLS")
        assert system["content"].startswith(before)
        assert system["content"].rstrip().endswith(after)
        assert user["content"].startswith("**Dialogue Records History**\n<user> ")


def test_without_the_package_the_command_that_helps_is_told(monkeypatch):
    def absent(name):
        raise bfcl_library.PackageNotFoundError(name)

    for version, message in (
        (absent, "not installed: pip install"),
        (lambda name: "2025.8.1", "2025.8.1 is installed"),
    ):
        bfcl_library.require.cache_clear()
        with monkeypatch.context() as patched:
            patched.setattr(bfcl_library, "version", version)
            with pytest.raises(ConfigError, match=message):
                bfcl.build(categories=("java",))
        bfcl_library.require.cache_clear()
    with pytest.raises(ConfigError, match=r"no_such_part.*pip install"):
        module("bfcl_eval.no_such_part")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"answer_format": "rla"}, "did you mean 'rlla'"),
        ({"categories": ("live_simpel",)}, "did you mean 'live_simple'"),
        ({"categories": ()}, "at least one category"),
        ({"number": 0}, "at least 1, got 0"),
        ({"repeats": 0}, "at least 1"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ConfigError, match=message):
        bfcl.build(**options)


def test_the_stand_in_is_gone_after_the_import():
    assert "bfcl_eval.constants.model_config" not in sys.modules
    assert bfcl_library.CHECKER not in sys.modules


def test_the_task_has_the_options_of_the_benchmark():
    tasks = pytest.importorskip("rvpo.evals.tasks")
    made = tasks.bfcl(format="rlla", categories=["java", "live"], limit=2)
    assert (len(made.dataset), made.metadata["rvpo"]["settings"]["answer_format"]) == (14, "rlla")
    assert len(tasks.bfcl(categories="java").dataset) == 100


def test_tables_name_the_aggregate_and_list_every_category():
    whole = summarize(made_up(SHARES)) | {"benchmark": "bfcl", "label": "a", "step": 2}
    part = summarize(made_up(SHARES, without=GROUPS["multi_turn"])) | {"benchmark": "bfcl", "label": "b", "step": 2}
    text = tables([Run("1.5B GDPO", (whole,)), Run("1.5B RVPO", (part,))])
    assert "| 1.5B | GDPO | 1 | overall | 49.0 | 49.0 | 71.9 |" in text
    assert "| 1.5B | RVPO | 1 | single_turn | 68.5 | 68.5 | 71.9 |" in text
    assert "| overall | 49.0 | - |" in text
    assert "| category:java | 60.0 | 60.0 |" in text
    assert all(f"| category:{name} |" in text for name in CATEGORIES)
    assert "- 1.5B RVPO: multi_turn_base was asked 0 of 200 cases; what it belongs to has no value" in text
