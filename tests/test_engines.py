"""The code of docs/engines.md: run as it stands, with TRL itself, and with the released source of engines that need a
GPU: the functions that the code replaces or calls, as they stand in their wheels."""

import ast
import asyncio
import contextlib
import enum
import functools
import importlib.util
import itertools
import logging
import math
import os
import re
import sys
import typing
from collections import defaultdict as Lists
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch
from accelerate import PartialState

import mentions
from rvpo import compute_advantages
from rvpo.errors import RewardError
from rvpo.integrations.rows import advantages_of_rows

DOCUMENT = Path(__file__).parents[1] / "docs" / "engines.md"
NAN = math.nan
REWARDS = [[1.0, 0.0, NAN], [0.0, 1.0, NAN], [1.0, 1.0, NAN], [0.0, NAN, NAN]]
REWARDS += [[0.2, 1.0, 0.0], [0.4, 0.0, 1.0], [0.6, 0.0, 1.0], [0.8, 1.0, 0.5]]
"""Two prompts of four rollouts; the first has no third criterion."""
TYPES = {name: getattr(typing, name) for name in ("Any", "Callable", "Dict", "List", "Optional", "Tuple", "Union")}


def expected(rewards, group_size, **options):
    return compute_advantages(np.asarray(rewards), group_size=group_size, method="rvpo", k=2.0, **options).advantages


