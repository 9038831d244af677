"""What a reward declares about its channels.

A *scalar* reward is a reward function as TRL has it: one float or None per completion, one channel named
after the function. A *vector* reward returns several named channels per completion:

    @vector_reward("correct", Channel("concise", range=(0, 10), weight=0.5))
    def graded(completions, answer, **kwargs):
        return [[1.0, 7.5] for _ in completions]              # or {"correct": 1.0, "concise": 7.5}

    @vector_reward(range=(0, 1))                              # names come with each completion
    def rubric(completions, **kwargs):
        return [{"accuracy/dose": 1.0, "tone/polite": None} for _ in completions]

    @vector_reward("correct", Channel("style", only_if="correct >= 1"))  # 0 for a wrong answer

None or NaN is a missing value. With names declared, all prompts have the same channels. Without, each prompt
has the channels that its completions name (a rubric of its own); what stands before the first "/" of such a
name is its tag, and metrics are kept per tag, because a criterion of one prompt says nothing of another's.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, TypeVar, get_args

from rvpo.errors import RewardError
from rvpo.rewards.conditions import Rule, check_rules, in_order, is_here, read_condition

__all__ = [
    "Channel",
    "Declaration",
    "Scope",
    "channel_names",
    "check_channels",
    "declaration",
    "scalar_reward",
    "vector_reward",
]

RESERVED = frozenset({"step", "prompt", "completion", "advantage", "evaluation"})
"""Columns of TRL's completions table, and the trainer's."""

RewardFunction = TypeVar("RewardFunction", bound=Callable[..., Any])
Scope = Literal["rollout", "group"]
"""What a reward function sees at a time."""


@dataclass(frozen=True)
class Channel:
    """What is known of a reward channel before any value is seen."""

    name: str
    """Name in logs and tables."""
    range: tuple[float, float] | None = None
    """Lowest and highest possible value; needed by methods that compare channels. None: not declared."""
    weight: float = 1.0
    """Importance, >= 0."""
    only_if: str | None = None
    """Condition `NAME OP NUMBER` on another channel, as "correct >= 1", without which the reward is `otherwise`."""
    otherwise: float | None = 0.0
    """The reward where `only_if` does not hold; None: missing."""

    def __post_init__(self) -> None:
        """Raise ConfigError for a condition that cannot be read, or a value outside the range where it fails."""
        check_rules(self.rules, {} if self.range is None else {self.name: self.range})

    @property
    def rules(self) -> dict[str, Rule]:
        """The channel's rule by its name; empty without a condition."""
        if self.only_if is None:
            return {}
        otherwise = math.nan if self.otherwise is None else float(self.otherwise)
        return {self.name: Rule(read_condition(self.only_if), otherwise)}


@dataclass(frozen=True)
class Declaration:
    """What a reward function declares: its channels, or what all its channels have in common."""

    channels: tuple[Channel, ...] = ()
    """Named channels, the same for every prompt; empty: names come with each completion."""
    template: Channel = Channel("")
    """Range and weight of the channels that are not named beforehand."""
    is_vector: bool = True
    """The function returns several channels per completion, not one number."""
    scope: Scope = "rollout"
    """What a call of the function gets: any rollouts, or all of one prompt."""
    tags: tuple[str, ...] = ()
    """Texts without which no completion is rewarded: a model must be able to say them."""

    def __post_init__(self) -> None:
        """Raise RewardError for an unknown scope."""
        if self.scope not in get_args(Scope):
            raise RewardError(f"scope must be {' or '.join(map(repr, get_args(Scope)))}, got {self.scope!r}")

    @property
    def is_rubric(self) -> bool:
        """Names of channels come with each completion."""
        return self.is_vector and not self.channels

    def rules(self, function: str) -> dict[str, Rule]:
        """Return the rules of the channels; those of channels that have no name beforehand under the function's."""
        own = self.channels or (replace(self.template, name=function),)
        return {name: rule for channel in own for name, rule in channel.rules.items()}


def scalar_reward(
    *,
    range: tuple[float, float] | None = None,
    weight: float = 1.0,
    only_if: str | None = None,
    otherwise: float | None = 0.0,
    scope: Scope = "rollout",
    tags: Sequence[str] = (),
) -> Callable[[RewardFunction], RewardFunction]:
    """Declare what `Channel` has of a reward function that returns one number per completion.

    For `scope` see `vector_reward`; `tags` are texts without which no completion is rewarded, so that training refuses
    a tokenizer that drops them from what it decodes.
    """
    template = Channel("", range, weight, only_if, otherwise)
    return _declarer(Declaration((), template, is_vector=False, scope=scope, tags=tuple(tags)))


