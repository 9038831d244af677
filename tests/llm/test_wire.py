"""What servers send, and what hostile ones do: one failed call at the worst, bounded in time, bytes and place."""

import asyncio
import gzip
import json
import tracemalloc
import zlib

import pytest

from judging.fault_server import RawServer, envelope, http
from rvpo.errors import ConfigError, JudgeError
from rvpo.llm.client import ChatClient
from rvpo.llm.config import ServerConfig, masked_url, server_url
from rvpo.llm.reply import MOST_TOKENS, Failure, Refusal, Rejection, Reply, read_rejection, read_reply
from rvpo.llm.wire import MOST_BYTES

REQUEST = {"model": "m", "messages": [{"role": "user", "content": "q"}], "max_tokens": 7, "temperature": 0.0}


def ask(server, request=REQUEST, **options):
    """Ask once; return the answer and the client."""
    client = ChatClient(
        ServerConfig(model="m", base_url=server.url, **({"timeout": 5.0, "retry_minutes": 0.02} | options))
    )

    async def run():
        try:
            return await client.ask(request)
        finally:
            await client.close()

    return asyncio.run(run()), client


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, "ab"),
        ({"content": ["a", {"type": "output_text", "text": "b"}, {"type": "image_url", "image_url": {}}, 3]}, "ab"),
        ({"content": [{"type": "thinking", "thinking": "x"}, {"type": "text", "text": "a"}]}, "a"),
        ({"content": [{"type": "reasoning", "text": "x"}, {"type": "text", "text": "a"}]}, "a"),
        ({"content": "a", "reasoning_content": "thought"}, "a"),
        ({"content": None, "reasoning_content": "thought"}, ""),
        ({"content": "", "reasoning_content": '{"verdicts": []}'}, '{"verdicts": []}'),
        ({"content": " \n", "reasoning": '\n{"rating": 7}\n'}, '{"rating": 7}'),
        ({"content": "ok \ud83d"}, "ok \N{REPLACEMENT CHARACTER}"),
        ({"content": "\ud83d\ude00\0"}, "\U0001f600\N{REPLACEMENT CHARACTER}"),
        ({"content": {"type": "text", "text": "a"}}, "a"),
        ({"content": [{"type": "text", "text": {"value": "a", "annotations": []}}]}, "a"),
        ({"content": {"image": "a"}}, ""),
    ],
)
def test_the_content_of_a_message(message, text):
    assert read_reply({"choices": [{"message": message}]}) == Reply(text)


@pytest.mark.parametrize("count", [-1, "4", True, None, 1.5, MOST_TOKENS + 1, 2**63, 10**300])
def test_a_count_of_tokens_that_is_none_is_not_counted(count):
    body = envelope("a") | {"usage": {"prompt_tokens": count, "completion_tokens": MOST_TOKENS}}
    assert read_reply(body) == Reply("a", int(count is True), MOST_TOKENS)


def test_a_reply_that_was_cut_says_so():
    for reason in ("length", "max_tokens", "MAX_TOKENS"):
        assert read_reply({"choices": [{"message": {"content": "a"}, "finish_reason": reason}]}).is_cut
    assert not read_reply(envelope("a")).is_cut


@pytest.mark.parametrize(
    ("status", "body", "rejection"),
    [
        (200, envelope("a"), None),
        (200, envelope("a") | {"error": None}, None),
        (200, {"error": {"code": 429, "message": "slow"}}, Rejection(429, "429", "slow")),
        (200, {"error": {"code": "503", "message": "x"}}, Rejection(503, "503", "x")),
        (200, {"error": {"type": "rate_limit_exceeded", "message": "x"}}, Rejection(429, "rate_limit_exceeded", "x")),
        (200, {"error": "overloaded"}, Rejection(503, "", "overloaded")),
        (200, {"error": {"message": "no"}}, Rejection(400, "", "no")),
        (200, {"error": {"code": 1302, "message": "no"}}, Rejection(400, "1302", "no")),
        (200, {"object": "error", "code": 400, "message": "bad"}, Rejection(400, "400", "bad")),
        (200, {"choices": [{"error": {"code": 502, "message": "up"}}]}, Rejection(502, "502", "up")),
        (200, {"detail": "Too many requests"}, Rejection(429, "", "Too many requests")),
        (200, {"code": 429, "message": "slow"}, Rejection(429, "429", "slow")),
        (200, {"error_code": 503, "msg": "up"}, Rejection(503, "", "up")),
        (200, [{"error": {"code": 503, "message": "up"}}], Rejection(503, "503", "up")),
        (200, {"errors": [{"message": "overloaded"}]}, Rejection(503, "", "overloaded")),
        (200, {"error": True, "message": "no"}, Rejection(400, "", "no")),
        (200, {"error": {"status": "RESOURCE_EXHAUSTED", "message": "no"}}, Rejection(429, "", "no")),
        (200, envelope("a") | {"message": "welcome", "error": ""}, None),
        (400, {"detail": "bad"}, Rejection(400, "", "bad")),
        (422, {"detail": [{"loc": ["body", "seed"]}]}, Rejection(422, "", "[{'loc': ['body', 'seed']}]")),
        (502, "<html>Bad gateway</html>", Rejection(502, "", "<html>Bad gateway</html>")),
        (400, None, Rejection(400, "", "")),
        (400, [], Rejection(400, "", "")),
    ],
)
def test_an_error_is_read_whatever_its_status(status, body, rejection):
    assert read_rejection(status, body) == rejection


