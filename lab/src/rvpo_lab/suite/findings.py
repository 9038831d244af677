"""What the suite's finished cells say, as Markdown: whole pages, and the tables inside docs/findings.md.

A page is made of sections by name. `refill` puts them into a document that has places for them, such as

    <!-- begin aim -->
    what stands here is replaced
    <!-- end aim -->
"""

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from textwrap import fill

import pandas as pd

from rvpo.errors import ConfigError
from rvpo.stats import PairedTest, holm
from rvpo_lab.suite.aim import KEPT, LOWEST, MEAN, Aim, hold_against_aim
from rvpo_lab.suite.cell_file import CellRecord
from rvpo_lab.suite.claims import EQUAL, Judged, judge_claims
from rvpo_lab.suite.compare import compare_runs, paired_runs
from rvpo_lab.suite.foresight import foresight
from rvpo_lab.suite.late import Condition, read_conditions
from rvpo_lab.suite.markdown import difference, label, number, p_value, ratio, table
from rvpo_lab.suite.plan import Settings
from rvpo_lab.suite.regressions import BANDS, change_by_band
from rvpo_lab.suite.results import NEGLECTED, read_cells, run_scores
from rvpo_lab.suite.task_tables import BASELINE, HEADS, task_tables

__all__ = ["findings", "places", "refill", "sections"]

COMPARED = ("final_mean", "best_mean", "final_lowest", "final_neglected", "final_all_met", "area", "drop")
TITLES = {
    "runs": "",
    "aim": "The aim",
    "methods": "The lowest third, task by task",
    "claims": "The paper's claims",
    "regressions": "What was met to begin with, and what was not",
    "late": "Late in training",
    "overall": "Against GDPO, over all runs",
    "tasks": "Task by task",
    "forecast": "The audit's forecast against what happened",
    "candidates": "Candidates",
    "limits": "Limits",
}
"""Sections in the order of a page."""


def sections(
    folder: Path,
    names: Collection[str] = (),
    *,
    method: str = "rvpo_policy",
    unseen: Sequence[int] = (),
    late: Path | None = None,
    candidates: Path | None = None,
) -> dict[str, str]:
    """Return the sections that the folder's cells give, by name, without their titles.

    Args:
        folder: a suite.
        names: which sections; empty: all.
        method: the contender that is held against the aim.
        unseen: seeds that nothing was chosen by; the aim is told for them alone as well.
        late: folder of suites, one for each condition (`rvpo_lab.suite.late`).
        candidates: suite in which candidates were tried.

    Raises ConfigError if a folder has no finished cells.
    """
    records = read_cells(folder)
    runs = run_scores(records)
    makers: dict[str, Callable[[], str]] = {
        "runs": lambda: _opening(records, folder),
        "aim": lambda: _aim(runs, method, unseen),
        "methods": lambda: _methods(runs),
        "claims": lambda: _claims(judge_claims(records)),
        "regressions": lambda: _regressions(records),
        "late": lambda: _late(records, runs, late) if late else "",
        "overall": lambda: _against_baseline(runs),
        "tasks": lambda: _tasks(runs, records),
        "forecast": lambda: _forecast(records),
        "candidates": lambda: _candidates(candidates) if candidates else "",
        "limits": lambda: _limits(records),
    }
    made = {name: make() for name, make in makers.items() if name in names or not names}
    return {name: text for name, text in made.items() if text}


def findings(given: Mapping[str, str]) -> str:
    """Return sections as one page."""
    parts = [
        f"## {TITLES[name]}\n\n{given[name]}" if TITLES[name] else given[name] for name in TITLES if name in given
    ]
    return "# Findings\n\n" + "\n".join(parts)


PLACE = re.compile(r"<!-- begin (\w+) -->.*?<!-- end \1 -->", re.DOTALL)


def places(document: str) -> list[str]:
    """Return the names of a document's places; ConfigError without any."""
    names = PLACE.findall(document)
    if not names:
        raise ConfigError("the document has no place to fill: <!-- begin NAME --> ... <!-- end NAME -->")
    return names


