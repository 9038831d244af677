"""Two audits side by side: what changed in every channel, and which findings only one of them has."""

from dataclasses import asdict, dataclass
from typing import Any

from rvpo.audit.result import AuditFinding, AuditResult, ChannelAudit, Estimate, as_json
from rvpo.errors import ConfigError
from rvpo.text import interval, shown, shown_names

__all__ = ["AuditComparison", "ChannelChange", "compare"]


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
