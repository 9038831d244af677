"""Runs and their judge: it is asked before the first rollout, and who is told to stop does not wait for it."""

import json
import os
import re
import signal
import time
from types import SimpleNamespace

import pytest
from safetensors.torch import load_file

import forked
import mentions
from judging import fault_server
from judging.fault_server import FaultServer, send
from rvpo.cli.main import main
from rvpo.integrations.trl.trainer import RVPOTrainer
from rvpo.judging.store import VerdictStore

OPTIONS = {
    "model_name_or_path": "policy", "dataset_name": "rows.jsonl", "reward_funcs": "rubric", "max_steps": 4,
    "logging_steps": 1, "per_device_train_batch_size": 8, "num_generations": 4, "max_completion_length": 8,
    "learning_rate": 1e-3, "seed": 3, "save_strategy": "no", "use_cpu": "true", "bf16": "false", "report_to": "none",
    "gradient_checkpointing": "false", "disable_tqdm": "true", "dataloader_pin_memory": "false",
}  # fmt: skip


@pytest.fixture
def project(tmp_path, policy, monkeypatch):
    """A folder with rows that have rubrics and a policy, that is the current one."""
    rows = [
        {
            "prompt": row["prompt"],
            "rubric": [{"id": t, "text": f"says {t}", "points": 1.0, "tags": []} for t in row["topics"]],
        }
        for row in mentions.prompts(8, seed=1)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "policy").symlink_to(policy)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path


def words(server, folder, judge=None, **options):
    settings = {"model": "m", "base_url": server.url, "store": f"{folder}.sqlite", "retry_minutes": 10} | (judge or {})
    judge = json.dumps(settings)
    options = OPTIONS | {"output_dir": folder, "judge": judge} | options
    return [word for name, value in options.items() for word in (f"--{name}", str(value))]


class Dying(FaultServer):
    """Answers until it is told to be dead; then it keeps some of the calls waiting and refuses the others."""

    def __init__(self, fault):
        self.fault, self.is_dead = fault, False
        super().__init__(plan=lambda number, body: self.fault if self.is_dead else None, delay=0.05)


def started(command, folder, done):
    """The process of a command, once `done` says so of what it has printed and asked for."""
    (folder / "printed").touch()
    process = forked.start(command, printed=folder / "printed")
    deadline = time.monotonic() + 120
    while not done() and time.monotonic() < deadline:
        assert process.is_alive(), (folder / "printed").read_text()
        time.sleep(0.02)
    assert done()
    return process


def ended(process, number):
    """The status of a process that is sent a signal."""
    os.kill(process.pid, number)
    process.join(120)  # retry_minutes and the servers' silence are ten minutes
    return process.exitcode


@pytest.mark.parametrize("fault", ["hang", 503])
def test_a_run_with_a_dead_judge_stops_in_seconds_and_goes_on_as_if_unbroken(project, monkeypatch, fault):
    monkeypatch.setattr(fault_server, "HANG_SECONDS", 600.0)
    with Dying(fault) as server:
        printed = project / "printed"
        process = started(["train", *words(server, "run")], project, lambda: "'loss'" in printed.read_text())
        server.is_dead = True
        until = time.monotonic() + 60
        while not server.faults[fault] and time.monotonic() < until:
            time.sleep(0.02)
        time.sleep(0.5)  # some calls wait for another attempt
        assert ended(process, signal.SIGTERM) == 128 + signal.SIGTERM
        paid = len(server.paid) - 1  # without the probe
        assert sum(row["replies"] for row in VerdictStore(project / "run.sqlite").statistics()) == paid
        printed = printed.read_text()
        assert "Traceback" not in printed
        (checkpoint,) = (project / "run").glob("checkpoint-*")
        stopped = int(checkpoint.name.split("-")[1])
        assert 1 <= stopped < 4
        assert f"gave up step {stopped + 1}, whose rewards were waited for" in printed
        assert "--resume_from_checkpoint last --output_dir run" in printed
        assert not (project / "run" / "model.safetensors").exists()
        server.is_dead = False
        assert main(["train", *words(server, "run", resume_from_checkpoint="last")]) == 0
        assert sorted(server.paid.values())[-2] == 1  # no verdict twice, the probe of each run
        assert main(["train", *words(server, "whole")]) == 0
    whole, resumed = (load_file(project / folder / "model.safetensors") for folder in ("whole", "run"))
    assert all((whole[name] == resumed[name]).all() for name in whole)


