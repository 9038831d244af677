"""rvpo alone, as its wheel installs it: only the base dependencies beside it, no extra and no laboratory."""

import json
import os
import re
import subprocess
import sys
import venv
import zipfile
from importlib.metadata import distribution, requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from rvpo.cli.main import COMMANDS, LABORATORY

SOURCE = Path(__file__).resolve().parents[1] / "src" / "rvpo"
README = (SOURCE.parents[1] / "README.md").read_text(encoding="utf-8")
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


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from this checkout."""
    backend = pytest.importorskip("hatchling.build")
    folder = tmp_path_factory.mktemp("wheel")
    before = Path.cwd()
    os.chdir(SOURCE.parents[1])
    try:
        return folder / backend.build_wheel(str(folder))
    finally:
        os.chdir(before)


def test_the_readmes_install_line_works_from_the_wheel(wheel, tmp_path):
    """What is installed is the wheel alone, into an empty environment; what it requires is lent by this one."""
    line = re.search(r'^pip install "(rvpo\[([\w,]+)\]) @ git\+\S+"$', README, re.MULTILINE)
    with zipfile.ZipFile(wheel) as opened:
        (metadata,) = (opened.read(name).decode() for name in opened.namelist() if name.endswith("/METADATA"))
    offered = set(re.findall(r"^Provides-Extra: (\S+)$", metadata, re.MULTILINE))
    named = re.findall(r"pip install '\.\[([\w,]+)\]'|'\.\[([\w,]+)\]'", README)
    assert {extra for words in [line[2], *map("".join, named)] for extra in words.split(",")} <= offered

    venv.create(tmp_path / "empty", with_pip=False)
    python = tmp_path / "empty" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-index", "--no-deps"]
    subprocess.run([*pip, f"{line[1]} @ {wheel.as_uri()}"], check=True, timeout=120, cwd=tmp_path)
    packages = next((tmp_path / "empty" / "lib").glob("python*/site-packages"))
    (packages / "lent.pth").write_text(str(distribution("numpy").locate_file("")), encoding="utf-8")

    def printed(*words):
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        run = subprocess.run(
            words, capture_output=True, text=True, check=True, timeout=120, cwd=tmp_path, env=environment
        )
        return run.stdout

    command = str(python.with_name("rvpo"))
    assert printed(command, "--version") == f"rvpo {version('rvpo')}\n"
    assert "instruction/limit" in printed(command, "audit", "--example")
    place = printed(str(python), "-c", "import rvpo; print(rvpo.__file__)").strip()
    assert Path(place).parent == packages / "rvpo"


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as opened:
        names = {name for name in opened.namelist() if not name.startswith("rvpo-")}
    files = {path for path in SOURCE.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert names == {str(path.relative_to(SOURCE.parent)) for path in files}
    assert wheel.stat().st_size < 500_000
