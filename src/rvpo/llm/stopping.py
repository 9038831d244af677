"""A stop for all clients of a process that wait for a server; imports no client, so that trainers need none."""

import weakref
from typing import Protocol

__all__ = ["allow_calls", "are_stopped", "register", "stop_calls"]


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
