"""The judge: rubric and answer in, one verdict per criterion out, each with what became of it.

    judge = Judge(JudgeConfig(model="Qwen/Qwen3-8B", base_url="http://localhost:8001/v1", store="verdicts.sqlite"))
    graded = await judge.grade("How much?", "Two tablets.", rubric)
    graded.values()          # {"dose/c1": 1.0, "tone/c2": None}: higher is better, None is missing

A verdict that was lost is missing: never False, never 0. Replies that were paid for are in the store before anything
else happens, and equal requests share one call, also while it is under way.
"""

import asyncio
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from rvpo.errors import JudgeError
from rvpo.judging.config import JudgeConfig
from rvpo.judging.criteria import Criterion, Rubric
from rvpo.judging.prompts import Messages, Sheet, load_prompt, visible
from rvpo.judging.store import Reply, VerdictStore, request_key
from rvpo.judging.verdicts import Outcome, parse_rating, parse_verdicts
from rvpo.llm.client import ChatClient, Failure, Refusal

__all__ = ["Graded", "Grader", "Item", "Judge", "RuleJudge", "Verdict"]

WARM_ASK = 0.5
"""Least temperature of a second ask: at 0 the same unreadable reply would come again."""
ENOUGH_TO_TELL = 20
"""Verdicts below which a batch is too small to say that too many are missing."""

Conversation = str | Messages
Progress = Callable[[int, int], None]
Answer = Reply | Refusal | Failure


class Item(NamedTuple):
    """One answer to be graded."""

    prompt: Conversation
    answer: str
    rubric: Rubric


@dataclass(frozen=True)
class Verdict:
    """What the judge says of one criterion."""

    met: bool | None
    """The majority of the votes; None if there is none, that is: no vote, or a tie after lost votes."""
    outcome: Outcome
    votes: tuple[bool | None, ...] = ()


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
        return {one.channel: one.value(self.verdicts[one.id].met) for one in self.rubric}


class Grader(Protocol):
    """What a judge offers, whether it asks a server or applies rules."""

    counts: Counter[Outcome]

    async def grade_many(self, items: Sequence[Item], *, progress: Progress | None = None) -> list[Graded]:
        """Grade answers, in order."""
        ...

    async def close(self) -> None:
        """Give back what the running loop holds."""
        ...

    def summary(self) -> str:
        """Return counts and cost in one line."""
        ...


@dataclass
class _Votes:
    """Votes of one answer's criteria, by criterion id."""

    votes: dict[str, list[bool | None]]
    lost: dict[str, Outcome] = field(default_factory=dict)
    """Why the newest vote of a criterion is missing."""


class _Ask(NamedTuple):
    """One call to be made, or found in the store."""

    criteria: Sequence[Criterion]
    ids: tuple[str, ...] | None
    """By which id each criterion is asked for; None: the call asks for a rating."""
    repeat: int
    request: dict[str, Any]
    key: bytes

    def read(self, reply: Answer | None) -> list[bool | None]:
        """Return a reply's verdict on each of the criteria, None where it has none."""
        ids = self.ids or ()
        return list(parse_verdicts(reply.text, ids).values()) if isinstance(reply, Reply) else [None] * len(ids)

    def is_readable(self, reply: Reply) -> bool:
        """Tell whether a reply holds anything that was asked for."""
        if self.ids is None:
            return parse_rating(reply.text) is not None
        return any(met is not None for met in self.read(reply))


def _count(ask: _Ask, verdicts: Sequence[bool | None], found: _Votes) -> list[Criterion]:
    """Add verdicts to the votes; return the criteria without one."""
    missing = []
    for one, met in zip(ask.criteria, verdicts, strict=True):
        if met is None:
            missing.append(one)
        else:
            found.votes[one.id].append(met)
    return missing


def _settle(under_way: dict[bytes, asyncio.Task[Answer]], key: bytes, task: asyncio.Task[Answer]) -> None:
    """Forget a finished call; its error counts as seen, whether or not somebody still waits for it."""
    under_way.pop(key, None)
    if not task.cancelled():
        task.exception()


