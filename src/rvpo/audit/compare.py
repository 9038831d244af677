"""Two audits side by side: what changed in every channel, and what was found in one of them only."""

from dataclasses import asdict, dataclass
from typing import Any

from rvpo.audit.estimates import Estimate
from rvpo.audit.result import AuditResult, Channel, Finding, plain
from rvpo.audit.words import interval, listed, shown
from rvpo.errors import ConfigError

__all__ = ["Change", "Comparison", "compare"]


@dataclass(frozen=True)
class Change:
    """One channel in both audits."""

    name: str
    before: Channel
    after: Channel
    mean: Estimate
    """Mean after less mean before; the interval takes the two logs as independent."""

    @property
    def differs(self) -> bool:
        """The interval of the difference does not hold 0."""
        return self.mean.low > 0 or self.mean.high < 0


@dataclass(frozen=True)
class Comparison:
    """Two audits, the second against the first."""

    before: AuditResult
    after: AuditResult
    changes: list[Change]
    """Channels of both, the one with the largest fall first."""
    only_before: tuple[str, ...]
    """Channels of the first alone."""
    only_after: tuple[str, ...]
    gone: list[Finding]
    """Findings of the first alone: their kind was not found of all their channels in the second."""
    new: list[Finding]

    def to_dict(self) -> dict[str, Any]:
        """Return the differences and the second audit as plain lists, mappings, numbers and texts; NaN is None."""
        own = {name: plain(getattr(self, name)) for name in ("only_before", "only_after")}
        own |= {name: plain([asdict(one) for one in getattr(self, name)]) for name in ("gone", "new")}
        changes = [{"name": one.name, "mean": plain(one.mean)} for one in self.changes]
        return {"headline": self.headline, "changes": changes, **own, "after": self.after.to_dict()}

    @property
    def headline(self) -> str:
        """The main difference as one line."""
        fallen = [change for change in self.changes if change.mean.high < 0]
        raised = [change for change in self.changes if change.mean.low > 0]
        counts = f"{len(raised)} of {len(self.changes)} rewards higher, {len(fallen)} lower"
        if fallen:
            return f"{counts}; the largest fall: {shown(fallen[0].name)} {interval(fallen[0].mean)}"
        if raised:
            return f"{counts}; the largest rise: {shown(raised[-1].name)} {interval(raised[-1].mean)}"
        return f"no reward differs: {len(self.changes)} compared"


def compare(before: AuditResult, after: AuditResult) -> Comparison:
    """Return two audits side by side.

    Raises:
        ConfigError: the two have no channel in common.
    """
    first, second = ({channel.name: channel for channel in audit.channels} for audit in (before, after))
    changes = [
        Change(name, channel, second[name], second[name].mean - channel.mean)
        for name, channel in first.items()
        if name in second
    ]
    if not changes:
        raise ConfigError(f"nothing to compare: {listed(list(first))} in one, {listed(list(second))} in the other")
    known, found = ({said for one in audit.findings for said in _said(one)} for audit in (before, after))
    return Comparison(
        before=before,
        after=after,
        changes=sorted(changes, key=lambda change: change.mean.value),
        only_before=tuple(name for name in first if name not in second),
        only_after=tuple(name for name in second if name not in first),
        gone=[finding for finding in before.findings if not _said(finding) <= found],
        new=[finding for finding in after.findings if not _said(finding) <= known],
    )


def _said(finding: Finding) -> set[tuple[str, tuple[str, ...]]]:
    """Return what a finding says: its kind, of each of its channels, or of a pair."""
    if finding.kind == "conflict" or not finding.channels:
        return {(finding.kind, finding.channels)}
    return {(finding.kind, (name,)) for name in finding.channels}
