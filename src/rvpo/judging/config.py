"""Settings of a judge: its server, how it is asked, and when to stop."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from rvpo.errors import ConfigError, unknown_name
from rvpo.llm.config import ServerConfig, check_whole
from rvpo.llm.limits import MOST_MISSING

__all__ = ["JudgeConfig"]


@dataclass(frozen=True)
class JudgeConfig(ServerConfig):
    """Settings of a judge behind an OpenAI-compatible server. Picklable; holds the key's name, never the key."""

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
    max_missing: float = MOST_MISSING
    """Share of a batch's verdicts that may be missing; more stops the run."""
    store: str | None = None
    """Sqlite file that keeps every reply; None: in memory, lost at the end."""

    def __post_init__(self) -> None:
        """Check the values; raise ConfigError for one that cannot be."""
        super().__post_init__()
        check_whole(self, {"criteria_per_call": (1, 8), "repeats": (1, 99), "asks": (1, 10)})
        if self.repeats % 2 == 0:
            raise ConfigError(f"repeats must be odd, so that a majority exists; got {self.repeats}")
        if not self.max_tokens > 0:
            raise ConfigError(f"max_tokens must be > 0, got {self.max_tokens!r}")
        if not 0 <= self.max_missing <= 1:
            raise ConfigError(f"max_missing is a share in [0, 1], got {self.max_missing!r}")
        if not isinstance(self.extra, Mapping):
            raise ConfigError(f"extra must map fields of the request to their values, got {self.extra!r}")

    @classmethod
    def from_mapping(cls, options: Mapping[str, Any]) -> "JudgeConfig":
        """Return the settings of a configuration file; raise ConfigError for an unknown or unfit one."""
        known = [setting.name for setting in fields(cls)]
        for name in options:
            if name not in known:
                raise unknown_name("judge option", name, known)
        if "model" not in options:
            raise ConfigError("a judge needs a model, as the server names it")
        return cls(**options)
