"""A task for runs of a tiny policy: "mention rain tea owl :", with rewards for what is named and for brevity."""

import random

from rvpo import scalar_reward

TOPICS = ("rain", "tea", "owl", "salt", "moon", "silk", "iron", "moss", "lamp", "reed", "clay", "plum")


def tokenizer():
    """A tokenizer of the task's words."""
    from rvpo_lab.tasks.policy import word_tokenizer

    return word_tokenizer(["mention", ":", *TOPICS, "well", "indeed", "also", "then", "so", "quite"])


def tiny_policy(folder):
    """A random Qwen2 policy of one layer over the task's words; returns the folder."""
    from rvpo_lab.tasks.policy import build_policy

    return build_policy(folder, tokenizer(), hidden_size=32, layers=1)


def prompts(number, seed):
    """Rows with `prompt` and `topics`, two to four of them."""
    draw = random.Random(seed)
    drawn = [draw.sample(TOPICS, draw.randint(2, 4)) for _ in range(number)]
    return [{"prompt": f"mention {' '.join(topics)} :", "topics": topics} for topics in drawn]


@scalar_reward(range=(0.0, 1.0))
def mention_reward(completions, topics, **kwargs):
    """Share of the topics asked for that the answer names."""
    return [
        sum(topic in answer.split() for topic in asked) / len(asked)
        for answer, asked in zip(completions, topics, strict=True)
    ]


@scalar_reward(range=(0.0, 1.0))
def brevity_reward(completions, topics, **kwargs):
    """1 up to as many words as topics, 1/4 less for each word more."""
    extra = [max(len(answer.split()) - len(asked), 0) for answer, asked in zip(completions, topics, strict=True)]
    return [max(1.0 - words / 4, 0.0) for words in extra]
