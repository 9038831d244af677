"""`rvpo audit`: what it prints and writes, and its errors; in a process of its own, one line and exit status 2."""

import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rvpo.audit import REAL_EXAMPLE, audit_log
from rvpo.cli.audit import main
from rvpo.errors import ConfigError


def write_csv(file, *, names=("good", "bad"), seed=0, steps=4):
    """A log whose second reward goes against the first."""
    draw = np.random.default_rng(seed)
    lines = [",".join(["step", "prompt", "completion", *names])]
    for prompt in range(40):
        for _ in range(6):
            good = int(draw.random() < 0.6)
            bad = int(draw.random() < (0.1 if good else 0.3))
            lines.append(f"{prompt % steps},p{prompt},{'x' * draw.integers(1, 40)} {draw.random()},{good},{bad}")
    file.write_text("\n".join(lines) + "\n")
    return file


def test_the_example_works_offline_and_names_the_neglect_first(capsys):
    assert main(["--example"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("instruction/limit is at risk under gdpo: forecast -0.0")
    assert all(len(line) <= 80 for line in lines)
    assert any(line.lstrip().startswith("instruction/limit ") and " !" in line for line in lines)


def test_the_example_of_a_real_model(capsys):
    """Rates that the theory speaks about, from nearly never to nearly always met, with rewards as they were logged."""
    assert main(["--example", "real", "--methods", "gdpo,rvpo", "--ks", "2"]) == 0
    out = capsys.readouterr().out
    assert "1600 rollouts in 200 groups" in " ".join(out.split())
    assert max(map(len, out.splitlines())) <= 80
    result = audit_log(REAL_EXAMPLE, methods=["gdpo"], draws=10)
    means = {channel.name: channel.mean.value for channel in result.channels}
    table = pq.read_table(REAL_EXAMPLE).to_pylist()
    for name in ("question", "title", "no_exclamation"):
        values = [value for row in table for key, value in row["rewards"] if key == name]
        assert means[name] == pytest.approx(np.mean(values), abs=0.02)
    assert len(means) == 23
    assert min(means.values()) < 0.02
    assert max(means.values()) > 0.7


def test_a_log_is_shown_in_80_columns_with_what_was_understood(tmp_path, capsys):
    assert main([str(write_csv(tmp_path / "log.csv")), "--methods", "gdpo,rvpo", "--ks", "2"]) == 0
    out = capsys.readouterr().out
    assert "rewards: good, bad" in out
    assert "240 rollouts in 40 groups, steps 0 to 3" in " ".join(out.split())
    assert max(map(len, out.splitlines())) <= 80


def test_page_and_json_are_written(tmp_path, capsys):
    log = write_csv(tmp_path / "log.csv")
    page, data = tmp_path / "new" / "page.html", tmp_path / "data.json"
    assert main([str(log), "--html", str(page), "--json", str(data), "--methods", "gdpo", "--seed", "3"]) == 0
    assert f"written: {page}" in capsys.readouterr().out
    assert page.read_text().startswith("<!doctype html>")
    stored = json.loads(data.read_text())
    assert [channel["name"] for channel in stored["channels"]] == ["good", "bad"]
    second = tmp_path / "again.json"
    main([str(log), "--json", str(second), "--methods", "gdpo", "--seed", "3"])
    assert second.read_text() == data.read_text()


@pytest.mark.parametrize(("channels", "more"), [(20, None), (21, "and 1 more, in --html and --json")])
def test_the_terminal_shows_20_channels_under_4_signals(tmp_path, capsys, channels, more):
    names = [f"c{index}" for index in range(channels)]
    draw = np.random.default_rng(0)
    rows = [",".join([f"p{row // 4}", *map(str, draw.integers(0, 2, channels))]) for row in range(80)]
    (tmp_path / "log.csv").write_text("\n".join([",".join(["prompt", *names]), *rows]))
    assert main([str(tmp_path / "log.csv"), "--methods", "grpo,gdpo,cvar,dvao,gd2po"]) == 0
    out = capsys.readouterr().out
    lines = [line.split() for line in out.splitlines()]
    shown = [line for line in lines if line and line[0] in names and line[-1] in ("r", "s", "f", "!", "?")]
    assert len(shown) == 20
    assert {len(line) for line in shown} == {1 + 3 + 2 * 4}
    assert (more in out) if more else ("more, in" not in out)


def test_two_logs_are_compared(tmp_path, capsys):
    first, second = write_csv(tmp_path / "one.csv"), write_csv(tmp_path / "two.csv", seed=1)
    data = tmp_path / "both.json"
    assert main([str(first), "--compare", str(second), "--json", str(data), "--methods", "gdpo"]) == 0
    assert "two.csv: no reward differs: 2 compared" in " ".join(capsys.readouterr().out.split())
    compared = json.loads(data.read_text())["compared"]
    assert compared["after"]["source"] == str(second)
    assert {change["name"] for change in compared["changes"]} == {"good", "bad"}


def test_steps_columns_and_ranges_are_taken(tmp_path, capsys):
    log = write_csv(tmp_path / "log.csv")
    chosen = ["--group", "prompt", "--step", "step", "--rewards", "bad", "--steps", "1-2", "--range", "bad=-1,2"]
    data = tmp_path / "data.json"
    assert main([str(log), *chosen, "--json", str(data)]) == 0
    stored = json.loads(data.read_text())
    assert (stored["rollouts"], stored["steps"], stored["channels"][0]["range"]) == (120, [1.0, 2.0], [-1.0, 2.0])
    assert main([str(log), "--steps", "3"]) == 0
    assert "60 rollouts" in " ".join(capsys.readouterr().out.split())


def test_names_from_the_log_cannot_steer_the_terminal(tmp_path, capsys):
    log = write_csv(tmp_path / "log.csv", names=("[bold red]x[/]", "\x1b[31mred"))
    assert main([str(log), "--methods", "gdpo"]) == 0
    out = capsys.readouterr().out
    assert "[bold red]x[/]" in out
    assert "\x1b" not in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "either LOG or --example"),
        (["log.csv", "--example"], "either LOG or --example"),
        (["nowhere"], "there is no file or folder nowhere"),
        (["LOG", "--steps", "5-1"], "--steps takes FIRST-LAST"),
        (["LOG", "--steps", "x"], "--steps takes FIRST-LAST"),
        (["LOG", "--ks", "1,two"], "--ks takes numbers"),
        (["LOG", "--ks=-1"], "must be a number >= 0"),
        (["LOG", "--methods", "gpo"], "did you mean 'grpo'"),
        (["LOG", "--rewards", "godo"], "did you mean 'good'"),
        (["LOG", "--range", "good"], "--range takes NAME=LOW,HIGH"),
        (["LOG", "--range", "good=0,0.5"], "must hold its rewards"),
        (["LOG", "--seed", "-1"], "seed >= 0"),
        (["LOG", "--steps", "100-200"], "no rollouts"),
        (["LOG", "--html", "LOG/page.html"], "cannot write"),
    ],
)
def test_wrong_input_is_one_line(tmp_path, arguments, message):
    log = str(write_csv(tmp_path / "log.csv"))
    with pytest.raises(ConfigError, match=message):
        main([argument.replace("LOG", log) for argument in arguments])


