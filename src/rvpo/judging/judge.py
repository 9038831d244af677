"""The judge: rubric and answer in, one verdict per criterion out, each with what became of it.

    judge = Judge(JudgeConfig(model="Qwen/Qwen3-8B", base_url="http://localhost:8001/v1", store="verdicts.sqlite"))
    graded = await judge.grade("How much?", "Two tablets.", rubric)
    graded.values()          # {"dose/c1": 1.0, "tone/c2": None}: higher is better, None is missing

A verdict that was lost is missing: never False, never 0. Every reply is paid for once (`rvpo.judging.calls`).
"""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from rvpo.errors import JudgeError, StopRequestedError
from rvpo.judging.calls import Answered, Content, JudgeCall, SharedCalls, together
from rvpo.judging.config import JudgeConfig
from rvpo.judging.criteria import Criterion, Rubric
from rvpo.judging.grading import (
    INFLUENCED,
    LOST,
    Ballot,
    Graded,
    Item,
    LossPattern,
    OnGraded,
    Verdict,
    check_missing,
    outcome_counts,
)
from rvpo.judging.prompts import Conversation, Sheet, load_prompt
from rvpo.judging.store import VerdictStore, request_key
from rvpo.judging.verdicts import (
    HIGHEST_RATING,
    LOWEST_RATING,
    RATING_FORMAT,
    VERDICTS_FORMAT,
    Outcome,
    Votes,
    parse_rating,
    read_votes,
)
from rvpo.llm.client import SCHEMA_FIELD, ChatClient
from rvpo.llm.config import masked_url, server_url
from rvpo.llm.limits import ENOUGH_TO_TELL, share_of_process, too_many_missing
from rvpo.llm.model_text import TAGS, counted_answer
from rvpo.llm.reply import Failure, Refusal, Reply
from rvpo.text import plural

__all__ = ["Judge"]

logger = logging.getLogger(__name__)

