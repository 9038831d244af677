"""Train on rubrics: an LLM server judges every criterion of a prompt's own rubric, and each is a reward.

vllm serve Qwen/Qwen3-8B --port 8001      # or any server with the chat API
python examples/train_with_judge.py --judge_url http://localhost:8001/v1 --judge Qwen/Qwen3-8B
"""

import argparse

import torch
from datasets import Dataset

from rvpo import RVPOConfig, RVPOTrainer
from rvpo.judging.config import JudgeConfig
from rvpo.rewards.rubric import RubricReward

# Points below 0 are for what an answer should not do. A prompt may have as many criteria as it
# needs; the logs have their means by tag.
ROWS = [
    {
        "prompt": "How much of this syrup may I take?",
        "rubric": [
            {"id": "dose", "text": "says how much at most", "points": 2, "tags": ["facts"]},
            {"id": "doctor", "text": "says when to ask a doctor", "points": 1, "tags": ["safety"]},
        ],
    },
    {
        "prompt": "My tooth hurts at night.",
        "rubric": [
            {"id": "dentist", "text": "says that a dentist should look at it", "points": 1, "tags": ["safety"]},
            {"id": "alarm", "text": "frightens the reader", "points": -1, "tags": ["tone"]},
        ],
    },
]

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--model", default="Qwen/Qwen2.5-0.5B-Instruct", help="what is trained")
parser.add_argument("--judge", default="Qwen/Qwen3-8B", help="the judge's name on its server")
parser.add_argument("--judge_url", default="http://localhost:8001/v1")
parser.add_argument("--steps", type=int, default=50)
parser.add_argument("--out", default="runs/with_judge")
options = parser.parse_args()
has_gpu = torch.cuda.is_available()

judge = JudgeConfig(
    model=options.judge,
    base_url=options.judge_url,
    store=f"{options.out}/verdicts.sqlite",  # what was paid for is not asked again
)
trainer = RVPOTrainer(
    model=options.model,
    reward_funcs=[RubricReward(judge, log_reasons=True)],
    args=RVPOConfig(
        output_dir=options.out,
        method="maxrl",
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
    train_dataset=Dataset.from_list(ROWS),
)
try:
    trainer.train()
finally:
    trainer.close_rewards()  # closes the connections, and prints what the judge was asked