def test_an_error_under_http_200_is_treated_as_its_code_says():
    with RawServer(lambda n, body: {"error": {"code": 429}} if n == 1 else envelope("a")) as server:
        reply, client = ask(server, retry_minutes=1.0)
        assert (reply, server.requests, client.usage.retries) == (Reply("a"), 2, 1)
    with RawServer(lambda n, body: {"error": {"code": 400, "message": "too long"}}) as server:
        reply, client = ask(server)
        assert (str(reply), server.requests, client.usage.calls) == ("HTTP 400: too long", 1, 0)
    with RawServer(lambda n, body: {"error": {"code": "content_filter"}}) as server:
        assert ask(server)[0] == Refusal("content filter")
    with RawServer(lambda n, body: {"error": {"code": 401}}) as server, pytest.raises(JudgeError, match="HTTP 401"):
        ask(server)


def test_what_the_server_says_is_shown_shortened_and_without_keys(monkeypatch):
    monkeypatch.setenv("MY_KEY", "canary4711")
    words = "no such thing\n\x1b[31m canary4711, sk-abcdef123456, Bearer abc.def.ghi " + "x" * 1000
    with RawServer(lambda n, body: (400, {"error": {"message": words}})) as server:
        reply, client = ask(server, api_key_env="MY_KEY")
    assert reply.message.startswith("no such thing \N{REPLACEMENT CHARACTER}[31m ***, ***, *** xxx")
    assert len(reply.message) <= 240
    assert client.first_failure is reply
    with RawServer(lambda n, body: (401, {"error": {"message": words}})) as server:
        with pytest.raises(JudgeError, match="it says: no such thing") as caught:
            ask(server, api_key_env="MY_KEY")
        assert "canary" not in str(caught.value)
    with RawServer(lambda n, body: (500, {"error": {"message": "out of memory"}})) as server:
        assert str(ask(server)[0]) == "HTTP 500, for 0.02 minutes: out of memory"


@pytest.mark.parametrize(
    ("words", "name", "hint"),
    [
        ("Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.", "max_tokens",
         "extra: {max_tokens: null, max_completion_tokens: 7}"),
        ("temperature does not support 0.0", "temperature", "extra: {temperature: null}"),
        ("Extra inputs are not permitted: body.seed", "seed", "extra: {seed: null}"),
        ("json_schema is not supported", "response_format", "structured_output: never"),
        ("the seedling is not here", "", ""),
        ("bad request", "", ""),
    ],
)  # fmt: skip
def test_a_refusal_that_names_a_field_says_what_leaves_it_out(words, name, hint):
    with RawServer(lambda n, body: (400, {"error": {"message": words}})) as server:
        reply, _ = ask(server, REQUEST | {"seed": 1, "response_format": {}})
    assert reply.rejected_field == name
    assert hint in str(reply)
    assert ("leaves" in str(reply)) == bool(name)


def test_a_field_that_is_null_is_left_out():
    with RawServer(lambda n, body: envelope("a")) as server:
        ask(server, REQUEST | {"max_tokens": None, "max_completion_tokens": 7})
    assert server.bodies[0].keys() == {"model", "messages", "temperature", "max_completion_tokens"}


