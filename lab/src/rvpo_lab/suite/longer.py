"""Longer training: does a lead last, and which channels die out.

A policy that never meets a criterion gets no signal about it: every method of the package gives a group in which
nobody succeeds nothing to learn from. So a channel at zero may stay there. What became of a channel is told by its
held-out mean m, taken over three evaluations because a single one is a small sample:

    dead         m <= 0.02
    died out     dead at the end, but m >= 0.1 at some time before
    came back    dead after as many steps as the other suites have, m >= 0.1 at the end
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from rvpo.text import markdown_table, number, p_value
from rvpo_lab.suite.compare import compare_runs, difference, paragraph
from rvpo_lab.suite.method_tables import adjusted, others
from rvpo_lab.suite.plan import BASELINE, SuiteSettings, label
from rvpo_lab.suite.results import means_of_channels, run_key, score_curves
from rvpo_lab.suite.rivals import both_ways, section
from rvpo_lab.suite.storage import CellRecord

__all__ = ["died_out", "fates", "longer_section", "over_evaluations"]

EVALUATIONS = 3
"""That a mean is taken over."""
DEAD = 0.02
ALIVE = 0.1
USUAL = SuiteSettings.steps


def over_evaluations(values: Float[np.ndarray, "E ..."]) -> Float[np.ndarray, "F ..."]:
    """Return the means of each `EVALUATIONS` in a row, F = E - 2; of all of them if there are fewer.

    >>> over_evaluations(np.array([0.0, 3.0, 6.0, 0.0])).tolist()
    [3.0, 3.0]
    """
    size = min(EVALUATIONS, len(values))
    return np.asarray(np.lib.stride_tricks.sliding_window_view(values, size, axis=0).mean(axis=-1))


def _usual(record: CellRecord) -> int:
    """Return the place among `over_evaluations` of the last one within the steps of the other suites."""
    return max(sum(step <= USUAL for step in record.steps) - EVALUATIONS, 0)


def died_out(record: CellRecord) -> list[str]:
    """Return the channels that were alive and are dead at the end."""
    means = means_of_channels(record)
    smooth = over_evaluations(means.values)
    died = (smooth.max(axis=0) >= ALIVE) & (smooth[-1] <= DEAD)
    return [name for name, is_dead in zip(means.names, died, strict=True) if is_dead]


def fates(record: CellRecord) -> dict[str, float]:
    """Return how many channels of a run were dead after the usual steps and at the end, died out, and came back."""
    smooth = over_evaluations(means_of_channels(record).values)
    early, late = smooth[_usual(record)], smooth[-1]
    return {
        "early": float((early <= DEAD).sum()),
        "late": float((late <= DEAD).sum()),
        "died": float(len(died_out(record))),
        "back": float(((early <= DEAD) & (late >= ALIVE)).sum()),
    }


def longer_section(folder: Path) -> str:
    """Return what ran, the tables at the end, the lead over GDPO early and late, and the fates of channels.

    Raises ConfigError if there are no finished cells.
    """
    return section(folder, lambda records: [*both_ways(records), _leads(records), _fates(records)])


def _leads(records: Sequence[CellRecord]) -> str:
    """Return the lowest third less GDPO's after the usual steps and at the end, and how the lead changed."""
    rows = []
    for record in records:
        smooth = over_evaluations(score_curves(record)["lowest"])
        early, late = float(smooth[_usual(record)]), float(smooth[-1])
        rows.append(run_key(record) | {"early": early, "late": late, "change": late - early})
    runs, last = pd.DataFrame(rows), max(record.steps[-1] for record in records)
    methods = others(runs)
    tests = {score: [compare_runs(runs, method, score) for method in methods] for score in ("early", "late", "change")}
    own = runs.groupby("method")["change"].mean()
    table = [[f"{label(BASELINE)} itself", "", "", "", "", number(own[BASELINE], 3)]]
    for place, method in enumerate(methods):
        change = tests["change"][place]
        leads = [difference(tests[score][place]) for score in tests]
        table.append([label(method), *leads, p_value(change.p_value) if change else "", number(own[method], 3)])
    head = ["lowest third - GDPO", f"after {USUAL} steps", f"after {last}", "change of the lead", "p", "own change"]
    legend = (
        f"Means over the last {EVALUATIONS} evaluations until then, in the same runs. Own change: of the method's "
        "lowest third between the two. p by sign flips, not corrected."
    )
    return f"{markdown_table(head, table)}\n{paragraph(legend)}"


def _fates(records: Sequence[CellRecord]) -> str:
    """Return how many channels of a run are dead, died out and came back."""
    runs = pd.DataFrame([run_key(record) | fates(record) for record in records])
    last = max(record.steps[-1] for record in records)
    tasks, methods = (list(dict.fromkeys(runs[name])) for name in ("task", "method"))
    tests = {method: compare_runs(runs, method, "late") for method in others(runs)}
    p_values = dict(zip(tests, adjusted(list(tests.values())), strict=True))
    count = {record.cell.task: len(means_of_channels(record).names) for record in records}
    rows = []
    for method in methods:
        own = runs[runs["method"] == method]
        dead = [own[own["task"] == task][["early", "late"]].mean() for task in tasks]
        rows.append(
            [
                label(method),
                *(f"{number(of_task['early'], 1)} / {number(of_task['late'], 1)}" for of_task in dead),
                *(number(own[fate].mean(), 2) for fate in ("died", "back")),
                f"{difference(tests[method])}, p {p_value(p_values[method])}" if tests.get(method) else "",
            ]
        )
    head = [
        f"channels dead after {USUAL} / {last} steps",
        *(f"{task}, of {count[task]}" for task in tasks),
        "died out",
        "came back",
        "dead at the end - GDPO",
    ]
    legend = (
        f"Channels of a run, mean over seeds. Dead: held-out mean of at most {DEAD}, taken over {EVALUATIONS} "
        f"evaluations. Died out: dead at the end, {ALIVE} or more at some time before. Came back: dead after {USUAL} "
        f"steps, {ALIVE} or more at the end. p by sign flips over pairs of a task and a seed, Holm over the methods."
    )
    return f"{markdown_table(head, rows)}\n{paragraph(legend)}"
