"""A real HTTP server with the chat API, standard library only: grades by a rule and fails on order.

A criterion "says WORD" is met if the answer has the word. `FaultServer(plan)` asks `plan(number, body)` for the fault
of every request; None is an honest reply. `items` makes answers for it, `RawServer` sends bytes of the test's choice.
"""

import asyncio
import hashlib
import json
import random
import re
import threading
from collections import Counter

from rvpo.judging.criteria import Criterion, Rubric
from rvpo.judging.grading import Item

FAULTS = ("429", "500", "hang", "cut", "refusal", "prose", "wrong ids", "duplicate ids")
UNREADABLE = ("refusal", "wrong ids", "duplicate ids")
HANG_SECONDS = 3.0


def block(body, name):
    """Return what stands in a block of a request."""
    text = body["messages"][1]["content"]
    return re.search(rf"<{name}-(\w+)>\n(.*)\n</{name}-\1>", text, re.DOTALL)[2]


def blocks(body):
    """Return (answer, [(id, criterion text)]) of a request, read as an honest judge would."""
    lines = [json.loads(line) for line in block(body, "criteria").splitlines()]
    return json.loads(block(body, "answer")), [(line["id"], line["criterion"]) for line in lines]


def met(answer, criterion):
    return criterion.removeprefix("says ") in answer.split()


def honest(body):
    """Return the reply of a judge that follows the rule."""
    answer, criteria = blocks(body)
    listed = [{"id": name, "reason": "by rule", "met": met(answer, text)} for name, text in criteria]
    return json.dumps({"verdicts": listed})


def seldom(share, seed=0):
    """Return a plan under which a share of all requests fails, each kind of fault as often as any other."""
    draw = random.Random(seed)
    return lambda number, body: draw.choice(FAULTS) if draw.random() < share else None


class FaultServer:
    """Runs in a thread of its own while it is used as a context."""

    def __init__(self, plan=lambda number, body: None, reply=honest, delay=0.0):
        self.plan, self.reply, self.delay = plan, reply, delay
        self.paid = Counter()
        """Readable replies by hash of the request."""
        self.faults = Counter()
        self.requests = 0
        self.open = self.most_open = 0
        """Requests under way, now and at most so far."""
        self.headers = []

    def __enter__(self):
        self.loop = asyncio.new_event_loop()
        started = threading.Event()

        def serve():
            asyncio.set_event_loop(self.loop)
            self.server = self.loop.run_until_complete(asyncio.start_server(self._connection, "127.0.0.1", 0))
            started.set()
            self.loop.run_forever()

        self.thread = threading.Thread(target=serve, daemon=True)
        self.thread.start()
        started.wait()
        self.url = f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}/v1"
        return self

    def __exit__(self, *exception):
        async def stop():
            self.server.close()
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(stop(), self.loop).result()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    async def _connection(self, reader, writer):
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = int(re.search(r"content-length: (\d+)", head, re.IGNORECASE)[1])
                body = json.loads(await reader.readexactly(length))
                self.headers.append(head)
                del self.headers[:-10]
                self.open += 1
                self.most_open = max(self.most_open, self.open)
                try:
                    if not await self._answer(body, writer):
                        break
                finally:
                    self.open -= 1
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _answer(self, body, writer):
        """Reply to one request; return False to close the connection."""
        self.requests += 1
        fault = self.plan(self.requests, body)
        if fault is not None:
            self.faults[fault] += 1
        if self.delay:
            await asyncio.sleep(self.delay)
        if fault == "hang":
            await asyncio.sleep(HANG_SECONDS)
            return False
        if fault in ("429", "500") or (isinstance(fault, int)):
            extra = "Retry-After: 0.01\r\n" if fault == "429" else ""
            return await send(writer, int(fault), {"error": {"message": "scripted"}}, extra=extra)
        text = self.reply(body)
        if fault == "prose":
            text = f"Let me see {{of course}}.\n```json\n{text}\n```\nI hope that helps."
        if fault == "wrong ids":
            text = text.replace('"id": "', '"id": "x')
        if fault == "duplicate ids":
            verdicts = json.loads(text)["verdicts"]
            text = json.dumps({"verdicts": verdicts + [v | {"met": not v["met"]} for v in verdicts]})
        if fault not in UNREADABLE and fault != "cut":
            self.paid[hashlib.sha256(json.dumps(body, sort_keys=True).encode()).digest()] += 1
        refusal = "I cannot help with that." if fault == "refusal" else None
        message = {"role": "assistant", "content": None if refusal else text, "refusal": refusal}
        reply = {
            "id": "r", "object": "chat.completion", "created": 0, "model": body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120},
        }  # fmt: skip
        return await send(writer, 200, reply, cut=fault == "cut")


async def send(writer, status, body, *, extra="", cut=False):
    payload = json.dumps(body).encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n{extra}Content-Length: {len(payload)}\r\n\r\n"
    writer.write(head.encode() + (payload[: len(payload) // 2] if cut else payload))
    await writer.drain()
    return not cut


# --- Answers to be judged, light enough to be made in any process ---


WORDS = ("rest", "water", "dose", "warm", "child", "honey", "ice", "sleep")


def items(number, size=5, seed=0):
    """Return different answers, each with a rubric of `size` criteria, some of them pitfalls."""
    draw, made = random.Random(seed), []
    for index in range(number):
        answer = " ".join([f"answer{index}", *draw.sample(WORDS, 3)])
        criteria = [
            Criterion(str(place), f"says {word}", polarity=draw.choice(["positive", "negative"]))
            for place, word in enumerate(draw.sample(WORDS, size))
        ]
        made.append(Item(f"question {index}", answer, Rubric(tuple(criteria))))
    return made


# --- Bytes of the test's choice ---


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
