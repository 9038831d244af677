"""Every fenced block of the pages is run: here, by the test that its marker names, or not, for the reason it gives.

    <!-- run: tests/FILE.py -->      before a block: that test runs it
    <!-- not run: REASON -->         it needs what no test has; the options of its `rvpo` commands are checked here

Doctests are run by `make check`. Python and YAML without a marker is run here, in an empty folder.
"""

import contextlib
import dataclasses
import io
import re
import shlex
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from judging.fault_server import FaultServer
from rvpo.cli.main import COMMANDS, LABORATORY, main

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