def test_what_is_not_installed_is_named_with_what_brings_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"needs pyarrow.*pip install 'rvpo\[audit\]'"):
        main(["--example"])


# --- As a process ---


RUN = [sys.executable, "-W", "error", "-m", "rvpo.cli.main"]


def rvpo(*arguments):
    """Run the command; return status, output and errors."""
    run = subprocess.run([*RUN, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False)
    return run.returncode, run.stdout, run.stderr


def rows(rewards):
    return [{"prompt": f"p{index // 4}", "step": 1, "a": reward} for index, reward in enumerate(rewards)]


def jsonl_bytes(rewards):
    return "".join(json.dumps(row) + "\n" for row in rows(rewards)).encode()


def parquet_bytes(folder, rewards):
    pq.write_table(pa.Table.from_pylist(rows(rewards)), folder / "whole.parquet")
    return (folder / "whole.parquet").read_bytes()


NUMBERS = np.random.default_rng(0).random(400).tolist()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("cut.parquet", lambda folder: parquet_bytes(folder, NUMBERS)[:-100], "cannot be read as parquet"),
        ("mixed.jsonl", lambda folder: jsonl_bytes([*NUMBERS, "good"]), "row 401: column 'a' holds 'good'"),
        ("empty.csv", lambda folder: b"", "is empty"),
        ("long.jsonl", lambda folder: jsonl_bytes(NUMBERS) + b"x" * 10_000, "line 401 is not JSON"),
        (
            "nan.parquet",
            lambda folder: parquet_bytes(folder, [float("nan")] * 8),
            "none of the 8 rollouts has a value",
        ),
    ],
)
def test_a_broken_file_is_one_line_and_status_2(tmp_path, name, content, message):
    file = tmp_path / name
    file.write_bytes(content(tmp_path))
    status, out, err = rvpo("audit", file)
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert err.startswith("rvpo: error: ")
    assert message in err
    assert "Traceback" not in err


def test_help_names_the_command_and_the_command_has_examples():
    status, out, _ = rvpo("--help")
    assert status == 0
    assert "\n  audit " in out
    status, out, _ = rvpo("audit", "--help")
    assert status == 0
    assert "rvpo audit --example" in out
