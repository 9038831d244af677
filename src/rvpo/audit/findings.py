"""What the figures of an audit amount to: findings in words, the gravest first, and which method to take.

    risk      a channel that is at risk or falls under the reference signal
    fading    the mean fell by at least `FADED` of its height from the first to the last third of the steps, and every
              rollout fails in at least `EXTINCT` of the last third's groups: where none succeeds nothing is learnt
    dead      no spread in at least `DEAD` of the groups; solved if that is because all rewards are the highest
    noise     equal answers to one prompt differ by at least `NOISE` of the variance in a group
    length    the reference's advantage correlates with the length of the answer by at least `LENGTH`
    conflict  a channel and the sum of the others, or two channels, correlate by at most `CONFLICT` in groups
    discount  a channel of low mean is pushed by RVPO at most `DISCOUNT` times as much as by GDPO
    cap       at least `CAP` of a prompt's channels are dead, which bounds RVPO's advantage from above
    missing   at least `MISSING` of a channel's rewards are missing

An estimate must pass its threshold, and its interval must lie beyond half the threshold (`CLEAR`); the correlation of
a pair must differ from 0 by `ERRORS` standard errors over `FEW_GROUPS` groups.
"""

import math
from collections.abc import Sequence

from rvpo.audit.groups import WINDOW
from rvpo.audit.result import Advice, AuditFinding, AuditResult, ChannelAudit, Estimate, MethodAudit, Pair
from rvpo.audit.signals import PLAIN_SUM
from rvpo.stats import NEGLECTED
from rvpo.text import interval, number, percent, shown, shown_names, signed

__all__ = ["AHEAD", "CONFLICT", "advise", "find", "limits"]

FADED = 0.5
EXTINCT = 0.5
DEAD = 0.9
NOISE = 0.1
LENGTH = 0.2
CONFLICT = -0.3
DISCOUNT = 0.5
CAP = 0.25
MISSING = 0.2
CLEAR = 0.5
"""Share of a threshold beyond which the whole interval must lie."""
MOST = 0.5
"""Share of a channel's dead groups above which these say why it is dead: solved, or failed by every rollout."""
AHEAD = 0.01
"""By how much a method's lowest third must be ahead of the reference's, at the lower end of the interval."""
AS_GOOD = 0.02
"""Values of k whose lowest third is within this of the best are equally good."""
IN_FULL = 3
"""Findings of a kind with a line of their own; the channels of further findings share a line."""
FEW_GROUPS = 30
"""Fewer groups show no conflict of a pair and no better method."""
FEW_REPEATS = 20
"""Fewer repeated answers show no noise."""
ERRORS = 3.0
"""Standard errors by which a pair's correlation must differ from 0: there are many pairs."""


