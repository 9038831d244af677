"""RVPO's options in verl: the mapping `algorithm.rvpo` of its Hydra configuration.

    algorithm.adv_estimator=rvpo
    +algorithm.rvpo.channels=[format,correctness]
    +algorithm.rvpo.k_schedule=linear +algorithm.rvpo.k=0.5 +algorithm.rvpo.k_end=2.0

Without `channels`, verl's own `algorithm.gdpo_reward_keys` (and `gdpo_reward_weights`) are taken, so that a GDPO
configuration becomes RVPO's by its estimator alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from rvpo.errors import ConfigError, unknown_name
from rvpo.integrations.method_config import MethodConfig, as_mapping
from rvpo.llm.limits import MOST_MISSING

__all__ = ["ESTIMATOR", "VerlConfig", "is_ours", "plain"]

ESTIMATOR = "rvpo"
"""Value of `algorithm.adv_estimator`."""


@dataclass
class VerlConfig(MethodConfig):
    """`MethodConfig` plus what verl alone needs. See docs/verl.md."""

    channels: list[str] = field(default_factory=list)
    """Keys of the score function's dict that are reward channels: a number (None: no value), or for a rubric of the
    prompt's own a JSON object, as text, from criterion to number."""
    max_missing: float = MOST_MISSING
    """Share of a batch's rubric verdicts that may be null before the run stops, if there are 20 or more."""

    def __post_init__(self) -> None:
        """Check the options."""
        given: Any = self.channels
        is_list = isinstance(given, Sequence) and not isinstance(given, str)
        if not is_list or not all(isinstance(name, str) for name in given):
            raise ConfigError(f"channels must be a list of names, got {given!r}")
        self.channels = list(given)
        if not self.channels or len(set(self.channels)) < len(self.channels):
            raise ConfigError(
                "algorithm.rvpo.channels must name, each once, the keys of the score function's dict that are "
                f"reward channels, for example [format,correctness]; got {self.channels}"
            )
        if not 0 <= self.max_missing <= 1:
            raise ConfigError(f"max_missing is a share in [0, 1], got {self.max_missing!r}")
        self.check_method()

    @classmethod
    def from_algorithm(cls, algorithm: Any) -> "VerlConfig":
        """Return the options of verl's `algorithm` section; raise ConfigError naming what does not fit.

        KL in the reward is refused: verl adds it to the scalar reward of each token, which no estimator that reads
        channels sees (its own GDPO drops it without a word).
        """
        options = plain(algorithm.get("rvpo")) or {}
        if not isinstance(options, Mapping):
            raise ConfigError(f"algorithm.rvpo must be a mapping of options, got {options!r}")
        known = [option.name for option in fields(cls)]
        for name in options:
            if name not in known:
                raise unknown_name("option algorithm.rvpo.", name, known)
        if algorithm.get("use_kl_in_reward"):
            raise ConfigError(
                "algorithm.use_kl_in_reward has no effect on advantages of reward channels; "
                "set it to False and actor_rollout_ref.actor.use_kl_loss=True"
            )
        return cls(**{**_of_gdpo(algorithm), **_with_scale(algorithm, options)})

    def settings(self) -> dict[str, Any]:
        """Return what must stay the same when a run is resumed."""
        return super().settings() | {"channels": self.channels}


def is_ours(algorithm: Any) -> bool:
    """Tell whether verl's `algorithm` section asks for this estimator."""
    return algorithm is not None and algorithm.get("adv_estimator") == ESTIMATOR


def _with_scale(algorithm: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options with what verl's `norm_adv_by_std_in_grpo` says of GRPO; ConfigError for another method."""
    if algorithm.get("norm_adv_by_std_in_grpo", True):
        return dict(options)
    if options.get("method") != "grpo":
        raise ConfigError(
            "algorithm.norm_adv_by_std_in_grpo=False has no effect with the estimator rvpo unless its method is grpo "
            f"(algorithm.rvpo.method is {options.get('method', 'rvpo')!r}); leave it at True"
        )
    method_options = as_mapping("method_options", options.get("method_options")) or {}
    return {**options, "method_options": {"scale": "none", **method_options}}


def _of_gdpo(algorithm: Any) -> dict[str, Any]:
    """Return channels and weights by verl's names for its own GDPO."""
    keys, weights = plain(algorithm.get("gdpo_reward_keys")), plain(algorithm.get("gdpo_reward_weights"))
    if not keys:
        return {}
    if weights is None:
        return {"channels": keys}
    if len(weights) != len(keys):
        raise ConfigError(f"gdpo_reward_weights has {len(weights)} weights for the {len(keys)} gdpo_reward_keys")
    return {"channels": keys, "channel_weights": dict(zip(keys, weights, strict=True))}


def plain(value: Any) -> Any:
    """Return an OmegaConf node as plain dicts and lists, everything else as it is."""
    if hasattr(value, "_get_node"):
        from omegaconf import OmegaConf

        return OmegaConf.to_container(value, resolve=True)
    return value
