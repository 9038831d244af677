"""What an audit returns: figures of channels, methods and pairs, findings in words, and views of them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rvpo.audit.estimates import Estimate
from rvpo.errors import unknown_name

__all__ = ["Advice", "AuditResult", "Channel", "Course", "Finding", "Forecast", "Method", "Pair", "plain"]


ALARMS = ("neglect", "dead", "noise", "length", "conflict")
"""Kinds of findings that say that something is wrong."""


@dataclass(frozen=True)
class Forecast:
    """What one signal does to one channel."""

    change: Estimate
    """First-order change of the expected reward per unit of advantage, on the reward's own scale."""
    correlation: float
    """The same over the reward's standard deviation inside groups."""
    outlook: Estimate
    """Projected mean on [0, 1]; its order says who is at risk, its value depends on the optimiser."""
    weight: float
    """Share of the channel in the advantage; NaN for the logged one."""
    verdict: str
    """rises, stalls, falls, neglected or unknown."""


@dataclass(frozen=True)
class Channel:
    """One channel. Shares are of the groups that have the channel; means on the rewards' own scale."""

    name: str
    range: tuple[float, float]
    """Lowest and highest reward, given or found; means are put on [0, 1] by it."""
    mean: Estimate
    recent: Estimate
    """Mean of the last third of the steps."""
    level: float
    """`recent` on [0, 1]."""
    drift: Estimate
    """Mean of the last third of the steps less that of the first."""
    std: Estimate
    """Mean standard deviation inside a group."""
    dead: Estimate
    """Share of groups without any spread."""
    solved: Estimate
    """Dead with every reward at the top of the range."""
    failed: Estimate
    """Dead with every reward at the bottom of the range."""
    missing: Estimate
    """Share of the rollouts of these groups without a value."""
    share: Estimate
    """Criteria of this channel per prompt; 1 if every prompt has one."""
    rest: Estimate
    """Correlation with the sum of the other channels inside groups; below 0: in conflict."""
    length: Estimate
    """Correlation with the length of the answer inside groups."""
    noise: Estimate
    """Variance among equal answers to one prompt over variance in the group."""
    forecasts: dict[str, Forecast]
    values: int = 0
    repeats: int = 0
    """Rewards of answers that were given before in their group: what `noise` rests on."""


@dataclass(frozen=True)
class Method:
    """One signal over all channels."""

    name: str
    method: str | None
    k: float | None
    lowest: Estimate
    """Mean of the lowest third of the outlooks."""
    all: Estimate
    """Mean of all outlooks."""
    ahead: Estimate
    """`lowest` less that of the reference."""
    bias: Estimate
    """Correlation of the advantage with the length of the answer inside groups."""
    neglected: tuple[str, ...]
    falls: tuple[str, ...]


@dataclass(frozen=True)
class Pair:
    """Two channels in the groups where both vary."""

    first: str
    second: str
    correlation: float
    error: float
    """Standard error."""
    groups: int


@dataclass(frozen=True)
class Course:
    """Over the training steps: points x, and a row per channel. Empty without steps."""

    steps: tuple[float, ...]
    mean: tuple[tuple[float, ...], ...]
    dead: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Finding:
    """One thing that the audit found."""

    kind: str
    """neglect, dead, noise, length, conflict, discount, cap, missing or solved."""
    text: str
    channels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Advice:
    """Which method to take, or that the log does not tell."""

    text: str
    method: str | None = None
    """None: the log does not tell."""
    ks: tuple[float, ...] = ()
    """Values of k that do as well as the best, ascending."""


@dataclass(repr=False)
class AuditResult:
    """An audit. `headline` is the main finding, `to_dict` is for JSON, and notebooks show the page."""

    source: str
    told: tuple[str, ...]
    """How the columns were understood."""
    rollouts: int
    groups: int
    """Groups of two rollouts or more."""
    single: int
    """Groups of one rollout, left out."""
    again: int
    """Groups, single ones too, whose prompt and step the log had before, too far back to be one group with them."""
    steps: tuple[float, float] | None
    has_length: bool
    has_text: bool
    reference: str
    """The signal that others are held against: the logged advantage, else GDPO, else the first."""
    channels: list[Channel]
    methods: list[Method]
    pairs: list[Pair]
    course: Course
    findings: list[Finding] = field(default_factory=list)
    """What was found, the gravest first."""
    limits: list[str] = field(default_factory=list)
    """What the log cannot tell, and why."""
    advice: Advice = field(default_factory=lambda: Advice(""))

    @property
    def headline(self) -> str:
        """The main finding as one line: the first that is wrong with the rewards, or that none is."""
        found = next((finding.text for finding in self.findings if finding.kind in ALARMS), None)
        return found or f"no reward is neglected, dead, noisy or in conflict under {self.reference}"

    def channel(self, name: str) -> Channel:
        """Return a channel by name; raises ConfigError for an unknown one."""
        return self.channels[_index("channel", name, [one.name for one in self.channels])]

    def method(self, name: str) -> Method:
        """Return a signal by name, as "rvpo k=2"; raises ConfigError for an unknown one."""
        return self.methods[_index("method", name, [one.name for one in self.methods])]

    def at_risk(self, signal: str) -> list[Channel]:
        """Return the channels by their outlook under a signal, the lowest first."""
        return sorted(self.channels, key=lambda one: _last_if_nan(one.forecasts[signal].outlook.value))

    def __repr__(self) -> str:
        """Return the size of the log and the main finding; the figures fill pages."""
        return f"AuditResult({self.source!r}, {self.rollouts} rollouts: {self.headline})"

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain lists, mappings, numbers and texts; NaN is None."""
        return {"headline": self.headline, **plain(asdict(self))}

    def _repr_html_(self) -> str:
        """Return the view that notebooks show."""
        from rvpo.audit.page import fragment

        return fragment(self)


def _last_if_nan(value: float) -> float:
    return math.inf if math.isnan(value) else value


def _index(kind: str, name: str, known: Sequence[str]) -> int:
    if name not in known:
        raise unknown_name(kind, name, known)
    return list(known).index(name)


def plain(value: Any) -> Any:
    """Return a value as JSON has it; numbers that JSON lacks are None."""
    if isinstance(value, Estimate):
        return {"value": plain(value.value), "low": plain(value.low), "high": plain(value.high)}
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
