"""The code of docs/engines.md: run as it stands, with TRL itself, and with stand-ins of engines that need a GPU.

A stand-in has the signatures of the release that the document names, and of its behaviour what the code relies on.
"""

import asyncio
import contextlib
import math
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

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
    found = advantages_of_rows(shuffled, ["ab"[row // 4] for row in order], method="rvpo", k=2.0)
    np.testing.assert_allclose(found, expected(REWARDS, 4)[order])
    tokens = torch.tensor([[row // 4, 9] for row in order])
    of_torch = advantages_of_rows(torch.tensor(shuffled, dtype=torch.float64), tokens, method="rvpo", k=2.0)
    np.testing.assert_array_equal(of_torch, found)
    halves = [[1.0, 0.5], [0.0, 1.0]]  # exact in bfloat16
    of_half = advantages_of_rows(torch.tensor(halves, dtype=torch.bfloat16), [1, 1])
    np.testing.assert_array_equal(of_half, advantages_of_rows(halves, [1, 1]))


def test_prompts_may_have_different_numbers_of_rollouts():
    rewards = [[1.0, 0.0], [0.0, 0.0], [1.0, 1.0], [0.0, 1.0], [1.0, 1.0]]
    found = advantages_of_rows(rewards, [5, 6, 5, 6, 5], method="gdpo", whiten=False, eps=0.0)
    # Prompt 5: channel 1 is dead, channel 2 has 0, 1, 1: mean 2/3, sample deviation 1/sqrt(3). Prompt 6: 0 and 0 dead,
    # 0 and 1: mean 1/2, deviation 1/sqrt(2).
    root3, root2 = math.sqrt(3), math.sqrt(2)
    np.testing.assert_allclose(found, [-2 / root3, -1 / root2, 1 / root3, 1 / root2, 1 / root3])


def test_a_row_alone_with_its_prompt_gets_0_and_moves_no_other():
    found = advantages_of_rows([*REWARDS, [1.0, 1.0, 1.0]], [*"aaaabbbb", "c"], method="rvpo", k=2.0)
    np.testing.assert_allclose(found, [*expected(REWARDS, 4), 0.0])


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


# --- Stand-ins ---


def test_ms_swift(execute):
    class GRPOTrainer:
        dynamic_num_samples = False
        num_generations, num_generations_eval = 4, 2
        model = SimpleNamespace(training=True)

        def _compute_advantages(self, samples, rewards_per_func, batch_encoded_inputs):
            return torch.zeros(len(rewards_per_func))

    execute("ms-swift", swift__rlhf_trainers__grpo_trainer={"GRPOTrainer": GRPOTrainer})
    trainer = GRPOTrainer()
    found = trainer._compute_advantages(None, torch.tensor(REWARDS), None)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found, expected(REWARDS, 4), atol=1e-6)
    trainer.model.training = False
    np.testing.assert_allclose(
        trainer._compute_advantages(None, torch.tensor(REWARDS), None), expected(REWARDS, 2), atol=1e-6
    )
    trainer.dynamic_num_samples = True
    with pytest.raises(NotImplementedError):
        trainer._compute_advantages(None, torch.tensor(REWARDS), None)


def test_openrlhf(execute):
    class RemoteExperienceMaker:
        args = SimpleNamespace(rollout=SimpleNamespace(n_samples_per_prompt=4))

        def compute_advantages_and_returns(self, experiences):
            assert not [key for one in experiences for key in one.info if key.startswith("rvpo/")]
            return [one.rewards for one in experiences]

    members = {"RemoteExperienceMaker": RemoteExperienceMaker}
    snippet = execute("OpenRLHF", openrlhf__trainer__ppo_trainer=members)
    snippet.install()
    maker = sys.modules["openrlhf.trainer.ppo_trainer"].RemoteExperienceMaker()
    experiences = []
    for index in ([3, 0, 6], [1, 2], [7, 5, 4]):  # packed by length, not by prompt
        info = {f"rvpo/{name}": torch.tensor([REWARDS[n][at] for n in index]) for at, name in enumerate("abc")}
        one = SimpleNamespace(
            index=index, info={**info, "length": torch.ones(len(index))}, rewards=torch.zeros(len(index))
        )
        experiences.append(one)
    found = maker.compute_advantages_and_returns(experiences)
    whole = expected(REWARDS, 4, whiten=False)
    np.testing.assert_allclose(torch.cat(found), whole[[3, 0, 6, 1, 2, 7, 5, 4]], atol=1e-6)


def test_nemo_rl(execute):
    execute("NeMo-RL", nemo_rl__algorithms__grpo={"GDPOAdvantageEstimator": object})
    made = sys.modules["nemo_rl.algorithms.grpo"].GDPOAdvantageEstimator(SimpleNamespace(rvpo_k=2.0), None)
    order = [0, 4, 1, 5, 2, 6, 3, 7]
    filled = np.nan_to_num(np.asarray(REWARDS))[order]  # absent components arrive as 0
    batch = {f"reward/{name}": torch.tensor(filled[:, at]) for at, name in enumerate("abc")} | {"total_reward": None}
    prompts = torch.tensor([[7, 8, 0] if row < 4 else [7, 9, 9] for row in order])
    found = made.compute_advantage(prompts, torch.zeros(8), torch.ones(8, 5), batch)
    assert found.shape == (8, 5)
    whole = expected(np.nan_to_num(np.asarray(REWARDS)), 4, dead_channels="mask")[order]
    np.testing.assert_allclose(found[:, 0], whole, atol=1e-6)


def test_skyrl(execute):
    registry = {}

    class RayPPOTrainer:
        def convert_to_training_input(self, generator_output, uids):
            return SimpleNamespace(metadata={"uids": [*uids, "pad0", "pad1"]}, batch_size=len(uids) + 2)

        def compute_advantages_and_returns(self, data):
            mask, uids = torch.ones(data.batch_size, 3), np.array(data.metadata["uids"])
            return registry["rvpo"](
                token_level_rewards=torch.zeros(data.batch_size, 3), response_mask=mask, index=uids,
                values=None, grpo_norm_by_std=True, gamma=1.0, lambd=1.0, config=None,
            )[0]  # fmt: skip

    def register(name):
        return lambda function: registry.setdefault(name, function)

    snippet = execute(
        "SkyRL",
        skyrl__backends__skyrl_train__utils__ppo_utils={"register_advantage_estimator": register},
        skyrl__train__trainer={"RayPPOTrainer": RayPPOTrainer},
    )
    trainer = snippet.RVPORayPPOTrainer()
    rows = [[None if math.isnan(value) else value for value in row] for row in REWARDS]
    output = {"env_metrics": [{"rvpo_rewards": row} for row in rows]}
    made = trainer.convert_to_training_input(output, ["a"] * 4 + ["b"] * 4)
    found = trainer.compute_advantages_and_returns(made)
    assert found.shape == (10, 3)
    np.testing.assert_allclose(found[:8, 1], expected(REWARDS, 4), atol=1e-6)  # the padding takes part in nothing
    np.testing.assert_array_equal(found[8:], 0.0)
    with contextlib.suppress(LookupError):
        snippet.ROWS.get()
        pytest.fail("the rows of one batch are left for the next")
