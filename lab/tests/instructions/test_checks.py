import json

import numpy as np
import pytest
import torch
from tiny import tiny_policy

from rvpo import METHODS
from rvpo_lab.cli.instructions import main
from rvpo_lab.instructions.cells import Settings
from rvpo_lab.instructions.checks import advantages_agree, checks, example_rewards, step_ratio


def test_example_rewards_have_missing_values_and_dead_channels():
    rewards = example_rewards((4, 8, 5), torch.bfloat16).double().numpy()
    assert 0.05 < np.isnan(rewards[2:]).mean() < 0.35
    assert np.isnan(rewards[1]).all()
    assert np.nanstd(rewards[0, :, 1]) == 0


def test_every_method_agrees_with_numpy_in_both_float_types():
    distances = advantages_agree("cpu")
    assert set(distances) == set(METHODS)
    for by_type in distances.values():
        assert by_type["float32"] < 1e-5
        assert by_type["bfloat16"] < 0.04  # a unit in the last place at 4


def test_a_step_of_ours_and_of_trls(tmp_path):
    policy = tiny_policy(tmp_path / "policy")
    result = step_ratio(policy, Settings(tokens=6), pairs=2)
    assert 0.2 < result["ratio"] < 5
    assert result["low"] <= result["ratio"] <= result["high"]
    assert result["grpo_s"] > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what a machine without a GPU leaves out")
def test_without_a_gpu_the_command_says_what_is_left_out(tmp_path, capsys):
    assert main(["--checks", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "No GPU: times, kernels, steps and memory are left out." in printed
    assert "| rvpo_policy |" in printed
    assert set(json.loads((tmp_path / "checks.json").read_text())["distance"]) == set(METHODS)
    assert checks(None, Settings(), tmp_path) == printed
