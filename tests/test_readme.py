"""The README keeps to what is measured, to the packaging metadata and to one screen; no page has a dead link."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def anchors(page):
    """The anchors of a page's headings, as both GitHub and the documentation site make them."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 120


def test_every_figure_of_its_table_stands_in_the_findings():
    findings = (ROOT / "docs" / "findings.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (GRPO|RVPO 0\.5-2|policy k=2)\b.*?\| (.+?) \| (.+?) \| (.+?) \|$", README, re.MULTILINE)
    assert len(rows) == 3
    for method, *differences in rows:
        for heading, difference in zip(("mean", "lowest third", "neglected"), differences, strict=True):
            table = findings.split(f"**{heading}, final**")[1].split("\n**")[0]
            assert f"| {method} | {difference} |" in table


def test_it_names_the_repository_that_the_metadata_names():
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]
    (address,) = set(re.findall(r"git\+(\S+?)\"", README))
    assert urls["Repository"] == address
    assert all(url.startswith(address) for url in urls.values())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_inside_the_repository_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path) if path else page
        assert linked.exists(), target
        if anchor:
            assert anchor in anchors(linked), target
