"""What is graded and what comes of it: items, votes and their majority, graded answers, one number for an answer.

Pure; a judge asks for them. `RuleJudge` is one without a network, for tests and for criteria that rules can decide.

A verdict that was lost is missing: never False, never 0, and never filled.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeAlias

from rvpo.errors import JudgeError, unknown_name
from rvpo.judging.criteria import Criterion, Rubric
from rvpo.judging.prompts import Conversation
from rvpo.judging.verdicts import Outcome, Vote
from rvpo.llm.limits import ENOUGH_TO_TELL, MOST_MISSING, too_many_missing
from rvpo.llm.model_text import TAGS, counted_answer

__all__ = [
    "CATEGORY_WEIGHTS",
    "Ballot",
    "Graded",
    "Grader",
    "Item",
    "MetById",
    "OnGraded",
    "RuleJudge",
    "Verdict",
    "category_weight",
    "check_missing",
    "explicit_score",
    "healthbench_bounds",
    "healthbench_score",
    "outcome_counts",
]

LOST = frozenset({Outcome.UNPARSED, Outcome.CUT, Outcome.REFUSED, Outcome.FAILED})
"""Outcomes without a verdict."""
INFLUENCED = LOST - {Outcome.FAILED}
"""Those that an answer can bring about, by what it makes the judge say."""

OnGraded = Callable[[int, int], None]
"""Called after each graded answer with how many are graded, and of how many."""


class Item(NamedTuple):
    """One answer to be graded."""

    prompt: Conversation
    answer: str
    rubric: Rubric


@dataclass(frozen=True)
class Verdict:
    """What became of one criterion of one answer."""

    met: bool | None
    """The majority of the votes; None if there is none, that is: no vote, or a tie after lost votes. Where lost
    verdicts count as the worst, that is here and the outcome still says that it was lost."""
    outcome: Outcome
    votes: tuple[bool | None, ...] = ()
    reason: str | None = None
    """What the judge gave as its reason in the first vote of the majority; None if it gave none, or met is None."""

    @property
    def is_lost(self) -> bool:
        """Whether the judge gave no verdict, whatever counts in its place."""
        return self.outcome in LOST


@dataclass
class Ballot:
    """The votes on one criterion, while they come in."""

    votes: list[Vote | None] = field(default_factory=list)
    """None: a vote that was lost."""
    lost: Outcome = Outcome.UNPARSED
    """Why the newest lost vote is missing."""

    def lose(self, why: Outcome) -> None:
        """Add a vote that is missing."""
        self.votes.append(None)
        self.lost = why

    def verdict(self) -> Verdict:
        """Return the majority of the votes that were not lost."""
        met = tuple(None if vote is None else vote.met for vote in self.votes)
        yes, no = met.count(True), met.count(False)
        if yes == no:
            return Verdict(None, self.lost, met)
        is_met = yes > no
        reasons = [vote.reason for vote in self.votes if vote is not None and vote.met == is_met]
        return Verdict(is_met, Outcome.MET if is_met else Outcome.UNMET, met, reasons[0])


@dataclass(frozen=True)
class Graded:
    """The verdicts on one answer."""

    rubric: Rubric
    verdicts: Mapping[str, Verdict]
    """By criterion id, in the rubric's order."""

    def met(self) -> dict[str, bool | None]:
        """Return id -> met."""
        return {name: verdict.met for name, verdict in self.verdicts.items()}

    def values(self) -> dict[str, float | None]:
        """Return channel name -> value, oriented so that higher is better; None is missing."""
        return {criterion.channel: criterion.value(self.verdicts[criterion.id].met) for criterion in self.rubric}

    def reasons(self) -> dict[str, str | None]:
        """Return channel name -> the judge's reason; None where it gave none."""
        return {criterion.channel: self.verdicts[criterion.id].reason for criterion in self.rubric}