class Judge:
    """Asks an LLM behind an OpenAI-compatible server. Safe for several event loops, threads and processes."""

    def __init__(self, config: JudgeConfig) -> None:
        self.config = config
        self.prompt = load_prompt(config.prompt)
        self.client = ChatClient(config)
        self.store = VerdictStore(config.store)
        self.counts: Counter[Outcome] = Counter()
        """Outcomes of all criteria graded so far, by this process."""
        self._lock = threading.Lock()
        self._under_way: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[bytes, asyncio.Task[Answer]]] = (
            weakref.WeakKeyDictionary()
        )

    def __getstate__(self) -> dict[str, Any]:
        return {"config": self.config}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["config"])  # type: ignore[misc]

    async def grade(self, prompt: Conversation, answer: str, rubric: Rubric) -> Graded:
        """Grade one answer to a prompt (text or chat messages)."""
        return (await self.grade_many([Item(prompt, answer, rubric)]))[0]

    async def grade_many(self, items: Sequence[Item], *, progress: Progress | None = None) -> list[Graded]:
        """Grade answers side by side; `progress(done, of)` is called after each.

        Raises JudgeError if more than `max_missing` of the verdicts are missing (of 20 or more), if the server
        cannot be used as configured, or if a budget is used up. What was answered until then is in the store.
        """
        done = 0

        async def one(item: Item) -> Graded:
            nonlocal done
            graded = await self._grade(item)
            done += 1
            if progress is not None:
                progress(done, len(items))
            return graded

        async with _Together() as group:
            tasks = [group.create_task(one(item)) for item in items]
        graded = [task.result() for task in tasks]
        check_missing(graded, self.config.max_missing)
        return graded

    async def _grade(self, item: Item) -> Graded:
        answer = visible(item.answer)
        if not answer:
            verdicts = {one.id: Verdict(False, Outcome.SKIPPED) for one in item.rubric}
        else:
            found = _Votes({one.id: [] for one in item.rubric})
            await self._collect(Item(item.prompt, answer, item.rubric), found)
            verdicts = {one.id: _verdict(found.votes[one.id], found.lost.get(one.id)) for one in item.rubric}
        with self._lock:
            self.counts.update(verdict.outcome for verdict in verdicts.values())
        return Graded(item.rubric, verdicts)

    async def _collect(self, item: Item, found: _Votes) -> None:
        """Take the votes from the store where they are, in one query; ask for the others side by side."""
        sheet = self.prompt.sheet(item.prompt, item.answer)
        criteria, size = list(item.rubric), self.config.criteria_per_call
        asks = [
            self._ask(sheet, criteria[start : start + size], repeat, 0)
            for start in range(0, len(criteria), size)
            for repeat in range(self.config.repeats)
        ]
        stored = self.store.get([ask.key for ask in asks])
        open_asks = []
        for ask in asks:
            verdicts = ask.read(stored.get(ask.key))
            if None in verdicts:
                open_asks.append(ask)
            else:
                _count(ask, verdicts, found)
        if len(open_asks) == 1:
            await self._vote(sheet, open_asks[0], found)
        elif open_asks:
            async with _Together() as group:
                for ask in open_asks:
                    group.create_task(self._vote(sheet, ask, found))

    async def _vote(self, sheet: Sheet, ask: _Ask, found: _Votes) -> None:
        """Add one vote for each criterion, asking again for those without a readable verdict."""
        for number in range(1, self.config.asks + 1):
            reply = await self._reply(ask)
            missing = _count(ask, ask.read(reply), found)
            if not missing:
                return
            if isinstance(reply, Failure):
                why = Outcome.FAILED
                break
            why = Outcome.UNPARSED if isinstance(reply, Reply) else Outcome.REFUSED
            ask = self._ask(sheet, missing, ask.repeat, number)
        for one in missing:
            found.votes[one.id].append(None)
            found.lost[one.id] = why

    def _ask(self, sheet: Sheet, criteria: Sequence[Criterion], repeat: int, number: int) -> _Ask:
        """Return the call for some criteria: vote `repeat`, asked for the `number`-th time."""
        messages, ids = sheet.messages([("", one.text) for one in criteria])
        request = self._request(messages, number)
        return _Ask(criteria, ids, repeat, request, self._key(sheet, request, repeat, number))

    def _key(self, sheet: Sheet, request: dict[str, Any], repeat: int, number: int) -> bytes:
        """Return the key of a reply: everything it depends on; the sheet's digest stands for how messages begin."""
        rest = request["messages"][-1]["content"][len(sheet.before) :]
        return request_key(
            {
                **request,
                "messages": [sheet.digest, rest],
                "base_url": self.config.base_url,
                "prompt": self.prompt.digest,
                "sample": [repeat, number],
            }
        )

    def _request(self, messages: list[dict[str, str]], ask: int) -> dict[str, Any]:
        config = self.config
        request = {
            "model": config.model,
            "messages": messages,
            "temperature": config.temperature if ask == 0 else max(config.temperature, WARM_ASK),
            "max_tokens": config.max_tokens,
        }
        return request | dict(config.extra)

    async def _reply(self, ask: _Ask) -> Answer:
        """Return the stored reply, that of an equal call under way, or a new one."""
        under_way = self._under_way.setdefault(asyncio.get_running_loop(), {})
        task = under_way.get(ask.key)
        if task is None:
            stored = self.store.get([ask.key])
            if stored:
                return stored[ask.key]
            # A task of its own: if whoever waits for it is cancelled, what is paid for still reaches the store.
            task = under_way[ask.key] = asyncio.create_task(self._new_reply(ask))
            task.add_done_callback(lambda finished: _settle(under_way, ask.key, finished))
        return await asyncio.shield(task)

    async def _new_reply(self, ask: _Ask) -> Answer:
        """Ask the server; keep the reply if it can be read."""
        reply = await self.client.ask(ask.request)
        if isinstance(reply, Reply) and ask.is_readable(reply):
            self.store.put(ask.key, self.config.model, reply)
        return reply

    async def rate(self, prompt: Conversation, answer: str, rubric: Rubric) -> float | None:
        """Return the judge's rating of the whole answer on [0, 1] (RaR's implicit aggregation); None if lost.

        One call: the judge sees all criteria with their importance and gives 1 to 10; (rating - 1) / 9. An empty
        answer is 0 without a call.
        """
        answer = visible(answer)
        if not answer:
            return 0.0
        marked = [(_importance(one), one.text) for one in rubric]
        sheet = load_prompt("rating").sheet(prompt, answer)
        messages, _ = sheet.messages(marked)
        for number in range(self.config.asks):
            request = self._request(messages, number)
            reply = await self._reply(_Ask((), None, 0, request, self._key(sheet, request, 0, number)))
            if isinstance(reply, Failure):
                return None
            rating = parse_rating(reply.text) if isinstance(reply, Reply) else None
            if rating is not None:
                return (rating - 1) / 9
        return None

    async def rate_many(self, items: Sequence[Item]) -> list[float | None]:
        """Rate answers side by side; see `rate`. Raises JudgeError if more than `max_missing` of 20 are lost."""
        async with _Together() as group:
            tasks = [group.create_task(self.rate(*item)) for item in items]
        ratings = [task.result() for task in tasks]
        lost = ratings.count(None)
        if len(ratings) >= ENOUGH_TO_TELL and lost > self.config.max_missing * len(ratings):
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
        return f"{_told(self.counts)}; {usage.calls} calls, {usage.retries} retries, {tokens}{cost}"


