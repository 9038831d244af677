"""The package itself: its public names, and that its core is fast to import and knows no trainer."""

import ast
import json
import subprocess
import sys
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
