"""Tool calls in the text of a model, in the forms that chat templates give them: one reader for all of them.

    Hermes, Qwen      <tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>
    Qwen3-Coder       <tool_call><function=f><parameter=a>1</parameter></function></tool_call>
                      (the outer tag may be missing)
    Llama 3.1, tags   <function=f>{"a": 1}</function>
    Llama 3, JSON     {"name": "f", "parameters": {"a": 1}}; {...}   after <|python_tag|>, or as the whole answer
    Mistral           [TOOL_CALLS][{"name": "f", "arguments": {"a": 1}}, ...], or [TOOL_CALLS]f[ARGS]{"a": 1}

Sources: the models' chat templates, and vLLM's parsers hermes, qwen3_coder, llama3_json and mistral. Text is parsed as
data and never run, in time linear in its length.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from rvpo.errors import reason

__all__ = ["ATTEMPT", "MARKERS", "CalledText", "NativeCall", "template_form", "text_with_calls"]

MARKERS = (
    "<tool_call>", "</tool_call>", "<function=", "</function>", "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]",
    "<|python_tag|>",
)  # fmt: skip
"""What the forms are told by. Some tokenizers have them as special tokens, which decoding leaves out by default."""
NAME = r"[^>\n]{1,256}"
"""Of a function or parameter in a tag; bounded, or a search among many open tags would take quadratic time."""
CLOSING = {"<tool_cal": "</tool_call>", "<function": "</function>"}
"""First nine characters of an opening -> what must close it."""
OPENING = re.compile(rf"<tool_call>|<function=({NAME})>|\[TOOL_CALLS\]|<\|python_tag\|>")
PARAMETER = re.compile(rf"\n?<parameter=({NAME})>\n?|\n?</parameter>")
MISTRAL = re.compile(r"\s*([\w.-]{1,256})\s*(?:\[CALL_ID\]\s*\w{1,256}\s*)?(?:\[ARGS\])?\s*(?=\{)")
BARE = re.compile(r'\s*(?:\[\s*)?\{\s*"(?:name|type|function)"\s*:')
"""How an answer begins that is nothing but calls in JSON."""
ATTEMPT = re.compile(rf"<tool_call>|<function=|\[TOOL_CALLS\]|<\|python_tag\|>|\A{BARE.pattern}")
"""What a text has that tries to call something, readable or not."""
BETWEEN = re.compile(r"[\s;,]*")
WORDS = json.JSONDecoder()
TYPES: Mapping[str, tuple[type, ...]] = {
    "integer": (int,), "number": (int, float), "float": (int, float), "boolean": (bool,), "object": (dict,),
    "dict": (dict,), "array": (list,), "tuple": (list,), "null": (type(None),),
}  # fmt: skip


class NativeCall(NamedTuple):
    """One call: the function's name and its arguments by name."""

    name: str
    arguments: dict[str, Any]


class CalledText(NamedTuple):
    """What a text holds."""

    content: str
    """The text without its calls."""
    calls: list[NativeCall]
    unreadable: str = ""
    """Why a call cannot be read; those after it are not looked for."""


Tools = Sequence[Mapping[str, Any]]
"""Functions as in a chat request; only the types of their parameters are used."""


def text_with_calls(text: str, tools: Tools = ()) -> CalledText:
    """Return a text's calls, and what is left of it. A tag that nothing closes is no call but text.

    Where a form writes values as bare text (Qwen3-Coder's), `tools` say what is a text and what is JSON; a parameter
    that they do not describe is JSON if it can be read as such.

    >>> text_with_calls('Look: <tool_call>{"name": "f", "arguments": {}}</tool_call>, <tool_call>')
    CalledText(content='Look: , <tool_call>', calls=[NativeCall(name='f', arguments={})], unreadable='')
    >>> text_with_calls('[TOOL_CALLS]f[ARGS]{"a": 1}[TOOL_CALLS]g{}').calls
    [NativeCall(name='f', arguments={'a': 1}), NativeCall(name='g', arguments={})]
    """
    if BARE.match(text):
        try:
            calls, end = _json_calls(text, 0)
        except (ValueError, RecursionError) as error:
            return CalledText(text, [], _reason(error))
        return CalledText(text[end:], calls)
    content, calls, end, unclosed = [], [], 0, set[str]()
    for opening in OPENING.finditer(text):
        if opening.start() < end:
            continue
        closing = CLOSING.get(opening[0][:9], "")
        close = text.find(closing, opening.end()) if closing not in unclosed else -1
        if closing and close < 0:
            unclosed.add(closing)
            continue
        content.append(text[end : opening.start()])
        try:
            if closing:
                end = close + len(closing)
                calls += _block(text[opening.end() : close], opening[1], tools)
            else:
                read = _mistral if opening[0] == "[TOOL_CALLS]" else _json_calls
                newest, end = read(text, opening.end())
                calls += newest
        except (ValueError, RecursionError) as error:
            return CalledText("".join(content), calls, _reason(error))
    return CalledText("".join([*content, text[end:]]), calls)


def _reason(error: Exception) -> str:
    return f"a call cannot be read: {reason(error)}"[:200]


def _block(inside: str, name: str | None, tools: Tools) -> Iterable[NativeCall]:
    """Return the calls between two tags, the opening one of which may have named the function."""
    if name is None and inside.lstrip().startswith("<function="):
        called = text_with_calls(inside, tools)  # goes no deeper: a block holds no whole block
        if called.unreadable or called.content.strip():
            raise ValueError(called.unreadable or f"{called.content.strip()[:40]!r} stands between calls")
        return called.calls
    if name is None:
        calls, end = _json_calls(inside, 0)
        if inside[end:].strip():
            raise ValueError(f"{inside[end:].strip()[:40]!r} follows a call in its block")
        return calls
    if inside.lstrip().startswith("{"):
        return [NativeCall(name, _arguments(_value(inside, 0)[0]))]
    return [NativeCall(name, _parameters(inside, name, tools))]


