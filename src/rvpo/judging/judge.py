"""The judge: rubric and answer in, one verdict per criterion out, each with what became of it.

    judge = Judge(JudgeConfig(model="Qwen/Qwen3-8B", base_url="http://localhost:8001/v1", store="verdicts.sqlite"))
    graded = await judge.grade("How much?", "Two tablets.", rubric)
    graded.values()          # {"dose/c1": 1.0, "tone/c2": None}: higher is better, None is missing

A verdict that was lost is missing: never False, never 0. Every reply is paid for once (`rvpo.judging.calls`).
"""

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from rvpo.errors import JudgeError
from rvpo.judging.calls import Answered, Content, JudgeCall, SharedCalls, together
from rvpo.judging.config import JudgeConfig
from rvpo.judging.criteria import Criterion, Rubric
from rvpo.judging.grading import Ballot, Graded, Item, OnGraded, Verdict, check_missing, outcome_counts
from rvpo.judging.prompts import Conversation, Sheet, load_prompt
from rvpo.judging.store import VerdictStore, request_key
from rvpo.judging.verdicts import HIGHEST_RATING, LOWEST_RATING, Outcome, Votes, parse_rating, read_votes
from rvpo.llm.client import ChatClient
from rvpo.llm.limits import too_many_missing
from rvpo.llm.reply import Failure, Reply
from rvpo.llm.thoughts import without_thoughts

__all__ = ["Judge"]

WARM = 0.5
"""Least temperature of a second ask: at 0 the same unreadable reply would come again."""


