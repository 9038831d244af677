"""The live view, drawn without a terminal."""

from io import StringIO

from rich.console import Console

from rvpo_lab.cli.live import LiveView, picture, plain_line
from rvpo_lab.suite.plan import Cell, SuiteSettings
from rvpo_lab.suite.schedule import Standing

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
