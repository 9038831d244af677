"""What the suite's finished cells say, as Markdown: whole pages, and the tables inside docs/findings.md.

A page is made of sections by name. `refill` puts them into a document that has places for them, such as

    <!-- begin aim -->
    what stands here is replaced
    <!-- end aim -->

The section `late` asks under which condition a method gives back what it had learnt. It reads a folder of suites, one
for each condition, each with settings of its own (`rvpo bench neglect --out FOLDER/CONDITION --learning-rate ...`).
What a run gives back is its best mean less its final one (`drop` of `results.run_scores`).
"""

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from rvpo.errors import ConfigError
from rvpo.stats import NEGLECTED, PairedTest
from rvpo.text import markdown_table, number, p_value, signed
from rvpo_lab.suite.claims import KEPT, LOWEST, MEAN, Aim, claims_tables, hold_against_aim
from rvpo_lab.suite.compare import compare_runs, difference, paragraph, steps_table
from rvpo_lab.suite.foresight import foresight
from rvpo_lab.suite.longer import longer_section
from rvpo_lab.suite.method_tables import HEADS, adjusted, lowest_by_task, others, ratio, task_tables
from rvpo_lab.suite.plan import BASELINE, SuiteSettings, label
from rvpo_lab.suite.results import BANDS, change_by_band, channel_means, prompt_scores, run_scores
from rvpo_lab.suite.rivals import regimes_section, rivals_section, rollouts_section, whole_seeds
from rvpo_lab.suite.storage import CellRecord, is_suite, read_cells, read_settings

__all__ = ["LateCondition", "findings", "places", "read_conditions", "refill", "sections"]

COMPARED = ("final_mean", "best_mean", "final_lowest", "final_neglected", "final_all_met", "area", "drop")
TITLES = {
    "real": "A real language model",
    "runs": "",
    "aim": "The aim",
    "methods": "The lowest third, task by task",
    "steps": "Fewer steps",
    "rivals": "Rivals on untouched seeds",
    "regimes": "Long rubrics and graded verdicts",
    "rollouts": "Prompts where there is signal",
    "claims": "The paper's claims",
    "regressions": "What was met to begin with, and what was not",
    "late": "Late in training",
    "longer": "Four times as long",
    "overall": "Against GDPO, over all runs",
    "tasks": "Task by task",
    "forecast": "The audit's forecast against what happened",
    "candidates": "Candidates",
    "limits": "Limits",
}
"""Sections in the order of a page."""


def sections(
    records: Sequence[CellRecord],
    names: Collection[str] = (),
    *,
    folder: Path,
    method: str = "rvpo_policy",
    unseen: Sequence[int] = (),
    late: Path | None = None,
    longer: Path | None = None,
    candidates: Path | None = None,
    rivals: Path | None = None,
    regimes: Path | None = None,
    sampling: Path | None = None,
) -> dict[str, str]:
    """Return the sections that the cells of a suite give, by name, without their titles.

    Args:
        records: the cells.
        folder: where the page says that they lie.
        names: which sections; empty: all.
        method: the contender that is held against the aim.
        unseen: seeds that nothing was chosen by; for them alone the aim is held as well.
        late: folder of suites, one for each condition (`LateCondition`).
        longer: suite of some of the methods, with more steps.
        candidates: suite in which candidates were tried.
        rivals: suite of the newest published methods, on seeds of their own.
        regimes: suite of the same methods on tasks that are not of `SUITE`.
        sampling: suite of the ways to choose prompts.

    Raises ConfigError if one of the other folders has no finished cells.
    """
    runs, means = run_scores(records), channel_means(records)
    makers: dict[str, Callable[[], str]] = {
        "runs": lambda: _opening(records, folder),
        "aim": lambda: _aim(runs, method, unseen),
        "methods": lambda: lowest_by_task(runs),
        "steps": lambda: steps_table(records),
        "rivals": lambda: rivals_section(rivals) if rivals else "",
        "regimes": lambda: regimes_section(regimes) if regimes else "",
        "rollouts": lambda: rollouts_section(sampling) if sampling else "",
        "claims": lambda: claims_tables(runs, means),
        "regressions": lambda: _regressions(change_by_band(means)),
        "late": lambda: _late(records, runs, late) if late else "",
        "longer": lambda: longer_section(longer) if longer else "",
        "overall": lambda: _against_baseline(runs),
        "tasks": lambda: _tasks(runs, means, prompt_scores(records)),
        "forecast": lambda: _forecast(records, rivals),
        "candidates": lambda: _candidates(candidates) if candidates else "",
        "limits": lambda: _limits(records),
    }
    made = {name: make() for name, make in makers.items() if name in names or not names}
    return {name: text for name, text in made.items() if text}


