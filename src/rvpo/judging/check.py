"""What a person should look at before anybody is judged: rubrics that look wrong, and how far a judge can be trusted.

Of a rubric: texts and polarities. Of a judge: agreement with itself, with itself in chunks, and what it makes of bad
answers; these are pure functions of verdicts, which `rvpo judge check` asks for.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, NamedTuple

from rvpo.judging.criteria import Criterion, Polarity, Rubric

__all__ = [
    "PROBES",
    "Agreement",
    "Probe",
    "RubricProblem",
    "agreement",
    "judge_calls",
    "plain_text",
    "reliability",
    "rubric_problems",
    "suspicious_polarity",
    "wording",
]


class RubricProblem(NamedTuple):
    """Something about a rubric that a person should look at."""

    kind: Literal["duplicate_text", "empty_text", "suspicious_polarity"]
    ids: tuple[str, ...]
    """The criteria concerned, in their order."""
    reason: str
    """What is wrong, in words that repeat no text of the data."""


def rubric_problems(rubric: Rubric) -> list[RubricProblem]:
    """Return what a person should look at: texts that are empty or occur twice, and suspicious polarities.

    Texts are compared without case and white space. Nothing is changed.
    """
    problems = []
    ids_of_text: dict[str, list[str]] = {}
    for criterion in rubric:
        ids_of_text.setdefault(plain_text(criterion.text), []).append(criterion.id)
        reason = suspicious_polarity(criterion)
        if reason:
            problems.append(RubricProblem("suspicious_polarity", (criterion.id,), reason))
    for text, ids in ids_of_text.items():
        if not text:
            problems.append(RubricProblem("empty_text", tuple(ids), "there is nothing to judge"))
        elif len(ids) > 1:
            reason = "the same text, so it counts more than once"
            problems.append(RubricProblem("duplicate_text", tuple(ids), reason))
    return problems


def plain_text(text: str) -> str:
    """Return a text as it is compared with others: without case and without differences in white space."""
    return " ".join(text.split()).casefold()


# An optional subject, as in "The response fails to ..."; then the wording decides. Anchored at the beginning:
# "explains that the label wrongly says ..." speaks of a fault that is not the answer's.
_SUBJECT = (
    r"^\W*(?:(?:the|this|an?|any|its?)\s+)?(?:(?:final|model'?s?|assistant'?s?)\s+)?"
    r"(?:(?:response|answer|explanation|solution|report|analysis|model|assistant|text|output|it)s?\s+)?"
)
_WRONGLY = r"(?:(?:in(?:c?or+ect|accurate|appropriate)|wrong|false|erroneous|mistaken|improper|misleading)ly)"
_BLUNDER = (
    r"(?:mis(?:identif|interpret|represent|stat|lead|attribut|diagnos|classif|tak|understand|characteri)\w*"
    r"|confus\w+|conflat\w+|contradict\w*|fabricat\w+|hallucinat\w+|invent\w*|overstat\w+|understat\w+|exaggerat\w+"
    r"|downplay\w*|omit\w*|overlook\w*|ignor\w+|neglect\w*|forget\w*|fail(?:s|ed|ing|ure)?\s+to)"
)
_STATE = (
    r"(?:mention|state|include|identify|address|note|specify|list|provide|discuss|explain|describe|acknowledge"
    r"|consider|clarify|recogni[sz]e|cite|define|give|name|offer|emphasi[sz]e|highlight|ask|seek|inform|indicate"
    r"|differentiate|distinguish|account|contain|present|reference|cover|warn|caution|follow|answer|meet)"
)
_AVOIDED = re.compile(
    _SUBJECT + r"(?:avoid(?:s|ed|ing)?|refrains?|never|do\s+not"
    r"|(?:must|should|shall)\s+(?:also\s+)?(?:not|never|avoid|refrain|steer)"
    rf"|(?:does|did)(?:\s+not|n\W?t)\s+(?:{_WRONGLY}|{_BLUNDER})"
    r"|(?:warn|caution)s?\s+against|(?:is|are|stays?|remains?)\s+free\s+(?:of|from))\b",
    re.IGNORECASE,
)
_FAULT = re.compile(
    _SUBJECT + r"(?:(?:may|might|could|would)\s+)?(?:\w+ly\s+(?:but\s+)?)?"
    rf"(?:(?:do|does|did)(?:\s+not|n\W?t)\s+(?:\w+ly\s+)?{_STATE}|{_WRONGLY}|{_BLUNDER}"
    r"|miss(?:es|ed|ing)?|lack(?:s|ed|ing)?)\b",
    re.IGNORECASE,
)


def wording(text: str) -> Polarity | None:
    """Return the polarity that a criterion's wording suggests, None where it suggests none.

    "positive": a prohibition or its observance ("avoids X", "must not X", "does not wrongly X"), which is good to
    meet. "negative": a fault of the answer ("fails to X", "omits X", "does not mention X", "incorrectly X").
    Only the beginning is read, in English, and no sense is made of X: "does not mention that X may be ignored"
    may be either, "does not recommend X" is left undecided because X may be good or bad.

    >>> wording("The response should not omit the unit"), wording("Omits the unit"), wording("States the unit")
    ('positive', 'negative', None)
    """
    if _AVOIDED.match(text):
        return "positive"
    return "negative" if _FAULT.match(text) else None


def suspicious_polarity(criterion: Criterion) -> str | None:
    """Return why the polarity may be the wrong way round, or None if nothing speaks against it.

    The wording is asked first (`wording`, whose limits hold here), then the sign of the points. A finding is a
    reason to look, not an error: a rubric may want a bad answer described, or reward what reads as a fault.
    """
    counts = "good" if criterion.polarity == "positive" else "bad"
    suggested = wording(criterion.text)
    if suggested is not None:
        reading = "something to avoid" if suggested == "positive" else "a fault"
        return None if suggested == criterion.polarity else f"reads as {reading}, but being met counts as {counts}"
    if criterion.points == 0 or (criterion.points > 0) == (criterion.polarity == "positive"):
        return None
    return f"has {'positive' if criterion.points > 0 else 'negative'} points, but being met counts as {counts}"


PROBES = (" ", ":", ".", "Thought process:", "Let's solve this step by step.", "I cannot help with that.")
"""Answers without content; weak judges find criteria met in them."""


@dataclass(frozen=True)
class Agreement:
    """How often two verdicts on the same criterion of the same answer are alike."""

    pairs: int
    """Pairs of verdicts that could be compared."""
    lost: int
    """Verdicts that were missing."""
    share: float
    """Share of the pairs that agree, in [0, 1]; NaN without a pair."""

    @property
    def reliability(self) -> float:
        """See `reliability`."""
        return reliability(self.share)


def agreement(votes: Iterable[Sequence[bool | None]]) -> Agreement:
    """Compare the verdicts on each criterion with one another, pair by pair.

    >>> agreement([(True, True, False), (None, True, True)])
    Agreement(pairs=4, lost=1, share=0.5)
    """
    alike = pairs = lost = 0
    for criterion_votes in votes:
        known = [vote for vote in criterion_votes if vote is not None]
        lost += len(criterion_votes) - len(known)
        for first, second in combinations(known, 2):
            pairs += 1
            alike += first == second
    return Agreement(pairs, lost, alike / pairs if pairs else math.nan)


def reliability(share: float) -> float:
    """Return `1 - 2 e` for a judge that flips each verdict with probability e, from its agreement with itself.

    Two such verdicts agree with probability `a = 1 - 2 e (1 - e)`, so `1 - 2 e = sqrt(2 a - 1)`: 1 for a judge that
    never flips, 0 (also for a < 1/2) for one that tosses a coin, NaN for NaN. It is the correlation between verdict
    and truth of a criterion met by half of the answers, and can be given to `compute_advantages` as a channel's
    weight. A judge that is wrong in the same way every time agrees with itself: this says nothing of bias.

        >>> round(reliability(0.905), 3)  # 5 % flips
        0.9
    """
    return math.nan if math.isnan(share) else math.sqrt(max(2 * share - 1, 0.0))


@dataclass(frozen=True)
class Probe:
    """What the judge made of an answer without content."""

    answer: str
    good: int
    """Criteria counted as good although nothing was said; pitfalls, which silence avoids, are left out."""
    judged: int

    @property
    def share(self) -> float:
        """Share of the verdicts that are too kind; NaN without any."""
        return self.good / self.judged if self.judged else math.nan


def judge_calls(
    criteria_per_prompt: float,
    *,
    steps: int,
    prompts_per_step: int,
    rollouts: int,
    criteria_per_call: int,
    repeats: int,
) -> Mapping[str, float]:
    """Return how many `verdicts` and `calls` a training run needs, before any reply is unreadable or stored.

    >>> judge_calls(11, steps=100, prompts_per_step=16, rollouts=16, criteria_per_call=4, repeats=1)
    {'verdicts': 281600, 'calls': 76800}
    """
    answers = steps * prompts_per_step * rollouts
    verdicts = round(answers * criteria_per_prompt * repeats)
    calls = answers * math.ceil(criteria_per_prompt / criteria_per_call) * repeats
    return {"verdicts": verdicts, "calls": calls}
