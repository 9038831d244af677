"""What of a text is its answer, text that every file can hold, and when too much is missing.

Calls in every form that chat templates give them: the same calls, whatever is around, cut, nested or endless.
"""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from call_forms import WRITERS
from rvpo.evals.bfcl_forms import prompted_calls
from rvpo.evals.gpqa import parse_letter
from rvpo.judging.verdicts import parse_rating
from rvpo.llm.limits import MOST_MISSING, too_many_missing
from rvpo.llm.model_text import is_cut_in_thought, json_text, without_thoughts
from rvpo.llm.tool_calls import NativeCall, template_form, text_with_calls

# --- Answers ---


HALF = st.characters(categories=("Cs",))


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("A", "A"),
        (" A\n", "A"),
        ("<think>B</think>\n\nA", "A"),
        ("B\n</think>\n\nA", "A"),
        ("<think>B</think>C</think>A", "A"),
        ("A<think>B", "A"),
        ("<think>B</think>A<think>C", "A"),
        ("C<think>B</think>A", "A"),
        ("<think>B", ""),
        ("The `<think>` tag, '</think>' and \"<think>\".", "The `<think>` tag, '</think>' and \"<think>\"."),
        ("<think>`</think>` ends it</think>A", "A"),
        ("'<think>B</think>' A", "' A"),
        ("`<think>", "`"),
        ("<think>B</think>", ""),
        ("", ""),
    ],
)
def test_the_answer_is_what_follows_the_last_thought(text, answer):
    assert without_thoughts(text) == answer


@given(st.lists(st.sampled_from(["<think>", "</think>", "a", " ", "\n", "<", "think>"]), max_size=12).map("".join))
def test_no_thought_is_left_in_an_answer(text):
    answer = without_thoughts(text)
    assert "</think>" not in answer
    assert "<think>" not in answer
    assert answer in text
    assert without_thoughts(answer) == answer
    assert is_cut_in_thought(text) == (text.rfind("<think>") > text.rfind("</think>"))


def test_every_reader_cuts_thoughts_in_the_same_way():
    assert parse_letter("Answer: B\n</think>\n\nAnswer: A") == "A"
    assert parse_rating('{"rating": 3}</think>{"rating": 7}') == 7
    assert parse_rating('{"rating": 7}<think>or') is None  # a reply that was cut may have ended otherwise
    assert prompted_calls("[g(x=1)]\n</think>\n[f(x=1)]", "Python") == [{"f": {"x": 1}}]


@given(st.text(st.characters() | HALF))
def test_json_text_can_be_written_and_is_read_back_as_it_was(value):
    text = json_text({"text": value})
    assert b"\n" not in text.encode()
    # Two halves that belong together are one character in JSON.
    assert json.loads(text) == {"text": value.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_json_does_not_have_is_no_json_text(value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_text(value)


@pytest.mark.parametrize(
    ("missing", "total", "most", "is_too_many"),
    [
        (4, 20, MOST_MISSING, False),
        (5, 20, MOST_MISSING, True),
        (19, 19, MOST_MISSING, False),
        (20, 20, 1.0, False),
        (0, 20, 0.0, False),
        (1, 20, 0.0, True),
        (29, 100, 0.29, False),  # 0.29 * 100 is a little less than 29
        (30, 100, 0.29, True),
        (0, 0, 0.0, False),
    ],
)
def test_too_many_are_missing_beyond_the_share_and_from_twenty_on(missing, total, most, is_too_many):
    assert too_many_missing(missing, total, most) is is_too_many


# --- Calls ---


TYPES = {"whole": "integer", "share": "number", "word": "string", "yes": "boolean", "tree": "object", "row": "array"}
TOOLS = [
    {"name": name, "parameters": {"properties": {key: {"type": kind} for key, kind in TYPES.items()}}}
    for name in ("f", "geo_area")
]
PLAIN = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="<>[]"), max_size=8)
NESTED = st.recursive(PLAIN | st.integers() | st.booleans(), lambda inner: st.lists(inner, max_size=3), max_leaves=5)
ARGUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "whole": st.integers(),
        "share": st.floats(allow_nan=False, allow_infinity=False),
        "word": PLAIN.filter(lambda text: text.strip().lower() != "null"),
        "yes": st.booleans(),
        "tree": st.dictionaries(PLAIN, NESTED, max_size=2),
        "row": st.lists(NESTED, max_size=3),
    },
)


@pytest.mark.parametrize("form", WRITERS)
@given(calls=st.lists(st.tuples(st.sampled_from(["f", "geo_area"]), ARGUMENTS), min_size=1, max_size=3))
def test_every_form_gives_back_the_calls_that_were_written(form, calls):
    called = text_with_calls(WRITERS[form](calls), TOOLS)
    assert called == ("", [NativeCall(*call) for call in calls], "") or (
        called.calls == [NativeCall(*call) for call in calls] and not called.content.strip()
    )


TWO = [("f", {"word": "a } ] \" b", "tree": {"x": [{"y": "}"}]}}), ("geo_area", {})]  # fmt: skip


@pytest.mark.parametrize("form", WRITERS)
def test_text_around_calls_is_what_is_left(form):
    text = WRITERS[form](TWO)
    bare = form in ("llama", "mistral, tag dropped")
    called = text_with_calls(text + "\nDone." if bare else f"Let me see.\n{text}\nDone.", TOOLS)
    assert [call._asdict() for call in called.calls] == [{"name": n, "arguments": v} for n, v in TWO]
    assert called.content.split() == (["Done."] if bare else ["Let", "me", "see.", "Done."])
    if bare:  # JSON in prose is no call
        assert text_with_calls(f"For example {text}", TOOLS) == (f"For example {text}", [], "")


