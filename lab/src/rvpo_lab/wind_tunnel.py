"""Wind tunnel: methods compared on thousands of random sets of conflicting criteria, with exact policies.

The model, which is a definition and not a fit to anything:

- **Instance.** M criteria and M independent yes-or-no decisions; decision j is on with probability
  `p_j = sigma(theta_j)`. Criterion j is met if decision j is on and, where it has an opponent i, decision i is
  off. Its pass rate is therefore exactly `p_j (1 - p_i)`; nothing is sampled to evaluate a policy. Each
  criterion has an opponent with probability `conflict`, any of the other M - 1 with equal chance.
- **Start.** Base rates b_j are drawn, and theta is set so that criterion j has pass rate b_j at first.
- **Grading.** Each verdict is flipped with probability `noise` and lost (NaN) with probability `missing`, both
  independently. `continuous` grades a criterion by a number instead of 0 or 1: uniform on [0.5, 1) where the
  verdict is "met", on [0, 0.5) where it is not.
- **Step.** P groups of G rollouts, their advantages A from `rvpo.compute_advantages`, whitened over the P G
  rollouts of the instance where the method has that step, and plain gradient ascent on
  `theta += learning_rate * mean_pg A (x - p)`, x being the rollout's decisions (REINFORCE).

Every method meets the same instances and the same random numbers: a rollout's decision j is `u_j < p_j` with the
same uniform u for all methods, so that differences between methods are paired. Decisions, flips, losses and
grades have streams of their own: a run with noise sees the same u as one without.

What the model leaves out: a policy that generalises between prompts, judges that err in a systematic way, and
answers of different lengths. It shows where a formula sends the pressure, not what a language model will score.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from rvpo.core.advantages import compute_advantages
from rvpo.core.batch_statistics import moments_of_rewards
from rvpo.core.methods import METHODS, Method, find_method
from rvpo.core.schedules import constant, linear
from rvpo.core.zscores import divide, group_statistics
from rvpo.errors import ConfigError, unknown_name
from rvpo.stats import Interval, PairedTest, bootstrap_interval, holm, paired_test

__all__ = [
    "DEFAULT_CONTENDERS",
    "Contender",
    "Instances",
    "Measures",
    "Row",
    "Settings",
    "Simulation",
    "compare",
    "draw_instances",
    "initial_probabilities",
    "measures",
    "parse_method",
    "pass_rates",
    "simulate",
]

NEGLECTED = 0.3
"""A criterion with a lower pass rate at the end is neglected."""

BOOTSTRAP_DRAWS = 2000
"""For intervals and p-values over instances; thousands of these make more draws a waste."""

BLOCK = 2**17
"""Rewards of one step that are handled at once: more would leave the cache, fewer would pay for NumPy's calls."""

HIGHEST_START = 0.95
"""No decision is on with a higher probability at the start; one at 1 would never be explored."""

SPREADS = ("log", "uniform", "even")

Rates = dict[str, Float[np.ndarray, "I M"]]
"""Pass rates, or logits, by the contender's name."""

Measures = dict[str, Float[np.ndarray, " I"]]
"""What is told of every instance, by the measure's name."""


@dataclass(frozen=True)
class Contender:
    """A method with its settings, under a name."""

    name: str
    method: str
    """A name in `rvpo.METHODS`, or "package.module:function"."""
    k: float | tuple[float, float] = 1.0
    """Risk coefficient, or its first and last value on a line over the steps."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """More keywords of `compute_advantages`. anchor="batch" is the instance's own batch."""

    def __post_init__(self) -> None:
        """Try the settings on two rollouts; raises what `compute_advantages` does."""
        for option in ("whiten", "lengths", "group_size", "weights", "ranges"):
            if option in self.options:
                raise ConfigError(f"{self.name!r}: option {option!r} has no place in the wind tunnel; leave it out")
        if not isinstance(self.options.get("recenter", False), bool):
            raise ConfigError(f"{self.name!r}: recenter must be true or false, got {self.options['recenter']!r}")
        try:
            for step in (0, 1):
                compute_advantages(np.eye(2)[None], method=self.method, k=self.k_at(step, 1), **self.options)
        except TypeError as error:
            raise ConfigError(
                f"{self.name!r}: an option of method {self.method!r} has a wrong type: {error}"
            ) from error

    def k_at(self, step: int, steps: int) -> float:
        """Return the risk coefficient at a step of a run."""
        schedule = linear(*self.k) if isinstance(self.k, tuple) else constant(self.k)
        return schedule(step, steps)

    @classmethod
    def parse(cls, text: str) -> "Contender":
        """Read `METHOD[:K[:OPTION=VALUE,...]]`, where K is a number or START-END; the text is the name.

        >>> Contender.parse("rvpo:0.5-2").k
        (0.5, 2.0)
        >>> dict(Contender.parse("rvpo_policy:4:anchor=batch").options)
        {'anchor': 'batch'}

        Raises:
            ConfigError: text of another form, or settings that `compute_advantages` refuses.
        """
        return cls(text, *parse_method(text))


