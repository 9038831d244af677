"""Every recipe for verl is composed with verl's own configuration, checked by rvpo and by verl, and dry-run.

A dry run takes a tiny Qwen2 with random weights in place of the model: it samples, the recipe's score function scores,
verl computes the advantages and its policy loss as the recipe says, and the gradient reaches the weights.
"""

import asyncio
import copy
import functools
import inspect
import json
import math
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
import yaml

from judging.fault_server import FaultServer
from recipe_parts import TEMPLATE, TRUTH, by_hash
from rvpo.errors import ConfigError

FOLDER = Path(__file__).resolve().parents[2] / "configs" / "paper" / "verl"
COMMON = yaml.safe_load((FOLDER / "common.yaml").read_text())
SIZES, METHODS = sorted(COMMON["sizes"]), sorted(COMMON["methods"])
TASKS = ("rar_medicine", "rar_science", "rlla")
ROWS = [
    (task, size, method)
    for task in TASKS
    for size in SIZES
    for method in METHODS
    # RaR's single reward is none of tool calling, which has instruct models.
    if (task == "rlla") == size.endswith("instruct") and (task, method) != ("rlla", "rar_single")
]


@pytest.fixture(scope="module", autouse=True)
def verl():
    """verl, which takes seconds to import, in the process that runs these tests alone."""
    return pytest.importorskip("verl")


@pytest.fixture(scope="module")
def compose():
    """Hydra's, which reads each of the forty files of verl's configuration once, not for every recipe."""
    hydra = pytest.importorskip("hydra")
    from omegaconf import OmegaConf

    read, files = OmegaConf.load, {}

    def load(file):
        if file.name not in files:
            files[file.name] = read(file)
        return copy.deepcopy(files[file.name])

    with pytest.MonkeyPatch.context() as patch, hydra.initialize_config_dir(str(FOLDER), version_base=None):
        patch.setattr(OmegaConf, "load", load)
        yield hydra.compose


@pytest.fixture(scope="module")
def recipe(compose):
    """The configuration of a row, not to be changed; a task is composed once, size and method are looked up in it."""
    composed = functools.cache(compose)

    @functools.cache
    def of_row(task, size, method):
        config = composed(task).copy()
        config.size, config.method = size, method
        return config

    return of_row


@pytest.mark.parametrize(
    "row", [("rlla", "qwen2.5_3b_instruct", "gdpo"), ("rar_science", "qwen2.5_14b", "rar_single")]
)
def test_a_row_is_what_the_command_line_composes(recipe, compose, row):
    assert compose(row[0], [f"size={row[1]}", f"method={row[2]}"]) == recipe(*row)


def test_the_tables_are_the_rows_of_the_paper():
    assert len(ROWS) == 2 * 3 * 8 + 2 * 7
    rows = {"grpo", "gdpo", "hard_min", "mean_variance", "rvpo", "rvpo_k5", "rvpo_policy", "rar_single"}
    assert set(METHODS) == rows


@pytest.mark.parametrize(("task", "size", "method"), ROWS)
def test_a_recipe_is_what_rvpo_and_verl_accept(recipe, task, size, method):
    from rvpo.integrations.verl.main import check

    config = recipe(task, size, method)
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


# --- With a tiny policy ---

LONGEST = 8
RUBRIC = [
    {"id": f"c{number}", "text": f"says {number}", "points": points, "polarity": polarity, "tags": [tag]}
    for number, (points, polarity, tag) in enumerate(
        [(5.0, "positive", "essential"), (3.0, "positive", "important"), (-1.0, "negative", "pitfall")]
    )
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from rvpo_lab.tasks.policy import build_policy, byte_tokenizer

    made = tmp_path_factory.mktemp("verl_recipes")
    return build_policy(made, byte_tokenizer([], 300, chat_template=TEMPLATE), hidden_size=32, layers=1)


@pytest.fixture(scope="module")
def server():
    with FaultServer(reply=by_hash) as running:
        yield running


def sample(model, prompts, number):
    """Answers to each prompt (P * number rows of prompt and LONGEST tokens)."""
    torch.manual_seed(0)
    ids = torch.tensor(prompts).repeat_interleave(number, dim=0)
    with torch.no_grad():
        return model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=True,
            min_new_tokens=LONGEST,
            max_new_tokens=LONGEST,
        )


