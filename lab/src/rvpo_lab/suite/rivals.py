"""Rivals of the policy level, in suites of their own: the newest published methods, and other ways to choose prompts.

The methods stand beside GDPO, RVPO and the policy level, on seeds that no run had used before. The rule of the
decision stands in docs/findings.md and was written before the first of these runs.

Prompts are taken as they come, by expected signal, or groups are generated anew. The latter costs rollouts, so these
runs are compared at equal rollouts and not at equal steps: where all have generated as many as the shortest, and on
the way there.

In both only whole seeds count, those of which every contender has every task, so that a suite that is still running
gives a fair table, too.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from rvpo.stats import holm
from rvpo.text import capital, listed, markdown_table, number, p_value, percent, plural
from rvpo_lab.suite.compare import (
    MEASURES,
    Comparison,
    compare_at_distance,
    compare_at_end,
    compare_runs,
    difference,
    paragraph,
    steps_table,
)
from rvpo_lab.suite.method_tables import adjusted, lowest_by_task
from rvpo_lab.suite.plan import BASELINE, SuiteSettings, label
from rvpo_lab.suite.results import run_key, run_scores, score_curves
from rvpo_lab.suite.storage import CellRecord, read_cells
from rvpo_lab.tasks.catalog import SUITE

__all__ = [
    "at_rollouts",
    "both_ways",
    "decision",
    "generated",
    "regimes_section",
    "rivals_section",
    "rollouts_section",
    "section",
    "whole_seeds",
]

HELD = "rvpo_policy"
"""The contender that had the recommendation when the rule was written."""
KNOWN = (BASELINE, "rvpo", HELD)
PUBLISHED = {
    "maxrl": "2602.02710",
    "pow3r": "2605.20164",
    "saw": "2606.07705",
    "sa_mrpo": "2608.16072",
    "dara": "2610.00574",
}
"""Numbers of arXiv, which rise with the date."""
SEEDS = 8
"""Seeds that the rule asks for, on each task of `SUITE`; for the ways to choose prompts, seeds that were planned."""
SIGNIFICANT = 0.05
ALL_RARE = "rising"
"""The task in which all criteria are rare."""

SEEN = {"maxrl": ALL_RARE}
"""The task that a newcomer had run on before it joined, because of what came out there."""

LEGEND = (
    "Differences over pairs of a task and a seed, 95 % by bootstrap; p by sign flips, that of a newcomer after Holm's "
    "correction over the newcomers. KL a token: the mean distance from the start at which the method's runs were "
    "compared."
)

Compare = Callable[[Sequence[CellRecord], str, str], Comparison | None]


def whole_seeds(records: Sequence[CellRecord]) -> list[CellRecord]:
    """Return the records of the seeds of which every method has every task that occurs."""
    tasks, methods = ({getattr(record.cell, name) for record in records} for name in ("task", "contender"))
    seeds = [record.cell.seed for record in records]
    return [record for record in records if seeds.count(record.cell.seed) == len(tasks) * len(methods)]


def rivals_section(folder: Path) -> str:
    """Return the section: what ran, tables at equal steps and at equal distance, fewer steps, and the decision.

    Raises ConfigError if there are no finished cells.
    """
    return section(
        folder,
        lambda records: [
            *both_ways(records),
            steps_table(records),
            paragraph(decision(records)),
            *_without_seen(records),
        ],
    )


def both_ways(records: Sequence[CellRecord]) -> list[str]:
    """Return the tables at equal steps and at equal distance, against GDPO and the holder, and their legend."""
    return [
        *(
            f"{title}, against {label(baseline)}:\n\n{_differences(records, baseline, compare)}"
            for title, compare in (("At equal steps", compare_at_end), ("At equal distance", compare_at_distance))
            for baseline in (BASELINE, HELD)
        ),
        paragraph(f"{LEGEND} At equal distance it is the largest that both runs of a pair reached."),
    ]


def regimes_section(folder: Path) -> str:
    """Return what ran and the tables of each task for itself, at equal steps.

    Raises ConfigError if there are no finished cells.
    """
    return section(
        folder,
        lambda records: [
            *(
                f"`{task}`, against {label(baseline)}:\n\n"
                + _differences([record for record in records if record.cell.task == task], baseline, compare_at_end)
                for task in _of(records, "task")
                for baseline in (BASELINE, HELD)
            ),
            paragraph(LEGEND),
        ],
    )


def section(folder: Path, parts: Callable[[Sequence[CellRecord]], list[str]]) -> str:
    """Return what ran, the lowest thirds, and the parts that are made of the whole seeds."""
    finished = read_cells(folder)
    records = whole_seeds(finished)
    if not records:
        return paragraph(f"Not known yet: no seed is whole, of {plural(len(finished), 'cell')}.")
    return "\n".join([_runs(records, finished), lowest_by_task(run_scores(records)), *parts(records)])


def _runs(records: Sequence[CellRecord], finished: Sequence[CellRecord]) -> str:
    """Return what the tables are made of, and how many of the finished cells are not."""
    tasks, methods, seeds = _of(records, "task"), _of(records, "contender"), sorted(_of(records, "seed"))
    runs = (
        f"{plural(len(records), 'run')}: {plural(len(tasks), 'task')} x {plural(len(methods), 'method')} x "
        f"{plural(len(seeds), 'seed')}, {listed([str(seed) for seed in seeds])}."
    )
    if left := len(finished) - len(records):
        runs += f" {plural(left, 'cell')} of seeds that are not whole are left out."
    return paragraph(runs)


def _of(records: Sequence[CellRecord], name: str) -> list[Any]:
    """Return the tasks, contenders or seeds of cells, each once."""
    return list(dict.fromkeys(getattr(record.cell, name) for record in records))


def newcomers(records: Sequence[CellRecord]) -> list[str]:
    """Return the contenders that want the recommendation, first publication first."""
    names = [method for method in _of(records, "contender") if method not in KNOWN]
    return sorted(names, key=lambda name: PUBLISHED.get(name, "9"))


def _differences(records: Sequence[CellRecord], baseline: str, compare: Compare) -> str:
    """Return every method's differences to a baseline as a table."""
    methods = [method for method in _of(records, "contender") if method != baseline]
    compared = {method: compare(records, method, baseline) for method in methods}
    p_values = {name: _corrected(records, compared, name) for name in MEASURES}
    rows = []
    for method, comparison in compared.items():
        if comparison:
            cells = [
                f"{difference(test)}, p {p_value(p_values[name].get(method, test.p_value))}"
                for name, test in comparison.tests.items()
            ]
            rows.append([label(method), number(comparison.distance, 3), *cells, str(comparison.pairs)])
    return markdown_table(["method", "KL a token", *MEASURES.values(), "pairs"], rows)


