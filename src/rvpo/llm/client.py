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
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import openai

from rvpo.errors import JudgeError
from rvpo.llm.config import ServerConfig
from rvpo.llm.limits import share_of_process, world_size
from rvpo.llm.reply import Failure, Refusal, Reply, read_reply

__all__ = ["ChatClient", "Usage", "wait_bounds"]

FIRST_WAIT = 0.5
"""Seconds that the first wait of a call lasts at most."""
GROWTH = 2.0
"""How many times longer each further wait may be."""
LONGEST_WAIT = 60.0
"""Seconds that no wait exceeds, a server's Retry-After included."""
UNUSABLE = frozenset({401, 403, 404})
"""Statuses that no other request of the run would escape."""
RETRIED = frozenset({408, 409, 429})
"""Statuses below 500 that the same request can escape."""


def wait_bounds() -> Iterator[float]:
    """Yield the longest time in seconds of each wait in turn, without end; full jitter draws from 0 up to it."""
    bound = FIRST_WAIT
    while True:
        yield bound
        bound = min(GROWTH * bound, LONGEST_WAIT)


@dataclass
class Usage:
    """What was asked and paid, by this process."""

    calls: int = 0
    """Calls that the server answered."""
    retries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def cost(self, config: ServerConfig) -> float:
        """Return the cost at the configured prices."""
        return (self.prompt_tokens * config.price_input + self.completion_tokens * config.price_output) / 1e6


@dataclass
class _Connections:
    """What belongs to one running event loop: connections and slots cannot be shared between loops."""

    sdk: openai.AsyncOpenAI
    slots: asyncio.Semaphore


class ChatClient:
    """Asks the server. One object serves any number of event loops and threads; it is pickled without connections."""

    def __init__(self, config: ServerConfig) -> None:
        self.config = config
        self.usage = Usage()
        self._open = 0
        self._lock = threading.Lock()
        self._by_loop: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Connections] = weakref.WeakKeyDictionary()

    def __getstate__(self) -> dict[str, Any]:
        return {"config": self.config}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["config"])  # type: ignore[misc]

    def _connections(self) -> _Connections:
        """Return the connections of the running loop."""
        loop = asyncio.get_running_loop()
        connections = self._by_loop.get(loop)
        if connections is None:
            config = self.config
            # The SDK insists on a key; a server on one's own machine reads none.
            key = os.environ.get(config.api_key_env) or "none"
            sdk = openai.AsyncOpenAI(
                api_key=key, base_url=config.base_url, max_retries=0, timeout=config.timeout, organization=None
            )
            slots = asyncio.Semaphore(share_of_process(config.concurrency, least=1))
            self._by_loop[loop] = connections = _Connections(sdk, slots)
        return connections

    async def close(self) -> None:
        """Close the running loop's connections."""
        connections = self._by_loop.pop(asyncio.get_running_loop(), None)
        if connections is not None:
            await connections.sdk.close()

    async def ask(self, request: dict[str, Any]) -> Reply | Refusal | Failure:
        """Return the server's answer to a chat request, the body that is sent.

        Raises JudgeError if the server cannot be used as configured (401, 403, 404) or a budget is used up.
        """
        connections, began = self._connections(), time.monotonic()
        for bound in wait_bounds():
            try:
                async with connections.slots:
                    return self._counted(read_reply(await self._call(connections.sdk, request)))
            except openai.APIStatusError as error:
                status = error.status_code
                if status in UNUSABLE:
                    raise JudgeError(self._unusable(status)) from None
                if status not in RETRIED and status < 500:
                    return _rejected(error)
                problem, wait = f"HTTP {status}", _retry_after(error.response.headers)
            # ValueError: a body that is no JSON.
            except (openai.APIConnectionError, openai.APIResponseValidationError, ValueError) as error:
                problem, wait = type(error).__name__, None
            if wait is None:
                wait = random.uniform(0, bound)
            if time.monotonic() - began + wait > 60 * self.config.retry_minutes:
                break
            self.usage.retries += 1
            await asyncio.sleep(wait)
        return Failure(f"{problem}, for {self.config.retry_minutes:g} minutes")

    async def _call(self, sdk: openai.AsyncOpenAI, request: dict[str, Any]) -> object:
        """Return the body of one answered call.

        The SDK's generic request and plain JSON: its typed one spends a fifth of a call's time on converting the
        request and the answer.
        """
        with self._lock:
            self._check_budget()
            self._open += 1
        try:
            return await sdk.post("/chat/completions", body=request, cast_to=object)
        finally:
            with self._lock:
                self._open -= 1

    def _check_budget(self) -> None:
        """Raise JudgeError if this process's share of the budget of calls or cost is used up."""
        config, usage, world = self.config, self.usage, world_size()
        share = f", this process's share of it, one of {world}," if world > 1 else ""
        if config.max_calls is not None and usage.calls + self._open >= share_of_process(config.max_calls):
            raise JudgeError(f"the budget of max_calls={config.max_calls} calls{share} is used up")
        if config.max_cost is not None and usage.cost(config) >= config.max_cost / world:
            spent = f"{usage.cost(config):.2f}"
            raise JudgeError(f"the budget of max_cost={config.max_cost}{share} is used up ({spent})")

    def _counted(self, reply: Reply | Refusal) -> Reply | Refusal:
        """Count an answered call and its tokens; return the reply."""
        with self._lock:
            self.usage.calls += 1
            self.usage.prompt_tokens += reply.prompt_tokens
            self.usage.completion_tokens += reply.completion_tokens
        return reply

    def _unusable(self, status: int) -> str:
        """Return what is wrong, in words of ours: the server's may repeat the key."""
        config = self.config
        server = config.base_url or "the default server"
        if status == 404:
            return f"{server} has no model {config.model!r} or no chat completions there (HTTP 404); check both names"
        state = "set" if os.environ.get(config.api_key_env) else "not set"
        return f"{server} refuses the key (HTTP {status}); ${config.api_key_env} is {state}"


def _rejected(error: openai.APIStatusError) -> Refusal | Failure:
    """Return what a 4xx means for this one request: a content filter's refusal, or a request it cannot serve."""
    code = str(getattr(error, "code", "") or "")
    if "content_filter" in code or "content_policy" in code:
        return Refusal("content filter")
    return Failure(f"HTTP {error.status_code}")


def _retry_after(headers: Any) -> float | None:
    """Return the seconds of a Retry-After header, at most LONGEST_WAIT; None without one (or with a date)."""
    try:
        seconds = float(headers.get("retry-after", ""))
    except ValueError:
        return None
    return min(max(seconds, 0.0), LONGEST_WAIT) if seconds == seconds else None
