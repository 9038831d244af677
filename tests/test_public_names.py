"""docs/api.md lists what is public: exactly the names that its modules say they export, each with a docstring."""

import importlib
import inspect
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[1] / "docs" / "api.md"
ROWS = dict(re.findall(r"^\| `(rvpo[\w.]*)` \| (.+) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
"""Module -> its cell of the table."""


def names(module):
    return re.findall(r"`(\w+)`", ROWS[module])


def test_the_table_is_read():
    assert "compute_advantages" in names("rvpo")
    assert len(ROWS) > 10


@pytest.mark.parametrize("module", ROWS)
def test_the_table_has_the_names_that_the_module_exports(module):
    assert names(module) == list(importlib.import_module(module).__all__)


@pytest.mark.parametrize("module", ROWS)
def test_every_public_function_and_class_says_what_it_is(module):
    imported = importlib.import_module(module)
    things = {name: getattr(imported, name) for name in names(module)}
    defined = {name: thing for name, thing in things.items() if inspect.isfunction(thing) or inspect.isclass(thing)}
    assert [name for name, thing in defined.items() if not thing.__doc__] == []
