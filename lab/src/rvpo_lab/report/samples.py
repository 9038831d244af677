"""Held-out prompts with the first and last answers of every method, and the verdict on every criterion."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rvpo.text import NOTHING, number
from rvpo_lab.suite.cell_file import CellRecord
from rvpo_lab.tasks.task import FULL

__all__ = ["GradedCriterion", "SampledAnswer", "SampledPrompt", "sampled_prompts"]


@dataclass(frozen=True)
class GradedCriterion:
    """What an answer has of a criterion."""

    state: str
    """met, partly, unmet or none."""
    symbol: str
    text: str


@dataclass(frozen=True)
class SampledAnswer:
    """An answer of a policy to a held-out prompt."""

    method: str
    """Empty where the answers of all methods are the same."""
    when: str
    text: str
    verdicts: tuple[GradedCriterion, ...]
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
    answers: tuple[SampledAnswer, ...]


def verdict(value: float) -> GradedCriterion:
    """Return a criterion's value in [0, 1] in words; NaN is no verdict.

    >>> verdict(1.0).text, verdict(0.25).text, verdict(0.0).text
    ('met', '0.25', 'not met')
    """
    if math.isnan(value):
        return GradedCriterion("none", NOTHING, "no verdict")
    if value >= FULL:
        return GradedCriterion("met", "\N{CHECK MARK}", "met")
    if value <= 1 - FULL:
        return GradedCriterion("unmet", "\N{BALLOT X}", "not met")
    return GradedCriterion("partly", "\N{CIRCLE WITH LEFT HALF BLACK}", number(value))


def sampled_prompts(
    records: Sequence[CellRecord], methods: Sequence[str], describe: Callable[[str], str]
) -> list[SampledPrompt]:
    """Return the sampled prompts of one task and seed, with each method's first and last answer."""
    by_prompt: dict[str, list[tuple[CellRecord, int]]] = {}
    for record in sorted(records, key=lambda record: methods.index(record.about["contender"])):
        for index in dict.fromkeys(prompt for _, prompt, _ in record.samples):
            by_prompt.setdefault(record.prompts[index], []).append((record, index))
    return [_sampled(text, asked, describe) for text, asked in by_prompt.items()]


def _sampled(text: str, asked: Sequence[tuple[CellRecord, int]], describe: Callable[[str], str]) -> SampledPrompt:
    criteria = dict.fromkeys(
        criterion for record, index in asked for prompt, criterion in record.held_out if prompt == index
    )
    firsts, lasts = [], []
    for record, index in asked:
        answers = {step: answer for step, prompt, answer in record.samples if prompt == index}
        first, last = min(answers), max(answers)
        firsts.append(_answer(record, index, first, answers[first], list(criteria)))
        if last > first:
            lasts.append(_answer(record, index, last, answers[last], list(criteria)))
    same = len({(answer.when, answer.text, answer.verdicts) for answer in firsts}) == 1
    if same and len(firsts) > 1:
        firsts = [SampledAnswer("", firsts[0].when, firsts[0].text, firsts[0].verdicts)]
    return SampledPrompt(text, tuple(describe(criterion) for criterion in criteria), (*firsts, *lasts))


def _answer(record: CellRecord, index: int, step: int, text: str, criteria: Sequence[str]) -> SampledAnswer:
    """Return one answer with its verdicts, which are there if the step was evaluated."""
    at = record.steps.index(step) if step in record.steps else None
    values = [
        math.nan if at is None or (index, criterion) not in record.held_out else record.held_out[index, criterion][at]
        for criterion in criteria
    ]
    when = "before training" if step == 0 else f"after step {step}"
    return SampledAnswer(record.about["contender"], when, text, tuple(map(verdict, values)))
