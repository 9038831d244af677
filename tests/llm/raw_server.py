"""A server on loopback that sends bytes of the test's choice."""

import json

from judging.fault_server import FaultServer, send


def envelope(text, **message):
    """Return the body of an answered call."""
    return {"choices": [{"message": {"role": "assistant", "content": text, **message}, "finish_reason": "stop"}]}


def http(payload, *, status=200, **headers):
    """Return a whole answer as bytes."""
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} X\r\n{lines}Content-Length: {len(payload)}\r\n\r\n".encode() + payload


class RawServer(FaultServer):
    """Answers the n-th request by `script(n, body, writer)`: bytes, a body, or None for what it wrote itself."""

    def __init__(self, script):
        super().__init__()
        self.script, self.bodies = script, []

    async def _answer(self, body, writer):
        self.requests += 1
        self.bodies.append(body)
        answer = self.script(self.requests, body)
        if callable(answer):
            await answer(writer)
            return False
        if isinstance(answer, bytes):
            writer.write(answer)
            await writer.drain()
            return True
        status, answer = answer if isinstance(answer, tuple) else (200, answer)
        return await send(writer, status, answer)


def reply_of(body, reply):
    """Return an answered call with what an honest judge, or another, says of a request."""
    return envelope(reply if isinstance(reply, str) else json.dumps(reply))
