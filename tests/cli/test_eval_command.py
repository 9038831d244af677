"""`rvpo eval`: a trained policy killed and gone on with, checkpoints, a judge, rows, and errors in one line."""

import json
import time
import zipfile

import pytest

import forked
from judging.fault_server import FaultServer, blocks
from rvpo.cli.eval_view import notes, summary_of
from rvpo.cli.main import main
from rvpo.data.rows import raw_rows
from rvpo.evals.logs import read_logs
from rvpo_lab.suite.plan import Cell, SuiteSettings
from rvpo_lab.tasks.catalog import TASKS
from rvpo_lab.tasks.policy import build_policy

pytest.importorskip("inspect_ai")


def texts(log):
    """The answers of a log by the id of the sample."""
    from inspect_ai.log import read_eval_log

    return {sample.id: sample.output.completion for sample in read_eval_log(str(log.path)).samples}


def summary(folder):
    (log,) = read_logs(folder)
    return summary_of(log)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A policy of the tools task, trained for two steps by the code of the suite."""
    from rvpo_lab.suite.train_cell import train_cell

    home = tmp_path_factory.mktemp("trained")
    settings = SuiteSettings(
        steps=2, prompts_per_step=4, num_generations=4, evaluate_every=2, held_out_prompts=8, warm_start_steps=10
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RVPO_CACHE", str(home / "cache"))
        cell = Cell("tools", "rvpo", 0)
        train_cell(cell, settings, home / "cell.parquet", lambda step, means: None, keep=home / "rvpo-tools")
    return home / "rvpo-tools"


def words(folder, out, *more):
    options = ["--prompts", "40", "--batch-size", "4", "--out", out, "--label", "rvpo", *more]
    return ["eval", "tools", "--model", str(folder), *options]


def samples_in(folder):
    """How many samples the one log of a folder has by now; 0 while there is none that can be read."""
    try:
        (file,) = folder.glob("*.eval")
        with zipfile.ZipFile(file) as log:
            return sum(name.startswith("samples/") for name in log.namelist())
    except (OSError, ValueError, zipfile.BadZipFile):
        return 0


def test_a_killed_evaluation_goes_on_and_answers_as_an_unbroken_one(trained, tmp_path, capsys):
    run = tmp_path / "run"
    for step in (1, 2):
        run.mkdir(exist_ok=True)
        (run / f"checkpoint-{step}").symlink_to(trained)
    killed = forked.start(words(run, "killed", "--checkpoints"))
    deadline = time.monotonic() + 300
    while samples_in(tmp_path / "killed") < 8:
        assert killed.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    killed.kill()
    killed.join()
    (begun,) = (tmp_path / "killed").glob("*.eval")
    with zipfile.ZipFile(begun) as log:
        kept = {name: log.read(name) for name in log.namelist() if name.startswith("samples/")}
    assert 8 <= len(kept) < 40
    assert main(["compare", "a=killed", "b=killed"]) == 2
    assert "is not finished: its status is 'started'" in capsys.readouterr().err
    assert main(words(run, "killed", "--checkpoints")) == 0
    printed = capsys.readouterr().out
    assert "rvpo checkpoint-2" in printed
    first, second = read_logs(tmp_path / "killed")
    assert (first.step, second.step) == (1, 2)
    with zipfile.ZipFile(first.path) as log:
        kept_on = {name: json.loads(log.read(name))["uuid"] for name in kept}
    assert kept_on == {name: json.loads(data)["uuid"] for name, data in kept.items()}  # nothing is asked for twice
    assert texts(first) == texts(second)  # of the same weights, broken off and not
    assert main(["compare", "a=killed", "b=killed", "--checkpoint", "1", "--score", "all_met"]) == 0


def test_what_an_evaluation_says_is_what_the_task_grades(trained, tmp_path, capsys):
    assert main(words(trained, "graded")) == 0
    assert "prompt_mean" in capsys.readouterr().out
    rows = TASKS["tools"].rows(40, 0, held_out=True)
    (log,) = read_logs(tmp_path / "graded")
    completions = texts(log)
    values = [
        TASKS["tools"].grade(row, completions[record["id"]]) for row, record in zip(rows, log.seeds[0], strict=True)
    ]
    result = summary_of(log)
    for name in ("format/form", "correctness/call"):
        mean = sum(channels[name] for channels in values) / 40
        assert result["scores"][f"channel:{name}"]["value"] == pytest.approx(mean)
    assert result["about"]["settings"] == {"repeats": 1, "seed": 0}
    assert result["about"]["sampling"] == {"temperature": 1.0, "top_p": None, "max_tokens": 32, "seed": 0}


def test_all_checkpoints_of_a_training_folder(tmp_path, capsys):
    for step in (100, 20):
        build_policy(tmp_path / "run" / f"checkpoint-{step}", TASKS["tools"].tokenizer(), hidden_size=32, layers=1)
    options = ["--prompts", "4", "--max-tokens", "4"]
    assert main(["eval", "tools", "--model", "run", "--checkpoints", *options]) == 0
    printed = capsys.readouterr().out
    assert "run checkpoint-100: 4 of 4 answers were cut at max_tokens" in printed
    home = tmp_path / "results" / "tools" / "run"
    assert [log.step for log in read_logs(home)] == [20, 100]
    assert main(["eval", "tools", "--model", "run", "--checkpoints", "last", "--out", "o", *options]) == 0
    assert [log.step for log in read_logs(tmp_path / "o")] == [100]
    assert main(["eval", "tools", "--model", "run/checkpoint-20", "--label", "x", *options]) == 0
    assert [(log.model, log.step) for log in read_logs(tmp_path / "results/tools/x")] == [("x", 20)]
    assert main(["eval", "tools", "--model", "run", "--checkpoints", "20,30", *options]) == 2
    assert "run has no checkpoint 30; it has 20, 100" in capsys.readouterr().err


def judged(body, never_lost=False):
    """Answer as a policy, or judge as the criterion says; every tenth verdict is prose."""
    if "criteria" not in body["messages"][-1]["content"]:
        return "rest and ice"
    answer, criteria = blocks(body)
    if criteria[0][1].endswith("0") and not never_lost:
        return "I would rather not say."
    return json.dumps({"verdicts": [{"id": name, "met": text.split()[1] in answer} for name, text in criteria]})


def test_healthbench_through_a_served_model_and_a_judge_that_loses_verdicts(tmp_path, capsys):
    rows = [
        {
            "prompt_id": f"p{at}",
            "prompt": [{"role": "user", "content": f"prompt {at}"}],
            "example_tags": ["theme:x"],
            "rubrics": [
                {"criterion": f"says rest {at}", "points": 3, "tags": ["axis:accuracy"]},
                {"criterion": f"says gin {at}x", "points": 1, "tags": ["axis:accuracy", "level:cluster"]},
            ],
        }
        for at in range(20)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "hard.jsonl").write_text("".join(json.dumps(rows[at]) + "\n" for at in (1, 10)))
    with FaultServer(reply=judged) as server:
        served = ["--model", "org/policy", "--base-url", server.url, "--judge", "j", "--judge-url", server.url]
        command = ["eval", "healthbench", "--data", "rows.jsonl", *served, "--subset", "hard=hard.jsonl"]
        assert main(command) == 0
        asked = server.requests
        printed = capsys.readouterr().out
        assert main(command) == 0  # finished: nothing is asked for again
        assert server.requests == asked
        result = summary(tmp_path / "results/healthbench/org-policy")
        server.reply = lambda body: judged(body, never_lost=True)
        assert main([*command, "--retry-missing"]) == 0
        assert server.requests == asked + 2 * (1 + 1)  # an answer and a verdict of p0 and p10
    assert summary(tmp_path / "results/healthbench/org-policy")["scores"]["overall"]["missing"] == 0
    overall = result["scores"]["overall"]
    # p0 and p10 have lost "says rest", 3 of 4 points; all others have 3 / 4
    assert (overall["unclipped"], overall["items"], overall["missing"]) == (0.75, 18, 2)
    assert overall["bounds"] == pytest.approx([18 * 0.75 / 20, (18 * 0.75 + 2 * 0.75) / 20])
    assert result["scores"]["subset:hard"]["missing"] == 1
    assert (
        "overall is missing for 2 of 20 answers (10.0%); with them the unclipped mean is anywhere from 0.675 to 0.750"
        in (" ".join(printed.split()))
    )
    assert "2 of 40 verdicts (5.0%) are missing: 2 unparsed" in printed
    assert result["about"]["settings"]["judge"]["model"] == "j"


def test_a_server_that_answers_nothing_stops_the_run_which_then_goes_on(tmp_path, capsys):
    status = [400]
    with FaultServer(lambda number, body: status[0], lambda body: "x") as server:
        served = ["--model", "m", "--base-url", server.url, "--concurrency", "2", "--step", "7"]
        command = ["eval", "tools", "--prompts", "60", *served, "--out", "o"]
        assert main(command) == 2
        error = capsys.readouterr().err
        assert error.startswith(
            "rvpo: error: m: 20 of 20 answers were lost (the last one: failed: HTTP 400), more than"
        )
        assert len(error.splitlines()) == 1
        status[0] = None
        assert main([*command, "--retry-missing"]) == 0
    (log,) = read_logs(tmp_path / "o")
    assert (len(log.seeds[0]), sum(record["missing"] for record in log.seeds[0])) == (60, 0)


def test_rlla_and_gpqa_from_files(tmp_path, shared_data, capsys):
    file = str(shared_data / "rlla_4k_test80.parquet")
    truths = [row["reward_model"]["ground_truth"] for _, row in raw_rows(file, "test")]
    prompts = {
        row["prompt"][-1]["content"]: truth for (_, row), truth in zip(raw_rows(file, "test"), truths, strict=True)
    }
    (tmp_path / "made-up.csv").write_text(
        "Question,Correct Answer,Incorrect Answer 1,Incorrect Answer 2,Incorrect Answer 3\n1+1,2,3,4,5\n2+2,4,5,6,7\n"
    )
    with FaultServer(reply=lambda body: prompts.get(body["messages"][-1]["content"], "Answer: A")) as server:
        served = ["--model", "m", "--base-url", server.url, "--timeout", "60"]
        assert main(["eval", "rlla", "--data", file, *served]) == 0
        assert main(["eval", "gpqa", "--data", "made-up.csv", "--repeats", "8", *served]) == 0
        asked = server.requests
        with (tmp_path / "made-up.csv").open("a") as file:
            file.write("3+3,6,7,8,9\n")
        assert (
            main(["eval", "gpqa", "--data", "made-up.csv", "--repeats", "8", "--out", "results/gpqa/m", *served]) == 0
        )
        assert server.requests == asked + 3 * 8  # other rows under the same name are no finished evaluation
    scores = summary(tmp_path / "results/rlla/m")["scores"]
    assert scores["format"]["value"] == 1.0
    assert scores["correctness_of_calls"]["value"] == 3.0
    of_two, of_three = sorted(read_logs(tmp_path / "results/gpqa/m"), key=lambda log: len(log.seeds[0]))
    assert len(of_three.seeds[0]) == 24
    result = summary_of(of_two)
    assert (result["answers"]["asked"], result["unparsed"]) == (16, 0)
    assert 0 < result["scores"]["accuracy"]["value"] < 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tools", "--model", "nothing"], "nothing has neither"),
        (["tools", "--model", "runs/nothing"], "runs/nothing is neither a folder nor a model of a provider"),
        (["tools", "--model", "m", "--limit", "3"], "tools has no rows for --limit; its own options are --prompts"),
        (["tools", "--model", ".", "--checkpoints"], "has no folder checkpoint-N"),
        (["tools", "--model", "m", "--concurrency", "3"], "--concurrency: of servers; give --base-url"),
        (["tools", "--model", "m", "--base-url", "u", "--dtype", "x"], "--dtype: of local models"),
        (["tools", "--model", "m", "--base-url", "u", "--checkpoints"], "--checkpoints are folders"),
        (
            ["rlla", "--data", "t.jsonl", "--model", "m", "--base-url", "u", "--repeats", "2"],
            "at temperature 0 all --repeats",
        ),
        (["tools", "--model", "m", "--base-url", "u", "--prompts", "0"], "--prompts must be at least 1"),
        (["tools", "--model", "m", "--base-url", "u", "--repeats", "0"], "--repeats must be at least 1"),
        (["healthbench", "--data", "r.jsonl", "--model", "m", "--base-url", "u"], "needs a judge: --judge MODEL"),
        (
            ["healthbench", "--data", "r.jsonl", "--model", "m", "--base-url", "u", "--subset", "x"],
            "--subset takes NAME",
        ),
        (["gpqa", "--data", "r.csv", "--model", "m", "--base-url", "u"], "Correct Answer"),
        (["tools", "--model", "m", "-T", "a=1"], "-T is for tasks of other packages; tools take options"),
        (["--model", "m", "tools"], "tasks come first, then options"),
        (["gqpa", "--model", "m"], "there is no task 'gqpa'"),
    ],
)
def test_bad_input_is_one_line(tmp_path, capsys, words, message):
    rubrics = [{"criterion": "c", "points": 1, "tags": []}]
    (tmp_path / "r.jsonl").write_text(json.dumps({"prompt": "p", "rubrics": rubrics}) + "\n")
    (tmp_path / "r.csv").write_text("Question\nx\n")
    answer = "<think> t </think>\n<response> hello </response>"
    (tmp_path / "t.jsonl").write_text(json.dumps({"prompt": "q", "ground_truth": answer}) + "\n")
    assert main(["eval", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--base-url", "u"], "the following arguments are required: --data"),
        (["--data", "r.csv", "--repeat", "2"], "unrecognized arguments: --repeat 2; did you mean --repeats?"),
        (["--data", "r.csv", "--repeats", "x"], "argument --repeats: invalid int value: 'x'"),
        (["--data", "r.csv", "-T", "x"], "argument -T: needs NAME=VALUE, got 'x'"),
    ],
)
def test_options_that_a_task_lacks_or_needs(capsys, words, message):
    with pytest.raises(SystemExit) as stopped:
        main(["eval", "gpqa", "--model", "m", *words])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_help_has_examples_and_a_tasks_own_options(capsys):
    for words, example in (
        (["eval", "--help"], "rvpo eval healthbench --data"),
        (["eval", "gpqa", "-h"], "--repeats"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main(words)
        assert stopped.value.code == 0
        printed = capsys.readouterr().out
        assert example in printed
        assert "--retry-missing" in printed


def test_a_task_of_anybody_for_a_local_model(tmp_path, capsys):
    build_policy(tmp_path / "policy", TASKS["tools"].tokenizer(), hidden_size=32, layers=1)
    (tmp_path / "mine.py").write_text(
        "from inspect_ai import Task, task\nfrom inspect_ai.dataset import Sample\n"
        "from inspect_ai.scorer import match\n"
        "@task\ndef words(number: int = 3):\n"
        "    return Task(dataset=[Sample(id=at, input=f'word {at}', target='x') for at in range(number)],"
        " scorer=match())\n"
    )
    command = ["eval", "mine.py@words", "-T", "number=5", "--model", "policy", "--max-tokens", "4", "--out", "o"]
    assert main(command) == 0
    assert "match" in capsys.readouterr().out
    (log,) = read_logs(tmp_path / "o")
    assert (log.task.rpartition("/")[2], log.score, len(log.seeds[0]), log.is_own) == ("words", "match", 5, False)


def test_notes_say_what_a_reader_must_know():
    entry = {"value": 0.5, "items": 90, "missing": 10, "bounds": [0.4, 0.6], "interval": None}
    answers = {"asked": 100, "lost": 10, "lost_because": {"failed: HTTP 500": 10}, "cut_at_max_tokens": 3}
    notices = notes({"headline": "accuracy", "scores": {"accuracy": entry}, "answers": answers, "unparsed": 7})
    assert notices == [
        "accuracy is missing for 10 of 100 answers (10.0%); with them the mean is anywhere from 0.400 to 0.600",
        "10 of 100 answers are lost (10: failed: HTTP 500)",
        "7 of 100 answers name no letter, and count as wrong",
        "3 of 100 answers were cut at max_tokens",
    ]
