"""Score functions for verl's `reward.custom_reward_function`: tool calling, and rubrics judged by a server.

    reward.custom_reward_function.path=pkg://rvpo.integrations.verl.rewards
    reward.custom_reward_function.name=tool_calling                     # channels [format,correctness]

    reward.custom_reward_function.name=rubric                           # channels [rubric]
    +reward.custom_reward_function.reward_kwargs.judge.model=Qwen/Qwen3-8B
    +reward.custom_reward_function.reward_kwargs.judge.base_url=http://localhost:8001/v1
    +reward.custom_reward_function.reward_kwargs.judge.store=runs/verdicts.sqlite

Each returns a dict with every key in every row, as verl needs it. `score` is what verl itself logs and validates by;
with `algorithm.adv_estimator=rvpo` it has no part in the advantage.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from zlib import crc32

from rvpo.errors import ConfigError
from rvpo.integrations.verl.config import plain
from rvpo.rewards.tool_calling import correctness_reward, format_reward

if TYPE_CHECKING:
    from rvpo.judging.config import JudgeConfig
    from rvpo.judging.judge import Judge

__all__ = ["judge_config", "rubric", "tool_calling", "with_pattern"]

_JUDGES: dict[str, "Judge"] = {}
"""The judges of this process, by their settings: connections, counts and the store's cache outlive a call."""


def with_pattern(scores: Mapping[str, Any]) -> dict[str, Any]:
    """Return scores of an answer with one more, `pattern`: a whole number, equal for equal values of every channel.

    verl's group filter drops groups in which one score is the same throughout. `algorithm.filter_groups.metric=score`
    drops a group whose answers differ on channels but not in their sum; with `metric=pattern` a group counts as dead
    only if no channel tells its answers apart. `score` has no part in it, a missing value equals a missing value.

    >>> first, second = ({"score": 1.0, "format": form, "correct": 1.0 - form} for form in (0.0, 1.0))
    >>> with_pattern(first)["pattern"] == with_pattern(second)["pattern"]
    False
    """
    channels = {name: None if value != value else value for name, value in scores.items() if name != "score"}
    return {**scores, "pattern": crc32(json.dumps(channels, sort_keys=True).encode())}


def tool_calling(data_source: str, solution_str: str, ground_truth: str, **kwargs: Any) -> dict[str, float]:
    """Score a tool call as ToolRL does (`rvpo.rewards.tool_calling`).

    Returns `format` in {0, 1}, `correctness` in [-3, 3], and their sum as `score`.
    Raises what `format_reward` and `correctness_reward` raise for an unreadable ground truth.
    """
    form = format_reward([solution_str], [ground_truth])[0]
    correctness = correctness_reward([solution_str], [ground_truth])[0]
    return {"score": form + correctness, "format": form, "correctness": correctness}


async def rubric(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: Mapping[str, Any] | None = None,
    *,
    judge: Mapping[str, Any],
    workers: int = 1,
    **kwargs: Any,
) -> dict[str, Any]:
    """Judge an answer by its prompt's own rubric; rows come from `rvpo.integrations.verl.rows`.

    Args:
        data_source: verl's name of the data set; not looked at.
        solution_str: the answer.
        ground_truth: the rubric, JSON of a list of criteria.
        extra_info: with the conversation under `prompt`, as JSON.
        judge: fields of `rvpo.judging.config.JudgeConfig`. Verdicts in its store are not asked for again.
        workers: processes that share `judge.concurrency`: `${reward.num_workers}`.
        kwargs: what else verl passes; not looked at.

    Returns:
        `rubric`, JSON text from criterion to 1.0, 0.0 or null (no verdict), higher is better; `explicit`, RaR's
        weighted share of them in [0, 1], None without any verdict; `score`, the same, NaN without any.

    Raises:
        ConfigError: a judge or a row that cannot be used.
        JudgeError: the server cannot be used as configured, or a budget is used up.
    """
    from rvpo.judging.criteria import Rubric
    from rvpo.judging.grading import explicit_score

    try:
        criteria, prompt = json.loads(ground_truth), json.loads((extra_info or {})["prompt"])
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            "a row for the score function 'rubric' needs its criteria as JSON in reward_model.ground_truth and its "
            f"conversation as JSON in extra_info.prompt ({error!r}); python -m rvpo.integrations.verl.rows writes such"
        ) from None
    graded = await _judge(judge, workers).grade(prompt, solution_str, Rubric.from_rows(criteria))
    explicit = explicit_score(graded.rubric, graded.met())
    return {
        "score": math.nan if explicit is None else explicit,
        "explicit": explicit,
        "rubric": json.dumps(graded.values()),
    }


def judge_config(judge: Any, workers: int = 1) -> "JudgeConfig":
    """Return the settings of a judge that `workers` processes share; raise ConfigError for what does not fit."""
    from rvpo.judging.config import JudgeConfig

    options = plain(judge)
    if not isinstance(options, Mapping):
        raise ConfigError(f"reward_kwargs.judge must be a mapping with at least the judge's model, got {options!r}")
    if "max_missing" in options:
        raise ConfigError("a reward worker sees single answers; set algorithm.rvpo.max_missing, for whole batches")
    if not isinstance(workers, int) or workers < 1:
        raise ConfigError(f"workers must be a whole number >= 1, got {workers!r}")
    config = JudgeConfig.from_mapping(options)
    return replace(config, max_missing=1.0, concurrency=max(config.concurrency // workers, 1))


def _judge(judge: Any, workers: int) -> "Judge":
    from rvpo.judging.judge import Judge

    config = judge_config(judge, workers)
    name = repr(config)
    if name not in _JUDGES:
        _JUDGES[name] = Judge(config)
    return _JUDGES[name]
