"""A judge without a network, for tests and for criteria that rules can decide."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from rvpo.judging.criteria import Criterion, Rubric
from rvpo.judging.grading import Ballot, Graded, Item, OnGraded, check_missing, outcome_counts
from rvpo.judging.prompts import Conversation
from rvpo.judging.verdicts import Outcome, Vote
from rvpo.llm.limits import MOST_MISSING
from rvpo.llm.thoughts import TAGS, counted_answer

__all__ = ["RuleJudge"]


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
