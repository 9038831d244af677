"""verl's own `compute_advantage` on a real DataProto calls the estimator `rvpo`."""

import json
import os
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from rvpo import METHODS, compute_advantages
from rvpo.errors import ConfigError, IntegrationError

ROOT = Path(__file__).resolve().parents[2]
NAN = float("nan")
T = 12


def k_of(method, k=2.0):
    return {"k": k} if METHODS[method].takes_k else {}


@pytest.fixture(scope="module", autouse=True)
def verl():
    """verl, which takes seconds to import, in the process that runs these tests alone."""
    return pytest.importorskip("verl")


@pytest.fixture(scope="module")
def ray_trainer():
    """verl's module, imported after the plugin as `import verl` would load it."""
    import rvpo.integrations.verl.plugin  # noqa: F401

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # engines that are not installed
        from verl.trainer.ppo import ray_trainer
    return ray_trainer


@pytest.fixture
def advantages(ray_trainer):
    """verl's advantages (P, G, T) of rewards (P, G, M), NaN meaning None, and of response lengths (P, G)."""
    from omegaconf import OmegaConf
    from verl import DataProto

    def compute(rewards, lengths, *, estimator="rvpo", order=None, **options):
        prompts, size, channels = rewards.shape
        number = prompts * size
        order = np.arange(number) if order is None else order
        mask = (torch.arange(T)[None] < torch.tensor(lengths.reshape(-1)[order])[:, None]).long()
        seen = torch.ones((number, 3), dtype=torch.long)
        names = [f"c{j}" for j in range(channels)]
        columns = {name: rewards[:, :, j].reshape(-1)[order] for j, name in enumerate(names)}
        if estimator == "rvpo":
            columns = {name: np.where(np.isnan(c), None, c) for name, c in columns.items()}
        data = DataProto.from_dict(
            tensors={
                "token_level_rewards": torch.zeros(number, T),
                "response_mask": mask,
                "prompts": seen,
                "attention_mask": torch.cat([seen, mask], dim=1),
            },
            non_tensors={"uid": np.repeat(list("abcdefgh")[:prompts], size).astype(object)[order], **columns},
        )
        algorithm = {"adv_estimator": estimator, "gdpo_reward_keys": names, **({"rvpo": options} if options else {})}
        data = ray_trainer.compute_advantage(data, adv_estimator=estimator, config=OmegaConf.create(algorithm))
        returned = torch.empty(number, T)
        returned[torch.as_tensor(order)] = data.batch["advantages"].float()
        np.testing.assert_array_equal(data.batch["advantages"], data.batch["returns"])
        return returned.reshape(prompts, size, T).numpy()

    return compute


def some_rewards(seed, shape=(5, 4, 3)):
    # Halves: means of four that float32, in which verl computes, holds.
    return np.random.default_rng(seed).integers(0, 3, shape) / 2.0


def some_lengths(seed, shape=(5, 4)):
    return np.random.default_rng(seed + 100).integers(1, T - 1, shape)


def by_token(values, lengths):
    return values[..., None] * (np.arange(T) < lengths[..., None])


@pytest.mark.parametrize("method", ["rvpo", "gdpo"])
def test_at_k_0_it_is_verls_own_gdpo(advantages, method):
    largest = 0.0
    for seed in range(10):
        rewards, lengths = some_rewards(seed), some_lengths(seed)
        verls = advantages(rewards, lengths, estimator="gdpo")
        # verl's conventions: 1e-6 beside the group's std, whitening over tokens.
        ours = advantages(rewards, lengths, method=method, **k_of(method, 0.0), whiten="token", std_eps=1e-6)
        assert np.abs(verls).max() > 0.5
        largest = max(largest, np.abs(ours - verls).max())
    assert largest < 1e-5


@pytest.mark.parametrize("method", sorted(METHODS))
def test_it_is_compute_advantages_on_every_token_in_any_order(advantages, method):
    rewards, lengths = some_rewards(0), some_lengths(0)
    order = np.random.default_rng(0).permutation(20)
    returned = advantages(rewards, lengths, order=order, method=method, **k_of(method))
    expected = compute_advantages(rewards, method=method, k=2.0).advantages
    np.testing.assert_allclose(returned, by_token(expected, lengths), atol=1e-6)


def test_the_length_of_responses_changes_nothing(advantages):
    rewards = some_rewards(1)
    first = advantages(rewards, np.full((5, 4), 5), k=2.0)[:, :, 0]
    for seed in range(3):
        np.testing.assert_array_equal(advantages(rewards, some_lengths(seed), k=2.0)[:, :, 0], first)