def findings(texts: Mapping[str, str]) -> str:
    """Return sections as one page."""
    parts = [
        f"## {TITLES[name]}\n\n{texts[name]}" if TITLES[name] else texts[name] for name in TITLES if name in texts
    ]
    return "# Findings\n\n" + "\n".join(parts)


PLACE = re.compile(r"<!-- begin (\w+) -->.*?<!-- end \1 -->", re.DOTALL)


def places(document: str) -> list[str]:
    """Return the names of a document's places; ConfigError without any."""
    names = PLACE.findall(document)
    if not names:
        raise ConfigError("the document has no place to fill: <!-- begin NAME --> ... <!-- end NAME -->")
    return names


def refill(document: str, texts: Mapping[str, str]) -> str:
    """Return a document with every place filled anew; ConfigError for one whose section is not given."""
    absent = [name for name in places(document) if name not in texts]
    if absent:
        raise ConfigError(f"the document has places for {', '.join(absent)}, which these results do not give")

    def filled(place: re.Match[str]) -> str:
        return f"<!-- begin {place[1]} -->\n\n{texts[place[1]].strip()}\n\n<!-- end {place[1]} -->"

    return PLACE.sub(filled, document)


def _opening(records: Sequence[CellRecord], folder: Path) -> str:
    """Return what the runs are."""
    about = records[0].about
    settings, versions = SuiteSettings(**about["settings"]), about["versions"]
    tasks, methods, seeds = (
        list(dict.fromkeys(record.about[key] for record in records)) for key in ("task", "contender", "seed")
    )
    kinds = f"{len(tasks)} tasks x {len(methods)} methods x {len(seeds)} seeds"
    whole = len(tasks) * len(methods) * len(seeds)
    runs = kinds if len(records) == whole else f"of {kinds}; {whole - len(records)} combinations were not run"
    parts = [
        f"Written by `rvpo bench findings {folder}` from the stored runs, which are made by `rvpo bench neglect --out "
        f"{folder}` with these tasks, methods and seeds.",
        f"{len(records)} runs: {runs}. Each is a "
        f"Qwen2 policy of {_size(settings)} trained in TRL {versions['trl']} for {settings.steps} steps of "
        f"{settings.prompts_per_step} prompts x {settings.num_generations} rollouts, learning rate "
        f"{settings.learning_rate:g}, KL penalty {settings.beta:g}. Runs of one task start from the same warm "
        "start, runs of one task and seed see the same prompts. Scores are exact grades on "
        f"{settings.held_out_prompts} held-out prompts, one sampled answer each, whatever judge training had. A "
        f"channel is a kind of criterion; it is neglected if fewer than {100 * NEGLECTED:.0f} % of the answers meet "
        "it.",
    ]
    return "\n".join(map(paragraph, parts))


def _size(settings: SuiteSettings) -> str:
    is_usual = settings.hidden_size == SuiteSettings.hidden_size
    return "0.8 million parameters" if is_usual else f"width {settings.hidden_size}"


