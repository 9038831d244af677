"""The tasks of the quickstart and the neglect suite.

    rubric       every prompt its own 5 to 17 criteria, rates from 0.05 to 0.95, a length limit in conflict
    tools        tool calling in the RLLA format: format and correctness
    rising       the rubric task without conflicts; base rates fall from 0.5 to 0.03 in one ladder
    conflict     every case has a tight limit; every remedy and warning counts; Latin is asked for and forbidden
    saturated    most kinds are met nine times in ten from the start; dose, warning and duration are not
    noisy        the rubric task; the judge of training flips 15 % of its verdicts
    exploitable  the rubric task; the judge of training believes an answer that says "guaranteed"
    lost         the rubric task; 20 % of the verdicts of training are missing
    long         the rubric task with 17 criteria in every prompt
    graded       the rubric task; the judge of training gives partial credit

Evaluation is by the exact grader everywhere. Tasks of one `policy` share its warm start.
"""

from dataclasses import replace
from functools import partial
from typing import Any

from rvpo_lab.tasks import rubric, tools
from rvpo_lab.tasks.rubric import RubricSetting
from rvpo_lab.tasks.task import Task

__all__ = ["REGIMES", "SUITE", "TASKS"]

RISING = RubricSetting(
    habits={
        "greeting": 0.5, "close": 0.42, "sign": 0.36, "person": 0.3, "remedy": 0.25, "season": 0.2, "cause": 0.16,
        "warmth": 0.13, "return": 0.1, "steps": 0.08, "dose": 0.06, "warning": 0.04, "duration": 0.03,
        "wrong_cause": 0.1, "wrong_dose": 0.2, "wrong_warning": 0.08, "wrong_day": 0.1, "jargon": 0.1, "marker": 0.05,
    },
    limits=(),
    shortest=8,
    left_out=("accuracy/term", "accuracy/wrong_cause", "communication/jargon"),
)  # fmt: skip
SATURATED = RubricSetting(
    habits={
        "greeting": 0.98, "close": 0.96, "sign": 0.95, "person": 0.95, "remedy": 0.95, "season": 0.93, "cause": 0.92,
        "warmth": 0.93, "return": 0.9, "steps": 0.93, "dose": 0.15, "warning": 0.12, "duration": 0.08,
        "wrong_cause": 0.02, "wrong_dose": 0.5, "wrong_warning": 0.12, "wrong_day": 0.05, "jargon": 0.03,
        "marker": 0.05,
    },
    limits=(),
)  # fmt: skip
CONFLICT = RubricSetting(
    limits=(5, 6, 7, 8, 9),
    limited=1.0,
    shortest=8,
    left_out=(),
    always=(
        "completeness/remedy",
        "completeness/warning",
        "instruction/limit",
        "accuracy/term",
        "communication/jargon",
    ),
)


LONG = RubricSetting(shortest=rubric.LONGEST)


def _rubric_tokenizer() -> Any:
    from rvpo_lab.tasks.policy import word_tokenizer  # here, because naming the tasks needs no torch

    return word_tokenizer(rubric.words())


RUBRIC = Task(
    name="rubric",
    summary="each prompt its own 5-17 criteria",
    policy="rubric",
    tokenizer=_rubric_tokenizer,
    pairs=rubric.pairs,
    rows=rubric.rows,
    reward_funcs=("rvpo_lab.tasks.rubric.rubric_reward",),
    grade=rubric.grade,
    describe=rubric.describe,
)


def _variant(name: str, summary: str, setting: RubricSetting, policy: str) -> Task:
    return replace(
        RUBRIC,
        name=name,
        summary=summary,
        policy=policy,
        pairs=partial(rubric.pairs, setting=setting),
        rows=partial(rubric.rows, setting=setting),
    )


def _judged(name: str, summary: str, reward: str) -> Task:
    return replace(RUBRIC, name=name, summary=summary, reward_funcs=(f"rvpo_lab.tasks.judges.{reward}",))


TASKS = {
    task.name: task
    for task in (
        RUBRIC,
        Task(
            name="tools",
            summary="tool calling: format and correctness",
            policy="tools",
            tokenizer=tools.tokenizer,
            pairs=tools.pairs,
            rows=tools.rows,
            reward_funcs=(
                "rvpo.rewards.tool_calling.format_reward",
                "rvpo.rewards.tool_calling.correctness_reward",
            ),
            grade=tools.grade,
            describe=tools.describe,
        ),
        _variant("rising", "no conflict, base rates 0.5 to 0.03", RISING, "rising"),
        _variant("conflict", "tight limits, Latin asked for and forbidden", CONFLICT, "rubric"),
        _variant("saturated", "most criteria met from the start", SATURATED, "saturated"),
        _judged("noisy", "15 % of the training verdicts flipped", "noisy_reward"),
        _judged("exploitable", "the training judge believes a marker", "exploitable_reward"),
        _judged("lost", "20 % of the training verdicts missing", "lost_reward"),
        _variant("long", "17 criteria in every prompt", LONG, "rubric"),
        _judged("graded", "the training judge gives partial credit", "graded_reward"),
    )
}
"""Every task by name."""
REGIMES = ("long", "graded")
"""Tasks added after the suite was run; each asks whether a finding of its own regime holds."""
SUITE = tuple(name for name in TASKS if name not in REGIMES)
"""The tasks that conclusions over all tasks are drawn from."""
