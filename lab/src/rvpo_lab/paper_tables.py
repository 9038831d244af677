"""The tables of the paper from results of one's own, with the paper's numbers beside them, marked as quoted.

A run is one training run's results on one benchmark: the summaries of its checkpoints. *Final* is the last one,
*best* the one with the highest headline score, HealthBench's taken before clipping; runs of one name are training
seeds and are averaged. The best checkpoint is chosen by the score that is then reported, which flatters every method;
the paper does the same.

Names carry what the tables are sorted by: a model size such as 7B, a method, and a k such as k=5 or k=0.5-2:
"7B RVPO k=0.5-2", or "7b-rvpo_k5".

Quoted: arXiv 2605.05750, one training run per scale; only what is in `QUOTED_*` is known.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rvpo.data.formats import AXES
from rvpo.errors import ConfigError
from rvpo.evals.benchmark import Record, best_checkpoint, rank
from rvpo.evals.paired import cautions, cells, compare, heads
from rvpo.text import NOTHING, markdown_table, number, span

__all__ = ["Run", "tables"]

Summary = Mapping[str, Any]

QUOTED_HEALTHBENCH = {
    ("3B", "GDPO"): (0.192, 0.117), ("3B", "RVPO"): (0.189, 0.147),
    ("7B", "GDPO"): (0.198, 0.026), ("7B", "RVPO"): (0.230, 0.204),
    ("14B", "GDPO"): (0.215, 0.000), ("14B", "RVPO"): (0.261, 0.236),
}  # fmt: skip
"""(size, method) -> best, final."""
QUOTED_AXES = {
    ("7B", "GDPO"): dict(zip(AXES, (30.0, 11.1, 18.3, 47.0, 32.5), strict=True)),
    ("7B", "RVPO"): dict(zip(AXES, (33.3, 15.2, 21.2, 45.1, 30.1), strict=True)),
}
"""In percent; at which checkpoint is not known."""
QUOTED_K = {
    ("7B", "0"): ("0.198", "0.026"), ("7B", "0.5-2"): ("0.230", "0.204"), ("7B", "5"): ("0.241", "0.095"),
    ("7B", "hard-min"): ("not known", "0"),
}  # fmt: skip
QUOTED_BFCL = {
    ("1.5B", "GDPO"): 71.9, ("1.5B", "RVPO"): 71.9, ("3B", "GDPO"): 80.7, ("3B", "RVPO"): 80.4,
}  # fmt: skip
QUOTED_GPQA = "Quoted: on 198 questions every method of the paper lies inside +-6.5 points of the others."

SIZE = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?B)(?!\w)", re.IGNORECASE)
RISK = re.compile(r"(?<![^\W_])k\s*=?\s*(\d+(?:\.\d+)?)(?:\s*(?:->|-|to)\s*(\d+(?:\.\d+)?))?", re.IGNORECASE)


@dataclass(frozen=True)
class Run:
    """One training run on one benchmark."""

    name: str
    summaries: tuple[Summary, ...]
    """Of its checkpoints, the last step last; at least one, all of one benchmark."""
    records: tuple[Sequence[Record], ...] = ()
    """Of the same checkpoints; without them no tests are made."""

    @property
    def benchmark(self) -> str:
        """Name of the benchmark."""
        return str(self.summaries[0]["benchmark"])

    @property
    def final(self) -> Summary:
        """The last checkpoint."""
        return self.summaries[-1]

    @property
    def best(self) -> Summary:
        """The checkpoint with the highest headline score, the first of several; the last one if none has a score."""
        return best_checkpoint(self.summaries)

    @property
    def size(self) -> str:
        """Model size in the name, "" without."""
        size = SIZE.search(self.name)
        return size[1].upper() if size else ""

    @property
    def method(self) -> str:
        """The name without the size."""
        return " ".join(SIZE.sub(" ", self.name).split()).strip(" -_/") or self.name

    @property
    def key(self) -> tuple[str, str]:
        """Size and method as the quoted numbers have them: those of the paper's schedule, so without another k."""
        method = " ".join(RISK.sub(" ", self.method).split()).strip(" -_/").upper()
        return self.size, method if self.risk in ("", "0.5-2") or method == "GDPO" else self.method

    @property
    def risk(self) -> str:
        """k: "5", "0.5-2" (also of a plain RVPO: the paper's schedule), "0" for GDPO, "hard-min", or "" without."""
        risk = RISK.search(self.name)
        if risk:
            return "-".join(f"{float(end):g}" for end in risk.groups() if end is not None)
        plain = self.method.lower().replace("_", "-")
        return "hard-min" if "hard-min" in plain else {"gdpo": "0", "rvpo": "0.5-2"}.get(plain, "")


