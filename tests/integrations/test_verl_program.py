"""verl's own program, over Ray: rubrics judged by a server, one reward worker killed on the way.

Run once, by rvpo's entry point, with what needs a GPU on a CPU (scripts/verl_cpu.py). Ray has the task runner with the
default trainer, an agent loop worker, two reward workers and TransferQueue in processes of their own.
"""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from judging.fault_server import FaultServer, met
from rvpo import compute_advantages
from rvpo.judging.store import VerdictStore

psutil = pytest.importorskip("psutil")
HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
WORDS = ["red", "green", "blue", "one", "two", "three", "say"]
STEPS = 3
KILL_AT = 60
"""Request at which a reward worker is killed; the three steps make about 100."""


def rubric_rows():
    """Eight prompts, whose rubrics have two to five criteria."""
    return [
        {
            "id": str(i),
            "prompt": [{"role": "user", "content": f"say {WORDS[i % 6]}"}],
            "rubric": [
                {
                    "id": f"c{j}",
                    "text": f"says {WORDS[(i + j) % 6]}",
                    "points": 1.0,
                    "polarity": "negative" if j == 1 else "positive",
                    "tags": ["colour" if (i + j) % 6 < 3 else "number"],
                }
                for j in range(2 + i % 4)
            ],
            "reference": None,
            "source": "words",
            "tags": [],
        }
        for i in range(8)
    ]


def build(folder):
    """Write a model of one layer, its tokenizer, and the rows."""
    import torch
    from pyarrow import Table, parquet
    from transformers import LlamaConfig, LlamaForCausalLM

    from rvpo.integrations.verl.rows import verl_rows
    from rvpo_lab.tasks.policy import word_tokenizer

    tokenizer = word_tokenizer(WORDS)
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
    tokenizer.save_pretrained(folder / "tokenizer")
    torch.manual_seed(0)
    ends = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **shape, **ends)).save_pretrained(folder / "model")
    parquet.write_table(Table.from_pylist(verl_rows(rubric_rows())), folder / "rows.parquet")


def overrides(folder, url):
    judge = f"{{model: m, base_url: '{url}', store: '{folder / 'verdicts.sqlite'}', retry_minutes: 2}}"
    return [
        *(f"data.{part}_files={folder / 'rows.parquet'}" for part in ("train", "val")),
        *("data.train_batch_size=3", "data.max_prompt_length=16", "data.max_response_length=8"),
        *("data.dataloader_num_workers=0", "data.shuffle=False"),
        f"actor_rollout_ref.model.path={folder / 'model'}",
        f"actor_rollout_ref.model.tokenizer_path={folder / 'tokenizer'}",
        *("actor_rollout_ref.rollout.name=vllm", "actor_rollout_ref.rollout.n=4"),
        "actor_rollout_ref.rollout.agent.num_workers=1",
        "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=4",
        # 12 rollouts and mini-batches of 8: verl fills the batch up to 16.
        *("actor_rollout_ref.actor.ppo_mini_batch_size=2", "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=4"),
        "actor_rollout_ref.actor.optim.lr=1e-3",
        *("reward.num_workers=2", "reward.custom_reward_function.name=rubric"),
        "reward.custom_reward_function.path=pkg://rvpo.integrations.verl.rewards",
        f"+reward.custom_reward_function.reward_kwargs={{workers: 2, judge: {judge}}}",
        *("trainer.n_gpus_per_node=1", "trainer.device=cpu", "trainer.logger=[file]", "trainer.resume_mode=disable"),
        *("trainer.val_before_train=False", f"trainer.total_training_steps={STEPS}"),
        "transfer_queue.backend.SimpleStorage.num_data_storage_units=1",
        *("ray_kwargs.ray_init.num_cpus=16", "+ray_kwargs.ray_init.include_dashboard=False"),
        "algorithm.adv_estimator=rvpo",
        "+algorithm.rvpo={channels: [rubric], k_schedule: linear, k: 0.5, k_end: 2.0}",
        f"hydra.run.dir={folder}",
    ]


class Killer:
    """A plan for the server that fails no request, and kills one of the program's reward workers on the way."""

    def __init__(self):
        self.program, self.killed = None, []

    def __call__(self, number, body):
        if number == KILL_AT:
            threading.Thread(target=self.kill).start()

    def kill(self):
        below = self.program.children(recursive=True)
        workers = [process for process in below if "ray::RewardLoopWorker" in " ".join(process.cmdline())]
        self.killed = [workers[0].pid]
        workers[0].kill()


