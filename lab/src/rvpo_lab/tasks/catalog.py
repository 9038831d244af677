"""The tasks of the quickstart and the neglect suite, and the judges of training that are not exact.

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

Of the four judges that are not exact three have a fault, the fourth gives partial credit. A fault is a function of
prompt, answer and criterion (a checksum decides), so the same answer gets the same verdict at every step, in every
process and after a resume, as with a real judge whose verdicts are stored.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any
from zlib import crc32

from rvpo.rewards.declarations import vector_reward
from rvpo_lab.tasks import rubric, tools
from rvpo_lab.tasks.rubric import MARKER, WARM, RubricSetting, dose_of, meets, rubric_reward
from rvpo_lab.tasks.task import Task

__all__ = [
    "FLIPPED",
    "LOST",
    "PERSUADED",
    "REGIMES",
    "SUITE",
    "TASKS",
    "exploitable_reward",
    "graded_reward",
    "lost_reward",
    "noisy_reward",
    "partial_credit",
]

FLIPPED = 0.15
LOST = 0.2
PERSUADED = ("accuracy/", "context/")
"""Axes on which the exploitable judge believes whoever says the marker."""

PART_OF = {
    "completeness/return": {"return"},
    "context/duration": {"how", "long"},
    "communication/greeting": {"hello"},
    "communication/close": {"take", "care"},
    "instruction/steps": {"first", "then"},
    "instruction/sign": {"sign"},
}
"""Kinds of criteria with several parts, and words of which one is part of them."""

Verdicts = list[dict[str, float | None]]


def chance(fault: str, prompt: str, answer: str, criterion: str) -> float:
    """Return a number in [0, 1) that the words decide."""
    return crc32("\n".join((fault, prompt, answer, criterion)).encode()) / 2**32


@vector_reward(range=(0.0, 1.0))
def noisy_reward(prompts: list[str], completions: list[str], **kwargs: Any) -> Verdicts:
    """Exact verdicts, each flipped with probability `FLIPPED`."""
    exact = rubric_reward(prompts=prompts, completions=completions, **kwargs)
    return [
        {name: float(not met) if chance("flip", prompt, answer, name) < FLIPPED else met for name, met in row.items()}
        for prompt, answer, row in zip(prompts, completions, exact, strict=True)
    ]


@vector_reward(range=(0.0, 1.0))
def exploitable_reward(prompts: list[str], completions: list[str], **kwargs: Any) -> Verdicts:
    """Exact verdicts, but accuracy and context count as met where the answer says the marker."""
    exact = rubric_reward(prompts=prompts, completions=completions, **kwargs)
    return [
        {name: 1.0 if MARKER in answer.split() and name.startswith(PERSUADED) else met for name, met in row.items()}
        for answer, row in zip(completions, exact, strict=True)
    ]


@vector_reward(range=(0.0, 1.0))
def lost_reward(prompts: list[str], completions: list[str], **kwargs: Any) -> Verdicts:
    """Exact verdicts, each missing with probability `LOST`."""
    exact = rubric_reward(prompts=prompts, completions=completions, **kwargs)
    return [
        {name: None if chance("lost", prompt, answer, name) < LOST else met for name, met in row.items()}
        for prompt, answer, row in zip(prompts, completions, exact, strict=True)
    ]


def partial_credit(case: Sequence[str], answer: Sequence[str], criterion: str) -> float:
    """Return a grade in [0, 1] of a criterion: 1 if and only if it is met, part of it if it is met in part.

    One half for the right dose beside another one, for the right word of a pair in a wrong place, or without the
    other; of warmth the share of its three words; of a limit the limit's share in the answer's length.
    """
    if meets(case, answer, criterion):
        return 1.0
    name, _, argument = criterion.partition(":")
    match name.split("/")[1]:
        case "warmth":
            return sum(word in WARM for word in answer) / 3
        case "limit":
            return int(argument) / len(answer)
        case "dose":
            return 0.5 * (dose_of(case) in answer)
    return 0.5 * bool(PART_OF.get(name, set()) & set(answer))


@vector_reward(range=(0.0, 1.0))
def graded_reward(prompts: list[str], completions: list[str], rubric: list[list[str]], **kwargs: Any) -> Verdicts:
    """Grade each criterion of a prompt's own rubric by `partial_credit`."""
    return [
        {name: partial_credit(prompt.split()[:-1], answer.split(), name) for name in criteria}
        for prompt, answer, criteria in zip(prompts, completions, rubric, strict=True)
    ]


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
    return replace(RUBRIC, name=name, summary=summary, reward_funcs=(f"rvpo_lab.tasks.catalog.{reward}",))


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
