"""The audit itself, pure: groups of rewards in, what happens to every channel under every method out.

>>> import numpy as np
>>> from rvpo.audit import Groups, audit_groups
>>> draw = np.random.default_rng(0)
>>> easy = draw.random((64, 8)) < 0.7
>>> hard = ~easy & (draw.random((64, 8)) < 0.4)  # met only where the easy one is not
>>> rewards = np.stack([easy, easy, hard], axis=2).astype(float)  # two easy ones outweigh it
>>> result = audit_groups([Groups(rewards)], ["easy", "easy too", "hard"], methods=["grpo"])
>>> result.channel("hard").forecasts["grpo"].verdict
'neglected'
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from rvpo.audit.estimates import Estimates, block_steps, estimate, verdict
from rvpo.audit.findings import advise, find, limits
from rvpo.audit.groups import Groups
from rvpo.audit.result import AuditResult, Channel, Course, Forecast, Method, Pair
from rvpo.audit.signals import KS, LOGGED, METHODS, Signal, make_signals
from rvpo.audit.sums import PairSums, Shape, Sums, SumsOfBlocks, group_sums
from rvpo.audit.words import listed, shown
from rvpo.errors import ConfigError, unknown_name

__all__ = ["DRAWS", "audit_groups"]

DRAWS = 1000
LARGEST = 1e100
"""Rewards beyond this have squares beyond float64."""
CURVE_POINTS = 12
"""Points of a course over the steps."""


@dataclass
class _Survey:
    """What a first pass over the groups finds."""

    low: Float[np.ndarray, " L"]
    high: Float[np.ndarray, " L"]
    groups: int = 0
    single: int = 0
    again: int = 0
    rollouts: int = 0
    logged: bool = False
    length: bool = False
    text: bool = False
    steps: tuple[float, float] | None = None


def audit_groups(
    groups: Iterable[Groups] | Callable[[], Iterable[Groups]],
    names: Sequence[str],
    *,
    methods: Sequence[str] = METHODS,
    ks: Sequence[float] = KS,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    seed: int = 0,
    draws: int = DRAWS,
    source: str = "groups",
    told: Sequence[str] = (),
) -> AuditResult:
    """Return the audit of groups of rewards (P prompts, G rollouts, W columns that belong to L channels).

    For every channel j and every signal A (a method with its k) the first-order change of the expected reward is
    `E_p[Cov_g(R_j, A)] / sqrt(E_p[Var_g(A)])`, per unit of the advantage's standard deviation inside groups, so that
    methods are comparable. Intervals are by bootstrap over prompts, over blocks of neighbouring ones if there are
    more than 4096. `rvpo.audit.estimates` defines every figure, `rvpo.audit.findings` the thresholds. All channels
    have the weight 1.

    Args:
        groups: blocks of groups, or a function that yields them; they are gone through twice. Memory does not grow
            with their number.
        names: of the channels. It may grow while groups are first gone through.
        methods: names in `rvpo.METHODS`; ks: for those that take one. Logged advantages are a signal of their own.
        ranges: lowest and highest possible reward of a channel. Without, [0, 1] if no reward lies outside, else
            [-1, 1] likewise, else the lowest and highest reward found.
        seed, draws: of the bootstrap. The same seed gives the same result.
        source, told: shown with the result, where the rewards come from and how columns were understood.

    Raises:
        ConfigError: no group of two rollouts, no reward, rewards outside a given range, an unknown method or channel,
            a k or a number of draws out of its domain.
    """
    if isinstance(draws, bool) or not isinstance(draws, int) or draws < 1 or seed < 0:
        raise ConfigError(f"an audit needs draws >= 1 and a seed >= 0, got {draws!r} and {seed!r}")
    make_signals(methods, ks, logged=False)
    blocks = _again(groups)
    survey = _survey(blocks(), names)
    _check(survey, names)
    found = _ranges(survey, names, ranges or {})
    signals = make_signals(methods, ks, logged=survey.logged)
    shape = Shape(len(names), len(signals))
    sums, pairs = SumsOfBlocks(shape), PairSums.zeros(shape)
    for block in blocks():
        sums.add(group_sums(block, signals, found, pairs))
    reference = _reference(signals)
    estimates = estimate(sums.rows, shape, found, reference=reference, draws=draws, seed=seed)
    totals = Sums(sums.rows.sum(axis=0), shape)
    channels = [_channel(index, name, found, estimates, signals, pairs, totals) for index, name in enumerate(names)]
    result = AuditResult(
        source=source,
        told=tuple(told),
        rollouts=survey.rollouts,
        groups=survey.groups,
        single=survey.single,
        again=survey.again,
        steps=survey.steps,
        has_length=survey.length,
        has_text=survey.text,
        reference=signals[reference].name,
        channels=channels,
        methods=[_method(index, signal, estimates, channels) for index, signal in enumerate(signals)],
        pairs=_pairs(names, pairs),
        course=_course(Sums(sums.rows, shape)),
    )
    result.findings, result.limits, result.advice = find(result), limits(result), advise(result)
    return result


def _again(groups: Iterable[Groups] | Callable[[], Iterable[Groups]]) -> Callable[[], Iterable[Groups]]:
    """Return a function that yields the blocks that hold anything, as often as it is called."""
    kept = None if callable(groups) else list(groups)
    return lambda: (block for block in (groups() if callable(groups) else kept or ()) if 0 not in block.values.shape)


def _survey(blocks: Iterable[Groups], names: Sequence[str]) -> _Survey:
    """Return sizes and the range of every channel."""
    survey = _Survey(np.full(len(names), np.inf), np.full(len(names), -np.inf))
    for block in blocks:
        if block.labels is None and block.values.shape[2] != len(names):
            raise ConfigError(
                f"{block.values.shape[2]} rewards per rollout for {len(names)} names: {listed(names, 20)}"
            )
        if len(names) > len(survey.low):
            more = len(names) - len(survey.low)
            survey.low, survey.high = (
                np.pad(survey.low, (0, more), constant_values=np.inf),
                np.pad(survey.high, (0, more), constant_values=-np.inf),
            )
        size = block.exists().sum(axis=1)
        survey.groups += int((size > 1).sum())
        survey.single += int((size == 1).sum())
        survey.again += 0 if block.again is None else int(block.again.sum())
        survey.rollouts += int(size.sum())
        survey.logged |= block.logged is not None and bool((~np.isnan(block.logged)).any())
        survey.length |= block.length is not None
        survey.text |= block.text is not None
        if block.step is not None and block.step.size:
            ends = survey.steps or (np.inf, -np.inf)
            survey.steps = min(ends[0], float(block.step.min())), max(ends[1], float(block.step.max()))
        _widen(survey, block)
    return survey


def _widen(survey: _Survey, block: Groups) -> None:
    missing = np.isnan(block.values)
    lowest = np.where(missing, np.inf, block.values).min(axis=1)
    highest = np.where(missing, -np.inf, block.values).max(axis=1)
    if block.labels is None:
        np.minimum(survey.low, lowest.min(axis=0), out=survey.low)
        np.maximum(survey.high, highest.max(axis=0), out=survey.high)
        return
    used = block.labels >= 0
    np.minimum.at(survey.low, block.labels[used], lowest[used])
    np.maximum.at(survey.high, block.labels[used], highest[used])


def _check(survey: _Survey, names: Sequence[str]) -> None:
    if not survey.rollouts:
        raise ConfigError("there are no rollouts to audit")
    infinite = [
        name for name, low, high in zip(names, survey.low, survey.high, strict=True) if -np.inf in (low, -high)
    ]
    if infinite:
        raise ConfigError(f"rewards of {listed(infinite)} are infinite; NaN is 'no value'")
    large = [
        name
        for name, low, high in zip(names, survey.low, survey.high, strict=True)
        if low <= high and max(-low, high) > LARGEST
    ]
    if large:
        raise ConfigError(f"rewards of {listed(large)} go beyond {LARGEST:g}; put them on a common scale")
    if not np.isfinite(survey.low).any():
        raise ConfigError(f"none of the {survey.rollouts} rollouts has a value in any of {listed(names, 20)}")
    if not survey.groups:
        raise ConfigError(
            f"each of the {survey.single} groups holds one rollout, so nothing varies inside a group; name the column "
            "that all rollouts of one prompt share (--group)"
        )


def _ranges(
    survey: _Survey, names: Sequence[str], given: Mapping[str, tuple[float, float]]
) -> Float[np.ndarray, "L 2"]:
    """Return each channel's lowest and highest value, given or found."""
    for name, (low, high) in given.items():
        if name not in names:
            raise unknown_name("channel", name, map(shown, names))
        index = list(names).index(name)
        if not low < high or survey.low[index] < low or survey.high[index] > high:
            raise ConfigError(
                f"range {low:g} to {high:g} of channel {name!r} must hold its rewards, which go from "
                f"{survey.low[index]:g} to {survey.high[index]:g}"
            )
    found = []
    for name, low, high in zip(names, survey.low, survey.high, strict=True):
        usual = next((r for r in ((0.0, 1.0), (-1.0, 1.0)) if low >= r[0] - 1e-6 and high <= r[1] + 1e-6), (low, high))
        found.append(given.get(name, usual))
    return np.array(found, dtype=np.float64)


