"""Logs made up with one thing wrong, or with nothing wrong."""

import numpy as np

from rvpo.audit import Groups, audit_groups

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