def run_program(folder, killer, server):
    environment = os.environ | {
        "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{HERE / 'scripts'}",
        "VERL_USE_EXTERNAL_MODULES": "rvpo.integrations.verl.plugin,verl_cpu",
        "VERL_CPU_RECORD": str(folder / "record.jsonl"),
        "VERL_FILE_LOGGER_PATH": str(folder / "log.jsonl"),
        "OMP_NUM_THREADS": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_prestart_worker_first_driver": "0",  # else as many idle workers as CPUs
        "RAY_worker_niceness": "0",
    }
    command = [sys.executable, "-W", "ignore", "-m", "rvpo.integrations.verl.main", *overrides(folder, server.url)]
    with (folder / "printed.txt").open("w") as printed:
        program = subprocess.Popen(command, env=environment, cwd=folder, stdout=printed, stderr=subprocess.STDOUT)
    killer.program = psutil.Process(program.pid)
    try:
        status = program.wait(timeout=600)
    finally:
        if program.poll() is None:  # Ray's processes would stay
            for process in [*killer.program.children(recursive=True), killer.program]:
                process.kill()
    return status, (folder / "printed.txt").read_text(errors="replace")


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    for package in ("verl", "transfer_queue"):  # here, as only the process that runs these tests is to import them
        pytest.importorskip(package)
    folder, killer = tmp_path_factory.mktemp("verl"), Killer()
    build(folder)
    with FaultServer(killer, delay=0.02) as server:
        status, printed = run_program(folder, killer, server)
        if "The current node timed out during startup" in printed:  # Ray gives itself 30 seconds, busy machine or not
            status, printed = run_program(folder, killer, server)
    assert status == 0, printed[-3000:]
    return folder, killer, server


def lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def criteria_of(uid_rows):
    """The criteria of the prompt whose rollouts these are, by the channels that their rubric has."""
    channels = list(json.loads(uid_rows[0]["info"]["rubric"]))
    return next(
        row["rubric"]
        for row in rubric_rows()
        if [f"{criterion['tags'][0]}/{criterion['id']}" for criterion in row["rubric"]] == channels
    )


def groups_of(entry):
    groups = {}
    for row in entry["rows"]:
        if not row["is_padding"]:
            groups.setdefault(row["key"].rsplit("_", 2)[0], []).append(row)
    return list(groups.values())


def by_rule(text, criteria):
    """What the server's rule says, worked here, for one answer. An empty answer meets nothing."""
    met_here = [met(text, criterion["text"]) if text.strip() else False for criterion in criteria]
    return [
        float(is_met == (criterion["polarity"] == "positive"))
        for is_met, criterion in zip(met_here, criteria, strict=True)
    ]


def test_the_advantages_of_every_step_are_those_of_one_process(program):
    folder, *_ = program
    entries = lines(folder / "record.jsonl")
    assert [entry["step"] for entry in entries] == [1, 2, 3]
    for entry in entries:
        groups = groups_of(entry)
        assert [len(group) for group in groups] == [4, 4, 4]
        values = np.full((3, 4, 5), np.nan)
        for p, group in enumerate(groups):
            criteria = criteria_of(group)
            for g, row in enumerate(group):
                values[p, g, : len(criteria)] = by_rule(row["text"], criteria)
                assert list(json.loads(row["info"]["rubric"]).values()) == values[p, g, : len(criteria)].tolist()
        k = 0.5 + 1.5 * (entry["step"] - 1) / STEPS
        expected = compute_advantages(values, k=k).advantages
        assert np.abs(expected).max() > 0.5
        for p, group in enumerate(groups):
            for g, row in enumerate(group):
                np.testing.assert_allclose(row["advantages"], expected[p, g] * np.asarray(row["mask"]), atol=1e-6)


def test_rows_that_fill_the_batch_are_not_trained_on(program):
    folder, *_ = program
    for entry in lines(folder / "record.jsonl"):
        padding = [row for row in entry["rows"] if row["is_padding"]]
        assert len(padding) == 4
        assert all(set(row["advantages"]) == {0.0} for row in padding)


def test_a_killed_reward_worker_loses_no_verdict(program):
    folder, killer, server = program
    assert len(killer.killed) == 1
    assert server.requests > KILL_AT
    stored = VerdictStore(folder / "verdicts.sqlite").statistics()[0]["replies"]
    assert stored == len(server.paid)  # whatever was answered is kept, once
    print(f"{server.requests} requests for {stored} verdicts, process {killer.killed[0]} killed")
    for entry in lines(folder / "record.jsonl"):
        for row in entry["rows"]:
            assert None not in json.loads(row["info"]["rubric"]).values()


def test_verls_log_has_the_channels_and_k(program):
    folder, *_ = program
    logged = [line["data"] for line in lines(folder / "log.jsonl")]
    assert [metrics["training/global_step"] for metrics in logged] == [1, 2, 3]
    assert [metrics["rvpo/k"] for metrics in logged] == pytest.approx([0.5, 1.0, 1.5])
    for metrics, entry in zip(logged, lines(folder / "record.jsonl"), strict=True):
        colours = [
            value
            for group in groups_of(entry)
            for row in group
            for name, value in json.loads(row["info"]["rubric"]).items()
            if name.startswith("colour/")
        ]
        if colours:
            assert metrics["channels/rubric/colour/mean"] == pytest.approx(np.mean(colours))
            assert metrics["channels/rubric/colour/missing"] == 0.0
        assert "actor/pg_loss" in metrics
        assert "critic/score/mean" in metrics
