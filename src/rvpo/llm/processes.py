"""The limits of a run, divided over its processes: every one of them has a judge of its own."""

import os

__all__ = ["share_of_process", "world_size"]


def world_size() -> int:
    """Return the number of processes of the run, as every launcher tells it in WORLD_SIZE; 1 without one."""
    return max(int(os.environ.get("WORLD_SIZE", "1")), 1)


def share_of_process(total: int, *, least: int = 0) -> int:
    """Return this process's part of a limit that holds for the whole run.

    `total // W`, one more for the first `total % W` processes by RANK, so that the parts add up to the total.

    >>> share_of_process(64)
    64
    """
    world, rank = world_size(), int(os.environ.get("RANK", "0"))
    return max(total // world + (rank < total % world), least)