def test_one_missing_component_leaves_every_other_advantage_finite_and_masked(advantages):
    rewards, lengths = some_rewards(2), some_lengths(2)
    rewards[1, 2, 0] = NAN
    # verl's own estimator turns the whole batch to NaN.
    assert np.isnan(advantages(rewards, lengths, estimator="gdpo")[:, :, 0]).all()
    returned = advantages(rewards, lengths, k=2.0)
    assert np.isfinite(returned).all()
    np.testing.assert_allclose(returned, by_token(compute_advantages(rewards, k=2.0).advantages, lengths), atol=1e-6)


def test_rubrics_of_different_length_travel_as_text(ray_trainer):
    from omegaconf import OmegaConf
    from verl import DataProto

    values = np.random.default_rng(8).integers(0, 2, (2, 4, 3)).astype(float)
    values[0, :, 2] = NAN  # the first prompt has two criteria
    values[1, 3, 1] = NAN
    texts = [
        json.dumps({f"c{j}": None if np.isnan(row[j]) else row[j] for j in range(2 + p)})
        for p, group in enumerate(values)
        for row in group
    ]
    data = DataProto.from_dict(
        tensors={"token_level_rewards": torch.zeros(8, 1), "response_mask": torch.ones(8, 1, dtype=torch.long)},
        non_tensors={"uid": np.repeat(["a", "b"], 4).astype(object), "rubric": np.array(texts)},
    )
    config = OmegaConf.create({"rvpo": {"channels": ["rubric"], "k": 2.0}})
    returned = ray_trainer.compute_advantage(data, adv_estimator="rvpo", config=config).batch["advantages"][:, 0]
    np.testing.assert_allclose(returned, compute_advantages(values, k=2.0).advantages.ravel(), atol=1e-6)


def test_the_channels_metrics_join_verls(ray_trainer, advantages):
    from rvpo.integrations.verl import hooks as verl_hooks

    verl_hooks._take_metrics()
    rewards = some_rewards(3)
    rewards[0, 0, 0] = NAN
    advantages(rewards, some_lengths(3), k=2.0)
    advantages(some_rewards(4), some_lengths(4), k=2.0)
    batch = metrics_batch()
    logged = ray_trainer.compute_data_metrics(batch=batch, use_critic=False)
    assert "critic/score/mean" in logged
    assert logged["rvpo/k"] == 2.0
    assert logged["channels/c0/missing"] == pytest.approx((1 / 20 + 0) / 2)  # the mean of a step's two batches
    means = [np.nanmean(rewards[:, :, 0]), some_rewards(4)[:, :, 0].mean()]
    assert logged["channels/c0/mean"] == pytest.approx(np.mean(means))
    assert not any(name.startswith("channels/") for name in ray_trainer.compute_data_metrics(batch, use_critic=False))


def metrics_batch():
    """What `compute_data_metrics` needs of a batch."""
    from verl import DataProto

    ones = torch.ones(2, 3)
    names = ("token_level_scores", "token_level_rewards", "advantages", "returns", "responses", "prompts")
    tensors = dict.fromkeys(names, ones) | {"response_mask": ones.long()}
    return DataProto.from_dict(tensors=tensors | {"attention_mask": torch.ones(2, 6, dtype=torch.long)})


def test_a_schedule_needs_the_step_and_takes_the_legacy_trainers(ray_trainer, advantages):
    from rvpo.integrations.verl import hooks as verl_hooks

    annealed = {"k_schedule": "linear", "k": 0.5, "k_end": 2.0}
    rewards, lengths = some_rewards(5), some_lengths(5)
    with pytest.raises(IntegrationError, match="step of the run"):
        advantages(rewards, lengths, **annealed)
    trainer = object.__new__(ray_trainer.RayPPOTrainer)
    trainer.global_steps, trainer.total_training_steps = 6, 10  # verl counts from 1: half of the run is done
    try:
        trainer._get_gen_batch(metrics_batch())  # what its loop calls at the beginning of every step
        returned = advantages(rewards, lengths, **annealed)
    finally:
        verl_hooks._TRAINER.set(None)
    np.testing.assert_allclose(returned[:, :, 0], compute_advantages(rewards, k=1.25).advantages, atol=1e-6)


def test_other_estimators_pass_through(ray_trainer, advantages):
    from verl.trainer.ppo import core_algos

    rewards, lengths = some_rewards(6), some_lengths(6)
    assert core_algos.get_adv_estimator_fn("gdpo") is core_algos.compute_gdpo_outcome_advantage
    assert np.abs(advantages(rewards, lengths, estimator="gdpo")).max() > 0.5


def test_kl_in_the_reward_is_refused(ray_trainer):
    from omegaconf import OmegaConf
    from verl.trainer.ppo import core_algos

    config = OmegaConf.create({"use_kl_in_reward": True, "rvpo": {"channels": ["a"]}})
    with pytest.raises(ConfigError, match="use_kl_loss"):
        core_algos.get_adv_estimator_fn("rvpo")(torch.zeros(2, 1), torch.ones(2, 1), config=config, index=["p", "p"])