def test_a_run_that_is_stopped_in_its_first_step_says_that_there_is_no_checkpoint(project, monkeypatch):
    with FaultServer(plan=lambda number, body: 503 if number > 1 else None) as server:
        process = started(["train", *words(server, "run")], project, lambda: server.faults[503] > 2)
        assert ended(process, signal.SIGINT) == 128 + signal.SIGINT
    printed = (project / "printed").read_text()
    assert "interrupted in the first step; there is no checkpoint" in printed
    assert not list((project / "run").glob("checkpoint-*"))
    assert "Traceback" not in printed


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_grading_that_is_told_to_stop_keeps_what_is_paid_and_ends_in_seconds(project, monkeypatch, number):
    """Calls that the server is about to answer are waited for, those that hang are not."""
    monkeypatch.setattr(fault_server, "HANG_SECONDS", 600.0)
    rows = [{"prompt": "q", "answer": f"tea {n}", "rubric": [{"id": "c", "text": "says tea"}]} for n in range(30)]
    (project / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    hangs = lambda number, body: "hang" if number % 3 == 0 and number <= 30 else None  # noqa: E731
    with FaultServer(plan=hangs, delay=1.0) as server:
        command = ["judge", "grade", "answers.jsonl", "--model", "m", "--base-url", server.url]
        process = started(command, project, lambda: server.requests == 30)
        assert ended(process, number) == 128 + number
        printed = (project / "printed").read_text()
        assert "Traceback" not in printed
        assert "interrupted; the same command goes on" in printed
        assert re.search(r"nothing judged; 20 calls", printed)
        assert main(command) == 0
        assert server.requests == 40
        assert max(server.paid.values()) == 1


# --- The probe ---


@pytest.fixture
def generated(monkeypatch):
    """Filled with the prompts of every batch that is generated."""
    batches = []
    generate = RVPOTrainer._generate

    def spied(self, prompts, *rest, **options):
        batches.append(prompts)
        return generate(self, prompts, *rest, **options)

    monkeypatch.setattr(RVPOTrainer, "_generate", spied)
    return batches


SILENT = SimpleNamespace(url="http://127.0.0.1:9/v1")  # nothing listens there


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (401, "refuses the key (HTTP 401); $OPENAI_API_KEY is not set; it says: scripted"),
        (404, "has no model 'm' or no chat completions there (HTTP 404); check both names; it says: scripted"),
        (503, "cannot be asked: HTTP 503, for 0.001 minutes: scripted"),
        (None, "cannot be asked: ConnectError, for 0.001 minutes"),
    ],
)
def test_a_judge_that_cannot_be_asked_ends_the_run_before_anything_is_generated(
    project, monkeypatch, capsys, generated, fault, message
):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with FaultServer(plan=lambda number, body: fault) as server:
        asked = SILENT if fault is None else server
        assert main(["train", *words(asked, "run", {"retry_minutes": 0.001})]) == 2
        assert server.requests == (0 if fault is None else 1)
    assert message in capsys.readouterr().err
    assert not generated


def test_a_field_that_the_server_refuses_ends_the_run_with_the_setting_that_leaves_it_out(project, capsys, generated):
    class Strict(FaultServer):
        async def _answer(self, body, writer):
            if "max_tokens" not in body:
                return await super()._answer(body, writer)
            self.requests += 1
            return await send(writer, 400, {"error": {"message": "Unsupported parameter: 'max_tokens'"}})

    with Strict() as server:
        assert main(["train", *words(server, "run", max_steps=1)]) == 2
        assert server.requests == 1
        assert "{max_tokens: null, max_completion_tokens: 1024} leaves max_tokens out" in capsys.readouterr().err
        assert not generated
        left_out = {"extra": {"max_tokens": None, "max_completion_tokens": 99}}
        assert main(["train", *words(server, "run", left_out, max_steps=1)]) == 0


def test_the_probe_is_one_request_and_no_verdict(project, capsys, generated):
    with FaultServer() as server:
        assert main(["train", *words(server, "run", max_steps=1)]) == 0
        counts = re.search(r"rubric: (.*?); (\d+) calls", capsys.readouterr().out)
        asked = int(counts[2])
        assert server.requests == asked
        replies = sum(row["replies"] for row in VerdictStore(project / "run.sqlite").statistics())
        assert replies == asked - 1
    assert len(generated) == 1


def test_a_run_from_a_full_store_needs_no_server(project, caplog, generated):
    """It replays verdicts, and says that the server is off; `probe: always` ends it, `never` does not ask."""
    with FaultServer() as server:
        assert main(["train", *words(server, "run")]) == 0
        url = server.url
    off, number = SimpleNamespace(url=url), len(generated)
    for probe, status in {"auto": 0, "never": 0, "always": 2}.items():
        caplog.clear()
        settings = {"retry_minutes": 0.001, "probe": probe, "store": "run.sqlite"}
        assert main(["train", *words(off, probe, settings)]) == status
        assert ("; the store has " in caplog.text) == (probe == "auto")
    assert len(generated) == 3 * number
    texts = [(project / run / "metrics.jsonl").read_text() for run in ("run", "auto")]
    metrics = [[json.loads(line) for line in text.splitlines()] for text in texts]
    assert [entry["channels/rubric/mean"] for entry in metrics[0] if "rvpo/k" in entry] == [
        entry["channels/rubric/mean"] for entry in metrics[1] if "rvpo/k" in entry
    ]
