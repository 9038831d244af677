"""The laboratory's commands: the live view of a suite, drawn without a terminal; `rvpo bench report`: what it writes
and where; `rvpo simulate`: the same bytes for the same seed, a finding in words, and errors before any work."""

import json
import math
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from made_up_cells import cell, write_suite
from rvpo.cli.main import main as rvpo
from rvpo.errors import ConfigError, RvpoError
from rvpo_lab.cli import simulate
from rvpo_lab.cli.bench import report_on_suites
from rvpo_lab.cli.simulate import main
from rvpo_lab.cli.suite_view import LiveView, picture, plain_line
from rvpo_lab.suite.plan import Cell, SuiteSettings
from rvpo_lab.suite.schedule import Standing
from rvpo_lab.wind_tunnel.settings import DEFAULT_METHODS, SimulationSettings
from rvpo_lab.wind_tunnel.simulation import Instances, Simulation, compare

CELLS = [Cell("rubric", name, 0) for name in ("grpo", "gdpo")]


def standing():
    axes = {CELLS[0]: [{"accuracy": 0.4, "context": 0.1}, {"accuracy": 0.55, "context": 0.2}]}
    axes[CELLS[1]] = [{"accuracy": 0.4, "context": 0.1}]
    return Standing(
        CELLS,
        SuiteSettings(steps=10),
        steps={CELLS[0]: 5, CELLS[1]: 2},
        axes=axes,
        preparing={"rubric": 0.5},
        began=1.0,
    )


def drawn(renderable, width=80):
    console = Console(file=StringIO(), width=width)
    console.print(renderable)
    return console.file.getvalue().splitlines()


def test_the_methods_stand_side_by_side_with_one_line_per_axis():
    lines = drawn(picture(standing(), 80, 65.0))
    assert lines[0].startswith("0 of 2 runs · 35% · 1 min 5 s so far")
    assert any(line.startswith("rubric, seed 0") for line in lines)
    (accuracy,) = [line for line in lines if "accuracy" in line]
    assert "0.55" in accuracy
    assert "0.40" in accuracy
    assert any("5/10" in line and "2/10" in line for line in lines)
    assert max(map(len, lines)) <= 80


def test_elsewhere_it_is_a_line_now_and_then(capsys):
    assert plain_line(standing()).startswith("0/2 runs  rubric-grpo-0 5/10, rubric-gdpo-0 2/10  ")
    with LiveView(Console(file=StringIO(), force_terminal=False)) as show:
        show(standing())
        show(standing())
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_the_warm_start_is_shown_before_anything_runs():
    waiting = Standing(CELLS, SuiteSettings(), preparing={"rubric": 0.5})
    assert plain_line(waiting) == "0/2 runs  warm start rubric 50%"
    assert any("rubric 50%" in line for line in drawn(picture(waiting, 80, 1.0)))


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    return write_suite(tmp_path_factory.mktemp("suite"), [cell("gdpo"), cell("rvpo")])


def test_the_page_lies_in_the_first_folder_and_names_its_command(suite, capsys):
    assert rvpo(["bench", "report", str(suite)]) == 0
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


BRIEF = ["--channels", "5", "--group-size", "6", "--steps", "4", "--instances", "30"]


def run(capsys, *arguments):
    """Standard output of the command."""
    assert main([*BRIEF, *arguments]) == 0
    out, err = capsys.readouterr()
    assert err == ""  # no progress where standard error is no terminal
    return out


def made_up(**shares):
    """A simulation whose contenders neglect the given share of ten criteria in each instance."""
    rates = {name: (np.arange(10) >= 10 * np.array(share)[:, None]).astype(float) for name, share in shares.items()}
    size = len(next(iter(rates.values())))
    base_rates = np.full((size, 10), 0.1)
    instances = Instances(base_rates, base_rates, np.full((size, 10), -1), np.zeros(size, dtype=bool))
    return Simulation(instances, rates, rates)


def test_the_same_seed_gives_the_same_bytes(tmp_path, capsys):
    shown = [run(capsys, "--out", str(tmp_path / name), "--noise", "0.1") for name in ("a", "b")]
    files = [(tmp_path / name / "simulate.json").read_bytes() for name in ("a", "b")]
    assert shown[0] == shown[1]
    assert files[0] == files[1]
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["simulate.json"]
    other = run(capsys, "--out", str(tmp_path / "c"), "--noise", "0.1", "--seed", "1")
    assert other != shown[0]
    assert (tmp_path / "c" / "simulate.json").read_bytes() != files[0]


def test_the_output_fits_80_columns_and_begins_with_the_finding(capsys):
    lines = run(capsys).splitlines()
    assert "neglect" in lines[0]
    assert lines[1].startswith("30 instances of 5 criteria, 4 steps of 2 x 6 rollouts, seed 0.")
    assert max(map(len, lines)) <= 80
    assert "about 100 steps of a real policy" in " ".join(" ".join(lines).split())
    for method in DEFAULT_METHODS:
        rows = [line for line in lines if line.startswith(f"│{method.name} ")]
        assert len(rows) == (1 if method.name == "gdpo" else 2)  # rates, and the difference to gdpo


