"""The task `instructions`: a user's request with 5 to 9 verifiable instructions, each a channel under its kind's name.

    Write a short note to a friend about a rainy day. Use at most 40 words. Do not use any commas. End with a question.

Topic, request, kinds, arguments and wordings are drawn by the seed; `kinds` has the instructions. A prompt is never
contradictory (`kinds.EXCLUDED`). The training topics and the held-out ones are disjoint, and so are their words. The
words of a topic are those that a text about it may or may not have by itself: the keywords of the instructions.

What is trained on it are cells, by `METHODS` under `Settings`; results lie in the folder of a suite. A step is one
batch of rollouts and its updates. TRL's global step counts updates: `steps * updates` of them.
"""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rvpo.errors import ConfigError
from rvpo.rewards.declarations import vector_reward
from rvpo_lab.instructions.kinds import KINDS, TOPIC_WORDS, compatible
from rvpo_lab.suite.plan import Cell, find_contender
from rvpo_lab.tasks.task import GradedTask

__all__ = [
    "FEWEST",
    "HELD_OUT",
    "HELP",
    "INSTRUCTIONS",
    "KINDS",
    "METHODS",
    "MOST",
    "REQUESTS",
    "TASK",
    "TRAINING",
    "Settings",
    "cells",
    "describe",
    "grade",
    "instructions_reward",
    "rows",
]

REQUESTS = (
    "Write a short note to a friend about {}.",
    "Write a short text about {}.",
    "Write an advertisement for {}.",
    "Write a message to a neighbour about {}.",
    "Write a diary entry about {}.",
    "Write a short speech about {}.",
    "Give me some advice about {}.",
    "Give a beginner some tips about {}.",
    "Tell me what I should know about {}.",
    "Tell a short story about {}.",
    "Explain to a child what is special about {}.",
    "Describe {} to somebody who has never seen it.",
)
"""With a place for the topic."""

TRAINING = {
    "a rainy day": ("umbrella", "puddle", "window", "grey"),
    "a morning walk": ("sunrise", "shoes", "fresh", "path"),
    "a vegetable garden": ("tomatoes", "soil", "seeds", "water"),
    "a long train journey": ("station", "ticket", "seat", "landscape"),
    "a mountain hike": ("boots", "summit", "trail", "view"),
    "a birthday party": ("cake", "balloons", "guests", "candles"),
    "a lost cat": ("collar", "street", "reward", "kitten"),
    "a new bicycle": ("helmet", "wheels", "brakes", "ride"),
    "a quiet library": ("shelves", "silence", "novel", "whisper"),
    "a busy market": ("stalls", "prices", "crowd", "spices"),
    "a day at the beach": ("sand", "waves", "towel", "sunscreen"),
    "a home office": ("desk", "lamp", "focus", "chair"),
    "a school play": ("stage", "costume", "applause", "rehearsal"),
    "a small bakery": ("bread", "oven", "flour", "counter"),
    "a camping trip": ("tent", "campfire", "lantern", "forest"),
    "a bowl of soup": ("spoon", "broth", "warm", "onion"),
    "a chess game": ("king", "opening", "board", "patience"),
    "a winter storm": ("snow", "wind", "blanket", "roads"),
    "a music festival": ("concert", "drums", "tickets", "dancing"),
    "a first day at work": ("colleagues", "nervous", "lunch", "office"),
    "a flower shop": ("roses", "bouquet", "vase", "petals"),
    "a football match": ("goal", "referee", "team", "stadium"),
    "a city park": ("bench", "trees", "pond", "squirrels"),
    "a cup of coffee": ("beans", "aroma", "mug", "bitter"),
    "a family dinner": ("table", "recipe", "laughter", "dessert"),
    "an old photograph": ("memory", "frame", "album", "grandmother"),
    "a dog in the snow": ("paws", "tail", "fetch", "leash"),
    "a swimming lesson": ("pool", "breath", "teacher", "goggles"),
    "a night at the theatre": ("curtain", "actors", "audience", "drama"),
    "a trip to the zoo": ("elephants", "cages", "keeper", "monkeys"),
    "a job interview": ("questions", "handshake", "experience", "suit"),
    "a broken phone": ("screen", "repair", "battery", "backup"),
    "a house by the river": ("boat", "bridge", "current", "porch"),
    "a painting class": ("brush", "canvas", "colours", "easel"),
    "a wedding in summer": ("dress", "rings", "bride", "garden"),
    "a visit to the dentist": ("teeth", "toothbrush", "appointment", "smile"),
    "an apple orchard": ("basket", "harvest", "cider", "branches"),
    "a power cut": ("candle", "darkness", "electricity", "torch"),
    "a used car": ("engine", "mileage", "tyres", "price"),
    "a good night's sleep": ("pillow", "dreams", "bedtime", "rest"),
    "a street musician": ("guitar", "coins", "melody", "corner"),
    "a healthy breakfast": ("oats", "fruit", "yoghurt", "energy"),
    "a moving day": ("boxes", "furniture", "van", "keys"),
    "a fishing trip": ("bait", "lake", "rod", "catch"),
    "a science fair": ("experiment", "volcano", "judges", "poster"),
    "a spring cleaning": ("dust", "broom", "sponge", "windows"),
    "a snowman": ("carrot", "scarf", "buttons", "frost"),
    "a new neighbour": ("welcome", "fence", "doorbell", "introduce"),
}
"""Topic -> its words."""

