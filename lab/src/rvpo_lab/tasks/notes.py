"""A task with two rewards in conflict: mention what is asked for, and be brief.

A prompt names 2 to 4 of 12 topics, "mention rain tea owl :". Two channels grade the answer exactly:

- `mention`: share of the topics asked for that the answer names, in [0, 1].
- `brevity`: 1 up to as many words as topics were asked for, then 1/4 less for each word more, in [0, 1].

Naming every topic meets the first and fails the second; an empty answer does the reverse. The supervised
answers of the warm start name each topic with probability 0.6 and add up to six words nobody asked for, so
that both channels start in the middle.
"""

import random
from typing import Any

from rvpo.rewards.channels import scalar_reward

__all__ = ["TOPICS", "brevity_reward", "mention_reward", "prompts", "warm_start_pairs", "words"]

TOPICS = ("rain", "tea", "owl", "salt", "moon", "silk", "iron", "moss", "lamp", "reed", "clay", "plum")
FILLERS = ("well", "indeed", "also", "then", "so", "quite")


def words() -> list[str]:
    """Return every word of the task."""
    return ["mention", ":", *TOPICS, *FILLERS]


def _asked(draw: random.Random) -> list[str]:
    return draw.sample(TOPICS, draw.randint(2, 4))


def prompts(number: int, seed: int) -> list[dict[str, Any]]:
    """Return rows with `prompt` and `topics`, drawn by the seed."""
    draw = random.Random(seed)
    asked = [_asked(draw) for _ in range(number)]
    return [{"prompt": f"mention {' '.join(topics)} :", "topics": topics} for topics in asked]


def warm_start_pairs(number: int, seed: int) -> list[tuple[str, str]]:
    """Return (prompt, answer) pairs of a wordy author who forgets topics."""
    draw = random.Random(seed)
    pairs = []
    for _ in range(number):
        topics = _asked(draw)
        answer = [topic for topic in topics if draw.random() < 0.6]
        answer += draw.choices(FILLERS, k=draw.randint(0, 6))
        draw.shuffle(answer)
        pairs.append((f"mention {' '.join(topics)} :", " ".join(answer)))
    return pairs


@scalar_reward(range=(0.0, 1.0))
def mention_reward(completions: list[str], topics: list[list[str]], **kwargs: Any) -> list[float]:
    """Share of the topics asked for that the answer names, in [0, 1]."""
    return [
        sum(topic in answer.split() for topic in asked) / len(asked)
        for answer, asked in zip(completions, topics, strict=True)
    ]


@scalar_reward(range=(0.0, 1.0))
def brevity_reward(completions: list[str], topics: list[list[str]], **kwargs: Any) -> list[float]:
    """1 up to as many words as topics, 1/4 less for each word more, in [0, 1]."""
    extra = [max(len(answer.split()) - len(asked), 0) for answer, asked in zip(completions, topics, strict=True)]
    return [max(1.0 - words_too_many / 4, 0.0) for words_too_many in extra]
