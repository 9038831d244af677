"""Options of the command line: out of a configuration's fields, out of several files as one, and accelerate's."""

import argparse
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

import pytest

from rvpo import ConfigError
from rvpo.cli.main import main
from rvpo.cli.options import add_config_options, field_help, given_options
from rvpo.cli.train import accelerate_words, configure, launch, read, read_config_files
from rvpo.judging.config import JudgeConfig
from rvpo.llm.config import ServerConfig

# --- Fields of a configuration ---


@dataclass
class Base:
    """A class whose fields others inherit."""

    name: str
    """What it is called, in 100 %
    of all cases."""


@dataclass
class Derived(Base):
    """One option of each type."""

    number: int = 3
    """A whole number."""
    share: float | None = None
    """A number."""
    more: Mapping[str, int] = field(default_factory=dict)
    """Further ones."""
    silent: str = "x"


@pytest.fixture
def parser():
    made = argparse.ArgumentParser(prog="p", formatter_class=lambda prog: argparse.HelpFormatter(prog, width=100))
    add_config_options(made, Derived, defaults={"silent": "y"})
    return made


def test_what_stands_after_a_field_is_its_help(parser):
    assert field_help(Derived) == {
        "name": "What it is called, in 100 % of all cases.",
        "number": "A whole number.",
        "share": "A number.",
        "more": "Further ones.",
    }
    lines = [" ".join(line.split()) for line in parser.format_help().splitlines()]
    assert "--name NAME What it is called, in 100 % of all cases." in lines
    assert "--number NUMBER A whole number. (default: 3)" in lines
    assert "--share SHARE A number." in lines
    assert "--more MORE Further ones." in lines
    assert "--silent SILENT (default: y)" in lines


def test_values_have_the_types_of_the_fields_and_what_is_not_given_is_left_out(parser):
    words = ["--name", "3", "--number", "4", "--share", "0.5", "--more", '{"a": 1}']
    assert given_options(parser.parse_args(words), Derived) == {
        "name": "3",
        "number": 4,
        "share": 0.5,
        "more": {"a": 1},
    }
    assert given_options(parser.parse_args([]), Derived) == {}


@pytest.mark.parametrize("words", [["--number", "4.5"], ["--share", "half"], ["--more", "{"], ["--other", "x"]])
def test_what_cannot_be_read_ends_the_program(parser, words, capsys):
    with pytest.raises(SystemExit) as stopped:
        parser.parse_args(words)
    assert stopped.value.code == 2
    assert words[0] in capsys.readouterr().err


def test_every_setting_of_the_judge_is_an_option_that_says_what_it_is():
    names = [setting.name for setting in fields(JudgeConfig)]
    assert set(field_help(JudgeConfig)) == set(names) > {setting.name for setting in fields(ServerConfig)}
    made = argparse.ArgumentParser()
    add_config_options(made, JudgeConfig)
    assert {action.dest for action in made._actions} - {"help"} == set(names)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    return tmp_path


def write(**files):
    for name, text in files.items():
        Path(f"{name}.yaml").write_text(text)


# --- Configuration files ---


def test_later_files_come_first_and_mappings_are_merged(folder):
    write(a="k: 1\nbeta: 0.1\njudge: {model: m, store: s}", b="k: 2\njudge: {store: t, extra: {x: 1}}")
    for words in (["--config", "a.yaml", "b.yaml"], ["--config=a.yaml", "--config", "b.yaml"]):
        given = read_config_files(["--seed", "3", *words, "--beta", "0.2"])
        assert given.settings == {"k": 2, "beta": 0.1, "judge": {"model": "m", "store": "t", "extra": {"x": 1}}}
        assert given.words == ["--seed", "3", "--beta", "0.2"]
        assert given.name == "a-b"


def test_null_takes_an_option_back(folder):
    write(a="k_end: 2.0\njudge: {model: m}", b="k_end: null\njudge: null")
    assert read_config_files(["--config", "a.yaml", "b.yaml"]).settings == {"k_end": None, "judge": None}


def test_a_file_includes_others_relative_to_itself(folder):
    (folder / "deep").mkdir()
    write(top="include: [base.yaml, deep/other.yaml]\nk: 3", base="k: 1\nseed: 1\nbeta: 0.1", unused="k: 9")
    Path("deep/other.yaml").write_text("include: more.yaml\nseed: 2")
    Path("deep/more.yaml").write_text("seed: 5\nlr: 1")
    given = read_config_files(["--config", str(folder / "top.yaml")])
    assert given.settings == {"k": 3, "seed": 2, "beta": 0.1, "lr": 1}
    assert given.name == "top"