@pytest.mark.parametrize(
    "answer",
    [
        http(json.dumps(envelope("a")).encode(), Content_Type="text/plain"),
        http(json.dumps(envelope("a")).encode()),
        http(b"\xef\xbb\xbf" + json.dumps(envelope("a")).encode(), Content_Type="text/html"),
        http(gzip.compress(json.dumps(envelope("a")).encode()), Content_Encoding="gzip"),
        http(zlib.compress(json.dumps(envelope("a")).encode()), Content_Encoding="deflate"),
    ],
)
def test_json_is_read_whatever_its_content_type(answer):
    with RawServer(lambda n, body: answer) as server:
        assert ask(server)[0] == Reply("a")


def test_bytes_that_are_no_utf_8_become_replacement_characters():
    with RawServer(lambda n, body: http(json.dumps(envelope("a?b")).encode().replace(b"?", b"\xff\xc3"))) as server:
        assert ask(server)[0] == Reply("a\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}b")


def test_a_question_with_half_an_emoji_and_nul_reaches_the_server_whole():
    with RawServer(lambda n, body: envelope("a")) as server:
        ask(server, REQUEST | {"messages": [{"role": "user", "content": "q \ud83d \0 \ud83d\ude00"}]})
    content = "q \N{REPLACEMENT CHARACTER} \N{REPLACEMENT CHARACTER} \U0001f600"
    assert server.bodies[0]["messages"] == [{"role": "user", "content": content}]


async def drip(writer, head, byte):
    writer.write(head)
    while True:
        writer.write(byte)
        await writer.drain()
        await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("head", "byte"),
    [
        (b"HTTP/1.1 200 X\r\nContent-Length: 1000000\r\n\r\n", b" "),
        (b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
        (b"HTTP/1.1 200 X\r\nX-Long: ", b"x"),
        (b"HTTP/1.1 500 X\r\nContent-Length: 1000000\r\n\r\n", b" "),
        (b"", b""),
    ],
)
def test_a_reply_that_never_ends_is_given_up_at_the_deadline_of_the_call(head, byte):
    with RawServer(lambda n, body: lambda writer: drip(writer, head, byte)) as server:
        reply, _ = ask(server, timeout=0.5, retry_minutes=0.001)
    assert reply == Failure("TimeoutError, for 0.001 minutes")


BOMB = gzip.compress(b" " * 2**28)