def find(result: AuditResult) -> list[AuditFinding]:
    """Return the findings, the gravest first."""
    return [
        *_risk(result),
        *_fading(result),
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
    reasons = []
    if result.groups < FEW_GROUPS:
        reasons.append(f"most things: {result.groups} groups are few, and intervals over them too narrow")
    if result.torn:
        reasons.append(
            f"which rows make a group: {result.torn} of {result.groups + result.single} came back more than "
            f"{WINDOW:,} rows later and count as groups of their own; sort the log by prompt, or name its step"
        )
    if not result.has_text:
        reasons.append("noise: no column holds the answers")
    elif all(channel.repeats < FEW_REPEATS for channel in result.channels):
        reasons.append("noise: hardly an answer was given twice in its group")
    if not result.has_length:
        reasons.append("length bias: no column holds answers or their length")
    if result.steps is None or result.steps[0] == result.steps[1]:
        reasons.append("drift: there is a single step")
    return reasons


def _risk(result: AuditResult) -> list[AuditFinding]:
    alive = [channel for channel in result.by_outlook(result.reference) if not _is_dead(channel)]
    lost = [channel for channel in alive if channel.forecasts[result.reference].verdict in ("at risk", "falls")]
    return _few(
        [_at_risk(channel, result.reference) for channel in lost], f"not raised under {result.reference} either"
    )


def _at_risk(channel: ChannelAudit, signal: str) -> AuditFinding:
    forecast = channel.forecasts[signal]
    verb = "is at risk" if forecast.verdict == "at risk" else "falls"
    drift = channel.drift
    moved = f" ({signed(drift.value, 2)} over the log)" if drift.low > 0 or drift.high < 0 else ""
    conflict = ""
    if channel.rest.high < 0:
        conflict = f"; it is in conflict with the rest (correlation {number(channel.rest.value)})"
    text = (
        f"{shown(channel.name)} {verb} under {signal}: forecast {interval(*forecast.change)} "
        f"at a mean of {number(channel.recent.value)}{moved}{conflict}"
    )
    return AuditFinding("risk", text, (channel.name,))


def _few(findings: Sequence[AuditFinding], also: str) -> list[AuditFinding]:
    """Return the first `IN_FULL` findings of a kind, and the channels of the others as a last finding."""
    if len(findings) <= IN_FULL:
        return list(findings)
    names = tuple(name for finding in findings[IN_FULL:] for name in finding.channels)
    return [*findings[:IN_FULL], AuditFinding(findings[0].kind, f"{also}: {shown_names(names, 6)}", names)]


def _fading(result: AuditResult) -> list[AuditFinding]:
    """Return the channels on their way to zero, which absorbs: a group without a success teaches nothing."""
    findings = []
    for channel in result.channels:
        recent = channel.recent.value
        early = recent - channel.drift.value
        height = early - channel.range[0]
        faded = height > 0 and _beyond(channel.drift, -FADED * height)
        if not faded or _is_dead(channel) or not _beyond(channel.recent_failed, EXTINCT):
            continue
        text = (
            f"{shown(channel.name)} is on its way to zero: mean {number(early)} -> {number(recent)} over the log, and "
            f"in {percent(channel.recent_failed.value)} of the recent groups every rollout fails it; where none "
            "succeeds, no method can bring it back"
        )
        findings.append(AuditFinding("fading", text, (channel.name,)))
    return _few(findings, "on the way to zero, too")


def _is_dead(channel: ChannelAudit) -> bool:
    return channel.dead.value >= DEAD


def _is_solved(channel: ChannelAudit) -> bool:
    return _is_dead(channel) and channel.solved.value > MOST * channel.dead.value


def _dead(result: AuditResult) -> list[AuditFinding]:
    findings = []
    for channel in result.channels:
        if not _is_dead(channel) or _is_solved(channel):
            continue
        failed = channel.failed.value > MOST * channel.dead.value
        why = "every rollout fails it" if failed else "all rollouts get the same"
        text = f"{shown(channel.name)} is dead: in {percent(channel.dead.value)} of the groups {why}"
        findings.append(AuditFinding("dead", f"{text}, so no method can raise it", (channel.name,)))
    return _few(findings, "dead, too")


def _solved(result: AuditResult) -> list[AuditFinding]:
    names = tuple(channel.name for channel in result.channels if _is_solved(channel))
    if not names:
        return []
    text = f"solved, with nothing left to learn in at least {percent(DEAD)} of the groups: {shown_names(names)}"
    return [AuditFinding("solved", text, names)]


def _noise(result: AuditResult) -> list[AuditFinding]:
    sampled = [channel for channel in result.channels if channel.repeats >= FEW_REPEATS]
    noisy = [channel for channel in sampled if _beyond(channel.noise, NOISE)]
    findings = []
    for channel in sorted(noisy, key=lambda channel: -channel.noise.value):
        text = (
            f"{shown(channel.name)} is noisy: equal answers to one prompt differ by "
            f"{percent(min(channel.noise.value, 1.0))} of its variance in a group ({channel.repeats} repeats); a "
            "risk-sensitive method amplifies that"
        )
        findings.append(AuditFinding("noise", text, (channel.name,)))
    return _few(findings, "noisy, too")


def _beyond(estimate: Estimate, threshold: float) -> bool:
    """Tell whether an estimate is as far from 0 as a threshold of either sign, and its interval `CLEAR` as far."""
    if threshold < 0:
        return estimate.value <= threshold and estimate.high <= CLEAR * threshold
    return estimate.value >= threshold and estimate.low >= CLEAR * threshold


def _length(result: AuditResult) -> list[AuditFinding]:
    bias = result.method(result.reference).bias
    threshold = math.copysign(LENGTH, bias.value)
    if not _beyond(bias, threshold):
        return []
    causes = [channel for channel in result.channels if _beyond(channel.length, threshold)]
    names = tuple(channel.name for channel in sorted(causes, key=lambda channel: -abs(channel.length.value)))
    text = (
        f"{'longer' if threshold > 0 else 'shorter'} answers get more advantage under {result.reference} "
        f"(correlation {interval(*bias, digits=2)})"
    )
    return [AuditFinding("length", text + (f", through {shown_names(names)}" if names else ""), names)]


def _conflicts(result: AuditResult) -> list[AuditFinding]:
    """Return channels against all others, unless another finding has it, and the most opposed pairs."""
    opposed = [channel for channel in result.by_outlook(result.reference) if _beyond(channel.rest, CONFLICT)]
    verdicts = {channel.name: channel.forecasts[result.reference].verdict for channel in opposed}
    findings = [
        AuditFinding(
            "conflict",
            f"{shown(channel.name)} is in conflict with the rest: correlation {interval(*channel.rest, digits=2)}; "
            f"under {result.reference} it {verdicts[channel.name]}",
            (channel.name,),
        )
        for channel in opposed
        if verdicts[channel.name] in ("stalls", "rises")
    ]
    pairs = sorted((pair for pair in result.pairs if _opposed(pair)), key=lambda pair: pair.correlation)
    return _few(findings, "in conflict with the rest, too") + [
        AuditFinding(
            "conflict",
            f"{shown(pair.first)} and {shown(pair.second)} are in conflict: correlation {number(pair.correlation)} "
            f"in {pair.groups} groups",
            (pair.first, pair.second),
        )
        for pair in pairs[:IN_FULL]
    ]


def _opposed(pair: Pair) -> bool:
    clear = pair.correlation + ERRORS * pair.error < 0
    return pair.groups >= FEW_GROUPS and pair.correlation <= CONFLICT and clear


def _discount(result: AuditResult) -> list[AuditFinding]:
    """Return the rare successes that the paper's form pushes less than the mean does, for its smallest such k."""
    names = {method.name for method in result.methods}
    for method in result.methods:
        if method.method != "rvpo" or PLAIN_SUM not in names:
            continue
        rare = [channel for channel in result.channels if _discounted(channel, method.name)]
        if rare:
            worst = min(rare, key=lambda channel: channel.forecasts[method.name].change.value)
            change, plain = worst.forecasts[method.name].change, worst.forecasts[PLAIN_SUM].change
            text = (
                f"{method.name} discounts rare success on {shown_names(channel.name for channel in rare)}: forecast "
                f"of {shown(worst.name)} {interval(*change)} against {signed(plain.value)} under {PLAIN_SUM}"
            )
            return [AuditFinding("discount", text, tuple(channel.name for channel in rare))]
    return []


def _discounted(channel: ChannelAudit, signal: str) -> bool:
    plain, under = channel.forecasts[PLAIN_SUM].change, channel.forecasts[signal].change
    return channel.level < NEGLECTED and plain.low > 0 and under.high < DISCOUNT * plain.value


def _cap(result: AuditResult) -> list[AuditFinding]:
    present = [channel for channel in result.channels if channel.share.value > 0]
    highest = max((method.k for method in result.methods if method.method == "rvpo" and method.k), default=0.0)
    if not present or not highest:
        return []
    criteria = sum(channel.share.value for channel in present)
    dead = sum(channel.share.value * channel.dead.value for channel in present) / criteria
    if dead < CAP:
        return []
    text = (
        f"{percent(dead)} of a prompt's channels are dead, so under rvpo k={highest:g} hardly an advantage exceeds "
        f"{number(-math.log(dead) / highest)}; dead_channels='mask' takes them out"
    )
    return [AuditFinding("cap", text)]


def _missing(result: AuditResult) -> list[AuditFinding]:
    lacking = sorted(
        (channel for channel in result.channels if channel.missing.value >= MISSING),
        key=lambda channel: -channel.missing.value,
    )
    if not lacking:
        return []
    names = tuple(channel.name for channel in lacking)
    text = f"{shown_names(names)} lack up to {percent(lacking[0].missing.value)} of their rewards"
    return [AuditFinding("missing", text, names)]


def advise(result: AuditResult) -> Advice:
    """Return the method whose lowest third of outlooks is the highest, if it is clearly above the reference's."""
    if len(result.channels) == 1:
        return Advice("there is one reward: every method pushes it alike, up to scale")
    if result.groups < FEW_GROUPS:
        return Advice(f"the log does not tell which method to take: {result.groups} groups are too few")
    known = [method for method in result.methods if method.method is not None]
    best = max(known, key=lambda method: method.lowest.value)
    reference = result.method(result.reference)
    compared = (
        f"projected lowest third {number(best.lowest.value)} against {number(reference.lowest.value)} "
        f"under {reference.name} ({interval(*best.ahead, digits=2)}), all {number(best.all.value)} against "
        f"{number(reference.all.value)}"
    )
    if not best.ahead.low >= AHEAD:
        return Advice(f"the log does not tell a better method than {reference.name}: best is {best.name}, {compared}")
    return _take(best, known, compared)


def _take(best: MethodAudit, known: Sequence[MethodAudit], compared: str) -> Advice:
    """Return the advice to take the best method, with the values of k that do as well."""
    forms = [method for method in known if method.method == best.method]
    good = [form for form in forms if form.lowest.value >= best.lowest.value - AS_GOOD]
    ks = tuple(sorted(form.k for form in good if form.k is not None))
    which = f"{best.method}" if not ks else f"{best.method} with k {ks[0]:g}"
    if len(ks) > 1:
        which += f" to {ks[-1]:g}"
    return Advice(f"take {which}: {compared}", best.method, ks)
