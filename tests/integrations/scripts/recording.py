"""A trainer that keeps what was scored, what came out, and what reached the loss; and settings for the CPU."""

import json
from pathlib import Path


def settings(folder, **changes):
    """Options of a short run on the CPU: two prompts of four rollouts a step."""
    return {
        "output_dir": str(folder),
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "per_device_train_batch_size": 8,
        "num_generations": 4,
        "max_completion_length": 8,
        "max_steps": 1,
        "logging_steps": 1,
        "save_strategy": "no",
        "beta": 0.0,
        "learning_rate": 1e-3,
        "seed": 3,
        **changes,
    }


def read_records(file):
    """The generations that a process has written."""
    return [json.loads(line) for line in Path(file).read_text().splitlines()]


def rollout_ids(tensors):
    """Token ids of prompt and completion of each rollout, as one text."""
    pairs = zip(tensors["prompt_ids"].tolist(), tensors["completion_ids"].tolist(), strict=True)
    return [f"{prompt} {completion}" for prompt, completion in pairs]


class Recording:
    """Goes in front of a trainer. `generations` has one entry a generation, `trained` one a rollout and loss."""

    record_file: Path | None = None

    def __init__(self, *args, **kwargs):
        self.generations, self.trained = [], []
        super().__init__(*args, **kwargs)

    def _calculate_rewards(self, inputs, prompts, completions, *rest, **kwargs):
        scalars = super()._calculate_rewards(inputs, prompts, completions, *rest, **kwargs)
        self._scored = {"prompts": list(prompts), "completions": list(completions), "scalars": scalars.tolist()}
        return scalars

    def _generate_and_score_completions(self, inputs):
        output = super()._generate_and_score_completions(inputs)
        generation = {
            "step": self.state.global_step,
            "training": self.model.training,
            "ids": rollout_ids(output),
            "lengths": output["completion_mask"].sum(dim=1).tolist(),
            "advantages": output["advantages"].tolist(),
            **self._scored,
        }
        self.generations.append(generation)
        if self.record_file is not None:  # at once: the process may be killed
            with self.record_file.open("a") as file:
                file.write(json.dumps(generation) + "\n")
        return output

    def _compute_loss(self, model, inputs):
        if self.model.training:
            self.trained += list(zip(rollout_ids(inputs), inputs["advantages"].tolist(), strict=True))
        return super()._compute_loss(model, inputs)
