"""Train on two reward functions, one of which returns several rewards. A script for TRL, with another trainer.

python examples/train_two_rewards.py --model Qwen/Qwen2.5-0.5B-Instruct --steps 50
rvpo audit runs/two_rewards      # which reward is neglected
"""

import argparse

import torch
from datasets import Dataset

from rvpo import Channel, RVPOConfig, RVPOTrainer, scalar_reward, vector_reward

PROMPTS = [
    f"Explain in a sentence what {thing} is." for thing in ("rain", "a tide", "rust", "yeast", "a comet", "salt")
]


@scalar_reward(range=(-1, 0))
def length(completion_ids, **kwargs):
    """A reward as TRL has them, a number for each completion: the shorter, the better."""
    return [-min(len(ids), 64) / 64 for ids in completion_ids]


@vector_reward("sentence", "plain", Channel("polite", weight=0.5), range=(0, 1))
def form(completions, **kwargs):
    """Three rewards of one function, by name. None: no value, here for an answer without words."""
    return [
        {
            "sentence": float(text.strip().endswith(".") and text.count(".") == 1),
            "plain": 1 - min(sum(len(word) > 9 for word in text.split()), 4) / 4,
            "polite": float("please" in text.lower()) if text.split() else None,
        }
        for text in completions
    ]


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--model", default="Qwen/Qwen2.5-0.5B-Instruct", help="a name on the hub, or a folder")
parser.add_argument("--steps", type=int, default=50)
parser.add_argument("--out", default="runs/two_rewards")
options = parser.parse_args()
has_gpu = torch.cuda.is_available()

trainer = RVPOTrainer(
    model=options.model,
    reward_funcs=[length, form],
    args=RVPOConfig(
        output_dir=options.out,
        method="rvpo_policy",  # for rewards with partial credit; the other lines are TRL's
        max_steps=options.steps,
        per_device_train_batch_size=8,
        num_generations=4,
        max_completion_length=64,
        logging_steps=1,
        log_completions=True,
        use_cpu=not has_gpu,
        bf16=has_gpu,
        report_to="none",
    ),
    train_dataset=Dataset.from_dict({"prompt": PROMPTS}),
)
trainer.train()
trainer.save_model(options.out)
