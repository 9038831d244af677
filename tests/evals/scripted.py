"""Models without a network, whose answers are told."""

import asyncio

from rvpo.evals.benchmark import Benchmark
from rvpo.evals.models import Answer
from rvpo.evals.run import evaluate


class Scripted:
    """Answers `reply(question)`: a text, an `Answer`, or an exception to raise; `asked` are the ids asked for."""

    def __init__(self, reply, name="scripted", batch=4):
        self.reply, self.name, self.batch = reply, name, batch
        self.asked, self.closed = [], 0

    @property
    def about(self):
        return {"kind": "scripted", "name": self.name, "sampling": {"temperature": 0.0}}

    async def answers(self, questions, done=()):
        left = [one for one in questions if one.id not in done]
        for start in range(0, len(left), self.batch):
            yield [(one, self._answer(one)) for one in left[start : start + self.batch]]

    def _answer(self, one):
        self.asked.append(one.id)
        reply = self.reply(one)
        if isinstance(reply, Exception):
            raise reply
        return reply if isinstance(reply, Answer) else Answer(reply, tokens=len(reply.split()))

    async def close(self):
        self.closed += 1


def run(benchmark: Benchmark, model, folder, **options):
    async def all_of_it():
        try:
            return await evaluate(benchmark, model, folder, **options)
        finally:
            await benchmark.close()

    return asyncio.run(all_of_it())


def record(unit, value, repeat=0, *, name="s", bounds=None, missing=0):
    """A scored answer with one score."""
    return {
        "id": f"{unit}/{repeat}",
        "unit": unit,
        "scores": {name: value},
        "bounds": {} if bounds is None else {name: bounds},
        "missing": missing,
    }
