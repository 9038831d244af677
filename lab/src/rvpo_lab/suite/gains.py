"""What each method teaches about a criterion, as a function of how often it is met.

For a channel j and an advantage A, one small gradient step changes the channel's expected reward in proportion to

    gain_j = E_p[Cov_g(R_j, A)] / sqrt(E_p[Var_g(A)])

per unit of the advantage's standard deviation inside groups (first order, as in `rvpo.audit`). `expected_gains` has it
for one probe criterion among M independent ones, by simulation of groups; `measured_gains` for the channels of real
rollouts. `docs/algorithm.md` derives the limits.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from jaxtyping import Float

from rvpo.audit import audit_groups
from rvpo.audit.groups import ChannelNames
from rvpo.core.advantages import compute_advantages
from rvpo.core.zscores import divide
from rvpo.text import markdown_table, number
from rvpo_lab.suite.foresight import run_groups
from rvpo_lab.suite.storage import CellRecord

__all__ = ["LINES", "RATES", "Line", "Point", "expected_gains", "gains_table", "measured_gains", "model_gains"]

RATES = tuple(1 / (1 + math.exp(-odds / 2)) for odds in range(-10, 11))
"""Pass rates of the probe, evenly spaced in log-odds from 0.007 to 0.993."""
OTHERS = tuple((2 * index + 1) / 22 for index in range(11))
"""Pass rates of the other criteria of the model, evenly spaced from 0.05 to 0.95: twelve with the probe."""


@dataclass(frozen=True)
class Line:
    """A method at one k."""

    name: str
    """Of the look in figures; a name in `rvpo.report.drawing.SLOTS`."""
    label: str
    method: str
    k: float = 1.0


LINES = (
    Line("grpo", "GRPO", "grpo"),
    Line("gdpo", "GDPO", "gdpo"),
    Line("rvpo", "RVPO k=2", "rvpo", 2.0),
    Line("rvpo_k5", "RVPO k=5", "rvpo", 5.0),
    Line("hard_min", "hard-min", "hard_min"),
    Line("rvpo_policy", "policy k=2", "rvpo_policy", 2.0),
    Line("maxrl", "MaxRL", "maxrl"),
)


@dataclass(frozen=True)
class Point:
    """A channel of real rollouts under one method."""

    line: str
    channel: str
    rate: float
    """Mean reward, on [0, 1]."""
    gain: float


def expected_gains(
    line: Line,
    rates: Sequence[float],
    others: Sequence[float],
    *,
    group_size: int = 8,
    groups: int = 4000,
    seed: int = 0,
) -> Float[np.ndarray, " R"]:
    """Return the gain of a probe criterion at each pass rate, beside independent criteria with rates `others`.

    Groups are simulated (`groups` of them for each rate); all lines and rates see the same random numbers.

    Args:
        line: the method.
        rates: R pass rates of the probe, in (0, 1).
        others: pass rates of the other M - 1 criteria.
        group_size: G.
        groups: P, for each rate.
        seed: of the random numbers.
    """
    draw = np.random.default_rng(seed).random((groups, group_size, 1 + len(others)))
    gains = []
    for rate in rates:
        rewards = (draw < np.asarray([rate, *others])).astype(np.float64)
        advantages = compute_advantages(rewards, method=line.method, k=line.k, whiten=False).advantages
        inside = advantages - advantages.mean(axis=1, keepdims=True)
        probe = rewards[:, :, 0] - rewards[:, :, 0].mean(axis=1, keepdims=True)
        spread = np.sqrt(np.mean(inside**2))
        gains.append(float(divide(np.mean(probe * inside), spread, spread > 0)))
    return np.asarray(gains)


@cache
def model_gains() -> dict[str, tuple[float, ...]]:
    """Return the gain of a probe at `RATES` beside `OTHERS`, under each of `LINES`."""
    return {line.name: tuple(expected_gains(line, RATES, OTHERS).tolist()) for line in LINES}


SHAPES = ((4, 12, 2.0), (8, 12, 2.0), (16, 12, 2.0), (8, 4, 2.0), (8, 17, 2.0), (8, 12, 1.0), (8, 12, 5.0))
"""Group size, channels and k of the table's rows."""
PROBES = (0.05, 0.5, 0.95)


def gains_table() -> str:
    """Return as Markdown how much more than under GDPO a probe gains under RVPO and at the policy level.

    A row for each of `SHAPES`; the other M - 1 criteria have pass rates evenly spaced between 0 and 1.
    """
    forms = (Line("rvpo", "RVPO", "rvpo"), Line("rvpo_policy", "policy level", "rvpo_policy"))
    rows = []
    for group_size, channels, k in SHAPES:
        others = [(2 * index + 1) / (2 * channels - 2) for index in range(channels - 1)]
        base = expected_gains(Line("gdpo", "GDPO", "gdpo"), PROBES, others, group_size=group_size)
        ratios = [expected_gains(replace(form, k=k), PROBES, others, group_size=group_size) / base for form in forms]
        rows.append([f"{group_size}, {channels}, {k:g}", *(number(value) for ratio in ratios for value in ratio)])
    head = ["G, M, k", *(f"{form.label}, p = {rate:g}" for form in forms for rate in PROBES)]
    return markdown_table(head, rows)


def measured_gains(records: Sequence[CellRecord], lines: Sequence[Line] = LINES) -> list[Point]:
    """Return the gain of every channel in the first steps of these runs under every line.

    The same rollouts for all lines: what a method would teach there, whatever the runs were trained by.
    """
    names = ChannelNames(())
    groups = [run_groups(record, names) for record in records]
    points = []
    for line in lines:
        result = audit_groups(groups, names.names, methods=[line.method], ks=[line.k], draws=1)
        points += [
            Point(line.name, channel.name, channel.mean.value, channel.forecasts[result.methods[0].name].change.value)
            for channel in result.channels
        ]
    return points
