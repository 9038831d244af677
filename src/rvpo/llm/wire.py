"""One exchange with a server over HTTP: bounded in time, bytes and place, whatever the server sends.

Of the openai SDK only its HTTP client is used: the SDK itself reads a body of any size, unpacks what is compressed
into what is compressed, has a time-out for each read and none for the call, and follows redirects to other servers.
"""

import asyncio
import json
import zlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from urllib.parse import urljoin, urlsplit

import openai

__all__ = ["MOST_BYTES", "BadAnswer", "HttpAnswer", "exchange"]

MOST_BYTES = 4 * 2**20
"""Bytes of a body, unpacked, beyond which it is given up: far more than any token limit lets through."""
ANY_COMPRESSION = 47
"""zlib's number for gzip or deflate, whichever it is."""
REDIRECTS = frozenset({301, 302, 303, 307, 308})
SAME_REQUEST = frozenset({307, 308})
"""Redirects after which the same body is sent again."""
MOST_REDIRECTS = 3
TICKS = 10
"""Parts of a deadline; each begins when the loop has come to the end of the one before."""


class BadAnswer(Exception):
    """An answer that the same request would bring again: too large, nested without end, or a redirect elsewhere."""


class HttpAnswer(NamedTuple):
    """What a server answered."""

    status: int
    headers: Mapping[str, str]
    body: Any
    """The body's JSON, whatever its content type says; the text of a rejection's body that is none."""


async def exchange(
    http: openai.DefaultAsyncHttpxClient, url: str, headers: Mapping[str, str], payload: bytes, seconds: float
) -> HttpAnswer:
    """Post a payload and return the answer.

    Raises BadAnswer for what no other try would mend, TimeoutError if the whole answer is not there after so many
    seconds, and whatever the connection or the body's form bring.
    """
    async with _deadline(seconds):
        for _ in range(1 + MOST_REDIRECTS):
            request = http.build_request("POST", url, content=payload, headers=dict(headers))
            response = await http.send(request, stream=True, follow_redirects=False)
            try:
                status, target = response.status_code, response.headers.get("location")
                if status not in REDIRECTS or not target:
                    return HttpAnswer(status, response.headers, _json(await _body(response), status))
            finally:
                await response.aclose()
            url = _same_origin(url, target, status)
    raise BadAnswer(f"more than {MOST_REDIRECTS} redirects")


@asynccontextmanager
async def _deadline(seconds: float) -> AsyncIterator[None]:
    """Cancel what takes longer, as asyncio.timeout does, without counting the time in which the loop stood still.

    A loop that is busy with a thousand other answers finds its timers due before it has read what came in.
    """
    loop = asyncio.get_running_loop()
    timers: list[asyncio.TimerHandle] = []
    async with asyncio.timeout(None) as timeout:

        def tick(left: int) -> None:
            if left:
                timers[:] = [loop.call_later(seconds / TICKS, tick, left - 1)]
            else:
                timeout.reschedule(loop.time())

        tick(TICKS)
        try:
            yield
        finally:
            timers[0].cancel()


async def _body(response: Any) -> str:
    """Return a body's text; bytes that are no UTF-8 become replacement characters."""
    raw = bytearray()
    async for chunk in response.aiter_raw():
        raw += chunk
        if len(raw) > MOST_BYTES:
            raise BadAnswer(f"reply too large, more than {MOST_BYTES:,} bytes")
    packed = response.headers.get("content-encoding", "identity").strip().lower()
    if packed in ("gzip", "x-gzip", "deflate") and raw:
        raw = bytearray(zlib.decompressobj(ANY_COMPRESSION).decompress(bytes(raw), MOST_BYTES + 1))
        if len(raw) > MOST_BYTES:
            raise BadAnswer(f"reply too large, unpacked more than {MOST_BYTES:,} bytes")
    elif packed not in ("identity", "", "gzip", "x-gzip", "deflate"):
        raise BadAnswer(f"reply compressed as {packed}, which was not asked for")
    return raw.decode("utf-8", "replace").removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}")


def _json(text: str, status: int) -> Any:
    """Return a body's JSON; of a rejection, its text where that is none."""
    try:
        return json.loads(text, strict=False)
    except json.JSONDecodeError:
        if status >= 400:
            return text
        raise
    except (RecursionError, ValueError):  # ValueError alone: a number of more digits than Python reads
        if status >= 400:
            return ""
        raise BadAnswer("reply nested too deep, or with numbers that are none") from None


def _same_origin(url: str, target: str, status: int) -> str:
    """Return where a redirect leads, if that is the same server and the same request."""
    there = urljoin(url, target)
    here, parts = urlsplit(url), urlsplit(there)
    if (here.scheme, here.hostname, here.port) != (parts.scheme, parts.hostname, parts.port):
        raise BadAnswer(
            f"redirect to another server, {parts.scheme}://{parts.hostname}: nothing was sent there; if it is the "
            "right one, set base_url to it"
        )
    if status not in SAME_REQUEST:
        raise BadAnswer(f"redirect by HTTP {status}, after which nothing would be asked")
    return there