def scores(function, texts, task):
    """What the recipe's score function says of each text, called as verl calls it."""
    rubric = {"ground_truth": json.dumps(RUBRIC), "extra_info": {"prompt": '[{"role": "user", "content": "q"}]'}}
    row = {"ground_truth": TRUTH, "extra_info": {}} if task == "rlla" else rubric

    async def all_of_them():
        scored = [function(data_source=task, solution_str=text, **row) for text in texts]
        return [await score if inspect.isawaitable(score) else score for score in scored]

    return asyncio.run(all_of_them())


def merged(below, above):
    """Nested dicts, the second over the first."""
    both = {key: merged(below[key], value) for key, value in above.items() if isinstance(value, dict)}
    return {**below, **above, **both}


class DryRun(NamedTuple):
    advantages: torch.Tensor
    loss: float
    gradient: float
    """Norm over all weights."""


@pytest.fixture(scope="module")
def dry_runs():
    """Configuration -> its dry run."""
    return {}


def dry_run(config, task, model, number):
    """Sample, score, and compute verl's advantages and its policy loss, as a recipe says."""
    import rvpo.integrations.verl.plugin  # noqa: F401

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # engines that are not installed
        from verl import DataProto
        from verl.trainer.ppo import core_algos, ray_trainer
        from verl.trainer.ppo.reward import get_custom_reward_fn
        from verl.utils.config import omega_conf_to_dataclass

    from rvpo.integrations.verl import hooks as verl_hooks

    prompts = [[5, 6, 7], [8, 9, 10]]
    ids = sample(model, prompts, number)
    texts = [" ".join(map(str, row)) for row in ids[:, 3:].tolist()]
    if task == "rlla":  # random tokens make no call: half of the answers are given the form
        texts[::2] = [TRUTH] * number
    scored = scores(get_custom_reward_fn(config), texts, task)

    mask = torch.ones(len(ids), LONGEST, dtype=torch.long)
    data = DataProto.from_dict(
        tensors={"token_level_rewards": torch.zeros(mask.shape), "response_mask": mask},
        non_tensors={
            "uid": np.repeat(["a", "b"], number).astype(object),
            **{key: np.array([row[key] for row in scored], dtype=object) for key in scored[0]},
        },
    )
    trainer = object.__new__(ray_trainer.RayPPOTrainer)
    trainer.global_steps, trainer.total_training_steps = 1, config.trainer.total_training_steps
    try:
        verl_hooks._TRAINER.set(trainer)
        data = ray_trainer.compute_advantage(
            data, adv_estimator=config.algorithm.adv_estimator, config=config.algorithm
        )
    finally:
        verl_hooks._TRAINER.set(None)
    advantages = data.batch["advantages"]

    logits = model(ids).logits[:, 2:-1]
    log_probs = torch.log_softmax(logits, -1).gather(2, ids[:, 3:, None])[..., 0]
    actor = omega_conf_to_dataclass(config.actor_rollout_ref.actor)
    loss, _ = core_algos.compute_policy_loss_vanilla(
        old_log_prob=log_probs.detach(), log_prob=log_probs, advantages=advantages, response_mask=mask, config=actor
    )
    loss.backward()
    gradients = [weight.grad.norm() for weight in model.parameters() if weight.grad is not None]
    return DryRun(advantages, loss.item(), float(sum(gradients)))


