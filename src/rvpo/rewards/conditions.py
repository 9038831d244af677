"""Rewards that count only if another one is met: `NAME OP NUMBER`, and what counts where that does not hold.

GDPO's conditioned rewards (arXiv 2601.05242) give an easy reward only to rollouts that have met a hard one, so that it
cannot be collected alone. A condition is read from text by one regular expression; nothing in it is evaluated.

    >>> read_rule("correct >= 1 else missing")
    Rule(condition=Condition(channel='correct', operator='>=', bound=1.0), otherwise=nan)

A condition is of the other channel as it counts itself, so conditions chain: with `format` only if `correct >= 1`,
and `style` only if `format >= 1`, a wrong answer has neither. Where the other channel has no value, it is not known
whether the condition holds, and the reward is missing. A reward without a value of its own stays missing, whether the
condition holds or not.
"""

import math
import operator
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from rvpo.errors import ConfigError

__all__ = [
    "Condition",
    "Conditioned",
    "Rule",
    "apply_rules",
    "check_rules",
    "in_order",
    "is_here",
    "read_condition",
    "read_rule",
]

OPERATORS: dict[str, Callable[[np.ndarray, np.floating], np.ndarray]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}
CONDITION = re.compile(r"(?P<name>[^<>=!]+)(?P<operator>[<>]=?|==|!=)(?P<bound>[^<>=!]+)")


class Condition(NamedTuple):
    """A bound of another channel."""

    channel: str
    operator: str
    bound: float

    def __str__(self) -> str:
        """Return the condition as it is written."""
        return f"{self.channel} {self.operator} {self.bound:g}"

    def holds(self, values: Float[np.ndarray, " N"]) -> Bool[np.ndarray, " N"]:
        """Tell for which of the other channel's values the condition holds.

        Compared as float32, the type in which trainers gather rewards: 0.7 is then at least 0.7.
        """
        return np.asarray(OPERATORS[self.operator](values.astype(np.float32), np.float32(self.bound)))


class Rule(NamedTuple):
    """What a channel's reward depends on."""

    condition: Condition
    otherwise: float = 0.0
    """What a reward with a value becomes where the condition does not hold; NaN: missing."""

    def __str__(self) -> str:
        """Return the rule as it is written."""
        return f"{self.condition} else {'missing' if math.isnan(self.otherwise) else format(self.otherwise, 'g')}"


class Conditioned(NamedTuple):
    """What conditions make of rewards."""

    values: Float[np.ndarray, "N W"]
    rules: dict[str, Rule]
    """By channel; the rule of a rubric for each of its tags."""
    met: dict[str, Float[np.ndarray, " N"]]
    """For each of these channels, 1 where the condition holds, 0 where not, NaN where that is not known."""

    def reward(self, channel: str, rollout: int, value: float) -> float:
        """Return what a rollout's value of a channel counts; one that is missing stays missing."""
        met = self.met[channel][rollout] if channel in self.met else 1.0
        return math.nan if math.isnan(met + value) else value if met else self.rules[channel].otherwise


def read_condition(text: object) -> Condition:
    """Return the condition `NAME OP NUMBER`; raise ConfigError for text of another form."""
    match = CONDITION.fullmatch(text) if isinstance(text, str) else None
    bound = math.nan if match is None else _number(match["bound"])
    if match is None or not match["name"].strip() or not math.isfinite(bound):
        raise ConfigError(
            f"a condition is written NAME OP NUMBER, with one of {' '.join(OPERATORS)}, as 'correct >= 1'; "
            f"got {text!r}"
        )
    return Condition(match["name"].strip(), match["operator"], bound)


def read_rule(text: object) -> Rule:
    """Return the rule `NAME OP NUMBER [else NUMBER]`, or `else missing`; 0 where nothing is said.

    Raises ConfigError for text of another form.
    """
    condition, is_said, otherwise = text.rpartition(" else ") if isinstance(text, str) else ("", "", "")
    if not is_said:
        return Rule(read_condition(text))
    value = _number(otherwise)
    return Rule(read_condition(condition if math.isfinite(value) or otherwise.strip() == "missing" else text), value)


