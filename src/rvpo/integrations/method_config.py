"""How reward channels become an advantage, as options: the part of a trainer's configuration that is ours."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from rvpo.core.advantages import compute_advantages
from rvpo.core.methods import METHODS, find_method
from rvpo.core.schedules import Schedule, from_config, read_schedule
from rvpo.errors import ConfigError
from rvpo.rewards.conditions import Rule, check_rules, read_rule

__all__ = ["MethodConfig", "as_mapping"]

DICT_FIELDS = ("method_options", "channel_weights", "channel_ranges", "channel_conditions", "channel_targets")


def _option(default: Any, help: str) -> Any:
    """Return a dataclass field with the help text that the command line shows."""
    return field(default=default, metadata={"help": help})


@dataclass
class MethodConfig:
    """The options of RVPO (arXiv 2605.05750), the same in every trainer. The defaults are the paper's form with k = 1.

    The paper's rubric runs use `k_schedule="linear", k=0.5, k_end=2.0`.
    """

    method: str = _option(
        "rvpo",
        "How channels become one advantage: " + ", ".join(METHODS) + ", or package.module:function of your own. "
        "'rvpo' is the paper's.",
    )
    k: float | None = _option(
        None,
        "Risk coefficient (at the start, if it is scheduled): 0 is the mean, inf the minimum. None: 1, for "
        "rvpo_policy 2.",
    )
    k_schedule: str = _option("constant", "How k moves over the run: constant, or linear (from k to k_end).")
    k_end: float | None = _option(None, "Risk coefficient at the end of the run, for linear.")
    method_options: dict[str, Any] | str | None = _option(
        None,
        "Options of the method as JSON: scale (grpo), share (cvar), threshold (gd2po), ideal (tchebycheff), gamma "
        "(sa_mrpo), cap and symmetric (dara), blend, lowest and highest (pow3r), "
        "utility, signal, total and anchor (rvpo_policy; anchor group, batch or average).",
    )
    anchor_decay: float = _option(0.9, "Decay per generation of the moving average for rvpo_policy's anchor average.")
    dead_channels: str = _option("keep", "Channels without spread in a group: keep (the paper) or mask.")
    recenter: bool = _option(False, "Take out the per-prompt offset that a soft minimum leaves.")
    whiten: str = _option("true", "Whitening over the batch: true (as the method defines), false, sequence, token.")
    std_eps: float = _option(1e-4, "Added to the standard deviations of groups and batch.")
    std_ddof: int = _option(1, "Delta degrees of freedom of these standard deviations: 0 or 1.")
    channel_weights: dict[str, Any] | str | None = _option(
        None,
        'Importance of channels by name, as JSON: \'{"format": 0.5}\', or as it moves over the run: \'{"format": '
        '"1.0 -> 0.2 linear"}\'. Others keep what their reward declares.',
    )
    channel_ranges: dict[str, Any] | str | None = _option(
        None, "Lowest and highest value of channels by name, as JSON: '{\"correct\": [-3, 3]}'."
    )
    channel_conditions: dict[str, Any] | str | None = _option(
        None,
        'Channels that count only if another is met, by name, as JSON: \'{"style": "correct >= 1"}\'. Else they are '
        "0, or as '... else -1' or '... else missing' says.",
    )
    channel_targets: dict[str, Any] | str | None = _option(
        None,
        "Mean that a channel has to reach, on its own scale, by its name in the logs, as JSON: '{\"format\": 0.95}'. "
        "While it is below, a Lagrange multiplier adds to its weight, whatever the method.",
    )
    target_rate: float = _option(
        0.1, "Step of these multipliers per generation, times what the mean lacks as a share of the channel's range."
    )
    allow_changed_settings: bool = _option(
        False,
        "Go on from a checkpoint, or train into a folder with checkpoints, of a run whose method, options, channels, "
        "group size or seed were others.",
    )

    def check_method(self) -> None:
        """Raise ConfigError for an option out of its domain, or options that do not fit together."""
        for name in DICT_FIELDS:
            setattr(self, name, self.mapping(name))
        if not isinstance(self.method, str):  # it is stored with checkpoints
            raise ConfigError(f"method is a name or 'package.module:function', as text; got {self.method!r}")
        self.whiten = str(self.whiten).lower()
        if self.whiten not in ("true", "false", "sequence", "token"):
            raise ConfigError(f"whiten must be true, false, sequence or token, got {self.whiten!r}")
        self._check_k()
        if not 0 <= self.anchor_decay < 1:
            raise ConfigError(f"anchor_decay must be in [0, 1), got {self.anchor_decay}")
        self._check_weights()
        for channel, pair in (self.mapping("channel_ranges") or {}).items():
            is_pair = isinstance(pair, Sequence) and len(pair) == 2 and _are_numbers(*pair)
            if not is_pair or not -math.inf < pair[0] < pair[1] < math.inf:
                raise ConfigError(f"channel_ranges gives {channel!r} {pair!r}; a range is [low, high] with low < high")
        check_rules(self.rules(), self.mapping("channel_ranges") or {})
        self._check_targets()
        self._try_out()

    def _check_k(self) -> None:
        """Raise ConfigError for a k, or a schedule of it, that the method does not read."""
        if find_method(self.method).takes_k:
            return
        given = [name for name in ("k", "k_end") if getattr(self, name) is not None]
        given += ["k_schedule"] if self.k_schedule != "constant" else []
        if given:
            raise ConfigError(
                f"{' and '.join(given)}: no effect with method {self.method!r}, which reads no risk coefficient; "
                "remove it (null in a YAML file takes back what an earlier file sets), or choose another method"
            )

    def _check_weights(self) -> None:
        """Raise ConfigError for weights that are no numbers and no schedules, or move without any effect."""
        for channel, weight in (self.mapping("channel_weights") or {}).items():
            try:
                ends = [read_schedule(weight)(step, 1) for step in (0, 1)] if isinstance(weight, str) else [weight]
            except ConfigError as error:
                raise ConfigError(f"channel_weights gives {channel!r} {weight!r}: {error}") from None
            if not _are_numbers(*ends) or not all(0 <= end < math.inf for end in ends):
                raise ConfigError(f"channel_weights gives {channel!r} {weight!r}; a weight is a finite number >= 0")
        if self.scheduled_weights and not self._weights_matter():
            raise ConfigError(
                f"a schedule in channel_weights has no effect with method {self.method!r} and k {self.k}: "
                "a minimum is the same whatever the weights; choose a finite k"
            )

    def _check_targets(self) -> None:
        """Raise ConfigError for targets that are no numbers, a rate out of its domain, or a method without weights."""
        targets = self.mapping("channel_targets") or {}
        for channel, target in targets.items():
            if not _are_numbers(target) or not math.isfinite(target):
                raise ConfigError(f"channel_targets gives {channel!r} {target!r}; a target is a finite number")
        if not _are_numbers(self.target_rate) or not 0 < self.target_rate < math.inf:
            raise ConfigError(f"target_rate must be a finite number > 0, got {self.target_rate!r}")
        if targets and not self._weights_matter():
            raise ConfigError(
                f"channel_targets has no effect with method {self.method!r} and k {self.k}: "
                "a minimum is the same whatever the weights; choose a finite k"
            )

    def _try_out(self) -> None:
        """Compute advantages of two made-up rollouts: what cannot work fails here, before a model is loaded."""
        compute_advantages([[[0.0], [1.0]]], k=self.schedule()(0, 1), lengths=[[1, 1]], **self._first_options())

    def _weights_matter(self) -> bool:
        """Tell whether the weights of channels, which targets act by, change the advantages of made-up rollouts."""
        rewards = [[[0.0, 1.0], [0.5, 0.2], [1.0, 0.4]]]
        options = self._first_options() | {"whiten": False, "k": self.schedule()(0, 1)}
        equal, unequal = (compute_advantages(rewards, weights=pair, **options) for pair in ([1, 1], [1, 1e9]))
        return not np.array_equal(equal.unwhitened, unequal.unwhitened)

    def _first_options(self) -> dict[str, Any]:
        """Return the options of a batch that no other went before."""
        options = self.advantage_options()
        if options.get("anchor") == "average":  # the trainer's, which hands over the averages themselves
            options["anchor"] = "group"
        if options.get("scale") == "batch":  # likewise
            options["scale"] = "none"
        return options

    def schedule(self) -> Schedule:
        """Return k as a function of the global step; raise ConfigError if its options do not fit together."""
        k = find_method(self.method).default_k if self.k is None else self.k
        if self.k_schedule == "linear":
            if self.k_end is None:
                raise ConfigError("k_schedule 'linear' needs k_end, the k at the end of the run")
            return from_config("linear", {"start": k, "end": self.k_end})
        if self.k_end is not None:
            raise ConfigError(f"k_end has no effect with k_schedule {self.k_schedule!r}; remove one of them")
        return from_config(self.k_schedule, {"k": k})

    @property
    def scheduled_weights(self) -> list[str]:
        """The channels whose weight moves over the run."""
        return [name for name, weight in (self.mapping("channel_weights") or {}).items() if isinstance(weight, str)]

    @property
    def follows_the_step(self) -> bool:
        """The advantages depend on the global step: k or a weight moves."""
        return self.k_schedule != "constant" or bool(self.scheduled_weights)

    def weights(self, step: int, total_steps: int) -> dict[str, float]:
        """Return the importance of channels at a step of the run."""
        given = self.mapping("channel_weights") or {}
        return {
            name: read_schedule(weight)(step, total_steps) if isinstance(weight, str) else weight
            for name, weight in given.items()
        }

    def weight_metrics(self, step: int, total_steps: int) -> dict[str, float]:
        """Return the weights that move, as they are at a step, by the names under which they are logged."""
        weights = self.weights(step, total_steps)
        return {f"channels/{name}/given_weight": weights[name] for name in self.scheduled_weights}

    def rules(self) -> dict[str, Rule]:
        """Return the conditions by channel; raise ConfigError for one that cannot be read."""
        return {name: read_rule(text) for name, text in (self.mapping("channel_conditions") or {}).items()}

    def advantage_options(self) -> dict[str, Any]:
        """Return the keyword arguments of `compute_advantages` that do not change over the run."""
        return {
            "method": self.method,
            "ddof": self.std_ddof,
            "eps": self.std_eps,
            "dead_channels": self.dead_channels,
            "recenter": self.recenter,
            "whiten": {"true": True, "false": False}.get(self.whiten, self.whiten),
            **(self.mapping("method_options") or {}),
        }

    def settings(self) -> dict[str, Any]:
        """Return what must stay the same when a run is resumed, by name, as plain values of JSON."""
        values: dict[str, Any] = {option.name: getattr(self, option.name) for option in fields(MethodConfig)}
        del values["allow_changed_settings"]
        values["k"] = find_method(self.method).default_k if self.k is None else self.k
        return values

    def mapping(self, name: str) -> dict[str, Any] | None:
        """Return an option that is a mapping, or JSON of one, as a mapping."""
        return as_mapping(name, getattr(self, name))


def _are_numbers(*values: object) -> bool:
    return all(isinstance(value, float | int) and not isinstance(value, bool) for value in values)


def as_mapping(name: str, value: object) -> dict[str, Any] | None:
    """Return a mapping, or JSON of one, as a mapping; raise ConfigError for anything else but None."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            raise ConfigError(f"{name} must be a JSON mapping, got {value!r}: {error}") from None
    if value is not None and not isinstance(value, dict):
        raise ConfigError(f"{name} must be a mapping, got {value!r}")
    return value