def test_env_is_set(folder, monkeypatch):
    monkeypatch.setenv("TEST_LAUNCH_ENV", "before")
    write(a="env: {TEST_LAUNCH_ENV: 1}\nk: 1")
    assert read_config_files(["--config", "a.yaml"]).settings == {"k": 1}
    assert os.environ["TEST_LAUNCH_ENV"] == "1"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a": "include: b.yaml", "b": "include: a.yaml"}, "a.yaml includes itself"),
        ({"a": "include: gone.yaml"}, "gone.yaml"),
        ({"a": "include: 3"}, "include must be a file or a list of files, got 3"),
        ({"a": "- k"}, "a.yaml must be a YAML mapping of options, got list"),
        ({"a": "k: [1"}, "a.yaml"),
        ({"a": "env: 3"}, "env must be a mapping"),
    ],
)
def test_files_that_cannot_be_read(folder, files, message):
    write(**files)
    with pytest.raises(ConfigError, match=message):
        read_config_files(["--config", "a.yaml"])


@pytest.mark.parametrize("words", [["--config"], ["--config", "--k", "1"], ["--seed", "1", "--config"]])
def test_config_without_a_file(folder, words):
    with pytest.raises(ConfigError, match="--config needs a file"):
        read_config_files(words)


def test_a_run_is_called_by_its_files_unless_it_has_a_folder(folder):
    write(task="seed: 1", gdpo="method: gdpo", placed="output_dir: there")

    def output_dir(*words):
        return configure(read([*words, "--use_cpu", "true", "--bf16", "false"]))[1].output_dir

    assert output_dir("--config", "task.yaml", "gdpo.yaml") == "runs/task-gdpo"
    assert output_dir("--config", "task.yaml", "placed.yaml") == "there"
    assert output_dir("--config", "task.yaml", "--output_dir", "here") == "here"


# --- Options of accelerate ---


@pytest.mark.parametrize("name", ["single_gpu", "multi_gpu", "zero1", "zero2", "zero3", "fsdp1", "fsdp2"])
def test_trls_configurations_are_known_by_name(name):
    option, file = accelerate_words(name, {}, [])
    assert option == "--config_file"
    assert Path(file).stem == name
    assert "num_processes" in Path(file).read_text()


def test_options_of_accelerate_are_taken_from_yaml_and_the_command_line(folder):
    write(a="k: 1\nnum_processes: 4\nmulti_gpu: true\nuse_fsdp: false\nmachine_rank: null")
    command = read(["--config", "a.yaml", "--num_machines", "2"])
    assert command.to_accelerate == ["--num_processes", "4", "--multi_gpu", "--num_machines", "2"]
    assert command.words == ["--num_machines", "2"]


def test_a_file_of_ones_own_may_be_the_configuration(folder):
    write(mine="num_processes: 2")
    assert accelerate_words("mine.yaml", {}, ["--gpu_ids", "0,1"]) == [
        "--config_file",
        "mine.yaml",
        "--gpu_ids",
        "0,1",
    ]


@pytest.mark.parametrize("launched", ["none", "rank"])
def test_a_process_that_was_started_does_not_start_others(folder, monkeypatch, launched):
    write(a="k: 1\naccelerate_config: zero3\nnum_processes: 4")
    words = ["--config", "a.yaml"]
    assert read(words).to_accelerate
    if launched == "rank":
        monkeypatch.setenv("LOCAL_RANK", "1")
    else:
        words += ["--accelerate_config", "none"]
    assert read(words).to_accelerate == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--accelerate_config", "zero4"], "unknown accelerate_config 'zero4': did you mean 'zero"),
        (["--num_proceses", "4"], "--num_proceses: no option of rvpo train, of TRL's GRPO or of accelerate"),
        (["--multi_gpu", "--k_shedule", "linear"], "--k_shedule: no option"),
        (["stray"], "stray: no option"),
        (["--accelerate_config", "none", "--num_proceses", "4"], "--num_proceses: no option"),
    ],
)
def test_unknown_options_are_named(folder, capsys, words, message):
    assert main(["train", *words]) == 2
    assert message in capsys.readouterr().err


def test_an_option_of_ours_is_checked_before_processes_are_started(folder, capsys):
    assert main(["train", "--k_schedule", "linear", "--num_processes", "4", "--multi_gpu"]) == 2
    assert "needs k_end" in capsys.readouterr().err


def test_the_status_of_a_process_that_fails_is_the_commands(folder, capfd):
    options = ["--num_processes", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    assert launch(options, ["--config", "gone.yaml"]) == 2
    assert "rvpo: error: cannot read configuration gone.yaml" in capfd.readouterr().err
