"""Is one model better than another? Paired comparisons of results over the items that both have. Pure functions.

    comparisons = compare({"gdpo": [records_of_gdpo], "rvpo": [records_of_rvpo]}, "overall")
    comparisons[0].sentence  # "rvpo against gdpo: higher by 0.046 [0.015, 0.077], p = 0.004"

With one result per name the items are the units: the test says whether these two models differ on items like these,
and nothing about other training seeds. With several results per name (training seeds) the seed is the unit, a block
in `rvpo.stats.paired_test`: what holds then holds for further seeds, and with fewer than six of them no p-value
can fall below 0.05. The i-th result of one name is paired with the i-th of the other.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import Any

from rvpo.errors import ConfigError
from rvpo.evals.benchmark import Record
from rvpo.stats import PairedTest, holm, paired_test
from rvpo.text import number, p_value, signed

__all__ = [
    "PairedComparison",
    "UnitScore",
    "adjusted",
    "cautions",
    "cells",
    "compare",
    "heads",
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
class PairedComparison:
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
    part: str = ""
    """Which of the items are compared, "" for all."""

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
    def names(self) -> str:
        """Which model is compared with which, in words, and on what part of the items."""
        return f"{self.name} against {self.baseline}" + (f", {self.part}" if self.part else "")

    @property
    def sentence(self) -> str:
        """The outcome in words: "lower by" is followed by a positive size, so its interval turns round too."""
        test, verdict = self.test, self.verdict
        sign = -1 if verdict == "lower" else 1
        ends = sorted((sign * test.low, sign * test.high))
        interval = "" if math.isnan(test.low) else f" [{number(ends[0], 3)}, {number(ends[1], 3)}]"
        if verdict == "no difference shown":
            outcome = f"{verdict} ({signed(test.difference)}{interval})"
        else:
            outcome = f"{verdict} by {number(sign * test.difference, 3)}{interval}"
        p = p_value(self.adjusted_p)
        return f"{self.names}: {outcome}, p {p if p.startswith('<') else f'= {p}'}"

    @property
    def cautions(self) -> list[str]:
        """What a reader must know about the comparison, in sentences."""
        sentences = []
        if self.only_name or self.only_baseline:
            sentences.append(
                f"{self.only_name} items of {self.name} and {self.only_baseline} of {self.baseline} have no partner "
                "and were left out"
            )
        if self.test.dropped:
            sentences.append(f"{self.test.dropped} pairs were left out because a score is missing")
        if self.bounds is not None and self.test.dropped:
            low, high = self.bounds
            sentences.append(f"with what is missing the difference lies between {signed(low)} and {signed(high)}")
        if self.seeds == 1:
            sentences.append("one result per name: says nothing about other training seeds")
        elif self.seeds < 6:
            sentences.append(f"{self.seeds} seeds allow no p-value below {2 / 2**self.seeds:.3g}")
        return sentences


def unit_scores(records: Sequence[Record], score: str) -> dict[str, UnitScore]:
    """Return unit -> its score, repeats averaged; units whose records lack the score altogether are left out."""
    repeats: dict[str, list[tuple[float, float, float]]] = {}
    for record in records:
        if score in record["scores"]:
            value = record["scores"][score]
            unknown = record.get("bounds", {}).get(score, (math.nan, math.nan))
            low, high = unknown if value is None else (value, value)
            repeats.setdefault(record["unit"], []).append((math.nan if value is None else value, low, high))
    return {unit: _averaged(values) for unit, values in repeats.items()}


def _averaged(repeats: Sequence[tuple[float, float, float]]) -> UnitScore:
    known = [value for value, _, _ in repeats if not math.isnan(value)]
    low, high = (sum(repeat[end] for repeat in repeats) / len(repeats) for end in (1, 2))
    return UnitScore(sum(known) / len(known) if known else math.nan, low, high)


def compare(
    groups: Groups,
    score: str,
    *,
    all_pairs: bool = False,
    seed: int = 0,
    draws: int = 10_000,
    level: float = 0.95,
    part: str = "",
) -> list[PairedComparison]:
    """Compare names with the first one, or all with one another; p-values are Holm's over these comparisons.

    Args:
        groups: name -> the records of its results, one result per training seed.
        score: which of the records' scores.
        all_pairs: compare every pair of names, not only with the first.
        seed: of the random flips and draws.
        draws: number of both.
        level: coverage of the intervals; 1 - level is what adjusted p-values are held against.
        part: which items the records are of, in words.

    Raises:
        ConfigError: fewer than two names, a name without results, unequal numbers of results, no common item, or no
            record with that score.
    """
    if len(groups) < 2:
        raise ConfigError(f"a comparison needs at least two names, got {list(groups)}; give logs as NAME=LOG")
    counts = {name: len(results) for name, results in groups.items()}
    if len(set(counts.values())) > 1 or not all(counts.values()):
        raise ConfigError(f"seeds are paired in order, so every name needs equally many results, got {counts}")
    scored = {name: [unit_scores(records, score) for records in results] for name, results in groups.items()}
    for name, results in scored.items():
        if not all(results):
            known = sorted({key for records in groups[name] for record in records for key in record["scores"]})
            raise ConfigError(f"no item of {name} has a score {score!r}; there are {', '.join(known[:20])}")
    first, *others = groups
    pairs = list(combinations(groups, 2)) if all_pairs else [(first, name) for name in others]
    options = {"seed": seed, "draws": draws, "level": level}
    return adjusted(
        [replace(_compared(name, baseline, score, scored, options), part=part) for baseline, name in pairs]
    )


def adjusted(comparisons: Sequence[PairedComparison]) -> list[PairedComparison]:
    """Return comparisons with Holm's p-values over all of them, whatever they were adjusted over before."""
    values = holm([comparison.test.p_value for comparison in comparisons])
    return [replace(comparison, adjusted_p=float(p)) for comparison, p in zip(comparisons, values, strict=True)]


