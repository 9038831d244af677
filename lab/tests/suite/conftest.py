"""Small cells made by hand."""

import pytest

from rvpo_lab.suite.storage import CellRecord


def record(task="rubric", contender="gdpo", seed=0, *, means):
    """Return a cell of four held-out prompts whose channels have the given means at steps 0, 10, ...

    `means` maps a criterion to its means, multiples of 1/4: that share of the prompts meets it.
    """
    steps = [10 * index for index in range(len(next(iter(means.values()))))]
    held_out = {
        (prompt, criterion): [float(prompt < 4 * mean) for mean in course]
        for criterion, course in means.items()
        for prompt in range(4)
    }
    about = {
        "task": task,
        "contender": contender,
        "seed": seed,
        "settings": {
            "steps": steps[-1], "prompts_per_step": 8, "num_generations": 8, "learning_rate": 5e-4, "beta": 0.0,
            "evaluate_every": 10, "held_out_prompts": 4,
        },
        "versions": {"rvpo": "0.1.0", "trl": "1.16.0"},
    }  # fmt: skip
    return CellRecord(
        about,
        [f"prompt {index}" for index in range(4)],
        steps=steps,
        held_out=held_out,
        rollouts=[(1, 0, "accuracy/dose", [1.0, 0.0, float("nan")])],
        logged_steps=[5, 10],
        log={"rvpo/k": [0.5, 1.0], "channels/rubric_reward/accuracy/weight": [0.2, float("nan")]},
        samples=[(0, 0, "hello"), (10, 0, "<b>take care</b>")],
    )


@pytest.fixture
def make_record():
    return record
