"""How BFCL's cases are asked and how calls are read from the answers, in the three forms that models give them.

    prompt   BFCL's own system prompt; Python-like text, `[weather(city="Oslo"), time(zone=1)]`
    native   tool calling: an endpoint's `tool_calls`, or calls in the model's text in the form of its chat template
    rlla     RLLA's <think>, <tool_call> and <response>, read as the reward of training reads it

A conversation is rendered anew for every step from its turns so far (`Turn`, `Step`), so that it depends on nothing
else. Python text is parsed, never run. It is read as `bfcl-eval` reads it (keywords count and positional arguments do
not; a bare name is a text), with one difference: that package gives sums and products to `eval`; here only arithmetic
with literals is worked out. Java and JavaScript are parsed by its tree-sitter grammars.
"""

import ast
import json
import operator
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from rvpo.errors import reason
from rvpo.evals.bfcl_library import Calls, Case, documented, module, tools
from rvpo.llm.model_text import without_thoughts
from rvpo.llm.tool_calls import ATTEMPT, text_with_calls
from rvpo.rewards.tool_calling import read_calls

__all__ = ["FORMS", "Form", "Request", "Step", "Turn", "native_calls", "prompted_calls", "rlla_calls", "turns_of"]

MOST_BITS = 4096
"""Of a whole number that arithmetic in an argument may give: 9 ** 9 ** 9 must not be worked out."""
ARITHMETIC: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.Pow: operator.pow,
}  # fmt: skip
NO_TOOL = "none"
"""A tool by this name, which RLLA's own evaluation offers, is no tool."""
RLLA_SYSTEM = """\
You are a helpful multi-turn dialogue assistant capable of leveraging tool calls to solve user tasks and provide \
structured chat responses.

**Available Tools**
In your response, you can use the following tools:
TOOLS

**Steps for Each Turn**
1. **Think:** Recall relevant context and analyze the current user goal.
2. **Decide on Tool Usage:** If a tool is needed, specify the tool and its parameters.
3. **Respond Appropriately:** If a response is needed, generate one while maintaining consistency across user queries.

**Output Format**
```plaintext
<think> Your thoughts and reasoning </think>
<tool_call>
{"name": "Tool name", "parameters": {"Parameter name": "Parameter content", "... ...": "... ..."}}
{"name": "... ...", "parameters": {"... ...": "... ...", "... ...": "... ..."}}
...
</tool_call>
<response> AI's final response </response>
```

**Important Notes**
1. You must always include the `<think>` field to outline your reasoning. Provide at least one of `<tool_call>` or \
`<response>`. Decide whether to use `<tool_call>` (possibly multiple times), `<response>`, or both.
2. You can invoke multiple tool calls simultaneously in the `<tool_call>` fields. Each tool call should be a JSON \
object with a "name" field and an "parameters" field containing a dictionary of parameters. If no parameters are \
needed, leave the "parameters" field an empty dictionary.
3. Refer to the previous dialogue records in the history, including the user's queries, previous `<tool_call>`, \
`<response>`, and any tool feedback noted as `<obs>` (if exists)."""
"""The system prompt of every row of RLLA-4k (Apache-2.0), which a model trained on it must be given as it is."""
RLLA_HINT = "If no tool fits, or a parameter that it needs is not given, say so in your response and call no tool."
"""Added to what a user says: unlike RLLA's rows, BFCL's count a call where none is wanted as wrong."""


@dataclass
class Step:
    """One answer of a model inside a turn, and what its calls gave."""

    text: str
    calls: Calls
    results: Sequence[str]
    """One a call."""


@dataclass
class Turn:
    """What a user says, and what the model did about it."""

    messages: Sequence[Mapping[str, str]]
    functions: Sequence[Mapping[str, Any]] = ()
    """Descriptions of functions that come with this turn, in the place of a message."""
    steps: list[Step] = field(default_factory=list)


class Request(NamedTuple):
    """What a model is given."""

    prompt: list[dict[str, Any]]
    tools: list[dict[str, Any]]


@dataclass(frozen=True)
class Form:
    """A way of asking and of reading the answer."""

    ask: Callable[[Case, str, Sequence[Turn]], Request]
    """Case, category, turns so far -> what the model is given."""
    read: Callable[[str, str, Sequence[Mapping[str, Any]]], Calls]
    """Answer, language, tools that the model was given -> its calls; ValueError without any."""
    attempt: re.Pattern[str]
    """What an answer has that tries to call something."""
    has_tools: bool = False
    """Functions are the `tools` of a chat request; their names have underscores for dots."""


def turns_of(case: Case) -> list[Turn]:
    """Return a case's turns, before any answer."""
    later = case.get("missed_function", {})
    return [Turn(messages, later.get(str(place), ())) for place, messages in enumerate(case["question"])]


def _opening(turn: Turn, announced: str) -> list[dict[str, str]]:
    """Return the messages of a turn; functions that come with it are announced instead."""
    return [{"role": "user", "content": announced}] if turn.functions else list(map(dict, turn.messages))


