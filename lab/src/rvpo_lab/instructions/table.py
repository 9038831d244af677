"""The methods on the task `instructions`, from stored cells, as Markdown: at equal steps and at equal distance.

Held-out means are of kinds: a kind's mean over the prompts that have it. `rvpo_lab.suite.compare` pairs and compares.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from rvpo.stats import NEGLECTED
from rvpo.text import markdown_table as table
from rvpo.text import number, p_value, percent, plural, signed
from rvpo_lab.instructions.task import METHODS
from rvpo_lab.suite.compare import (
    MEASURES,
    Comparison,
    compare_at_distance,
    compare_at_end,
    difference,
    end_of,
    paragraph,
)
from rvpo_lab.suite.plan import BASELINE, label
from rvpo_lab.suite.results import means_of_channels, score_curves
from rvpo_lab.suite.storage import CellRecord, read_cells

__all__ = ["best_rate", "markdown"]

ENOUGH_SEEDS = 4
"""Seeds of a method before its differences are more than directions."""
DIFFERENCES = [f"{name} - GDPO" for name in MEASURES.values()]


def _methods(records: Sequence[CellRecord]) -> list[str]:
    """Return the methods that have runs, as METHODS lists them, others last."""
    present = dict.fromkeys(record.cell.contender for record in records)
    return [*(name for name in METHODS if name in present), *(name for name in present if name not in METHODS)]


def _differences(comparison: Comparison | None) -> list[str]:
    if comparison is None:
        return [difference(None)] * len(MEASURES)
    tests = [comparison.tests[name] for name in MEASURES]
    return [difference(test) + (f", p {p_value(test.p_value)}" if test.pairs > 1 else "") for test in tests]


def _at_equal_steps(records: Sequence[CellRecord]) -> str:
    rows = []
    for method in _methods(records):
        own = [record for record in records if record.cell.contender == method]
        ends = [end_of(record) for record in own]
        levels = [number(float(np.mean([end[name] for end in ends])), 3) for name in MEASURES]
        kl = float(np.mean([record.about["kl_per_token"][-1] for record in own]))
        compared = compare_at_end(records, method) if method != BASELINE else None
        rows.append([label(method), str(len(own)), *levels, number(kl, 3), *_differences(compared)])
    return table(["method", "seeds", *MEASURES.values(), "KL a token", *DIFFERENCES], rows)


def _at_equal_distance(records: Sequence[CellRecord]) -> str:
    compared = [(method, compare_at_distance(records, method)) for method in _methods(records) if method != BASELINE]
    rows = [
        [label(method), str(comparison.pairs), number(comparison.distance, 3), *_differences(comparison)]
        for method, comparison in compared
        if comparison
    ]
    return table(["method", "seeds", "KL a token", *DIFFERENCES], rows)


def _curves(record: CellRecord) -> dict[str, np.ndarray]:
    """Return kind -> its held-out mean at each evaluated step."""
    means = means_of_channels(record)
    return dict(zip(means.names, means.values.T, strict=True))


def _kinds(records: Sequence[CellRecord]) -> str:
    """Return the table of every kind: its base rate, and its held-out mean at the end under each method."""
    means = [(record.cell.contender, _curves(record)) for record in records]
    kinds = sorted({kind for _, of_run in means for kind in of_run})
    start = {kind: float(np.mean([of_run[kind][0] for _, of_run in means if kind in of_run])) for kind in kinds}
    methods, rows = _methods(records), []
    for kind in sorted(kinds, key=start.__getitem__):
        ends = [
            [of_run[kind][-1] for contender, of_run in means if contender == method and kind in of_run]
            for method in methods
        ]
        rows.append([kind, number(start[kind]), *(number(float(np.mean(values or [np.nan]))) for values in ends)])
    return table(["kind", "start", *map(label, methods)], rows)


def markdown(folder: Path) -> str:
    """Return the section: settings, both tables of methods, the table of kinds.

    Raises ConfigError if there are no finished cells.
    """
    records = read_cells(folder)
    about, s = records[0].about, records[0].about["settings"]
    seeds = [sum(record.cell.contender == method for record in records) for method in _methods(records)]
    start = float(np.mean([score_curves(record)["mean"][0] for record in records]))
    text = (
        f"{about['policy']}, {plural(len(records), 'run')}, {min(seeds)} to {max(seeds)} seeds a method; {s['steps']} "
        f"steps of {s['prompts']} prompts x {s['rollouts']} rollouts of at most {s['tokens']} tokens, "
        f"{s['updates'] * s['passes']} updates a step (each on {percent(1 / s['updates'])} of its rollouts), clip "
        f"{s['epsilon']:g}, learning rate {s['learning_rate']:g}, KL penalty {s['beta']:g}; {s['held_out']} held-out "
        f"prompts; mean over kinds at the start {number(start, 3)}. Neglected: share of kinds below {NEGLECTED:g}. "
        "Differences are paired by seed, with 95 % bootstrap intervals over seeds and p by sign flips (at best 0.125 "
        "with four seeds, 0.008 with eight), not corrected for the number of methods"
        + (
            f"; with fewer than {ENOUGH_SEEDS} seeds they are directions, no claims."
            if min(seeds) < ENOUGH_SEEDS
            else "."
        )
    )
    return (
        f"{paragraph(text)}\nAt equal steps:\n\n{_at_equal_steps(records)}\nAt equal distance, the largest that both "
        f"runs of a pair reached:\n\n{_at_equal_distance(records)}\nHeld-out mean of each kind at the end:\n\n"
        f"{_kinds(records)}"
    )


def best_rate(results: Mapping[float, CellRecord]) -> tuple[float, str]:
    """Return the learning rate with the highest held-out mean over the second half of the evaluations, and a table."""
    means = {rate: score_curves(record)["mean"] for rate, record in sorted(results.items())}
    late = {rate: float(values[len(values) // 2 :].mean()) for rate, values in means.items()}
    rows = [
        [
            f"{rate:g}",
            number(values[0], 3),
            number(late[rate], 3),
            signed(float(values[-1] - values[0])),
            number(results[rate].about["kl_per_token"][-1], 4),
        ]
        for rate, values in means.items()
    ]
    best = max(late, key=late.__getitem__)
    return best, table(["learning rate", "start", "second half", "gain at the end", "KL a token"], rows)