def _corrected(
    records: Sequence[CellRecord], compared: dict[str, Comparison | None], measure: str
) -> dict[str, float]:
    """Return the newcomers' p of a measure after Holm's correction over them."""
    names = [name for name in newcomers(records) if compared.get(name)]
    tests = [comparison.tests[measure] for name in names if (comparison := compared[name])]
    return dict(zip(names, map(float, holm([test.p_value for test in tests])), strict=True))


def decision(records: Sequence[CellRecord]) -> str:
    """Return who has the recommendation by the rule: over all tasks, and where all criteria are rare."""
    is_whole = len(_of(records, "seed")) >= SEEDS and set(_of(records, "task")) >= set(SUITE)
    ahead, equal, behind = _standing(records)
    verb = "is" if len(ahead) == 1 else "are"
    sentences = [f"no newcomer is ahead of {label(HELD)}, which keeps the recommendation"]
    if ahead:
        takes = f"{label(ahead[0])} takes the recommendation"
        sentences = [f"{_names(ahead)} {verb} ahead of {label(HELD)}: {takes}"]
    sentences += [f"not shown to differ from it: {_names(equal)}"] if equal else []
    sentences += [f"behind it: {_names(behind)}"] if behind else []
    if rare := [record for record in records if record.cell.task == ALL_RARE]:
        first = _standing(rare)[0]
        verb = "are" if len(first) > 1 else "is"
        sentences.append(
            f"where all criteria are rare (`{ALL_RARE}`), {_names(first) if first else 'none'} {verb} ahead of it"
        )
    opening = "By the rule above, " if is_whole else "So far, which decides nothing before all seeds are whole, "
    return opening + "; ".join(sentences) + "."


def _without_seen(records: Sequence[CellRecord]) -> list[str]:
    """Return each newcomer of `SEEN` against the holder on the other tasks, in a sentence."""
    sentences = []
    for name, task in SEEN.items():
        comparison = compare_at_end([record for record in records if record.cell.task != task], name, HELD)
        if comparison:
            test = comparison.tests["lowest"]
            sentences.append(
                f"Without `{task}`, on which {label(name)} had run before it joined, its lowest third ends "
                f"{difference(test)} from that of {label(HELD)} (p {p_value(test.p_value)}, {test.pairs} pairs)."
            )
    return [paragraph(sentence) for sentence in sentences]


def _names(methods: Sequence[str]) -> str:
    return listed([label(method) for method in methods])


def _standing(records: Sequence[CellRecord]) -> tuple[list[str], list[str], list[str]]:
    """Return the newcomers ahead of the holder, the highest lowest third first, those not shown to differ, and those
    behind it."""
    compared = {name: compare_at_end(records, name, HELD) for name in newcomers(records)}

    def shown(measure: str, sign: int) -> list[str]:
        p_values = _corrected(records, compared, measure)
        return [
            name
            for name, comparison in compared.items()
            if comparison and sign * comparison.tests[measure].difference > 0 and p_values[name] <= SIGNIFICANT
        ]

    higher, lower_mean, behind = shown("lowest", 1), shown("mean", -1), shown("lowest", -1)
    scores = run_scores(records).groupby("method")["final_lowest"].mean()
    ahead = sorted((name for name in higher if name not in lower_mean), key=lambda name: -scores[name])
    return ahead, [name for name in compared if name not in (*ahead, *behind)], behind


UNIFORM = HELD
ARMS = {
    UNIFORM: "uniform",
    f"{UNIFORM}:2:prompt_sampling=signal": "by expected signal",
    f"{UNIFORM}:2:resample_dead=2": "dead groups anew",
    f"{UNIFORM}:2:resample_dead=2,resample_signal=neglected": "dead in the neglected, anew",
}
"""Contenders and what the table calls how their prompts are chosen."""
SCORES = ("lowest", "way", "mean")


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
