"""The methods on the task `instructions`, from stored cells, as Markdown: at equal steps and at equal distance.

Held-out means are of kinds: a kind's mean over the prompts that have it. Runs are paired by their seed (same prompts,
same order). The distance is the KL to the start, measured on held-out answers.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from rvpo.stats import NEGLECTED, lowest_third, paired_test
from rvpo.text import interval, number, percent, plural, signed
from rvpo.text import markdown_table as table
from rvpo_lab.instructions.cells import METHODS
from rvpo_lab.suite.cell_file import CellRecord
from rvpo_lab.suite.folder import read_cells
from rvpo_lab.suite.foresight_page import paragraph
from rvpo_lab.suite.plan import BASELINE, label

__all__ = ["best_rate", "curves", "markdown", "scores"]

ENOUGH_SEEDS = 4
"""Seeds of a method before its differences are more than directions."""
MEASURES = ("mean", "lowest third", "neglected")


def curves(record: CellRecord) -> dict[str, np.ndarray]:
    """Return kind -> its held-out mean at each evaluated step."""
    values: dict[str, list[list[float]]] = {}
    for (_, kind), at_steps in sorted(record.held_out.items()):
        values.setdefault(kind, []).append(at_steps)
    return {kind: np.mean(rows, axis=0) for kind, rows in values.items()}


def scores(record: CellRecord) -> dict[str, np.ndarray]:
    """Return measure -> its value at each evaluated step: over kinds mean, lowest third, share neglected."""
    kinds = np.stack(list(curves(record).values()), axis=-1)
    return {
        "mean": kinds.mean(-1),
        "lowest third": lowest_third(kinds),
        "neglected": (kinds < NEGLECTED).mean(-1),
    }


def at_distance(record: CellRecord, kl: float) -> dict[str, float]:
    """Return the measures where the run first is as far from its start as `kl` (nats a token), between evaluations
    on the straight line."""
    reached = np.maximum.accumulate(record.about["kl_per_token"])
    after = int(np.argmax(reached >= kl))
    before = max(after - 1, 0)
    step = reached[after] - reached[before]
    share = 1.0 if step == 0 else (kl - reached[before]) / step
    return {name: float((1 - share) * v[before] + share * v[after]) for name, v in scores(record).items()}


def _paired(records: Sequence[CellRecord], method: str) -> list[tuple[CellRecord, CellRecord]]:
    """Return (method's, baseline's) runs of every seed that both have."""
    own, baseline = (
        {record.cell.seed: record for record in records if record.cell.contender == name}
        for name in (method, BASELINE)
    )
    return [(own[seed], baseline[seed]) for seed in sorted(own.keys() & baseline.keys())]


def _difference(pairs: Sequence[tuple[float, float]]) -> str:
    if not pairs:
        return number(float("nan"))
    a, b = zip(*pairs, strict=True)
    test = paired_test(a, b)
    return interval(test.difference, test.low, test.high)


def _methods(records: Sequence[CellRecord]) -> list[str]:
    """Return the methods that have runs, as METHODS lists them, others last."""
    present = dict.fromkeys(record.cell.contender for record in records)
    return [*(name for name in METHODS if name in present), *(name for name in present if name not in METHODS)]


def _at_equal_steps(records: Sequence[CellRecord]) -> str:
    rows = []
    for method in _methods(records):
        own = [record for record in records if record.cell.contender == method]
        last = {name: float(np.mean([scores(record)[name][-1] for record in own])) for name in MEASURES}
        kl = float(np.mean([record.about["kl_per_token"][-1] for record in own]))
        pairs = [(scores(a), scores(b)) for a, b in _paired(records, method)]
        differences = [
            _difference([(a[name][-1], b[name][-1]) for a, b in pairs]) if method != BASELINE else number(float("nan"))
            for name in MEASURES
        ]
        levels = [number(last[name], 3) for name in MEASURES]
        rows.append([label(method), str(len(own)), *levels, number(kl, 3), *differences])
    return table(["method", "seeds", *MEASURES, "KL a token", *[f"{name} - GDPO" for name in MEASURES]], rows)


def _at_equal_distance(records: Sequence[CellRecord]) -> str:
    rows = []
    for method in _methods(records):
        if method == BASELINE or not (paired := _paired(records, method)):
            continue
        distances = [min(max(record.about["kl_per_token"]) for record in pair) for pair in paired]
        pairs = [tuple(at_distance(r, kl) for r in pair) for pair, kl in zip(paired, distances, strict=True)]
        differences = [_difference([(a[name], b[name]) for a, b in pairs]) for name in MEASURES]
        rows.append([label(method), str(len(pairs)), number(float(np.mean(distances)), 3), *differences])
    return table(["method", "seeds", "KL a token", *[f"{name} - GDPO" for name in MEASURES]], rows)


def _kinds(records: Sequence[CellRecord]) -> str:
    """Return the table of every kind: its base rate, and its held-out mean at the end under each method."""
    means = [(record.cell.contender, curves(record)) for record in records]
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
    start = float(np.mean([scores(record)["mean"][0] for record in records]))
    text = (
        f"{about['policy']}, {plural(len(records), 'run')}, {min(seeds)} to {max(seeds)} seeds a method; {s['steps']} "
        f"steps of {s['prompts']} prompts x {s['rollouts']} rollouts of at most {s['tokens']} tokens, "
        f"{s['updates'] * s['passes']} updates a step (each on {percent(1 / s['updates'])} of its rollouts), clip "
        f"{s['epsilon']:g}, learning rate {s['learning_rate']:g}, KL penalty {s['beta']:g}; {s['held_out']} held-out "
        f"prompts; mean over kinds at the start {number(start, 3)}. Neglected: share of kinds below {NEGLECTED:g}. "
        "Differences are paired by seed, with 95 % bootstrap intervals over seeds"
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
    means = {rate: scores(record)["mean"] for rate, record in sorted(results.items())}
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
