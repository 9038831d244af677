"""Results of audits with figures of one's choice: healthy unless given."""

import math

from rvpo.audit import AuditResult
from rvpo.audit.result import ChannelAudit, Course, Estimate, Forecast, MethodAudit

NAN = math.nan
UNKNOWN = Estimate(NAN)


def sure(value):
    """A figure without uncertainty."""
    return Estimate(value, value, value)


def forecast(change=0.1, verdict="rises", outlook=0.6):
    """A forecast, without uncertainty."""
    change = change if isinstance(change, Estimate) else sure(change)
    return Forecast(change, sure(outlook), 0.2, verdict)


def channel(name="a", *, forecasts=None, level=0.5, values=1000, repeats=1000, **figures):
    """A channel that is met by half of the answers and rises under GDPO."""
    healthy = {
        "mean": sure(0.5), "recent": sure(level), "drift": sure(0.0), "std": sure(0.5), "dead": sure(0.1),
        "solved": sure(0.0), "failed": sure(0.0), "recent_failed": sure(0.0),
        "missing": sure(0.0), "share": sure(1.0), "rest": sure(0.1),
        "length": sure(0.0), "noise": sure(0.0),
    }  # fmt: skip
    return ChannelAudit(
        name=name,
        range=(0.0, 1.0),
        level=level,
        forecasts={"gdpo": forecast()} | (forecasts or {}),
        values=values,
        repeats=repeats,
        **(healthy | figures),
    )


def method(name="gdpo", *, lowest=0.5, ahead=0.0, bias=0.0):
    """A signal, as "rvpo k=2"; figures without uncertainty."""
    base, _, k = name.partition(" k=")
    ahead, bias = (figure if isinstance(figure, Estimate) else sure(figure) for figure in (ahead, bias))
    return MethodAudit(
        name=name,
        method=None if name == "logged" else base,
        k=float(k) if k else None,
        lowest=sure(lowest),
        all=sure(lowest),
        ahead=ahead,
        bias=bias,
        at_risk=(),
        falls=(),
    )


def result(channels=None, methods=None, **parts):
    """An audit of 100 groups over two steps under GDPO, before its findings."""
    healthy = {"source": "here", "reading": (), "rollouts": 800, "groups": 100, "single": 0, "torn": 0, "pairs": []}
    healthy |= {"steps": (1.0, 2.0), "has_length": True, "has_text": True, "reference": "gdpo"}
    return AuditResult(
        channels=channels or [channel("a"), channel("b")],
        methods=methods or [method()],
        course=Course((), (), ()),
        **(healthy | parts),
    )
