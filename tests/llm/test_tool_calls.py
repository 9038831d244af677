"""Calls in every form that chat templates give them: the same calls, whatever is around, cut, nested or endless."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from call_forms import WRITERS
from rvpo.llm.tool_calls import NativeCall, template_form, text_with_calls

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
