"""A simulation: exact policies trained by every method on the same sets of criteria and the same random numbers.

Before it: random sets of criteria, and the policies that meet them as often as drawn. After it: what becomes of the
criteria, by measures of every instance, and methods compared over instances.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from rvpo.core.advantages import compute_advantages
from rvpo.core.batch_statistics import moments_of_rewards
from rvpo.core.methods import Method, find_method
from rvpo.core.zscores import divide, group_statistics
from rvpo.errors import ConfigError, unknown_name
from rvpo.stats import NEGLECTED, Interval, PairedTest, bootstrap_interval, holm, lowest_third, paired_test
from rvpo_lab.wind_tunnel.settings import DEFAULT_METHODS, HIGHEST_START, SimulatedMethod, SimulationSettings

__all__ = [
    "BOOTSTRAP_DRAWS",
    "Draws",
    "Instances",
    "MeasureRow",
    "Measures",
    "Rates",
    "Simulation",
    "at_opponents",
    "compare",
    "draw_instances",
    "grade",
    "initial_probabilities",
    "instance_advantages",
    "measures",
    "pass_rates",
    "policy_gradient",
    "random_stream",
    "sigmoid",
    "simulate",
]


class Instances(NamedTuple):
    """Random sets of criteria with the policies that training starts from."""

    base_rates: Float[np.ndarray, "I M"]
    """Exact pass rates at the start."""
    logits: Float[np.ndarray, "I M"]
    opponents: Int[np.ndarray, "I M"]
    """Index of the decision that must be off for the criterion to be met; -1: none."""
    scaled: Bool[np.ndarray, " I"]
    """The drawn base rates cannot hold together and were lowered."""


def sigmoid(logits: Float[np.ndarray, "I M"]) -> Float[np.ndarray, "I M"]:
    """Return `1 / (1 + exp(-theta))`, without overflow."""
    return np.asarray(0.5 + 0.5 * np.tanh(0.5 * logits))


def at_opponents(values: Float[np.ndarray, "I M"], opponents: Int[np.ndarray, "I M"]) -> Float[np.ndarray, "I M"]:
    """Return the value of each criterion's opponent; 0 without one."""
    return np.where(opponents >= 0, np.take_along_axis(values, np.maximum(opponents, 0), axis=1), 0)


def pass_rates(probabilities: Float[np.ndarray, "I M"], opponents: Int[np.ndarray, "I M"]) -> Float[np.ndarray, "I M"]:
    """Return the exact chance of each criterion to be met, `p_j (1 - p_i)` with opponent i, else `p_j`."""
    return probabilities * (1.0 - at_opponents(probabilities, opponents))


def initial_probabilities(
    base_rates: Float[np.ndarray, "I M"], opponents: Int[np.ndarray, "I M"]
) -> tuple[Float[np.ndarray, "I M"], Bool[np.ndarray, " I"]]:
    """Return decision probabilities with these pass rates, and which instances had to be scaled down.

    `p_j = b_j / (1 - p_i)` is iterated from p = b: it rises to the smallest solution, in as many steps as the
    longest chain of opponents where no cycle closes, and geometrically on cycles. There is one whenever all
    b <= 1/4 (then p <= 1/2); above, two criteria may ask for more than there is, such as 0.5 each against each
    other. All base rates of such an instance are multiplied by the same largest factor, found by bisection, for
    which 100 iterations reach them to 1e-6 with p <= HIGHEST_START: easy criteria stay easier than hard ones.
    """
    probabilities, reached = _fixed_point(base_rates, opponents)
    scaled = ~reached
    if not scaled.any():
        return probabilities, scaled
    rates, against = base_rates[scaled], opponents[scaled]
    low, high = np.zeros((len(rates), 1)), np.ones((len(rates), 1))
    for _ in range(20):
        middle = 0.5 * (low + high)
        _, fits = _fixed_point(middle * rates, against)
        low, high = np.where(fits[:, None], middle, low), np.where(fits[:, None], high, middle)
    probabilities[scaled] = _fixed_point(low * rates, against)[0]
    return probabilities, scaled


def _fixed_point(
    rates: Float[np.ndarray, "I M"], opponents: Int[np.ndarray, "I M"]
) -> tuple[Float[np.ndarray, "I M"], Bool[np.ndarray, " I"]]:
    """Iterate `p_j = b_j / (1 - p_i)`; return p and the instances whose pass rates are the given ones."""
    probabilities = rates.copy()
    for _ in range(100):
        before = probabilities
        probabilities = np.minimum(rates / (1.0 - at_opponents(before, opponents)), HIGHEST_START)
        if np.array_equal(probabilities, before):
            break
    missed = np.abs(pass_rates(probabilities, opponents) - rates) > 1e-6
    return probabilities, ~missed.any(axis=1)


