"""Is one model better than another? Paired comparisons of results over the items that both have. Pure functions.

    found = compare({"gdpo": [records_of_gdpo], "rvpo": [records_of_rvpo]}, "overall")
    found[0].sentence  # "rvpo against gdpo: higher by 0.046 [0.015, 0.077], p = 0.004"

With one result per name the items are the units: the test says whether these two models differ on items like these,
and nothing about other training seeds. With several results per name (training seeds) the seed is the unit, a block
in `rvpo.stats.paired_test`: what holds then holds for further seeds, and with fewer than six of them no p-value
can fall below 0.05. The i-th result of one name is paired with the i-th of the other.
"""

import html
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

from rvpo.errors import ConfigError
from rvpo.evals.run import Record
from rvpo.stats import PairedTest, holm, paired_test

__all__ = [
    "Comparison",
    "UnitScore",
    "cautions",
    "cells",
    "compare",
    "heads",
    "into_page",
    "page",
    "section",
    "to_json",
    "unit_scores",
]

Groups = Mapping[str, Sequence[Sequence[Record]]]


@dataclass(frozen=True)
class UnitScore:
    """What one model has on one item."""

    value: float
    """Mean over the repeats that are not missing; NaN without any."""
    low: float
    """Lowest mean over all repeats that the missing ones could still produce; NaN where that is not known."""
    high: float


@dataclass(frozen=True)
class Comparison:
    """Two names compared: is `name` better than `baseline`?"""

    name: str
    baseline: str
    score: str
    test: PairedTest
    """Its `difference` is name - baseline."""
    adjusted_p: float
    """Holm's, over all comparisons made together."""
    only_name: int
    """Items, over all seeds, that the baseline lacks; not compared."""
    only_baseline: int
    seeds: int
    """Results per name."""
    bounds: tuple[float, float] | None
    """Lowest and highest difference over the common items that missing verdicts could still produce; None where
    that is not known."""

    @property
    def verdict(self) -> str:
        """ "higher", "lower" or "no difference shown", by the adjusted p-value."""
        if self.adjusted_p > 1 - self.test.level or self.test.difference == 0:
            return "no difference shown"
        return "higher" if self.test.difference > 0 else "lower"

    @property
    def units(self) -> str:
        """What the test counts, in words."""
        pairs, blocks = self.test.pairs, self.test.blocks
        return f"{pairs} items in {blocks} seeds" if self.seeds > 1 else f"{pairs} items"

    @property
    def sentence(self) -> str:
        """The outcome in words."""
        test, verdict = self.test, self.verdict
        if verdict == "lower":  # told as a positive size, so the interval turns round with it
            size, ends = -test.difference, (-test.high, -test.low)
        else:
            size, ends = test.difference, (test.low, test.high)
        told = "" if math.isnan(test.low) else f" [{ends[0]:.3f}, {ends[1]:.3f}]"
        said = f"{verdict} by {size:.3f}{told}" if verdict in ("higher", "lower") else f"{verdict} ({size:+.3f}{told})"
        return f"{self.name} against {self.baseline}: {said}, {p_text(self.adjusted_p)}"

    @property
    def cautions(self) -> list[str]:
        """What a reader must know about the comparison, in sentences."""
        said = []
        if self.only_name or self.only_baseline:
            said.append(
                f"{self.only_name} items of {self.name} and {self.only_baseline} of {self.baseline} have no partner "
                "and were left out"
            )
        if self.test.dropped:
            said.append(f"{self.test.dropped} pairs were left out because a score is missing")
        if self.bounds is not None and self.test.dropped:
            low, high = self.bounds
            said.append(f"with what is missing the difference lies between {low:+.3f} and {high:+.3f}")
        if self.seeds == 1:
            said.append("one result per name: says nothing about other training seeds")
        elif self.seeds < 6:
            said.append(f"{self.seeds} seeds allow no p-value below {2 / 2**self.seeds:.3g}")
        return said