@dataclass
class LossPattern:
    """Whether lost calls come together in the same answers, as they do where an answer brings the loss about.

    Of two calls about one answer both are lost with probability p squared if losses are chance, with a share p lost.
    """

    calls: int = 0
    lost: int = 0
    pairs: int = 0
    """Ordered pairs of calls about one answer."""
    lost_pairs: int = 0

    def add(self, lost: Sequence[bool]) -> None:
        """Count the calls about one answer."""
        number, missing = len(lost), sum(lost)
        self.calls, self.lost = self.calls + number, self.lost + missing
        self.pairs, self.lost_pairs = self.pairs + number * (number - 1), self.lost_pairs + missing * (missing - 1)

    @property
    def is_by_answer(self) -> bool:
        """Whether more than three times as many pairs are lost as by chance, of at least 20.

        >>> pattern = LossPattern()
        >>> for answer in range(100):
        ...     pattern.add([answer < 10] * 4)
        >>> pattern.lost_pairs, round(pattern.pairs * (pattern.lost / pattern.calls) ** 2), pattern.is_by_answer
        (120, 12, True)
        """
        expected = self.pairs * (self.lost / self.calls) ** 2 if self.calls else 0.0
        return self.lost_pairs >= ENOUGH_TO_TELL and self.lost_pairs > 3 * expected


class Grader(Protocol):
    """What a judge offers, whether it asks a server or applies rules."""

    counts: Counter[Outcome]
    thoughts: Counter[str]
    """See `rvpo.llm.model_text.counted_answer`."""

    async def grade_many(self, items: Sequence[Item], *, progress: OnGraded | None = None) -> list[Graded]:
        """Grade answers, in order."""
        ...

    async def close(self) -> None:
        """Give back what the running loop holds."""
        ...

    def summary(self) -> str:
        """Return counts and cost in one line."""
        ...


def check_missing(graded: Sequence[Graded], most: float, words: str = "") -> None:
    """Raise JudgeError if more than a share `most` of the verdicts is missing, of at least 20.

    `words` are what the error has of the server's first failure.
    """
    verdicts = [verdict for answer in graded for verdict in answer.verdicts.values()]
    lost = Counter(verdict.outcome for verdict in verdicts if verdict.is_lost)
    if too_many_missing(lost.total(), len(verdicts), most):
        raise JudgeError(
            f"{lost.total()} of {len(verdicts)} verdicts are missing ({outcome_counts(lost)}), more than "
            f"max_missing={most:g}{words}: training on the rest would not be what it seems; look at the server, then "
            "start again (the store has what was answered)"
        )


def outcome_counts(counts: Mapping[Outcome, int]) -> str:
    """Return the number of criteria of each outcome as text.

    >>> outcome_counts({Outcome.UNMET: 2, Outcome.MET: 3}), outcome_counts({})
    ('3 met, 2 unmet', 'nothing judged')
    """
    words = {Outcome.CUT: "cut at max_tokens"}
    parts = [f"{count} {words.get(outcome, outcome)}" for outcome, count in sorted(counts.items())]
    return ", ".join(parts) or "nothing judged"


MetById: TypeAlias = Mapping[str, bool | None]
"""Whether a criterion is met, by its id; an absent id means the same as None, no verdict."""

CATEGORY_WEIGHTS = {"essential": 1.0, "important": 0.7, "optional": 0.3, "pitfall": 0.9}
"""Weights of RaR's explicit aggregation (arXiv 2507.17746) by the category, which is a tag of the criterion."""
ESSENTIAL_POINTS, IMPORTANT_POINTS = 5.0, 3.0
"""Points from which on a criterion counts as essential or important, as RaR's generation prompt gives them out."""


def category_weight(criterion: Criterion) -> float:
    """Return RaR's weight of a criterion: that of its category tag, otherwise that of its points.

    Points are read as RaR's generation prompt gives them out: 5 and more essential, 3 and 4 important, below that
    optional, negative a pitfall; 0 weighs nothing.
    """
    for tag in criterion.tags:
        if tag in CATEGORY_WEIGHTS:
            return CATEGORY_WEIGHTS[tag]
    points = criterion.points
    if points <= 0:
        return CATEGORY_WEIGHTS["pitfall"] if points < 0 else 0.0
    category = "essential" if points >= ESSENTIAL_POINTS else "important" if points >= IMPORTANT_POINTS else "optional"
    return CATEGORY_WEIGHTS[category]


