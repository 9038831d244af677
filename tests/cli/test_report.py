"""`rvpo report`: what it writes and where, and its errors."""

import sys
from xml.etree import ElementTree

import pytest

from report.pages import logged, write_log
from rvpo.cli.report import main
from rvpo.errors import ConfigError


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    more = {f"channels/tone_reward/{kind}": 0.5 for kind in ("weight", "dead", "missing")}
    return write_log(tmp_path_factory.mktemp("run"), [logged(step, **more) for step in (1, 2)])


def test_the_page_lies_in_the_first_run_unless_told_otherwise(run, tmp_path, capsys):
    assert main([str(run)]) == 0
    file = run / "report.html"
    assert f"report: {file} (0." in capsys.readouterr().out
    assert main([str(run), "--out", str(tmp_path / "new/page.html")]) == 0
    assert (tmp_path / "new/page.html").read_text() == file.read_text()
    assert f"rvpo report {run}" in file.read_text()


def test_figures_are_saved_as_svg_and_png(run, tmp_path):
    assert main([str(run), "--out", str(tmp_path / "r.html"), "--figures", str(tmp_path / "figures")]) == 0
    names = sorted(file.name for file in (tmp_path / "figures").iterdir())
    stems = ["k", "neglect", "runs-dead", "runs-missing", "runs-rewards", "runs-weights"]
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


def test_nothing_to_report_is_an_error():
    with pytest.raises(ConfigError, match="at least one RUN folder, or --picture FILE"):
        main([])


def test_a_place_that_cannot_be_written_to_is_named(run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write"):
        main([str(run), "--out", str(tmp_path / "file/report.html")])
    with pytest.raises(ConfigError, match="cannot write"):
        main([str(run), "--out", str(tmp_path / "r.html"), "--figures", str(tmp_path / "file")])


def test_a_missing_extra_is_named_with_what_brings_it(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    wanted = r"matplotlib.*pip install 'rvpo\[report\]'"
    with pytest.raises(ConfigError, match=wanted):
        main([str(run), "--out", str(tmp_path / "r.html")])
    with pytest.raises(ConfigError, match=wanted):
        main(["--picture", str(tmp_path / "n.svg")])


def test_help_shows_what_a_run_is_and_examples(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert "RUN is the output folder of `rvpo train`" in text
    assert "rvpo report runs/gdpo runs/rvpo" in text
    assert max(map(len, text.splitlines())) <= 100