def _number(text: str) -> float:
    """Return the number that is written, NaN for any other text."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def in_order(rules: Mapping[str, Rule]) -> list[str]:
    """Return the channels with a rule, each after the one that it depends on; raise ConfigError for a circle."""
    try:
        order = TopologicalSorter({name: [rule.condition.channel] for name, rule in rules.items()}).static_order()
        return [name for name in order if name in rules]
    except CycleError as error:
        circle = " -> ".join(map(repr, reversed(error.args[1])))
        raise ConfigError(f"conditions go in a circle: {circle}; let one of these channels count by itself") from None


def check_rules(rules: Mapping[str, Rule], ranges: Mapping[str, Sequence[float]]) -> None:
    """Raise ConfigError for conditions in a circle, or a reward that a condition gives outside its channel's range."""
    in_order(rules)
    for name, rule in rules.items():
        low, high = ranges.get(name, (-math.inf, math.inf))
        if rule.otherwise < low or rule.otherwise > high:
            raise ConfigError(
                f"channel {name!r} is {rule.otherwise:g} unless {rule.condition}, but its range is "
                f"[{low:g}, {high:g}]; choose a value inside it, or let the reward be missing"
            )


def apply_rules(
    values: Float[np.ndarray, "N W"],
    labels: Int[np.ndarray, "N W"],
    names: Sequence[str],
    rules: Mapping[str, Rule],
    rubrics: Collection[str] | None = (),
) -> Conditioned:
    """Return rewards with conditions applied, in a new array.

    Args:
        values: rewards of N rollouts; NaN: no value.
        labels: index in `names` of the channel that a column belongs to, for each rollout; -1: none.
        names: of the channels.
        rules: by channel.
        rubrics: rewards whose channels are tags, "rubric/accuracy" of "rubric", and come and go with the prompts. A
            rubric's rule is that of each tag without one of its own. None: any channel may still come.

    Raises:
        ConfigError: a circle, an unknown channel, or a condition on a channel that has several values a rollout.
    """
    values = values.copy()
    spread = {name: rule for name, rule in rules.items() if is_here(name, names, rubrics)}
    for rubric in [name for name in rubrics or () if name in rules]:
        spread |= {tag: rules[rubric] for tag in names if tag.startswith(f"{rubric}/") and tag not in rules}
    met: dict[str, Float[np.ndarray, " N"]] = {}
    for name in in_order(spread):
        condition, otherwise = spread[name]
        place = list(names).index(condition.channel) if is_here(condition.channel, names, rubrics) else -2
        other = _single_values(values, labels == place, condition)
        met[name] = np.where(np.isnan(other), math.nan, condition.holds(other))
        own = (labels == list(names).index(name)) & ~np.isnan(values)  # a lost or inapplicable reward stays missing
        values[own & (met[name] == 0)[:, None]] = otherwise
        values[own & np.isnan(other)[:, None]] = math.nan
    return Conditioned(values, spread, met)


def is_here(name: str, names: Sequence[str], rubrics: Collection[str] | None) -> bool:
    """Tell whether a channel is among the names; raise ConfigError if it is not and cannot come either."""
    if name in names:
        return True
    if rubrics is None or name in rubrics or name.rpartition("/")[0] in rubrics:
        return False
    raise ConfigError(f"a condition names channel {name!r}, but the channels are {sorted(names)}")


def _single_values(
    values: Float[np.ndarray, "N W"], own: Bool[np.ndarray, "N W"], condition: Condition
) -> Float[np.ndarray, " N"]:
    """Return each rollout's value of a channel that has at most one; NaN without any."""
    if (own.sum(axis=1) > 1).any():
        raise ConfigError(
            f"the condition {condition} is of a channel with several values for one answer; "
            "name a channel with one, or a tag of one criterion"
        )
    return np.asarray(np.where(own.any(axis=1), np.where(own, values, 0.0).sum(axis=1), math.nan))
