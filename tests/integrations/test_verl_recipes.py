"""Every recipe for verl is composed with verl's own configuration and checked by rvpo and by verl."""

import warnings
from pathlib import Path

import pytest

from rvpo.errors import ConfigError

pytest.importorskip("verl")
FOLDER = Path(__file__).resolve().parents[2] / "configs" / "paper" / "verl"
SIZES = sorted(file.stem for file in (FOLDER / "size").iterdir())
METHODS = sorted(file.stem for file in (FOLDER / "method").iterdir())
TASKS = ("rar_medicine", "rar_science", "rlla")
RUBRICS = [("rar_medicine", size, "rvpo") for size in SIZES if not size.endswith("instruct")]
TOOLS = [("rlla", size, "rvpo") for size in SIZES if size.endswith("instruct")]
RUNS = [
    *RUBRICS,
    *TOOLS,
    *(("rar_science", "qwen2.5_7b", method) for method in METHODS),
    ("rlla", "qwen2.5_3b_instruct", "rvpo_policy"),  # the one method that reads the channels' ranges
]


@pytest.fixture(scope="module")
def compose():
    hydra = pytest.importorskip("hydra")
    with hydra.initialize_config_dir(str(FOLDER), version_base=None):
        yield hydra.compose


def test_the_files_are_the_rows_of_the_paper():
    assert [len(RUBRICS), len(TOOLS)] == [3, 2]
    rows = {"grpo", "gdpo", "hard_min", "mean_variance", "rvpo", "rvpo_k5", "rvpo_policy", "rar_single"}
    assert set(METHODS) == rows


@pytest.mark.parametrize(("task", "size", "method"), RUNS)
def test_a_recipe_is_what_rvpo_and_verl_accept(compose, task, size, method):
    from rvpo.integrations.verl_main import check

    config = compose(task, [f"size={size}", f"method={method}"])
    options = check(config)
    assert options.method == {"rvpo_k5": "rvpo", "rar_single": "grpo"}.get(method, method)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from verl.trainer.ppo.utils import need_critic, need_reference_policy
        from verl.utils.config import validate_config

        assert not need_critic(config)
        assert need_reference_policy(config)  # the penalty to the reference policy
        validate_config(config=config, use_reference_policy=True, use_critic=False)
    # What the paper states.
    assert config.actor_rollout_ref.rollout.n == (4 if task == "rlla" else 16)
    assert config.actor_rollout_ref.model.path.split("-")[1] in size.replace("_instruct", "").upper()
    schedule = [options.schedule()(step, 100) for step in (0, 100)]
    assert schedule == {"rvpo": [0.5, 2.0], "mean_variance": [0.5, 2.0], "rvpo_k5": [5.0, 5.0]}.get(method, schedule)


def test_rars_single_reward_is_none_of_tool_calling(compose):
    # Its channel is not what the score function returns, so the first step ends with an error, not as plain GRPO.
    assert list(compose("rlla", ["method=rar_single"]).algorithm.rvpo.channels) == ["explicit"]


@pytest.fixture(scope="module")
def composed(compose):
    return compose("rar_medicine")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("algorithm.adv_estimator", "gdpo", "set it to rvpo"),
        ("actor_rollout_ref.rollout.n", 1, "at least 2 rollouts"),
        ("algorithm.rvpo.method", "rvop", "did you mean 'rvpo'"),
        ("algorithm.rvpo.chanels", ["a"], "did you mean 'channels'"),
        ("algorithm.use_kl_in_reward", True, "use_kl_loss"),
        ("reward.custom_reward_function.reward_kwargs", None, "judge must be a mapping"),
        ("reward.custom_reward_function.reward_kwargs.judge.modle", "x", "did you mean 'model'"),
        ("reward.custom_reward_function.reward_kwargs.judge.max_missing", 0.5, r"algorithm\.rvpo\.max_missing"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_starts(composed, name, value, message):
    from omegaconf import OmegaConf

    from rvpo.integrations.verl_main import check

    check(composed)
    config = composed.copy()
    OmegaConf.update(config, name, value, force_add=True, merge=False)
    with pytest.raises(ConfigError, match=message):
        check(config)
