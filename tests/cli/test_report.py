"""`rvpo report`: what it writes and where, and its errors."""

import sys
from xml.etree import ElementTree

import pytest

from made_up_cells import cell, write_suite
from rvpo.cli.report import check_installed, main, write_report
from rvpo.errors import ConfigError


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    return write_suite(tmp_path_factory.mktemp("suite"), [cell("gdpo"), cell("rvpo")])


def test_the_page_lies_in_the_first_run_unless_told_otherwise(suite, tmp_path, capsys):
    assert main([str(suite)]) == 0
    file = suite / "report.html"
    assert f"report: {file} (0." in capsys.readouterr().out
    assert main([str(suite), "--out", str(tmp_path / "new/page.html")]) == 0
    assert (tmp_path / "new/page.html").read_text() == file.read_text()
    assert f"rvpo report {suite}" in file.read_text()


def test_figures_are_saved_as_svg_and_png(suite, tmp_path):
    assert main([str(suite), "--out", str(tmp_path / "r.html"), "--figures", str(tmp_path / "figures")]) == 0
    names = sorted(file.name for file in (tmp_path / "figures").iterdir())
    stems = ["k", "neglect", "overview", "rubric-axes", "rubric-channels", "rubric-dead", "rubric-weights"]
    assert names == [f"{stem}{suffix}" for stem in stems for suffix in (".png", ".svg")]
    for file in (tmp_path / "figures").glob("*.svg"):
        ElementTree.parse(file)


@pytest.mark.parametrize(("name", "begins"), [("a/neglect.svg", b"<svg"), ("neglect.png", b"\x89PNG")])
def test_the_picture_needs_no_run(tmp_path, capsys, name, begins):
    assert main(["--picture", str(tmp_path / name)]) == 0
    assert (tmp_path / name).read_bytes().startswith(begins)
    assert capsys.readouterr().out == f"picture: {tmp_path / name}\n"


def test_the_picture_of_another_kind_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"ends in .svg or .png"):
        main(["--picture", str(tmp_path / "neglect.pdf")])


def test_tasks_are_chosen_by_name(suite, tmp_path):
    with pytest.raises(ConfigError, match="no cells of task tools there; found: rubric"):
        main([str(suite), "--task", "rubric,tools"])
    assert main([str(suite), "--task", "rubric", "--out", str(tmp_path / "r.html")]) == 0
    assert "--task rubric" in (tmp_path / "r.html").read_text()


def test_nothing_to_report_is_an_error():
    with pytest.raises(ConfigError, match="at least one RUN folder, or --picture FILE"):
        main([])


def test_a_place_that_cannot_be_written_to_is_named(suite, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write"):
        write_report([suite], tmp_path / "file/report.html")
    with pytest.raises(ConfigError, match="cannot write"):
        write_report([suite], tmp_path / "r.html", figures=tmp_path / "file")


def test_a_missing_extra_is_named_with_what_brings_it(suite, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    wanted = r"matplotlib.*pip install 'rvpo\[report\]'"
    with pytest.raises(ConfigError, match=wanted):
        write_report([suite], tmp_path / "r.html")
    with pytest.raises(ConfigError, match=wanted):
        main(["--picture", str(tmp_path / "n.svg")])
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ConfigError, match=r"matplotlib, pandas.*'rvpo\[report\]'"):
        check_installed()


def test_help_shows_what_a_run_is_and_examples(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert "RUN is the folder of a suite or quickstart" in text
    assert "rvpo report runs/quickstart" in text
    assert max(map(len, text.splitlines())) <= 100
