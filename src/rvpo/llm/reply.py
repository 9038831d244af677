"""What a chat server said: pure readings of the body of a call, answered or rejected."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from rvpo.llm.model_text import whole

__all__ = ["Failure", "Refusal", "Rejection", "Reply", "read_rejection", "read_reply"]

MOST_TOKENS = 10**9
"""A larger count of tokens is none: no call has so many, and no database holds what a server may write there."""
CUT = frozenset({"length", "max_tokens"})
"""What servers call the end of a reply at its limit of tokens."""
PASSING = {
    "rate": 429,
    "too many": 429,
    "exhausted": 429,
    "overload": 503,
    "unavailable": 503,
    "timeout": 408,
    "timed out": 408,
    "capacity": 503,
}
"""What a server that answers an error under status 200, without a code, calls an error that passes."""
WORDS = ("detail", "message", "msg")
"""Where bodies without an `error` have the words of one."""


class Reply(NamedTuple):
    """What a model said once."""

    text: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    calls: tuple[tuple[str, str], ...] = ()
    """Tool calls, where tools were offered: name, and arguments as JSON text."""
    is_cut: bool = False
    """The server ended it at max_tokens."""


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
    """In our words: a status, or what happened on the way."""
    message: str = field(default="", compare=False)
    """In the server's words, on one line, shortened, without keys; then what to set, where that is known."""
    rejected_field: str = field(default="", compare=False)
    """The field of the request that the server's words name, where they name one."""

    @property
    def is_of_this_request(self) -> bool:
        """Whether the server rejected it, and named no field that other requests have too."""
        return re.fullmatch(r"HTTP 4\d\d", self.reason) is not None and not self.rejected_field

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}" if self.message else self.reason


class Rejection(NamedTuple):
    """An error in a server's answer."""

    status: int
    """HTTP's, or the one that the body gives under HTTP 200."""
    code: str = ""
    message: str = ""


def read_reply(body: object) -> Reply | Refusal:
    """Return what the JSON body of an answered chat call says; a body of another form is a reply without text.

    Content in parts is joined. Where a server takes thoughts out of the content, they are not read; but a JSON object
    that stands there alone, beside an empty content, is the answer in the wrong place.
    """
    answer = _mapping(body)
    usage = _mapping(answer.get("usage"))
    prompt_tokens, completion_tokens = (_count(usage.get(name)) for name in ("prompt_tokens", "completion_tokens"))
    choice = _choice(answer)
    message = _mapping(choice.get("message"))
    refusal, end = message.get("refusal"), choice.get("finish_reason")
    if refusal or end == "content_filter":
        return Refusal(whole(str(refusal or "content filter")), prompt_tokens, completion_tokens)
    text = _content(message.get("content"))
    thoughts = _content(message.get("reasoning_content") or message.get("reasoning")).strip()
    if not text.strip() and thoughts.startswith("{") and thoughts.endswith("}"):
        text = thoughts
    calls = _tool_calls(message.get("tool_calls"))
    return Reply(whole(text), prompt_tokens, completion_tokens, calls, str(end).lower() in CUT)


def read_rejection(status: int, body: object) -> Rejection | None:
    """Return the error that an answer holds, None if it holds none; `body` is its JSON, or its text.

    Under a status below 400 an error in the body counts, with its code as the status where that is one.
    """
    answer = _mapping(body[0] if isinstance(body, list) and len(body) == 1 else body)
    error = _error(answer)
    if status < 400 and error is None:
        return None
    details = _mapping(error)
    message = details.get("message") or (error if isinstance(error, str) else None)
    message = message or next((answer[name] for name in WORDS if answer.get(name)), None) or error or body or ""
    code = details.get("code") or details.get("type") or ""
    text, code = whole(message if isinstance(message, str) else repr(message)), str(code)
    return Rejection(status if status >= 400 else _status_in_body(details, f"{code} {text}"), code, text)


def _error(answer: Mapping[str, Any]) -> dict[str, Any] | str | None:
    """Return what says of a body that it is an error; None if nothing does. The body itself, if it has no choices."""
    for given in (answer.get("error"), _choice(answer).get("error"), answer.get("errors")):
        error = given[0] if isinstance(given, list) and given else given
        if error and isinstance(error, dict | str):
            return error
    says_so = "choices" not in answer and any(answer.get(name) for name in ("error", *WORDS))
    return dict(answer) if says_so or answer.get("object") == "error" else None


def _status_in_body(error: Mapping[str, Any], words: str) -> int:
    """Return the status of an error under HTTP 200: its code, or what its words say of it; otherwise 400."""
    for given in (error.get("code"), error.get("status"), error.get("status_code"), error.get("error_code")):
        if str(given).isdecimal() and 400 <= int(str(given)[:4]) <= 599:
            return int(str(given))
    return next((status for word, status in PASSING.items() if word in f"{words} {error.get('status')}".lower()), 400)


def _choice(answer: Mapping[str, Any]) -> dict[str, Any]:
    choices = answer.get("choices")
    return _mapping(choices[0]) if isinstance(choices, list) and choices else {}


def _content(content: object) -> str:
    """Return the text of a content: a text, or the texts of a part or of a list of parts."""
    if isinstance(content, str):
        return content
    listed = content if isinstance(content, list) else [content]
    parts = [part if isinstance(part, str) else _mapping(part) for part in listed]
    texts = [part if isinstance(part, str) else part.get("text") for part in parts if not _is_thought(part)]
    texts = [_mapping(text).get("value", text) for text in texts]
    return "".join(text for text in texts if isinstance(text, str))


def _is_thought(part: str | Mapping[str, Any]) -> bool:
    return not isinstance(part, str) and part.get("type") in ("thinking", "reasoning")


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _count(value: object) -> int:
    return value if isinstance(value, int) and 0 < value <= MOST_TOKENS else 0


def _tool_calls(listed: object) -> tuple[tuple[str, str], ...]:
    """Return name and arguments of the tool calls that have a name."""
    functions = [_mapping(_mapping(call).get("function")) for call in (listed if isinstance(listed, list) else [])]
    return tuple(
        (whole(function["name"]), whole(str(function.get("arguments") or "{}")))
        for function in functions
        if isinstance(function.get("name"), str)
    )