def _prompts() -> Any:
    return module("bfcl_eval.constants.default_prompts")


def _known(case: Case, turns: Sequence[Turn]) -> list[Mapping[str, Any]]:
    return [*case["function"], *(function for turn in turns for function in turn.functions)]


def _prompted(case: Case, category: str, turns: Sequence[Turn]) -> Request:
    """Return BFCL's prompted form: functions in its system prompt, results of calls as a user's message."""
    announce = _prompts().DEFAULT_USER_PROMPT_FOR_ADDITIONAL_FUNCTION_PROMPTING
    messages: list[dict[str, Any]] = []
    for turn in turns:
        messages += _opening(turn, announce.format(functions=list(turn.functions)))
        for step in turn.steps:
            shown = [
                {"role": "tool", "name": _shown_call(name, values), "content": result}
                for call, result in zip(step.calls, step.results, strict=True)
                for name, values in call.items()
            ]
            messages += [{"role": "assistant", "content": without_thoughts(step.text)}]
            messages += [{"role": "user", "content": repr(shown)}] if shown else []
    utils: Any = module("bfcl_eval.model_handler.utils")
    functions = documented(case["function"], category)
    return Request(utils.system_prompt_pre_processing_chat_model(messages, functions, category), [])


def _native(case: Case, category: str, turns: Sequence[Turn]) -> Request:
    """Return the form of native tool calling: functions as `tools`, results as messages of the role "tool"."""
    messages: list[dict[str, Any]] = []
    for turn in turns:
        messages += _opening(turn, _prompts().DEFAULT_USER_PROMPT_FOR_ADDITIONAL_FUNCTION_FC)
        for step in turn.steps:
            content = text_with_calls(without_thoughts(step.text)).content.strip()
            message: dict[str, Any] = {"role": "assistant", "content": content}
            number = len(messages)
            messages.append(message)
            for place, (call, result) in enumerate(zip(step.calls, step.results, strict=True)):
                ((name, values),) = call.items()
                called: dict[str, Any] = {"id": f"call_{number}_{place}", "type": "function"}
                called |= {"function": {"name": name, "arguments": values}}
                message.setdefault("tool_calls", []).append(called)
                messages.append({"role": "tool", "tool_call_id": called["id"], "name": name, "content": result})
    return Request(messages, tools(_known(case, turns), category))


def _rlla(case: Case, category: str, turns: Sequence[Turn]) -> Request:
    """Return RLLA's form: tools in its system prompt, the whole conversation in one message of the user."""
    listed = "\n".join(
        f"{number}. Name: {function['name']}\nDescription: {function['description']}\n"
        f"Parameters: {json.dumps(function['parameters'].get('properties', {}))}"
        for number, function in enumerate(documented(_known(case, turns), category), start=1)
    )
    system, parts = [RLLA_SYSTEM.replace("TOOLS", listed)], []
    for turn in turns:
        for message in _opening(turn, _prompts().DEFAULT_USER_PROMPT_FOR_ADDITIONAL_FUNCTION_FC):
            match message["role"]:
                case "system":
                    system.append(message["content"])
                case "assistant":
                    parts.append(f"<response> {message['content'].strip()} </response>")
                case _:
                    parts.append(f"<user> {message['content'].strip()}\n{RLLA_HINT} </user>")
        for step in turn.steps:
            results = [
                {"name": next(iter(call)), "results": result}
                for call, result in zip(step.calls, step.results, strict=True)
            ]
            parts.append(step.text.strip() + (f"\n<obs> {json.dumps(results)} </obs>" if results else ""))
    return Request(
        [
            {"role": "system", "content": "\n\n".join(system)},
            {"role": "user", "content": "**Dialogue Records History**\n" + "\n\n".join(parts)},
        ],
        [],
    )


def _shown_call(name: str, values: Mapping[str, Any]) -> str:
    """Return a call as BFCL's prompted form writes it."""
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in values.items())})"


def prompted_calls(text: str, language: str, tools: object = ()) -> Calls:
    """Return the calls of an answer in BFCL's prompted form; ValueError without any, or if it cannot be read.

    Args:
        text: the answer, with its thoughts.
        language: "Python", "Java" or "JavaScript".
        tools: not looked at.
    """
    listed = without_thoughts(text).strip("`\n ")
    listed = listed if listed.startswith("[") else f"[{listed}"
    listed = listed if listed.endswith("]") else f"{listed}]"
    if language == "Python":
        calls = _python_calls(listed)
    else:
        name = {"Java": "java", "JavaScript": "js"}[language]
        parser: Any = module(f"bfcl_eval.model_handler.parser.{name}_parser")
        parse = getattr(parser, f"parse_{language.lower()}_function_call")
        try:
            calls = parse(listed[1:-1])
        except Exception as error:
            raise ValueError(f"no call in {language}: {error}") from error
    return _some(calls)