def explicit_score(rubric: Rubric, met: MetById) -> float | None:
    """RaR's explicit aggregation `sum w c / sum w` in [0, 1] (arXiv 2507.17746), None if no verdict is known.

    w is `category_weight`, c the verdict oriented so that higher is better. The paper does not say what becomes of
    a missing verdict: here it leaves numerator and denominator, so that the score is that of the criteria known.
    Raises ConfigError for a verdict on a criterion that the rubric does not have.

    >>> rubric = Rubric((Criterion("a", "", tags=("essential",)), Criterion("b", "", -1, "negative", ("pitfall",))))
    >>> explicit_score(rubric, {"a": True, "b": True}), explicit_score(rubric, {"a": True, "b": None})
    (0.5263157894736842, 1.0)
    """
    _check_ids(rubric, met)
    pairs = [(category_weight(criterion), criterion.value(met.get(criterion.id))) for criterion in rubric]
    known = [(weight, value) for weight, value in pairs if value is not None]
    total = math.fsum(weight for weight, _ in known)
    return math.fsum(weight * value for weight, value in known) / total if total > 0 else None


def healthbench_score(rubric: Rubric, met: MetById) -> float | None:
    """HealthBench's score of one answer: points of the criteria met / sum of the positive points, not clipped.

    May be negative. None if there are no positive points or a verdict is missing; `healthbench_bounds` tells how
    far the missing ones reach. The rule reads points, not polarity: it needs points that are negative where being
    met is bad, as HealthBench's are (arXiv 2505.08775). Raises ConfigError for a verdict on an unknown criterion.
    """
    bounds = healthbench_bounds(rubric, met)
    complete = all(met.get(criterion.id) is not None for criterion in rubric)
    return bounds[0] if bounds is not None and complete else None


def healthbench_bounds(rubric: Rubric, met: MetById) -> tuple[float, float] | None:
    """Return the lowest and the highest `healthbench_score` that the missing verdicts could still produce.

    Equal without missing verdicts; None if there are no positive points. Raises as `healthbench_score`.
    """
    _check_ids(rubric, met)
    for criterion in rubric:
        criterion.value(met.get(criterion.id))  # refuses what is no verdict
    positive = math.fsum(max(criterion.points, 0.0) for criterion in rubric)
    if positive <= 0:
        return None
    known = [criterion.points for criterion in rubric if met.get(criterion.id)]
    open_points = [criterion.points for criterion in rubric if met.get(criterion.id) is None]
    lowest = math.fsum([*known, *(min(points, 0.0) for points in open_points)])
    highest = math.fsum([*known, *(max(points, 0.0) for points in open_points)])
    return lowest / positive, highest / positive


def _check_ids(rubric: Rubric, met: MetById) -> None:
    known = {criterion.id for criterion in rubric}
    for name in met:
        if name not in known:
            raise unknown_name("criterion", name, known)


class RuleJudge:
    """A judge that asks nobody: `rule(prompt, answer, criterion)` gives True, False or None (no verdict).

    A rule sees an answer without its thoughts, which begin and end as `thoughts` says; with {} it sees them too.
    """

    def __init__(
        self,
        rule: Callable[[Conversation, str, Criterion], bool | None],
        *,
        max_missing: float = MOST_MISSING,
        thoughts: Mapping[str, str] = TAGS,
    ) -> None:
        self.rule = rule
        self.max_missing = max_missing
        self.tags = thoughts
        self.counts: Counter[Outcome] = Counter()
        self.thoughts = Counter[str]()

    async def grade(self, prompt: Conversation, answer: str, rubric: Rubric) -> Graded:
        """Grade one answer."""
        return (await self.grade_many([Item(prompt, answer, rubric)]))[0]

    async def grade_many(self, items: Sequence[Item], *, progress: OnGraded | None = None) -> list[Graded]:
        """Grade answers one after the other; see `rvpo.judging.judge.Judge.grade_many`."""
        graded = []
        for item in items:
            verdicts, answer = {}, counted_answer(item.answer, self.thoughts, self.tags)
            for criterion in item.rubric:
                met = self.rule(item.prompt, answer, criterion)
                verdicts[criterion.id] = Ballot([None if met is None else Vote(met)]).verdict()
            self.counts.update(verdict.outcome for verdict in verdicts.values())
            graded.append(Graded(item.rubric, verdicts))
            if progress is not None:
                progress(len(graded), len(items))
        check_missing(graded, self.max_missing)
        return graded

    async def close(self) -> None:
        """Do nothing: rules hold no connections."""

    def summary(self) -> str:
        """Return the counts in one line."""
        return outcome_counts(self.counts)
