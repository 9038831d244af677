"""The audit itself: logs or groups of rewards in, what happens to every channel under every method out.

>>> import numpy as np
>>> from rvpo.audit import Groups, audit_groups
>>> draw = np.random.default_rng(0)
>>> easy = draw.random((64, 8)) < 0.7
>>> hard = ~easy & (draw.random((64, 8)) < 0.4)  # met only where the easy one is not
>>> rewards = np.stack([easy, easy, hard], axis=2).astype(float)  # two easy ones outweigh it
>>> result = audit_groups([Groups(rewards)], ["easy", "easy too", "hard"], methods=["grpo"])
>>> result.channel("hard").forecasts["grpo"].verdict
'at risk'
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float

from rvpo.audit.estimates import channel_audit, course, estimate, method_audit, pairs
from rvpo.audit.findings import advise, find, limits
from rvpo.audit.groups import NAMINGS, ChannelNames, Groups, TooManyChannelsError
from rvpo.audit.readers import open_log
from rvpo.audit.result import AuditResult
from rvpo.audit.signals import BY_GROUP, KS, LOGGED, PLAIN_SUM, AnyMethod, Signal, make_signals
from rvpo.audit.sums import BlockSums, Layout, PairSums, Sums, group_sums
from rvpo.errors import ConfigError, unknown_name
from rvpo.ranges import outside
from rvpo.rewards.conditions import Rule, apply_rules, check_rules, read_rule
from rvpo.text import percent, shown, shown_names

__all__ = ["DRAWS", "EXAMPLE", "REAL_EXAMPLE", "audit_groups", "audit_log"]

EXAMPLE = Path(__file__).with_name("example.parquet")
"""The rewards of the first ten steps of a real run under GDPO, on the neglect suite's task `conflict`."""
REAL_EXAMPLE = Path(__file__).with_name("example_real.parquet")
"""The rewards of a language model before training, eight answers to each of 200 requests: docs/real-model.md."""
DRAWS = 1000
"""Bootstrap draws."""
LARGEST = 1e100
"""Rewards beyond this have squares beyond float64."""
USUAL_RANGES = ((0.0, 1.0), (-1.0, 1.0))
"""The first that holds all rewards of a channel is its range where none is given."""
KEPT_BYTES = 2**26
"""A log of groups up to this size is kept from the first pass for the second."""


def audit_log(
    path: str | Path,
    *,
    group: str | None = None,
    step: str | None = None,
    rewards: Sequence[str] = (),
    steps: tuple[float, float] | None = None,
    by_tag: bool = False,
    methods: Sequence[AnyMethod] = BY_GROUP,
    ks: Sequence[float] = KS,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    conditions: Mapping[str, str] | None = None,
    seed: int = 0,
    draws: int = DRAWS,
) -> AuditResult:
    """Return the audit of a log: TRL completions, a verl rollout folder, or a table with a row per rollout.

    The log is read a batch at a time, twice if it is large. Channels of rubrics are kinds of criteria, the name up to
    ":"; if these are more than 40, or `by_tag` is set, the name up to "/", and if these are too many, a channel per
    column.

    Args:
        path: see `rvpo.audit.readers`.
        group: column that the rollouts of one prompt share; guessed if not given, as `step` and `rewards` are, see
            `rvpo.audit.columns.find_columns`.
        step: column of the training step.
        rewards: columns of the rewards.
        steps: first and last training step to read.
        by_tag: channels of rubrics by tag.
        methods: see `audit_groups`, as for the rest.
        ks: risk coefficients.
        ranges: lowest and highest possible reward of a channel.
        conditions: of channels that are to count only if another is met.
        seed: of the bootstrap.
        draws: of the bootstrap.

    Raises:
        ConfigError: a file, a column, a reward or an option that cannot be used.
    """
    log = open_log(Path(path), group=group, step=step, rewards=rewards, steps=steps)
    for naming in NAMINGS[1:] if by_tag else NAMINGS:
        names = ChannelNames(log.columns.plain, naming)
        try:
            return audit_groups(
                partial(log.groups, names),
                names.names,
                methods=methods,
                ks=ks,
                ranges=ranges,
                conditions=conditions,
                seed=seed,
                draws=draws,
                source=str(path),
                reading=[*log.reading(), *([f"channels: criteria by {naming}"] if log.columns.maps else [])],
            )
        except TooManyChannelsError:
            continue
    raise AssertionError("a channel per column is never too many")