def parse_method(text: str) -> tuple[str, float | tuple[float, float], dict[str, Any]]:
    """Read `METHOD[:K[:OPTION=VALUE,...]]`: the method's name, k or its two ends, the options.

    >>> parse_method("rvpo_policy:2:signal=zscore")
    ('rvpo_policy', 2.0, {'signal': 'zscore'})
    >>> parse_method("my_methods:softer:2")  # a function of one's own
    ('my_methods:softer', 2.0, {})

    Raises ConfigError for text of another form.
    """
    method, _, rest = text.partition(":")
    function, _, after = rest.partition(":")
    if method not in METHODS and function.isidentifier() and function not in ("inf", "nan"):
        method, rest = f"{method}:{function}", after
    k, _, options = rest.partition(":")
    pairs = [pair.partition("=") for pair in options.split(",") if pair]
    if not all(name and value for name, _, value in pairs):
        raise ConfigError(f"options of a method are written NAME=VALUE,NAME=VALUE; got {options!r} in {text!r}")
    return (
        method,
        _parse_k(k, text) if k else find_method(method).default_k,
        {name: _parse_value(value) for name, _, value in pairs},
    )


def _parse_k(k: str, text: str) -> float | tuple[float, float]:
    """Return K of METHOD:K as a number or two."""
    try:
        return float(k)
    except ValueError:
        start, _, end = k.partition("-")
    try:
        return float(start), float(end)
    except ValueError:
        raise ConfigError(f"k must be a number or START-END, as in rvpo:0.5-2; got {k!r} in {text!r}") from None


def _parse_value(value: str) -> Any:
    """Return a number or truth value as JSON writes it, anything else as text."""
    try:
        return json.loads(value)
    except ValueError:
        return value


DEFAULT_CONTENDERS = tuple(
    map(
        Contender.parse,
        ("grpo", "gdpo", "rvpo:0.5-2", "rvpo:5", "hard_min", "rvpo_policy:2", "rvpo_policy:4:anchor=batch"),
    )
)
"""The sum, normalised sums, the paper's forms, and risk at the level of the policy."""