def _reference(signals: Sequence[Signal]) -> int:
    """Return the signal that others are held against: the logged advantage, else GDPO, else the first."""
    names = [signal.name for signal in signals]
    return next((names.index(name) for name in (LOGGED, "gdpo") if name in names), 0)


def _channel(
    index: int,
    name: str,
    ranges: Float[np.ndarray, "L 2"],
    estimates: Estimates,
    signals: Sequence[Signal],
    pairs: PairSums,
    totals: Sums,
) -> Channel:
    low, high = map(float, ranges[index])
    recent = estimates("recent", index)
    unit = (recent.value - low) / (high - low) if high > low else float("nan")
    forecasts = {}
    for place, signal in enumerate(signals):
        change = estimates("change", index, place)
        weighed = pairs.weighed[place, index]
        forecasts[signal.name] = Forecast(
            change=change,
            correlation=estimates("correlation", index, place).value,
            outlook=estimates("outlook", index, place),
            weight=float(pairs.weight[place, index] / weighed) if weighed else float("nan"),
            verdict=verdict(change, unit),
        )
    told = ("mean", "drift", "std", "dead", "solved", "failed", "missing", "share", "rest", "length", "noise")
    figures: dict[str, Any] = {name: estimates(name, index) for name in told}
    return Channel(
        name=name,
        range=(low, high),
        recent=recent,
        level=unit,
        forecasts=forecasts,
        values=int(totals.channel("count")[index]),
        repeats=int(totals.channel("twin_freedom")[index]),
        **figures,
    )


