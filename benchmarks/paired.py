"""How often `rvpo compare` finds a difference of the paper's size, and how often it finds one that is not there.

    python benchmarks/paired.py                 # 1,000 simulations a row, a few minutes of one core
    python benchmarks/paired.py --simulations 200

Scores are drawn per item for two models: bounded, skewed, of the spread of HealthBench (standard error of a mean 0.005
at 5,000 items, 0.016 at 500), correlated between the models as two checkpoints on the same items are. Power: means of
0.261 and 0.215, the paper's best of RVPO and GDPO at 14B. The normal approximation that is printed beside is

    P(|Z + D / SE| > 1.96),  SE = sd of the items' differences / sqrt(n)

False positives: both models have the same distribution; or the same mean and unequal spreads; or answer 198 questions
right or wrong; or have 8 training seeds each, with effects of their own; or three methods are compared with a baseline
at once, and any finding counts (Holm). Shares are given with their 95 % Wilson interval.
"""

import argparse
import json
from collections.abc import Callable
from math import sqrt
from pathlib import Path
from statistics import NormalDist

import numpy as np

from rvpo.evals.gpqa import wilson
from rvpo.evals.paired import compare
from rvpo.stats import PairedTest, paired_test

LOW, HIGH, SPREAD = -0.6, 1.0, 0.354
RVPO, GDPO = 0.261, 0.215
NORMAL = NormalDist()
GRID = np.linspace(-5, 5, 2001)
BIG = 200_000
"""Pairs from which the true spread and correlation are taken."""

Pairs = tuple[np.ndarray, np.ndarray]
Sample = Callable[[np.random.Generator, int], Pairs]


def quantiles(mean: float, spread: float = SPREAD) -> np.ndarray:
    """Return the scores at GRID's places of the normal distribution: Beta on [LOW, HIGH] of this mean and spread."""
    middle, variance = (mean - LOW) / (HIGH - LOW), (spread / (HIGH - LOW)) ** 2
    size = middle * (1 - middle) / variance - 1
    drawn = LOW + (HIGH - LOW) * np.random.default_rng(0).beta(middle * size, (1 - middle) * size, BIG)
    return np.quantile(drawn - drawn.mean() + mean, [NORMAL.cdf(point) for point in GRID])


def paired(first: np.ndarray, second: np.ndarray, correlation: float) -> Sample:
    """Return what draws n pairs of scores with these quantiles whose normal numbers are correlated."""

    def draw(rng: np.random.Generator, number: int) -> Pairs:
        x, y = rng.standard_normal((2, number))
        y = correlation * x + sqrt(1 - correlation**2) * y
        return np.interp(x, GRID, first), np.interp(y, GRID, second)

    return draw


def answers(rng: np.random.Generator, number: int) -> Pairs:
    """Draw right and wrong answers of two models that know the same share of the questions, 0.35."""
    ability = rng.standard_normal(number)
    return tuple((ability + rng.standard_normal(number) > 0.545).astype(float) for _ in range(2))  # type: ignore


def one_test(sample: Sample, number: int, draws: int) -> Callable[[np.random.Generator], bool]:
    def is_detected(rng: np.random.Generator) -> bool:
        return shows_a_difference(
            paired_test(*sample(rng, number), seed=int(rng.integers(2**31)), draws=draws, mid_p=True)
        )

    return is_detected


def seeds_test(sample: Sample, number: int, seeds: int, draws: int) -> Callable[[np.random.Generator], bool]:
    """Each training seed of each method has an effect of its own, as large as the items' standard error."""

    def is_detected(rng: np.random.Generator) -> bool:
        drawn = [sample(rng, number) for _ in range(seeds)]
        first, other = (np.concatenate([pair[at] + 0.03 * rng.standard_normal() for pair in drawn]) for at in (0, 1))
        blocks = np.repeat(np.arange(seeds), number)
        return shows_a_difference(paired_test(first, other, blocks=blocks, seed=int(rng.integers(2**31)), draws=draws))

    return is_detected


def holm_test(sample: Sample, number: int, draws: int) -> Callable[[np.random.Generator], bool]:
    """Three methods against a baseline through `compare`, whose records are what a results folder holds."""

    def is_detected(rng: np.random.Generator) -> bool:
        drawn = [*sample(rng, number), *sample(rng, number)]
        groups = {
            f"method {at}": [[{"unit": str(place), "scores": {"s": float(x)}} for place, x in enumerate(scores)]]
            for at, scores in enumerate(drawn)
        }
        made = compare(groups, "s", seed=int(rng.integers(2**31)), draws=draws)
        return any(comparison.verdict != "no difference shown" for comparison in made)

    return is_detected


def shows_a_difference(test: PairedTest) -> bool:
    return test.verdict != "no difference shown"


def theory(sample: Sample, number: int) -> dict[str, float]:
    """Return the power of the normal approximation, and what it is made of, from very many pairs."""
    first, other = sample(np.random.default_rng(1), BIG)
    error = float((first - other).std() / sqrt(number))
    shift = (RVPO - GDPO) / error
    return {
        "standard_error_of_a_mean": float(first.std() / sqrt(number)),
        "correlation": float(np.corrcoef(first, other)[0, 1]),
        "standard_error_of_the_difference": error,
        "power_by_theory": NORMAL.cdf(shift - 1.96) + NORMAL.cdf(-shift - 1.96),
    }


def measured(name: str, is_detected: Callable[[np.random.Generator], bool], simulations: int, **about: float) -> dict:
    """Return and print how often something is found; every simulation has a seed of its own."""
    hits = sum(is_detected(np.random.default_rng([7, number])) for number in range(simulations))
    low, high = wilson(hits / simulations, simulations)
    row = {"name": name, "found": hits / simulations, "low": low, "high": high, "simulations": simulations, **about}
    beside = "".join(f", {key.replace('_', ' ')} {value:.4g}" for key, value in about.items())
    print(f"{name}: {hits / simulations:.3f} [{low:.3f}, {high:.3f}] of {simulations}{beside}", flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=1000)
    parser.add_argument("--draws", type=int, default=1000, help="of flips and bootstrap in a test (default: 1000)")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    simulations, draws = options.simulations, options.draws
    high, low, wide = quantiles(RVPO), quantiles(GDPO), quantiles(RVPO, 0.5)
    rows = []
    for number, correlation in ((500, 0.0), (500, 0.5), (500, 0.8), (5000, 0.5)):
        sample = paired(high, low, correlation)
        test = one_test(sample, number, draws)
        rows.append(measured(f"power, n = {number}", test, simulations, **theory(sample, number)))
    same = paired(high, high, 0.5)
    for name, test in {
        "false positives, n = 500": one_test(same, 500, draws),
        "false positives, n = 500, unequal spreads": one_test(paired(high, wide, 0.5), 500, draws),
        "false positives, n = 198, right or wrong": one_test(answers, 198, draws),
        "false positives, 8 seeds of 100 items": seeds_test(same, 100, 8, draws),
        "any false positive of 3 comparisons, n = 500": holm_test(same, 500, draws),
        "false positives, n = 5000": one_test(same, 5000, draws),
    }.items():
        rows.append(measured(name, test, simulations))
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
