"""The command line itself: help, version, commands that are missing, and the installed command."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rvpo import __version__
from rvpo.cli.main import COMMANDS, LABORATORY, main


def rvpo(*words, cwd=None):
    """Run the installed command in a process of its own."""
    command = [str(Path(sys.executable).with_name("rvpo")), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=cwd)


def test_help_names_every_command_and_has_examples():
    done = rvpo("--help")
    assert done.returncode == 0
    assert done.stderr == ""
    for text in ("train", "quickstart", "examples:", "rvpo train --config"):
        assert text in done.stdout


def test_help_of_train_has_examples_and_the_options_of_rvpo_and_trl(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["train", "--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    for text in ("examples:", "--resume_from_checkpoint last", "--k_schedule", "--num_generations", "tool_format"):
        assert text in shown


def test_the_version_is_printed(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"rvpo {__version__}\n"


@pytest.mark.parametrize("words", [[], ["trian"]])
def test_a_missing_or_unknown_command_is_status_2(capsys, words):
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2
    assert "COMMAND" in capsys.readouterr().err


def test_wrong_input_of_the_installed_command_is_one_line_and_status_2(tmp_path):
    done = rvpo("train", "--config", "gone.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("rvpo: error: ")
    assert len(done.stderr.splitlines()) == 1


def test_help_is_one_screen_and_has_every_command_under_a_purpose(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    headings = [line for line in lines if line.endswith(":") and not line.startswith(" ")]
    assert headings[:-1] == ["train:", "reward:", "see:", "evaluate:", "laboratory (the package rvpo-lab):"]


@pytest.mark.parametrize("command", [*COMMANDS, *LABORATORY])
def test_the_help_of_a_command_opens_with_two_examples(capsys, command):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    _, _, heading, *examples = capsys.readouterr().out.splitlines()
    assert heading == "examples:"
    block = "\n".join(examples[: examples.index("")]).replace("\\\n", "")
    assert [line.split()[:2] for line in block.splitlines()] == [["rvpo", command]] * 2


@pytest.mark.parametrize(
    ("words", "right"),
    [
        (["trian"], "train"),
        (["train", "--metod", "gdpo"], "--method"),
        (["audit", "--exampel"], "--example"),
        (["data", "rows.jsonl", "--format", "helthbench"], "healthbench"),
        (["judge", "grade", "rows.jsonl", "--modle", "m"], "--model"),
        (["judge", "chek", "rows.jsonl"], "check"),
        (["compare", "a", "b", "--sead", "1"], "--seed"),
        (["report", "run", "--picure", "a.svg"], "--picture"),
        (["quickstart", "--sedes", "1"], "--seeds"),
        (["bench", "neglct"], "neglect"),
        (["simulate", "--chanels", "3"], "--channels"),
        (["tables", "results", "--no-test2"], "--no-tests"),
    ],
)
def test_a_wrong_name_gets_the_nearest_right_one(capsys, words, right):
    try:
        status = main(words)
    except SystemExit as stopped:
        status = stopped.code
    assert status == 2
    assert f"did you mean {right}?" in capsys.readouterr().err


def test_the_help_of_train_is_short_and_has_the_rest_on_demand(capsys):
    pages = []
    for option in ("--help", "--help_all"):
        with pytest.raises(SystemExit):
            main(["train", option])
        pages.append(capsys.readouterr().out)
    short, whole = pages
    assert len(short.splitlines()) < 250
    assert "rvpo train --help_all" in short
    assert "--fsdp" not in short
    assert "--fsdp" in whole


COMPLETING = """
eval "$(register-python-argcomplete rvpo)"
COMP_LINE="$1"; COMP_POINT=${#1}; COMP_TYPE=9; COMP_WORDS=($1)
_python_argcomplete rvpo
echo "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("rvpo au", ["audit"]),
        ("rvpo audit --meth", ["--methods"]),
        ("rvpo judge st", ["store"]),
        ("rvpo judge grade --conf", ["--config"]),
        ("rvpo eval ifeval --dat", ["--data"]),  # an option of the task
        ("rvpo nonsense --meth", []),
    ],
)
def test_bash_completes_commands_and_options(line, completed):
    pytest.importorskip("argcomplete")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    words = ["bash", "-c", COMPLETING, "bash", line]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, env=os.environ | {"PATH": path})
    assert done.stdout.split() == completed, done.stderr


def test_methods_are_separated_by_commas_or_spaces(tmp_path, capsys):
    brief = ["--steps", "3", "--channels", "3", "--instances", "20"]
    printed = []
    for name, words in {
        "commas": ["gdpo,rvpo:2,cvar::share=0.5"],
        "spaces": ["gdpo", "rvpo:2", "cvar::share=0.5"],
    }.items():
        assert main(["simulate", *brief, "--methods", *words, "--out", str(tmp_path / name)]) == 0
        printed.append(capsys.readouterr().out.replace(name, ""))
    assert printed[0] == printed[1]
    both = [json.loads((tmp_path / name / "simulate.json").read_text()) for name in ("commas", "spaces")]
    assert both[0] == both[1]
    assert len(both[0]["settings"]["methods"]) == 3