def tables(runs: Sequence[Run]) -> str:
    """Return Markdown: for each benchmark its tables, in the order in which the benchmarks occur."""
    parts = []
    for benchmark in dict.fromkeys(run.benchmark for run in runs):
        of_it: dict[str, list[Run]] = {}
        for run in runs:
            if run.benchmark == benchmark:
                of_it.setdefault(run.name, []).append(run)
        groups = list(of_it.values())
        parts.append(MAKERS.get(benchmark, _plain)(groups))
        if len(groups) > 1 and all(run.records for seeds in groups for run in seeds):
            parts.append(_tests(groups))
    return "\n".join(parts)


Seeds = list[Run]


def _healthbench(groups: Sequence[Seeds]) -> str:
    parts = [_heading("HealthBench"), _best_and_final(groups), _axes(groups)]
    if len({seeds[0].risk for seeds in groups if seeds[0].risk}) > 1:
        parts.append(_ablation(groups))
    return "\n".join([*parts, _missing(groups)])


def _best_and_final(groups: Sequence[Seeds]) -> str:
    heads = ["model", "method", "seeds", "best", "final", "unclipped best / final", "95 % of final (unclipped)"]
    rows, left = [], dict(QUOTED_HEALTHBENCH)
    for seeds in groups:
        quoted = left.pop(seeds[0].key, None)
        rows.append(
            [
                *_name(seeds),
                _mean(seeds, "best", _headline),
                _mean(seeds, "final", _headline),
                f"{_mean(seeds, 'best', rank)} / {_mean(seeds, 'final', rank)}",
                _interval(seeds),
                NOTHING if quoted is None else f"{quoted[0]:.3f} / {quoted[1]:.3f}",
            ]
        )
    sizes = {seeds[0].size for seeds in groups}
    for (size, method), (best, final) in left.items():
        if size in sizes or not sizes & {key[0] for key in QUOTED_HEALTHBENCH}:
            rows.append([size, method, *[NOTHING] * 5, f"{best:.3f} / {final:.3f}"])
    return markdown_table([*heads, "paper, best / final (quoted)"], rows)


def _axes(groups: Sequence[Seeds]) -> str:
    rows = []
    for seeds in groups:
        ours = [_mean(seeds, "best", _score(f"axis:{axis}"), percent=True) for axis in AXES]
        rows.append([*_name(seeds)[:2], "ours, best", *ours])
        quoted = QUOTED_AXES.get(seeds[0].key)
        if quoted:
            rows.append([*_name(seeds)[:2], "paper (quoted)", *(f"{quoted[axis]:.1f}" for axis in AXES)])
    heads = ["model", "method", "", *(axis.replace("_", " ") for axis in AXES)]
    return "By axis, in percent, official rule (the paper's checkpoint is not known):\n\n" + markdown_table(
        heads, rows
    )


