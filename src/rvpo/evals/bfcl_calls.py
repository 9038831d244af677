"""How calls are read from an answer to BFCL, in the three forms that models give them.

    prompt   Python-like text, `[weather(city="Oslo"), time(zone=1)]`: what BFCL's own system prompt asks for
    native   the model's own tool calls: an endpoint's `tool_calls`, or `<tool_call>` blocks in a local model's text
    rlla     RLLA's <think>, <tool_call> and <response>, read as the reward of training reads it

Python text is parsed, never run. It is read as `bfcl-eval` reads it (keywords count and positional arguments do not; a
bare name is a text), with one difference: that package gives sums and products to `eval`, and here an expression is
worked out only if it is arithmetic with literals. Java and JavaScript are parsed by its tree-sitter grammars.
"""

import ast
import json
import operator
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from rvpo.evals.bfcl_library import Calls, module
from rvpo.evals.tool_text import split_calls
from rvpo.llm.thoughts import without_thoughts
from rvpo.rewards.tool_calling import read_calls

__all__ = ["native_calls", "prompted_calls", "rlla_calls", "shown_call"]

MOST_BITS = 4096
"""Of a whole number that arithmetic in an argument may give: 9 ** 9 ** 9 must not be worked out."""
ARITHMETIC: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.Pow: operator.pow,
}  # fmt: skip
NO_TOOL = "none"
"""A tool by this name, which RLLA's own evaluation offers, is no tool."""


def prompted_calls(text: str, language: str) -> Calls:
    """Return the calls of an answer in BFCL's prompted form; ValueError without any, or if it cannot be read.

    Args:
        text: the answer, with its thoughts.
        language: "Python", "Java" or "JavaScript".
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
    for one in calls:
        if not isinstance(one, dict) or len(one) != 1 or not all(isinstance(values, dict) for values in one.values()):
            raise ValueError("a call is one name with its parameters")
    return calls


def _python_calls(listed: str) -> Calls:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python has opinions on "\d" in a model's text
            body = ast.parse(listed.strip("[]'"), mode="eval").body
        calls = [body] if isinstance(body, ast.Call) else getattr(body, "elts", [])
        if not all(isinstance(one, ast.Call) for one in calls):
            raise ValueError("something else than a call is in the list")
        return [_call(one) for one in calls]
    except (SyntaxError, MemoryError, RecursionError, TypeError, ArithmeticError) as error:
        raise ValueError(f"no call in Python: {error}") from error


def _call(node: ast.Call) -> dict[str, dict[str, Any]]:
    parts, at = [], node.func
    while isinstance(at, ast.Attribute):
        parts.append(at.attr)
        at = at.value
    if isinstance(at, ast.Name):
        parts.append(at.id)
    # The name of **values is None, which no function has as a parameter.
    values: dict[Any, Any] = {one.arg: _value(one.value) for one in node.keywords}
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


def native_calls(text: str, language: str = "") -> Calls:
    """Return the calls in the `<tool_call>` blocks of an answer; ValueError without any, or if one cannot be read.

    A block is a JSON object with `name` and `arguments`, an object or the JSON text of one.
    """
    calls = []
    for block in split_calls(without_thoughts(text))[1]:
        try:
            told = json.loads(block)
            name, values = told["name"], told["arguments"]
            values = json.loads(values) if isinstance(values, str) else values
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"a <tool_call> block cannot be read: {error}") from error
        calls.append({str(name): values})
    return _some(calls)


def rlla_calls(text: str, language: str = "") -> Calls:
    """Return the calls of an answer in RLLA's form, as its reward reads them; ValueError without any."""
    return _some([{one.name: dict(one.parameters)} for one in read_calls(text) if one.name.lower() != NO_TOOL])


def shown_call(name: str, values: Mapping[str, Any]) -> str:
    """Return a call as BFCL's prompted form writes it."""
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in values.items())})"
