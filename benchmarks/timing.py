"""Ratios of two functions timed in turns in one run, so that a slow moment of the machine hits both."""

import statistics
import time
from collections.abc import Callable


def ratio(ours: Callable[[], object], theirs: Callable[[], object], repeats: int) -> tuple[float, float, float]:
    """Return the median of ours/theirs over pairs, and each one's median time in milliseconds."""
    ours(), theirs()
    pairs = []
    for _ in range(repeats):
        start = time.perf_counter()
        theirs()
        middle = time.perf_counter()
        ours()
        pairs.append((time.perf_counter() - middle, middle - start))
    median = statistics.median
    return median(a / b for a, b in pairs), 1e3 * median(a for a, _ in pairs), 1e3 * median(b for _, b in pairs)