def _ablation(groups: Sequence[Seeds]) -> str:
    rows, left = [], dict(QUOTED_K)
    for seeds in groups:
        if seeds[0].risk:
            quoted = left.pop((seeds[0].size, seeds[0].risk), None)
            both = [_mean(seeds, when, _headline) for when in ("best", "final")]
            rows.append([seeds[0].size or NOTHING, seeds[0].risk, *both, " / ".join(quoted) if quoted else NOTHING])
    rows += [[size, risk, NOTHING, NOTHING, " / ".join(quoted)] for (size, risk), quoted in left.items()]
    return "Ablation of k:\n\n" + markdown_table(["model", "k", "best", "final", "paper, best / final (quoted)"], rows)


def _gpqa(groups: Sequence[Seeds]) -> str:
    rows = []
    for seeds in groups:
        accuracy = [_mean(seeds, when, _headline, percent=True) for when in ("best", "final")]
        ends = _interval(seeds, percent=True)
        parsed = _mean(seeds, "final", _score("accuracy_of_parsed"), percent=True)
        unparsed = sum(run.final["unparsed"] for run in seeds)
        asked = sum(run.final["answers"]["asked"] for run in seeds)
        rows.append([*_name(seeds), *accuracy, ends, parsed, f"{unparsed} of {asked}"])
    heads = ["model", "method", "seeds", "best", "final", "95 % of final (Wilson)", "final, of parsed", "unparsed"]
    return "\n".join([_heading("GPQA"), markdown_table(heads, rows), QUOTED_GPQA, "", _missing(groups)])


def _bfcl(groups: Sequence[Seeds]) -> str:
    rows, left = [], dict(QUOTED_BFCL)
    for seeds in groups:
        quoted = left.pop(seeds[0].key, None)
        both = [_mean(seeds, when, _headline, percent=True) for when in ("best", "final")]
        rows.append([*_name(seeds), seeds[0].final["headline"], *both, NOTHING if quoted is None else f"{quoted:.1f}"])
    rows += [[size, method, *[NOTHING] * 4, f"{value:.1f}"] for (size, method), value in left.items()]
    heads = ["model", "method", "seeds", "aggregate", "best", "final", "paper (quoted; aggregate not known)"]
    return "\n".join([_heading("BFCL"), markdown_table(heads, rows), _bfcl_parts(groups), _missing(groups)])


def _bfcl_parts(groups: Sequence[Seeds]) -> str:
    """Return every aggregate and category of the final checkpoints, and which categories were not asked as a whole."""
    finals = [seeds[0].final for seeds in groups]
    names = dict.fromkeys(name for final in finals for name in final["shown"])
    rows = [[name, *(_mean(seeds, "final", _score(name), percent=True) for seeds in groups)] for name in names]
    short = [
        f"- {seeds[0].name}: {name} was asked {asked} of {of} cases; what it belongs to has no value"
        for seeds, final in zip(groups, finals, strict=True)
        for name, (asked, of) in final.get("not_run", {}).items()
    ]
    listed = markdown_table(["final, in percent", *(seeds[0].name for seeds in groups)], rows)
    return "\n".join([listed, *short, ""] if short else [listed])


def _plain(groups: Sequence[Seeds]) -> str:
    final = groups[0][0].final
    names = [name for name in final["shown"] if name != final["headline"]]
    rows = [
        [
            *_name(seeds),
            _mean(seeds, "best", _headline),
            _mean(seeds, "final", _headline),
            _interval(seeds),
            *(_mean(seeds, "final", _score(name)) for name in names),
        ]
        for seeds in groups
    ]
    heads = ["model", "method", "seeds", "best", "final", "95 % of final", *(f"final {name}" for name in names)]
    note = f"Best and final are {final['headline']}."
    return "\n".join([_heading(groups[0][0].benchmark), markdown_table(heads, rows), note, "", _missing(groups)])


MAKERS: dict[str, Callable[[Sequence[Seeds]], str]] = {"healthbench": _healthbench, "gpqa": _gpqa, "bfcl": _bfcl}


def _name(seeds: Seeds) -> list[str]:
    return [seeds[0].size or NOTHING, seeds[0].method, str(len(seeds))]


