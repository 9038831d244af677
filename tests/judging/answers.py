"""Answers to be judged, light enough to be made in any process."""

import random

from rvpo.judging.criteria import Criterion, Rubric
from rvpo.judging.grading import Item

WORDS = ("rest", "water", "dose", "warm", "child", "honey", "ice", "sleep")


def items(number, size=5, seed=0):
    """Return different answers, each with a rubric of `size` criteria, some of them pitfalls."""
    draw, made = random.Random(seed), []
    for index in range(number):
        answer = " ".join([f"answer{index}", *draw.sample(WORDS, 3)])
        criteria = [
            Criterion(str(place), f"says {word}", polarity=draw.choice(["positive", "negative"]))
            for place, word in enumerate(draw.sample(WORDS, size))
        ]
        made.append(Item(f"question {index}", answer, Rubric(tuple(criteria))))
    return made
