"""Every fenced block of the pages is run: here, by the test that its marker names, or not, for the reason it gives.

    <!-- run: tests/FILE.py -->      before a block: that test runs it
    <!-- not run: REASON -->         it needs what no test has; the options of its `rvpo` commands are checked here

Doctests are run by `make check`. Python and YAML without a marker is run here, in an empty folder. So are the scripts
of examples/ that people copy, as they are, with a model and a server that are small.
"""

import contextlib
import dataclasses
import io
import json
import re
import runpy
import shlex
import sqlite3
import sys
from contextlib import closing
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pandas
import pytest
import yaml

from judging.fault_server import FaultServer
from rvpo.cli.main import COMMANDS, LABORATORY, main
from rvpo_lab.tasks.policy import build_policy, byte_tokenizer

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(
    r"^(?: *<!-- (run|not run): ([^\n]+) -->\n)?( *)```(\w+)[^\n]*\n(.*?)^ *```", re.MULTILINE | re.DOTALL
)


class Block(NamedTuple):
    """A block of a page; `marker` is None, "run" or "not run"."""

    page: Path
    marker: str | None
    reason: str
    language: str
    code: str


def blocks():
    """All blocks but doctests."""
    for page in PAGES:
        for marker, reason, _, language, code in BLOCK.findall(page.read_text(encoding="utf-8")):
            if ">>>" not in code:
                yield Block(page, marker or None, reason, language, code)


def name(block):
    return f"{block.page.stem}: {block.code.strip().splitlines()[0][:40]}"


BLOCKS = list(blocks())


@pytest.mark.parametrize("block", BLOCKS, ids=name)
def test_a_block_is_run_or_says_why_not(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if block.marker == "run":
        test = (ROOT / block.reason).read_text(encoding="utf-8")
        assert block.page.name in test or re.search(rf"\b{block.page.stem}\b", test, re.IGNORECASE)
    elif block.marker == "not run":
        assert len(block.reason.split()) > 1
    elif block.language == "python":
        with FaultServer() as server:
            code = block.code.replace("http://localhost:8001/v1", server.url)
            exec(compile(code, str(block.page), "exec"), {"vector_reward": __import__("rvpo").vector_reward})
            assert (server.requests > 0) == (server.url in code)
    else:
        assert block.language == "yaml"
        read_yaml(yaml.safe_load(block.code), tmp_path)


def read_yaml(settings, folder):
    """Read a configuration as `rvpo train` does, or the judge's alone."""
    from rvpo.cli.train import configure, read
    from rvpo.judging.config import JudgeConfig

    if not {"dataset_name", "datasets"} & set(settings):
        assert set(settings) <= {field.name for field in dataclasses.fields(JudgeConfig)}
        return
    assert set(settings.get("judge", {})) <= {field.name for field in dataclasses.fields(JudgeConfig)}
    (folder / "run.yaml").write_text(yaml.safe_dump(settings))
    script, _, _ = configure(read(["--config", "run.yaml", "--output_dir", "run"]))
    assert script.dataset_name == settings.get("dataset_name")
    assert [part.path for part in script.datasets] == [part["path"] for part in settings.get("datasets", ())]


def commands(code):
    """The commands of a block of shell, as lists of words."""
    text = re.sub(r"<<'END'.*?^END$", "", code.replace("\\\n", " "), flags=re.MULTILINE | re.DOTALL)
    for line in text.splitlines():
        words = shlex.split(line, comments=True)
        while words and (words[0] in ("do", "done", "&&", ";") or re.fullmatch(r"\w+=\S*", words[0])):
            words = words[1:]
        yield from (part.split("\0") for part in re.split(r"\0?(?:&&|;|\0do\0)\0?", "\0".join(words)) if part)


@cache
def help_of(*words):
    """What a command says of itself, with all of its options."""
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown), contextlib.suppress(SystemExit):
        main([*words, "--help_all" if words == ("train",) else "--help"])
    return set(re.findall(r"--[\w-]+", shown.getvalue()))


def options_of_accelerate():
    from accelerate.commands.launch import launch_command_parser

    return {option for action in launch_command_parser()._actions for option in action.option_strings}


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language in ("sh", "bash")], ids=name)
def test_what_a_block_of_shell_names_exists(block):
    for words in commands(block.code):
        program, *rest = words
        if program == "make":
            assert all(f"\n{target}:" in (ROOT / "Makefile").read_text() for target in rest if target != "&&")
        elif program.startswith("python"):
            module = find_spec(rest[1]) is not None if rest[0] == "-m" else (ROOT / rest[0]).is_file()
            assert module, rest[:2]
        elif program == "rvpo":
            assert rest[0] in {**COMMANDS, **LABORATORY}, rest[0]
            given = {word.partition("=")[0] for word in rest if word.startswith("--")}
            known = help_of(*rest[: 2 if rest[0] in ("judge", "bench", "eval") else 1])
            known = known | options_of_accelerate() if rest[0] == "train" else known
            assert given <= known, given - known
            for config in re.findall(r"\bconfigs/\S+\.yaml", " ".join(rest)):
                assert (ROOT / config).is_file(), config


# --- Scripts of examples/ ---


EXAMPLES = ROOT / "examples"


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


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of TRL's names and transformers'
@pytest.mark.filterwarnings("ignore::UserWarning")  # "pin_memory" without an accelerator
def test_a_run_with_two_reward_functions_and_an_audit_of_its_files(example, model, tmp_path, capsys):
    trainer = example("train_two_rewards.py", "--model", model, "--steps", 2, "--out", "run")["trainer"]
    names = ("length", "sentence", "plain", "polite")
    assert {f"channels/{name}/mean" for name in names} <= set(trainer.state.log_history[0])
    assert (tmp_path / "run/config.json").is_file()
    example("audit_exports.py", "run", "--html", "page.html")
    assert capsys.readouterr().out.count("the log does not tell which method to take") == 1
    page = (tmp_path / "page.html").read_text()
    assert all(name in page for name in names)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
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


def tracked(step):
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
            table = {"columns": list(tracked(1)[0]), "data": [list(row.values()) for row in tracked(step)]}
            (source / f"files/media/table/completions_{7 + index}_0a1b.table.json").write_text(json.dumps(table))
    else:
        source = tmp_path / "project.db"
        with closing(sqlite3.connect(source)) as database, database:
            database.execute("CREATE TABLE metrics (metrics TEXT NOT NULL)")
            logged = [
                {"train/loss": 0.5},
                *({"completions": {"_type": "trackio.table", "_value": tracked(s)}} for s in steps),
            ]
            database.executemany("INSERT INTO metrics VALUES (?)", [(json.dumps(entry).encode(),) for entry in logged])
        database.close()
    result = example("audit_exports.py", source)["result"]
    assert (result.rollouts, result.groups, result.steps) == (16, 4, (1.0, 2.0))
    assert result.headline.startswith("true is dead")
    assert (tmp_path / "audit.html").is_file()
