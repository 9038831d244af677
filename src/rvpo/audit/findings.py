"""What the figures of an audit amount to: findings in words, the gravest first, and which method to take.

    neglect   a channel that falls or is neglected under the reference signal
    dead      no spread in at least `DEAD` of the groups; solved if that is because all rewards are the highest
    noise     equal answers to one prompt differ by at least `NOISE` of the variance in a group
    length    the reference's advantage correlates with the length of the answer by at least `LENGTH`
    conflict  a channel correlates with the sum of the others, or two with each other, by at most `CONFLICT` in groups
    discount  a channel of low mean is pushed by RVPO at most `DISCOUNT` times as much as by GDPO
    cap       at least `CAP` of a prompt's channels are dead, which bounds RVPO's advantage from above
    missing   at least `MISSING` of a channel's rewards are missing

An estimate must pass its threshold, and its interval lie clear of half of it; the correlation of a pair must differ
from 0 by `ERRORS` standard errors over `FEW_GROUPS` groups.
"""

import math
from collections.abc import Sequence

from rvpo.audit.estimates import NEGLECTED, Estimate
from rvpo.audit.groups import WINDOW
from rvpo.audit.result import Advice, AuditResult, Channel, Finding, Method, Pair
from rvpo.audit.words import interval, listed, number, percent, shown, signed

__all__ = ["advise", "find", "limits"]

DEAD = 0.9
NOISE = 0.1
LENGTH = 0.2
CONFLICT = -0.3
DISCOUNT = 0.5
CAP = 0.25
MISSING = 0.2
AHEAD = 0.01
"""By how much a method's lowest third must be ahead of the reference's, at the lower end of the interval."""
AS_GOOD = 0.02
"""Values of k whose lowest third is within this of the best count as equally good."""
TOLD = 3
"""Findings of one kind that are told in full."""
FEW_GROUPS = 30
FEW_REPEATS = 20
ERRORS = 3.0
"""Standard errors by which a pair's correlation must differ from 0: there are many pairs."""


def find(result: AuditResult) -> list[Finding]:
    """Return the findings, the gravest first."""
    return [
        *_neglect(result),
        *_dead(result),
        *_noise(result),
        *_length(result),
        *_conflicts(result),
        *_discount(result),
        *_cap(result),
        *_missing(result),
        *_solved(result),
    ]


def limits(result: AuditResult) -> list[str]:
    """Return what the log cannot tell, and why."""
    found = []
    if result.groups < FEW_GROUPS:
        found.append(f"most things: {result.groups} groups are few, and intervals over them too narrow")
    if result.again:
        found.append(
            f"which rows make a group: {result.again} of {result.groups + result.single} came back more than "
            f"{WINDOW:,} rows later and count as groups of their own; sort the log by prompt, or name its step"
        )
    if not result.has_text:
        found.append("noise: no column holds the answers")
    elif all(channel.repeats < FEW_REPEATS for channel in result.channels):
        found.append("noise: hardly an answer was given twice in its group")
    if not result.has_length:
        found.append("length bias: no column holds answers or their length")
    if result.steps is None or result.steps[0] == result.steps[1]:
        found.append("drift: there is a single step")
    return found


def _neglect(result: AuditResult) -> list[Finding]:
    worst = [one for one in result.at_risk(result.reference) if not _is_dead(one)]
    found = [one for one in worst if one.forecasts[result.reference].verdict in ("neglected", "falls")]
    return _few([_neglected(one, result.reference) for one in found], f"not raised under {result.reference} either")


def _neglected(channel: Channel, signal: str) -> Finding:
    forecast = channel.forecasts[signal]
    said = "is neglected" if forecast.verdict == "neglected" else "falls"
    drift = channel.drift
    moved = f" ({signed(drift.value, 2)} over the log)" if drift.low > 0 or drift.high < 0 else ""
    conflict = ""
    if channel.rest.high < 0:
        conflict = f"; it is in conflict with the rest (correlation {number(channel.rest.value)})"
    text = (
        f"{shown(channel.name)} {said} under {signal}: forecast {interval(forecast.change)} "
        f"at a mean of {number(channel.recent.value)}{moved}{conflict}"
    )
    return Finding("neglect", text, (channel.name,))


