"""The calls of a judge, each paid for once: answered from the store, by an equal call under way, or by the server.

Replies that were paid for are in the store before anything else happens. A reply is read where it arrives, once.
"""

import asyncio
import weakref
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from rvpo.errors import JudgeError
from rvpo.judging.store import VerdictStore
from rvpo.llm.client import SCHEMA_FIELD, ChatClient
from rvpo.llm.config import masked_url, server_url
from rvpo.llm.reply import Failure, Refusal, Reply

__all__ = ["Answered", "JudgeCall", "SharedCalls", "together"]

Content = TypeVar("Content")
Result = TypeVar("Result")


class JudgeCall(NamedTuple, Generic[Content]):
    """One call to be made, or found in the store."""

    request: dict[str, Any]
    """The body that is sent."""
    key: bytes
    """Hash of everything that the reply depends on; equal for equal calls only."""
    read: Callable[[str], Content | None]
    """What a reply's text says; None where it says nothing that was asked for."""
    plain: "JudgeCall[Content] | None" = None
    """The same call without `response_format`, for a server that refuses it; None where none may take its place."""


class Answered(NamedTuple, Generic[Content]):
    """An answer to a call, and what it says."""

    reply: Reply | Refusal | Failure
    content: Content | None
    """None for a refusal, a failure, and a reply that says nothing that was asked for."""


class SharedCalls:
    """Answers calls. Safe for several event loops and threads, each of which shares its own calls under way.

    Whether the server takes a schema is found out by the first call that has one, and kept in the store.
    """

    def __init__(self, client: ChatClient, store: VerdictStore) -> None:
        self.client, self.store = client, store
        self._is_form_known = False
        self._under_way: weakref.WeakKeyDictionary[
            asyncio.AbstractEventLoop, dict[bytes, asyncio.Task[Answered[Any]]]
        ] = weakref.WeakKeyDictionary()

    @property
    def _refusal_name(self) -> str:
        config = self.client.config
        return f"refuses schemas: {config.model} at {masked_url(server_url(config.base_url))}"

    def _form(self, call: JudgeCall[Content]) -> JudgeCall[Content]:
        """Return a call in the form that the server takes, as far as that is known."""
        if call.plain is None:
            return call
        if not self._is_form_known:
            self._is_form_known = True
            self.client.refuses_schemas = self.store.setting(self._refusal_name) is not None
        return call.plain if self.client.refuses_schemas else call

    def stored(self, calls: Sequence[JudgeCall[Content]]) -> dict[bytes, Answered[Content]]:
        """Return the answers that are in the store, by the key of their call as it was given."""
        forms = [self._form(call) for call in calls]
        replies = self.store.get([form.key for form in forms])
        pairs = zip(calls, forms, strict=True)
        return {call.key: _read(form, replies[form.key]) for call, form in pairs if form.key in replies}

    async def answer(self, call: JudgeCall[Content]) -> Answered[Content]:
        """Return the stored answer to a call, that of an equal call under way, or a new one.

        Raises what `ChatClient.ask` does.
        """
        under_way = self._under_way.setdefault(asyncio.get_running_loop(), {})
        call = self._form(call)
        task = under_way.get(call.key)
        if task is None:
            stored = self.stored([call])
            if stored:
                return stored[call.key]
            # A task of its own: if whoever waits for it is cancelled, what is paid for still reaches the store.
            task = under_way[call.key] = asyncio.create_task(self._ask(call))
            task.add_done_callback(lambda finished: _forget(under_way, call.key, finished))
        return await asyncio.shield(task)

    async def finish(self) -> None:
        """End the running loop's calls that are under way; what arrives within the client's grace is stored."""
        under_way = self._under_way.get(asyncio.get_running_loop())
        if under_way:
            self.client.stop_here()
            await asyncio.wait([*under_way.values()])

    async def probe(self, call: JudgeCall[Content], *, tries_again: bool) -> Reply | Refusal | Failure:
        """Return the server's answer to a call, whether or not it is in the store, and keep nothing of it."""
        call = self._form(call)
        reply = await self.client.ask(call.request, tries_again=tries_again)
        if call.plain is not None and self._refuses_schema(reply):
            reply = await self.client.ask(call.plain.request, tries_again=tries_again)
        return reply

    def _refuses_schema(self, reply: Reply | Refusal | Failure) -> bool:
        """Tell whether the server has refused a schema; that is kept, as nothing is lost by it."""
        if not (isinstance(reply, Failure) and reply.rejected_field == SCHEMA_FIELD):
            return False
        if not self.client.refuses_schemas:
            self.client.refuses_schemas = True
            self.store.setting(self._refusal_name, b"1")
        if self.client.first_failure is reply:
            self.client.first_failure = None
        return True

    async def _ask(self, call: JudgeCall[Content]) -> Answered[Content]:
        """Ask the server; keep the reply if it can be read."""
        answered = _read(call, await self.client.ask(call.request))
        reply = answered.reply
        if call.plain is not None and self._refuses_schema(reply):
            return await self.answer(call.plain)
        if answered.content is not None and isinstance(reply, Reply):
            self.store.put(call.key, self.client.config.model, reply)
        return answered


def _read(call: JudgeCall[Content], reply: Reply | Refusal | Failure) -> Answered[Content]:
    return Answered(reply, call.read(reply.text) if isinstance(reply, Reply) else None)


def _forget(under_way: dict[bytes, asyncio.Task[Any]], key: bytes, task: asyncio.Task[Any]) -> None:
    """Forget a finished call; its error counts as seen, whether or not somebody still waits for it."""
    under_way.pop(key, None)
    if not task.cancelled():
        task.exception()


async def together(parts: Iterable[Coroutine[Any, Any, Result]]) -> list[Result]:
    """Await all parts side by side and return their results in order.

    The first error cancels the other parts and is raised itself, not in a group; of several errors a JudgeError.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(part) for part in parts]
    except BaseExceptionGroup as group_of_errors:
        errors = group_of_errors.exceptions
        raise next((error for error in errors if isinstance(error, JudgeError)), errors[0]) from None
    return [task.result() for task in tasks]