def random_stream(settings: SimulationSettings, *key: int) -> np.random.Generator:
    """Return a generator of its own for each key."""
    return np.random.default_rng(np.random.SeedSequence(settings.seed, spawn_key=key))


def draw_instances(settings: SimulationSettings) -> Instances:
    """Draw opponents and base rates. The first instances do not depend on how many are drawn."""
    shape = (settings.instances, settings.channels)
    low, high = settings.base_rates
    share = random_stream(settings, 0).random(shape)
    if settings.spread == "even":
        share = np.broadcast_to(np.linspace(0.0, 1.0, settings.channels), shape)
    drawn = low * (high / low) ** share if settings.spread == "log" else low + (high - low) * share
    opposed = random_stream(settings, 1).random(shape) < settings.conflict
    others = random_stream(settings, 2).integers(0, max(settings.channels - 1, 1), size=shape)
    others += others >= np.arange(settings.channels)  # skip the criterion itself
    opponents = np.where(opposed, others, -1)
    probabilities, scaled = initial_probabilities(drawn, opponents)
    logits = np.log(probabilities) - np.log1p(-probabilities)
    return Instances(pass_rates(probabilities, opponents), logits, opponents, scaled)


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


BOOTSTRAP_DRAWS = 2000
"""For intervals and p-values over instances; thousands of these make more draws a waste."""

Measures = dict[str, Float[np.ndarray, " I"]]
"""Values of every instance, by the measure's name."""


@dataclass(frozen=True)
class MeasureRow:
    """A measure of a method, over instances."""

    method: str
    measure: str
    """A key of `measures`."""
    value: Interval
    test: PairedTest | None
    """The method (a) against the reference (b), instance by instance; None for the reference itself."""
    p_holm: float
    """The test's p-value by Holm's correction over the methods; NaN without a test."""


def measures(rates: Float[np.ndarray, "I M"], base_rates: Float[np.ndarray, "I M"]) -> Measures:
    """Return what the pass rates of each instance come to.

    - mean: over criteria. lowest_third: of the pass rates, as `rvpo.stats.lowest_third`. neglected: share of criteria
      below `rvpo.stats.NEGLECTED`.
    - hard, medium, easy: mean over the criteria with the lowest base rates, those between, and those with the highest;
      hard and easy are `max(round(M / 3), 1)` criteria each, so that there are some between. M = 1: hard and easy are
      the same criterion; M < 3: there is no medium.
    """
    channels = rates.shape[1]
    third = max(round(channels / 3), 1)
    by_base_rate = np.take_along_axis(rates, np.argsort(base_rates, axis=1, kind="stable"), axis=1)
    values = {
        "mean": rates.mean(axis=1),
        "lowest_third": lowest_third(rates),
        "neglected": (rates < NEGLECTED).mean(axis=1),
        "hard": by_base_rate[:, :third].mean(axis=1),
    }
    if channels >= 3:
        values["medium"] = by_base_rate[:, third : channels - third].mean(axis=1)
    return values | {"easy": by_base_rate[:, channels - third :].mean(axis=1)}


def compare(
    simulation: Simulation, reference: str, *, seed: int = 0, draws: int = BOOTSTRAP_DRAWS
) -> list[MeasureRow]:
    """Return every measure of every method with its interval, tested against the reference method.

    Instances are the unit: intervals by bootstrap over them, p-values by sign flips of their paired differences
    (see `rvpo.stats`), corrected over the methods that a measure is tested for.
    """
    base_rates = simulation.instances.base_rates
    measured = {name: measures(rates, base_rates) for name, rates in simulation.final.items()}
    if reference not in measured:
        raise unknown_name("reference", reference, measured)
    rows = []
    for measure, against in measured[reference].items():
        values = {name: of_method[measure] for name, of_method in measured.items()}
        tests = {
            name: paired_test(value, against, seed=seed, draws=draws)
            for name, value in values.items()
            if name != reference
        }
        adjusted = dict(zip(tests, holm([test.p_value for test in tests.values()]).tolist(), strict=True))
        rows += [
            MeasureRow(
                name,
                measure,
                bootstrap_interval(value, seed=seed, draws=draws),
                tests.get(name),
                adjusted.get(name, math.nan),
            )
            for name, value in values.items()
        ]
    return rows