@dataclass(frozen=True)
class Settings:
    """Everything a simulation depends on but its contenders.

    Learning rate and steps were chosen by one thing: GDPO has nearly stopped moving when the defaults end (the
    last tenth of the steps changes its mean pass rate by less than 0.001). Slower methods may not have.
    """

    channels: int = 12
    """M, criteria of an instance."""
    group_size: int = 16
    """G, rollouts of a group."""
    groups: int = 2
    """P, groups of an instance in a step."""
    steps: int = 200
    instances: int = 2000
    base_rates: tuple[float, float] = (0.05, 0.5)
    """Lowest and highest pass rate at the start."""
    spread: str = "log"
    """Base rates are drawn "log"-uniformly or "uniform"ly between the two, or lie "even"ly spaced from the first to
    the second in every instance."""
    conflict: float = 0.2
    """Probability that a criterion has an opponent."""
    noise: float = 0.0
    """Probability that a verdict is flipped."""
    missing: float = 0.0
    """Probability that a verdict is lost."""
    continuous: bool = False
    """Grades in [0, 1) instead of verdicts."""
    learning_rate: float = 1.0
    seed: int = 0

    @property
    def checkpoint(self) -> int:
        """Steps done when only the last tenth is left; 0 in a run of one step."""
        return self.steps - max(self.steps // 10, 1)

    def __post_init__(self) -> None:
        """Check the values; raises ConfigError."""
        least = {"channels": 1, "group_size": 1, "groups": 1, "steps": 1, "instances": 1, "seed": 0}
        for name, low in least.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < low:
                raise ConfigError(f"{name} must be a whole number >= {low}, got {value!r}")
        for name in ("conflict", "noise", "missing"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is a probability and must lie in [0, 1], got {getattr(self, name)!r}")
        if not 0 < self.learning_rate < math.inf:
            raise ConfigError(f"learning_rate must be a finite number > 0, got {self.learning_rate!r}")
        low_rate, high_rate = self.base_rates
        if not 0 < low_rate <= high_rate <= HIGHEST_START:
            raise ConfigError(
                f"base_rates must be two pass rates with 0 < low <= high <= {HIGHEST_START}, "
                f"got {low_rate!r} and {high_rate!r}"
            )
        if self.spread not in SPREADS:
            raise ConfigError(f"spread must be one of {', '.join(SPREADS)}, got {self.spread!r}")
        if self.conflict > 0 and self.channels < 2:
            raise ConfigError("a criterion can only conflict with another one: use channels >= 2 or conflict 0")


class Instances(NamedTuple):
    """Random sets of criteria with the policies that training starts from."""

    base_rates: Float[np.ndarray, "I M"]
    """Exact pass rates at the start."""
    logits: Float[np.ndarray, "I M"]
    opponents: Int[np.ndarray, "I M"]
    """Index of the decision that must be off for the criterion to be met; -1: none."""
    scaled: Bool[np.ndarray, " I"]
    """The drawn base rates cannot hold together and were lowered."""


@dataclass(frozen=True)
class Simulation:
    """Exact pass rates of every criterion under every contender."""

    instances: Instances
    final: Rates
    """After the last step."""
    late: Rates
    """When nine tenths of the steps were done: what has not changed since has converged."""


@dataclass(frozen=True)
class Row:
    """One measure of one contender, over instances."""

    contender: str
    measure: str
    """A key of `measures`."""
    value: Interval
    test: PairedTest | None
    """Contender (a) against the reference (b), instance by instance; None for the reference itself."""
    p_holm: float
    """The test's p-value by Holm's correction over the contenders; NaN without a test."""


class Draws(NamedTuple):
    """The random numbers of one step, the same for all contenders; N = P G rollouts."""

    decisions: Float32[np.ndarray, "I N M"]
    """Uniforms: decision j is on where it is below p_j."""
    opposing: Float32[np.ndarray, "I N M"]
    """The same numbers at each criterion's opponent."""
    flipped: Bool[np.ndarray, "I N M"] | None
    lost: Bool[np.ndarray, "I N M"] | None
    grades: Float32[np.ndarray, "I N M"] | None


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
        probabilities = np.minimum(rates / (1.0 - at_opponents(probabilities, opponents)), HIGHEST_START)
    missed = np.abs(pass_rates(probabilities, opponents) - rates) > 1e-6
    return probabilities, ~missed.any(axis=1)


def _stream(settings: Settings, *key: int) -> np.random.Generator:
    """Return a generator of its own for each key."""
    return np.random.default_rng(np.random.SeedSequence(settings.seed, spawn_key=key))


def draw_instances(settings: Settings) -> Instances:
    """Draw opponents and base rates. The first instances do not depend on how many are drawn."""
    shape = (settings.instances, settings.channels)
    low, high = settings.base_rates
    share = _stream(settings, 0).random(shape)
    if settings.spread == "even":
        share = np.broadcast_to(np.linspace(0.0, 1.0, settings.channels), shape)
    drawn = low * (high / low) ** share if settings.spread == "log" else low + (high - low) * share
    opposed = _stream(settings, 1).random(shape) < settings.conflict
    others = _stream(settings, 2).integers(0, max(settings.channels - 1, 1), size=shape)
    others += others >= np.arange(settings.channels)  # skip the criterion itself
    opponents = np.where(opposed, others, -1)
    probabilities, scaled = initial_probabilities(drawn, opponents)
    logits = np.log(probabilities) - np.log1p(-probabilities)
    return Instances(pass_rates(probabilities, opponents), logits, opponents, scaled)


def simulate(
    settings: Settings,
    contenders: Sequence[Contender] = DEFAULT_CONTENDERS,
    on_progress: Callable[[int, int], None] | None = None,
) -> Simulation:
    """Train every contender on every instance and return the exact pass rates.

    Instances are trained in blocks, so memory does not grow with their number. `on_progress` is called with the
    steps done and to do over all blocks.

    Raises:
        ConfigError: no contender, or two of the same name.
    """
    names = [contender.name for contender in contenders]
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"contenders need different names, and there must be one; got {names}")
    instances = draw_instances(settings)
    size = max(BLOCK // (settings.groups * settings.group_size * settings.channels), 1)
    starts = range(0, settings.instances, size)
    late: list[Rates] = []
    final: list[Rates] = []
    for block, start in enumerate(starts):
        part = Instances(*(values[start : start + size] for values in instances))
        for step, logits in enumerate(_train(part, contenders, settings, block)):
            if step in (settings.checkpoint, settings.steps):
                rates = {name: pass_rates(sigmoid(theta), part.opponents) for name, theta in logits.items()}
                (final if step == settings.steps else late).append(rates)
            if on_progress:
                on_progress(block * settings.steps + step, len(starts) * settings.steps)
    return Simulation(instances, _joined(final), _joined(late))


def _joined(parts: Sequence[Mapping[str, np.ndarray]]) -> Rates:
    """Return the pass rates of all blocks of instances as one array per contender."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _train(part: Instances, contenders: Sequence[Contender], settings: Settings, block: int) -> Iterator[Rates]:
    """Yield every contender's logits at the start and after each step."""
    logits = {contender.name: part.logits for contender in contenders}
    yield logits
    streams = [_stream(settings, 3, block, purpose) for purpose in range(4)]
    for step in range(settings.steps):
        draws = _draw(part.opponents, settings, streams)
        for contender in contenders:
            probabilities = sigmoid(logits[contender.name])
            decisions, rewards = grade(probabilities, part.opponents, draws)
            advantages = instance_advantages(
                rewards.reshape(-1, settings.groups, settings.group_size, settings.channels),
                contender,
                contender.k_at(step, settings.steps),
            )
            gradient = policy_gradient(advantages, decisions, probabilities)
            logits[contender.name] = logits[contender.name] + settings.learning_rate * gradient
        yield logits


def _draw(opponents: Int[np.ndarray, "I M"], settings: Settings, streams: Sequence[np.random.Generator]) -> Draws:
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
    rewards: Float[np.ndarray, "I P G M"], contender: Contender, k: float
) -> Float[np.ndarray, "I N"]:
    """Return the advantages of every rollout, each instance being a batch of its own.

    Equal to `compute_advantages` on one instance after the other. Groups are independent of one another before
    whitening, so all instances go through it as one batch without that step; and to whiten an instance's batch
    is to standardise its advantages as one channel of one group.
    """
    instances, groups, rollouts, channels = rewards.shape
    options = dict(contender.options)
    if options.get("anchor") == "batch":
        options["anchor"] = np.repeat(_channel_means(rewards), groups, axis=0)
    method = find_method(contender.method)
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
    found = {name: statistic(of_instances)[:, 0, 0, :] for name, statistic in method.of_batch.items()}
    return {name: np.repeat(values, groups, axis=0) for name, values in found.items()}


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


def measures(rates: Float[np.ndarray, "I M"], base_rates: Float[np.ndarray, "I M"]) -> Measures:
    """Describe the pass rates of each instance; a third of its criteria is `max(round(M / 3), 1)` of them.

    - mean: over criteria. lowest_third: over those with the lowest rates now. neglected: share below 0.3.
    - hard, medium, easy: over the third of the criteria with the lowest base rates, those between, and the
      third with the highest. M = 1: hard and easy are the same one; M < 3: there is no medium.
    """
    channels = rates.shape[1]
    third = max(round(channels / 3), 1)
    by_base_rate = np.take_along_axis(rates, np.argsort(base_rates, axis=1, kind="stable"), axis=1)
    found = {
        "mean": rates.mean(axis=1),
        "lowest_third": np.sort(rates, axis=1)[:, :third].mean(axis=1),
        "neglected": (rates < NEGLECTED).mean(axis=1),
        "hard": by_base_rate[:, :third].mean(axis=1),
    }
    if channels >= 3:
        found["medium"] = by_base_rate[:, third : channels - third].mean(axis=1)
    return found | {"easy": by_base_rate[:, channels - third :].mean(axis=1)}


def compare(simulation: Simulation, reference: str, *, seed: int = 0, draws: int = BOOTSTRAP_DRAWS) -> list[Row]:
    """Return every measure of every contender with its interval, tested against the reference contender.

    Instances are the unit: intervals by bootstrap over them, p-values by sign flips of their paired differences
    (see `rvpo.stats`), corrected over the contenders that one measure is tested for.
    """
    base_rates = simulation.instances.base_rates
    measured = {name: measures(rates, base_rates) for name, rates in simulation.final.items()}
    if reference not in measured:
        raise unknown_name("reference", reference, measured)
    rows = []
    for measure, against in measured[reference].items():
        values = {name: found[measure] for name, found in measured.items()}
        tests = {
            name: paired_test(value, against, seed=seed, draws=draws)
            for name, value in values.items()
            if name != reference
        }
        adjusted = dict(zip(tests, holm([test.p_value for test in tests.values()]).tolist(), strict=True))
        rows += [
            Row(
                name,
                measure,
                bootstrap_interval(value, seed=seed, draws=draws),
                tests.get(name),
                adjusted.get(name, math.nan),
            )
            for name, value in values.items()
        ]
    return rows