class RuleJudge:
    """A judge without a network: `rule(prompt, answer, criterion)` gives True, False or None (no verdict)."""

    def __init__(
        self, rule: Callable[[Conversation, str, Criterion], bool | None], *, max_missing: float = 0.2
    ) -> None:
        self.rule = rule
        self.max_missing = max_missing
        self.counts: Counter[Outcome] = Counter()

    async def grade(self, prompt: Conversation, answer: str, rubric: Rubric) -> Graded:
        """Grade one answer."""
        return (await self.grade_many([Item(prompt, answer, rubric)]))[0]

    async def grade_many(self, items: Sequence[Item], *, progress: Progress | None = None) -> list[Graded]:
        """Grade answers one after the other; see `Judge.grade_many`."""
        graded = []
        for item in items:
            verdicts = {}
            for one in item.rubric:
                met = self.rule(item.prompt, item.answer, one)
                verdicts[one.id] = _verdict([met], Outcome.UNPARSED if met is None else None)
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
        return _told(self.counts)


def _told(counts: Counter[Outcome]) -> str:
    return ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items())) or "nothing judged"


def check_missing(graded: Sequence[Graded], most: float) -> None:
    """Raise JudgeError if more than a share `most` of the verdicts is missing, of at least 20."""
    outcomes = Counter(verdict.outcome for one in graded for verdict in one.verdicts.values() if verdict.met is None)
    number, lost = sum(len(one.verdicts) for one in graded), sum(outcomes.values())
    if number >= ENOUGH_TO_TELL and lost > most * number:
        raise JudgeError(
            f"{lost} of {number} verdicts are missing ({_told(outcomes)}), more than max_missing={most:g}: training "
            "on the rest would not be what it seems; look at the server, then start again (the store has what was "
            "answered)"
        )


def _verdict(votes: Sequence[bool | None], lost: Outcome | None) -> Verdict:
    """Return the majority of the votes that were not lost."""
    yes, no = votes.count(True), votes.count(False)
    if yes == no:
        return Verdict(None, lost or Outcome.UNPARSED, tuple(votes))
    return Verdict(yes > no, Outcome.MET if yes > no else Outcome.UNMET, tuple(votes))


def _importance(criterion: Criterion) -> str:
    kind = "fault" if criterion.polarity == "negative" else "importance"
    return f"{kind} {criterion.weight:g}"


class _Together:
    """A task group that raises the first error itself, not a group of them."""

    async def __aenter__(self) -> asyncio.TaskGroup:
        self.group = asyncio.TaskGroup()
        return await self.group.__aenter__()

    async def __aexit__(self, *exception: Any) -> None:
        try:
            await self.group.__aexit__(*exception)
        except BaseExceptionGroup as group:
            raise _first(group) from None


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first error inside a group of groups, one of ours before others."""
    flat: list[BaseException] = []
    for error in group.exceptions:
        flat.append(_first(error) if isinstance(error, BaseExceptionGroup) else error)
    return next((error for error in flat if isinstance(error, JudgeError)), flat[0])
