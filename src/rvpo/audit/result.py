"""What an audit returns: figures of channels, methods and pairs, findings in words, and advice.

And two audits side by side: what changed in every channel, and which findings only one of them has.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from rvpo.errors import ConfigError, unknown_name
from rvpo.text import interval, shown, shown_names

__all__ = [
    "Advice",
    "AuditComparison",
    "AuditFinding",
    "AuditResult",
    "ChannelAudit",
    "ChannelChange",
    "Course",
    "Estimate",
    "Forecast",
    "MethodAudit",
    "Pair",
    "as_json",
    "compare",
]

ALARMS = ("risk", "fading", "dead", "noise", "length", "conflict")
"""Kinds of findings that mean trouble."""


class Estimate(NamedTuple):
    """A figure with its 95 % bootstrap interval; NaN where the log has too little for it."""

    value: float
    low: float = math.nan
    high: float = math.nan

    def __sub__(self, other: "Estimate") -> "Estimate":
        """Return the difference of two independent figures; half widths add up as squares."""
        value = self.value - other.value
        below = math.hypot(self.value - self.low, other.high - other.value)
        above = math.hypot(self.high - self.value, other.value - other.low)
        return Estimate(value, value - below, value + above)


@dataclass(frozen=True)
class Forecast:
    """What one signal does to one channel."""

    change: Estimate
    """First-order change of the expected reward per unit of advantage, on the reward's own scale."""
    outlook: Estimate
    """Projected mean on [0, 1]: the lower, the more the channel is at risk. Its size depends on the optimiser."""
    weight: float
    """Share of the channel in the advantage; NaN for the logged advantage."""
    verdict: str
    """rises, stalls, falls, at risk or unknown; `rvpo.audit.estimates.verdict` defines them."""


@dataclass(frozen=True)
class ChannelAudit:
    """A channel's figures. Shares are of the groups that have the channel; means are on the rewards' own scale."""

    name: str
    range: tuple[float, float]
    """Lowest and highest possible reward; it puts means on [0, 1]."""
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
    recent_failed: Estimate
    """`failed` in the last third of the steps."""
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
    """Signal -> forecast."""
    values: int = 0
    """Rewards that are not missing."""
    repeats: int = 0
    """Rewards of answers that occur earlier in their group: the sample behind `noise`."""


@dataclass(frozen=True)
class MethodAudit:
    """A signal (a method with its k, or the logged advantage) over all channels."""

    name: str
    """As "rvpo k=2"."""
    method: str | None
    """As "rvpo"; None: the logged advantage."""
    k: float | None
    """None: the method takes none."""
    lowest: Estimate
    """Mean of the lowest third of the outlooks."""
    all: Estimate
    """Mean of all outlooks."""
    ahead: Estimate
    """`lowest` less that of the reference."""
    bias: Estimate
    """Correlation of the advantage with the length of the answer inside groups."""
    at_risk: tuple[str, ...]
    """Channels with this verdict."""
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
class AuditFinding:
    """A property of the log that matters to training, in words; `rvpo.audit.findings` has the thresholds."""

    kind: str
    """risk, fading, dead, noise, length, conflict, discount, cap, missing or solved."""
    text: str
    channels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Advice:
    """Which method to take, if the log tells."""

    text: str
    method: str | None = None
    """None: the log does not tell."""
    ks: tuple[float, ...] = ()
    """Values of k whose lowest third is about as high as the best, ascending."""


@dataclass(frozen=True, repr=False)
class AuditResult:
    """An audit. `headline` is the main finding, `to_dict` is for JSON, `rvpo.audit.audit_page` renders it as HTML."""

    source: str
    reading: tuple[str, ...]
    """How the log was read, as lines of text."""
    rollouts: int
    groups: int
    """Groups of two rollouts or more."""
    single: int
    """Groups of one rollout, left out."""
    torn: int
    """Groups, of any size, whose prompt and step occur in earlier rows that lie too far back to be joined."""
    steps: tuple[float, float] | None
    has_length: bool
    has_text: bool
    reference: str
    """Signal that the others are compared with: the logged advantage, else GDPO, else the first."""
    channels: list[ChannelAudit]
    methods: list[MethodAudit]
    pairs: list[Pair]
    course: Course
    findings: list[AuditFinding] = field(default_factory=list)
    """The gravest first."""
    limits: list[str] = field(default_factory=list)
    """What the log cannot tell, and why."""
    advice: Advice = Advice("")

    @property
    def headline(self) -> str:
        """The gravest finding that means trouble as a line of text, or that there is none."""
        alarm = next((finding.text for finding in self.findings if finding.kind in ALARMS), None)
        return alarm or f"no reward is at risk, dead, noisy or in conflict under {self.reference}"

    def channel(self, name: str) -> ChannelAudit:
        """Return a channel by name; raises ConfigError for an unknown name."""
        return self.channels[_index("channel", name, [channel.name for channel in self.channels])]

    def method(self, name: str) -> MethodAudit:
        """Return a signal by name, as "rvpo k=2"; raises ConfigError for an unknown name."""
        return self.methods[_index("method", name, [method.name for method in self.methods])]

    def by_outlook(self, signal: str) -> list[ChannelAudit]:
        """Return the channels by their outlook under a signal: the most at risk first, those without outlook last."""
        outlooks = {channel.name: channel.forecasts[signal].outlook.value for channel in self.channels}
        return sorted(self.channels, key=lambda channel: (math.isnan(outlooks[channel.name]), outlooks[channel.name]))

    def __repr__(self) -> str:
        """Return the size of the log and the main finding; the figures fill pages."""
        return f"AuditResult({self.source!r}, {self.rollouts} rollouts: {self.headline})"

    def to_dict(self) -> dict[str, Any]:
        """Return everything as lists, mappings, numbers and texts that JSON has; NaN is None."""
        return {"headline": self.headline, **as_json(asdict(self))}


