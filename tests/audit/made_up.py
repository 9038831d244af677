"""Logs made up with one thing wrong, or with nothing wrong; and results of audits with figures of one's choice."""

import math

import numpy as np

from rvpo.audit import AuditResult, Groups, audit_groups
from rvpo.audit.result import ChannelAudit, Course, Estimate, Forecast, MethodAudit

# --- Logs ---


ALARMS = {"risk", "fading", "dead", "noise", "length", "conflict"}


def rewards(draw, prompts=96, rollouts=8, channels=5, *, rates=(0.35, 0.8), quality=0.3):
    """Pass or fail on every channel; answers that are good on one channel are a little better on the others."""
    rates = draw.uniform(*rates, size=channels)
    good = quality * draw.normal(size=(prompts, rollouts, 1))
    threshold = np.log(rates / (1 - rates)) + good
    return (draw.logistic(size=(prompts, rollouts, channels)) < threshold).astype(float)


def log(values, *, text=None, length=None, step=None):
    """Return the groups of a log of 12 steps; every answer has a text of its own unless given."""
    prompts, rollouts, _ = values.shape
    return Groups(
        values,
        step=np.repeat(np.arange(1, 13), -(-prompts // 12))[:prompts].astype(float) if step is None else step,
        text=np.arange(prompts * rollouts).reshape(prompts, rollouts) if text is None else text,
        length=length,
    )


def audit(groups, channels, **options):
    """Audit with names c0, c1, ..."""
    options = {"methods": ["grpo", "gdpo", "rvpo"], "ks": [2.0], "draws": 300} | options
    return audit_groups([groups], [f"c{index}" for index in range(channels)], **options)


def clean(seed):
    """A log of random size with nothing wrong: repeats get equal rewards, and lengths mean nothing."""
    draw = np.random.default_rng(seed)
    prompts, rollouts, channels = draw.integers(48, 200), draw.integers(4, 17), draw.integers(2, 13)
    values = rewards(draw, prompts, rollouts, channels, quality=draw.uniform(0, 1))
    if draw.random() < 0.5:
        values = np.clip(values + draw.normal(scale=0.2, size=values.shape), 0, 1)
    text = np.arange(prompts * rollouts).reshape(prompts, rollouts)
    text[:, 1], values[:, 1] = text[:, 0], values[:, 0]
    values[draw.random(values.shape) < draw.uniform(0, 0.05)] = np.nan
    return log(values, text=text, length=draw.lognormal(5, 0.5, size=text.shape)), int(channels)


# --- Results, healthy unless given ---


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
