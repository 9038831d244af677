"""The lowest third against the rollouts that were generated: prompts as they come, by expected signal, or groups anew.

Groups that are generated anew cost rollouts, so runs are compared at equal rollouts and not at equal steps: where all
have generated as many as the shortest, and on the way there. Only whole seeds count, as in `rivals`.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from rvpo.text import capital, listed, markdown_table, number, p_value, percent, plural
from rvpo_lab.suite.cell_file import CellRecord
from rvpo_lab.suite.compare import compare_runs, difference
from rvpo_lab.suite.folder import read_cells
from rvpo_lab.suite.foresight_page import paragraph
from rvpo_lab.suite.method_table import adjusted
from rvpo_lab.suite.plan import SuiteSettings
from rvpo_lab.suite.results import run_key, score_curves
from rvpo_lab.suite.rivals import whole_seeds

__all__ = ["at_rollouts", "generated", "rollouts_section"]

UNIFORM = "rvpo_policy"
ARMS = {
    UNIFORM: "uniform",
    f"{UNIFORM}:2:prompt_sampling=signal": "by expected signal",
    f"{UNIFORM}:2:resample_dead=2": "dead groups anew",
    f"{UNIFORM}:2:resample_dead=2,resample_signal=neglected": "dead in the neglected, anew",
}
"""Contenders and what the table calls how their prompts are chosen."""
SCORES = ("lowest", "way", "mean")
SIGNIFICANT = 0.05
SEEDS = 8
"""Seeds that were planned."""


def generated(record: CellRecord) -> Float[np.ndarray, " E"]:
    """Return how many rollouts a run had generated at its E evaluations.

    A step's own, and those of groups generated anew, which are logged as a mean over the steps since the last entry.
    """
    settings = SuiteSettings(**record.about["settings"])
    own = settings.prompts_per_step * settings.num_generations / settings.num_iterations
    if "rvpo/generated" not in record.log:
        return own * np.asarray(record.steps, dtype=np.float64)
    logged = np.asarray([0, *record.logged_steps])
    of_steps = np.diff(logged) * np.asarray(record.log["rvpo/generated"]) / settings.num_iterations
    return np.asarray(np.interp(record.steps, logged, np.concatenate([[0.0], np.cumsum(of_steps)])))


def at_rollouts(record: CellRecord, rollouts: float) -> dict[str, float]:
    """Return `SCORES` of a run when it had generated so many rollouts; between evaluations it moves straight on.

    `lowest` and `mean` are those of `results`, `way` the mean of `lowest` over the rollouts until then.
    """
    counts, curves = generated(record), score_curves(record)
    ends = {name: float(np.interp(rollouts, counts, curves[name])) for name in ("lowest", "mean")}
    before = counts < rollouts
    places = np.append(counts[before], rollouts)
    area = np.trapezoid(np.append(curves["lowest"][before], ends["lowest"]), places)
    return ends | {"way": float(area / rollouts)}


def rollouts_section(folder: Path) -> str:
    """Return the section: what ran, the table, and whether any arm differs from uniform sampling.

    Raises ConfigError if there are no finished cells.
    """
    finished = read_cells(folder)
    records = [record for record in whole_seeds(finished) if record.cell.contender in ARMS]
    if not records:
        return paragraph(f"Not known yet: no seed is whole, of {plural(len(finished), 'cell')}.")
    counts = {record.cell: float(generated(record)[-1]) for record in records}
    budget = min(counts.values())
    runs = pd.DataFrame([run_key(record) | at_rollouts(record, budget) for record in records])
    runs["spent"] = [counts[record.cell] / record.steps[-1] for record in records]
    tasks, seeds = (list(dict.fromkeys(runs[name])) for name in ("task", "seed"))
    arms = [arm for arm in ARMS if arm in set(runs["method"])]
    opening = (
        f"{plural(len(records), 'run')} of `{UNIFORM}`: {plural(len(tasks), 'task')} x {len(arms)} ways to choose "
        f"prompts x {plural(len(seeds), 'seed')}, {listed([str(seed) for seed in sorted(seeds)])}. All are compared "
        f"after {budget:.0f} rollouts."
    )
    legend = (
        "Lowest third of the criteria by task, mean over seeds; *on the way*: its mean over the rollouts until then. "
        "Differences to uniform sampling over pairs of a task and a seed, 95 % by bootstrap; p by sign flips, Holm "
        "over the ways. More rollouts: what a step generates beyond its own."
    )
    texts = [legend, *_of_sampler(records, tasks), _verdict(runs, arms)]
    return "\n".join([paragraph(opening), _table(runs, arms, tasks), *map(paragraph, texts)])


def _of_sampler(records: Sequence[CellRecord], tasks: Sequence[str]) -> list[str]:
    """Return how far the draws by signal were from uniform, and how much signal their groups had, in a sentence."""
    parts = []
    for task in tasks:
        logs = [r.log for r in records if r.cell.task == task and "rvpo/effective_prompts" in r.log]
        if logs:
            effective = float(np.mean([log["rvpo/effective_prompts"] for log in logs]))
            signal = float(np.mean([log["rvpo/low_signal"] for log in logs]))
            parts.append(f"{effective:.0f} on `{task}`, where {percent(signal)} of the groups had signal in it")
    if not parts:
        return []
    settings = SuiteSettings(**records[0].about["settings"])
    return [
        f"Of {settings.prompts_per_step * settings.steps} prompts, drawing by the expected signal of the lowest third "
        f"left an effective number of {'; '.join(parts)}."
    ]


def _table(runs: pd.DataFrame, arms: Sequence[str], tasks: Sequence[str]) -> str:
    head = ["prompts", *tasks, *(f"{name}: difference, p" for name in ("lowest third", "on the way", "mean"))]
    p_values = {score: _p_values(runs, arms, score) for score in SCORES}
    least = runs["spent"].min()
    rows = []
    for arm in arms:
        own = runs[runs["method"] == arm]
        cells = [number(own[own["task"] == task]["lowest"].mean(), 3) for task in tasks]
        for score in SCORES:
            test = compare_runs(runs, arm, score, baseline=UNIFORM)
            cells.append("" if arm == UNIFORM else f"{difference(test)}, p {p_value(p_values[score][arm])}")
        rows.append([ARMS[arm], *cells, percent(own["spent"].mean() / least - 1, 1)])
    return markdown_table([*head, "more rollouts"], rows)


def _p_values(runs: pd.DataFrame, arms: Sequence[str], score: str) -> dict[str, float]:
    """Return each arm's p against uniform sampling after Holm's correction."""
    others = [arm for arm in arms if arm != UNIFORM]
    tests = [compare_runs(runs, arm, score, baseline=UNIFORM) for arm in others]
    return dict(zip(others, adjusted(tests), strict=True))


def _verdict(runs: pd.DataFrame, arms: Sequence[str]) -> str:
    """Return which ways differ from uniform sampling in the lowest third, at the end or on the way."""
    shown = []
    for score, where in (("lowest", "at the end"), ("way", "on the way")):
        for arm, value in _p_values(runs, arms, score).items():
            test = compare_runs(runs, arm, score, baseline=UNIFORM)
            if test and value <= SIGNIFICANT:
                shown.append(f"{ARMS[arm]} is {'higher' if test.difference > 0 else 'lower'} {where}")
    seeds = runs["seed"].nunique()
    sentence = f"against uniform sampling {listed(shown)}" if shown else "no effect on the lowest third is shown"
    return capital(sentence if seeds >= SEEDS else f"so far, with {seeds} of {SEEDS} seeds, {sentence}") + "."
