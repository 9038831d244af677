"""Options of the command line out of a configuration's fields."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

import pytest

from rvpo.cli.options import add_config_options, field_help, given_options
from rvpo.judging.config import JudgeConfig
from rvpo.llm.config import ServerConfig


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
