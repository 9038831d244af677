"""Write build/docs, the pages of the documentation site, and build it: python docs/make_site.py [serve].

The pages are those of docs/, the README, CHANGELOG and CONTRIBUTING, with links as the site needs them; the scripts of
examples/; a reference entry for every name of docs/api.md; and the options of `rvpo train` from the parser that its
configurations make.
Exit status 1: a warning, a dead link, or a public name without an entry.
"""

import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import griffe
import yaml

from rvpo.cli.train import read

ROOT = Path(__file__).resolve().parents[1]
PAGES, SITE = ROOT / "build" / "docs", ROOT / "build" / "site"
OTHERS = {"README.md": "index.md", "CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
"""Pages outside docs/, and what they are called on the site."""
SCRIPTS = ("train_two_rewards", "train_with_judge", "audit_exports")
"""Of examples/, on one page."""


class FencedDoctests(griffe.Extension):
    """Makes the doctests in docstrings code blocks; Markdown would take `>>>` for a quotation."""

    def on_instance(self, *, obj: griffe.Object, **_: object) -> None:
        """Put a fence around the lines from each `>>>` to the next empty one."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(
                r"^( *)(>>> (?:.+\n?)+)", r"\1```pycon\n\1\2\n\1```\n", obj.docstring.value, flags=re.MULTILINE
            )


def main(words: list[str]) -> int:
    """Write the pages; build, or serve them."""
    address = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["repo_url"]
    shutil.rmtree(PAGES, ignore_errors=True)
    PAGES.mkdir(parents=True)
    for source in [*(ROOT / "docs").glob("*.md"), *(ROOT / name for name in OTHERS)]:
        text = source.read_text(encoding="utf-8")
        name = OTHERS.get(source.name, source.name)
        (PAGES / name).write_text(linked(text, source.parent, address), encoding="utf-8")
    for picture in (ROOT / "docs").iterdir():
        if picture.suffix in (".svg", ".webp"):
            shutil.copy(picture, PAGES)
    names = public_names()
    (PAGES / "reference.md").write_text(reference(names), encoding="utf-8")
    (PAGES / "options.md").write_text(options(), encoding="utf-8")
    (PAGES / "examples.md").write_text(scripts(), encoding="utf-8")
    zensical = [sys.executable, "-m", "zensical"]
    if words == ["serve"]:
        return subprocess.call([*zensical, "serve"], cwd=ROOT)
    command = [*zensical, "build", "--clean", "--strict"]
    done = subprocess.run(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    print(done.stdout)
    warnings = len(re.findall(r"^griffe: ", done.stdout, re.MULTILINE))  # of docstrings; not in Zensical's count
    page = (SITE / "reference" / "index.html").read_text(encoding="utf-8")
    lacking = [name for name in names if f'id="{name}"' not in page]
    print(f"{len(names)} public names, {len(lacking)} without an entry {lacking}; warnings of docstrings: {warnings}")
    return 1 if lacking or warnings or done.returncode else 0


def linked(text: str, folder: Path, address: str) -> str:
    """Return a page with its links to files as the site has them: to a page, or to the file in the repository."""

    def target(found: re.Match[str]) -> str:
        path, _, anchor = found[1].partition("#")
        file = (folder / path).resolve()
        if not path or ":" in path:
            return found[0]
        if file.name in OTHERS and file.parent == ROOT:
            path = OTHERS[file.name]
        elif file.parent == ROOT / "docs":
            path = file.name
        else:
            path = f"{address}/blob/main/{file.relative_to(ROOT)}"
        return f"]({path}{'#' * bool(anchor)}{anchor})"

    return re.sub(r"\]\(([^)\s]+)\)", target, text)


def scripts() -> str:
    """Return the page of scripts to copy: what the first line of each says, then all of it."""
    lines = ["# Scripts to copy", "", "Each runs as it stands in a clone.", ""]
    for name in SCRIPTS:
        code = (ROOT / "examples" / f"{name}.py").read_text(encoding="utf-8")
        title, _, text = code.removeprefix('"""').partition("\n")[0].partition(". ")
        lines += [
            f"## {title.removesuffix('.')}",
            "",
            text,
            "",
            f'```python title="examples/{name}.py"',
            code,
            "```",
            "",
        ]
    return "\n".join(lines)


def public_names() -> list[str]:
    """Return the dotted names of the table of docs/api.md, each in the module that defines it, but for __version__."""
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    names = {}
    for module, cell in re.findall(r"^\| `(rvpo[\w.]*)` \| (.+) \|$", page, re.MULTILINE):
        for name in re.findall(r"`(\w+)`", cell):
            thing = getattr(importlib.import_module(module), name)
            home = getattr(thing, "__module__", module)
            is_defined_there = str(home).startswith("rvpo") and getattr(thing, "__name__", "") == name
            names[f"{home if is_defined_there else module}.{name}"] = None
    return sorted(name for name in names if not name.endswith("__"))


def reference(names: list[str]) -> str:
    """Return the page of all public names, by module."""
    lines = [
        "# Names",
        "",
        "Each public name where it is defined; [What is public](api.md) has where to import it.",
        "",
    ]
    module = ""
    for name in names:
        if name.rpartition(".")[0] != module:
            module = name.rpartition(".")[0]
            lines += [f"## {module}", ""]
        lines += [f"::: {name}", ""]
    return "\n".join(lines)


def options() -> str:
    """Return the page of the options of `rvpo train`, by group."""
    lines = [
        "# Options of rvpo train",
        "",
        "On the command line `--name value`, in a YAML file `name: value`; the method's",
    ]
    lines += ["are fields of `RVPOConfig`. `rvpo train --help_all` has those of TRL, transformers and peft too.", ""]
    for group in read([]).parser._action_groups[:3]:
        title = group.title or ""
        lines += [f"## {title[:1].upper()}{title[1:]}", ""]
        for action in group._group_actions:
            default = "" if action.default is None else f" (default `{action.default}`)"
            text = " ".join((action.help or "").replace("%%", "%").replace("<", "&lt;").split())
            lines.append(f"- **`{action.dest}`**{default}: {text}")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
