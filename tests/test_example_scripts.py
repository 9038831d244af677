"""The scripts that people copy, run as they are with a model and a server that are small."""

import json
import runpy
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pandas
import pytest

from judging.fault_server import FaultServer
from rvpo_lab.tasks.policy import build_policy, byte_tokenizer

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # of TRL's names and transformers'
    pytest.mark.filterwarnings("ignore::UserWarning"),  # "pin_memory" without an accelerator
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A random policy that reads any text."""
    tokenizer = byte_tokenizer(["Explain in a sentence what rain is.", "My tooth hurts at night."], 320)
    return build_policy(tmp_path_factory.mktemp("model"), tokenizer, hidden_size=32, layers=1)


@pytest.fixture
def example(monkeypatch, tmp_path):
    """Run a script in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(name, *words):
        monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
        return runpy.run_path(str(EXAMPLES / name), run_name="__main__")

    return run


def test_a_run_with_two_reward_functions_and_an_audit_of_its_files(example, model, tmp_path, capsys):
    trainer = example("train_two_rewards.py", "--model", model, "--steps", 2, "--out", "run")["trainer"]
    names = ("length", "sentence", "plain", "polite")
    assert {f"channels/{name}/mean" for name in names} <= set(trainer.state.log_history[0])
    assert (tmp_path / "run/config.json").is_file()
    example("audit_exports.py", "run", "--html", "page.html")
    assert capsys.readouterr().out.count("the log does not tell which method to take") == 1
    page = (tmp_path / "page.html").read_text()
    assert all(name in page for name in names)


def test_a_run_with_a_judge(example, model, tmp_path, capsys):
    with FaultServer() as server:
        trainer = example(
            "train_with_judge.py", "--model", model, "--judge_url", server.url, "--steps", 1, "--out", "run"
        )["trainer"]
    assert server.requests > 0
    assert {"channels/rubric/facts/mean", "channels/rubric/tone/mean"} & set(trainer.state.log_history[0])
    assert "rubric: 16 unmet" in capsys.readouterr().out
    (table,) = (tmp_path / "run/completions").iterdir()
    assert "rubric/reasons" in pandas.read_parquet(table)


def rows(step):
    """Eight completions of two prompts: `short` is met by half of each group, `true` by none."""
    return [
        {"step": step, "prompt": f"p{step}{at // 4}", "completion": f"{at}", "short": float(at % 2), "true": 0.0}
        for at in range(8)
    ]


@pytest.mark.parametrize("tracker", ["wandb", "trackio"])
def test_exports_of_trackers_are_audited(example, tmp_path, tracker):
    """The files are written as wandb 0.31 and trackio 0.43 wrote them, the last table twice."""
    steps = [1, 2, 2]
    if tracker == "wandb":
        source = tmp_path / "wandb/run-1"
        (source / "files/media/table").mkdir(parents=True)
        for index, step in enumerate(steps):
            table = {"columns": list(rows(1)[0]), "data": [list(row.values()) for row in rows(step)]}
            (source / f"files/media/table/completions_{7 + index}_0a1b.table.json").write_text(json.dumps(table))
    else:
        source = tmp_path / "project.db"
        with closing(sqlite3.connect(source)) as database, database:
            database.execute("CREATE TABLE metrics (metrics TEXT NOT NULL)")
            logged = [
                {"train/loss": 0.5},
                *({"completions": {"_type": "trackio.table", "_value": rows(s)}} for s in steps),
            ]
            database.executemany("INSERT INTO metrics VALUES (?)", [(json.dumps(entry).encode(),) for entry in logged])
        database.close()
    result = example("audit_exports.py", source)["result"]
    assert (result.rollouts, result.groups, result.steps) == (16, 4, (1.0, 2.0))
    assert result.headline.startswith("true is dead")
    assert (tmp_path / "audit.html").is_file()