def p_text(value: float) -> str:
    """Return a p-value as a sentence has it.

    >>> p_text(0.0004), p_text(0.25)
    ('p < 0.001', 'p = 0.250')
    """
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def unit_scores(records: Sequence[Record], score: str) -> dict[str, UnitScore]:
    """Return unit -> its score, repeats averaged; units whose records lack the score altogether are left out."""
    found: dict[str, list[tuple[float, float, float]]] = {}
    for one in records:
        if score in one["scores"]:
            value = one["scores"][score]
            low, high = (value, value) if value is not None else one.get("bounds", {}).get(score, (math.nan, math.nan))
            found.setdefault(one["unit"], []).append((math.nan if value is None else value, low, high))
    return {unit: _averaged(repeats) for unit, repeats in found.items()}


def _averaged(repeats: Sequence[tuple[float, float, float]]) -> UnitScore:
    known = [value for value, _, _ in repeats if not math.isnan(value)]
    low, high = (sum(one[at] for one in repeats) / len(repeats) for at in (1, 2))
    return UnitScore(sum(known) / len(known) if known else math.nan, low, high)


def compare(
    groups: Groups,
    score: str,
    *,
    all_pairs: bool = False,
    seed: int = 0,
    draws: int = 10_000,
    level: float = 0.95,
) -> list[Comparison]:
    """Compare names with the first one, or all with one another; p-values are Holm's over these comparisons.

    Args:
        groups: name -> the records of its results, one result per training seed.
        score: which of the records' scores.
        all_pairs: compare every pair of names, not only with the first.
        seed: of the random flips and draws.
        draws: number of both.
        level: coverage of the intervals; 1 - level is what adjusted p-values are held against.

    Raises:
        ConfigError: fewer than two names, a name without results, unequal numbers of results, no common item, or no
            record with that score.
    """
    if len(groups) < 2:
        raise ConfigError(f"a comparison needs at least two names, got {list(groups)}; give results as NAME=FOLDER")
    counts = {name: len(results) for name, results in groups.items()}
    if len(set(counts.values())) > 1 or not all(counts.values()):
        raise ConfigError(f"seeds are paired in order, so every name needs equally many results, got {counts}")
    scored = {name: [unit_scores(records, score) for records in results] for name, results in groups.items()}
    for name, results in scored.items():
        if not all(results):
            known = sorted({key for records in groups[name] for one in records for key in one["scores"]})
            raise ConfigError(f"no item of {name} has a score {score!r}; there are {', '.join(known[:20])}")
    names = list(groups)
    wanted = list(combinations(names, 2)) if all_pairs else [(names[0], name) for name in names[1:]]
    options = {"seed": seed, "draws": draws, "level": level}
    made = [_compared(name, baseline, score, scored, options) for baseline, name in wanted]
    adjusted = holm([one.test.p_value for one in made])
    return [Comparison(**(vars(one) | {"adjusted_p": float(p)})) for one, p in zip(made, adjusted, strict=True)]


def _compared(
    name: str,
    baseline: str,
    score: str,
    scored: Mapping[str, Sequence[Mapping[str, UnitScore]]],
    options: Mapping[str, Any],
) -> Comparison:
    """Return one comparison, not yet adjusted."""
    pairs: list[tuple[int, UnitScore, UnitScore]] = []
    only_name = only_baseline = 0
    for place, (mine, its) in enumerate(zip(scored[name], scored[baseline], strict=True)):
        common = [unit for unit in its if unit in mine]
        pairs += [(place, mine[unit], its[unit]) for unit in common]
        only_name, only_baseline = only_name + len(mine) - len(common), only_baseline + len(its) - len(common)
    if not pairs:
        raise ConfigError(f"{name} and {baseline} have no item in common; were they evaluated on the same data?")
    seeds = len(scored[name])
    test = paired_test(
        [mine.value for _, mine, _ in pairs],
        [its.value for _, _, its in pairs],
        blocks=[place for place, _, _ in pairs] if seeds > 1 else None,
        **options,
    )
    return Comparison(
        name, baseline, score, test, test.p_value, only_name, only_baseline, seeds, _bounds(pairs, seeds)
    )


