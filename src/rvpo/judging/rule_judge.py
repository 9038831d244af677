"""A judge without a network, for tests and for criteria that rules can decide."""

from collections import Counter
from collections.abc import Callable, Sequence

from rvpo.judging.criteria import Criterion, Rubric
from rvpo.judging.grading import Ballot, Graded, Item, OnGraded, check_missing, outcome_counts
from rvpo.judging.prompts import Conversation
from rvpo.judging.verdicts import Outcome, Vote
from rvpo.llm.limits import MOST_MISSING

__all__ = ["RuleJudge"]


class RuleJudge:
    """A judge that asks nobody: `rule(prompt, answer, criterion)` gives True, False or None (no verdict)."""

    def __init__(
        self, rule: Callable[[Conversation, str, Criterion], bool | None], *, max_missing: float = MOST_MISSING
    ) -> None:
        self.rule = rule
        self.max_missing = max_missing
        self.counts: Counter[Outcome] = Counter()

    async def grade(self, prompt: Conversation, answer: str, rubric: Rubric) -> Graded:
        """Grade one answer."""
        return (await self.grade_many([Item(prompt, answer, rubric)]))[0]

    async def grade_many(self, items: Sequence[Item], *, progress: OnGraded | None = None) -> list[Graded]:
        """Grade answers one after the other; see `rvpo.judging.judge.Judge.grade_many`."""
        graded = []
        for item in items:
            verdicts = {}
            for criterion in item.rubric:
                met = self.rule(item.prompt, item.answer, criterion)
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