def _few(found: Sequence[Finding], also: str) -> list[Finding]:
    """Return the first `TOLD` findings of a kind, and the channels of the others in one more."""
    if len(found) <= TOLD:
        return list(found)
    names = tuple(name for finding in found[TOLD:] for name in finding.channels)
    return [*found[:TOLD], Finding(found[0].kind, f"{also}: {listed(names, 6)}", names)]


def _is_dead(channel: Channel) -> bool:
    return channel.dead.value >= DEAD


def _is_solved(channel: Channel) -> bool:
    return _is_dead(channel) and channel.solved.value > 0.5 * channel.dead.value


def _dead(result: AuditResult) -> list[Finding]:
    found = []
    for channel in result.channels:
        if not _is_dead(channel) or _is_solved(channel):
            continue
        failed = channel.failed.value > 0.5 * channel.dead.value
        why = "every rollout fails it" if failed else "all rollouts get the same"
        text = f"{shown(channel.name)} is dead: in {percent(channel.dead.value)} of the groups {why}"
        found.append(Finding("dead", f"{text}, so no method can raise it", (channel.name,)))
    return _few(found, "dead, too")


def _solved(result: AuditResult) -> list[Finding]:
    names = tuple(channel.name for channel in result.channels if _is_solved(channel))
    if not names:
        return []
    text = f"solved, with nothing left to learn in at least {percent(DEAD)} of the groups: {listed(names)}"
    return [Finding("solved", text, names)]


def _noise(result: AuditResult) -> list[Finding]:
    noisy = [
        one
        for one in result.channels
        if one.repeats >= FEW_REPEATS and one.noise.value >= NOISE and one.noise.low >= NOISE / 2
    ]
    found = []
    for one in sorted(noisy, key=lambda one: -one.noise.value):
        text = (
            f"{shown(one.name)} is noisy: equal answers to one prompt differ by {percent(min(one.noise.value, 1.0))} "
            f"of its variance in a group ({one.repeats} repeats); a risk-sensitive method amplifies that"
        )
        found.append(Finding("noise", text, (one.name,)))
    return _few(found, "noisy, too")


def _far(estimate: Estimate, threshold: float) -> bool:
    """Tell whether an estimate is beyond +-threshold and its interval beyond half of it, on the same side."""
    end = estimate.low if estimate.value > 0 else -estimate.high
    return abs(estimate.value) >= threshold and end >= threshold / 2


def _length(result: AuditResult) -> list[Finding]:
    bias = result.method(result.reference).bias
    if not _far(bias, LENGTH):
        return []
    sign = math.copysign(1.0, bias.value)
    by = sorted(
        (one for one in result.channels if _far(one.length, LENGTH) and one.length.value * sign > 0),
        key=lambda one: -abs(one.length.value),
    )
    names = tuple(channel.name for channel in by)
    text = (
        f"{'longer' if sign > 0 else 'shorter'} answers get more advantage under {result.reference} "
        f"(correlation {interval(bias, 2)})"
    )
    return [Finding("length", text + (f", through {listed(names)}" if names else ""), names)]


def _conflicts(result: AuditResult) -> list[Finding]:
    """Return channels against all others, unless they are neglected for it, and the most opposed pairs."""
    against = [one for one in result.at_risk(result.reference) if one.rest.value < 0 and _far(one.rest, -CONFLICT)]
    found = [
        Finding(
            "conflict",
            f"{shown(one.name)} is in conflict with the rest: correlation {interval(one.rest, 2)}; under "
            f"{result.reference} it {one.forecasts[result.reference].verdict}",
            (one.name,),
        )
        for one in against
        if one.forecasts[result.reference].verdict in ("stalls", "rises")
    ]
    pairs = sorted((pair for pair in result.pairs if _opposed(pair)), key=lambda pair: pair.correlation)
    return _few(found, "in conflict with the rest, too") + [
        Finding(
            "conflict",
            f"{shown(pair.first)} and {shown(pair.second)} are in conflict: correlation {number(pair.correlation)} "
            f"in {pair.groups} groups",
            (pair.first, pair.second),
        )
        for pair in pairs[:TOLD]
    ]