def _compared(
    name: str,
    baseline: str,
    score: str,
    scored: Mapping[str, Sequence[Mapping[str, UnitScore]]],
    options: Mapping[str, Any],
) -> PairedComparison:
    """Return one comparison, not yet adjusted."""
    pairs: list[tuple[int, UnitScore, UnitScore]] = []
    only_name = only_baseline = 0
    for seed, (mine, its) in enumerate(zip(scored[name], scored[baseline], strict=True)):
        common = [unit for unit in its if unit in mine]
        pairs += [(seed, mine[unit], its[unit]) for unit in common]
        only_name, only_baseline = only_name + len(mine) - len(common), only_baseline + len(its) - len(common)
    if not pairs:
        ours, theirs = (next(iter(scored[of][0])) for of in (name, baseline))
        raise ConfigError(
            f"{name} and {baseline} have no item in common; were they evaluated on the same data? "
            f"Items are named as {ours!r} in the one and as {theirs!r} in the other"
        )
    seeds = len(scored[name])
    test = paired_test(
        [mine.value for _, mine, _ in pairs],
        [its.value for _, _, its in pairs],
        blocks=[seed for seed, _, _ in pairs] if seeds > 1 else None,
        mid_p=seeds == 1,
        **options,
    )
    bounds = _bounds(pairs, seeds)
    return PairedComparison(name, baseline, score, test, test.p_value, only_name, only_baseline, seeds, bounds)


def _bounds(pairs: Sequence[tuple[int, UnitScore, UnitScore]], seeds: int) -> tuple[float, float] | None:
    """Return the lowest and highest mean difference; with several seeds the mean of the seeds' means."""
    ends = []
    for mine_end, its_end in (("low", "high"), ("high", "low")):
        means = []
        for seed in range(seeds):
            gaps = [getattr(mine, mine_end) - getattr(its, its_end) for of, mine, its in pairs if of == seed]
            means += [sum(gaps) / len(gaps)] if gaps else []
        ends.append(sum(means) / len(means))
    return None if any(map(math.isnan, ends)) else (ends[0], ends[1])


def to_json(comparisons: Sequence[PairedComparison]) -> list[dict[str, Any]]:
    """Return comparisons as JSON has them: None for what is no number."""
    rows = []
    for comparison in comparisons:
        row = asdict(comparison)
        test = row.pop("test").items()
        row |= {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in test}
        row |= {key: getattr(comparison, key) for key in ("verdict", "sentence", "cautions")}
        rows.append(row)
    return rows


def heads(level: float) -> list[str]:
    """Return the names of the columns of `cells`."""
    return ["", "difference", f"{100 * level:g} % interval", "p (Holm)", "p", "effect size", "items", "verdict"]


def cells(comparison: PairedComparison) -> list[str]:
    """Return a comparison as the cells of a table, in the order of `heads`; "" for what is not a number."""
    test = comparison.test
    return [
        comparison.names,
        signed(test.difference),
        "" if math.isnan(test.low) else f"{signed(test.low)} to {signed(test.high)}",
        p_value(comparison.adjusted_p),
        p_value(test.p_value),
        "" if math.isnan(test.effect_size) else f"{test.effect_size:+.2f}",  # may be infinite
        comparison.units,
        comparison.verdict,
    ]


def cautions(comparisons: Sequence[PairedComparison]) -> list[str]:
    """Return what a reader must know, each sentence once: with the names it belongs to, where it is not about all."""
    names: dict[str, list[str]] = {}
    for comparison in comparisons:
        for sentence in comparison.cautions:
            names.setdefault(sentence, []).append(comparison.names)
    return [text if len(of) == len(comparisons) else f"{', '.join(of)}: {text}" for text, of in names.items()]
