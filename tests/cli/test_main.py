"""The command line itself: help, version, commands that are missing, and the installed command."""

import subprocess
import sys
from pathlib import Path

import pytest

from rvpo import __version__
from rvpo.cli.main import main


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