@pytest.mark.parametrize("form", WRITERS)
def test_a_cut_call_is_never_half_a_call(form):
    text = WRITERS[form](TWO)
    whole = [NativeCall(*call) for call in TWO]
    for end in range(len(text)):
        called = text_with_calls(text[:end], TOOLS)
        assert called.calls == whole[: len(called.calls)], text[:end]
        assert called.calls or called.unreadable or called.content.strip() or not text[:end].strip(), text[:end]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('<tool_call>{"name": "f"}</tool_call>', "arguments"),
        ('<tool_call>{"name": "f", "arguments": {}} and more</tool_call>', "follows a call"),
        ("<tool_call><function=f><parameter=a>1</parameter></function> and more</tool_call>", "between calls"),
        ("<function=f>word</function>", "neither JSON"),
        ("<function=f>[1]</function>", "neither JSON"),
        ('[TOOL_CALLS]f[ARGS]{"a": ', "Expecting"),
        ("[TOOL_CALLS][1]", "JSON object"),
        ('<|python_tag|>__import__("os").system("x")', "Expecting"),
        ('{"name": "Oslo", "population": 3}', "arguments"),
        ('[TOOL_CALLS]f{"a": ' + "9" * 5000 + "}", "digits"),
        ("[TOOL_CALLS]f{" + '"a": {' * 100_000, "nested too deep"),
    ],
)
def test_what_cannot_be_read_is_said(text, why):
    called = text_with_calls(text)
    assert called.calls == []
    assert why in called.unreadable


def test_values_in_bare_text_have_the_types_of_the_tools():
    values = {
        "whole": "12",
        "share": "3",
        "word": "12",
        "yes": "True",
        "tree": '{"a": 1}',
        "row": "no list",
        "other": "7",
    }
    inside = "".join(f"<parameter={key}>\n{value}\n</parameter>\n" for key, value in values.items())
    (call,) = text_with_calls(f"<function=f>{inside}</function>", TOOLS).calls
    assert call.arguments == {
        "whole": 12, "share": 3, "word": "12", "yes": True, "tree": {"a": 1}, "row": "no list", "other": 7,
    }  # fmt: skip
    (call,) = text_with_calls("<function=f><parameter=word>a\n b <parameter=whole>4.0</function>", TOOLS).calls
    assert call.arguments == {"word": "a\n b ", "whole": 4}
    either = [{"name": "f", "parameters": {"properties": {"word": {"type": ["string", "null"]}}}}]
    (call,) = text_with_calls("<function=f><parameter=word>12</parameter></function>", either).calls
    assert call.arguments == {"word": "12"}


@pytest.mark.parametrize(
    "bomb",
    [
        "<tool_call>", "<function=f>", "<function=f", "[TOOL_CALLS]", "<|python_tag|>", "<parameter=", '{"name":',
        "[TOOL_CALLS]f{}", '<tool_call>{"name":"f","arguments":{}}</tool_call>', "<function=f><parameter=a>",
        '<tool_call>{"a":"', "[TOOL_CALLS]f[ARGS] ", "<tool_call><function=f>", "\n", "[TOOL_CALLS] \n",
    ],
)  # fmt: skip
def test_a_long_text_is_looked_at_a_bounded_number_of_times(bomb, monkeypatch):
    """Each character is decoded as JSON at most once, and no closing tag that is missing is searched for twice."""
    from rvpo.llm import tool_calls

    decoded, searches = [], []

    class Decoder:
        def raw_decode(self, text, start):
            try:
                value, end = json.JSONDecoder().raw_decode(text, start)
            except ValueError:
                decoded.append(len(text) - start)
                raise
            decoded.append(end - start)
            return value, end

    class Text(str):
        def find(self, tag, start=0):
            place = super().find(tag, start)
            searches.append((place if place >= 0 else len(self)) - start)
            return place

    monkeypatch.setattr(tool_calls, "WORDS", Decoder())
    for text in (bomb * 20_000, bomb * 20_000 + "</function></tool_call>"):
        decoded.clear()
        searches.clear()
        text_with_calls(Text(text))
        assert sum(decoded) <= 2 * len(text)
        assert sum(searches) <= 3 * len(text)


OTHER = (
    "{% for m in messages %}{{ m.content }}"
    "{% for c in m.tool_calls or [] %}CALL {{ c.function.name }}{% endfor %}{% endfor %}"
)


def unread_form(template):
    """What `template_form` says of a chat template, rendered as transformers does."""
    from transformers.utils.chat_template_utils import render_jinja_template

    def render(messages, **options):
        return render_jinja_template(conversations=[messages], chat_template=template, **options)[0][0]

    return template_form(render)


def test_a_chat_template_of_another_form_is_told_beforehand():
    assert unread_form(OTHER) == "CALL look_up"
    assert unread_form("{{ raise_exception('no tools here') }}") is None
    assert unread_form("{% for m in messages %}{{ m.content }}{% endfor %}{{ tools | length }}") is None


def test_the_templates_that_trl_ships_are_read_or_told():
    folder = Path(pytest.importorskip("trl").__file__).parent / "chat_templates"
    texts = {file.stem: file.read_text(encoding="utf-8") for file in folder.glob("*.jinja")}
    for name in ("llama3_1", "llama3_2", "qwen2_5", "qwen3", "qwen3_5_think", "nemotron_3_nano"):
        assert name not in texts or unread_form(texts[name]) is None
    if "glm4moe" in texts:
        assert unread_form(texts["glm4moe"]).startswith("<think></think>\n<tool_call>look_up")