def _aim(runs: pd.DataFrame, method: str, unseen: Sequence[int]) -> str:
    aims = hold_against_aim(runs, method)
    if not aims:
        return f"Not known: {method} and {BASELINE} have no task and seed in common.\n"
    head = ["task", f"lowest third, {label(method)} / GDPO", "ratio, 95 % interval", "p", "p (Holm)"]
    pooled = [_pooled(runs, method, "Over all of them")]
    if unseen:
        fresh = runs[runs["seed"].isin(unseen)]
        pooled.append(_pooled(fresh, method, f"On seeds {min(unseen)} to {max(unseen)} alone"))
    paragraphs = "\n".join(map(paragraph, pooled))
    return f"""{markdown_table([*head, "mean, ratio to GDPO", "final / best", "seeds", "missed"], map(_aim_row, aims))}
{paragraphs}
Aim: lowest third at least {LOWEST} times GDPO's, mean at least {MEAN} times, final at least {KEPT} of the best mean.
Intervals by bootstrap over seeds; p by sign flips of the lowest third over seeds, Holm over the tasks.
"""


def _aim_row(aim: Aim) -> list[str]:
    return [
        aim.task,
        f"{aim.lowest_a:.2f} / {aim.lowest_b:.2f}",
        ratio(aim.lowest),
        p_value(aim.p_value),
        p_value(aim.adjusted),
        ratio(aim.mean),
        ratio(aim.kept),
        str(aim.lowest.pairs),
        ", ".join(aim.missed) or "nothing",
    ]


def _pooled(runs: pd.DataFrame, method: str, opening: str) -> str:
    """Return the differences to GDPO over all tasks and seeds, in a sentence."""
    scores = (("final_lowest", "lowest third"), ("final_mean", "mean"), ("final_neglected", "neglected"))
    tests = [(name, compare_runs(runs, method, score)) for score, name in scores]
    shown = ", ".join(f"{name} {difference(test)} (p {p_value(test.p_value)})" for name, test in tests if test)
    pairs = next((test.pairs for _, test in tests if test), 0)
    return f"{opening}, {pairs} pairs of a task and a seed, {label(method)} - GDPO: {shown or 'not known'}."


def _against_baseline(runs: pd.DataFrame) -> str:
    methods = others(runs)
    tests = {(method, score): compare_runs(runs, method, score) for method in methods for score in COMPARED}
    holms = dict(zip(tests, adjusted(list(tests.values())), strict=True))
    head = ["method - GDPO", "difference, 95 % interval", "d_z", "p", "p (Holm)", "pairs"]
    parts = []
    for score in COMPARED:
        rows = [_comparison(label(method), tests[method, score], holms[method, score]) for method in methods]
        when, _, name = score.partition("_")
        title = f"{HEADS[name]}, {when}" if name in HEADS else HEADS[score]
        parts.append(f"**{title}**\n\n{markdown_table(head, rows)}")
    return "\n".join(parts) + (
        f"\nHolm over all {len(tests)} tests of this section. d_z: mean over standard deviation of the paired "
        "differences.\n"
    )


def _comparison(name: str, test: PairedTest | None, adjusted: float) -> list[str]:
    if test is None:
        return [name, "-", "-", "-", "-", "0"]
    p_values = [p_value(test.p_value), p_value(adjusted)]
    return [name, difference(test), f"{test.effect_size:+.2f}", *p_values, str(test.pairs)]


def _regressions(changes: pd.DataFrame) -> str:
    changes = changes[changes["task"] != "tools"]
    methods = list(dict.fromkeys(changes["method"]))
    rows = []
    for band, (low, high) in enumerate(BANDS):
        of_band = changes[changes["band"] == band]
        means = of_band.groupby("method")["change"].mean()
        test = compare_runs(of_band, "rvpo", "change")
        tested = "-" if test is None else f"{difference(test)}, p {p_value(test.p_value)}"
        rows.append([f"{low:g} to {high:g}", *(signed(means.get(method, math.nan)) for method in methods), tested])
    head = ["met by the warm start", *map(label, methods), "RVPO 0.5-2 - GDPO"]
    return f"""{markdown_table(head, rows)}
Change of a channel's held-out mean from warm start to end, averaged over channels, seeds and tasks but `tools`.
"""


SETTING_WORDS = {
    "steps": "{} steps",
    "learning_rate": "learning rate {:g}",
    "beta": "KL penalty {:g}",
    "prompts_per_step": "{} prompts a step",
    "num_generations": "groups of {}",
    "num_iterations": "{} updates a batch",
    "epsilon": "clipped beyond {:g}",
    "hidden_size": "policy of width {}",
}


