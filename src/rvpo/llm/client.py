"""One chat call to an OpenAI-compatible server, tried again until it is answered or the budget of minutes is over.

The budget is one of minutes, not of attempts: a server that is restarting needs minutes. What can be tried again:
connection errors, timeouts, bodies cut short, 408, 409, 429 and 5xx, also as an error under HTTP 200; a Retry-After is
honoured, otherwise the wait doubles up to a minute, with full jitter. The slot of a call is free while it waits, and
its budget begins with its first attempt.

Who is told to stop does not wait that long: `rvpo.llm.limits` ends all waiting at once, and all calls, whose answers
may be paid for, after GRACE seconds.
"""

import asyncio
import json
import logging
import os
import random
import re
import threading
import time
import weakref
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

import openai

from rvpo.errors import JudgeError, StopRequestedError
from rvpo.llm.config import ServerConfig, masked_url, server_url
from rvpo.llm.limits import are_stopped, register, share_of_process, world_size
from rvpo.llm.model_text import json_text, whole
from rvpo.llm.reply import Failure, Refusal, Rejection, Reply, read_rejection, read_reply
from rvpo.llm.wire import BadAnswer, exchange
from rvpo.text import shown

__all__ = ["GRACE", "SCHEMA_FIELD", "ChatClient", "Usage", "wait_bounds"]

FIRST_WAIT = 0.5
"""Seconds that the first wait of a call lasts at most."""
GROWTH = 2.0
"""How many times longer each further wait may be."""
LONGEST_WAIT = 60.0
"""Seconds that no wait exceeds, a server's Retry-After included."""
GRACE = 3.0
"""Seconds that calls have left once their client is told to stop."""
UNUSABLE = frozenset({401, 403, 404})
"""Statuses that no other request of the run would escape."""
RETRIED = frozenset({408, 409, 429})
"""Statuses below 500 that the same request can escape."""
MESSAGE = 240
"""Characters of a server's own words that are shown."""
MOST_SHOWN = 10_000
"""Characters of a body that is no JSON of which those are taken."""
LIKE_A_KEY = re.compile(r"(?i)\b(?:bearer\s+|(?:sk|pk|rk|hf|gsk|xai|key)[-_])[\w.*~+/=-]{4,}")
SCHEMA_FIELD = "response_format"
RENAMED = dict.fromkeys(("json_schema", "guided", "guided_json", "grammar", "structured output"), SCHEMA_FIELD)
"""What servers call a field of the request by another name."""

logger = logging.getLogger(__name__)


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

    http: openai.DefaultAsyncHttpxClient
    slots: asyncio.Semaphore
    ends_at: float | None = None
    """The loop's time at which all calls end, once they are told to stop."""
    calls: set[asyncio.Timeout] = field(default_factory=set)
    """Of calls under way."""
    waits: set[asyncio.Timeout] = field(default_factory=set)
    """Of calls that wait for another attempt."""

    def stop(self) -> None:
        """Let waiting end now and calls soon; called in the loop."""
        now = asyncio.get_running_loop().time()
        self.ends_at = now + GRACE if self.ends_at is None else self.ends_at
        for timeouts, end in ((self.calls, self.ends_at), (self.waits, now)):
            for timeout in timeouts:
                timeout.reschedule(end)

    @asynccontextmanager
    async def until_stopped(self, *, waits: bool = False) -> AsyncIterator[None]:
        """Raise StopRequestedError in what still runs when it must end: waiting now, a call in its time of grace."""
        stopped = StopRequestedError("calls of the judge were given up, as the run was told to stop")
        is_over = self.ends_at is not None and (waits or self.ends_at <= asyncio.get_running_loop().time())
        if is_over:
            raise stopped
        timeouts = self.waits if waits else self.calls
        try:
            async with asyncio.timeout_at(self.ends_at) as timeout:
                timeouts.add(timeout)
                try:
                    yield
                finally:
                    timeouts.discard(timeout)
        except TimeoutError:
            if not timeout.expired():
                raise
            raise stopped from None


class _Passing(NamedTuple):
    """What went wrong in a way that may pass."""

    problem: str
    message: str = ""
    retry_after: float | None = None
    """Seconds that the server asks for."""


