"""`rvpo judge`: grading that goes on where it stopped, the check, the store."""

import json

import pytest

from judging.answers import items
from judging.fault_server import FaultServer, honest, met
from rvpo.cli.main import main
from rvpo.judging.store import VerdictStore


@pytest.fixture
def answers(tmp_path, monkeypatch):
    """A file of 12 answers; the tests run beside it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    rows = [
        {"id": f"row{index}", "prompt": item.prompt, "answer": item.answer, "rubric": item.rubric.to_rows()}
        for index, item in enumerate(items(12))
    ]
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rows


def judge(command, server, *words):
    common = ["answers.jsonl", "--model", "m", "--base-url", server.url, "--timeout", "2", "--retry-minutes", "0.2"]
    return main(["judge", command, *common, *words])


def test_grade_writes_every_verdict_and_counts(answers, tmp_path, capsys):
    with FaultServer() as server:
        assert judge("grade", server) == 0
    lines = [json.loads(line) for line in (tmp_path / "graded.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == [f"row{index}/0" for index in range(12)]
    for line, row in zip(lines, answers, strict=True):
        for criterion in row["rubric"]:
            assert line["verdicts"][criterion["id"]]["met"] == met(row["answer"], criterion["text"])
    printed = capsys.readouterr().out
    assert "60 calls" in printed
    assert "6000 + 1200 tokens" in printed


def test_grade_goes_on_where_it_stopped_and_pays_nothing_twice(answers, tmp_path, capsys):
    with FaultServer() as server:
        assert judge("grade", server, "--max-calls", "20", "--concurrency", "1") == 2
        assert "max_calls=20" in capsys.readouterr().err
        assert judge("grade", server) == 0
        assert server.requests == 60
        whole = (tmp_path / "graded.jsonl").read_text()
        (tmp_path / "graded.jsonl").write_text(whole[:-30])  # a line cut short by a kill
        assert judge("grade", server) == 0
        assert server.requests == 60
    assert (tmp_path / "graded.jsonl").read_text() == whole
    assert "11 of 12 answers are in graded.jsonl already" in capsys.readouterr().out


def test_the_reasons_are_written_whatever_they_hold(answers, tmp_path):
    odd = "line\u2028break, half an emoji \ud83d, caf\u00e9"

    def reasoning(body):
        reply = json.loads(honest(body))
        for verdict in reply["verdicts"]:
            verdict["reason"] = odd
        return json.dumps(reply)

    with FaultServer(reply=reasoning) as server:
        assert judge("grade", server, "--criteria-per-call", "5") == 0
        whole = (tmp_path / "graded.jsonl").read_bytes()
        (tmp_path / "graded.jsonl").write_bytes(whole[: whole.rindex(b"caf\xc3\xa9") + 4])  # cut inside a character
        assert judge("grade", server, "--criteria-per-call", "5") == 0
        assert server.requests == 12
    assert (tmp_path / "graded.jsonl").read_bytes() == whole
    lines = [json.loads(line) for line in whole.split(b"\n") if line]
    assert len(lines) == 12
    assert {verdict["reason"] for line in lines for verdict in line["verdicts"].values()} == {odd}


def test_several_answers_to_a_prompt(answers, tmp_path):
    row = answers[0] | {"answers": ["rest", "ice"]}
    (tmp_path / "answers.jsonl").write_text(json.dumps(row) + "\n")
    with FaultServer() as server:
        assert judge("grade", server, "--out", "two.jsonl") == 0
    assert [json.loads(line)["id"] for line in (tmp_path / "two.jsonl").read_text().splitlines()] == [
        "row0/0",
        "row0/1",
    ]


def test_check_of_an_honest_judge(answers, tmp_path, capsys):
    with FaultServer() as server:
        assert judge("check", server, "--rows", "4", "--json", "check.json", "--price-input", "1000") == 0
    results = json.loads((tmp_path / "check.json").read_text())
    assert results["answers"] == 4
    assert results["retest"] == {"pairs": 4 * 5 * 3, "lost": 0, "share": 1.0}
    assert results["reliability"]["all"] == 1.0
    assert results["chunked"]["share"] == 1.0
    assert {probe["share"] for probe in results["probes"]} <= {0.0}
    # 5 criteria a prompt, one a call: 100 steps x 16 x 16 answers, 100 tokens a call at 1000 a million
    assert results["cost"]["calls"] == 128_000
    assert results["cost"]["cost"] == pytest.approx(12_800)
    assert "agrees with itself" in capsys.readouterr().out


def test_check_of_a_judge_that_tosses_a_coin_and_is_fooled(answers, tmp_path):
    toss = iter(range(10**6))

    def fickle(body):
        answer = json.loads(honest(body))
        for verdict in answer["verdicts"]:
            verdict["met"] = next(toss) % 3 > 0
        return json.dumps(answer)

    with FaultServer(reply=fickle) as server:
        assert judge("check", server, "--rows", "6", "--json", "check.json", "--concurrency", "1") == 0
    results = json.loads((tmp_path / "check.json").read_text())
    assert results["retest"]["share"] < 0.6
    assert results["reliability"]["all"] < 0.5
    assert max(probe["share"] for probe in results["probes"]) > 0.5


def test_the_store_can_be_looked_at_exported_and_pruned(answers, tmp_path, capsys):
    with FaultServer() as server:
        judge("grade", server)
    capsys.readouterr()
    assert main(["judge", "store", "stats", "verdicts.sqlite"]) == 0
    assert "60" in capsys.readouterr().out
    assert main(["judge", "store", "export", "verdicts.sqlite"]) == 0
    exported = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(exported) == 60
    assert {row["model"] for row in exported} == {"m"}
    assert main(["judge", "store", "prune", "verdicts.sqlite"]) == 2
    assert main(["judge", "store", "prune", "verdicts.sqlite", "--model", "other"]) == 0
    assert VerdictStore("verdicts.sqlite").statistics()[0]["replies"] == 60
    assert main(["judge", "store", "prune", "verdicts.sqlite", "--model", "m"]) == 0
    assert VerdictStore("verdicts.sqlite").statistics() == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 13"),
        ('{"prompt": "q", "answer": "a"}', "no key 'rubric'"),
        ('{"prompt": "q", "rubric": []}', "no key 'answer'"),
        ('{"prompt": "q", "answer": 3, "rubric": []}', "an answer is text"),
        ('{"prompt": "q", "answer": "a", "rubric": [{"text": "x"}]}', "line 13"),
    ],
)
def test_rows_that_cannot_be_used_are_told_by_line(answers, tmp_path, capsys, line, message):
    with (tmp_path / "answers.jsonl").open("a") as file:
        file.write(line + "\n")
    assert main(["judge", "grade", "answers.jsonl", "--model", "m"]) == 2
    assert message in capsys.readouterr().err


def test_options_come_from_yaml_and_the_command_line_comes_first(answers, tmp_path, capsys):
    with FaultServer() as server:
        (tmp_path / "judge.yaml").write_text(f"model: m\nbase_url: {server.url}\ncriteria_per_call: 5\n")
        assert main(["judge", "grade", "answers.jsonl", "--config", "judge.yaml"]) == 0
        assert server.requests == 12
    (tmp_path / "judge.yaml").write_text("modle: m\n")
    assert main(["judge", "grade", "answers.jsonl", "--config", "judge.yaml"]) == 2
    assert "did you mean 'model'" in capsys.readouterr().err
    assert main(["judge", "store", "stats", "nothing.sqlite"]) == 2
