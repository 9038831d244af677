"""Reward functions whose values follow from the text alone, so that a test can work out what they returned.

Values are eighths, which float32 holds exactly. `matrix` lays them out without any code of rvpo but the declarations.
"""

import math
from zlib import crc32

import numpy as np

from rvpo import Channel, scalar_reward, vector_reward

TAGS = ("accuracy", "style", "")


def draw(*parts):
    return crc32("|".join(parts).encode())


def value(criterion, prompt, completion):
    """An eighth in [0, 1]; no value for a fifth of the completions, save for criteria named "sure...".

    All criteria but those have no value for one completion in six.
    """
    if not criterion.startswith("sure") and (
        draw("all", prompt, completion) % 6 == 0 or draw("gap", criterion, prompt, completion) % 5 == 0
    ):
        return None
    return draw(criterion, prompt, completion) % 9 / 8


def criteria(prompt):
    """Two to five criteria of a prompt's own, with and without tags."""
    names = [f"{TAGS[index % 3]}/{prompt}{index}".removeprefix("/") for index in range(5)]
    return names[: 2 + draw(prompt) % 4]


def by_rollout(prompts, completions, row):
    return [row(prompt, completion) for prompt, completion in zip(prompts, completions, strict=True)]


@scalar_reward(range=(0.0, 1.0))
def sure_warm(prompts, completions, **kwargs):
    return by_rollout(prompts, completions, lambda p, c: value("sure_warm", p, c))


def gappy(prompts, completions, **kwargs):
    return by_rollout(prompts, completions, lambda p, c: value("gappy", p, c))


async def sure_async(prompts, completions, **kwargs):
    return by_rollout(prompts, completions, lambda p, c: value("sure_async", p, c))


async def gappy_async(prompts, completions, **kwargs):
    return by_rollout(prompts, completions, lambda p, c: value("gappy_async", p, c))


@vector_reward(Channel("tone", range=(0, 1), weight=2.0), "length", range=(0, 1))
def graded(prompts, completions, **kwargs):
    return by_rollout(prompts, completions, lambda p, c: [value("tone", p, c), value("length", p, c)])


@vector_reward("clarity", "sure_depth", range=(0, 1))
async def marked(prompts, completions, **kwargs):
    """Missing values as NaN and as absent names."""

    def row(prompt, completion):
        clarity = value("clarity", prompt, completion)
        grades = {"sure_depth": value("sure_depth", prompt, completion)}
        if clarity is not None or draw(completion) % 2:
            grades["clarity"] = math.nan if clarity is None else clarity
        return grades

    return by_rollout(prompts, completions, row)


def rubric_row(prompt, completion):
    """Missing values as None, as NaN and as absent names."""
    row = {name: value(name, prompt, completion) for name in criteria(prompt)}
    kind = draw("kind", prompt, completion) % 3
    if kind == 0:
        return row
    if kind == 1:
        return {name: math.nan if cell is None else cell for name, cell in row.items()}
    return {name: cell for name, cell in row.items() if cell is not None}


@vector_reward(range=(0.0, 1.0))
def rubric(prompts, completions, **kwargs):
    return by_rollout(prompts, completions, rubric_row)


class Judge:
    """A rubric of another kind of callable: an object with a coroutine as its `__call__`."""

    async def __call__(self, prompts, completions, **kwargs):
        return by_rollout(prompts, completions, rubric_row)


judge = vector_reward()(Judge())


@scalar_reward(range=(0, 1))
def patchy(prompts, completions, **kwargs):
    """The same for all answers to two prompts in three."""
    return by_rollout(prompts, completions, lambda p, c: value("sure_patchy", p, c) if draw(p) % 3 == 0 else 0.5)


@scalar_reward(range=(0, 1))
def rare(prompts, completions, **kwargs):
    """Neglected: not met but by some answers to one prompt in three."""
    return by_rollout(prompts, completions, lambda p, c: float(draw(p) % 3 == 0 and draw("rare", c) % 3 == 0))


def rank(completion, group):
    """How many answers of the group are shorter, in quarters."""
    return sum(len(other) < len(completion) for other in group) / 4


def unlike(completion, group):
    """How many answers of the group begin with another letter, in quarters."""
    return sum(other[:1] != completion[:1] for other in group) / 4


def one_prompt(prompts, kwargs):
    """Whatever goes with the rollouts is of one prompt, and there is one for each."""
    assert len(set(prompts)) == 1
    assert {len(values) for values in kwargs.values() if isinstance(values, list)} == {len(prompts)}


@vector_reward("rank", "own_rank", scope="group")
async def ranked(prompts, completions, **kwargs):
    one_prompt(prompts, kwargs)
    return [[rank(c, completions), value("own_rank", p, c)] for p, c in zip(prompts, completions, strict=True)]


@scalar_reward(range=(0, 2), scope="group")
def different(prompts, completions, **kwargs):
    one_prompt(prompts, kwargs)
    return [unlike(completion, completions) for completion in completions]


CHANNELS = {
    "sure_warm": ["sure_warm"],
    "gappy": ["gappy"],
    "sure_async": ["sure_async"],
    "gappy_async": ["gappy_async"],
    "graded": ["tone", "length"],
    "marked": ["clarity", "sure_depth"],
}
WEIGHTS = {"tone": 2.0}


def columns(function, prompt, completions):
    """(label, criterion) of each channel of a prompt: a rubric has those that the prompt's completions name."""
    if function in CHANNELS:
        return [(name, name) for name in CHANNELS[function]]
    named = {name for completion in completions for name in rubric_row(prompt, completion)}
    return [
        (f"{function}/{name.split('/')[0]}" if "/" in name else function, name)
        for name in criteria(prompt)
        if name in named
    ]


def matrix(functions, prompts, completions, group_size):
    """Values (N, M), the label of every column for each prompt (None past its last one), declared weights (M,)."""
    starts = range(0, len(prompts), group_size)
    blocks, labels, weights = [], [[] for _ in starts], []
    for function in functions:
        own = [columns(function, prompts[start], completions[start : start + group_size]) for start in starts]
        width = max(map(len, own))
        block = np.full((len(prompts), width), np.nan)
        for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
            for column, (_, criterion) in enumerate(own[row // group_size]):
                cell = value(criterion, prompt, completion)
                block[row, column] = np.nan if cell is None else cell
        blocks.append(block)
        for names, values in zip(labels, own, strict=True):
            names += [label for label, _ in values] + [None] * (width - len(values))
        weights += [WEIGHTS.get(label, 1.0) for label, _ in max(own, key=len)]
    return np.concatenate(blocks, axis=1), labels, weights
