"""docs/findings.md says what the stored cells say."""

from pathlib import Path

from rvpo_lab.suite.findings import places, refill, sections

ROOT = Path(__file__).parents[3]
RESULTS = Path("benchmarks")
SLOW = {"tasks", "forecast", "overall"}
"""Sections that take long to make; the others show that the page was written from these cells."""


def test_the_page_is_what_the_cells_say(monkeypatch):
    monkeypatch.chdir(ROOT)  # the page names the folders as the command was given them
    page = Path("docs/findings.md").read_text()
    names = [name for name in places(page) if name not in SLOW]
    assert {"aim", "methods", "claims", "late", "candidates"} <= set(names)
    given = sections(
        RESULTS / "neglect",
        names,
        unseen=range(5, 8),
        late=RESULTS / "late",
        candidates=RESULTS / "candidates",
    )
    short = "\n".join(f"<!-- begin {name} -->{part(page, name)}<!-- end {name} -->" for name in names)
    assert refill(short, given) == short


def part(page, name):
    """Return what stands in a place of the page."""
    return page.partition(f"<!-- begin {name} -->")[2].partition(f"<!-- end {name} -->")[0]