def _bounds(pairs: Sequence[tuple[int, UnitScore, UnitScore]], seeds: int) -> tuple[float, float] | None:
    """Return the lowest and highest mean difference; with several seeds the mean of the seeds' means."""
    ends = []
    for first, second in (("low", "high"), ("high", "low")):
        means = []
        for seed in range(seeds):
            gaps = [getattr(mine, first) - getattr(its, second) for place, mine, its in pairs if place == seed]
            means += [sum(gaps) / len(gaps)] if gaps else []
        ends.append(sum(means) / len(means))
    return None if any(map(math.isnan, ends)) else (ends[0], ends[1])


def to_json(comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
    """Return comparisons as JSON has them: None for what is no number."""
    return [
        {
            **{key: value for key, value in asdict(one).items() if key != "test"},
            **{key: value if _is_finite(value) else None for key, value in asdict(one.test).items()},
            "verdict": one.verdict,
            "sentence": one.sentence,
            "cautions": one.cautions,
        }
        for one in comparisons
    ]


def _is_finite(value: object) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


HEADS = ("", "difference", "95 % interval", "p (Holm)", "p", "effect size", "items", "verdict")
PAGE = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>{title}</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<style>
:root {{ color-scheme: light dark; }}
body {{ margin: 0 auto; max-width: 62rem; padding: 1rem; font: 1rem/1.5 system-ui, sans-serif; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ text-align: left; padding: .3rem .9rem .3rem 0; border-bottom: 1px solid #8888; }}
</style></head>
<body>
{section}</body>
</html>
"""


def cells(one: Comparison) -> list[str]:
    """Return a comparison as the cells of a table, in the order of HEADS."""
    test = one.test
    return [
        f"{one.name} against {one.baseline}",
        f"{test.difference:+.3f}",
        "" if math.isnan(test.low) else f"{test.low:+.3f} to {test.high:+.3f}",
        p_text(one.adjusted_p).removeprefix("p ").removeprefix("= "),
        p_text(test.p_value).removeprefix("p ").removeprefix("= "),
        "" if math.isnan(test.effect_size) else f"{test.effect_size:+.2f}",
        one.units,
        one.verdict,
    ]


def heads(level: float) -> list[str]:
    """Return the names of the columns."""
    return [head.replace("95", f"{100 * level:g}") for head in HEADS]


def section(comparisons: Sequence[Comparison], *, title: str, notes: Sequence[str] = ()) -> str:
    """Return an HTML section: a table, and the cautions below. Texts are escaped; the page's styles hold."""
    head = "".join(f"<th>{html.escape(one)}</th>" for one in heads(comparisons[0].test.level))
    rows = "".join(
        "<tr>" + "".join(f"<td>{html.escape(text)}</td>" for text in cells(one)) + "</tr>\n" for one in comparisons
    )
    listed = "".join(f"<li>{html.escape(text)}.</li>\n" for text in [*notes, *cautions(comparisons)])
    return (
        f'<section class="comparison">\n<h2>{html.escape(title)}</h2>\n<div class="wide"><table class="words">\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table></div>\n<ul>\n{listed}</ul>\n</section>\n"
    )


def cautions(comparisons: Sequence[Comparison]) -> list[str]:
    """Return what a reader must know, each sentence once: with the names it belongs to, where it is not about all."""
    held: dict[str, list[str]] = {}
    for one in comparisons:
        for text in one.cautions:
            held.setdefault(text, []).append(f"{one.name} against {one.baseline}")
    return [text if len(of) == len(comparisons) else f"{', '.join(of)}: {text}" for text, of in held.items()]


def page(body: str, title: str) -> str:
    """Return a page of its own with a section."""
    return PAGE.format(title=html.escape(title), section=body)


def into_page(page: str, body: str) -> str:
    """Return a page, such as a report's, with a section at its end; an earlier one of the same heading is replaced.

    Raises ConfigError if it is no whole page.
    """
    heading = body.partition("</h2>")[0]
    page = re.sub(re.escape(heading) + "</h2>.*?</section>\n", "", page, flags=re.DOTALL)
    before, end, after = page.rpartition("</main>" if "</main>" in page else "</body>")
    if not end:
        raise ConfigError("a section goes before the </body> of a page, and there is none")
    return f"{before}{body}{end}{after}"
