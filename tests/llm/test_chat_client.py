"""The client's patience and what it reads out of a server's body; faults over HTTP are in tests/judging."""

import asyncio
import itertools
import random
from types import SimpleNamespace

import pytest

from judging.fault_server import FaultServer
from rvpo.errors import ConfigError, JudgeError, StopRequestedError
from rvpo.llm.client import LONGEST_WAIT, ChatClient, Usage, wait_bounds
from rvpo.llm.config import ServerConfig
from rvpo.llm.limits import allow_calls, stop_calls
from rvpo.llm.reply import Failure, Refusal, Reply, read_reply

BLOCKS = '<answer-1>\n""\n</answer-1>\n<criteria-1>\n{"id": "1", "criterion": ""}\n</criteria-1>'
REQUEST = {"model": "m", "messages": [{"role": "system", "content": ""}, {"role": "user", "content": BLOCKS}]}


def ask(server, **options):
    """Ask once; return the answer and what it took."""
    client = ChatClient(ServerConfig(model="m", base_url=server.url, **options))

    async def run():
        try:
            return await client.ask(REQUEST)
        finally:
            await client.close()

    return asyncio.run(run()), client.usage


class NoSleep:
    """The module asyncio for the client, in which no sleep takes any time; the server keeps the real one."""

    def __init__(self):
        self.slept = []

    def __getattr__(self, name):
        return getattr(asyncio, name)

    async def sleep(self, seconds):
        self.slept.append(seconds)


@pytest.fixture
def slept(monkeypatch):
    """How long the client would have slept each time."""
    module = NoSleep()
    monkeypatch.setattr("rvpo.llm.client.asyncio", module)
    return module.slept


@pytest.fixture
def bounds(monkeypatch):
    """Between what each wait was drawn; the shortest is taken."""
    drawn = []

    def shortest(low, high):
        drawn.append((low, high))
        return low

    monkeypatch.setattr(random, "uniform", shortest)
    return drawn


