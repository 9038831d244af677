"""The judge against the bare SDK on one server, replay from the store, and memory: python benchmarks/judge.py

The server is the one of the tests, in a process of its own, on loopback; it answers at once, so what is measured is
the client. Both clients are run in turns, on new answers every time.
"""

import argparse
import asyncio
import json
import multiprocessing
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

import openai

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from timing import ratio

from judging.fault_server import FaultServer
from rvpo.judging.config import JudgeConfig
from rvpo.judging.criteria import Criterion, Rubric
from rvpo.judging.grading import Item
from rvpo.judging.judge import Judge
from rvpo.judging.prompts import load_prompt

RUBRIC = Rubric(tuple(Criterion(str(index), f"says word{index}") for index in range(8)))
CONCURRENCY = 64


def serve(pipe):
    with FaultServer() as server:
        pipe.send(server.url)
        pipe.recv()


class Runs:
    """Fresh batches of answers for both clients, of a length that rubric answers have."""

    def __init__(self, url, answers, criteria_per_call):
        self.url, self.answers, self.size, self.made = url, answers, criteria_per_call, 0

    def items(self):
        self.made += 1
        return [
            Item("What helps?", f"answer {self.made}.{index} " + "word1 word5 other " * 60, RUBRIC)
            for index in range(self.answers)
        ]

    async def bare(self):
        client = openai.AsyncOpenAI(api_key="none", base_url=self.url, max_retries=0)
        prompt, slots = load_prompt("criteria"), asyncio.Semaphore(CONCURRENCY)

        async def call(item, criteria):
            messages, _ = prompt.sheet(item.prompt, item.answer).messages(
                [("", criterion.text) for criterion in criteria]
            )
            async with slots:
                return await client.chat.completions.create(
                    model="judge", messages=messages, temperature=0.0, max_tokens=1024
                )

        chunks = [list(RUBRIC)[start : start + self.size] for start in range(0, len(RUBRIC), self.size)]
        await asyncio.gather(*(call(item, chunk) for item in self.items() for chunk in chunks))
        await client.close()

    async def judged(self):
        with tempfile.TemporaryDirectory() as folder:
            judge = Judge(
                JudgeConfig(
                    model="judge",
                    base_url=self.url,
                    store=f"{folder}/v.sqlite",
                    concurrency=CONCURRENCY,
                    criteria_per_call=self.size,
                )
            )
            await judge.grade_many(self.items())
            await judge.close()


async def replay(url, folder, answers, criteria_per_call, repeats=5):
    """Return verdicts per second from the store alone, the median of some runs."""
    config = JudgeConfig(model="judge", base_url=url, store=f"{folder}/r.sqlite", criteria_per_call=criteria_per_call)
    items = Runs(url, answers, criteria_per_call).items()
    first = Judge(config)
    await first.grade_many(items)
    await first.close()
    seconds = []
    for _ in range(repeats):
        replayed = Judge(config)
        began = time.perf_counter()
        await replayed.grade_many(items)
        seconds.append(time.perf_counter() - began)
        assert replayed.client.usage.calls == 0
        await replayed.close()
    return answers * len(RUBRIC) / statistics.median(seconds)


async def memory(url, folder, verdicts):
    """Return peak memory in MiB after a tenth of the verdicts and after all of them."""
    judge = Judge(JudgeConfig(model="judge", base_url=url, store=f"{folder}/m.sqlite", criteria_per_call=8))
    runs, peaks = Runs(url, 100, 8), []
    batches = verdicts // (100 * len(RUBRIC))
    for batch in range(batches):
        await judge.grade_many(runs.items())
        if batch in (batches // 10, batches - 1):
            peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    await judge.close()
    return peaks


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--answers", type=int, default=100, help="answers per timed batch, 8 criteria each")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--verdicts", type=int, default=100_000, help="for the memory test")
    options = parser.parse_args()
    here, there = multiprocessing.get_context("spawn").Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(there,), daemon=True)
    server.start()
    url = here.recv()
    rates = {}
    with tempfile.TemporaryDirectory() as folder:
        for size in (1, 8):
            runs = Runs(url, options.answers * size // 2, size)
            speed, ours, bare = ratio(
                lambda runs=runs: asyncio.run(runs.judged()),
                lambda runs=runs: asyncio.run(runs.bare()),
                options.repeats,
            )
            rates[f"judge over bare SDK, {size} criteria per call, calls per second"] = round(1 / speed, 3)
            print(f"{size} per call: {1 / speed:.3f} of the bare SDK's rate ({ours:.0f} ms against {bare:.0f} ms)")
            rate = asyncio.run(replay(url, folder + f"/{size}", 500, size))
            print(f"replay, {size} per call: {rate:,.0f} verdicts a second")
        first, last = asyncio.run(memory(url, folder, options.verdicts))
        print(f"peak memory after {options.verdicts // 10:,} verdicts {first:.0f} MiB, after all {last:.0f} MiB")
    here.send("stop")
    server.join()
    print(json.dumps(rates))


if __name__ == "__main__":
    main()