def _opposed(pair: Pair) -> bool:
    clear = pair.correlation + ERRORS * pair.error < 0
    return pair.groups >= FEW_GROUPS and pair.correlation <= CONFLICT and clear


def _discount(result: AuditResult) -> list[Finding]:
    """Return the rare successes that the paper's form pushes less than the mean does, for its smallest such k."""
    names = {method.name for method in result.methods}
    for method in result.methods:
        if method.method != "rvpo" or "gdpo" not in names:
            continue
        rare = [channel for channel in result.channels if _discounted(channel, method.name)]
        if rare:
            worst = min(rare, key=lambda one: one.forecasts[method.name].change.value)
            under, plain = worst.forecasts[method.name].change, worst.forecasts["gdpo"].change
            text = (
                f"{method.name} discounts rare success on {listed([one.name for one in rare])}: forecast of "
                f"{shown(worst.name)} {interval(under)} against {signed(plain.value)} under gdpo"
            )
            return [Finding("discount", text, tuple(one.name for one in rare))]
    return []


def _discounted(channel: Channel, signal: str) -> bool:
    plain, under = channel.forecasts["gdpo"].change, channel.forecasts[signal].change
    return channel.level < NEGLECTED and plain.low > 0 and under.high < DISCOUNT * plain.value


def _cap(result: AuditResult) -> list[Finding]:
    shares = [(one.share.value, one.dead.value) for one in result.channels if not math.isnan(one.dead.value)]
    dead = sum(share * part for share, part in shares) / max(sum(share for share, _ in shares), 1e-9)
    ks = [method.k for method in result.methods if method.method == "rvpo" and method.k]
    if dead < CAP or not ks:
        return []
    highest = max(ks)
    bound = number(-math.log(min(dead, 1.0)) / highest)
    text = (
        f"{percent(dead)} of a prompt's channels are dead, so under rvpo k={highest:g} hardly an advantage exceeds "
        f"{bound}; dead_channels='mask' takes them out"
    )
    return [Finding("cap", text)]


def _missing(result: AuditResult) -> list[Finding]:
    found = sorted(
        (one for one in result.channels if one.missing.value >= MISSING), key=lambda one: -one.missing.value
    )
    if not found:
        return []
    names = tuple(one.name for one in found)
    return [
        Finding("missing", f"{listed(names)} lack up to {percent(found[0].missing.value)} of their rewards", names)
    ]


def advise(result: AuditResult) -> Advice:
    """Return the method whose lowest third of outlooks is the highest, if it is clearly above the reference's."""
    if len(result.channels) == 1:
        return Advice("there is one reward: every method pushes it alike, up to scale")
    if result.groups < FEW_GROUPS:
        return Advice(f"the log does not tell which method to take: {result.groups} groups are too few")
    known = [method for method in result.methods if method.method is not None]
    best = max(known, key=lambda one: one.lowest.value)
    reference = result.method(result.reference)
    compared = (
        f"projected lowest third {number(best.lowest.value)} against {number(reference.lowest.value)} "
        f"under {reference.name} ({interval(best.ahead, 2)}), all {number(best.all.value)} against "
        f"{number(reference.all.value)}"
    )
    if not best.ahead.low >= AHEAD:
        return Advice(f"the log does not tell a better method than {reference.name}: best is {best.name}, {compared}")
    return _take(best, known, compared)


def _take(best: Method, known: Sequence[Method], compared: str) -> Advice:
    good = [one for one in known if one.method == best.method and one.lowest.value >= best.lowest.value - AS_GOOD]
    ks = tuple(sorted(one.k for one in good if one.k is not None))
    which = f"{best.method}" if not ks else f"{best.method} with k {ks[0]:g}"
    if len(ks) > 1:
        which += f" to {ks[-1]:g}"
    return Advice(f"take {which}: {compared}", best.method, ks)