def _method(index: int, signal: Signal, estimates: Estimates, channels: Sequence[Channel]) -> Method:
    verdicts = {channel.name: channel.forecasts[signal.name].verdict for channel in channels}
    return Method(
        name=signal.name,
        method=signal.method,
        k=signal.k if signal.name != signal.method and signal.method else None,
        lowest=estimates("lowest", index),
        all=estimates("all", index),
        ahead=estimates("ahead", index),
        bias=estimates("bias", index),
        neglected=tuple(name for name, said in verdicts.items() if said == "neglected"),
        falls=tuple(name for name, said in verdicts.items() if said == "falls"),
    )


def _pairs(names: Sequence[str], pairs: PairSums) -> list[Pair]:
    """Return the mean correlation of every two channels inside groups where both vary, and its standard error."""
    found = []
    for i, first in enumerate(names):
        for j in range(i + 1, len(names)):
            number = float(pairs.count[i, j])
            if number:
                mean = float(pairs.correlation[i, j]) / number
                variance = max(float(pairs.squares[i, j]) / number - mean**2, 0.0)
                error = (variance / (number - 1)) ** 0.5 if number > 1 else float("nan")
                found.append(Pair(first, names[j], mean, error, int(number)))
    return found


def _course(blocks: Sums) -> Course:
    """Return each channel's mean and dead share over the steps, in `CURVE_POINTS` equal parts of their range."""
    step = block_steps(blocks)
    known = ~np.isnan(step)
    if not known.any() or step[known].min() == step[known].max():
        return Course((), (), ())
    low, high = step[known].min(), step[known].max()
    part = np.minimum((step[known] - low) / (high - low) * CURVE_POINTS, CURVE_POINTS - 1).astype(int)
    member = (np.arange(CURVE_POINTS)[:, None] == part).astype(np.float64)
    sums = Sums(member @ blocks.array[known], blocks.shape)
    filled = sums.group("groups") > 0

    def ratio(over: str, under: str) -> tuple[tuple[float, ...], ...]:
        below = sums.channel(under)[filled]
        shares = np.where(below > 0, sums.channel(over)[filled] / np.where(below > 0, below, 1.0), np.nan)
        return tuple(tuple(map(float, row)) for row in shares.T)

    return Course(tuple(map(float, block_steps(sums)[filled])), ratio("total", "count"), ratio("dead", "has"))
