"""docs/findings.md: what the suite's finished cells say, written from them and nothing else."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from textwrap import fill

import pandas as pd

from rvpo.errors import ConfigError
from rvpo.evals.stats import PairedTest, bootstrap_interval, holm
from rvpo.suite.cell_file import CellRecord
from rvpo.suite.claims import EQUAL, Judged, judge_claims
from rvpo.suite.compare import compare_prompts, compare_runs
from rvpo.suite.foresight import foresight
from rvpo.suite.plan import CONTENDERS
from rvpo.suite.results import LEVEL, NEGLECTED, SCORES, channel_means, read_cells, run_scores
from rvpo.tasks.catalog import TASKS

__all__ = ["findings"]

BASELINE = "gdpo"
COMPARED = ("final_mean", "best_mean", "final_lowest", "final_neglected", "final_all_met", "area", "drop")
HEADS = {
    "mean": "mean",
    "lowest": "lowest third",
    "neglected": "neglected",
    "all_met": "all met",
    "area": "area",
    "drop": "best - final",
    "steps_to": f"steps to {LEVEL}",
}


def findings(folder: Path) -> str:
    """Return the page as Markdown. Raises ConfigError if the folder has no finished cells."""
    records = read_cells(folder)
    runs = run_scores(records)
    parts = [
        _opening(records, folder),
        "## The paper's claims\n",
        _claims(judge_claims(records)),
        "## Against GDPO, over all runs\n",
        _against_baseline(runs),
        "## Task by task\n",
        *(_task(task, of_task, records) for task, of_task in runs.groupby("task", sort=False)),
        "## The audit's forecast against what happened\n",
        _forecast(records),
        _limits(records),
    ]
    return "\n".join(parts)


def _label(method: str) -> str:
    return CONTENDERS[method].label if method in CONTENDERS else method


def _number(value: float, digits: int = 2) -> str:
    return "-" if not math.isfinite(value) else f"{value:.{digits}f}"


def _p(value: float) -> str:
    if not math.isfinite(value):
        return "-"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; the first column is text, the others numbers."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _opening(records: Sequence[CellRecord], folder: Path) -> str:
    about = records[0].about
    settings, versions = about["settings"], about["versions"]
    tasks, methods, seeds = (
        list(dict.fromkeys(record.about[key] for record in records)) for key in ("task", "contender", "seed")
    )
    whole = len(tasks) * len(methods) * len(seeds)
    under_way = "" if len(records) == whole else f" The suite is under way: {whole - len(records)} runs are missing."
    parts = [
        "Which method neglects which reward, with real policies in a real trainer. This page is written from the "
        f"stored runs by `rvpo bench findings {folder} --out docs/findings.md`; the runs are made by "
        f"`rvpo bench neglect --budget full --out {folder}`.",
        f"{len(records)} runs: {len(tasks)} tasks x {len(methods)} methods x {len(seeds)} seeds.{under_way} Each is a "
        f"Qwen2 policy of 0.8 million parameters trained in TRL {versions['trl']} for {settings['steps']} steps of "
        f"{settings['prompts_per_step']} prompts x {settings['num_generations']} rollouts, learning rate "
        f"{settings['learning_rate']:g}, KL penalty {settings['beta']:g}. Runs of one task start from the same warm "
        "start, runs of one task and seed see the same prompts. Scores are exact grades on "
        f"{settings['held_out_prompts']} held-out prompts, one sampled answer each, whatever judge training had. A "
        f"channel is a kind of criterion; it is neglected if fewer than {100 * NEGLECTED:.0f} % of the answers meet "
        "it.",
        "The tasks are described in `rvpo.tasks.catalog`; no parameter of them, and no setting but the learning rate, "
        "was chosen by trying, and that one was chosen on GDPO alone.",
    ]
    return "# Findings\n\n" + "\n\n".join(fill(part, 119, break_on_hyphens=False) for part in parts) + "\n"


def _claims(judged: Sequence[Judged]) -> str:
    rows = []
    for one in judged:
        test = one.test
        interval = "-" if test is None else f"{test.difference:+.3f} [{test.low:+.3f}, {test.high:+.3f}]"
        p = one.adjusted if one.claim.sign else math.nan
        measured = f"{_number(one.mean_a, 3)} / {_number(one.mean_b, 3)}"
        pairs = "0" if test is None else str(test.pairs)
        rows.append([one.claim.text, one.claim.quoted, measured, interval, _p(p), pairs, f"**{one.verdict}**"])
    head = [
        "claim",
        "the paper (quoted)",
        "measured a / b",
        "a - b, 95 % interval",
        "p (Holm)",
        "pairs",
        "verdict",
    ]
    return f"""{_markdown(head, rows)}
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
        rows = [_comparison(_label(method), tests[method, score], adjusted[method, score]) for method in methods]
        head = ["method - GDPO", "difference, 95 % interval", "d_z", "p", "p (Holm)", "pairs"]
        when, _, name = score.partition("_")
        title = f"{HEADS[name]}, {when}" if name in HEADS else HEADS[score]
        parts.append(f"**{title}**\n\n{_markdown(head, rows)}")
    return "\n".join(parts) + (
        f"\nHolm over all {len(tests)} tests of this section. d_z: mean over standard deviation of the paired "
        "differences.\n"
    )


