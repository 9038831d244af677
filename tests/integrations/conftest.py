"""A tiny policy, rows, and one call that trains with a record of what happened."""

import sys
from pathlib import Path

import pytest

import mentions

SCRIPTS = Path(__file__).parent / "scripts"
sys.path.insert(0, str(SCRIPTS))


def pytest_collection_modifyitems(items):
    """transformers from 5.20 on warns of names that TRL 1.16 uses in its defaults and its trainers."""
    renamed = "ignore:`(is_)?gradient_checkpointing(_kwargs)?` is deprecated:FutureWarning"
    for item in items:
        item.add_marker(pytest.mark.filterwarnings(renamed))


@pytest.fixture(scope="session")
def policy(tmp_path_factory):
    """A random Qwen2 policy of one layer."""
    return mentions.tiny_policy(tmp_path_factory.mktemp("policy"))


@pytest.fixture(scope="session")
def rows():
    """Sixteen prompts, each once."""
    from datasets import Dataset

    unique = {row["prompt"]: row for row in mentions.prompts(40, seed=1)}
    return Dataset.from_list(list(unique.values())[:16])


@pytest.fixture
def build(policy, rows, tmp_path):
    """Return a trainer with a record: `build([reward, ...], method="gdpo", max_steps=3)`."""
    from recording import Recording, settings

    from rvpo import RVPOConfig, RVPOTrainer
    from rvpo.llm.tokenizer import load_tokenizer

    def make(rewards, *, base=RVPOTrainer, config=RVPOConfig, folder=None, peft_config=None, **options):
        trainer = type("Recorded", (Recording, base), {})
        return trainer(
            model=str(policy),
            reward_funcs=rewards,
            args=config(**settings(folder or tmp_path / "run", **options)),
            train_dataset=rows,
            eval_dataset=rows.select(range(4)) if options.get("eval_strategy", "no") != "no" else None,
            processing_class=load_tokenizer(policy),
            peft_config=peft_config,
        )

    return make


@pytest.fixture
def run(build):
    """Build, train, and return the trainer."""

    def train(rewards, *, resume=None, **options):
        trainer = build(rewards, **options)
        trainer.train(resume_from_checkpoint=resume)
        return trainer

    return train
