"""Exact policies trained by every method on the same instances and the same random numbers."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from rvpo.core.advantages import compute_advantages
from rvpo.core.batch_statistics import moments_of_rewards
from rvpo.core.methods import Method, find_method
from rvpo.core.zscores import divide, group_statistics
from rvpo.errors import ConfigError
from rvpo_lab.wind_tunnel.instances import (
    Instances,
    at_opponents,
    draw_instances,
    pass_rates,
    random_stream,
    sigmoid,
)
from rvpo_lab.wind_tunnel.settings import DEFAULT_METHODS, SimulatedMethod, SimulationSettings

__all__ = ["Draws", "Rates", "Simulation", "grade", "instance_advantages", "policy_gradient", "simulate"]

BLOCK = 2**17
"""Rewards of one step that are handled at once: more would leave the cache, fewer would pay for NumPy's calls."""

Rates = dict[str, Float[np.ndarray, "I M"]]
"""Pass rates, or logits, by the method's name."""


@dataclass(frozen=True)
class Simulation:
    """Exact pass rates of every criterion under every method."""

    instances: Instances
    final: Rates
    """After the last step."""
    late: Rates
    """When nine tenths of the steps were done: what has not changed since has converged."""


class Draws(NamedTuple):
    """The random numbers of one step, the same for all methods; N = P G rollouts."""

    decisions: Float32[np.ndarray, "I N M"]
    """Uniforms: decision j is on where it is below p_j."""
    opposing: Float32[np.ndarray, "I N M"]
    """The same numbers at each criterion's opponent."""
    flipped: Bool[np.ndarray, "I N M"] | None
    lost: Bool[np.ndarray, "I N M"] | None
    grades: Float32[np.ndarray, "I N M"] | None


