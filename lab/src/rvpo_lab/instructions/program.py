"""Many cells on one machine: some side by side, each in a process; every finished one is kept, none is run again.

A worker process lives as long as the program: imports and the first touch of the GPU are paid once. With a time limit
no cell is started that could not end, and at the limit the workers are stopped.
"""

import json
import math
import multiprocessing
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

from rvpo.errors import RvpoError
from rvpo.text import number
from rvpo_lab.instructions.task import TASK, Settings
from rvpo_lab.suite.plan import Cell
from rvpo_lab.suite.storage import cell_path, finished, read_cell

__all__ = ["Pace", "Workers", "probe", "run_cells"]

MARGIN = 10.0
"""Seconds kept free before a time limit, for what does not scale with steps."""
TICK = 0.5
PROBED_STEPS = 5

Show = Callable[[str], None]


@dataclass
class Pace:
    """How fast cells go: seconds of a cell beside its steps, and of a step with so many cells side by side."""

    before_steps: float = 15.0
    a_step: float | None = None

    def seconds(self, steps: int) -> float | None:
        """Return the estimate for a cell, None before anything was measured."""
        return None if self.a_step is None else self.before_steps + steps * self.a_step


@dataclass
class Workers:
    """Processes that train cells; `with Workers(4) as workers`. Leaving stops them, whatever they do."""

    number: int
    messages: Any = field(init=False)
    pool: ProcessPoolExecutor = field(init=False)

    def __enter__(self) -> "Workers":
        context = multiprocessing.get_context("spawn")
        self.messages = context.Queue()
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        threads = max((os.cpu_count() or 1) // self.number, 1)
        self.pool = ProcessPoolExecutor(self.number, context, _begin, (self.messages, os.getpid(), threads))
        return self

    def __exit__(self, *exception: object) -> None:
        processes = list((self.pool._processes or {}).values())
        self.pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(timeout=10)

    def train(self, cell: Cell, settings: Settings, policy: str, file: Path) -> Future[float]:
        """Start a cell as soon as a worker is free; the result is the seconds it took."""
        return self.pool.submit(_train, cell, settings, policy, file)

    def news(self) -> list[tuple[Cell, int, float, float]]:
        """Return what was reported since the last call: (cell, step, seconds of training, mean of the kinds)."""
        news = []
        while True:
            try:
                news.append(self.messages.get_nowait())
            except queue.Empty:
                return news


def run_cells(
    folder: Path,
    planned: Sequence[Cell],
    settings: Settings,
    policy: str,
    workers: Workers,
    *,
    deadline: float | None,
    pace: Pace,
    show: Show,
) -> list[Cell]:
    """Train what is not finished in the folder yet, in order; return the cells that are still missing.

    `deadline` is a time of `time.monotonic`. `pace` is corrected by what is seen. A cell that fails is reported,
    left missing, and does not stop the others; RvpoError if a worker process died.
    """
    done_before = finished(folder)
    missing = [cell for cell in planned if cell.name not in done_before]
    waiting = list(missing)
    running: dict[Future[float], Cell] = {}
    standing: dict[Cell, tuple[int, float]] = {}
    while waiting or running:
        while waiting and len(running) < workers.number and _fits(pace, settings.steps, deadline):
            cell = waiting.pop(0)
            running[workers.train(cell, settings, policy, cell_path(folder, cell))] = cell
        if not running or (deadline is not None and time.monotonic() > deadline):
            break
        done, _ = wait(running, timeout=TICK, return_when=FIRST_COMPLETED)
        for cell, step, seconds, mean in workers.news():
            standing[cell] = (step, mean if mean == mean else standing.get(cell, (0, mean))[1])
            if step:
                pace.a_step = max(pace.a_step or 0.0, seconds / step) if step < 3 else seconds / step
        for future in done:
            cell = running.pop(future)
            standing.pop(cell, None)
            try:
                pace.before_steps = max(future.result() - settings.steps * (pace.a_step or 0.0), 0.0)
                missing.remove(cell)
            except BrokenProcessPool:
                raise RvpoError(
                    "a worker process died, perhaps for lack of memory; start again to go on, with fewer --workers"
                ) from None
            except Exception as error:
                show(f"{cell.name} failed: {type(error).__name__}: {error}\n")
        show(_line(len(planned) - len(missing), len(planned), standing, settings.steps, pace))
    show("\n")
    return missing


def _fits(pace: Pace, steps: int, deadline: float | None) -> bool:
    """Return whether a cell started now would end in time; yes while nothing is known."""
    seconds = pace.seconds(steps)
    return deadline is None or seconds is None or time.monotonic() + seconds + MARGIN < deadline


def _line(done: int, planned: int, standing: dict[Cell, tuple[int, float]], steps: int, pace: Pace) -> str:
    """Return the one line of progress."""
    cells = "  ".join(f"{cell.name} {step}/{steps} {number(mean)}" for cell, (step, mean) in standing.items())
    a_step = f"  {number(pace.a_step)} s a step" if pace.a_step else ""
    return f"\r{done} of {planned} cells{a_step}  {cells}\x1b[K"


def probe(settings: Settings, policy: str, workers: Workers, folder: Path, sizes: Sequence[int]) -> dict[int, Any]:
    """Train a few steps with so many cells side by side; return number -> seconds a step, memory and the first's log.

    Seconds a step are the median over the cells of a run's steps after the first, which warms up.
    """
    short = replace(settings, steps=PROBED_STEPS, evaluate_every=PROBED_STEPS)
    folder.mkdir(parents=True, exist_ok=True)
    results = {}
    for size in sizes:
        planned = [Cell(TASK, "gdpo", 1000 + index) for index in range(size)]
        files = [folder / f"{cell.name}.parquet" for cell in planned]
        futures = [workers.train(cell, short, policy, file) for cell, file in zip(planned, files, strict=True)]
        total = [future.result() for future in futures]
        time.sleep(TICK)  # the last messages may still be on their way
        times: dict[Cell, dict[int, float]] = {}
        for cell, step, seconds, _ in workers.news():
            times.setdefault(cell, {})[step] = seconds
        last = PROBED_STEPS - 1  # the last step's time holds an evaluation
        a_step = median((of_cell[last] - of_cell[1]) / (last - 1) for of_cell in times.values())
        evaluation = median(of_cell[PROBED_STEPS] - of_cell[last] for of_cell in times.values()) - a_step
        results[size] = {
            "a_step": a_step,
            "evaluation": evaluation,
            "before_steps": max(total) - a_step * last,
            "peak_gib": max(read_cell(file).about.get("peak_gib", math.nan) for file in files),
        }
        for file in files:
            file.unlink()
    (folder / "probe.json").write_text(json.dumps(results, indent=2) + "\n")
    return results


_messages: Any = None
"""Worker: the queue to the parent, which a task cannot bring along."""


def _begin(messages: Any, parent: int, threads: int) -> None:
    """Worker: be quiet, compute with so many threads, one where a GPU computes, and do not outlive the parent."""
    import torch
    from datasets import disable_progress_bars
    from transformers.utils import logging

    global _messages
    _messages = messages
    torch.set_num_threads(1 if torch.cuda.is_available() else threads)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    disable_progress_bars()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _train(cell: Cell, settings: Settings, policy: str, file: Path) -> float:
    """Worker: train one cell; return the seconds it took."""
    import gc

    import torch

    from rvpo_lab.instructions.train import train_cell

    def report(step: int, seconds: float, means: Any) -> None:
        mean = sum(means.values()) / len(means) if means else float("nan")
        _messages.put((cell, step, seconds, mean))

    began = time.monotonic()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    try:
        train_cell(cell, settings, policy, file, report)
    finally:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return time.monotonic() - began