def audit_groups(
    groups: Iterable[Groups] | Callable[[], Iterable[Groups]],
    names: Sequence[str],
    *,
    methods: Sequence[AnyMethod] = BY_GROUP,
    ks: Sequence[float] = KS,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    conditions: Mapping[str, str] | None = None,
    seed: int = 0,
    draws: int = DRAWS,
    source: str = "groups",
    reading: Sequence[str] = (),
) -> AuditResult:
    """Return the audit of groups of rewards (P prompts, G rollouts, W columns that belong to L channels).

    For every channel j and every signal A (a method with its k) the first-order change of the expected reward is
    `E_p[Cov_g(R_j, A)] / sqrt(E_p[Var_g(A)])`, per unit of the advantage's standard deviation inside groups, so that
    methods are comparable. Intervals are by bootstrap over prompts, over blocks of neighbouring prompts if there are
    more than 4096. `rvpo.audit.estimates` defines every figure, `rvpo.audit.findings` the thresholds. All channels
    have the weight 1.

    Args:
        groups: blocks of groups, or a function that yields them. It is called twice if the groups are large: memory
            does not grow with their number.
        names: of the channels. It may grow while groups are first gone through.
        methods: names in `rvpo.METHODS`, or your own as a function, a `rvpo.Method` or "package.module:function".
        ks: risk coefficients, for methods that take one. Logged advantages are a signal of their own.
        ranges: lowest and highest possible reward of a channel. Without, [0, 1] if no reward lies outside, else
            [-1, 1] likewise, else the lowest and highest reward.
        conditions: of channels that are to count only if another is met, as {"style": "correct >= 1 else 0"}: the
            audit is then of the rewards that these would have made of the log.
        seed: of the bootstrap. The same seed gives the same result.
        draws: of the bootstrap.
        source: shown with the result: where the rewards come from.
        reading: shown with the result: how the log was read.

    Raises:
        ConfigError: no group of two rollouts, no reward, rewards outside a given range, an unknown method or channel,
            a k or a number of draws out of its domain.
    """
    if isinstance(draws, bool) or not isinstance(draws, int) or draws < 1 or seed < 0:
        raise ConfigError(f"an audit needs draws >= 1 and a seed >= 0, got {draws!r} and {seed!r}")
    signals = make_signals(methods, ks)  # an unknown method is an error before the log is read
    blocks = _Blocks(groups, names, {name: read_rule(text) for name, text in (conditions or {}).items()})
    survey = _survey(blocks, names)
    _check(survey, names)
    reading = [*reading, *blocks.conditions(), *survey.unequal()]
    bounds = _ranges(survey, names, ranges or {})
    if survey.logged:
        signals = [Signal(LOGGED), *signals]
    layout = Layout(len(names), len(signals))
    block_sums, pair_sums = BlockSums(layout), PairSums.zeros(layout)
    for block in blocks:
        block_sums.add(group_sums(block, signals, bounds, pair_sums))
    signal_names = [signal.name for signal in signals]
    reference = next((signal_names.index(name) for name in (LOGGED, PLAIN_SUM) if name in signal_names), 0)
    estimates = estimate(block_sums.rows, layout, bounds, reference=reference, draws=draws, seed=seed)
    totals = Sums(block_sums.rows.sum(axis=0), layout)
    channels = [
        channel_audit(index, name, bounds, estimates, signals, pair_sums, totals) for index, name in enumerate(names)
    ]
    result = AuditResult(
        source=source,
        reading=tuple(reading),
        rollouts=survey.rollouts,
        groups=survey.groups,
        single=survey.single,
        torn=survey.torn,
        steps=survey.steps,
        has_length=survey.has_length,
        has_text=survey.has_text,
        reference=signal_names[reference],
        channels=channels,
        methods=[method_audit(index, signal, estimates, channels) for index, signal in enumerate(signals)],
        pairs=pairs(names, pair_sums),
        course=course(Sums(block_sums.rows, layout)),
    )
    return replace(result, findings=find(result), limits=limits(result), advice=advise(result))