class Judge:
    """Asks an LLM behind an OpenAI-compatible server. Safe for several event loops, threads and processes."""

    def __init__(self, config: JudgeConfig) -> None:
        self.config = config
        self.prompt = load_prompt(config.prompt)
        self.client = ChatClient(config)
        self.store = VerdictStore(config.store)
        self.calls = SharedCalls(self.client, self.store)
        self.counts: Counter[Outcome] = Counter()
        """Outcomes of all criteria graded so far, by this process."""
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"config": self.config}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["config"])  # type: ignore[misc]

    async def grade(self, prompt: Conversation, answer: str, rubric: Rubric) -> Graded:
        """Grade one answer to a prompt (text or chat messages)."""
        return (await self.grade_many([Item(prompt, answer, rubric)]))[0]

    async def grade_many(self, items: Sequence[Item], *, progress: OnGraded | None = None) -> list[Graded]:
        """Grade answers side by side; `progress(done, of)` is called after each.

        Raises JudgeError if more than `max_missing` of the verdicts are missing (of 20 or more), if the server
        cannot be used as configured, or if a budget is used up. What was answered until then is in the store.
        """
        done = 0

        async def grade_item(item: Item) -> Graded:
            nonlocal done
            graded = await self._grade(item)
            done += 1
            if progress is not None:
                progress(done, len(items))
            return graded

        graded = await together(map(grade_item, items))
        check_missing(graded, self.config.max_missing)
        return graded

    async def _grade(self, item: Item) -> Graded:
        """Return the verdicts on an answer; of an empty one nothing is met, whatever the criterion."""
        answer = without_thoughts(item.answer)
        if answer:
            ballots = await self._ballots(item.prompt, answer, item.rubric)
            verdicts = {name: ballot.verdict() for name, ballot in ballots.items()}
        else:
            verdicts = {criterion.id: Verdict(False, Outcome.SKIPPED) for criterion in item.rubric}
        with self._lock:
            self.counts.update(verdict.outcome for verdict in verdicts.values())
        return Graded(item.rubric, verdicts)

    async def _ballots(self, prompt: Conversation, answer: str, rubric: Rubric) -> dict[str, Ballot]:
        """Return `repeats` votes on each criterion: from the store in one query, the others asked for side by side."""
        ballots = {criterion.id: Ballot() for criterion in rubric}
        sheet = self.prompt.sheet(prompt, answer)
        criteria, size = list(rubric), self.config.criteria_per_call
        chunks = [criteria[start : start + size] for start in range(0, len(criteria), size)]
        asked = [(chunk, repeat) for chunk in chunks for repeat in range(self.config.repeats)]
        calls = [self._vote_call(sheet, chunk, repeat, 0) for chunk, repeat in asked]
        stored = self.calls.stored(calls)
        unfinished = []
        for (chunk, repeat), call in zip(asked, calls, strict=True):
            answered = stored.get(call.key)
            if answered is None or answered.content is None or None in answered.content:
                unfinished.append(self._vote(sheet, chunk, repeat, call, answered, ballots))
            else:
                _cast(chunk, answered.content, ballots)
        if unfinished:
            await together(unfinished)
        return ballots

    async def _vote(
        self,
        sheet: Sheet,
        criteria: Sequence[Criterion],
        repeat: int,
        call: JudgeCall[Votes],
        answered: Answered[Votes] | None,
        ballots: Mapping[str, Ballot],
    ) -> None:
        """Cast one vote on each criterion, asking again for those without a readable one.

        `answered` is the stored answer to the first call, None if there is none.
        """
        why = Outcome.UNPARSED
        for ask in range(1, self.config.asks + 1):
            answered = answered or await self.calls.answer(call)
            criteria = _cast(criteria, answered.content, ballots)
            if not criteria:
                return
            if isinstance(answered.reply, Failure):
                why = Outcome.FAILED
                break
            why = Outcome.UNPARSED if isinstance(answered.reply, Reply) else Outcome.REFUSED
            call, answered = self._vote_call(sheet, criteria, repeat, ask), None
        for criterion in criteria:
            ballots[criterion.id].lose(why)

    def _vote_call(self, sheet: Sheet, criteria: Sequence[Criterion], repeat: int, ask: int) -> JudgeCall[Votes]:
        """Return the call for one vote on some criteria: the `repeat`-th vote, after `ask` unreadable replies."""
        messages, ids = sheet.messages([("", criterion.text) for criterion in criteria])
        return self._call(sheet, messages, partial(read_votes, ids=ids), repeat, ask)

    def _call(
        self,
        sheet: Sheet,
        messages: list[dict[str, str]],
        read: Callable[[str], Content | None],
        repeat: int,
        ask: int,
    ) -> JudgeCall[Content]:
        """Return a call; in its key the sheet's digest stands for how its messages begin."""
        config = self.config
        request = {
            "model": config.model,
            "messages": messages,
            "temperature": config.temperature if ask == 0 else max(config.temperature, WARM),
            "max_tokens": config.max_tokens,
            **config.extra,
        }
        rest = messages[-1]["content"][len(sheet.before) :]
        identity = request | {
            "messages": [sheet.digest, rest],
            "base_url": config.base_url,
            "prompt": self.prompt.digest,
            "sample": [repeat, ask],
        }
        return JudgeCall(request, request_key(identity), read)

    async def rate(self, prompt: Conversation, answer: str, rubric: Rubric) -> float | None:
        """Return the judge's rating of the whole answer on [0, 1] (RaR's implicit aggregation); None if lost.

        One call: the judge sees all criteria with their importance and gives 1 to 10; (rating - 1) / 9. An empty
        answer is 0 without a call.
        """
        answer = without_thoughts(answer)
        if not answer:
            return 0.0
        sheet = load_prompt("rating").sheet(prompt, answer)
        messages, _ = sheet.messages([(_importance(criterion), criterion.text) for criterion in rubric])
        for ask in range(self.config.asks):
            answered = await self.calls.answer(self._call(sheet, messages, parse_rating, 0, ask))
            if answered.content is not None:
                return (answered.content - LOWEST_RATING) / (HIGHEST_RATING - LOWEST_RATING)
            if isinstance(answered.reply, Failure):
                return None
        return None

    async def rate_many(self, items: Sequence[Item]) -> list[float | None]:
        """Rate answers side by side; see `rate`. Raises JudgeError if more than `max_missing` of 20 are lost."""
        ratings = await together(self.rate(*item) for item in items)
        lost = ratings.count(None)
        if too_many_missing(lost, len(ratings), self.config.max_missing):
            raise JudgeError(f"{lost} of {len(ratings)} ratings are missing, more than {self.config.max_missing:g}")
        return ratings

    async def close(self) -> None:
        """Close the running loop's connections and this thread's store."""
        await self.client.close()
        self.store.close()

    def summary(self) -> str:
        """Return counts and cost in one line."""
        usage = self.client.usage
        tokens = f"{usage.prompt_tokens} + {usage.completion_tokens} tokens"
        cost = f", cost {usage.cost(self.config):.4f}" if self.config.price_input or self.config.price_output else ""
        return f"{outcome_counts(self.counts)}; {usage.calls} calls, {usage.retries} retries, {tokens}{cost}"


def _cast(criteria: Sequence[Criterion], votes: Votes | None, ballots: Mapping[str, Ballot]) -> Sequence[Criterion]:
    """Put the votes into the ballots; return the criteria without one."""
    missing = []
    for criterion, vote in zip(criteria, votes or [None] * len(criteria), strict=True):
        if vote is None:
            missing.append(criterion)
        else:
            ballots[criterion.id].votes.append(vote)
    return missing


def _importance(criterion: Criterion) -> str:
    kind = "fault" if criterion.polarity == "negative" else "importance"
    return f"{kind} {criterion.weight:g}"
