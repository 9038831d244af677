"""BFCL's cases of several turns: conversations with a model whose calls are run by simulated APIs, and their check.

An answer to such a case is its transcript, JSON with one list of texts a turn. It is checked by running the calls
anew, beside the expected ones: after each turn both must have left the same state, and what the expected calls gave
must be among what the model's calls have given so far (`bfcl-eval`'s own comparison).

What a model says is never evaluated. `bfcl-eval` builds source text from a model's calls and gives it to `eval`; here
a call is a name and values that were parsed as data, and only a public method of the case's own APIs can be called.
These are plain Python objects in memory, without files or network. Differences that follow: a call within an argument
is not run, Python's builtins cannot be called, and numbers that would take for ever are refused.
"""

import ast
import decimal
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from itertools import chain
from typing import Any, NamedTuple

from rvpo.evals.benchmark import Ask
from rvpo.evals.bfcl_forms import Form, Step, turns_of
from rvpo.evals.bfcl_library import DOCUMENTS, Calls, Case, language_of, module, tools
from rvpo.evals.models import Answer, Question

__all__ = ["MOST_STEPS", "AskedCase", "World", "check_transcript", "conversed", "read_calls", "read_transcript"]

MOST_STEPS = 20
"""Answers with calls in one turn; one more ends the conversation, with what has been done until then."""
APIS = "bfcl_eval.eval_checker.multi_turn_eval.func_source_code."
CHECKER = "bfcl_eval.eval_checker.multi_turn_eval.multi_turn_checker"
STATELESS = "MathAPI"
WORK = {"precision": 10_000, "exponent": 10_000, "decimal_places": 10_000}
"""Highest values of parameters that say how much work a call is."""
MOST_BITS = 64
"""Of a whole number in a call."""


class AskedCase(NamedTuple):
    """A case and how it is asked."""

    case: Case
    category: str
    form: Form


class World:
    """The simulated APIs of one conversation, in their initial state."""

    def __init__(self, case: Case, category: str) -> None:
        self.apis: dict[str, Any] = {}
        self.methods: dict[str, Callable[..., Any]] = {}
        for name in case["involved_classes"]:
            api = getattr(module(APIS + DOCUMENTS[name]), name)()
            if name != STATELESS:
                state = deepcopy(case["initial_config"].get(name, {}))
                api._load_scenario(state, long_context="long_context" in category)
            self.apis[name] = api
            self.methods |= {
                key: method for key, method in inspect.getmembers(api, inspect.ismethod) if not key.startswith("_")
            }

    def run(self, name: str, values: Mapping[str, Any], places: Sequence[Any] = ()) -> str:
        """Return what a call gives, as text; "Error during execution: ..." if it fails or cannot be made.

        Args:
            name: of a method of the case's APIs.
            values: arguments by name.
            places: arguments by place, which only expected calls have.
        """
        try:
            method = self.methods.get(name)
            if method is None:
                raise NameError(f"name {name!r} is not defined")
            _refuse_work(method, values, places)
            # Some methods set the precision of all decimal arithmetic.
            with decimal.localcontext():
                return _as_text(method(*places, **values))
        except Exception as error:
            return f"Error during execution: {error}"

    def run_all(self, calls: Calls) -> list[str]:
        """Return what calls give, one after the other."""
        return [self.run(name, values) for call in calls for name, values in call.items()]


def _as_text(result: Any) -> str:
    if isinstance(result, dict):
        try:
            return json.dumps(result)
        except (TypeError, ValueError):
            return str(result)
    return str(result)


def _refuse_work(method: Callable[..., Any], values: Mapping[str, Any], places: Sequence[Any]) -> None:
    try:
        arguments = inspect.signature(method).bind(*places, **values).arguments
    except TypeError:
        return  # the call itself says it better
    for name, value in arguments.items():
        numbers = value if isinstance(value, list | tuple) else [value]
        if any(isinstance(number, int) and number.bit_length() > MOST_BITS for number in numbers):
            raise ValueError(f"{name} is too large")
        if isinstance(value, int | float) and abs(value) > WORK.get(name, float("inf")):
            raise ValueError(f"{name} is too large")


def _expected(text: str) -> tuple[str, dict[str, Any], list[Any]]:
    """Return an expected call's name, its arguments by name, and by place."""
    body: Any = ast.parse(text, mode="eval").body
    values = {keyword.arg: ast.literal_eval(keyword.value) for keyword in body.keywords}
    return body.func.id, values, [ast.literal_eval(argument) for argument in body.args]


def read_transcript(setting: AskedCase, text: str) -> list[list[Calls]]:
    """Return the calls of a transcript: turn by turn, answer by answer; answers without any are left out."""
    return [[calls for answer in turn if (calls := _read(setting, answer))] for turn in json.loads(text)]


def read_calls(setting: AskedCase, text: str) -> Calls:
    """Return the calls of an answer; ValueError without any, or if one cannot be read."""
    case, category, form = setting
    # With those that come in later turns: only the types of their parameters are looked at.
    functions = [*case["function"], *chain.from_iterable(case.get("missed_function", {}).values())]
    return form.read(text, language_of(category), tools(functions, category) if form.has_tools else [])


def _read(setting: AskedCase, text: str) -> Calls:
    try:
        return read_calls(setting, text)
    except ValueError:
        return []


def check_transcript(case: Case, category: str, turns: Sequence[Sequence[Calls]]) -> str | None:
    """Return why a conversation's calls do not do what they should, None if they do."""
    if len(turns) != len(case["truth"]):
        return "multi_turn:force_terminated"
    checker: Any = module(CHECKER)
    ours, theirs = World(case, category), World(case, category)
    results: list[str] = []
    for place, (answers, truth) in enumerate(zip(turns, case["truth"], strict=True)):
        for calls in answers:
            results += ours.run_all(calls)
        wanted = [theirs.run(*_expected(text)) for text in truth]
        if not truth:
            continue
        if not answers:
            return "multi_turn:empty_turn_model_response"
        try:
            same = checker.state_checker(ours.apis, theirs.apis)
        except RecursionError:
            # A folder that was moved into itself equals nothing.
            return "multi_turn:instance_state_mismatch"
        for verdict in (same, checker.response_checker(results, wanted, place)):
            if not verdict["valid"]:
                return str(verdict["error_type"])
    return None


async def conversed(question: Question, setting: AskedCase, ask: Ask) -> Answer:
    """Return the transcript of a whole conversation, lost if one answer is; killed half-way, it begins anew."""
    world, turns = World(setting.case, setting.category), turns_of(setting.case)
    tokens, is_cut = 0, False
    for place, turn in enumerate(turns):
        for _ in range(MOST_STEPS + 1):
            request = setting.form.ask(setting.case, setting.category, turns[: place + 1])
            answer = await ask(replace(question, prompt=request.prompt, tools=request.tools))
            tokens, is_cut = tokens + answer.tokens, is_cut or answer.is_cut
            if answer.text is None:
                return Answer(None, tokens, is_cut, answer.lost)
            calls = _read(setting, answer.text)
            turn.steps.append(Step(answer.text, calls, world.run_all(calls)))
            if not calls:
                break
        else:
            break  # it calls and calls
    transcript = [[step.text for step in turn.steps] for turn in turns if turn.steps]
    return Answer(json.dumps(transcript), tokens, is_cut)
