"""Rewards by name, as `reward_funcs` of `rvpo train` has them: built-in ones, a judge's, or a dotted path."""

import importlib
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from rvpo.errors import ConfigError, unknown_name

__all__ = ["BUILT_IN_REWARDS", "JUDGED_REWARDS", "REWARDS_WITH_REASONS", "load_reward"]

BUILT_IN_REWARDS = {
    "tool_format": "rvpo.rewards.tool_calling.format_reward",
    "tool_format_opened": "rvpo.rewards.tool_calling.format_reward_opened",
    "tool_correctness": "rvpo.rewards.tool_calling.correctness_reward",
    "accuracy_reward": "trl.rewards.accuracy_reward",
    "think_format_reward": "trl.rewards.think_format_reward",
}

JUDGED_REWARDS = {"rubric": None, "rubric_explicit": "explicit", "rubric_implicit": "implicit"}
"""Rewards of an LLM judge, which the option `judge` configures, with the aggregate of each."""

REWARDS_WITH_REASONS = {name for name, aggregate in JUDGED_REWARDS.items() if aggregate != "implicit"}
"""Those made of verdicts, each of which the judge gives a reason for; a rating of the whole answer has none."""


def load_reward(name: str, judge: Mapping[str, Any] | None = None, *, log_reasons: bool = False) -> Callable[..., Any]:
    """Return a reward by built-in name or dotted path; a class is called without arguments.

    `judge` and `log_reasons` are `RubricReward`'s, and matter to JUDGED_REWARDS alone. Raises ConfigError for a reward
    that cannot be loaded, or a judge's without a judge.
    """
    if name in JUDGED_REWARDS:
        return _judged_reward(name, judge, log_reasons)
    path = BUILT_IN_REWARDS.get(name, name)
    if "." not in path:
        raise unknown_name(
            "reward", name, [*BUILT_IN_REWARDS, *JUDGED_REWARDS, "a dotted path such as my_module.my_reward"]
        )
    module_name, _, attribute = path.rpartition(".")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        reward: Callable[..., Any] = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"cannot load reward {name!r}: {error}") from error
    if not callable(reward):
        raise ConfigError(f"reward {name!r} is {type(reward).__name__}, not a function")
    if isinstance(reward, type):
        reward = reward()
        if not hasattr(reward, "__name__"):
            reward.__name__ = attribute  # TRL names the reward by it
    return reward


def _judged_reward(name: str, judge: Mapping[str, Any] | None, log_reasons: bool) -> Callable[..., Any]:
    """Return a reward of the configured judge."""
    if judge is None:
        raise ConfigError(f"reward {name!r} needs a judge: set 'judge' to a mapping with at least its model")
    try:
        from rvpo.rewards.rubric import RubricReward
    except ImportError as error:
        raise ConfigError(f"reward {name!r} needs the judge's client ({error}): pip install 'rvpo[judge]'") from error
    log_reasons = log_reasons and name in REWARDS_WITH_REASONS
    return RubricReward(judge, aggregate=JUDGED_REWARDS[name], name=name, log_reasons=log_reasons)
