"""What bounds and what ends a run's calls: each process's part of a limit, too much missing, and a stop for all.

The stop is for all clients of a process that wait for a server. No client is imported, so that trainers need none.
"""

import os
import weakref
from typing import Protocol

__all__ = [
    "ENOUGH_TO_TELL",
    "MOST_MISSING",
    "allow_calls",
    "are_stopped",
    "register",
    "share_of_process",
    "stop_calls",
    "too_many_missing",
    "too_many_so_far",
    "world_size",
]

ENOUGH_TO_TELL = 20
"""Verdicts or answers below which there are too few to say that too many of them are missing."""
MOST_MISSING = 0.2
"""Share of verdicts or answers that may be missing, where nothing else is set; more stops a run."""


def too_many_missing(missing: int, total: int, most: float = MOST_MISSING) -> bool:
    """Tell whether more than a share `most` of a total of at least ENOUGH_TO_TELL is missing.

    >>> too_many_missing(4, 20), too_many_missing(5, 20), too_many_missing(19, 19)
    (False, True, False)
    """
    return total >= ENOUGH_TO_TELL and missing / total > most


def too_many_so_far(missing: int, total: int, most: float = MOST_MISSING) -> bool:
    """Tell whether more than a share `most` is missing where that is looked at after each of many: at least
    ENOUGH_TO_TELL are missing then, or chance would stop a run that looks again and again.

    >>> too_many_so_far(5, 20), too_many_so_far(20, 99), too_many_so_far(20, 100)
    (False, True, False)
    """
    return missing >= ENOUGH_TO_TELL and too_many_missing(missing, total, most)


def world_size() -> int:
    """Return the number of processes of the run, which every launcher puts into WORLD_SIZE; 1 without one."""
    return max(int(os.environ.get("WORLD_SIZE", "1")), 1)


def share_of_process(total: int, *, least: int = 0) -> int:
    """Return this process's part of a limit that holds for the whole run.

    `total // W`, one more for the first `total % W` processes by RANK, so that the parts add up to the total.

    >>> share_of_process(64)
    64
    """
    world, rank = world_size(), int(os.environ.get("RANK", "0"))
    return max(total // world + (rank < total % world), least)


class _Client(Protocol):
    def stop(self) -> None:
        """End all waiting, in whatever loop and thread."""


_CLIENTS: "weakref.WeakSet[_Client]" = weakref.WeakSet()
_STATE = {"stopped": False}


def register(client: _Client) -> None:
    """Let a client be told by `stop_calls`, as long as it lives."""
    _CLIENTS.add(client)


def stop_calls() -> None:
    """End all waiting of this process's clients within seconds; their calls raise StopRequestedError.

    Fit for a signal's handler. It holds, for new clients too, until `allow_calls`.
    """
    _STATE["stopped"] = True
    for client in list(_CLIENTS):
        client.stop()


def allow_calls() -> None:
    """Let clients ask again, over new connections, after `stop_calls`."""
    _STATE["stopped"] = False


def are_stopped() -> bool:
    """Tell whether `stop_calls` holds."""
    return _STATE["stopped"]