@pytest.mark.parametrize("status", [200, 400, 500])
@pytest.mark.parametrize(
    ("payload", "packed", "problem"),
    [
        (b" " * (MOST_BYTES + 1), "identity", "reply too large, more than"),
        (BOMB, "gzip", "reply too large, unpacked"),
        (gzip.compress(BOMB), "gzip, gzip", "compressed as gzip, gzip"),
        (b"x", "br", "compressed as br"),
    ],
)
def test_a_body_is_bounded_in_bytes(payload, packed, problem, status):
    tracemalloc.start()
    with RawServer(lambda n, body: http(payload, status=status, Content_Encoding=packed)) as server:
        reply, _ = ask(server, timeout=20.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(reply, Failure)
    assert problem in reply.reason
    assert server.requests == 1
    assert peak < 60e6


@pytest.mark.parametrize(
    ("payload", "problem"),
    [
        (b"[" * 100_000, "reply nested too deep"),
        (b'{"choices": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "reply nested too deep"),
        (
            b'{"usage": {"prompt_tokens": ' + b"9" * 10_000 + b"}}",
            "reply nested too deep, or with numbers that are none",
        ),
        (b'{"choices": [{"mess', "JSONDecodeError, for"),
        (b"<html>", "JSONDecodeError, for"),
        (b"", "JSONDecodeError, for"),
    ],
)
def test_an_envelope_that_breaks_the_parser_is_a_failed_call(payload, problem):
    with RawServer(lambda n, body: http(payload)) as server:
        reply, client = ask(server, retry_minutes=0.001)
    assert isinstance(reply, Failure)
    assert reply.reason.startswith(problem)
    assert client.usage.calls == 0


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_leads_to_another_server(status):
    with RawServer(lambda n, body: envelope("forged")) as other:
        target = other.url + "/chat/completions"
        with RawServer(lambda n, body: http(b"", status=status, Location=target)) as server:
            reply, _ = ask(server)
        assert reply.reason.startswith("redirect to another server, http://127.0.0.1")
        assert (server.requests, other.requests) == (1, 0)


def test_a_redirect_on_the_same_server_is_followed_a_few_times():
    def script(n, body):
        return http(b"", status=307, Location="/v2/chat/completions") if n < 3 else envelope(body["model"])

    with RawServer(script) as server:
        assert ask(server)[0] == Reply("m")
    with RawServer(lambda n, body: http(b"", status=308, Location="/v1/chat/completions")) as server:
        assert ask(server)[0] == Failure("more than 3 redirects")
        assert server.requests == 4


def test_a_server_that_asks_for_no_wait_is_not_hammered():
    with RawServer(lambda n, body: http(b"{}", status=429, Retry_After=0)) as server:
        ask(server, retry_minutes=0.05)
        assert server.requests < 20


def test_a_call_that_queued_has_its_whole_budget_of_retries():
    """Six calls, one slot: the last ones begin after more time than the budget has."""

    def script(n, body):
        return lambda writer: late(writer, 429 if n % 2 else 200)

    async def late(writer, status):
        await asyncio.sleep(0.3)
        writer.write(http(json.dumps(envelope("a")).encode(), status=status, Retry_After=0.01, Connection="close"))
        await writer.drain()

    with RawServer(script) as server:
        config = ServerConfig(model="m", base_url=server.url, concurrency=1, retry_minutes=1.0 / 60)
        client = ChatClient(config)

        async def run():
            try:
                return await asyncio.gather(*(client.ask(REQUEST) for _ in range(6)))
            finally:
                await client.close()

        assert asyncio.run(run()).count(Reply("a")) >= 4


def test_a_password_in_the_url_is_used_and_never_shown(caplog):
    def script(n, body):
        return envelope("a") if n == 1 else (401, {})

    with RawServer(script) as server:
        url = server.url.replace("://", "://me:hidden4711@")
        config = ServerConfig(model="m", base_url=url)
        client = ChatClient(config)

        async def run():
            try:
                assert await client.ask(REQUEST) == Reply("a")
                with pytest.raises(JudgeError) as caught:
                    await client.ask(REQUEST)
                return str(caught.value)
            finally:
                await client.close()

        shown = asyncio.run(run()) + repr(config) + caplog.text
        assert "authorization: basic" in server.headers[0].lower()
    assert "hidden4711" not in shown
    assert "***@127.0.0.1" in shown
    assert masked_url("http://me@host/v1") == "http://***@host/v1"
    assert masked_url("http://host/v1/a@b") == "http://host/v1/a@b"


@pytest.mark.parametrize(
    "url", ["localhost:8001", "ftp://host/v1", "http://", "http://[::1", "http://host:x/v1", "http://a b/v1", "", " "]
)
def test_a_url_that_is_none_is_refused_at_once(url):
    if url:
        with pytest.raises(ConfigError, match="base_url must be a URL"):
            server_url(url)


def test_the_server_without_a_url_is_the_environments_or_openais(monkeypatch):
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    assert server_url(None) == "https://api.openai.com/v1"
    monkeypatch.setenv("OPENAI_BASE_URL", "http://here:1/v1/")
    assert server_url(None) == "http://here:1/v1"
    assert server_url("http://[::1]:8001/v1") == "http://[::1]:8001/v1"


def test_a_key_that_no_header_can_carry_is_said(monkeypatch):
    monkeypatch.setenv("MY_KEY", "caf\u00e9")
    with RawServer(lambda n, body: envelope("a")) as server:
        with pytest.raises(JudgeError, match=r"the key in \$MY_KEY has characters that no key has"):
            ask(server, api_key_env="MY_KEY")
        assert server.requests == 0


def test_a_server_that_is_not_there_is_waited_for_aloud(caplog):
    client = ChatClient(ServerConfig(model="m", base_url="http://127.0.0.1:9/v1", retry_minutes=0.02))

    async def run():
        try:
            return await client.ask(REQUEST)
        finally:
            await client.close()

    assert asyncio.run(run()).reason == "ConnectError, for 0.02 minutes"
    assert [record.message for record in caplog.records] == [
        "waiting for http://127.0.0.1:9/v1 (ConnectError), up to 0.02 minutes"
    ]


def test_a_body_that_is_no_json_is_shown():
    with RawServer(lambda n, body: http(b"<html>\nproxy of sk-abcdef123456</html>")) as server:
        reply, _ = ask(server, retry_minutes=0.001)
    assert str(reply) == "JSONDecodeError, for 0.001 minutes: <html> proxy of ***</html>"
