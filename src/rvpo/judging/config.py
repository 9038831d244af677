"""Settings of a judge: its server, how it is asked, and when to stop."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from rvpo.errors import ConfigError, reason, unknown_name
from rvpo.llm.config import ServerConfig, check_whole, server_url
from rvpo.llm.limits import MOST_MISSING
from rvpo.llm.model_text import TAGS

__all__ = ["JudgeConfig"]

STORE = "verdicts.sqlite"
"""Where commands store replies: without a store, what was paid would be lost at the end."""

CHOICES = {
    "structured_output": ("auto", "always", "never"),
    "lost_as": ("missing", "worst"),
    "probe": ("auto", "always", "never"),
}
OWN_FIELDS = ("messages", "stream")
"""Fields of the request that are the judge's own."""


@dataclass(frozen=True, repr=False)
class JudgeConfig(ServerConfig):
    """Settings of a judge behind an OpenAI-compatible server. Picklable; holds the key's name, never the key."""

    criteria_per_call: int = 1
    """Criteria asked in one call, 1 to 8: 1 is the most exact (evaluation), more is cheaper (training)."""
    repeats: int = 1
    """Odd number of verdicts per criterion; the majority counts."""
    temperature: float = 0.0
    """Sampling temperature; a reply that could not be read is asked for again at 0.5 or more."""
    max_tokens: int = 1024
    """Longest reply; what one lacks that was cut there is asked again, fewer criteria at once and twice as long."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of the request body, for example {"chat_template_kwargs": {"enable_thinking": false}}. A field
    that is null is left out: {"temperature": null}, {"max_tokens": null, "max_completion_tokens": 1024}."""
    structured_output: str = "auto"
    """Whether the server is told the form of the reply (response_format with a JSON schema): "auto" as long as it does
    not refuse that, "always" or "never"."""
    thoughts: Mapping[str, str] = field(default_factory=lambda: dict(TAGS))
    """What begins and what ends a thought, in answers and replies. Thoughts are cut before an answer is judged; {}
    judges them too."""
    opens_thought: bool = False
    """Every answer begins inside a thought that its prompt opened: one that no tag closes was cut and is empty."""
    prompt: str = "criteria"
    """Name in `rvpo.judging.prompts.PROMPTS`, or a file."""
    asks: int = 3
    """How often a criterion is asked for if the reply is unreadable or a refusal, the first time included."""
    max_missing: float = MOST_MISSING
    """Share of a batch's verdicts that may be missing; more stops the run, 1 never."""
    dead_after: int = 50
    """Verdicts lost one after the other, over batches and all processes (each counts its share, at least 20), after
    which the judge is dead and the run stops; with max_missing 1 those alone that failed."""
    lost_as: str = "missing"
    """What becomes of a verdict whose loss an answer can bring about (unparsed, refused, cut): "missing", or "worst",
    the worse value for the answer, so that no policy learns to lose verdicts."""
    probe: str = "auto"
    """Whether a training run asks the judge something before its first answer is generated, so that a wrong key or
    model, or a server that is off, ends it then: "always", "never", or "auto", by which it is a warning only if the
    store has replies of the model, as the run may need no others."""
    store: str | None = None
    """Sqlite file that keeps every reply; None: in memory, lost at the end."""

    def __post_init__(self) -> None:
        """Check the values; raise ConfigError for one that cannot be."""
        bounds = {"criteria_per_call": (1, 8), "repeats": (1, 99), "asks": (1, 10), "dead_after": (1, 10**9)}
        check_whole(self, bounds | {"max_tokens": (1, 10**9)})
        super().__post_init__()
        if self.base_url is not None:
            server_url(self.base_url)
        if self.repeats % 2 == 0:
            raise ConfigError(f"repeats must be odd, so that a majority exists; got {self.repeats}")
        if not 0 <= self.max_missing <= 1:
            raise ConfigError(f"max_missing is a share in [0, 1], got {self.max_missing!r}")
        if not 0 <= self.temperature <= 100:
            raise ConfigError(f"temperature must be >= 0, got {self.temperature!r}")
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise unknown_name(name, getattr(self, name), known)
        if not all(isinstance(tag, str) and tag for pair in self.thoughts.items() for tag in pair):
            raise ConfigError(f"thoughts must map opening tags to closing ones, got {dict(self.thoughts)!r}")
        self._check_extra()

    def _check_extra(self) -> None:
        """Raise ConfigError for further fields that no request can have."""
        own = [name for name in OWN_FIELDS if name in self.extra]
        if own:
            raise ConfigError(f"extra cannot set {own[0]!r}, which is the judge's own")
        try:
            json.dumps(dict(self.extra), allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise ConfigError(f"extra must hold what JSON can: {reason(error)}") from None

    @classmethod
    def from_file(cls, file: Path | None, given: Mapping[str, Any]) -> "JudgeConfig":
        """Return the settings of a command: those given before those of a YAML file; replies are stored in `STORE`.

        Raises ConfigError for a file that cannot be read, and for an unknown or unfit setting.
        """
        import yaml

        settings: object = {}
        if file is not None:
            try:
                settings = yaml.safe_load(file.read_text(encoding="utf-8"))
            except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:  # ValueError: bytes, no UTF-8
                raise ConfigError(f"cannot read {file}: {reason(error)}") from error
        if not isinstance(settings, dict):
            raise ConfigError(f"{file} must hold options of the judge, as 'model: NAME'")
        return cls.from_mapping(
            {"store": STORE} | {str(name): value for name, value in settings.items()} | dict(given)
        )

    @classmethod
    def from_mapping(cls, options: Mapping[str, Any]) -> "JudgeConfig":
        """Return the settings of a configuration file; raise ConfigError for an unknown or unfit one."""
        if not isinstance(options, Mapping):
            raise ConfigError(f"a judge is a mapping of its options, as 'model: NAME', got {type(options).__name__}")
        known = [setting.name for setting in fields(cls)]
        for name in options:
            if name not in known:
                raise unknown_name("judge option", name, known)
        if "model" not in options:
            raise ConfigError("a judge needs a model, as the server names it")
        return cls(**options)