def test_a_reward_model_beside_the_trainer_leaves_channels_as_fields_of_their_own():
    from types import SimpleNamespace

    from verl.utils.tensordict_utils import get_tensordict

    from rvpo.integrations.verl import hooks as verl_hooks

    texts = ['{"c": 1.0}', '{"c": null}', '{"d": 0.0}']
    # As PPOTrainer._compute_reward_colocate writes them.
    fields = get_tensordict({"rubric": np.array(texts), "format": np.array([1.0, None, 0.5], dtype=object)})
    queue = SimpleNamespace(
        kv_batch_get=lambda keys, partition_id, select_fields: fields.select(*select_fields, strict=False)
    )
    tags = [{}, {}, {"is_padding": True}]
    batch = SimpleNamespace(keys=["u_0_0", "u_1_0", "pad_0_0"], partition_id="train", tags=tags)
    rows = verl_hooks._queued_rows(queue, batch, ["rubric", "format"])
    assert [row["rubric"] for row in rows.infos] == texts
    assert [row["format"] for row in rows.infos] == [1.0, None, 0.5]
    assert rows.is_real == [True, True, False]
    assert rows.sessions == [("u_0", 0), ("u_1", 0), ("pad_0", 0)]


@pytest.mark.parametrize(
    "method",
    [
        {"method": "rvpo_policy", "method_options": {"anchor": "average"}, "anchor_decay": 0.5},
        {"method": "gdpo", "channel_targets": {"c0": 0.9}, "target_rate": 5.0},
    ],
    ids=["moving averages", "multipliers"],
)
def test_what_is_known_of_the_channels_goes_with_verls_checkpoints(tmp_path, advantages, method):
    from omegaconf import OmegaConf

    from rvpo.integrations.verl import hooks as verl_hooks

    rewards, lengths = some_rewards(7), some_lengths(7)
    algorithm = {"adv_estimator": "rvpo", "gdpo_reward_keys": ["c0", "c1", "c2"], "rvpo": method}
    places = {"default_local_dir": str(tmp_path), "resume_mode": "auto", "resume_from_path": None}

    class Trainer:
        config = OmegaConf.create(
            {"algorithm": algorithm, "trainer": places, "actor_rollout_ref": {"rollout": {"n": 4}}}
        )
        global_steps = 4

        def _save_checkpoint(self):
            (tmp_path / "global_step_4").mkdir()

        def _load_checkpoint(self):
            pass

    verl_hooks.keep_state(Trainer)
    verl_hooks._ESTIMATORS.clear()
    advantages(rewards, lengths, **method)
    Trainer()._save_checkpoint()
    going_on = advantages(1.0 - rewards, lengths, **method)
    verl_hooks._ESTIMATORS.clear()  # another process
    anew = advantages(1.0 - rewards, lengths, **method)
    verl_hooks._ESTIMATORS.clear()
    Trainer()._load_checkpoint()
    np.testing.assert_array_equal(advantages(1.0 - rewards, lengths, **method), going_on)
    Trainer.config.actor_rollout_ref.rollout.n = 8
    with pytest.raises(ConfigError, match="group size 4 -> 8"):
        Trainer()._load_checkpoint()
    Trainer.config.algorithm.rvpo.allow_changed_settings = True
    Trainer()._load_checkpoint()
    Trainer.config.algorithm.rvpo.allow_changed_settings = False
    (tmp_path / "global_step_4" / "rvpo_state.json").unlink()
    with pytest.raises(ConfigError, match=r"global_step_4 has no rvpo_state.json, which is written last"):
        Trainer()._load_checkpoint()
    assert np.abs(anew - going_on).max() > 1e-3


CODE = """
import json, sys, warnings
warnings.simplefilter("ignore")
import verl
loaded = "verl.trainer.ppo.core_algos" in sys.modules
from verl.trainer.ppo.core_algos import get_adv_estimator_fn
print(json.dumps([loaded, get_adv_estimator_fn("rvpo").__module__]))
"""


def test_an_installed_rvpo_is_a_plugin_that_import_verl_loads(tmp_path):
    # As an installation writes it; VERL_USE_EXTERNAL_MODULES is what test_verl_program.py uses.
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["verl.plugins"]
    folder = tmp_path / "rvpo_as_installed-0.1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: rvpo-as-installed\nVersion: 0.1.0\n")
    lines = [f"{name}_here = {value}" for name, value in points.items()]
    (folder / "entry_points.txt").write_text("\n".join(["[verl.plugins]", *lines]))
    environment = os.environ | {
        "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{tmp_path}",
        "OMP_NUM_THREADS": "1",
        "VERL_USE_EXTERNAL_MODULES": "",
        "VERL_USE_EXTERNAL_PLUGINS": ",".join(f"{name}_here" for name in points),
    }
    done = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1]) == [False, "rvpo.integrations.verl.hooks"]
