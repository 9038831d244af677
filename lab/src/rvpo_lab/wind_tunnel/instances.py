"""Random sets of criteria, and the policies that meet them as often as drawn."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from rvpo_lab.wind_tunnel.settings import HIGHEST_START, SimulationSettings

__all__ = [
    "Instances",
    "at_opponents",
    "draw_instances",
    "initial_probabilities",
    "pass_rates",
    "random_stream",
    "sigmoid",
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
