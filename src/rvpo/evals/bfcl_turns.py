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
from typing import Any, NamedTuple

from rvpo.evals.benchmark import Ask
from rvpo.evals.bfcl_forms import Form, Step, Turn, turns_of
from rvpo.evals.bfcl_library import DOCUMENTS, Calls, Case, language_of, module
from rvpo.evals.models import Answer, Question

__all__ = ["MOST_STEPS", "AskedCase", "World", "check_transcript", "conversed", "read_transcript"]

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
        if any(isinstance(one, int) and one.bit_length() > MOST_BITS for one in numbers):
            raise ValueError(f"{name} is too large")
        if isinstance(value, int | float) and abs(value) > WORK.get(name, float("inf")):
            raise ValueError(f"{name} is too large")


def _expected(text: str) -> tuple[str, dict[str, Any], list[Any]]:
    """Return an expected call's name, its arguments by name, and by place."""
    body: Any = ast.parse(text, mode="eval").body
    places = [ast.literal_eval(one) for one in body.args]
    return body.func.id, {one.arg: ast.literal_eval(one.value) for one in body.keywords}, places


def read_transcript(setting: AskedCase, text: str) -> list[list[Calls]]:
    """Return the calls of a transcript: turn by turn, answer by answer; answers without any are left out."""
    return [[calls for said in turn if (calls := _read(setting, said))] for turn in json.loads(text)]


def _read(setting: AskedCase, text: str) -> Calls:
    try:
        return setting.form.read(text, language_of(setting.category))
    except ValueError:
        return []


def check_transcript(case: Case, category: str, turns: Sequence[Sequence[Calls]]) -> str | None:
    """Return why a conversation's calls do not do what they should, None if they do."""
    if len(turns) != len(case["truth"]):
        return "multi_turn:force_terminated"
    checker: Any = module(CHECKER)
    ours, theirs = World(case, category), World(case, category)
    given: list[str] = []
    for place, (answers, truth) in enumerate(zip(turns, case["truth"], strict=True)):
        for calls in answers:
            given += ours.run_all(calls)
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
        for found in (same, checker.response_checker(given, wanted, place)):
            if not found["valid"]:
                return str(found["error_type"])
    return None


class Conversation:
    """One case on its way: what is asked next, and what has been answered."""

    def __init__(self, question: Question, setting: AskedCase) -> None:
        self.question, self.setting = question, setting
        self.world = World(setting.case, setting.category)
        self.turns = turns_of(setting.case)
        self.at = self.tokens = self.count = 0
        self.is_cut, self.lost = False, ""

    @property
    def is_over(self) -> bool:
        """Whether nothing more is asked."""
        return bool(self.lost) or self.at >= len(self.turns) or self._is_stuck

    @property
    def _turn(self) -> Turn:
        return self.turns[self.at]

    @property
    def _is_stuck(self) -> bool:
        return len(self._turn.steps) > MOST_STEPS

    def next(self) -> Question:
        """Return the next thing to ask."""
        asked = self.setting.form.ask(self.setting.case, self.setting.category, self.turns[: self.at + 1])
        self.count += 1
        return replace(
            Question.of(f"{self.question.id}@{self.count}", 0, asked.prompt, self.question.seed), tools=asked.tools
        )

    def take(self, answer: Answer) -> None:
        """Take an answer in: run its calls, or go on to the next turn if it has none."""
        self.tokens += answer.tokens
        self.is_cut |= answer.is_cut
        if answer.text is None:
            self.lost = answer.lost or "lost"
            return
        calls = _read(self.setting, answer.text)
        self._turn.steps.append(Step(answer.text, calls, self.world.run_all(calls)))
        if not calls:
            self.at += 1

    def answer(self) -> Answer:
        """Return the transcript; lost as a whole if one answer is."""
        if self.lost:
            return Answer(None, self.tokens, self.is_cut, self.lost)
        begun = self.turns[: self.at + 1]
        return Answer(json.dumps([[step.text for step in turn.steps] for turn in begun]), self.tokens, self.is_cut)


async def conversed(question: Question, setting: AskedCase, ask: Ask) -> Answer:
    """Return the transcript of a whole conversation; one that is killed half-way begins anew."""
    conversation = Conversation(question, setting)
    while not conversation.is_over:
        conversation.take(await ask(conversation.next()))
    return conversation.answer()