def test_the_file_holds_settings_summary_and_a_row_per_method_and_measure(tmp_path, capsys):
    methods = ["gdpo", "rvpo:0.5-2", "hard_min"]
    out = run(capsys, "--out", str(tmp_path), "--methods", *methods, "--conflict", "0.4", "--base-rates", "0.1", "0.2")
    report = json.loads((tmp_path / "simulate.json").read_text())
    assert report["settings"]["methods"] == methods
    assert report["settings"]["conflict"] == 0.4
    assert report["settings"]["base_rates"] == [0.1, 0.2]
    assert report["summary"]["finding"] == out.splitlines()[0]
    assert report["summary"]["reference"] == "gdpo"
    assert set(report["summary"]["late_change"]) == set(methods)
    assert 0.1 < report["summary"]["start"]["mean"] < 0.2
    rows = {(row["method"], row["measure"]): row for row in report["table"]}
    assert len(rows) == len(report["table"]) == 3 * 6
    assert rows["gdpo", "mean"]["p_value"] is None
    tested = rows["hard_min", "mean"]
    assert tested["difference"] == pytest.approx(tested["value"] - rows["gdpo", "mean"]["value"])
    assert tested["difference_low"] <= tested["difference"] <= tested["difference_high"]
    assert tested["p_value"] <= tested["p_holm"] <= 1


def test_the_first_method_is_the_reference_where_gdpo_is_missing(capsys):
    assert "Difference to hard_min" in run(capsys, "--methods", "hard_min", "grpo")


def test_one_method_and_two_criteria_are_enough(capsys):
    out = run(capsys, "--methods", "gdpo", "--channels", "2")
    assert out.startswith("gdpo neglects ")
    assert "Difference" not in out
    (row,) = [line for line in out.splitlines() if line.startswith("│gdpo ")]
    assert [cell.strip() for cell in row.split("│")][6] == "-"  # two criteria have no middle third


def test_rising_difficulty_without_conflict_starts_evenly_spaced(tmp_path, capsys):
    more = ["--spread", "even", "--base-rates", "0.02", "0.27", "--conflict", "0", "--continuous", "--missing", "0.1"]
    run(capsys, *more, "--out", str(tmp_path), "--methods", "gdpo")
    report = json.loads((tmp_path / "simulate.json").read_text())
    assert report["summary"]["start"]["mean"] == pytest.approx(0.145)
    assert report["summary"]["scaled_instances"] == 0
    assert report["settings"]["continuous"] is True


def test_whether_the_run_converged_is_told(capsys):
    assert "Not converged, still moving in the last tenth of the steps: gdpo (+" in run(capsys, "--methods", "gdpo")
    still = run(capsys, "--methods", "gdpo", "--learning-rate", "1e-6")
    assert "Converged: the last tenth of the steps moved no mean by more than 0.01." in still


@pytest.mark.parametrize(("change", "line"), [(0.01, "Converged"), (0.0101, "Not converged")])
def test_a_mean_that_moved_by_0_01_has_converged(capsys, change, line):
    none, rates = np.zeros((2, 1)), np.full((2, 1), change)
    simulation = Simulation(
        Instances(none, none, none.astype(int) - 1, np.zeros(2, bool)), {"gdpo": rates}, {"gdpo": none}
    )
    simulate._print("", compare(simulation, "gdpo"), simulation, SimulationSettings(), "gdpo")
    assert capsys.readouterr().out.splitlines()[-1].startswith(line)


def test_the_finding_names_both_ends():
    simulation = made_up(low=[0.1] * 20, middle=[0.2] * 20, high=[0.3] * 20)
    assert simulate._finding(simulation, 0) == "low neglects least (10.0 %), high most (30.0 %)."


def test_methods_that_do_not_differ_share_an_end():
    wavering = [0.1, 0.3] * 9 + [0.3, 0.3]  # higher by 1 % on average
    simulation = made_up(low=[0.2] * 20, other=wavering, third=[0.2] * 20, high=[0.5] * 20, top=[0.5] * 20)
    assert simulate._finding(simulation, 0) == (
        "low and 2 others neglect least (20.0 %), top and 1 other most (50.0 %)."
    )


def test_the_finding_claims_nothing_that_chance_could_do():
    simulation = made_up(first=[0.1, 0.2, 0.3, 0.4], other=[0.2, 0.3, 0.4, 0.3])  # 10 % apart three times of four
    assert simulate._finding(simulation, 0) == "No method is shown to neglect more than another (25.0 % to 30.0 %)."


def test_numbers_that_are_not_finite_become_null(tmp_path, capsys):
    run(capsys, "--instances", "1", "--out", str(tmp_path), "--methods", "gdpo", "rvpo")
    row = json.loads((tmp_path / "simulate.json").read_text())["table"][0]
    assert row["low"] is None  # one instance has no interval
    assert math.isfinite(row["value"])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["--methods", "rvop:2"], ConfigError, "unknown method 'rvop': did you mean 'rvpo'"),
        (["--methods", "gdpo", "gdpo"], ConfigError, "different names"),
        (["--methods", "rvpo_policy:2:anchor=0.5"], RvpoError, "anchor must have shape"),
        (["--noise", "2"], ConfigError, "noise is a probability"),
        (["--base-rates", "0.5", "0.1"], ConfigError, "base_rates must be"),
        (["--instances", "0"], ConfigError, "instances must be a whole number >= 1, got 0"),
    ],
)
def test_bad_input_is_an_error_of_the_package(arguments, error, message):
    with pytest.raises(error, match=message):
        main(arguments)


def test_a_folder_that_cannot_be_made_is_an_error_before_the_work(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="--out must name a folder"):
        main(["--instances", "1000000000", "--out", str(tmp_path / "file" / "folder")])


def test_help_tells_defaults_and_examples(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    out = " ".join(capsys.readouterr().out.split())
    assert "rvpo simulate --noise 0.1" in out
    assert f"(default: {SimulationSettings.instances})" in out
    assert "(default: 0.05 0.5)" in out
