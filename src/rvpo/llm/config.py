"""Settings of a server that is asked: which one, how patiently, and how much of it at most."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit, urlunsplit

from rvpo.errors import ConfigError

__all__ = ["ServerConfig", "check_types", "check_whole", "masked_url", "server_url"]

OPENAI_URL = "https://api.openai.com/v1"


@dataclass(frozen=True, repr=False)
class ServerConfig:
    """Settings of an OpenAI-compatible server. Picklable; holds the key's name, never the key."""

    model: str
    """Model name as the server knows it."""
    base_url: str | None = None
    """Server, for example "http://localhost:8001/v1"; None: $OPENAI_BASE_URL or OpenAI."""
    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable with the key; servers on one's own machines need none."""
    concurrency: int = 64
    """Calls at once, over all processes of a run: each takes its share, at least one (WORLD_SIZE)."""
    timeout: float = 120.0
    """Seconds until a call without its whole answer is given up and tried again."""
    retry_minutes: float = 10.0
    """How long a call is tried again after connection errors, timeouts, 408, 409, 429 and 5xx."""
    max_calls: int | None = None
    """Calls answered by the server, over all processes, after which the run stops: when one of them has used up its
    share, as they train on each other's rewards."""
    max_cost: float | None = None
    """Cost, over all processes in the same way, after which the run stops; needs prices. The calls under way then
    come on top."""
    price_input: float = 0.0
    """Price of a million prompt tokens, in any currency."""
    price_output: float = 0.0
    """Price of a million completion tokens."""

    def __post_init__(self) -> None:
        """Check the values; raise ConfigError for one that cannot be."""
        check_whole(self, {"concurrency": (1, 100_000)})
        check_types(self)
        if not self.model:
            raise ConfigError(f"model must be a model's name as the server knows it, got {self.model!r}")
        for name in ("timeout", "retry_minutes"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"{name} must be a finite number > 0, got {getattr(self, name)!r}")
        for name in ("price_input", "price_output", "max_calls", "max_cost"):
            if not 0 <= (getattr(self, name) or 0) < math.inf:
                raise ConfigError(f"{name} must be a finite number >= 0, got {getattr(self, name)!r}")
        if self.max_cost is not None and self.price_input <= 0 and self.price_output <= 0:
            raise ConfigError("max_cost needs price_input and price_output, per million tokens")

    def __repr__(self) -> str:
        """Return the fields without a password that the URL may hold."""
        shown = {setting.name: getattr(self, setting.name) for setting in fields(self)}
        shown["base_url"] = self.base_url and masked_url(self.base_url)
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in shown.items())})"


def server_url(base_url: str | None) -> str:
    """Return the server's URL: the one given, $OPENAI_BASE_URL or OpenAI's, without a slash at its end.

    Raises ConfigError for what is no URL of http or https.
    """
    url = base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI_URL
    try:
        parts = urlsplit(url)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and url.isprintable() and " " not in url
        fits = fits and (parts.port is None or parts.port > 0)
    except ValueError:  # brackets or a port that are none
        fits = False
    if not fits:
        raise ConfigError(f"base_url must be a URL like 'http://localhost:8001/v1', got {masked_url(url)!r}")
    return urlunsplit(parts._replace(path=parts.path.rstrip("/")))


def masked_url(url: str) -> str:
    """Return a URL without the user name and password that it may hold.

    >>> masked_url("http://me:secret@localhost:8001/v1")
    'http://***@localhost:8001/v1'
    """
    scheme, colon, rest = url.rpartition("://")
    place, slash, path = rest.partition("/")
    user, at, host = place.rpartition("@")
    return f"{scheme}{colon}{'***' if user else ''}{at}{host}{slash}{path}"


def check_types(config: Any) -> None:
    """Raise ConfigError for a field of a dataclass whose value is not of the type that it declares.

    An int is a float as well; a bool is neither.
    """
    hints = get_type_hints(type(config))
    for setting in fields(config):
        value, hint = getattr(config, setting.name), hints[setting.name]
        allowed = [get_origin(part) or part for part in (get_args(hint) if NoneType in get_args(hint) else (hint,))]
        if float in allowed:
            allowed.append(int)
        fits = isinstance(value, tuple(allowed)) and not (isinstance(value, bool) and bool not in allowed)
        if not fits:
            words = " or ".join(KINDS[kind] for kind in allowed if not (kind is int and float in allowed))
            raise ConfigError(f"{setting.name} must be {words}, got {value!r}")


KINDS: dict[Any, str] = {
    str: "text", int: "a whole number", float: "a number", bool: "true or false", Mapping: "a mapping",
    NoneType: "left out",
}  # fmt: skip


def check_whole(config: object, bounds: dict[str, tuple[int, int]]) -> None:
    """Raise ConfigError for a field that is no whole number between its two bounds, these included."""
    for name, (least, most) in bounds.items():
        value = getattr(config, name)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise ConfigError(f"{name} must be a whole number from {least} to {most}, got {value!r}")