def refill(document: str, given: Mapping[str, str]) -> str:
    """Return a document with every place filled anew; ConfigError for one whose section is not given."""
    absent = [name for name in places(document) if name not in given]
    if absent:
        raise ConfigError(f"the document has places for {', '.join(absent)}, which these results do not give")

    def filled(place: re.Match[str]) -> str:
        return f"<!-- begin {place[1]} -->\n\n{given[place[1]].strip()}\n\n<!-- end {place[1]} -->"

    return PLACE.sub(filled, document)


def _opening(records: Sequence[CellRecord], folder: Path) -> str:
    """Return what the runs are."""
    about = records[0].about
    settings, versions = Settings(**about["settings"]), about["versions"]
    tasks, methods, seeds = (
        list(dict.fromkeys(record.about[key] for record in records)) for key in ("task", "contender", "seed")
    )
    kinds = f"{len(tasks)} tasks x {len(methods)} methods x {len(seeds)} seeds"
    whole = len(tasks) * len(methods) * len(seeds)
    which = kinds if len(records) == whole else f"of {kinds}; {whole - len(records)} combinations were not run"
    parts = [
        f"Written by `rvpo bench findings {folder}` from the stored runs, which are made by `rvpo bench neglect --out "
        f"{folder}` with these tasks, methods and seeds.",
        f"{len(records)} runs: {which}. Each is a "
        f"Qwen2 policy of {_size(settings)} trained in TRL {versions['trl']} for {settings.steps} steps of "
        f"{settings.prompts_per_step} prompts x {settings.num_generations} rollouts, learning rate "
        f"{settings.learning_rate:g}, KL penalty {settings.beta:g}. Runs of one task start from the same warm "
        "start, runs of one task and seed see the same prompts. Scores are exact grades on "
        f"{settings.held_out_prompts} held-out prompts, one sampled answer each, whatever judge training had. A "
        f"channel is a kind of criterion; it is neglected if fewer than {100 * NEGLECTED:.0f} % of the answers meet "
        "it.",
    ]
    return "\n\n".join(_wrapped(part) for part in parts) + "\n"


def _size(settings: Settings) -> str:
    is_usual = settings.hidden_size == Settings.hidden_size
    return "0.8 million parameters" if is_usual else f"width {settings.hidden_size}"


def _wrapped(text: str) -> str:
    return fill(text, 119, break_on_hyphens=False)


def _aim(runs: pd.DataFrame, method: str, unseen: Sequence[int]) -> str:
    held = hold_against_aim(runs, method)
    if not held:
        return f"Not known: {method} and {BASELINE} have no task and seed in common.\n"
    name = label(method)
    head = ["task", f"lowest third, {name} / GDPO", "ratio, 95 % interval", "p", "p (Holm)", "mean, ratio to GDPO"]
    rows = [_aim_row(one) for one in held]
    told = [f"{_wrapped(_pooled(runs, method, 'Over all of them'))}\n"]
    if unseen:
        fresh = runs[runs["seed"].isin(unseen)]
        told.append(f"{_wrapped(_pooled(fresh, method, f'On seeds {min(unseen)} to {max(unseen)} alone'))}\n")
    paragraphs = "\n".join(told)
    return f"""{table([*head, "final / best", "seeds", "missed"], rows)}
{paragraphs}
Aim: lowest third at least {LOWEST} times GDPO's, mean at least {MEAN} times, final at least {KEPT} of the best mean.
Intervals by bootstrap over seeds; p by sign flips of the lowest third over seeds, Holm over the tasks.
"""


def _aim_row(one: Aim) -> list[str]:
    return [
        one.task,
        f"{one.lowest_a:.2f} / {one.lowest_b:.2f}",
        ratio(one.lowest),
        p_value(one.p_value),
        p_value(one.adjusted),
        ratio(one.mean),
        ratio(one.kept),
        str(one.lowest.pairs),
        ", ".join(one.missed) or "nothing",
    ]


def _pooled(runs: pd.DataFrame, method: str, opening: str) -> str:
    """Return the differences to GDPO over all tasks and seeds, in a sentence."""
    scores = (("final_lowest", "lowest third"), ("final_mean", "mean"), ("final_neglected", "neglected"))
    tests = [(name, compare_runs(runs, method, score)) for score, name in scores]
    told = ", ".join(f"{name} {difference(test)} (p {p_value(test.p_value)})" for name, test in tests if test)
    pairs = next((test.pairs for _, test in tests if test), 0)
    return f"{opening}, {pairs} pairs of a task and a seed, {label(method)} - GDPO: {told or 'not known'}."


