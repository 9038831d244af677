"""A rollout folder that verl's own trainer wrote, from its own batch to its own file."""

import json
import warnings

import numpy as np
import pytest

from rvpo.cli.main import main
from rvpo_lab.tasks.policy import word_tokenizer


def dump(folder):
    """Let verl's trainer write two steps: six prompts of four rollouts with random rewards."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from verl import DataProto
        from verl.trainer.ppo.ray_trainer import RayPPOTrainer

    trainer = object.__new__(RayPPOTrainer)  # its __init__ asks for a cluster
    trainer.tokenizer = word_tokenizer(["rain", "tea", "owl", "salt", "moon", "silk", "iron", "moss", "lamp"])
    trainer._init_dump_executor()
    draw = np.random.default_rng(0)
    words = len(trainer.tokenizer)
    for step in (1, 2):
        prompts = torch.from_numpy(draw.integers(4, words, (6, 5)).repeat(4, axis=0))
        correct, form = draw.integers(0, 2, 24), draw.integers(0, 2, 24)
        scores = torch.zeros(24, 8)
        scores[:, -1] = torch.from_numpy(correct + form)
        order = draw.permutation(24)  # as balanced over workers
        batch = DataProto.from_dict(
            tensors={
                "prompts": prompts[order],
                "responses": torch.from_numpy(draw.integers(4, words, (24, 8))),
                "token_level_scores": scores[order],
            },
            non_tensors={
                "reward_model": np.array([{"ground_truth": str(i)} for i in order], dtype=object),
                "request_id": np.array([f"id-{i}" for i in order], dtype=object),
            },
        )
        extras = {
            "correct": correct[order].astype(float),
            "form": form[order].tolist(),
            "pred": [str(i) for i in order],
        }
        trainer.global_steps = step
        trainer._log_rollout_data(batch, extras, {}, str(folder))
    trainer._shutdown_dump_executor()


def test_what_verls_trainer_dumps_needs_its_path_alone(tmp_path, capsys):
    pytest.importorskip("verl")
    folder = tmp_path / "rollouts"
    dump(folder)
    data = tmp_path / "audit.json"
    assert main(["audit", str(folder), "--json", str(data)]) == 0
    assert "verl rollouts: 2 files" in capsys.readouterr().out
    result = json.loads(data.read_text())
    assert (result["rollouts"], result["groups"], result["steps"]) == (48, 12, [1.0, 2.0])
    assert [channel["name"] for channel in result["channels"]] == ["correct", "form"]
    rows = [json.loads(line) for file in folder.iterdir() for line in file.read_text().splitlines()]
    for channel in result["channels"]:
        assert channel["mean"]["value"] == pytest.approx(np.mean([row[channel["name"]] for row in rows]))
