"""The package itself: its public names, that its core is fast to import and knows no trainer.

And data flows one way: no import runs back up between folders, and none from rvpo to its laboratory.
"""

import ast
import functools
import json
import subprocess
import sys
from collections import defaultdict
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import rvpo

SOURCE = Path(rvpo.__file__).parent
MODULES = sorted(SOURCE.rglob("*.py"))

CORE = SOURCE / "core"


LAZY = {"RVPOConfig", "RVPOTrainer"}
"""Names of the package that import TRL when they are asked for."""


def name_of(path):
    """Dotted name of a source file."""
    return ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts)


def exported(path):
    """`__all__` as written in the file, or None."""
    for statement in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.Assign) and [ast.unparse(t) for t in statement.targets] == ["__all__"]:
            return ast.literal_eval(statement.value)
    return None


def defined(path):
    """Names bound anywhere in the file."""
    names = set()
    for statement in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match statement:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.Assign(targets=targets):
                names |= {n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)}
            case ast.AnnAssign(target=ast.Name(id=name)):
                names.add(name)
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                names |= {alias.asname or alias.name for alias in aliases}
    return names


def loaded_by(statement):
    """Names of all modules that a fresh interpreter holds after the statement."""
    code = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert run.stderr == ""
    return set(json.loads(run.stdout))


def order(name):
    """Constants, then classes, then the rest, each by name."""
    kind = 0 if name.isupper() else 1 if name[0].isupper() else 2
    return kind, name


@pytest.mark.parametrize("path", [m for m in MODULES if exported(m) is not None], ids=name_of)
def test_all_is_sorted_and_its_names_exist(path):
    names = exported(path)
    assert names == sorted(set(names), key=order)
    assert set(names) - LAZY <= defined(path)


@pytest.mark.parametrize("path", [m for m in MODULES if m.parent == CORE and m.stem != "__init__"], ids=name_of)
def test_every_module_of_the_core_says_what_is_public(path):
    assert exported(path)


def test_public_names_of_the_package_are_complete():
    homes = {name: module for module, names in rvpo._HOMES.items() for name in names}
    assert set(homes) == set(rvpo.__all__) - {"__version__"}
    assert set(rvpo.__all__) <= set(dir(rvpo))
    for name in set(homes) - LAZY:
        assert getattr(rvpo, name) is getattr(sys.modules[f"rvpo.{homes[name]}"], name)


def test_an_unknown_name_of_the_package_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'RVPOTrainre'"):
        rvpo.RVPOTrainre  # noqa: B018


def test_version_is_the_one_of_the_project():
    text = (SOURCE.parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    assert f'\nversion = "{rvpo.__version__}"\n' in text


def test_importing_rvpo_loads_nothing_heavy():
    heavy = {"torch", "trl", "transformers", "datasets", "openai", "matplotlib", "pandas", "verl", "ray", "peft"}
    assert loaded_by("import rvpo.cli.main") & (heavy | {"numpy"}) == set()
    assert loaded_by("import rvpo; rvpo.compute_advantages") & heavy == set()


def test_computing_advantages_of_lists_loads_nothing_heavy():
    loaded = loaded_by("import rvpo; rvpo.compute_advantages([[[1.0, None], [0.0, 1.0]]])")
    assert "numpy" in loaded
    assert loaded & {"torch", "trl", "transformers", "pandas"} == set()


def test_advantages_know_no_trainer_task_or_command_line():
    loaded = loaded_by("import rvpo.core.advantages")
    beyond = {"audit", "cli", "data", "evals", "integrations", "judging", "report", "tasks"}
    assert {name.split(".")[1] for name in loaded if name.startswith("rvpo.")} & beyond == set()


def test_no_module_is_named_like_a_trainer():
    # It would shadow the trainer for code that is run from its folder.
    assert {path.stem for path in MODULES if path.stem != "__init__"} & {
        "trl",
        "verl",
        "torch",
        "openai",
        "datasets",
    } == set()


# --- Direction of imports ---


ROOT = Path(__file__).resolve().parents[1]
SOURCES = [ROOT / "src", ROOT / "lab" / "src"]
FILES = {
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
            names |= {alias.name for alias in node.names} & FILES.keys()
        elif isinstance(node, ast.ImportFrom) and node.module in FILES:
            names |= {f"{node.module}.{alias.name}" for alias in node.names} & FILES.keys() or {node.module}
    return names


def room(module):
    """The folder of a module, or the module itself where it lies directly in its package; `rvpo` for its front."""
    package, *rest = module.split(".")
    return ".".join([package, *rest[:1]])


@functools.cache
def arrows():
    """Return room -> rooms that it imports."""
    graph = defaultdict(set)
    for importer, file in FILES.items():
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
    assert "rvpo.core.advantages" in FILES
    assert "rvpo_lab.suite" in FILES
    assert "rvpo.core" in arrows()["rvpo.integrations"]
    assert "rvpo.integrations" in arrows()["rvpo_lab.suite"]


def test_no_folders_import_each_other_in_a_circle():
    assert cycle(arrows()) is None


@pytest.mark.parametrize("folder", sorted({room(module) for module in FILES}))
def test_no_files_of_a_folder_import_each_other_in_a_circle(folder):
    inside = {
        name: {t for t in imports(path) if room(t) == folder} - {name}
        for name, path in FILES.items()
        if room(name) == folder
    }
    assert cycle(inside) is None


@pytest.mark.parametrize("module", [name for name in FILES if name.partition(".")[0] == "rvpo"])
def test_the_product_knows_no_laboratory(module):
    assert not [name for name in imports(FILES[module]) if name.partition(".")[0] == "rvpo_lab"]
    assert "rvpo_lab" not in FILES[module].read_text(encoding="utf-8")


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
        ("option_text", {"core"}, set()),
        ("wind_tunnel", {"core", "stats"}, {"option_text"}),
        ("paper_tables", {"data", "evals", "text"}, set()),
        ("tasks", {"evals", "rewards", "stats"}, set()),
        ("suite", {"audit", "core", "files", "integrations", "report", "stats", "text"}, {"option_text", "tasks"}),
        ("report", {"report", "stats", "text"}, {"suite", "tasks"}),
        ("instructions", {"core", "integrations", "llm", "report", "rewards", "stats", "text"}, {"suite", "tasks"}),
    ],
)
def test_a_room_of_the_laboratory_imports_only_what_lies_below_it(folder, of_product, of_laboratory):
    """Its commands, `rvpo_lab.cli`, may import everything and are imported by no room."""
    product = {f"rvpo.{name}" for name in of_product | {"errors"}}
    assert arrows()[f"rvpo_lab.{folder}"] - {"rvpo"} <= product | {f"rvpo_lab.{name}" for name in of_laboratory}
