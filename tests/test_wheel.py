"""rvpo alone, as its wheel installs it: only the base dependencies beside it, no extra and no laboratory."""

import json
import subprocess
import sys
import zipfile
from importlib.metadata import distribution, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from rvpo.cli.main import COMMANDS, LABORATORY

SOURCE = Path(__file__).resolve().parents[1] / "src" / "rvpo"
RUN = """
import contextlib, io, json, sys
sys.path[:0] = {places}
from rvpo.cli.main import main
for words in {lines}:
    printed = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(printed[0]), contextlib.redirect_stderr(printed[1]):
        try:
            status = main(words)
        except SystemExit as stopped:
            status = stopped.code
    print(json.dumps([status, *(text.getvalue() for text in printed)]))
"""
"""Runs command lines with nothing but the standard library and these folders on the path."""
USE = [
    ["train", "--method", "rvpo"],
    ["data", "rubrics.jsonl"],
    ["judge", "grade", "rows.jsonl"],
    ["audit", "--example"],
    ["eval", "gpqa", "--data", "gpqa.csv", "--model", "m"],
    ["compare", "a", "b"],
    ["report", "runs/rvpo"],
    ["report", "--picture", "neglect.svg"],
]


def base_dependencies():
    """Names of the distributions that `rvpo` requires without an extra, and those that they require."""
    names, wanted = set(), ["rvpo"]
    while wanted:
        name = wanted.pop()
        needs = map(Requirement, requires(name) or [])
        needed = {need.name for need in needs if not need.marker or need.marker.evaluate({"extra": ""})} - names
        names |= needed
        wanted += needed
    return names


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Folder of links to the package and its base dependencies: nothing else of this environment is in sight."""
    folder = tmp_path_factory.mktemp("site-packages")
    (folder / "rvpo").symlink_to(SOURCE)
    for name in base_dependencies():
        installed = distribution(name)
        for top in {file.parts[0] for file in installed.files if file.parts[0] not in ("..", "__pycache__")}:
            (folder / top).symlink_to(installed.locate_file(top))
    return folder


def run(folder, lines, cwd):
    """Status, standard output and standard error of `rvpo` command lines, in one process."""
    code = RUN.format(places=[str(folder)], lines=lines)
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, timeout=60, cwd=cwd, check=False
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_every_commands_help_works_or_names_what_to_install(alone, tmp_path):
    commands = [*COMMANDS, *LABORATORY]
    results = run(alone, [[name, "--help"] for name in commands], tmp_path)
    for command, (status, out, err) in zip(commands, results, strict=True):
        if status:
            assert status == 2
            assert out == ""
            assert err.startswith("rvpo: error: ")
            assert "pip install" in err
            assert len(err.splitlines()) == 1
        else:
            assert out.startswith(f"usage: rvpo {command} ")


def test_every_command_names_the_extra_that_it_needs(alone, tmp_path):
    for words, (status, _, err) in zip(USE, run(alone, USE, tmp_path), strict=True):
        assert status == 2, words
        assert "pip install 'rvpo[" in err, words
        assert len(err.splitlines()) == 1, words


def test_the_laboratory_is_named_where_it_is_missing(alone, tmp_path):
    lines = [[name] for name in LABORATORY]
    for words, (status, _, err) in zip(lines, run(alone, lines, tmp_path), strict=True):
        assert status == 2
        assert "belongs to the laboratory, rvpo-lab, not installed here; get it by pip install ./lab" in err
        assert words[-1] in err
    ((status, out, _),) = run(alone, [["--help"]], tmp_path)
    assert status == 0
    assert all(f"\n  {name}" in out for name in (*COMMANDS, *LABORATORY))


def test_the_wheel_holds_the_package_and_nothing_else(tmp_path, monkeypatch):
    backend = pytest.importorskip("hatchling.build")
    monkeypatch.chdir(SOURCE.parents[1])
    wheel = tmp_path / backend.build_wheel(str(tmp_path))
    with zipfile.ZipFile(wheel) as opened:
        names = {name for name in opened.namelist() if not name.startswith("rvpo-")}
    files = {path for path in SOURCE.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert names == {str(path.relative_to(SOURCE.parent)) for path in files}
    assert wheel.stat().st_size < 500_000
