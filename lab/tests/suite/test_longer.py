"""Longer runs: means over three evaluations, what became of channels, whether a lead lasts, and the picture."""

import numpy as np
import pytest

from made_up_cells import write_suite
from rvpo.errors import ConfigError
from rvpo.report.drawing import svg
from rvpo_lab.cli.bench import main
from rvpo_lab.report.suite_figures import courses_picture
from rvpo_lab.suite.findings import sections
from rvpo_lab.suite.longer import ALIVE, DEAD, died_out, fates, over_evaluations
from rvpo_lab.suite.storage import CellRecord

STEPS = range(0, 401, 10)


def run(contender="gdpo", seed=0, *, task="rubric", **courses):
    """A run of 400 steps of one held-out prompt; each channel has a value up to step 100 and from there to 400."""
    about = {
        "task": task,
        "contender": contender,
        "seed": seed,
        "settings": {"steps": 400},
        "versions": {"trl": "1.16.0"},
        "kl_per_token": list(np.linspace(0, 1, len(STEPS))),
    }
    held_out = {
        (0, f"a/{name}"): [first if step <= 100 else second for step in STEPS]
        for name, (first, second) in courses.items()
    }
    return CellRecord(about, ["prompt"], steps=list(STEPS), held_out=held_out)


def test_means_over_three_evaluations():
    assert over_evaluations(np.array([[0.0, 1.0], [3.0, 1.0], [6.0, 4.0], [0.0, 4.0]])).tolist() == [[3, 2], [3, 3]]
    assert over_evaluations(np.array([1.0, 2.0])).tolist() == [1.5]  # fewer than three: all of them


def test_fates_by_hand():
    record = run(dying=(0.5, 0.0), asleep=(0.0, 0.0), waking=(0.0, 0.25), late=(0.01, 0.05), well=(0.5, 0.75))
    assert fates(record) == {"early": 3, "late": 2, "died": 1, "back": 1}
    assert died_out(record) == ["a/dying"]


@pytest.mark.parametrize(
    ("before", "after", "died"),
    [(ALIVE, DEAD, True), (ALIVE - 0.001, DEAD, False), (ALIVE, DEAD + 0.001, False)],
)
def test_what_counts_as_dying(before, after, died):
    assert (died_out(run(x=(before, after))) == ["a/x"]) is died


@pytest.mark.parametrize(
    ("before", "after", "back"),
    [(DEAD, ALIVE, 1), (DEAD + 0.001, ALIVE, 0), (DEAD, ALIVE - 0.001, 0)],
)
def test_what_counts_as_coming_back(before, after, back):
    assert fates(run(x=(before, after)))["back"] == back


@pytest.mark.parametrize(("last", "dead"), [(0.05, 1), (0.07, 0)])  # a third of them is 0.017 and 0.023
def test_a_single_evaluation_counts_a_third(last, dead):
    record = run(x=(0.5, 0.0))
    record.held_out[0, "a/x"][-1] = last
    assert fates(record)["late"] == dead


def made_suite():
    """GDPO's lowest channel stays at 1/4; the paper's form has it at 1/2 first and loses it; four seeds."""
    return [
        run(name, seed, low=low, mid=(0.5, 0.5), high=(1.0, 1.0))
        for seed in range(4)
        for name, low in (("gdpo", (0.25, 0.25)), ("rvpo", (0.5, 0.0)), ("rvpo_policy", (0.25, 0.75)))
    ]


def test_the_tables_by_hand(tmp_path):
    records = made_suite()
    folder = write_suite(tmp_path, records)
    text = sections(records, ["longer"], folder=folder, longer=folder)["longer"]
    assert text.startswith("12 runs: 1 task x 3 methods x 4 seeds, 0, 1, 2 and 3.")
    # Four pairs of one sign: p = 2/16. Of three channels the lowest one is the lowest third.
    ahead, behind = "+0.250 [+0.250, +0.250]", "-0.250 [-0.250, -0.250]"
    assert f"| RVPO 0.5-2 | {ahead} | {behind} | -0.500 [-0.500, -0.500] | 0.125 | -0.500 |" in text
    level = "+0.000 [+0.000, +0.000]"
    assert f"| policy k=2 | {level} | {ahead} | {ahead} | 0.125 | 0.250 |" in text
    assert "| GDPO itself |  |  |  |  | 0.000 |" in text
    assert "| channels dead after 100 / 400 steps | rubric, of 3 | died out | came back |" in text
    assert "| GDPO | 0.0 / 0.0 | 0.00 | 0.00 |  |" in text
    assert "| RVPO 0.5-2 | 0.0 / 1.0 | 1.00 | 0.00 | +1.000 [+1.000, +1.000], p 0.250 |" in text  # Holm over two
    assert "At equal distance, against policy k=2" in text


def test_the_picture_draws_the_lowest_third_and_what_died(tmp_path):
    picture = courses_picture([*made_suite(), run("gdpo", 9, low=(0.5, 0.0))])  # a seed that is not whole
    titles = [axes.get_title(loc="left") for axes in picture.figure.axes]
    assert titles == ["rubric: lowest third", "rubric: a/low"]
    assert picture.description.endswith("Died out: a/low of rubric in 4 runs.")
    assert "policy k=2" in svg(picture)


@pytest.mark.parametrize(("figure", "folder"), [("--courses", "--longer"), ("--rivals-figure", "--rivals")])
def test_a_figure_without_its_runs_is_refused(tmp_path, figure, folder):
    suite = str(write_suite(tmp_path / "suite", made_suite()))
    with pytest.raises(ConfigError, match=f"{figure} draws the runs of {folder} FOLDER, which is not given"):
        main(["findings", suite, figure, str(tmp_path / "figure.svg")])


def test_the_command_writes_both(tmp_path, capsys):
    records = made_suite()
    suite = str(write_suite(tmp_path / "suite", records))
    words = ["findings", suite, "--longer", suite, "--out", str(tmp_path / "page.md"), "--courses"]
    assert main([*words, str(tmp_path / "courses.svg")]) == 0
    assert "## Four times as long" in (tmp_path / "page.md").read_text()
    assert (tmp_path / "courses.svg").read_text().startswith("<svg")