def simulate(
    settings: SimulationSettings,
    methods: Sequence[SimulatedMethod] = DEFAULT_METHODS,
    on_progress: Callable[[int, int], None] | None = None,
) -> Simulation:
    """Train every method on every instance and return the exact pass rates.

    Instances are trained in blocks, so memory does not grow with their number. `on_progress` is called with the
    steps done and to do over all blocks.

    Raises:
        ConfigError: no method, or two of the same name.
    """
    names = [method.name for method in methods]
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"a simulation needs methods, and these different names; got {names}")
    instances = draw_instances(settings)
    size = max(BLOCK // (settings.groups * settings.group_size * settings.channels), 1)
    starts = range(0, settings.instances, size)
    late: list[Rates] = []
    final: list[Rates] = []
    for block, start in enumerate(starts):
        part = Instances(*(values[start : start + size] for values in instances))
        for step, logits in enumerate(_train(part, methods, settings, block)):
            if step in (settings.checkpoint, settings.steps):
                rates = {name: pass_rates(sigmoid(theta), part.opponents) for name, theta in logits.items()}
                (final if step == settings.steps else late).append(rates)
            if on_progress:
                on_progress(block * settings.steps + step, len(starts) * settings.steps)
    return Simulation(instances, _joined(final), _joined(late))


def _joined(parts: Sequence[Mapping[str, np.ndarray]]) -> Rates:
    """Return the pass rates of all blocks of instances as one array per method."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _train(
    part: Instances, methods: Sequence[SimulatedMethod], settings: SimulationSettings, block: int
) -> Iterator[Rates]:
    """Yield every method's logits at the start and after each step."""
    logits = {method.name: part.logits for method in methods}
    yield logits
    streams = [random_stream(settings, 3, block, purpose) for purpose in range(4)]
    for step in range(settings.steps):
        draws = _draw(part.opponents, settings, streams)
        for method in methods:
            probabilities = sigmoid(logits[method.name])
            decisions, rewards = grade(probabilities, part.opponents, draws)
            advantages = instance_advantages(
                rewards.reshape(-1, settings.groups, settings.group_size, settings.channels),
                method,
                method.k_at(step, settings.steps),
            )
            gradient = policy_gradient(advantages, decisions, probabilities)
            logits[method.name] = logits[method.name] + settings.learning_rate * gradient
        yield logits


def _draw(
    opponents: Int[np.ndarray, "I M"], settings: SimulationSettings, streams: Sequence[np.random.Generator]
) -> Draws:
    """Draw the random numbers of one step."""
    shape = (len(opponents), settings.groups * settings.group_size, settings.channels)
    decisions, flips, losses, grades = (
        stream.random(shape, dtype=np.float32) if wanted else None
        for stream, wanted in zip(
            streams, (True, settings.noise > 0, settings.missing > 0, settings.continuous), strict=True
        )
    )
    assert decisions is not None
    return Draws(
        decisions=decisions,
        opposing=np.take_along_axis(decisions, np.maximum(opponents, 0)[:, None, :], axis=2),
        flipped=None if flips is None else flips < settings.noise,
        lost=None if losses is None else losses < settings.missing,
        grades=grades,
    )


def grade(
    probabilities: Float[np.ndarray, "I M"], opponents: Int[np.ndarray, "I M"], draws: Draws
) -> tuple[Bool[np.ndarray, "I N M"], Float[np.ndarray, "I N M"]]:
    """Return the rollouts' decisions and their rewards, NaN where the verdict is lost."""
    on = probabilities.astype(np.float32)  # as the uniforms, so that "off" is exactly the opposite of "on"
    decisions = draws.decisions < on[:, None, :]
    met = decisions & (draws.opposing >= at_opponents(on, opponents)[:, None, :])
    if draws.flipped is not None:
        met ^= draws.flipped
    rewards = met.astype(np.float64)
    if draws.grades is not None:
        rewards = 0.5 * (rewards + draws.grades)
    if draws.lost is not None:
        rewards[draws.lost] = np.nan
    return decisions, rewards


def instance_advantages(
    rewards: Float[np.ndarray, "I P G M"], simulated: SimulatedMethod, k: float
) -> Float[np.ndarray, "I N"]:
    """Return the advantages of every rollout, each instance being a batch of its own.

    Equal to `compute_advantages` on one instance after the other. Groups are independent of one another before
    whitening, so all instances go through it as one batch without that step; and to whiten an instance's batch
    is to standardise its advantages as one channel of one group.
    """
    instances, groups, rollouts, channels = rewards.shape
    options = dict(simulated.options)
    if options.get("anchor") == "batch":
        options["anchor"] = np.repeat(_channel_means(rewards), groups, axis=0)
    method = find_method(simulated.method)
    options = _batch_statistics(method, rewards, options.get("ddof", 1)) | options
    result = compute_advantages(rewards.reshape(-1, rollouts, channels), method=method, k=k, whiten=False, **options)
    advantages: Float[np.ndarray, "I N"] = result.advantages.reshape(instances, -1)
    if not method.whitens:
        return advantages
    kept = result.kept.reshape(instances, -1, 1).astype(np.float64)
    deviations, _, std = group_statistics(
        advantages[..., None], kept, kept.sum(axis=1, keepdims=True), ddof=options.get("ddof", 1)
    )
    whitened: Float[np.ndarray, "I N 1"] = divide(deviations, std + options.get("eps", 1e-4), std > 0)
    return whitened[..., 0]


def _batch_statistics(method: Method, rewards: Float[np.ndarray, "I P G M"], ddof: int) -> dict[str, np.ndarray]:
    """Return the method's statistics of each instance's batch, `(I P, M)`."""
    instances, groups, rollouts, channels = rewards.shape
    if not method.of_batch:
        return {}
    flat, equal = rewards.reshape(-1, rollouts, channels), np.ones((1, channels))
    moments = moments_of_rewards(flat, weights=equal, ranges=np.tile([0.0, 1.0], (channels, 1)), ddof=ddof)
    shape = (instances, groups, 1, channels)
    of_instances = moments._replace(
        count=moments.count.reshape(shape), mean=moments.mean.reshape(shape), std=moments.std.reshape(shape)
    )
    return {
        name: np.repeat(statistic(of_instances)[:, 0, 0, :], groups, axis=0)
        for name, statistic in method.of_batch.items()
    }


def _channel_means(rewards: Float[np.ndarray, "I P G M"]) -> Float[np.ndarray, "I M"]:
    """Return each criterion's mean over the values of the instance's batch; 0 without any."""
    present = ~np.isnan(rewards)
    total = np.where(present, rewards, 0.0).sum(axis=(1, 2))
    return np.asarray(total / np.maximum(present.sum(axis=(1, 2)), 1))


def policy_gradient(
    advantages: Float[np.ndarray, "I N"],
    decisions: Bool[np.ndarray, "I N M"],
    probabilities: Float[np.ndarray, "I M"],
) -> Float[np.ndarray, "I M"]:
    """Return `mean_n A_n (x_n - p)`: x - p is the gradient of a rollout's log-probability to the logits."""
    total = (advantages[:, None, :] @ decisions.astype(np.float64))[:, 0, :]
    return np.asarray(total / advantages.shape[1] - probabilities * advantages.mean(axis=1, keepdims=True))
