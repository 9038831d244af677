"""Data flows one way: no import runs back up between folders, and none from rvpo to its laboratory."""

import ast
import functools
from collections import defaultdict
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = [ROOT / "src", ROOT / "lab" / "src"]
MODULES = {
    ".".join(path.relative_to(source).with_suffix("").parts).removesuffix(".__init__"): path
    for source in SOURCES
    for path in sorted(source.rglob("*.py"))
}
"""Dotted name -> file, of every module of both packages."""


@functools.cache
def imports(path):
    """Modules of the repository that a file imports, anywhere in it, also for type checking alone."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names} & MODULES.keys()
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            names |= {f"{node.module}.{alias.name}" for alias in node.names} & MODULES.keys() or {node.module}
    return names


def room(module):
    """The folder of a module, or the module itself where it lies directly in its package; `rvpo` for its front."""
    package, *rest = module.split(".")
    return ".".join([package, *rest[:1]])


@functools.cache
def arrows():
    """Return room -> rooms that it imports."""
    graph = defaultdict(set)
    for importer, file in MODULES.items():
        graph[room(importer)] |= {room(target) for target in imports(file)} - {room(importer)}
    return graph


def cycle(graph):
    """A cycle of a graph as a list of its nodes, or None."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return None


def test_the_reader_of_imports_sees_both_packages():
    assert "rvpo.core.advantages" in MODULES
    assert "rvpo_lab.suite" in MODULES
    assert "rvpo.core" in arrows()["rvpo.integrations"]
    assert "rvpo.integrations" in arrows()["rvpo_lab.suite"]


def test_no_folders_import_each_other_in_a_circle():
    assert cycle(arrows()) is None


@pytest.mark.parametrize("folder", sorted({room(module) for module in MODULES}))
def test_no_files_of_a_folder_import_each_other_in_a_circle(folder):
    inside = {
        name: {t for t in imports(path) if room(t) == folder} - {name}
        for name, path in MODULES.items()
        if room(name) == folder
    }
    assert cycle(inside) is None


@pytest.mark.parametrize("module", [name for name in MODULES if name.partition(".")[0] == "rvpo"])
def test_the_product_knows_no_laboratory(module):
    assert not [name for name in imports(MODULES[module]) if name.partition(".")[0] == "rvpo_lab"]
    assert "rvpo_lab" not in MODULES[module].read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("folder", "allowed"),
    {
        "rvpo.errors": set(),
        "rvpo.files": {"errors"},
        "rvpo.text": set(),
        "rvpo.ranges": set(),
        "rvpo.stats": {"errors"},
        "rvpo.core": {"errors", "ranges"},
        "rvpo.rewards": {"errors", "judging", "llm", "ranges"},
        "rvpo.llm": {"errors", "text"},
        "rvpo.judging": {"errors", "llm", "text"},
        "rvpo.data": {"errors", "files", "judging", "llm", "text"},
        "rvpo.audit": {"errors", "core", "rewards", "stats", "text", "ranges"},
        "rvpo.evals": {"errors", "data", "judging", "llm", "rewards", "stats", "text"},
        "rvpo.integrations": {"errors", "files", "core", "data", "judging", "llm", "rewards", "stats", "text"}
        | {"ranges"},
        "rvpo.report": {"errors", "core", "stats", "text"},
    }.items(),
)
def test_a_folder_imports_only_what_lies_below_it(folder, allowed):
    assert arrows()[folder] - {"rvpo"} <= {f"rvpo.{name}" for name in allowed}


@pytest.mark.parametrize(
    ("folder", "of_product", "of_laboratory"),
    [
        ("method_text", {"core"}, set()),
        ("wind_tunnel", {"core", "stats"}, {"method_text"}),
        ("paper_tables", {"data", "evals", "text"}, set()),
        ("tasks", {"evals", "rewards", "stats"}, set()),
        ("suite", {"audit", "core", "files", "integrations", "report", "stats", "text"}, {"method_text", "tasks"}),
        ("report", {"report", "stats", "text"}, {"suite", "tasks"}),
        ("instructions", {"core", "integrations", "llm", "report", "rewards", "stats", "text"}, {"suite", "tasks"}),
    ],
)
def test_a_room_of_the_laboratory_imports_only_what_lies_below_it(folder, of_product, of_laboratory):
    """Its commands, `rvpo_lab.cli`, may import everything and are imported by no room."""
    product = {f"rvpo.{name}" for name in of_product | {"errors"}}
    assert arrows()[f"rvpo_lab.{folder}"] - {"rvpo"} <= product | {f"rvpo_lab.{name}" for name in of_laboratory}
