"""Configuration of `RVPOTrainer`: everything of TRL's `GRPOConfig`, and how the channels become an advantage."""

import json
from dataclasses import dataclass, field
from typing import Any

from rvpo.aggregations import AGGREGATIONS
from rvpo.errors import ConfigError, unknown_name
from rvpo.integrations.trl_version import check_trl
from rvpo.schedules import Schedule, from_config

check_trl()

from trl import GRPOConfig  # noqa: E402

__all__ = ["RVPOConfig", "as_mapping"]

DICT_FIELDS = ("k_steps", "method_options", "channel_weights", "channel_ranges")


def _option(default: Any, help: str) -> Any:
    """Return a dataclass field with the help text that the command line shows."""
    return field(default=default, metadata={"help": help})


@dataclass
class RVPOConfig(GRPOConfig):  # type: ignore[misc]
    """GRPOConfig plus the options of RVPO (arXiv 2605.05750). The defaults are the paper's form with k = 1.

    The paper's rubric runs use `k_schedule="linear", k=0.5, k_end=2.0`. TRL's `scale_rewards` and
    `multi_objective_aggregation` have no effect: the advantage is the one configured here.
    `reward_weights` multiply the channel weights of their reward function.
    """

    method: str = _option(
        "rvpo", "How channels become one advantage: " + ", ".join(sorted(AGGREGATIONS)) + ". 'rvpo' is the paper's."
    )
    k: float = _option(1.0, "Risk coefficient (at the start, if it is scheduled): 0 is the mean, inf the minimum.")
    k_schedule: str = _option(
        "constant", "How k moves over the run: constant, linear, cosine (from k to k_end), step, effective."
    )
    k_end: float | None = _option(None, "Risk coefficient at the end of the run, for linear and cosine.")
    k_steps: dict[str, Any] | str | None = _option(
        None, 'For k_schedule step: share of the run -> k, for example \'{"0": 0.5, "0.5": 2.0}\'.'
    )
    effective_share: float | None = _option(
        None, "For k_schedule effective: share of the channels that carry the advantage, in (0, 1]; k follows."
    )
    effective_share_end: float | None = _option(None, "The share at the end of the run; None: it stays.")
    method_options: dict[str, Any] | str | None = _option(
        None,
        "Options of the method as JSON: share (cvar), threshold (gd2po), ideal (tchebycheff), "
        "signal and anchor (rvpo_policy; anchor group, batch or average).",
    )
    anchor_decay: float = _option(0.9, "Decay per generation of the moving average for rvpo_policy's anchor average.")
    dead_channels: str = _option("keep", "Channels without spread in a group: keep (the paper) or mask.")
    recenter: bool = _option(False, "Take out the per-prompt offset that a soft minimum leaves.")
    whiten: str = _option("true", "Whitening over the batch: true (as the method defines), false, sequence, token.")
    std_eps: float = _option(1e-4, "Added to the standard deviations of groups and batch.")
    std_ddof: int = _option(1, "Delta degrees of freedom of these standard deviations: 0 or 1.")
    channel_weights: dict[str, Any] | str | None = _option(
        None, "Importance of channels by name, as JSON: '{\"format\": 0.5}'. Others keep what their reward declares."
    )
    channel_ranges: dict[str, Any] | str | None = _option(
        None, "Lowest and highest value of channels by name, as JSON: '{\"correct\": [-3, 3]}'."
    )

    def __post_init__(self) -> None:
        """Check RVPO's options, then TRL's."""
        for name in DICT_FIELDS:
            setattr(self, name, self.mapping(name))
        if self.method not in AGGREGATIONS:
            raise unknown_name("method", self.method, AGGREGATIONS)
        self.whiten = str(self.whiten).lower()
        if self.whiten not in ("true", "false", "sequence", "token"):
            raise ConfigError(f"whiten must be true, false, sequence or token, got {self.whiten!r}")
        if not 0 <= self.anchor_decay < 1:
            raise ConfigError(f"anchor_decay must be in [0, 1), got {self.anchor_decay}")
        self.schedule()
        super().__post_init__()

    def schedule(self) -> Schedule:
        """Return k as a function of the global step; raise ConfigError if its options do not fit together."""
        unused: dict[str, Any] = {
            "k_end": self.k_end,
            "k_steps": self.k_steps,
            "effective_share": self.effective_share,
        }
        if self.k_schedule == "constant":
            options: dict[str, Any] = {"k": self.k}
        elif self.k_schedule in ("linear", "cosine"):
            options = {"start": self.k, "end": unused.pop("k_end")}
            if options["end"] is None:
                raise ConfigError(f"k_schedule {self.k_schedule!r} needs k_end, the k at the end of the run")
        elif self.k_schedule == "step":
            unused.pop("k_steps")
            options = {"values": {float(share): float(k) for share, k in (self.mapping("k_steps") or {}).items()}}
        elif self.k_schedule == "effective":
            options = {"share": unused.pop("effective_share"), "end": self.effective_share_end}
            if options["share"] is None:
                raise ConfigError("k_schedule 'effective' needs effective_share, in (0, 1]")
        else:
            options = {}
        for name, value in unused.items():
            if value is not None:
                raise ConfigError(f"{name} has no effect with k_schedule {self.k_schedule!r}; remove one of them")
        return from_config(self.k_schedule, options)

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

    def mapping(self, name: str) -> dict[str, Any] | None:
        """Return an option that is a mapping, or JSON of one, as a mapping."""
        return as_mapping(name, getattr(self, name))


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
