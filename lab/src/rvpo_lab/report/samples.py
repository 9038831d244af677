"""Held-out prompts with the first and last answers of every method, and the verdict on every criterion."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rvpo.report.words import number
from rvpo_lab.suite.cell_file import CellRecord

__all__ = ["Answer", "SampledPrompt", "Verdict", "sampled_prompts"]

FULL = 1 - 1e-6


@dataclass(frozen=True)
class Verdict:
    """What an answer has of a criterion."""

    state: str
    """met, partly, unmet or none."""
    symbol: str
    text: str


@dataclass(frozen=True)
class Answer:
    """What a policy said."""

    method: str
    """Empty where all methods said the same."""
    when: str
    text: str
    verdicts: tuple[Verdict, ...]
    """In the order of the prompt's criteria."""

    @property
    def met(self) -> int:
        """How many criteria have their full value."""
        return sum(verdict.state == "met" for verdict in self.verdicts)


@dataclass(frozen=True)
class SampledPrompt:
    """A prompt, what is asked of an answer, and the answers."""

    text: str
    criteria: tuple[str, ...]
    answers: tuple[Answer, ...]


def verdict(value: float) -> Verdict:
    """Return a criterion's value in [0, 1] in words; NaN is no verdict.

    >>> verdict(1.0).text, verdict(0.25).text, verdict(0.0).text
    ('met', '0.25', 'not met')
    """
    if math.isnan(value):
        return Verdict("none", "\N{EN DASH}", "no verdict")
    if value >= FULL:
        return Verdict("met", "\N{CHECK MARK}", "met")
    if value <= 1 - FULL:
        return Verdict("unmet", "\N{BALLOT X}", "not met")
    return Verdict("partly", "\N{CIRCLE WITH LEFT HALF BLACK}", number(value))


def sampled_prompts(
    records: Sequence[CellRecord], methods: Sequence[str], describe: Callable[[str], str]
) -> list[SampledPrompt]:
    """Return the sampled prompts of one task and seed, with each method's first and last answer."""
    by_prompt: dict[str, list[tuple[CellRecord, int]]] = {}
    for record in sorted(records, key=lambda one: methods.index(one.about["contender"])):
        for index in dict.fromkeys(prompt for _, prompt, _ in record.samples):
            by_prompt.setdefault(record.prompts[index], []).append((record, index))
    return [_sampled(text, asked, describe) for text, asked in by_prompt.items()]


def _sampled(text: str, asked: Sequence[tuple[CellRecord, int]], describe: Callable[[str], str]) -> SampledPrompt:
    criteria = dict.fromkeys(
        criterion for record, index in asked for prompt, criterion in record.held_out if prompt == index
    )
    firsts, lasts = [], []
    for record, index in asked:
        said = {step: answer for step, prompt, answer in record.samples if prompt == index}
        first, last = min(said), max(said)
        firsts.append(_answer(record, index, first, said[first], list(criteria)))
        if last > first:
            lasts.append(_answer(record, index, last, said[last], list(criteria)))
    same = len({(one.when, one.text, one.verdicts) for one in firsts}) == 1
    if same and len(firsts) > 1:
        firsts = [Answer("", firsts[0].when, firsts[0].text, firsts[0].verdicts)]
    return SampledPrompt(text, tuple(describe(criterion) for criterion in criteria), (*firsts, *lasts))


def _answer(record: CellRecord, index: int, step: int, text: str, criteria: Sequence[str]) -> Answer:
    """Return one answer with its verdicts, which are there if the step was evaluated."""
    at = record.steps.index(step) if step in record.steps else None
    values = [
        math.nan if at is None or (index, criterion) not in record.held_out else record.held_out[index, criterion][at]
        for criterion in criteria
    ]
    when = "before training" if step == 0 else f"after step {step}"
    return Answer(record.about["contender"], when, text, tuple(map(verdict, values)))