def _comparison(label: str, test: PairedTest | None, adjusted: float) -> list[str]:
    if test is None:
        return [label, "-", "-", "-", "-", "0"]
    interval = f"{test.difference:+.3f} [{test.low:+.3f}, {test.high:+.3f}]"
    return [label, interval, f"{test.effect_size:+.2f}", _p(test.p_value), _p(adjusted), str(test.pairs)]


def _task(task: str, runs: pd.DataFrame, records: Sequence[CellRecord]) -> str:
    """Return the tables of one task: scores best and final, prompts against GDPO, channels at the end."""
    mine = [record for record in records if record.about["task"] == task]
    summary = TASKS[task].summary if task in TASKS else ""
    return f"""### {task}

{summary.capitalize()}. Mean of the channels at the warm start {runs["start_mean"].mean():.2f}.

{_scores(runs)}
{_prompts(mine, task, list(dict.fromkeys(runs["method"])))}
{_channels(mine)}"""


def _scores(runs: pd.DataFrame) -> str:
    head = ["method", *(f"{HEADS[score]}, best / final" for score in SCORES), "area", HEADS["steps_to"]]
    rows = []
    for method, of_method in runs.groupby("method", sort=False):
        cells = []
        for score in SCORES:
            interval = bootstrap_interval(of_method[f"final_{score}"])
            best = of_method[f"best_{score}"].mean()
            cells.append(f"{best:.2f} / {interval.mean:.2f} [{_number(interval.low)}, {_number(interval.high)}]")
        reached = of_method["steps_to"].notna()
        steps = of_method["steps_to"].mean()
        told = f"{steps:.0f} ({reached.sum()} of {len(reached)})" if reached.any() else f"- (0 of {len(reached)})"
        rows.append([_label(str(method)), *cells, f"{of_method['area'].mean():.3f}", told])
    return _markdown(head, rows)


def _prompts(records: Sequence[CellRecord], task: str, methods: Sequence[str]) -> str:
    rows = []
    for method in methods:
        test = compare_prompts(records, method).get(task) if method != BASELINE else None
        if test is not None:
            rows.append(
                [
                    _label(method),
                    f"{test.difference:+.3f} [{test.low:+.3f}, {test.high:+.3f}]",
                    f"{test.effect_size:+.2f}",
                    _p(test.p_value),
                    f"{test.pairs} in {test.blocks}",
                ]
            )
    head = ["final score of a prompt, method - GDPO", "difference, 95 % interval", "d_z", "p", "prompts in seeds"]
    return _markdown(head, rows)


def _channels(records: Sequence[CellRecord]) -> str:
    means = channel_means(records)
    start = means[means["step"] == 0].groupby("channel")["mean"].mean()
    final = means[means["step"] == means["step"].max()].groupby(["channel", "method"], sort=False)["mean"].mean()
    table = final.unstack("method").loc[start.sort_values().index]
    rows = [
        [str(channel), f"{start[channel]:.2f}", *(_number(value) for value in values)]
        for channel, values in zip(table.index, table.to_numpy(), strict=True)
    ]
    return _markdown(["channel, final", "warm start", *map(_label, table.columns)], rows)


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
    return f"{fill(opening, 119)}\n\n{told}"


def _limits(records: Sequence[CellRecord]) -> str:
    settings = records[0].about["settings"]
    return f"""## Limits

- Policies of 0.8 million parameters on made-up tasks, {settings["steps"]} steps, one learning rate, one group size;
  the paper's models are a thousand times larger, and its judges are language models.
- Inside one task the tests have as many units as seeds: with five, the smallest two-sided p is 2/32 = 0.0625.
- One warm start per task: the spread over seeds holds that of prompts, sampling and training, not of the base policy.
- Best is chosen on the prompts it is reported on, the same for every method, and is therefore a little too high.
"""
