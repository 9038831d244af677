"""Settings of a judge: which server, how it is asked, and when to stop."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from rvpo.errors import ConfigError, unknown_name

__all__ = ["JudgeConfig"]


@dataclass(frozen=True)
class JudgeConfig:
    """Settings of a judge behind an OpenAI-compatible server. Picklable; holds the key's name, never the key."""

    model: str
    """Model name as the server knows it."""
    base_url: str | None = None
    """Server, for example "http://localhost:8001/v1"; None: $OPENAI_BASE_URL or OpenAI."""
    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable with the key; servers on one's own machines need none."""
    criteria_per_call: int = 1
    """Criteria asked in one call, 1 to 8: 1 is the most exact (evaluation), more is cheaper (training)."""
    repeats: int = 1
    """Odd number of verdicts per criterion; the majority counts."""
    temperature: float = 0.0
    """Sampling temperature; a reply that could not be read is asked for again at 0.5 or more."""
    max_tokens: int = 1024
    """Longest reply."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of the request body, for example {"chat_template_kwargs": {"enable_thinking": false}}."""
    prompt: str = "criteria"
    """Name in `rvpo.judging.prompts.PROMPTS`, or a file."""
    asks: int = 3
    """How often a criterion is asked for if the reply is unreadable or a refusal, the first time included."""
    concurrency: int = 64
    """Calls at once, over all processes of a run: each takes its share, at least one (WORLD_SIZE)."""
    timeout: float = 120.0
    """Seconds until a call without an answer is given up and tried again."""
    retry_minutes: float = 10.0
    """How long a call is tried again after connection errors, timeouts, 408, 409, 429 and 5xx."""
    max_missing: float = 0.2
    """Share of a batch's verdicts that may be missing; more stops the run."""
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
    store: str | None = None
    """Sqlite file that keeps every reply; None: in memory, lost at the end."""

    def __post_init__(self) -> None:
        """Check the values."""
        if not self.model:
            raise ConfigError("a judge needs a model, as the server names it")
        whole = {"criteria_per_call": (1, 8), "repeats": (1, 99), "asks": (1, 10), "concurrency": (1, 100_000)}
        for name, (least, most) in whole.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
                raise ConfigError(f"{name} must be a whole number from {least} to {most}, got {value!r}")
        if self.repeats % 2 == 0:
            raise ConfigError(f"repeats must be odd, so that a majority exists; got {self.repeats}")
        for name in ("timeout", "retry_minutes", "max_tokens"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be > 0, got {getattr(self, name)!r}")
        if not 0 <= self.max_missing <= 1:
            raise ConfigError(f"max_missing is a share in [0, 1], got {self.max_missing!r}")
        if self.max_cost is not None and self.price_input <= 0 and self.price_output <= 0:
            raise ConfigError("max_cost needs price_input and price_output, per million tokens")

    @classmethod
    def from_mapping(cls, options: Mapping[str, Any]) -> "JudgeConfig":
        """Return the settings of a configuration file; raise ConfigError for an unknown or unfit one."""
        known = [one.name for one in fields(cls)]
        for name in options:
            if name not in known:
                raise unknown_name("judge option", name, known)
        if "model" not in options:
            raise ConfigError("a judge needs a model, as the server names it")
        return cls(**options)