HELD_OUT = {
    "a desert island": ("coconut", "palm", "rescue", "shore"),
    "a thunderstorm at night": ("lightning", "roof", "flash", "rumble"),
    "a farm in autumn": ("tractor", "barn", "pumpkins", "chickens"),
    "a public swimming bath": ("lifeguard", "locker", "splash", "lanes"),
    "a yoga class": ("mat", "stretch", "balance", "breathing"),
    "a museum of history": ("statue", "guide", "ancient", "exhibition"),
    "a homemade pizza": ("cheese", "dough", "basil", "slice"),
    "a long flight": ("airport", "pilot", "clouds", "passport"),
    "a puppet show": ("strings", "wooden", "children", "voices"),
    "a stray dog": ("shelter", "adopt", "hungry", "bark"),
    "a city marathon": ("runners", "finish", "medal", "sweat"),
    "a night under the stars": ("telescope", "moon", "planets", "sky"),
    "a second-hand bookshop": ("pages", "covers", "bargain", "author"),
    "a tea ceremony": ("leaves", "teapot", "ritual", "porcelain"),
    "a hot air balloon": ("burner", "altitude", "flight", "horizon"),
    "a lemonade stand": ("lemons", "sugar", "pitcher", "customers"),
}
"""Topic -> its words; only prompts of evaluations are about them."""

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

TASK = "instructions"
METHODS = ("gdpo", "rvpo", "rvpo_k1", "rvpo_policy", "sa_mrpo", "saw", "dara", "grpo", "maxrl", "pow3r")
"""The suite's contenders that are compared, in the order in which they are run."""


@dataclass(frozen=True)
class Settings:
    """What all cells of a folder have in common."""

    steps: int = 60
    prompts: int = 16
    rollouts: int = 8
    updates: int = 4
    """Each on another part of the batch of rollouts, as in GDPO's recipe (512 rollouts, 128 an update)."""
    passes: int = 1
    epsilon: float = 0.2
    learning_rate: float = 2e-5
    beta: float = 0.0
    tokens: int = 96
    evaluate_every: int = 10
    held_out: int = 256
    lora: int = 0


HELP = {
    "steps": "batches of rollouts of a run",
    "prompts": "prompts of a batch",
    "rollouts": "rollouts of a prompt, the group size",
    "updates": "parts of a batch, an update on each",
    "passes": "times that a batch is gone through (TRL's num_iterations)",
    "epsilon": "clip range of the policy ratio",
    "learning_rate": "after a short warm-up",
    "beta": "KL penalty to the start; the KL itself is always measured",
    "tokens": "of an answer, at most",
    "evaluate_every": "steps between two evaluations",
    "held_out": "held-out prompts, an answer each",
    "lora": "rank of adapters instead of training all weights; 0: all weights",
}
"""Setting -> help of its option."""


def cells(methods: Sequence[str], seeds: Sequence[int]) -> list[Cell]:
    """Return every method x seed, seed by seed, so that results cut short have whole seeds.

    Raises ConfigError for an unknown method, or none.
    """
    for method in methods:
        find_contender(method)
    if not methods or not seeds:
        raise ConfigError(f"there is nothing to train with methods {list(methods)} and seeds {list(seeds)}")
    return [Cell(TASK, method, seed) for seed in dict.fromkeys(seeds) for method in dict.fromkeys(methods)]