def _methods(runs: pd.DataFrame) -> str:
    """Return the lowest third of every method on every task, relative to GDPO, and over all of them."""
    methods = [method for method in dict.fromkeys(runs["method"]) if method != BASELINE]
    held = {method: {one.task: one for one in hold_against_aim(runs, method)} for method in methods}
    tasks = list(dict.fromkeys(runs["task"]))
    level = runs[runs["method"] == BASELINE].groupby("task")["final_lowest"].mean()
    rows = [["GDPO itself", *(number(level.get(task, math.nan)) for task in tasks), "", "", ""]]
    pooled = [compare_runs(runs, method, "final_lowest") for method in methods]
    adjusted = holm([None if test is None else test.p_value for test in pooled])
    for method, test, p in zip(methods, pooled, adjusted, strict=True):
        ratios = [ratio(held[method][task].lowest) if task in held[method] else "-" for task in tasks]
        rows.append([label(method), *ratios, difference(test), p_value(p), str(test.pairs if test else 0)])
    head = ["lowest third, times GDPO's", *tasks, "all: difference to GDPO", "p (Holm)", "pairs"]
    return f"""{table(head, rows)}
95 % intervals by bootstrap, of ratios over seeds, of the difference over pairs of a task and a seed; p of the
difference by sign flips, Holm over the methods.
"""


def _claims(judged: Sequence[Judged]) -> str:
    rows = []
    for one in judged:
        test = one.test
        p = one.adjusted if one.claim.sign else math.nan
        measured = f"{number(one.mean_a, 3)} / {number(one.mean_b, 3)}"
        pairs = "0" if test is None else str(test.pairs)
        told = [measured, difference(test), p_value(p), pairs, f"**{one.verdict}**"]
        rows.append([one.claim.text, one.claim.quoted, *told])
    head = [
        "claim",
        "the paper (quoted)",
        "measured a / b",
        "a - b, 95 % interval",
        "p (Holm)",
        "pairs",
        "verdict",
    ]
    return f"""{table(head, rows)}
a is the method named first. Pairs are (task, seed); all tasks but `tools` for the first thirteen claims. p by sign
flips over the pairs, Holm-adjusted over all claims of a direction; reproduced: the claimed direction and p <= 0.05;
not reproduced: the other direction and p <= 0.05 (for equality: the interval within, or beside 0 and not within,
+-{EQUAL}). The paper's figures are HealthBench and BFCL scores of models of 1.5 to 14 billion parameters, so only
directions can be compared. Its claim that the overhead is below 1 % is measured by `make bench` (README).
"""


def _against_baseline(runs: pd.DataFrame) -> str:
    methods = [method for method in dict.fromkeys(runs["method"]) if method != BASELINE]
    tests = {(method, score): compare_runs(runs, method, score) for method in methods for score in COMPARED}
    adjusted = dict(zip(tests, holm([None if t is None else t.p_value for t in tests.values()]), strict=True))
    parts = []
    for score in COMPARED:
        rows = [_comparison(label(method), tests[method, score], adjusted[method, score]) for method in methods]
        head = ["method - GDPO", "difference, 95 % interval", "d_z", "p", "p (Holm)", "pairs"]
        when, _, name = score.partition("_")
        title = f"{HEADS[name]}, {when}" if name in HEADS else HEADS[score]
        parts.append(f"**{title}**\n\n{table(head, rows)}")
    return "\n".join(parts) + (
        f"\nHolm over all {len(tests)} tests of this section. d_z: mean over standard deviation of the paired "
        "differences.\n"
    )


def _comparison(name: str, test: PairedTest | None, adjusted: float) -> list[str]:
    if test is None:
        return [name, "-", "-", "-", "-", "0"]
    return [
        name,
        difference(test),
        f"{test.effect_size:+.2f}",
        p_value(test.p_value),
        p_value(adjusted),
        str(test.pairs),
    ]


