"""One chat call to an OpenAI-compatible server, tried again until it is answered or the budget of minutes is over.

The SDK's own retries are off: they count attempts, while a server that is restarting needs minutes. What can be tried
again: connection errors, timeouts, bodies cut short, 408, 409, 429 and 5xx; a Retry-After is honoured, otherwise the
wait doubles up to a minute, with full jitter. The slot of a call is free while it waits.
"""

import asyncio
import os
import random
import threading
import time
import weakref
from dataclasses import dataclass
from typing import Any

import openai

from rvpo.errors import JudgeError
from rvpo.judging.config import JudgeConfig
from rvpo.judging.store import Reply
from rvpo.llm.processes import share_of_process, world_size

__all__ = ["ChatClient", "Failure", "Refusal", "Usage"]

LONGEST_WAIT = 60.0
FIRST_WAIT = 0.5
CONFIGURATION = frozenset({401, 403, 404})
"""Statuses that no other request of the run would escape."""
AGAIN = frozenset({408, 409, 429})


@dataclass(frozen=True)
class Refusal:
    """The judge, or a filter before it, would not answer."""

    reason: str


@dataclass(frozen=True)
class Failure:
    """No answer: the request was rejected, or the retry budget is over."""

    reason: str


@dataclass
class Usage:
    """What was asked and paid, by this process."""

    calls: int = 0
    """Calls that the server answered."""
    retries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def cost(self, config: JudgeConfig) -> float:
        """Return the cost at the configured prices."""
        return (self.prompt_tokens * config.price_input + self.completion_tokens * config.price_output) / 1e6


@dataclass
class _Loop:
    """What belongs to one running event loop: connections and slots cannot be shared between loops."""

    sdk: openai.AsyncOpenAI
    slots: asyncio.Semaphore


class ChatClient:
    """Asks the server. One object serves any number of event loops and threads; it is pickled without connections."""

    def __init__(self, config: JudgeConfig) -> None:
        self.config = config
        self.usage = Usage()
        self._open = 0
        self._lock = threading.Lock()
        self._loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Loop] = weakref.WeakKeyDictionary()

    def __getstate__(self) -> dict[str, Any]:
        return {"config": self.config}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["config"])  # type: ignore[misc]

    def _here(self) -> _Loop:
        loop = asyncio.get_running_loop()
        found = self._loops.get(loop)
        if found is None:
            config = self.config
            # The SDK insists on a key; a server on one's own machine reads none.
            key = os.environ.get(config.api_key_env) or "none"
            sdk = openai.AsyncOpenAI(
                api_key=key, base_url=config.base_url, max_retries=0, timeout=config.timeout, organization=None
            )
            slots = asyncio.Semaphore(share_of_process(config.concurrency, least=1))
            self._loops[loop] = found = _Loop(sdk, slots)
        return found

    async def close(self) -> None:
        """Close the running loop's connections."""
        found = self._loops.pop(asyncio.get_running_loop(), None)
        if found is not None:
            await found.sdk.close()

    def check_budget(self) -> None:
        """Raise JudgeError if this process's share of the budget of calls or cost is used up."""
        config, usage, world = self.config, self.usage, world_size()
        whose = f", this process's share of it, one of {world}," if world > 1 else ""
        if config.max_calls is not None and usage.calls + self._open >= share_of_process(config.max_calls):
            raise JudgeError(f"the judge's budget of max_calls={config.max_calls} calls{whose} is used up")
        if config.max_cost is not None and usage.cost(config) >= config.max_cost / world:
            spent = f"{usage.cost(config):.2f}"
            raise JudgeError(f"the judge's budget of max_cost={config.max_cost}{whose} is used up ({spent})")

    async def ask(self, request: dict[str, Any]) -> Reply | Refusal | Failure:
        """Return the server's answer to a chat request, the body that is sent.

        Raises JudgeError if the server cannot be used as configured (401, 403, 404) or a budget is used up.
        """
        here, began, wait = self._here(), time.monotonic(), FIRST_WAIT
        while True:
            try:
                async with here.slots:
                    answer = await self._call(here.sdk, request)
                return self._reply(answer)
            except openai.APIStatusError as error:
                status = error.status_code
                if status in CONFIGURATION:
                    raise JudgeError(self._unusable(status)) from None
                if status not in AGAIN and status < 500:
                    return _rejected(error)
                problem, told = f"HTTP {status}", _retry_after(error.response.headers)
            # ValueError: a body that is no JSON.
            except (openai.APIConnectionError, openai.APIResponseValidationError, ValueError) as error:
                problem, told = type(error).__name__, None
            pause = told if told is not None else random.uniform(0, wait)
            wait = min(2 * wait, LONGEST_WAIT)
            if time.monotonic() - began + pause > 60 * self.config.retry_minutes:
                return Failure(f"{problem}, for {self.config.retry_minutes:g} minutes")
            self.usage.retries += 1
            await asyncio.sleep(pause)

    async def _call(self, sdk: openai.AsyncOpenAI, request: dict[str, Any]) -> object:
        """Return the body of one answered call.

        The SDK's generic request and plain JSON: its typed one spends a fifth of a call's time on converting the
        request and the answer.
        """
        with self._lock:
            self.check_budget()
            self._open += 1
        try:
            return await sdk.post("/chat/completions", body=request, cast_to=object)
        finally:
            with self._lock:
                self._open -= 1

    def _reply(self, answer: object) -> Reply | Refusal:
        """Count a call and return what it says; a body of another form says nothing."""
        body = _mapping(answer)
        spent = _mapping(body.get("usage"))
        prompt, completion = (_count(spent.get(name)) for name in ("prompt_tokens", "completion_tokens"))
        with self._lock:
            self.usage.calls += 1
            self.usage.prompt_tokens += prompt
            self.usage.completion_tokens += completion
        choices = body.get("choices")
        choice = _mapping(choices[0]) if isinstance(choices, list) and choices else {}
        message = _mapping(choice.get("message"))
        refusal, content = message.get("refusal"), message.get("content")
        if refusal or choice.get("finish_reason") == "content_filter":
            return Refusal(str(refusal or "content filter"))
        return Reply(content if isinstance(content, str) else "", prompt, completion, _calls(message))

    def _unusable(self, status: int) -> str:
        """Return what is wrong, in words of ours: the server's may repeat the key."""
        config = self.config
        where = config.base_url or "the default server"
        if status == 404:
            return f"{where} has no model {config.model!r} or no chat completions there (HTTP 404); check both names"
        state = "set" if os.environ.get(config.api_key_env) else "not set"
        return f"{where} refuses the key (HTTP {status}); ${config.api_key_env} is {state}"


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _calls(message: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return the tool calls of a message that have a name."""
    listed = message.get("tool_calls")
    called = [_mapping(_mapping(one).get("function")) for one in (listed if isinstance(listed, list) else [])]
    return tuple(
        (one["name"], str(one.get("arguments") or "{}")) for one in called if isinstance(one.get("name"), str)
    )


def _count(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _rejected(error: openai.APIStatusError) -> Refusal | Failure:
    """Return what a 4xx means for this one request: a content filter's refusal, or a request it cannot serve."""
    code = str(getattr(error, "code", "") or "")
    if "content_filter" in code or "content_policy" in code:
        return Refusal("content filter")
    return Failure(f"HTTP {error.status_code}")


def _retry_after(headers: Any) -> float | None:
    """Return the seconds of a Retry-After header, at most a minute; None without one (or with a date)."""
    try:
        seconds = float(headers.get("retry-after", ""))
    except ValueError:
        return None
    return min(max(seconds, 0.0), LONGEST_WAIT) if seconds == seconds else None