def _parameters(inside: str, function: str, tools: Tools) -> dict[str, Any]:
    """Return the values of `<parameter=NAME>` tags; one that is not closed ends where the next begins."""
    kinds = next((_kinds(tool) for tool in tools if _function(tool).get("name") == function), {})
    tags = [*PARAMETER.finditer(inside)]
    starts = [tag.start() for tag in tags] + [len(inside)]
    if inside[: starts[0]].strip():
        raise ValueError("there is neither JSON nor a <parameter=NAME> in a <function=NAME>")
    return {
        tag[1]: _typed(inside[tag.end() : end], kinds.get(tag[1]))
        for tag, end in zip(tags, starts[1:], strict=True)
        if tag[1] is not None
    }


def _function(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    function = tool.get("function", tool)
    return function if isinstance(function, Mapping) else {}


def _kinds(tool: Mapping[str, Any]) -> dict[str, str]:
    """Return the types of a function's parameters by name."""
    properties = (_function(tool).get("parameters") or {}).get("properties") or {}
    types = {name: schema.get("type") for name, schema in properties.items() if isinstance(schema, Mapping)}
    types = {name: "string" if isinstance(kind, list) and "string" in kind else kind for name, kind in types.items()}
    return {name: kind for name, kind in types.items() if isinstance(kind, str)}


def _typed(text: str, kind: str | None) -> Any:
    """Return a value that is written as bare text: JSON where it is of the type, else the text; null is none."""
    if kind is not None and kind not in TYPES and text.strip().lower() != "null":
        return text
    words = {"True": "true", "False": "false", "None": "null", "NULL": "null", "Null": "null"}
    try:
        value = json.loads(words.get(text.strip(), text))
    except (ValueError, RecursionError):
        return text
    if kind is None:
        return value
    if kind == "integer" and isinstance(value, float) and value.is_integer():
        value = int(value)
    fits = isinstance(value, TYPES.get(kind, ())) and (kind == "boolean" or not isinstance(value, bool))
    return value if fits or value is None else text


def _mistral(text: str, start: int) -> tuple[list[NativeCall], int]:
    """Return the calls after a `[TOOL_CALLS]`, and where they end."""
    named = MISTRAL.match(text, start)
    if named is None:
        return _json_calls(text, start)
    value, end = _value(text, named.end())
    return [NativeCall(named[1], _arguments(value))], end


def _json_calls(text: str, start: int) -> tuple[list[NativeCall], int]:
    """Return calls that are JSON, in a list or one after the other, at least one, and where they end."""
    calls: list[NativeCall] = []
    while True:
        value, end = _value(text, start)
        calls += [_json_call(part) for part in (value if isinstance(value, list) and value else [value])]
        start = BETWEEN.match(text, end).end()  # type: ignore[union-attr]
        if not text.startswith(("{", "["), start) or text.startswith(MARKERS, start):
            return calls, end


def _json_call(value: Any) -> NativeCall:
    """Return a call from its JSON; ValueError for what is none."""
    if not isinstance(value, dict):
        raise ValueError(f"a call is a JSON object, not {json.dumps(value)[:40]}")
    inner = value.get("function")
    value = inner if isinstance(inner, dict) else value
    name = value.get("name")
    if not isinstance(name, str):
        raise ValueError('a call has no text "name"')
    keys = [key for key in ("arguments", "parameters") if key in value]
    if not keys:
        raise ValueError('a call has no "arguments" or "parameters"')
    return NativeCall(name, _arguments(value[keys[0]]))


def _arguments(value: Any) -> dict[str, Any]:
    """Return arguments, an object or the JSON text of one."""
    value = json.loads(value) if isinstance(value, str) else value
    if not isinstance(value, dict):
        raise ValueError("a call's arguments are no object")
    return value


def _value(text: str, start: int) -> tuple[Any, int]:
    """Return the JSON value at a place, and where it ends."""
    return WORDS.raw_decode(text, BETWEEN.match(text, start).end())  # type: ignore[union-attr]


EXAMPLE: Mapping[str, Any] = {"name": "look_up", "arguments": {"word": "oats", "number": 3}}
SCHEMA = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Look a word up.",
        "parameters": {
            "type": "object",
            "properties": {
                "word": {"type": "string", "description": "What to look up."},
                "number": {"type": "integer", "description": "Of answers."},
            },
            "required": ["word"],
        },
    },
}


def template_form(render: Callable[..., str]) -> str | None:
    """Return how a chat template writes a call, if that is a form which `text_with_calls` does not read; else None.

    `render(messages, tools=..., add_generation_prompt=...)` returns a prompt as text. None also for a template that
    takes no calls in messages: then what the model writes is not known beforehand.
    """
    question = [{"role": "user", "content": "Oats?"}]
    called = {"id": "abcdefghi", "type": "function", "function": EXAMPLE}
    answer = {"role": "assistant", "content": "", "tool_calls": [called]}
    try:
        before = render(question, tools=[SCHEMA], add_generation_prompt=True)
        after = render([*question, answer], tools=[SCHEMA], add_generation_prompt=False)
    except Exception:  # a template is a program of its own, and may want another conversation
        return None
    start = next((at for at, pair in enumerate(zip(before, after, strict=False)) if pair[0] != pair[1]), len(before))
    written = after[start:]
    if "look_up" not in written:
        return None
    calls = text_with_calls(written.strip(), [SCHEMA]).calls
    return None if [call._asdict() for call in calls] == [EXAMPLE] else written.strip()
