"""docs/algorithm.md: no method is without its row and its cell of the map."""

import re
from pathlib import Path

from rvpo import METHODS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "algorithm.md").read_text(encoding="utf-8")
ON_THE_MAP = {
    "corr_grpo": "CorrGRPO",
    "cvar": "CVaR",
    "hard_min": "hard-min",
    "maxrl": "MaxRL",
    "mean_variance": "mean-variance",
    "sa_mrpo": "SA-MRPO",
}
"""What the map calls a method, where it is not its name (in capitals, or as code)."""


def table(heading):
    section = PAGE.split(f"## {heading}", 1)[1].split("\n## ", 1)[0]
    return [line for line in section.splitlines() if line.startswith("|")]


def test_every_method_has_a_row():
    assert {name for row in table("Methods") for name in re.findall(r"^\| `(\w+)`", row)} == set(METHODS)


def test_every_method_has_a_cell_of_the_map():
    cells = " ".join(table("Map"))
    absent = [
        name
        for name in METHODS
        if not any(text in cells for text in (f"`{name}`", f"**{name.upper()}**", ON_THE_MAP.get(name, "`none`")))
    ]
    assert absent == []


def test_the_map_has_six_cells_a_rule():
    assert {row.count("|") for row in table("Map")} == {8}
