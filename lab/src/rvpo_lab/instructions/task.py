"""The task `instructions`: a user's request with 5 to 9 verifiable instructions, each a channel under its kind's name.

    Write a short note to a friend about a rainy day. Use at most 40 words. Do not use any commas. End with a question.

Topic, request, kinds, arguments and wordings are drawn by the seed; `topics` has the topics, those of training and
those held out, `kinds` the instructions. A prompt is never contradictory (`kinds.EXCLUDED`).
"""

import json
import random
from collections.abc import Mapping, Sequence
from typing import Any

from rvpo.rewards.declarations import vector_reward
from rvpo_lab.instructions.kinds import KINDS, TOPIC_WORDS, compatible
from rvpo_lab.instructions.topics import HELD_OUT, REQUESTS, TRAINING
from rvpo_lab.tasks.task import GradedTask

__all__ = ["FEWEST", "INSTRUCTIONS", "KINDS", "MOST", "describe", "grade", "instructions_reward", "rows"]

FEWEST, MOST = 5, 9
"""Instructions of a prompt."""
LISTED = 0.5
"""Share of the prompts that give their instructions as a list, not as sentences in a row."""


def rows(number: int, seed: int, *, held_out: bool = False) -> list[dict[str, Any]]:
    """Return rows drawn by the seed, with `prompt` (one user message) and `instructions`.

    `instructions` is a JSON list of {"kind", "arguments"}, a text because arguments differ in type.
    """
    draw = random.Random(f"instructions {seed} {held_out}")
    return [_row(draw, HELD_OUT if held_out else TRAINING) for _ in range(number)]


def _row(draw: random.Random, topics: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    topic = draw.choice(list(topics))
    topic_words = draw.sample(topics[topic], len(topics[topic]))
    instructions, sentences = [], []
    for kind in _kinds(draw):
        choices = KINDS[kind].choices
        arguments = {
            name: topic_words.pop() if values is TOPIC_WORDS else draw.choice(values)
            for name, values in choices.items()
        }
        instructions.append({"kind": kind, "arguments": arguments})
        sentences.append(draw.choice(KINDS[kind].wordings).format(**arguments))
    request = draw.choice(REQUESTS).format(topic)
    is_list = draw.random() < LISTED
    text = (
        "\n".join([request, *(f"- {sentence}" for sentence in sentences)])
        if is_list
        else " ".join([request, *sentences])
    )
    return {"prompt": [{"role": "user", "content": text}], "instructions": json.dumps(instructions)}


def _kinds(draw: random.Random) -> list[str]:
    """Return the kinds of a prompt, in random order, all compatible with each other."""
    size = draw.randint(FEWEST, MOST)
    while True:
        kinds: list[str] = []
        for kind in draw.sample(list(KINDS), len(KINDS)):
            if len(kinds) < size and all(compatible(kind, other) for other in kinds):
                kinds.append(kind)
        if len(kinds) >= FEWEST:  # fewer than `size` where one of them excludes most others
            return kinds


def grade(row: Mapping[str, Any], answer: str) -> dict[str, float]:
    """Return kind -> 1.0 (met) or 0.0 for every instruction of a row."""
    return {
        instruction["kind"]: float(KINDS[instruction["kind"]](answer, instruction["arguments"]))
        for instruction in json.loads(row["instructions"])
    }


def describe(kind: str) -> str:
    """Return what a kind of instruction asks for, in a few words."""
    return KINDS[kind].summary


@vector_reward(range=(0.0, 1.0))
def instructions_reward(
    completions: Sequence[Any], instructions: Sequence[str], **kwargs: Any
) -> list[dict[str, float | None]]:
    """Grade each completion by its prompt's own instructions, exactly; one channel a kind."""
    return [
        dict(grade({"instructions": given}, _text(completion)))
        for completion, given in zip(completions, instructions, strict=True)
    ]


def _text(completion: Any) -> str:
    """Return the text of a completion: itself, or the content of its last chat message."""
    return completion if isinstance(completion, str) else str(completion[-1]["content"])


INSTRUCTIONS = GradedTask(
    name="instructions",
    summary="requests with 5 to 9 verifiable instructions",
    rows=rows,
    grade=grade,
    max_completion_length=96,  # as where it is trained
)
"""The task as `rvpo eval` takes it."""