WARM = 0.5
"""Least temperature of a second ask: at 0 the same unreadable reply would come again."""
PROBE = ("Say that you are ready.", "ready")
"""Prompt and answer that a probe shows."""
TOKEN_FIELDS = ("max_tokens", "max_completion_tokens")
"""Fields of a request that bound its reply."""


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
        self.thoughts = Counter[str]()
        """Answers from which a thought was "cut", and those of which nothing was left: they "ended" inside one."""
        self._tags = {**TAGS, **config.thoughts}
        self._lost_in_a_row = 0
        self._losses, self._has_warned = LossPattern(), False
        self._lock = threading.Lock()
        self.store.check()

    def __getstate__(self) -> dict[str, Any]:
        return {"config": self.config}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["config"])  # type: ignore[misc]

    async def grade(self, prompt: Conversation, answer: str, rubric: Rubric) -> Graded:
        """Grade one answer to a prompt (text or chat messages)."""
        return (await self.grade_many([Item(prompt, answer, rubric)]))[0]

    async def grade_many(self, items: Sequence[Item], *, progress: OnGraded | None = None) -> list[Graded]:
        """Grade answers side by side; `progress(done, of)` is called after each.

        Raises JudgeError if more than `max_missing` of the verdicts are missing (of 20 or more), if `dead_after` were
        lost one after the other, in whatever batches, if the server cannot be used as configured, or if a budget is
        used up. What was answered until then is in the store.
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
        check_missing(graded, self.config.max_missing, self._words_of_failure())
        # Where missing verdicts never stop a run, those that the server answered are no sign of its death.
        signs = LOST if self.config.max_missing < 1 else {Outcome.FAILED}
        self._check_alive([verdict.outcome in signs for answer in graded for verdict in answer.verdicts.values()])
        self._warn_of_answers_that_lose(graded)
        return graded

    def _warn_of_answers_that_lose(self, graded: Sequence[Graded]) -> None:
        """Warn once if lost verdicts come in whole answers: one that loses them may gain by it."""
        size = self.config.criteria_per_call
        with self._lock:
            for answer in graded:
                lost = [verdict.outcome in INFLUENCED for verdict in answer.verdicts.values()]
                self._losses.add([any(lost[start : start + size]) for start in range(0, len(lost), size)])
            if self._has_warned or not self._losses.is_by_answer:
                return
            self._has_warned = True
        logger.warning(
            "lost verdicts come in whole answers (%d of %d calls): an answer may bring them about and gain by it; "
            "look at such answers, and see lost_as and structured_output",
            self._losses.lost,
            self._losses.calls,
        )

    def _check_alive(self, lost: Sequence[bool]) -> None:
        """Raise JudgeError if the newest verdicts, with those of earlier batches, were lost one after the other."""
        limit = max(share_of_process(self.config.dead_after), min(ENOUGH_TO_TELL, self.config.dead_after))
        with self._lock:
            for is_lost in lost:
                self._lost_in_a_row = self._lost_in_a_row + 1 if is_lost else 0
                if self._lost_in_a_row >= limit:
                    break
            else:
                return
        server = masked_url(server_url(self.config.base_url))
        raise JudgeError(
            f"the judge at {server} is dead: {limit} verdicts one after the other were lost "
            f"({outcome_counts(self.counts)} so far){self._words_of_failure()}; look at the server, then start again"
        )

    def _words_of_failure(self) -> str:
        """Return what the server said when it began to go wrong."""
        failure = self.client.first_failure
        return f"; the first call that failed: {failure}" if failure else ""

    def _answer(self, text: str) -> str:
        """Return a text without its thoughts, and count what was cut."""
        with self._lock:
            return counted_answer(text, self.thoughts, self.config.thoughts, is_opened=self.config.opens_thought)

    async def _grade(self, item: Item) -> Graded:
        """Return the verdicts on an answer; of an empty one nothing is met, whatever the criterion."""
        answer = self._answer(item.answer)
        if answer:
            ballots = await self._ballots(item.prompt, answer, item.rubric)
            verdicts = {criterion.id: self._verdict(criterion, ballots[criterion.id]) for criterion in item.rubric}
        else:
            verdicts = {criterion.id: Verdict(False, Outcome.SKIPPED) for criterion in item.rubric}
        with self._lock:
            self.counts.update(verdict.outcome for verdict in verdicts.values())
        return Graded(item.rubric, verdicts)

    def _verdict(self, criterion: Criterion, ballot: Ballot) -> Verdict:
        """Return the verdict of a criterion's votes, a lost one as the settings say."""
        verdict = ballot.verdict()
        if self.config.lost_as == "worst" and verdict.outcome in INFLUENCED:
            return replace(verdict, met=criterion.polarity == "negative")
        return verdict

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
        ask: int = 0,
        cuts: int = 0,
    ) -> None:
        """Cast one vote on each criterion, asking again for those without a readable one.

        After a reply that was cut, half of them at once and twice as many tokens. `answered` is the stored answer to
        the call, None if there is none; `ask` calls came before it, `cuts` of them cut.
        """
        answered = answered or await self.calls.answer(call)
        missing = _cast(criteria, answered.content, ballots)
        if not missing:
            return
        why = Outcome.CUT if cuts and isinstance(answered.reply, Failure) else _loss(answered.reply)
        ask += 1
        if ask == self.config.asks or isinstance(answered.reply, Failure):
            for criterion in missing:
                ballots[criterion.id].lose(why)
            return
        cuts += why is Outcome.CUT
        half = -(-len(missing) // 2) if why is Outcome.CUT else len(missing)
        parts = [missing[start : start + half] for start in range(0, len(missing), half)]
        calls = [self._vote_call(sheet, part, repeat, ask, cuts) for part in parts]
        pairs = zip(parts, calls, strict=True)
        await together(self._vote(sheet, part, repeat, next_, None, ballots, ask, cuts) for part, next_ in pairs)

    def _vote_call(
        self, sheet: Sheet, criteria: Sequence[Criterion], repeat: int, ask: int, cuts: int = 0
    ) -> JudgeCall[Votes]:
        """Return the call for one vote on some criteria: the `repeat`-th, after `ask` replies, `cuts` of them cut."""
        sample = [repeat, ask]
        messages, ids = sheet.messages([("", criterion.text) for criterion in criteria], self.store.secret, sample)
        read = partial(read_votes, ids=ids, tags=self._tags)
        asked = [criterion.text for criterion in criteria]
        return self._call(sheet, messages, asked, read, VERDICTS_FORMAT, sample, cuts)

    def _call(
        self,
        sheet: Sheet,
        messages: list[dict[str, str]],
        asked: Sequence[object],
        read: Callable[[str], Content | None],
        schema: Mapping[str, Any],
        sample: Sequence[int],
        cuts: int = 0,
    ) -> JudgeCall[Content]:
        """Return a call; in its key the sheet's digest and what is asked stand for the messages.

        The messages themselves hold ids that are drawn by the store's secret.
        """
        config = self.config
        fields = {
            "temperature": config.temperature if sample[1] == 0 else max(config.temperature, WARM),
            "max_tokens": config.max_tokens,
            **config.extra,
        }
        fields |= {name: fields[name] << cuts for name in TOKEN_FIELDS if isinstance(fields.get(name), int)}
        identity = {
            "model": config.model,
            **fields,
            "messages": [sheet.digest, *asked],
            "base_url": masked_url(server_url(config.base_url)).replace("***@", ""),
            "prompt": self.prompt.digest,
            "sample": sample,
        }
        request = {"model": config.model, "messages": messages, **fields}
        plain = JudgeCall(request, request_key(identity), read)
        if config.structured_output == "never" or SCHEMA_FIELD in config.extra:
            return plain
        is_needed = config.structured_output == "always"
        key = request_key(identity | {SCHEMA_FIELD: schema})
        return JudgeCall(request | {SCHEMA_FIELD: schema}, key, read, None if is_needed else plain)

    async def rate(self, prompt: Conversation, answer: str, rubric: Rubric) -> float | None:
        """Return the judge's rating of the whole answer on [0, 1] (RaR's implicit aggregation); None if lost.

        One call: the judge sees all criteria with their importance and gives 1 to 10; (rating - 1) / 9. An empty
        answer is 0, an empty rubric gives None, both without a call.
        """
        if not len(rubric):
            return None
        answer = self._answer(answer)
        if not answer:
            return 0.0
        sheet = load_prompt("rating").sheet(prompt, answer)
        asked = [(_importance(criterion), criterion.text) for criterion in rubric]
        read, cuts = partial(parse_rating, tags=self._tags), 0
        for ask in range(self.config.asks):
            messages, _ = sheet.messages(asked, self.store.secret, [0, ask])
            call = self._call(sheet, messages, asked, read, RATING_FORMAT, [0, ask], cuts)
            answered = await self.calls.answer(call)
            if answered.content is not None:
                return (answered.content - LOWEST_RATING) / (HIGHEST_RATING - LOWEST_RATING)
            if isinstance(answered.reply, Failure):
                if cuts:  # as of verdicts: the cut is why it is lost
                    break
                return None
            cuts += _loss(answered.reply) is Outcome.CUT
        return 0.0 if self.config.lost_as == "worst" else None

    async def rate_many(self, items: Sequence[Item]) -> list[float | None]:
        """Rate answers side by side; see `rate`. Raises JudgeError if more than `max_missing` of 20 are lost."""
        ratings = await together(self.rate(*item) for item in items)
        lost = ratings.count(None)
        if too_many_missing(lost, len(ratings), self.config.max_missing):
            raise JudgeError(
                f"{lost} of {len(ratings)} ratings are missing, more than {self.config.max_missing:g}"
                f"{self._words_of_failure()}"
            )
        if self.config.max_missing < 1:
            self._check_alive(
                [rating is None for rating, item in zip(ratings, items, strict=True) if len(item.rubric)]
            )
        return ratings

    async def probe(self) -> None:
        """Ask the server as for a verdict, before a run depends on it; see `JudgeConfig.probe`.

        What it answers is neither read nor kept, and no verdict: that it does is enough. Raises JudgeError, with what
        the server said, if it cannot be asked or gives no answer for `retry_minutes`. A rejection that names no field
        of the request may be of this request alone, and is a warning.
        """
        config = self.config
        if config.probe == "never":
            return
        kept = [row["replies"] for row in self.store.statistics() if row["model"] == config.model]
        is_needed = config.probe == "always" or not kept
        call = self._vote_call(self.prompt.sheet(*PROBE), [Criterion("probe", "says ready")], 0, 0)
        try:
            reply = await self.calls.probe(call, tries_again=is_needed)
            problem = str(reply) if isinstance(reply, Failure) else ""
            is_needed = is_needed and not (isinstance(reply, Failure) and reply.is_of_this_request)
        except StopRequestedError:
            raise
        except JudgeError as error:
            problem = str(error)
        if not problem:
            return
        problem = f"the judge {config.model!r} at {masked_url(server_url(config.base_url))} cannot be asked: {problem}"
        if is_needed:
            raise JudgeError(f"{problem}. Nothing was generated yet; probe: never starts without a judge")
        others = f"the store has {sum(kept)} replies of it" if kept else "others may be answered"
        logger.warning("%s; %s", problem, others)

    async def close(self) -> None:
        """Close the running loop's connections and this thread's store; calls under way have seconds to end."""
        await self.calls.finish()
        await self.client.close()
        self.store.close()

    def summary(self) -> str:
        """Return counts and cost in one line."""
        usage = self.client.usage
        tokens = f"{usage.prompt_tokens} + {usage.completion_tokens} tokens"
        cost = f", cost {usage.cost(self.config):.4f}" if self.config.price_input or self.config.price_output else ""
        thoughts = f"; thoughts cut from {plural(self.thoughts['cut'], 'answer')}" if self.thoughts else ""
        ended = f", {self.thoughts['ended']} of which ended inside one" if self.thoughts["ended"] else ""
        calls = f"{usage.calls} calls, {usage.retries} retries, {tokens}{cost}"
        return f"{outcome_counts(self.counts)}; {calls}{thoughts}{ended}{self._words_of_failure()}"


def _cast(criteria: Sequence[Criterion], votes: Votes | None, ballots: Mapping[str, Ballot]) -> Sequence[Criterion]:
    """Put the votes into the ballots; return the criteria without one."""
    missing = []
    for criterion, vote in zip(criteria, votes or [None] * len(criteria), strict=True):
        if vote is None:
            missing.append(criterion)
        else:
            ballots[criterion.id].votes.append(vote)
    return missing


def _loss(reply: Reply | Refusal | Failure) -> Outcome:
    """Return why a reply has no verdict."""
    if isinstance(reply, Failure):
        return Outcome.FAILED
    if isinstance(reply, Refusal):
        return Outcome.REFUSED
    return Outcome.CUT if reply.is_cut else Outcome.UNPARSED


def _importance(criterion: Criterion) -> str:
    kind = "fault" if criterion.polarity == "negative" else "importance"
    return f"{kind} {criterion.weight:g}"
