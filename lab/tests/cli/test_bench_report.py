"""`rvpo bench report`: what it writes and where, and its errors."""

import pytest

from made_up_cells import cell, write_suite
from rvpo.cli.main import main
from rvpo.errors import ConfigError
from rvpo_lab.cli.bench_report import report_on_suites


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    return write_suite(tmp_path_factory.mktemp("suite"), [cell("gdpo"), cell("rvpo")])


def test_the_page_lies_in_the_first_folder_and_names_its_command(suite, capsys):
    assert main(["bench", "report", str(suite)]) == 0
    file = suite / "report.html"
    assert f"report: {file} (0." in capsys.readouterr().out
    assert f"rvpo bench report {suite}" in file.read_text()


def test_figures_are_saved_as_svg_and_png(suite, tmp_path):
    report_on_suites([suite], out=tmp_path / "r.html", figures=tmp_path / "figures")
    names = sorted(file.name for file in (tmp_path / "figures").iterdir())
    stems = ["k", "neglect", "overview", "rubric-axes", "rubric-channels", "rubric-dead", "rubric-weights"]
    assert names == [f"{stem}{suffix}" for stem in stems for suffix in (".png", ".svg")]


def test_tasks_are_chosen_by_name(suite, tmp_path):
    with pytest.raises(ConfigError, match="no cells of task tools there; found: rubric"):
        report_on_suites([suite], tasks=["rubric,tools"])
    report_on_suites([suite], tasks=["rubric"], out=tmp_path / "r.html")
    assert "--task rubric" in (tmp_path / "r.html").read_text()