def _some(calls: object) -> Calls:
    """Return calls that have the checker's form; ValueError otherwise, or without any."""
    if not isinstance(calls, list) or not calls:
        raise ValueError("there is no call")
    for call in calls:
        if not (
            isinstance(call, dict) and len(call) == 1 and all(isinstance(values, dict) for values in call.values())
        ):
            raise ValueError("a call is one name with its parameters")
    return calls


def _python_calls(listed: str) -> Calls:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python has opinions on "\d" in a model's text
            body = ast.parse(listed.strip("[]'"), mode="eval").body
        calls = [body] if isinstance(body, ast.Call) else getattr(body, "elts", [])
        if not all(isinstance(call, ast.Call) for call in calls):
            raise ValueError("something else than a call is in the list")
        return [_call(call) for call in calls]
    except (SyntaxError, MemoryError, RecursionError, TypeError, ArithmeticError) as error:
        raise ValueError(f"no call in Python: {reason(error)}") from error


def _call(node: ast.Call) -> dict[str, dict[str, Any]]:
    parts, at = [], node.func
    while isinstance(at, ast.Attribute):
        parts.append(at.attr)
        at = at.value
    if isinstance(at, ast.Name):
        parts.append(at.id)
    # The name of **values is None, which no function has as a parameter.
    values: dict[Any, Any] = {keyword.arg: _value(keyword.value) for keyword in node.keywords}
    return {".".join(reversed(parts)): values}


def _value(node: ast.expr) -> Any:
    """Return what an argument says, as bfcl-eval does; ValueError for what can only be told by running it."""
    match node:
        case ast.Constant(value=value):
            return "..." if value is Ellipsis else value
        case ast.UnaryOp(operand=ast.Constant(value=bool() | int() | float() | complex() as number)):
            return -number  # whichever sign it is, as there
        case ast.List(elts=parts):
            return [_value(part) for part in parts]
        case ast.Tuple(elts=parts):
            return tuple(_value(part) for part in parts)
        case ast.Dict(keys=keys, values=values):
            return {_key(key): _value(value) for key, value in zip(keys, values, strict=True)}
        case ast.Name(id=name):
            return name
        case ast.Call():
            return _call(node) if node.keywords else ast.unparse(node)
        case ast.Subscript(value=inner, slice=place):
            return f"{ast.unparse(inner)}[{ast.unparse(place)}]"
        case ast.BinOp():
            return _worked_out(node)
        case _:
            raise ValueError(f"{type(node).__name__} is no value")


def _key(node: ast.expr | None) -> Any:
    if node is None:
        raise ValueError("** is no value")
    return _value(node)


def _worked_out(node: ast.expr) -> Any:
    """Return the value of arithmetic with literals; ValueError for anything else, or if it would be very large."""
    match node:
        case ast.Constant(value=bool() | int() | float() | str() as value):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            return -_worked_out(inner)
        case ast.BinOp(left=first, op=sign, right=second) if type(sign) in ARITHMETIC:
            a, b = _worked_out(first), _worked_out(second)
            if isinstance(a, str) and not (isinstance(b, str) and isinstance(sign, ast.Add)):
                raise ValueError("a text can only be joined to a text")
            if isinstance(a, int) and isinstance(b, int) and _bits(a, sign, b) > MOST_BITS:
                raise ValueError("a number in an argument is too large to be worked out")
            return ARITHMETIC[type(sign)](a, b)
        case _:
            raise ValueError(f"{type(node).__name__} in arithmetic is no literal")


def _bits(a: int, sign: ast.operator, b: int) -> int:
    """Return a bound on the bits of a result, where it can be much longer than its parts."""
    if isinstance(sign, ast.Pow):
        return a.bit_length() * abs(b)
    return a.bit_length() + b.bit_length() if isinstance(sign, ast.Mult) else 0


def native_calls(text: str, language: str = "", tools: Sequence[Mapping[str, Any]] = ()) -> Calls:
    """Return the calls of an answer in its model's own form; ValueError without any, or if one cannot be read.

    The forms are `rvpo.llm.tool_calls`'s; `tools` are those that the model was given.
    """
    called = text_with_calls(without_thoughts(text), tools)
    if called.unreadable:
        raise ValueError(called.unreadable)
    return _some([{call.name: call.arguments} for call in called.calls])


def rlla_calls(text: str, language: str = "", tools: object = ()) -> Calls:
    """Return the calls of an answer in RLLA's form, as its reward reads them; ValueError without any."""
    return _some([{call.name: dict(call.parameters)} for call in read_calls(text) if call.name.lower() != NO_TOOL])


FORMS: Mapping[str, Form] = {
    "prompt": Form(_prompted, prompted_calls, re.compile(r"\[\s*[\w.]+\(")),
    "native": Form(_native, native_calls, ATTEMPT, has_tools=True),
    "rlla": Form(_rlla, rlla_calls, re.compile("<tool_call>")),
}
"""Answer formats by name."""
