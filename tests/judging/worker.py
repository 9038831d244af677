"""Judges in processes of their own.

They are forked from one process that has imported the judge, so that a test that kills twenty of them does not wait
for twenty interpreters. Each is a process like any other: nothing is shared with the one it was forked from.
"""

import asyncio
import multiprocessing
import os

from rvpo.errors import JudgeError
from rvpo.judging.config import JudgeConfig
from rvpo.judging.judge import Judge

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["rvpo.judging.judge"])


class Worker:
    """A process that grades items; used as a context, it is killed at the end if it still runs."""

    def __init__(self, items, options, environment=None, batch=None):
        self.receiver, sender = FORKS.Pipe(duplex=False)
        self.process = FORKS.Process(target=grade, args=(sender, items, options, environment or {}, batch))
        self.process.start()
        sender.close()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.kill()

    def result(self):
        """Wait for the end; return the JudgeError's text, None without one, and the number of calls answered."""
        try:
            assert self.receiver.poll(120), "the process has not come to an end"
            sent = self.receiver.recv()
        finally:
            self.process.join(10)
        assert self.process.exitcode == 0
        return sent

    def kill(self):
        """End it by SIGKILL."""
        self.process.kill()
        self.process.join()
        self.receiver.close()


def grade(sender, items, options, environment, batch):
    """Grade items with a judge of these options, `batch` at a time; send what `Worker.result` returns."""
    os.environ.update(environment)
    judge = Judge(JudgeConfig(model="judge", **options))

    async def run():
        try:
            for start in range(0, len(items), batch or len(items)):
                await judge.grade_many(items[start : start + (batch or len(items))])
        except JudgeError as error:
            return str(error)
        finally:
            await judge.close()
        return None

    sender.send((asyncio.run(run()), judge.client.usage.calls))