@pytest.mark.parametrize(("task", "size", "method"), ROWS)
def test_a_dry_run_of_every_recipe(recipe, folder, server, dry_runs, tmp_path, task, size, method):
    from omegaconf import OmegaConf
    from transformers import Qwen2ForCausalLM

    replaced = {
        "actor_rollout_ref": {"model": {"path": str(folder)}, "rollout": {"tensor_model_parallel_size": 1}},
        "data": {"train_files": None, "val_files": None},
        "trainer": {"experiment_name": None},
        "size": None,
    }
    # Recipes that differ in what is replaced alone share a dry run.
    configuration = str(merged(OmegaConf.to_container(recipe(task, size, method)), replaced))
    if configuration not in dry_runs:
        if task != "rlla":
            judge = {"base_url": server.url, "store": str(tmp_path / "v.sqlite")}
            replaced["reward"] = {"custom_reward_function": {"reward_kwargs": {"judge": judge}}}
        config = OmegaConf.merge(recipe(task, size, method), replaced)
        model = Qwen2ForCausalLM.from_pretrained(config.actor_rollout_ref.model.path)
        dry_runs[configuration] = dry_run(config, task, model, config.actor_rollout_ref.rollout.n)
    run = dry_runs[configuration]
    assert run.advantages.isfinite().all()
    assert run.advantages[:, 0].std() > 0.1
    assert math.isfinite(run.loss)
    assert run.gradient > 0
    assert len(dry_runs) <= 8 + 7  # methods of RaR and of RLLA


def test_rars_single_reward_is_none_of_tool_calling(compose):
    # Its channel is not what the score function returns, so the first step ends with an error, not as plain GRPO.
    assert list(compose("rlla", ["method=rar_single"]).algorithm.rvpo.channels) == ["explicit"]


@pytest.mark.parametrize(
    ("task", "method", "channels"),
    [("rlla", "gdpo", ["format", "correctness"]), ("rar_science", "rar_single", ["explicit"])],
)
def test_a_recipe_resolves_as_verl_does_it_at_the_start(compose, task, method, channels):
    from omegaconf import OmegaConf

    config = compose(task, [f"method={method}"])
    OmegaConf.resolve(config)
    assert OmegaConf.to_container(config.algorithm.rvpo)["channels"] == channels


def test_a_method_without_a_row_is_taken_by_its_name_and_a_misspelt_one_refused(compose):
    from rvpo.integrations.verl.main import check

    assert check(compose("rar_medicine", ["method=cvar"])).method == "cvar"
    with pytest.raises(ConfigError, match="did you mean 'grpo'"):
        check(compose("rar_medicine", ["method=gpro"]))


@pytest.fixture(scope="module")
def composed(compose):
    return compose("rar_medicine")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("algorithm.adv_estimator", "gdpo", "set it to rvpo"),
        ("actor_rollout_ref.rollout.n", 1, "at least 2 rollouts"),
        ("algorithm.rvpo.method", "rvop", "did you mean 'rvpo'"),
        ("size", "qwen2.5_7", "did you mean 'qwen2.5_7b'"),
        ("algorithm.rvpo.chanels", ["a"], "did you mean 'channels'"),
        ("algorithm.use_kl_in_reward", True, "use_kl_loss"),
        ("reward.custom_reward_function.reward_kwargs", None, "judge must be a mapping"),
        ("reward.custom_reward_function.reward_kwargs.judge.modle", "x", "did you mean 'model'"),
        ("reward.custom_reward_function.reward_kwargs.judge.max_missing", 0.5, r"algorithm\.rvpo\.max_missing"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_starts(composed, name, value, message):
    from omegaconf import OmegaConf

    from rvpo.integrations.verl.main import check

    check(composed)
    config = composed.copy()
    OmegaConf.update(config, name, value, force_add=True, merge=False)
    with pytest.raises(ConfigError, match=message):
        check(config)


def test_a_tokenizer_that_drops_the_tags_of_tool_calls_is_refused(composed, tmp_path):
    from omegaconf import OmegaConf

    from rvpo.integrations.verl.main import check
    from rvpo_lab.tasks.policy import word_tokenizer

    config = composed.copy()
    rewards = {"path": "pkg://rvpo.integrations.verl.rewards", "name": "tool_calling"}
    OmegaConf.update(config, "reward.custom_reward_function", rewards, force_add=True, merge=False)
    OmegaConf.update(config, "actor_rollout_ref.model.path", str(tmp_path), force_add=True)
    tokenizer = word_tokenizer(["<think>", "</think>", "<tool_call>"])
    tokenizer.save_pretrained(tmp_path)
    check(config)
    tokenizer.add_tokens(["</tool_call>", "<response>"], special_tokens=True)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="tool_calling reads </tool_call>, <response> in completions"):
        check(config)
