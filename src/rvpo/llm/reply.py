"""What a chat server said: pure readings of the body of an answered call."""

from dataclasses import dataclass
from typing import Any, NamedTuple

__all__ = ["Failure", "Refusal", "Reply", "read_reply"]


class Reply(NamedTuple):
    """What a model said once."""

    text: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    calls: tuple[tuple[str, str], ...] = ()
    """Tool calls, where tools were offered: name, and arguments as JSON text."""


@dataclass(frozen=True)
class Refusal:
    """The model, or a filter before it, would not answer."""

    reason: str
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True)
class Failure:
    """No answer: the request was rejected, or the retry budget is over."""

    reason: str


def read_reply(body: object) -> Reply | Refusal:
    """Return what the JSON body of an answered chat call says; a body of another form is a reply without text."""
    answer = _mapping(body)
    usage = _mapping(answer.get("usage"))
    prompt_tokens, completion_tokens = (_count(usage.get(name)) for name in ("prompt_tokens", "completion_tokens"))
    choices = answer.get("choices")
    choice = _mapping(choices[0]) if isinstance(choices, list) and choices else {}
    message = _mapping(choice.get("message"))
    refusal, content = message.get("refusal"), message.get("content")
    if refusal or choice.get("finish_reason") == "content_filter":
        return Refusal(str(refusal or "content filter"), prompt_tokens, completion_tokens)
    text = content if isinstance(content, str) else ""
    return Reply(text, prompt_tokens, completion_tokens, _tool_calls(message.get("tool_calls")))


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _count(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _tool_calls(listed: object) -> tuple[tuple[str, str], ...]:
    """Return name and arguments of the tool calls that have a name."""
    functions = [_mapping(_mapping(call).get("function")) for call in (listed if isinstance(listed, list) else [])]
    return tuple(
        (function["name"], str(function.get("arguments") or "{}"))
        for function in functions
        if isinstance(function.get("name"), str)
    )