def test_the_bound_of_a_wait_doubles_up_to_a_minute():
    expected = [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    assert list(itertools.islice(wait_bounds(), len(expected))) == expected


def test_waits_are_drawn_from_zero_to_their_bound(bounds):
    with FaultServer(lambda number, body: "500" if number < 6 else None) as server:
        reply, usage = ask(server)
    assert isinstance(reply, Reply)
    assert bounds == [(0, 0.5), (0, 1.0), (0, 2.0), (0, 4.0), (0, 8.0)]
    assert usage == Usage(calls=1, retries=5, prompt_tokens=100, completion_tokens=20)


class RetryAfter(FaultServer):
    """Sends its first answer as 429 with a header of the test's choice."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    async def _answer(self, body, writer):
        if self.requests:
            return await super()._answer(body, writer)
        self.requests += 1
        writer.write(f"HTTP/1.1 429 X\r\nRetry-After: {self.value}\r\nContent-Length: 2\r\n\r\n{{}}".encode())
        return True


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("59.5", 59.5), ("60", LONGEST_WAIT), ("61", LONGEST_WAIT), ("1e9", LONGEST_WAIT), ("-3", 0.0), ("nan", None),
     ("Wed, 21 Oct 2015 07:28:00 GMT", None)],
)  # fmt: skip
def test_a_servers_retry_after_is_honoured_up_to_a_minute(slept, bounds, value, seconds):
    with RetryAfter(value) as server:
        reply, _ = ask(server)
    assert isinstance(reply, Reply)
    assert slept == [0 if seconds is None else seconds]
    assert len(bounds) == (seconds is None)


@pytest.mark.parametrize(("wait", "asked"), [(15.0, 3), (30.0, 2), (30.001, 1)])
def test_a_wait_that_would_end_after_the_budget_is_not_begun(monkeypatch, slept, wait, asked):
    """Half a minute of a clock that stands still but for the waits."""
    monkeypatch.setattr(random, "uniform", lambda low, high: wait)
    monkeypatch.setattr("rvpo.llm.client.time", SimpleNamespace(monotonic=lambda: sum(slept)))
    with FaultServer(lambda number, body: "500") as server:
        reply, usage = ask(server, retry_minutes=0.5)
    assert reply == Failure("HTTP 500, for 0.5 minutes")
    assert usage.retries == asked - 1
    assert server.requests == asked


@pytest.mark.parametrize("status", [408, 409, 429, 500, 503, 599])
def test_what_can_pass_is_tried_again(bounds, status):
    with FaultServer(lambda number, body: status if number == 1 else None) as server:
        assert isinstance(ask(server)[0], Reply)
        assert server.requests == 2


@pytest.mark.parametrize("status", [400, 402, 410, 422, 499])
def test_a_request_that_is_rejected_is_not_sent_again(status):
    with FaultServer(lambda number, body: status) as server:
        assert ask(server, retry_minutes=1e-6)[0] == Failure(f"HTTP {status}")
        assert server.requests == 1


def test_a_budget_is_used_up_by_its_last_call_and_not_before():
    with FaultServer() as server:
        client = ChatClient(ServerConfig(model="m", base_url=server.url, max_calls=2))

        async def run():
            for _ in range(2):
                assert isinstance(await client.ask(REQUEST), Reply)
            with pytest.raises(JudgeError, match="the budget of max_calls=2 calls is used up"):
                await client.ask(REQUEST)
            await client.close()

        asyncio.run(run())
    assert client.usage.calls == server.requests == 2


def body(message, **more):
    return {"choices": [{"message": message, **more}], "usage": {"prompt_tokens": 3, "completion_tokens": 4}}


CALL = {"function": {"name": "f", "arguments": '{"x": 1}'}}


@pytest.mark.parametrize(
    ("answer", "reply"),
    [
        (body({"content": "yes"}), Reply("yes", 3, 4)),
        (body({"content": None}), Reply("", 3, 4)),
        (body({"content": None, "refusal": "no"}), Refusal("no", 3, 4)),
        (body({"content": "half"}, finish_reason="content_filter"), Refusal("content filter", 3, 4)),
        (body({"tool_calls": [CALL, {"function": {}}, 3]}), Reply("", 3, 4, (("f", '{"x": 1}'),))),
        (body({"tool_calls": [{"function": {"name": "f"}}]}), Reply("", 3, 4, (("f", "{}"),))),
        (body({"content": "yes"}) | {"usage": {"prompt_tokens": -1, "completion_tokens": "4"}}, Reply("yes")),
        ({"choices": [3]}, Reply("")),
        ({"choices": []}, Reply("")),
        ({"choices": "x"}, Reply("")),
        ([], Reply("")),
        (None, Reply("")),
    ],
)  # fmt: skip
def test_what_a_body_says(answer, reply):
    assert read_reply(answer) == reply


@pytest.mark.parametrize("value", [0, 100_001, 1.0, True, "8"])
def test_concurrency_is_a_whole_number_within_its_bounds(value):
    with pytest.raises(ConfigError, match="concurrency must be a whole number from 1 to 100000"):
        ServerConfig(model="m", concurrency=value)
    assert [ServerConfig(model="m", concurrency=within).concurrency for within in (1, 100_000)] == [1, 100_000]


@pytest.mark.parametrize("where", ["loop", "thread"])
def test_who_is_told_to_stop_waits_for_calls_under_way_and_begins_no_other_attempt(where):
    """Of a server that is slow and of one that refuses for now; asked again when calls are allowed."""

    async def stopped(client, number):
        tasks = [asyncio.create_task(client.ask(REQUEST)) for _ in range(number)]
        await asyncio.sleep(0.3)
        if where == "loop":
            stop_calls()
        else:
            await asyncio.to_thread(stop_calls)
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        await client.close()
        return [type(outcome) for outcome in outcomes]

    def asked(plan, delay):
        with FaultServer(plan, delay=delay) as server:
            client = ChatClient(ServerConfig(model="m", base_url=server.url))
            try:
                return asyncio.run(stopped(client, 4)), client.usage.calls
            finally:
                allow_calls()

    assert asked(lambda number, body: None, 0.6) == ([Reply] * 4, 4)
    assert asked(lambda number, body: 503, 0.0) == ([StopRequestedError] * 4, 0)
    with FaultServer() as server:
        answer, _ = ask(server)
        assert isinstance(answer, Reply)
