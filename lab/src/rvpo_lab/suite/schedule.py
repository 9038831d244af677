"""Run cells side by side, one thread each, and keep every finished one."""

import multiprocessing
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rvpo.errors import RvpoError
from rvpo_lab.suite.plan import Cell, SuiteSettings
from rvpo_lab.suite.storage import cell_path, finished
from rvpo_lab.tasks.catalog import TASKS

__all__ = ["Standing", "run_cells"]

TICK = 0.5


@dataclass
class Standing:
    """How far a suite is; what a live view shows."""

    cells: list[Cell]
    settings: SuiteSettings
    finished: set[Cell] = field(default_factory=set)
    """By this run or an earlier one."""
    steps: dict[Cell, int] = field(default_factory=dict)
    """Finished steps of the cells that are being trained."""
    axes: dict[Cell, list[dict[str, float]]] = field(default_factory=dict)
    """Held-out mean of each axis at each evaluation of this run."""
    preparing: dict[str, float] = field(default_factory=dict)
    """Share done of the warm starts being made, by policy."""
    began: float = 0.0
    trained_before: int = 0
    """Cells that an earlier run had finished."""

    @property
    def done(self) -> float:
        """Share of the cells' steps that is done, in [0, 1]."""
        running = sum(step for cell, step in self.steps.items() if cell not in self.finished)
        return (len(self.finished) + running / self.settings.steps) / max(len(self.cells), 1)

    def seconds_left(self, now: float) -> float | None:
        """Return the estimated time to the end, None before anything was measured."""
        before = self.trained_before / max(len(self.cells), 1)
        gained = self.done - before
        return (now - self.began) * (1 - self.done) / gained if gained > 0 and self.began else None


Show = Callable[[Standing], None]
Message = tuple[str, Any, int, dict[str, float]]


def run_cells(
    folder: Path, cells: Sequence[Cell], settings: SuiteSettings, *, workers: int = 2, show: Show, keep: bool = False
) -> Standing:
    """Train the cells that are not finished; return the standing at the end.

    `show` is called about twice a second. `keep` leaves each trained policy under `folder/runs`. Raises RvpoError
    if a worker died, KeyboardInterrupt if interrupted; in both cases finished cells stay and a second call goes on.
    """
    names = finished(folder)
    standing = Standing(list(cells), settings, finished={cell for cell in cells if cell.name in names})
    standing.trained_before = len(standing.finished)
    missing = [cell for cell in cells if cell not in standing.finished]
    show(standing)
    if not missing:
        return standing
    context = multiprocessing.get_context("spawn")
    messages = context.Queue()
    with _single_threads():
        executor = ProcessPoolExecutor(
            max(min(workers, len(missing)), 1), context, initializer=_begin, initargs=(messages, os.getpid())
        )
        try:
            policies = {TASKS[cell.task].policy: cell.task for cell in reversed(missing)}
            _follow(
                [executor.submit(_prepare, task, settings) for task in policies.values()], messages, standing, show
            )
            standing.began = time.monotonic()
            runs = [executor.submit(_train, folder, cell, settings, keep) for cell in missing]
            _follow(runs, messages, standing, show)
            executor.shutdown()
            standing.finished.update(missing)  # a worker's last message may come after its result
            show(standing)
        except BrokenProcessPool:
            raise RvpoError(
                "a worker process died, perhaps for lack of memory; start again to go on with what is missing, "
                "with fewer --workers if memory is short"
            ) from None
        finally:
            _stop(executor)
    return standing


@contextmanager
def _single_threads() -> Iterator[None]:
    """Let worker processes compute with one thread: two runs side by side use two cores best."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TOKENIZERS_PARALLELISM")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value


def _stop(executor: ProcessPoolExecutor) -> None:
    """Stop workers now; a cell in work is lost, which costs about a minute."""
    processes = list((executor._processes or {}).values())  # None once it was shut down
    executor.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(timeout=10)


def _follow(futures: Sequence[Future[Any]], messages: Any, standing: Standing, show: Show) -> None:
    """Show what the workers tell until all are done; raise what one of them raised."""
    waiting = set(futures)
    while waiting:
        done, waiting = wait(waiting, timeout=TICK, return_when="FIRST_COMPLETED")
        while True:
            try:
                _note(standing, messages.get_nowait())
            except queue.Empty:
                break
        show(standing)
        for future in done:
            future.result()


def _note(standing: Standing, message: Message) -> None:
    """Enter one worker's message into the standing."""
    event, what, step, axes = message
    if event == "warm":
        standing.preparing[what] = step / standing.settings.warm_start_steps
    elif event == "step":
        standing.steps[what] = step
        if axes:
            standing.axes.setdefault(what, []).append(axes)
    elif event == "finished":
        standing.finished.add(what)


def _begin(messages: Any, parent: int) -> None:
    """Worker: remember where messages go, be quiet, and do not outlive the parent."""
    from datasets import disable_progress_bars
    from transformers.utils import logging

    global _messages
    _messages = messages
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    disable_progress_bars()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


_messages: Any = None
"""Worker: the queue to the parent, which a task cannot bring along."""


def _prepare(task: str, settings: SuiteSettings) -> None:
    """Worker: make a warm start."""
    from rvpo_lab.tasks.policy import warm_policy

    policy = TASKS[task].policy
    warm_policy(
        TASKS[task],
        steps=settings.warm_start_steps,
        hidden_size=settings.hidden_size,
        on_step=lambda step, loss: _messages.put(("warm", policy, step + 1, {})) if step % 10 == 9 else None,
    )


def _train(folder: Path, cell: Cell, settings: SuiteSettings, keep: bool) -> None:
    """Worker: train one cell."""
    from rvpo_lab.suite.train_cell import train_cell

    train_cell(
        cell,
        settings,
        cell_path(folder, cell),
        lambda step, axes: _messages.put(("step", cell, step, axes)),
        keep=folder / "runs" / cell.name if keep else None,
    )
    _messages.put(("finished", cell, settings.steps, {}))