def _index(kind: str, name: str, known: Sequence[str]) -> int:
    if name not in known:
        raise unknown_name(kind, name, known)
    return list(known).index(name)


def as_json(value: Any) -> Any:
    """Return a value in the types of JSON; numbers that JSON lacks are None."""
    if isinstance(value, Estimate):
        return as_json(value._asdict())
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


@dataclass(frozen=True)
class ChannelChange:
    """A channel of both audits."""

    name: str
    before: ChannelAudit
    after: ChannelAudit
    mean: Estimate
    """Mean after less mean before; the interval takes the two logs as independent."""


@dataclass(frozen=True)
class AuditComparison:
    """Two audits, the second against the first."""

    before: AuditResult
    after: AuditResult
    changes: list[ChannelChange]
    """Channels of both, the largest fall first."""
    only_before: tuple[str, ...]
    """Channels of the first alone."""
    only_after: tuple[str, ...]
    gone: list[AuditFinding]
    """Findings of the first that the second lacks, for all or for some of their channels."""
    new: list[AuditFinding]
    """Findings of the second that the first lacks, likewise."""

    def to_dict(self) -> dict[str, Any]:
        """Return the differences and the second audit as lists, mappings, numbers and texts that JSON has."""
        return {
            "headline": self.headline,
            "changes": [{"name": change.name, "mean": as_json(change.mean)} for change in self.changes],
            "only_before": list(self.only_before),
            "only_after": list(self.only_after),
            "gone": [as_json(asdict(finding)) for finding in self.gone],
            "new": [as_json(asdict(finding)) for finding in self.new],
            "after": self.after.to_dict(),
        }

    @property
    def headline(self) -> str:
        """The main difference as a line of text."""
        fallen = [change for change in self.changes if change.mean.high < 0]
        raised = [change for change in self.changes if change.mean.low > 0]
        if not fallen and not raised:
            return f"no reward differs: {len(self.changes)} compared"
        which, largest = ("fall", fallen[0]) if fallen else ("rise", raised[-1])
        return (
            f"{len(raised)} of {len(self.changes)} rewards higher, {len(fallen)} lower; the largest {which}: "
            f"{shown(largest.name)} {interval(*largest.mean)}"
        )


def compare(before: AuditResult, after: AuditResult) -> AuditComparison:
    """Return two audits side by side.

    Raises:
        ConfigError: the two have no channel in common.
    """
    first, second = ({channel.name: channel for channel in audit.channels} for audit in (before, after))
    changes = [
        ChannelChange(name, channel, second[name], second[name].mean - channel.mean)
        for name, channel in first.items()
        if name in second
    ]
    if not changes:
        names = [shown_names(channels) for channels in (first, second)]
        raise ConfigError(f"nothing to compare: {names[0]} in one log, {names[1]} in the other")
    statements = [{part for finding in audit.findings for part in _statements(finding)} for audit in (before, after)]
    return AuditComparison(
        before=before,
        after=after,
        changes=sorted(changes, key=lambda change: change.mean.value),
        only_before=tuple(name for name in first if name not in second),
        only_after=tuple(name for name in second if name not in first),
        gone=[finding for finding in before.findings if not _statements(finding) <= statements[1]],
        new=[finding for finding in after.findings if not _statements(finding) <= statements[0]],
    )


def _statements(finding: AuditFinding) -> set[tuple[str, tuple[str, ...]]]:
    """Return the finding's kind with each of its channels, or with the pair of a conflict."""
    if finding.kind == "conflict" or not finding.channels:
        return {(finding.kind, finding.channels)}
    return {(finding.kind, (name,)) for name in finding.channels}
