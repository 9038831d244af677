"""docs/findings.md says what the stored cells say."""

from pathlib import Path

from rvpo_lab.cli.bench import main

ROOT = Path(__file__).parents[3]


def test_the_page_is_what_the_cells_say(monkeypatch, tmp_path):
    """Its own command, run on a copy, changes nothing in the page."""
    page = (ROOT / "docs" / "findings.md").read_text()
    command = page.partition("rvpo bench findings ")[2].partition("```")[0].replace("\\\n", " ").split()
    figures = ("docs/lowest.svg", "docs/rivals.svg", "docs/courses.svg")
    copies = {name: tmp_path / Path(name).name for name in ("docs/findings.md", *figures)}
    assert copies.keys() < set(command)
    copies["docs/findings.md"].write_text(page)
    monkeypatch.chdir(ROOT)  # the page names the folders as the command was given them
    assert main(["findings", *(str(copies.get(word, word)) for word in command)]) == 0
    assert copies["docs/findings.md"].read_text() == page
    for figure in figures:
        assert copies[figure].read_text() == Path(figure).read_text()