def _headline(summary: Summary) -> float | None:
    return _score(summary["headline"])(summary)


def _score(name: str) -> Callable[[Summary], float | None]:
    def value(summary: Summary) -> float | None:
        entry = summary["scores"].get(name)
        return None if entry is None else entry["value"]

    return value


def _mean(seeds: Seeds, when: str, value: Callable[[Summary], float | None], *, percent: bool = False) -> str:
    """Return the mean over seeds, and their lowest and highest where there are several."""
    values = [value(getattr(run, when)) for run in seeds]
    known = [score for score in values if score is not None]
    if not known:
        return NOTHING
    scale, digits = (100, 1) if percent else (1, 3)
    text = number(scale * sum(known) / len(known), digits)
    return text if len(known) == 1 else f"{text} ({span(scale * min(known), scale * max(known), digits)})"


def _interval(seeds: Seeds, *, percent: bool = False) -> str:
    """Return the interval over items of a single run; several seeds show their spread instead."""
    ends = seeds[0].final["scores"][seeds[0].final["headline"]]["interval"]
    if len(seeds) > 1 or ends is None:
        return NOTHING
    low, high = ends
    return span(100 * low, 100 * high, 1) if percent else span(low, high, 3)


def _tests(groups: Sequence[Seeds]) -> str:
    """Return paired tests of every name against the first one of its size, or against its GDPO if there is one."""
    lines, rows = [], []
    for size in dict.fromkeys(seeds[0].size for seeds in groups):
        of_size = [seeds for seeds in groups if seeds[0].size == size]
        baseline = next((seeds for seeds in of_size if seeds[0].key[1] == "GDPO"), of_size[0])
        ordered = [baseline, *(seeds for seeds in of_size if seeds is not baseline)]
        for when in ("best", "final") if len(ordered) > 1 else ():
            records = {seeds[0].name: [_records(run, when) for run in seeds] for seeds in ordered}
            try:
                comparisons = compare(records, str(baseline[0].final["item_score"]))
            except ConfigError as error:
                lines.append(f"- {when}, {size or 'no size in the name'}: not compared, {error}")
                continue
            rows += [[when, *cells(comparison)] for comparison in comparisons]
            lines += [f"- {when}: {text}" for text in cautions(comparisons)]
    if ("14B", "GDPO") in {seeds[0].key for seeds in groups}:
        lines.append("- quoted: at 14B the paper gives p < 0.001 for RVPO against GDPO")
    intro = "Paired tests over items, p-values by Holm within a size and checkpoint:\n"
    tests = markdown_table(["checkpoint", *heads(0.95)], rows)
    return "\n".join([intro, tests, *lines, ""]) if rows or lines else ""


def _records(run: Run, when: str) -> Sequence[Record]:
    chosen = getattr(run, when)
    return next(records for summary, records in zip(run.summaries, run.records, strict=True) if summary is chosen)


def _missing(groups: Sequence[Seeds]) -> str:
    """Return what is missing from the headline scores, run by run, and between which ends they lie with it."""
    lines = []
    for seeds in groups:
        for place, run in enumerate(seeds):
            seed = f", seed {place + 1}" if len(seeds) > 1 else ""
            for summary in [run.final] if run.best is run.final else [run.best, run.final]:
                entry = summary["scores"][summary["headline"]]
                if entry["missing"]:
                    low, high = entry["bounds"] or (math.nan, math.nan)
                    ends = "" if math.isnan(low) else f"; with them {span(low, high, 3)}"
                    of = entry["missing"] + entry["items"]
                    lines.append(f"- {run.name}{seed}, {summary['label']}: {entry['missing']} of {of} missing{ends}")
    return "Nothing is missing.\n" if not lines else "\n".join(["Missing, and what it could change:", "", *lines, ""])


def _heading(name: str) -> str:
    return f"## {name}\n"