@dataclass(frozen=True)
class LateCondition:
    """One of the suites."""

    name: str
    settings: SuiteSettings
    runs: pd.DataFrame
    """Of `results.run_scores`."""

    @property
    def words(self) -> str:
        """Its settings as far as they are not the suite's defaults."""
        usual, settings = asdict(SuiteSettings()), asdict(self.settings)
        changed = [
            text.format(settings[name]) for name, text in SETTING_WORDS.items() if settings[name] != usual[name]
        ]
        return ", ".join(changed) or "the suite's settings"


def read_conditions(folder: Path) -> list[LateCondition]:
    """Return the suites in a folder, by name. Raises ConfigError if there is none."""
    suites = [place for place in sorted(folder.glob("*/")) if is_suite(place)]
    if not suites:
        raise ConfigError(f"{folder} holds no suites: no folder in it has finished cells or settings of one")
    return [
        LateCondition(suite.name, read_settings(suite, SuiteSettings), run_scores(read_cells(suite)))
        for suite in suites
    ]


def _late(records: Sequence[CellRecord], runs: pd.DataFrame, folder: Path) -> str:
    """Return what GDPO, the paper's form and the policy level give back, under every condition."""
    methods = ("gdpo", "rvpo", "rvpo_policy")
    usual = LateCondition("", SuiteSettings(**records[0].about["settings"]), runs)
    rows = []
    for condition in (usual, *read_conditions(folder)):
        for place, (task, of_task) in enumerate(condition.runs.groupby("task", sort=False)):
            ends = [_given_back(of_task[of_task["method"] == method]) for method in methods]
            lowest = of_task.groupby("method")["final_lowest"].mean()
            thirds = " / ".join(number(lowest.get(method, math.nan)) for method in methods)
            test = compare_runs(of_task, "rvpo", "drop")
            first = "" if place else condition.words
            rows.append([first, str(task), *ends, difference(test), thirds, str(test.pairs if test else 0)])
    head = ["condition", "task", *map(label, methods), "given back, RVPO - GDPO", "lowest third", "seeds"]
    return f"""{markdown_table(head, rows)}
Mean of the channels, best / final: given back, the mean over runs of best - final. Lowest third: at the end, of the
three methods in that order.
"""


def _given_back(runs: pd.DataFrame) -> str:
    if runs.empty:
        return "-"
    return f"{runs['best_mean'].mean():.3f} / {runs['final_mean'].mean():.3f}: {runs['drop'].mean():.3f}"


def _candidates(folder: Path) -> str:
    runs = run_scores(read_cells(folder))
    scores = ("final_lowest", "final_mean", "final_neglected")
    rows = []
    for method in others(runs):
        tests = [compare_runs(runs, method, score) for score in scores]
        rows.append([label(method), *map(difference, tests), str(tests[1].pairs if tests[1] else 0)])
    tasks, seeds = sorted(set(runs["task"])), sorted(set(runs["seed"]))
    head = ["candidate - GDPO", "lowest third, final", "mean, final", "neglected, final", "pairs"]
    return f"{markdown_table(head, rows)}\nTasks {', '.join(tasks)}; seeds {', '.join(map(str, seeds))}.\n"


def _tasks(*tables: pd.DataFrame) -> str:
    tasks = dict.fromkeys(tables[0]["task"])
    return "\n".join(task_tables(str(task), *(table[table["task"] == task] for table in tables)) for task in tasks)


def _forecast(records: Sequence[CellRecord], rivals: Path | None) -> str:
    """Return what audits of the first steps foretold; that there is nothing to audit if so."""
    try:
        tables = foresight(records, whole_seeds(read_cells(rivals)) if rivals else ())
    except ConfigError as error:
        return f"Not known: {error}.\n"
    opening = (
        "The rewards of each run's first ten steps were audited under the run's own method, as `rvpo audit` does "
        "(docs/audit.md); nothing later was seen."
    )
    return f"{paragraph(opening)}\n{tables}"


def _limits(records: Sequence[CellRecord]) -> str:
    settings = SuiteSettings(**records[0].about["settings"])
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