class ChatClient:
    """Asks the server. One object serves any number of event loops and threads; it is pickled without connections."""

    def __init__(self, config: ServerConfig) -> None:
        self.config = config
        self.usage = Usage()
        self.first_failure: Failure | None = None
        """The first call that got no answer: what the server said when it began to go wrong."""
        self.refuses_schemas = False
        """A request with a schema for its reply is not sent, but fails as a rejected one does."""
        self._open = 0
        self._lock = threading.Lock()
        self._waits = False
        self._by_loop: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Connections] = weakref.WeakKeyDictionary()
        register(self)

    def __getstate__(self) -> dict[str, Any]:
        return {"config": self.config}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["config"])  # type: ignore[misc]

    @cached_property
    def _url(self) -> str:
        """Where chat requests are sent; ConfigError for a server that is no URL."""
        parts = urlsplit(server_url(self.config.base_url))
        return urlunsplit(parts._replace(path=f"{parts.path}/chat/completions"))

    def _connections(self) -> _Connections:
        """Return the connections of the running loop."""
        loop = asyncio.get_running_loop()
        connections = self._by_loop.get(loop)
        if connections is None:
            # The deadline of a call is `exchange`'s.
            http = openai.DefaultAsyncHttpxClient(timeout=None, follow_redirects=False)
            slots = asyncio.Semaphore(share_of_process(self.config.concurrency, least=1))
            self._by_loop[loop] = connections = _Connections(http, slots)
            if are_stopped():
                connections.stop()
        return connections

    def _headers(self) -> dict[str, str]:
        """Return a request's headers; JudgeError for a key that no header can carry."""
        key = os.environ.get(self.config.api_key_env, "").strip()
        if not (key.isascii() and key.isprintable()):
            raise JudgeError(f"the key in ${self.config.api_key_env} has characters that no key has; set it anew")
        headers = {"Content-Type": "application/json", "Accept": "application/json", "Accept-Encoding": "identity"}
        named = {"OpenAI-Organization": "OPENAI_ORG_ID", "OpenAI-Project": "OPENAI_PROJECT_ID"}
        headers |= {name: os.environ[variable] for name, variable in named.items() if os.environ.get(variable)}
        user = urlsplit(self._url).username  # a user and password in the URL are the key
        return headers if user else headers | {"Authorization": f"Bearer {key or 'none'}"}

    def stop(self) -> None:
        """End all waiting, in whatever loop and thread; a loop's calls raise StopRequestedError until it is closed."""
        for loop, connections in list(self._by_loop.items()):
            if not loop.is_closed():
                loop.call_soon_threadsafe(connections.stop)

    def stop_here(self) -> None:
        """End the running loop's waiting, as `stop` does."""
        self._connections().stop()

    async def close(self) -> None:
        """Close the running loop's connections."""
        connections = self._by_loop.pop(asyncio.get_running_loop(), None)
        if connections is not None:
            await connections.http.aclose()

    async def ask(self, request: Mapping[str, Any], *, tries_again: bool = True) -> Reply | Refusal | Failure:
        """Return the server's answer to a chat request, the body that is sent; a field that is None is left out.

        What may pass is tried again for `retry_minutes`, unless only one try is wanted.
        Raises JudgeError if the server cannot be used as configured (401, 403, 404) or a budget is used up, and
        StopRequestedError after `stop`.
        """
        fields = {name: value for name, value in request.items() if value is not None}
        payload, headers = json_text(whole(fields)).encode(), self._headers()
        connections, began, tries = self._connections(), None, 0
        problem = message = ""
        for bound in wait_bounds():
            async with connections.slots:
                if self.refuses_schemas and SCHEMA_FIELD in fields:  # found out while this one queued
                    return Failure("not sent", "the server refuses schemas", SCHEMA_FIELD)
                began = time.monotonic() if began is None else began
                async with connections.until_stopped():
                    answer = await self._call(connections.http, headers, payload, fields)
            if not isinstance(answer, _Passing):
                return self._counted(answer)
            (problem, message, wait), tries = answer, tries + 1
            if wait is None or tries > 1:  # "Retry-After: 0" again and again is not believed
                wait = max(wait or 0.0, random.uniform(0, bound))
            if not tries_again:
                return self._counted(Failure(problem, message))
            if time.monotonic() - began + wait > 60 * self.config.retry_minutes:
                break
            self._announce_wait(f"{problem}: {message}" if message else problem)
            self.usage.retries += 1
            async with connections.until_stopped(waits=True):
                await asyncio.sleep(wait)
        return self._counted(Failure(f"{problem}, for {self.config.retry_minutes:g} minutes", message))

    async def _call(
        self,
        http: openai.DefaultAsyncHttpxClient,
        headers: Mapping[str, str],
        payload: bytes,
        fields: Mapping[str, Any],
    ) -> Reply | Refusal | Failure | _Passing:
        """Return what one attempt brings."""
        with self._lock:
            self._check_budget()
            self._open += 1
        try:
            answer = await exchange(http, self._url, headers, payload, self.config.timeout)
            rejection = read_rejection(answer.status, answer.body)
            if rejection is None:
                return read_reply(answer.body)
        except BadAnswer as error:
            return Failure(str(error))
        except Exception as error:  # whatever a connection or a body of a server can be
            body = error.doc if isinstance(error, json.JSONDecodeError) else ""
            return _Passing(type(error).__name__, self._shortened(body[:MOST_SHOWN]))
        finally:
            with self._lock:
                self._open -= 1
        return self._rejected(rejection, fields, _retry_after(answer.headers))

    def _rejected(
        self, rejection: Rejection, fields: Mapping[str, Any], retry_after: float | None
    ) -> Refusal | Failure | _Passing:
        """Return what an error means for this request: tried again, refused by a filter, or rejected."""
        status, message = rejection.status, self._shortened(rejection.message)
        if status in UNUSABLE:
            raise JudgeError(self._unusable(status, message))
        if status in RETRIED or status >= 500:
            return _Passing(f"HTTP {status}", message, retry_after)
        if "content_filter" in rejection.code or "content_policy" in rejection.code:
            return Refusal("content filter")
        name = _rejected_field(f"{rejection.code} {rejection.message}", fields)
        return Failure(f"HTTP {status}", message + _hint(name, fields), name)

    def _check_budget(self) -> None:
        """Raise JudgeError if this process's share of the budget of calls or cost is used up."""
        config, usage, world = self.config, self.usage, world_size()
        share = f", this process's share of it, one of {world}," if world > 1 else ""
        if config.max_calls is not None and usage.calls + self._open >= share_of_process(config.max_calls):
            raise JudgeError(f"the budget of max_calls={config.max_calls} calls{share} is used up")
        if config.max_cost is not None and usage.cost(config) >= config.max_cost / world:
            spent = f"{usage.cost(config):.2f}"
            raise JudgeError(f"the budget of max_cost={config.max_cost}{share} is used up ({spent})")

    def _counted(self, answer: Reply | Refusal | Failure) -> Reply | Refusal | Failure:
        """Count an answered call and its tokens, keep the first failure; return the answer."""
        with self._lock:
            if isinstance(answer, Failure):
                self.first_failure = self.first_failure or answer
            else:
                self.usage.calls += 1
                self.usage.prompt_tokens += answer.prompt_tokens
                self.usage.completion_tokens += answer.completion_tokens
        return answer

    def _announce_wait(self, why: str) -> None:
        """Say once that the server does not answer, so that nobody watches a run that stands still without a word."""
        if not self._waits and not self.usage.calls:
            self._waits = True
            server, minutes = masked_url(server_url(self.config.base_url)), self.config.retry_minutes
            logger.warning("waiting for %s (%s), up to %g minutes", server, why, minutes)

    def _shortened(self, message: str) -> str:
        """Return a server's words on one line, shortened, without keys."""
        key = os.environ.get(self.config.api_key_env, "").strip()
        password = urlsplit(self._url).password
        for secret in (key, password):
            message = message.replace(secret, "***") if secret else message
        return shown(LIKE_A_KEY.sub("***", message), MESSAGE) if message.strip() else ""

    def _unusable(self, status: int, message: str) -> str:
        """Return what is wrong, and what the server says of it."""
        config = self.config
        server, words = masked_url(server_url(config.base_url)), f"; it says: {message}" if message else ""
        if status == 404:
            lacks = f"has no model {config.model!r} or no chat completions there (HTTP 404); check both names"
            return f"{server} {lacks}{words}"
        state = "set" if os.environ.get(config.api_key_env) else "not set"
        return f"{server} refuses the key (HTTP {status}); ${config.api_key_env} is {state}{words}"


def _rejected_field(message: str, fields: Mapping[str, Any]) -> str:
    """Return the field of a request that a rejection's words name, "" if they name none."""
    names = {name: name for name in fields if name not in ("model", "messages")} | RENAMED
    for word, name in names.items():
        if name in fields and re.search(rf"(?<![a-z_]){word}(?![a-z_])", message, re.IGNORECASE):
            return name
    return ""


def _hint(name: str, fields: Mapping[str, Any]) -> str:
    """Return which setting leaves a rejected field out."""
    if not name:
        return ""
    if name == SCHEMA_FIELD:
        return " (structured_output: never leaves it out)"
    instead = f", max_completion_tokens: {fields[name]}" if name == "max_tokens" else ""
    return f" (extra: {{{name}: null{instead}}} leaves {name} out)"


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of a Retry-After header, at most LONGEST_WAIT; None without one (or with a date)."""
    try:
        seconds = float(headers.get("retry-after", ""))
    except ValueError:
        return None
    return min(max(seconds, 0.0), LONGEST_WAIT) if seconds == seconds else None
