"""`rvpo compare` and `rvpo tables` on the logs of scripted models."""

import json
import shutil

import pytest

from evals.scripted import Scripted, logged
from rvpo.cli.main import main
from rvpo_lab.tasks import task as embedded
from rvpo_lab.tasks.catalog import TASKS

pytest.importorskip("inspect_ai")
TASK = TASKS["tools"]
ROWS = {row["prompt"]: row["ground_truth"] for row in TASK.rows(40, 0, held_out=True)}


def evaluated(folder, share, *, step=None, seed=0, label="", number=40):
    """Results of a model that gives the expected answer to a share of the prompts, otherwise none."""
    prompts = list(ROWS)
    model = Scripted(lambda question: ROWS[question.prompt] if prompts.index(question.prompt) < share * 40 else "")
    logged(embedded.build(TASK, number=number, seed=seed), model, folder, label=label, step=step)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    for step, (gdpo, rvpo) in {10: (0.5, 0.5), 20: (0.25, 0.75)}.items():
        evaluated(folder / "results" / "7B-gdpo", gdpo, step=step)
        evaluated(folder / "results" / "7B-rvpo", rvpo, step=step)
    return folder


@pytest.fixture(autouse=True)
def home(made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    shutil.copytree(made / "results", tmp_path / "results")
    return tmp_path


def test_final_checkpoints_are_compared_and_written(home, capsys):
    words = ["gdpo=results/7B-gdpo", "rvpo=results/7B-rvpo", "--json", "out.json"]
    assert main(["compare", *words]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "rvpo against gdpo: higher by 0.500" in printed
    assert "says nothing about other training seeds" in printed
    (made,) = json.loads((home / "out.json").read_text())["comparisons"]
    assert made["difference"] == pytest.approx(0.5)  # 20 of 40 prompts, from 0 to full marks
    assert (made["pairs"], made["verdict"]) == (40, "higher")


def test_best_or_a_step_instead(home, capsys):
    assert main(["compare", "a=results/7B-gdpo", "b=results/7B-rvpo", "--checkpoint", "best"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "b against a: higher by 0.250" in printed
    assert "chosen by the scores that are compared" in printed
    assert main(["compare", "a=results/7B-gdpo", "b=results/7B-rvpo", "--checkpoint", "10"]) == 0
    assert "no difference shown" in capsys.readouterr().out
    assert main(["compare", "a=results/7B-gdpo", "b=results/7B-rvpo", "--checkpoint", "11"]) == 2
    assert "final, best or one of 10, 20" in capsys.readouterr().err


def test_seeds_of_one_name_and_another_score(home, capsys):
    for seed in range(2):
        for name, share in (("gdpo", 0.25), ("rvpo", 0.75)):
            evaluated(home / f"{name}-{seed}", share)
    words = ["g=gdpo-0", "g=gdpo-1", "r=rvpo-0", "r=rvpo-1", "--score", "all_met"]
    assert main(["compare", *words]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "80 items in 2 seeds" in printed
    assert "2 seeds allow no p-value below 0.5" in printed
    assert "tools, all_met: compared" in printed


def test_results_of_other_questions_are_told(home, capsys):
    evaluated(home / "fewer", 0.5, number=30)
    assert main(["compare", "results/7B-gdpo", "few=fewer"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "few was not evaluated as 7B-gdpo was: questions" in printed
    assert "0 items of few and 10 of 7B-gdpo have no partner" in printed


def test_a_name_may_hold_an_equals_sign_where_the_folder_does(home):
    (home / "results" / "7B-rvpo").rename(home / "k=2")
    assert main(["compare", "a=results/7B-gdpo", "k=2"]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["results/7B-gdpo"], "at least two names"),
        (["results", "results/7B-gdpo"], "results has the results of several runs"),
        (["nothing", "results/7B-gdpo"], "there is no file or folder nothing"),
        (["=x", "results/7B-gdpo"], "LOG or NAME=LOG"),
        (["a=results/7B-gdpo", "b=other", "--score", "all_met"], "b and a have no item in common"),
        (["a=results/7B-gdpo", "b=results/7B-rvpo", "--score", "x"], "has a score 'x'"),
        (["a=results/7B-gdpo", "b=results/7B-rvpo", "--level", "2"], "level must lie in"),
        (["a=results/7B-gdpo", "b=results/7B-rvpo", "--json", "results/7B-gdpo"], "cannot write"),
    ],
)
def test_bad_input_is_one_line(home, capsys, words, message):
    if "other" in str(words):
        logged(embedded.build(TASKS["rubric"], number=2), Scripted(lambda question: ""), home / "other")
    assert main(["compare", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def test_tables_of_everything_in_a_folder(home, capsys):
    assert main(["tables", "results"]) == 0
    printed = capsys.readouterr().out
    assert "| 7B | gdpo | 1 | 0.500 | 0.250 |" in printed
    assert "| 7B | rvpo | 1 | 0.750 | 0.750 |" in printed
    assert "| final | 7B-rvpo against 7B-gdpo | +0.500 |" in printed
    assert main(["tables", "7B X=results/7B-gdpo", "--no-tests", "--out", "tables.md"]) == 0
    text = (home / "tables.md").read_text()
    assert "| 7B | X | 1 | 0.500 | 0.250 |" in text
    assert "Paired tests" not in text


def test_help_has_examples(capsys):
    for command in ("compare", "tables"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        assert f"\n  rvpo {command} " in capsys.readouterr().out
