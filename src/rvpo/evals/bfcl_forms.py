"""How BFCL's cases are asked: as its own system prompt does, through native tool calling, or in RLLA's form.

A conversation is rendered anew for every step from what was said so far (`Turn`, `Step`), so that it depends on
nothing else. A form's `read` is in `rvpo.evals.bfcl_calls`.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from rvpo.evals.bfcl_calls import native_calls, prompted_calls, rlla_calls, shown_call
from rvpo.evals.bfcl_library import Calls, Case, documented, module, tools
from rvpo.evals.tool_text import split_calls
from rvpo.llm.thoughts import without_thoughts

__all__ = ["FORMS", "Asked", "Form", "Step", "Turn", "turns_of"]

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


class Asked(NamedTuple):
    """What a model is given."""

    prompt: list[dict[str, Any]]
    tools: list[dict[str, Any]]


@dataclass(frozen=True)
class Form:
    """A way of asking and of reading the answer."""

    ask: Callable[[Case, str, Sequence[Turn]], Asked]
    """Case, category, turns so far -> what the model is given."""
    read: Callable[[str, str], Calls]
    """Answer, language -> its calls; ValueError without any."""
    attempt: re.Pattern[str]
    """What an answer has that tries to call something."""
    underscores: bool = False
    """Functions' names have underscores for dots."""


def turns_of(case: Case) -> list[Turn]:
    """Return a case's turns, before any answer."""
    later = case.get("missed_function", {})
    return [Turn(said, later.get(str(place), ())) for place, said in enumerate(case["question"])]


def _said(turn: Turn, announced: str) -> list[dict[str, str]]:
    """Return the messages of a turn; functions that come with it are announced instead."""
    return [{"role": "user", "content": announced}] if turn.functions else [dict(one) for one in turn.messages]


def _prompts() -> Any:
    return module("bfcl_eval.constants.default_prompts")


def _known(case: Case, turns: Sequence[Turn]) -> list[Mapping[str, Any]]:
    return [*case["function"], *(one for turn in turns for one in turn.functions)]


def _prompted(case: Case, category: str, turns: Sequence[Turn]) -> Asked:
    """Return BFCL's prompted form: functions in its system prompt, results of calls as a user's message."""
    announce = _prompts().DEFAULT_USER_PROMPT_FOR_ADDITIONAL_FUNCTION_PROMPTING
    messages: list[dict[str, Any]] = []
    for turn in turns:
        messages += _said(turn, announce.format(functions=list(turn.functions)))
        for step in turn.steps:
            shown = [
                {"role": "tool", "name": shown_call(name, values), "content": result}
                for call, result in zip(step.calls, step.results, strict=True)
                for name, values in call.items()
            ]
            messages += [{"role": "assistant", "content": without_thoughts(step.text)}]
            messages += [{"role": "user", "content": repr(shown)}] if shown else []
    utils: Any = module("bfcl_eval.model_handler.utils")
    functions = documented(case["function"], category)
    return Asked(utils.system_prompt_pre_processing_chat_model(messages, functions, category), [])


def _native(case: Case, category: str, turns: Sequence[Turn]) -> Asked:
    """Return the form of native tool calling: functions as `tools`, results as messages of the role "tool"."""
    messages: list[dict[str, Any]] = []
    for turn in turns:
        messages += _said(turn, _prompts().DEFAULT_USER_PROMPT_FOR_ADDITIONAL_FUNCTION_FC)
        for step in turn.steps:
            called: dict[str, Any] = {
                "role": "assistant",
                "content": split_calls(without_thoughts(step.text))[0].strip(),
            }
            ids = [f"call_{len(messages)}_{place}" for place in range(len(step.calls))]
            if step.calls:
                called["tool_calls"] = [
                    {"id": id_, "type": "function", "function": {"name": name, "arguments": values}}
                    for id_, call in zip(ids, step.calls, strict=True)
                    for name, values in call.items()
                ]
            results = [
                {"role": "tool", "tool_call_id": id_, "name": next(iter(call)), "content": result}
                for id_, call, result in zip(ids, step.calls, step.results, strict=True)
            ]
            messages += [called, *results]
    return Asked(messages, tools(_known(case, turns), category))


def _rlla(case: Case, category: str, turns: Sequence[Turn]) -> Asked:
    """Return RLLA's form: tools in its system prompt, the whole conversation in one message of the user."""
    listed = "\n".join(
        f"{number}. Name: {one['name']}\nDescription: {one['description']}\n"
        f"Parameters: {json.dumps(one['parameters'].get('properties', {}))}"
        for number, one in enumerate(documented(_known(case, turns), category), start=1)
    )
    system, parts = [RLLA_SYSTEM.replace("TOOLS", listed)], []
    for turn in turns:
        for message in _said(turn, _prompts().DEFAULT_USER_PROMPT_FOR_ADDITIONAL_FUNCTION_FC):
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
    return Asked(
        [
            {"role": "system", "content": "\n\n".join(system)},
            {"role": "user", "content": "**Dialogue Records History**\n" + "\n\n".join(parts)},
        ],
        [],
    )


FORMS: Mapping[str, Form] = {
    "prompt": Form(_prompted, prompted_calls, re.compile(r"\[\s*[\w.]+\(")),
    "native": Form(_native, native_calls, re.compile("<tool_call>"), underscores=True),
    "rlla": Form(_rlla, rlla_calls, re.compile("<tool_call>")),
}
"""Answer formats by name."""
