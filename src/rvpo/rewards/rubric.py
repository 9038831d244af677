"""Rubric rewards: every criterion of a prompt's own rubric is a channel, judged by an LLM or by rules.

    reward = RubricReward(JudgeConfig(model="Qwen/Qwen3-8B", base_url="http://localhost:8001/v1", store="v.sqlite"))
    trainer = RVPOTrainer(model=..., reward_funcs=[reward], train_dataset=rows, args=...)

Rows need a column `rubric` in a form of docs/data.md; null is no criterion. With `aggregate="explicit"` or
`"implicit"` the reward is one number, as in RaR (arXiv 2507.17746), and works in any trainer that takes a reward
function; stock `GRPOTrainer` needs that.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rvpo.errors import ConfigError
from rvpo.judging.config import JudgeConfig
from rvpo.judging.criteria import Rubric
from rvpo.judging.grading import Graded, Grader, Item, category_weight, explicit_score
from rvpo.judging.judge import Judge
from rvpo.llm.model_text import completion_text
from rvpo.rewards.declarations import Channel, Declaration

__all__ = ["RubricReward"]

AGGREGATES = (None, "explicit", "implicit")


class RubricReward:
    """A reward function for TRL whose channels are the criteria of each prompt.

    Returns per completion a mapping from channel name to 1.0 (good), 0.0 (bad) or None (no verdict), oriented so that
    higher is better; a channel is named "tag/id" by the criterion's first tag. With an aggregate, one number in
    [0, 1], or None if nothing is known: `explicit` is the weighted share of criteria that are good, `implicit` the
    judge's own rating of the whole answer.

    Args:
        judge: a `Judge`, a `RuleJudge`, a `JudgeConfig`, or its fields as a mapping.
        aggregate: None (one channel a criterion), "explicit" or "implicit".
        name: under which the trainer logs it.
        log_reasons: put the judge's reasons into the trainer's completions table (TRL 1.0 or newer): a column
            "NAME/reasons", JSON text from channel name to reason. Off by default: it holds a sentence for every
            criterion of every completion.

    Raises:
        ConfigError: an unknown aggregate, "implicit" with a judge that cannot rate, or reasons that nothing would log.
        JudgeError: while training, if too many verdicts are missing or a budget is used up.
    """

    def __init__(
        self,
        judge: Grader | JudgeConfig | Mapping[str, Any],
        *,
        aggregate: str | None = None,
        name: str = "rubric",
        log_reasons: bool = False,
    ) -> None:
        if aggregate not in AGGREGATES:
            raise ConfigError(f"aggregate must be one of {AGGREGATES}, got {aggregate!r}")
        if isinstance(judge, Mapping):
            judge = JudgeConfig.from_mapping(judge)
        self.judge: Grader = Judge(judge) if isinstance(judge, JudgeConfig) else judge
        if aggregate == "implicit" and not isinstance(self.judge, Judge):
            raise ConfigError("aggregate 'implicit' is a rating by a language model; rules give none")
        if aggregate == "implicit" and log_reasons:
            raise ConfigError("log_reasons has no effect with aggregate 'implicit', which has no verdicts; remove one")
        self.aggregate = aggregate
        self._thoughts = Counter[str]()
        self.log_reasons = log_reasons
        self.__name__ = name
        self.rvpo_declaration = Declaration(template=Channel("", (0.0, 1.0)), is_vector=aggregate is None)

    async def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        rubric: Sequence[Any] | None = None,
        **kwargs: Any,
    ) -> list[Any]:
        """Grade the completions of a batch; see the class. Raises ConfigError for rows without a usable rubric."""
        if rubric is None:
            raise ConfigError(f"reward {self.__name__!r} needs rows with a column 'rubric'; see docs/data.md")
        items = [
            Item(prompt, completion_text(completion, index), self._rubric(rows, index))
            for index, (prompt, completion, rows) in enumerate(zip(prompts, completions, rubric, strict=True))
        ]
        if self.aggregate == "implicit":
            assert isinstance(self.judge, Judge)
            return await self.judge.rate_many(items)
        graded = await self.judge.grade_many(items)
        self._log(graded, kwargs)
        self._log_thoughts(items, kwargs)
        if self.aggregate == "explicit":
            return [explicit_score(answer.rubric, answer.met()) for answer in graded]
        return [answer.values() for answer in graded]

    def _log_thoughts(self, items: Sequence[Item], kwargs: Mapping[str, Any]) -> None:
        """Log, once thoughts are cut, from which share of the answers they are, and which ended inside one."""
        log_metric, new = kwargs.get("log_metric"), self.judge.thoughts - self._thoughts
        self._thoughts = self.judge.thoughts.copy()
        if log_metric is not None and self._thoughts and items:
            log_metric(f"{self.__name__}/thoughts_cut", new["cut"] / len(items))
            log_metric(f"{self.__name__}/ended_in_thought", new["ended"] / len(items))

    def _rubric(self, rows: object, index: int) -> Rubric:
        """Return the rubric of the `index`-th completion's row."""
        try:
            rubric = Rubric.from_rows(rows)
        except ConfigError as error:
            raise ConfigError(f"reward {self.__name__!r}, rubric of completion {index}: {error}") from error
        if self.aggregate is not None and len(rubric) and not any(map(category_weight, rubric)):
            raise ConfigError(
                f"reward {self.__name__!r}, rubric of completion {index}: none of its {len(rubric)} criteria has any "
                f"points, so that no {self.aggregate} score is defined; give points, or leave the row out"
            )
        return rubric

    async def probe(self) -> None:
        """Ask the judge's server, if it has one, before anything is generated; see `Judge.probe`."""
        if isinstance(self.judge, Judge):
            await self.judge.probe()

    async def close(self) -> None:
        """Close the judge's connections and print its counts and cost."""
        await self.judge.close()
        print(f"{self.__name__}: {self.judge.summary()}", flush=True)

    def _log(self, graded: Sequence[Graded], kwargs: Mapping[str, Any]) -> None:
        """Log reasons if they are wanted, and the share of each outcome, in the ways that the trainer hands over."""
        if self.log_reasons:
            log_extra = kwargs.get("log_extra")
            if log_extra is None:
                raise ConfigError("log_reasons needs a trainer that hands over log_extra, as TRL does from 1.0 on")
            log_extra(f"{self.__name__}/reasons", [json.dumps(answer.reasons()) for answer in graded])
        log_metric = kwargs.get("log_metric")
        verdicts = [verdict for answer in graded for verdict in answer.verdicts.values()]
        if log_metric is None or not verdicts:
            return
        for outcome in sorted({verdict.outcome for verdict in verdicts}):
            share = sum(verdict.outcome == outcome for verdict in verdicts) / len(verdicts)
            log_metric(f"{self.__name__}/{outcome}", share)
