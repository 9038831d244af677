"""The judge's limits hold for a run of several processes, each of which has a judge of its own."""

import asyncio
from contextlib import ExitStack

import pytest

from judging.fault_server import FaultServer
from judging.worker import Worker
from rvpo.judging.criteria import Criterion, Rubric
from rvpo.judging.grading import Item
from rvpo.llm.limits import share_of_process, world_size

RUBRIC = Rubric((Criterion("a", "says a"),))


class Gathering(FaultServer):
    """Answers nobody until so many requests are under way, and then waits whether there are more."""

    def __init__(self, number):
        super().__init__()
        self.number, self.seen = number, False

    async def _answer(self, body, writer):
        while not self.seen:
            await asyncio.sleep(0.02)
            if self.open >= self.number:
                await asyncio.sleep(0.5)
                self.seen = True
        return await super()._answer(body, writer)


def run_processes(server, world, number, options):
    """Grade `number` answers in each of `world` processes; return their errors and calls, by rank."""
    with server, ExitStack() as stack:
        workers = [
            stack.enter_context(
                Worker(
                    [Item("q", f"answer {rank} {index}", RUBRIC) for index in range(number)],
                    {"base_url": server.url, **options},
                    {"WORLD_SIZE": str(world), "RANK": str(rank)},
                )
            )
            for rank in range(world)
        ]
        return [worker.result() for worker in workers]


def test_all_processes_together_keep_to_the_concurrency_of_the_run():
    server = Gathering(7)  # with less than 7 at once it would wait for ever
    results = run_processes(server, 3, 10, {"concurrency": 7, "timeout": 60.0})
    assert [calls for _, calls in results] == [10, 10, 10]
    assert server.most_open == 7  # 3 + 2 + 2


def test_the_budget_of_calls_is_that_of_the_run():
    server = FaultServer()
    results = run_processes(server, 3, 40, {"concurrency": 3, "max_calls": 8})
    assert [calls for _, calls in results] == [3, 3, 2]  # 8 = 3 + 3 + 2
    assert server.requests == 8
    for error, _ in results:
        assert error == ("the budget of max_calls=8 calls, this process's share of it, one of 3, is used up")


def test_the_budget_of_cost_is_that_of_the_run():
    # Every call has 100 prompt tokens: at 1000 a million it costs 0.1. Half of 0.8 is 4 calls, one at a time.
    options = {"concurrency": 2, "max_cost": 0.8, "price_input": 1000.0}
    server = FaultServer()
    results = run_processes(server, 2, 40, options)
    assert [calls for _, calls in results] == [4, 4]
    assert server.requests == 8
    assert all("max_cost=0.8" in error and error.endswith("is used up (0.40)") for error, _ in results)


@pytest.mark.parametrize(("total", "world", "parts"), [(8, 3, [3, 3, 2]), (2, 4, [1, 1, 0, 0]), (6, 2, [3, 3])])
def test_shares_add_up(monkeypatch, total, world, parts):
    monkeypatch.setenv("WORLD_SIZE", str(world))
    shares = []
    for rank in range(world):
        monkeypatch.setenv("RANK", str(rank))
        shares.append(share_of_process(total))
    assert shares == parts
    assert share_of_process(total, least=1) == max(parts[-1], 1)


def test_without_a_launcher_there_is_one_process(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.delenv("RANK", raising=False)
    assert world_size() == 1
    assert share_of_process(7) == 7