def _regressions(records: Sequence[CellRecord]) -> str:
    changes = change_by_band(records)
    changes = changes[changes["task"] != "tools"]
    methods = list(dict.fromkeys(changes["method"]))
    rows = []
    for band, (low, high) in enumerate(BANDS):
        own = changes[changes["band"] == band]
        means = own.groupby("method")["change"].mean()
        test = compare_runs(own, "rvpo", "change")
        told = "-" if test is None else f"{difference(test)}, p {p_value(test.p_value)}"
        rows.append([f"{low:g} to {high:g}", *(f"{means.get(one, math.nan):+.3f}" for one in methods), told])
    head = ["met by the warm start", *map(label, methods), "RVPO 0.5-2 - GDPO"]
    return f"""{table(head, rows)}
Change of a channel's held-out mean from warm start to end, averaged over channels, seeds and tasks but `tools`.
"""


def _late(records: Sequence[CellRecord], runs: pd.DataFrame, folder: Path) -> str:
    """Return what GDPO, the paper's form and the policy level give back, under every condition."""
    methods = ("gdpo", "rvpo", "rvpo_policy")
    usual = Condition("", Settings(**records[0].about["settings"]), runs)
    rows = []
    for condition in (usual, *read_conditions(folder)):
        told = condition.words
        for task, own in condition.runs.groupby("task", sort=False):
            ends = [_given_back(own[own["method"] == method]) for method in methods]
            lowest = own.groupby("method")["final_lowest"].mean()
            thirds = " / ".join(number(lowest.get(method, math.nan)) for method in methods)
            test = compare_runs(own, "rvpo", "drop")
            rows.append([told, str(task), *ends, difference(test), thirds, str(test.pairs if test else 0)])
            told = ""
    head = ["condition", "task", *map(label, methods), "given back, RVPO - GDPO", "lowest third", "seeds"]
    return f"""{table(head, rows)}
Mean of the channels, best / final: given back, the mean over runs of best - final. Lowest third: at the end, of the
three methods in that order.
"""


def _given_back(runs: pd.DataFrame) -> str:
    if runs.empty:
        return "-"
    return f"{runs['best_mean'].mean():.3f} / {runs['final_mean'].mean():.3f}: {runs['drop'].mean():.3f}"


def _candidates(folder: Path) -> str:
    runs = run_scores(read_cells(folder))
    methods = [method for method in dict.fromkeys(runs["method"]) if method != BASELINE]
    scores = ("final_lowest", "final_mean", "final_neglected")
    rows = []
    for method in methods:
        tests = [compare_runs(runs, method, score) for score in scores]
        pairs = len(paired_runs(runs, method, BASELINE, "final_mean"))
        rows.append([label(method), *map(difference, tests), str(pairs)])
    tasks, seeds = sorted(set(runs["task"])), sorted(set(runs["seed"]))
    head = ["candidate - GDPO", "lowest third, final", "mean, final", "neglected, final", "pairs"]
    return f"{table(head, rows)}\nTasks {', '.join(tasks)}; seeds {', '.join(map(str, seeds))}.\n"


def _tasks(runs: pd.DataFrame, records: Sequence[CellRecord]) -> str:
    return "\n".join(task_tables(str(task), own, records) for task, own in runs.groupby("task", sort=False))


def _forecast(records: Sequence[CellRecord]) -> str:
    """Return what audits of the first steps foretold; that there is nothing to audit if so."""
    try:
        told = foresight(records)
    except ConfigError as error:
        return f"Not known: {error}.\n"
    opening = (
        "The rewards of each run's first ten steps were audited under the run's own method, as `rvpo audit` does "
        "(docs/audit.md); nothing later was seen."
    )
    return f"{_wrapped(opening)}\n\n{told}"


def _limits(records: Sequence[CellRecord]) -> str:
    settings = Settings(**records[0].about["settings"])
    seeds, tasks = (len({record.about[key] for record in records}) for key in ("seed", "task"))
    lowest = 2.0 ** (1 - seeds)
    return f"""- Policies of {_size(settings)} on made-up tasks, {settings.steps} steps, one learning rate and
  group size in the tables of methods; the paper's models are a thousand times larger, and its judges are language
  models.
- Inside one task the tests have as many units as seeds: with {seeds}, the smallest two-sided p is
  {lowest:.2g}, after Holm's correction over {tasks} tasks {min(lowest * tasks, 1):.2g}.
- One warm start per task: the spread over seeds holds that of prompts, sampling and training, not of the base policy.
- Best is chosen on the prompts it is reported on, the same for every method, and is therefore a little too high.
"""