class _Blocks:
    """The blocks of groups that hold rewards, to be gone through several times.

    The blocks of a function are kept from the first pass if they are small; else the function is called for each pass.
    Conditions are applied to them. Raises ConfigError for such that cannot be.
    """

    def __init__(
        self,
        groups: Iterable[Groups] | Callable[[], Iterable[Groups]],
        names: Sequence[str] = (),
        rules: Mapping[str, Rule] | None = None,
    ) -> None:
        self._names, self._rules = names, dict(rules or {})
        check_rules(self._rules, {})
        self._unmet, self._known = dict.fromkeys(self._rules, 0), dict.fromkeys(self._rules, 0)
        self._kept = None if callable(groups) else [self._conditioned(block) for block in groups]
        self._read = groups if callable(groups) else lambda: self._kept or []

    def _conditioned(self, block: Groups) -> Groups:
        """Return a block with conditions applied, and count for how many rollouts they do not hold."""
        if not self._rules or 0 in block.values.shape:
            return block
        prompts, rollouts, width = block.values.shape
        labels = np.broadcast_to(np.arange(width), (prompts, width)) if block.labels is None else block.labels
        flat, by_rollout = block.values.reshape(-1, width), np.repeat(labels, rollouts, axis=0)
        applied = apply_rules(flat, by_rollout, self._names, self._rules, rubrics=None)
        for name, met in applied.met.items():
            self._unmet[name] += int((met == 0).sum())
            self._known[name] += int((~np.isnan(met)).sum())
        return replace(block, values=applied.values.reshape(block.values.shape))

    def conditions(self) -> list[str]:
        """Return what the conditions did in the passes so far, a line each; ConfigError for an unknown channel."""
        for name in [name for rule, (condition, _) in self._rules.items() for name in (rule, condition.channel)]:
            if name not in self._names:
                raise unknown_name("channel", name, map(shown, self._names))
        shares = {name: percent(self._unmet[name] / known) if known else "?" for name, known in self._known.items()}
        return [
            f"{shown(name)} only if {shown(str(rule))}: not met by {shares[name]} of the rollouts"
            for name, rule in self._rules.items()
        ]

    def __iter__(self) -> Iterator[Groups]:
        """Yield the blocks."""
        kept: list[Groups] = []
        size = 0
        for block in map(self._conditioned, self._read()) if self._kept is None else self._kept:
            if 0 in block.values.shape:
                continue
            size += block.nbytes
            if size <= KEPT_BYTES:
                kept.append(block)
            else:
                kept.clear()
            yield block
        if size <= KEPT_BYTES:
            self._kept = kept


@dataclass
class _Survey:
    """Sizes and ranges of a log, by a first pass over its groups."""

    low: Float[np.ndarray, " L"] = field(default_factory=lambda: np.zeros(0))
    high: Float[np.ndarray, " L"] = field(default_factory=lambda: np.zeros(0))
    groups: int = 0
    single: int = 0
    torn: int = 0
    rollouts: int = 0
    logged: bool = False
    has_length: bool = False
    has_text: bool = False
    steps: tuple[float, float] | None = None
    sizes: tuple[int, int] | None = None
    """Rollouts of the smallest and the largest group, of those with two or more."""

    def unequal(self) -> list[str]:
        """Return a line that says so if groups have different numbers of rollouts."""
        if self.sizes is None or self.sizes[0] == self.sizes[1]:
            return []
        return [f"groups of unequal size: {self.sizes[0]} to {self.sizes[1]} rollouts"]