def vector_reward(
    *channels: Channel | str,
    range: tuple[float, float] | None = None,
    weight: float = 1.0,
    only_if: str | None = None,
    otherwise: float | None = 0.0,
    scope: Scope = "rollout",
) -> Callable[[RewardFunction], RewardFunction]:
    """Declare that a reward function (or class with `__call__`) returns several channels per completion.

    With channel names or `Channel`s the return is, per completion, a sequence of their values in order or a
    mapping from name to value (an absent name is missing). Without, it is a mapping. `range` holds for channels that
    have none of their own, `weight` and `only_if` with `otherwise` for those that are no `Channel`.

    With `scope="group"` each call gets the rollouts of one prompt, all of them, from whatever process: for rewards
    that compare answers, as pairwise judges, rankings and measures of diversity do. Then the lists that a call gets,
    and what it returns, have one entry for each rollout of the group.
    """
    template = Channel("", range, weight, only_if, otherwise)
    named = tuple(
        replace(template, name=channel)
        if isinstance(channel, str)
        else replace(channel, range=range if channel.range is None else channel.range)
        for channel in channels
    )
    if len({channel.name for channel in named}) < len(named):
        raise RewardError(f"channel names must differ, got {[channel.name for channel in named]}")
    in_order({name: rule for channel in named for name, rule in channel.rules.items()})
    return _declarer(Declaration(named, template, scope=scope))


def _declarer(declares: Declaration) -> Callable[[RewardFunction], RewardFunction]:
    """Return a decorator that notes what a reward function declares."""

    def declare(function: RewardFunction) -> RewardFunction:
        function.rvpo_declaration = declares  # type: ignore[attr-defined]
        return function

    return declare


def declaration(function: object) -> Declaration:
    """Return what a reward function declares; a function that declares nothing is a scalar reward."""
    while isinstance(function, partial) and not hasattr(function, "rvpo_declaration"):
        function = function.func
    declared = getattr(function, "rvpo_declaration", None)
    return declared if isinstance(declared, Declaration) else Declaration(is_vector=False)


def channel_names(function: str, declares: Declaration) -> list[str]:
    """Return the names by which ranges and weights of a reward's channels are given: the function's, if none differ
    from it or names come with each completion."""
    return [channel.name for channel in declares.channels] if declares.channels else [function]


def check_channels(
    functions: Sequence[tuple[str, Declaration]],
    with_range: Iterable[str] = (),
    with_weight: Iterable[str] = (),
    rules: Mapping[str, Rule] | None = None,
) -> None:
    """Raise RewardError for two channels of one name, a reserved name, or a configured channel that does not exist.

    Weights and rules are also of a rubric's tags, which come and go with the prompts. Raises ConfigError for rules,
    with those declared, that go in a circle or name a channel that does not exist.
    """
    shown = [name for function, declares in functions for name in channel_names(function, declares)]
    # A vector reward's own name is taken too: TRL logs one number per function under it.
    taken = shown + [function for function, declares in functions if declares.is_vector and declares.channels]
    twice = sorted({name for name in taken if taken.count(name) > 1})
    if twice:
        raise RewardError(f"several reward channels are named {twice}; rename one so that logs can tell them apart")
    reserved = sorted(set(shown) & RESERVED)
    if reserved:
        raise RewardError(f"reward channels cannot be named {reserved}: the completions table has such columns")
    rubrics = [function for function, declares in functions if declares.is_rubric]
    tags = {name for name in with_weight if name.rpartition("/")[0] in rubrics}
    unknown = sorted({*with_range, *with_weight} - {*shown} - tags)
    if unknown:
        raise RewardError(f"channel_ranges or channel_weights name {unknown}, but the channels are {sorted(shown)}")
    if rules is None:
        return
    every: dict[str, Rule] = {}
    for function, declares in functions:
        every |= declares.rules(function)
    every |= rules
    for name in in_order(every):
        is_here(name, shown, rubrics)
        is_here(every[name].condition.channel, shown, rubrics)
