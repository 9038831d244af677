"""Settings of a server that is asked: which one, how patiently, and how much of it at most."""

from dataclasses import dataclass

from rvpo.errors import ConfigError

__all__ = ["ServerConfig", "check_whole"]


@dataclass(frozen=True)
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
    """Seconds until a call without an answer is given up and tried again."""
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
        if not self.model:
            raise ConfigError(f"model must be a model's name as the server knows it, got {self.model!r}")
        check_whole(self, {"concurrency": (1, 100_000)})
        for name in ("timeout", "retry_minutes"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be > 0, got {getattr(self, name)!r}")
        if self.max_cost is not None and self.price_input <= 0 and self.price_output <= 0:
            raise ConfigError("max_cost needs price_input and price_output, per million tokens")


def check_whole(config: object, bounds: dict[str, tuple[int, int]]) -> None:
    """Raise ConfigError for a field that is no whole number between its two bounds, these included."""
    for name, (least, most) in bounds.items():
        value = getattr(config, name)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise ConfigError(f"{name} must be a whole number from {least} to {most}, got {value!r}")