def _survey(blocks: Iterable[Groups], names: Sequence[str]) -> _Survey:
    """Return sizes and the range of every channel."""
    survey = _Survey()
    for block in blocks:
        if block.labels is None and block.values.shape[2] != len(names):
            raise ConfigError(
                f"{block.values.shape[2]} rewards per rollout for {len(names)} names: {shown_names(names, 20)}"
            )
        size = block.exists().sum(axis=1)
        survey.groups += int((size > 1).sum())
        survey.single += int((size == 1).sum())
        compared = [*(survey.sizes or ()), *size[size > 1].tolist()]
        survey.sizes = (min(compared), max(compared)) if compared else None
        survey.torn += 0 if block.torn is None else int(block.torn.sum())
        survey.rollouts += int(size.sum())
        survey.logged |= block.logged is not None and bool((~np.isnan(block.logged)).any())
        survey.has_length |= block.length is not None
        survey.has_text |= block.text is not None
        if block.step is not None:
            ends = survey.steps or (np.inf, -np.inf)
            survey.steps = min(ends[0], float(block.step.min())), max(ends[1], float(block.step.max()))
        _widen(survey, block, len(names))
    return survey


def _widen(survey: _Survey, block: Groups, channels: int) -> None:
    """Make the ranges of the channels wide enough for the rewards of a block."""
    unseen = (0, channels - len(survey.low))
    survey.low = np.pad(survey.low, unseen, constant_values=np.inf)
    survey.high = np.pad(survey.high, unseen, constant_values=-np.inf)
    missing = np.isnan(block.values)
    lowest = np.where(missing, np.inf, block.values).min(axis=1)
    highest = np.where(missing, -np.inf, block.values).max(axis=1)
    labels = np.broadcast_to(np.arange(channels), lowest.shape) if block.labels is None else block.labels
    used = labels >= 0
    np.minimum.at(survey.low, labels[used], lowest[used])
    np.maximum.at(survey.high, labels[used], highest[used])


def _check(survey: _Survey, names: Sequence[str]) -> None:
    """Raise ConfigError for a log without anything to audit, or with rewards that cannot be squared."""
    if not survey.rollouts:
        raise ConfigError("there are no rollouts to audit")
    ends = list(zip(names, survey.low, survey.high, strict=True))
    if infinite := [name for name, low, high in ends if -np.inf in (low, -high)]:
        raise ConfigError(f"rewards of {shown_names(infinite)} are infinite; NaN is 'no value'")
    if large := [name for name, low, high in ends if low <= high and max(-low, high) > LARGEST]:
        raise ConfigError(f"rewards of {shown_names(large)} go beyond {LARGEST:g}; put them on a common scale")
    if not np.isfinite(survey.low).any():
        raise ConfigError(f"none of the {survey.rollouts} rollouts has a value in any of {shown_names(names, 20)}")
    if not survey.groups:
        raise ConfigError(
            f"each of the {survey.single} groups holds one rollout, so nothing varies inside a group; name the column "
            "that all rollouts of one prompt share (--group)"
        )


def _ranges(
    survey: _Survey, names: Sequence[str], given: Mapping[str, tuple[float, float]]
) -> Float[np.ndarray, "L 2"]:
    """Return the lowest and highest possible reward of each channel: given, usual, or of the log."""
    for name, (low, high) in given.items():
        if name not in names:
            raise unknown_name("channel", name, map(shown, names))
        index = list(names).index(name)
        if not low < high or not _hold(low, high, survey.low[index], survey.high[index]):
            raise ConfigError(
                f"range {low:g} to {high:g} of channel {name!r} must hold its rewards, which go from "
                f"{survey.low[index]:g} to {survey.high[index]:g}"
            )
    bounds = []
    for name, low, high in zip(names, survey.low, survey.high, strict=True):
        usual = next((bound for bound in USUAL_RANGES if _hold(*bound, low, high)), (low, high))
        bounds.append(given.get(name, usual))
    return np.array(bounds, dtype=np.float64)


def _hold(low: float, high: float, lowest: float, highest: float) -> bool:
    """Tell whether a range holds the lowest and the highest reward, up to rounding; every range holds no reward."""
    return lowest > highest or not outside(np.array([lowest, highest]), low, high).any()
