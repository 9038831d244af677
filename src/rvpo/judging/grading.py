"""What is graded and what comes of it: items, votes and their majority, graded answers. Pure; a judge asks for them.

A verdict that was lost is missing: never False, never 0.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from rvpo.errors import JudgeError
from rvpo.judging.criteria import Rubric
from rvpo.judging.prompts import Conversation
from rvpo.judging.verdicts import Outcome, Vote
from rvpo.llm.limits import ENOUGH_TO_TELL, too_many_missing

__all__ = ["Ballot", "Graded", "Grader", "Item", "OnGraded", "Verdict", "check_missing", "outcome_counts"]

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
    """See `rvpo.llm.thoughts.counted_answer`."""

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