def code_of(heading):
    """The Python block under a heading."""
    section = re.search(rf"^## {re.escape(heading)}$(.*?)(?=^## |\Z)", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)[
        1
    ]
    (block,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    return block


@pytest.fixture
def execute(monkeypatch):
    """Run the block under a heading as a module, with stand-ins for the modules that it imports."""

    def run(heading, **standins):
        for name, members in standins.items():
            path = name.replace("__", ".").split(".")
            for length in range(1, len(path) + 1):
                full = ".".join(path[:length])
                module = ModuleType(full)
                module.__path__ = []
                monkeypatch.setitem(sys.modules, full, module)
                if length > 1:
                    setattr(sys.modules[".".join(path[: length - 1])], path[length - 1], module)
            vars(module).update(members)
        module = ModuleType("snippet")
        monkeypatch.setitem(sys.modules, "snippet", module)
        exec(compile(code_of(heading), f"{DOCUMENT.name}: {heading}", "exec"), vars(module))  # code of this repository
        return module

    return run


# --- Rows in any order ---


def test_rows_in_any_order_are_those_of_whole_groups():
    order = [3, 0, 7, 5, 2, 6, 1, 4]
    shuffled = [REWARDS[row] for row in order]
    advantages = advantages_of_rows(shuffled, ["ab"[row // 4] for row in order], method="rvpo", k=2.0)
    np.testing.assert_allclose(advantages, expected(REWARDS, 4)[order])
    tokens = torch.tensor([[row // 4, 9] for row in order])
    of_torch = advantages_of_rows(torch.tensor(shuffled, dtype=torch.float64), tokens, method="rvpo", k=2.0)
    np.testing.assert_array_equal(of_torch, advantages)
    halves = [[1.0, 0.5], [0.0, 1.0]]  # exact in bfloat16
    of_half = advantages_of_rows(torch.tensor(halves, dtype=torch.bfloat16), [1, 1])
    np.testing.assert_array_equal(of_half, advantages_of_rows(halves, [1, 1]))


def test_prompts_may_have_different_numbers_of_rollouts():
    rewards = [[1.0, 0.0], [0.0, 0.0], [1.0, 1.0], [0.0, 1.0], [1.0, 1.0]]
    advantages = advantages_of_rows(rewards, [5, 6, 5, 6, 5], method="gdpo", whiten=False, eps=0.0)
    # Prompt 5: channel 1 is dead, channel 2 has 0, 1, 1: mean 2/3, sample deviation 1/sqrt(3). Prompt 6: 0 and 0 dead,
    # 0 and 1: mean 1/2, deviation 1/sqrt(2).
    root3, root2 = math.sqrt(3), math.sqrt(2)
    np.testing.assert_allclose(advantages, [-2 / root3, -1 / root2, 1 / root3, 1 / root2, 1 / root3])


def test_a_row_alone_with_its_prompt_gets_0_and_moves_no_other():
    advantages = advantages_of_rows([*REWARDS, [1.0, 1.0, 1.0]], [*"aaaabbbb", "c"], method="rvpo", k=2.0)
    np.testing.assert_allclose(advantages, [*expected(REWARDS, 4), 0.0])


def test_rows_that_are_all_alone_are_refused():
    with pytest.raises(RewardError, match="each of the 8 rows has a prompt id of its own"):
        advantages_of_rows(REWARDS, range(8))


def test_rows_without_as_many_ids_are_refused():
    with pytest.raises(RewardError, match=r"shape \(8, 3\) and 2 ids"):
        advantages_of_rows(REWARDS, [1, 2])


# --- TRL ---


def test_asyncgrpo_scores_groups_with_rvpo(execute, monkeypatch):
    worker = pytest.importorskip("trl.experimental.async_grpo.async_rollout_worker")
    monkeypatch.setattr(worker.AsyncRolloutWorker, "_loop_cls", worker._AsyncRolloutLoop)
    loop_class = execute("TRL's AsyncGRPO").RVPOLoop
    assert worker.AsyncRolloutWorker._loop_cls is loop_class

    def column(index):
        return lambda completions, **kwargs: [
            None if math.isnan(REWARDS[n][index]) else REWARDS[n][index] for n in range(4)
        ]

    PartialState(cpu=True)  # the worker's log needs it
    loop = object.__new__(loop_class)
    loop.reward_funcs, loop.reward_func_names = [column(0), column(1)], ["one", "two"]
    loop._env_reward_types, loop._provides_rollout_reward = [], False
    sequence = worker.TrainingSequence
    fields = {name: [] for name in sequence.__dataclass_fields__}
    forks = [1, 2, 1, 1]  # the second conversation became two training rows
    group = worker.RolloutGroup(
        prompts=[[{"role": "user", "content": "q"}]] * 4,
        reward_kwargs={},
        completions=[[{"role": "assistant", "content": "a"}] for _ in range(4)],
        completions_ids=[[1]] * 4,
        completions_sequences=[[sequence(**fields) for _ in range(number)] for number in forks],
        tool_call_counts=[0] * 4,
        tool_failure_counts=[0] * 4,
        model_version=0,
        group_id=0,
        env_rewards=[None] * 4,
        rollout_rewards=[None] * 4,
    )
    samples = asyncio.run(loop._score_group(group))
    a, b, c, d = expected([row[:2] for row in REWARDS[:4]], 4, whiten=False)
    assert [sample.advantage for sample in samples] == pytest.approx([a, b, b, c, d])


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_axolotls_trainer_takes_the_mixin(execute, tmp_path):
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    from rvpo.llm.tokenizer import load_tokenizer

    class AxolotlGRPOTrainer(GRPOTrainer):
        pass

    class AxolotlGRPOConfig(GRPOConfig):
        pass

    snippet = execute("Axolotl", axolotl__core__trainers__grpo__trainer={"AxolotlGRPOTrainer": AxolotlGRPOTrainer})
    policy = mentions.tiny_policy(tmp_path / "policy")
    args = AxolotlGRPOConfig(
        output_dir=str(tmp_path / "run"), use_cpu=True, bf16=False, gradient_checkpointing=False, report_to="none",
        disable_tqdm=True, dataloader_pin_memory=False, per_device_train_batch_size=4, num_generations=4,
        max_completion_length=4, max_steps=1, logging_steps=1, save_strategy="no",
    )  # fmt: skip
    trainer = snippet.RVPOTrainer(
        model=str(policy),
        reward_funcs=[mentions.brevity_reward, mentions.mention_reward],
        args=args,
        train_dataset=Dataset.from_list(mentions.prompts(4, seed=1)),
        processing_class=load_tokenizer(policy),
    )
    trainer.train()
    assert trainer.state.log_history[0]["rvpo/k"] == 2.0


# --- Releases that need a GPU to run: their source, from `make engines` ---

SOURCES = Path(os.environ.get("RVPO_ENGINES", DOCUMENT.parents[1] / ".engines"))
"""Wheels of the releases that the document names, unpacked."""


def source(package, file):
    """The path of a file in the release of a package; skips without it."""
    files = [*SOURCES.glob(f"{package}-*/{file}"), *SOURCES.glob(f"{package}-*/*.data/purelib/{file}")]
    if not files:
        pytest.skip(f"{file} is not here; make engines gets it")
    return files[0]


def definitions(file, wanted, names=()):
    """Run functions and classes as they stand in a source file; of a class the methods that are listed, no bases.

    Modules that these name and that cannot be imported here are given by `names`.
    """
    nodes = [
        node
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name in wanted
    ]
    assert sorted(node.name for node in nodes) == sorted(wanted)
    for node in nodes:
        if isinstance(node, ast.ClassDef) and wanted[node.name] is not None:
            node.bases, node.decorator_list = [], []
            node.body = [part for part in node.body if getattr(part, "name", None) in wanted[node.name]]
            assert sorted(part.name for part in node.body) == sorted(wanted[node.name])
    lazy = ast.ImportFrom("__future__", [ast.alias("annotations")], 0)
    module = ast.fix_missing_locations(ast.Module([lazy, *nodes], []))
    names = {"torch": torch, "np": np, **dict(names)}
    exec(compile(module, str(file), "exec"), names)  # a released package's own code
    return names


def module_of(file, name):
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_ms_swift(execute):
    advantage = source("ms_swift", "swift/rl_core/advantage.py")
    nanstd = definitions(source("ms_swift", "swift/utils/torch_utils.py"), {"nanstd": None})["nanstd"]
    wanted = {"compute_advantages": None, "compute_reward_metrics": None, "RewardMetrics": None}
    theirs = definitions(advantage, wanted, {"nanstd": nanstd, "dataclass": dataclass})
    trainer_file = source("ms_swift", "swift/rlhf_trainers/grpo_trainer.py")
    made = definitions(trainer_file, {"GRPOTrainer": ["_compute_advantages"]}, theirs)["GRPOTrainer"]
    execute("ms-swift", swift__rlhf_trainers__grpo_trainer={"GRPOTrainer": made})
    trainer = made()
    vars(trainer).update(
        dynamic_num_samples=False, num_generations=4, num_generations_eval=2, model=SimpleNamespace(training=True),
        kl_in_reward=False, beta=0.0, reward_weights=torch.ones(3), reward_func_names=["a", "b", "c"],
        advantage_estimator="grpo", scale_rewards="group", _metrics={"train": Lists(list), "eval": Lists(list)},
        _logs={"rewards": Lists(list)},
    )  # fmt: skip
    advantages = trainer._compute_advantages(None, torch.tensor(REWARDS), None)
    assert advantages.dtype == torch.float32
    np.testing.assert_allclose(advantages, expected(REWARDS, 4), atol=1e-6)
    assert trainer._metrics["train"]["rewards/b/mean"] == [pytest.approx(4 / 7)]
    trainer.model.training = False
    np.testing.assert_allclose(
        trainer._compute_advantages(None, torch.tensor(REWARDS), None), expected(REWARDS, 2), atol=1e-6
    )


def test_openrlhf(execute):
    rewards = definitions(source("openrlhf", "openrlhf/models/utils.py"), {"compute_reward": None}, TYPES)
    penalties = source("openrlhf", "openrlhf/trainer/ppo_utils/length_penalty.py")
    penalties = definitions(penalties, {"apply_length_penalties": None})
    made = definitions(
        source("openrlhf", "openrlhf/trainer/ppo_utils/experience_maker.py"),
        {"RemoteExperienceMaker": ["compute_advantages_and_returns", "get_cumulative_returns"]},
        {"itertools": itertools, **rewards, **penalties},
    )["RemoteExperienceMaker"]
    program = source("openrlhf", "openrlhf/trainer/ppo_trainer.py").read_text()
    assert "self.experience_maker = RemoteExperienceMaker(" in program  # what `install` replaces
    snippet = execute("OpenRLHF", openrlhf__trainer__ppo_trainer={"RemoteExperienceMaker": made})
    snippet.install()
    maker = sys.modules["openrlhf.trainer.ppo_trainer"].RemoteExperienceMaker()
    options = SimpleNamespace(
        rollout=SimpleNamespace(n_samples_per_prompt=4),
        reward=SimpleNamespace(clip_range=None),
        algo=SimpleNamespace(
            advantage=SimpleNamespace(estimator="reinforce", gamma=1.0, lambd=1.0, no_std_norm=False)
        ),
    )
    vars(maker).update(
        args=options, strategy=SimpleNamespace(args=options), advantage_estimator="reinforce",
        kl_ctl=SimpleNamespace(value=0.0),
    )  # fmt: skip
    order = [3, 0, 6, 1, 2, 7, 5, 4]
    lengths = torch.tensor([1, 2, 3, 4, 1, 2, 3, 4])
    experiences = []
    for index in (order[:3], order[3:5], order[5:]):  # packed by length, not by prompt
        info = {f"rvpo/{name}": torch.tensor([REWARDS[n][at] for n in index]) for at, name in enumerate("abc")}
        mask = torch.arange(4) < lengths[index][:, None]
        experiences.append(
            SimpleNamespace(
                index=index, info=info, rewards=torch.zeros(len(index)), action_mask=mask, kl=torch.zeros(mask.shape)
            )
        )
    experiences_after = maker.compute_advantages_and_returns(experiences)
    assert not [key for experience in experiences_after for key in experience.info if key.startswith("rvpo/")]
    # On every token, then whitened over tokens with the biased deviation, as the engine does.
    whole = expected(REWARDS, 4, whiten=False)[order]
    tokens = np.repeat(whole, lengths[order])
    np.testing.assert_allclose(
        torch.cat([experience.advantages[:, 0] for experience in experiences_after]),
        (whole - tokens.mean()) / tokens.std(),
        atol=1e-5,
    )


def test_skyrl(execute):
    file = source("skyrl", "skyrl/backends/skyrl_train/utils/ppo_utils.py")
    ray = pytest.importorskip("ray")
    wanted = ["BaseFunctionRegistry", "AdvantageEstimatorRegistry", "AdvantageEstimator"]
    wanted = dict.fromkeys([*wanted, "register_advantage_estimator", "compute_advantages_and_returns"])
    names = {"ray": ray, "wraps": functools.wraps, "StrEnum": enum.StrEnum, **TYPES}
    utils = definitions(file, wanted, names)
    batches = module_of(source("skyrl", "skyrl/backends/skyrl_train/training_batch.py"), "skyrl_training_batch")
    trainer_file = source("skyrl", "skyrl/train/trainer.py")
    text = trainer_file.read_text()
    assert 'training_input.metadata = {"uids": uids}' in text
    assert "training_input = pad_training_input_batch(training_input, pad_size)" in text
    assert (
        "env_metrics: Optional[List[Dict[str, Any]]]" in source("skyrl", "skyrl/train/generators/base.py").read_text()
    )
    theirs = definitions(
        trainer_file,
        {"RayPPOTrainer": ["compute_advantages_and_returns"]},
        {"ppo_utils": SimpleNamespace(**utils), "logger": logging.getLogger("skyrl")},
    )["RayPPOTrainer"]

    class RayPPOTrainer(theirs):
        all_metrics: ClassVar = {}
        cfg = SimpleNamespace(
            generator=SimpleNamespace(step_wise_trajectories=False),
            trainer=SimpleNamespace(
                algorithm=SimpleNamespace(advantage_estimator="rvpo", gamma=1.0, lambd=1.0, grpo_norm_by_std=True)
            ),
        )

        def convert_to_training_input(self, generator_output, uids):
            """What is above of it, without the tokenizer."""
            number = len(uids)
            tensors = {"rewards": torch.zeros(number, 3), "response_mask": torch.ones(number, 3), "values": None}
            batch = batches.TrainingInputBatch(tensors)
            batch.metadata = {"uids": uids, "avg_response_length": 3.0}
            return batches.pad_training_input_batch(batch, 2)

    snippet = execute(
        "SkyRL",
        skyrl__backends__skyrl_train__utils__ppo_utils=utils,
        skyrl__train__trainer={"RayPPOTrainer": RayPPOTrainer},
    )
    trainer = snippet.RVPORayPPOTrainer()
    rows = [[None if math.isnan(value) else value for value in row] for row in REWARDS]
    output = {"env_metrics": [{"rvpo_rewards": row} for row in rows]}
    made = trainer.convert_to_training_input(output, ["a"] * 4 + ["b"] * 4)
    advantages = trainer.compute_advantages_and_returns(made)["advantages"]
    assert advantages.shape == (10, 3)
    np.testing.assert_allclose(advantages[:8, 1], expected(REWARDS, 4), atol=1e-6)  # the padding takes part in nothing
    np.testing.assert_array_equal(advantages[8:], 0.0)
    with contextlib.suppress(LookupError):
        snippet.ROWS.get()
        pytest.fail("the rows of one batch are left for the next")


def test_axolotl_takes_the_trainer_by_its_path():
    builder = source("axolotl", "axolotl/core/builders/rl.py").read_text()
    assert "trainer_cls = get_cls_from_module_str(self.cfg.trainer_cls)" in builder
    file = source("axolotl", "axolotl/core/trainers/grpo/trainer.py")
    classes = {node.name: node for node in ast.parse(file.read_text()).body if isinstance(node, ast.ClassDef)}
    trainer = classes["AxolotlGRPOTrainer"]
    assert ast.unparse(trainer.bases[-1]) == "GRPOTrainer"
    # None of its own that the mixin would not see.
    assert {part.name for part in trainer.body if isinstance(part, ast.FunctionDef)} == set()
