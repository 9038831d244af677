"""`rvpo judge`: grading that goes on where it stopped, the check, the store."""

import fcntl
import json
from pathlib import Path

import pytest

from judging.fault_server import FaultServer, blocks, honest, items, met
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
        ('{"prompt": "q", "answer": "a", "rubric": [{"txt": "x"}]}', "line 13"),
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


def lines_of(file):
    return [json.loads(line) for line in file.read_bytes().split(b"\n") if line]


def test_lost_verdicts_are_a_non_zero_exit_and_asked_for_again(answers, tmp_path, capsys):
    def plan(number, body):
        return "refusal" if "ice" in str(body) and is_down else None

    with FaultServer(plan) as server:
        is_down = True
        assert judge("grade", server, "--max-missing", "1") == 1
        lost = sum(verdict["met"] is None for line in lines_of(tmp_path / "graded.jsonl")
                   for verdict in line["verdicts"].values())  # fmt: skip
        assert lost > 0
        assert f"{lost} verdicts lost; the same command asks for them again" in capsys.readouterr().err
        before, is_down = server.requests, False
        assert judge("grade", server) == 0
        assert server.requests == before + lost
    lines = lines_of(tmp_path / "graded.jsonl")
    assert [line["id"] for line in lines] == [f"row{index}/0" for index in range(12)]
    assert not any(verdict["met"] is None for line in lines for verdict in line["verdicts"].values())


def test_without_a_server_nothing_is_graded_and_the_exit_says_so(answers, capsys):
    words = ["--base-url", "http://127.0.0.1:9/v1", "--retry-minutes", "0.01"]
    assert main(["judge", "grade", "answers.jsonl", "--model", "m", *words]) == 2
    assert "60 of 60 verdicts are missing (60 failed)" in capsys.readouterr().err


def test_the_rows_of_other_answers_and_a_line_cut_in_the_middle_of_the_file(answers, tmp_path):
    out = tmp_path / "graded.jsonl"
    with FaultServer() as server:
        assert judge("grade", server) == 0
        whole = out.read_bytes().split(b"\n")
        other = whole[0].replace(b"row0/0", b"elsewhere/0")
        out.write_bytes(b"\n".join([other, whole[0][:50], *whole[1:3], whole[1], whole[4][:-7]]))
        assert judge("grade", server) == 0
    assert out.read_bytes().split(b"\n") == [*whole[:-1], other, b""]
    assert sorted(file.name for file in tmp_path.glob("graded*")) == ["graded.jsonl"]


@pytest.mark.parametrize("content", ["id,met\n1,true\n", '{"id": "row0/0"}\n', "[1]\n", "\x00\x01"])
def test_an_output_file_of_somebody_else_is_not_touched(answers, tmp_path, capsys, content):
    out = tmp_path / "graded.jsonl"
    out.write_text(content)
    with FaultServer() as server:
        assert judge("grade", server) == 2
        assert server.requests == 0
    assert "line 1, is no row of this command" in capsys.readouterr().err
    assert out.read_text() == content


def test_two_writers_of_one_file(answers, tmp_path, capsys):
    with FaultServer() as server, (tmp_path / "graded.jsonl").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert judge("grade", server) == 2
        assert server.requests == 0
    assert "another process writes graded.jsonl" in capsys.readouterr().err


def test_an_output_file_that_cannot_be_written_is_one_line(answers, tmp_path, capsys):
    with FaultServer() as server:
        assert judge("grade", server, "--out", "no/such/folder.jsonl") == 2
        assert server.requests == 0
    assert "cannot write no/such/folder.jsonl: No such file" in capsys.readouterr().err


def documented_rows():
    """The example rows of docs/data.md, with answers."""
    text = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    rows = [json.loads(line) for line in text.split("```json\n")[1].split("```")[0].splitlines()]
    return [row | {"answer": "says"} for row in rows]


@pytest.mark.parametrize("command", ["grade", "check"])
def test_the_documented_rubric_rows_are_judged(answers, tmp_path, command):
    rows = documented_rows()
    rows.append(rows[0] | {"rubric": json.dumps(rows[0]["rubric"])})
    rows.append(rows[0] | {"rubric": None})
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with FaultServer() as server:
        assert judge(command, server) == 0
    if command == "grade":
        first, as_text, without = lines_of(tmp_path / "graded.jsonl")
        assert first["verdicts"] == as_text["verdicts"]
        assert first["values"] == {"c1": 0.0, "scope/c2": 1.0}  # negative points: not met is good
        assert without["verdicts"] == {}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ('{"prompt": 3, "answer": "a", "rubric": []}', "line 1: a prompt must be text or a list of messages, got int"),
        ('{"prompt": "q", "answers": "a", "rubric": []}', "line 1: answers must be a list of texts, got str"),
        ('{"prompt": "q", "answer": "a", "rubric": 3}', "line 1: a rubric must be a list of criteria"),
        ('{"prompt": "q", "answer": "a", "rubric": "Be kind."}', "got text that is no JSON list: 'Be kind.'"),
        (
            '{"prompt": "q", "answer": "a", "rubric": [3]}',
            "criterion 1 of a rubric must be a text or an object, got int",
        ),
        ("3", "line 1: a row must be an object, got int"),
        ("[" * 100_000, "line 1: "),
        ('{"id": 1, "prompt": "q", "answer": "a", "rubric": []}\n' * 2, "line 2: an id must be unique"),
    ],
)
def test_odd_rows_are_one_line(answers, tmp_path, capsys, rows, message):
    (tmp_path / "answers.jsonl").write_text(rows)
    assert main(["judge", "grade", "answers.jsonl", "--model", "m"]) == 2
    assert message in capsys.readouterr().err


def test_answers_that_no_file_can_hold_are_judged(answers, tmp_path):
    row = {"prompt": "q \ud83d", "rubric": ["says ice \0"], "answer": "half \ud83d \0 emoji?"}
    (tmp_path / "answers.jsonl").write_bytes(json.dumps(row).encode().replace(b"?", b"\xff"))
    with FaultServer() as server:
        seen = []
        server.reply = lambda body: seen.append(blocks(body)) or honest(body)
        assert judge("grade", server) == 0
    odd = "\N{REPLACEMENT CHARACTER}"
    ((answer, [(_, criterion)]),) = seen
    assert (answer, criterion) == (f"half {odd} {odd} emoji{odd}", f"says ice {odd}")


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        (b"model: m\ntimeout: soon\n", "timeout must be a number, got 'soon'"),
        (b"model: [m]\n", "model must be text"),
        (b"model: m\nstore: {}\n", "store must be text or left out"),
        (b"model: m\nextra: {when: 2026-01-01}\n", "extra must hold what JSON can"),
        (b"model: m\nextra: &a {b: *a}\n", "extra must hold what JSON can"),
        (b"model: m\n1: 2\n", "unknown judge option '1'"),
        (b"model: \xff\n", "cannot read judge.yaml"),
        (b"- model\n", "must hold options of the judge"),
        (b"", "must hold options of the judge"),
        (b"model: m\nprompt: nothing.txt\n", "cannot read prompt nothing.txt"),
        (b'model: m\nprompt: "a\\0b"\n', "cannot read prompt"),
        (b"model: m\nbase_url: localhost\n", "base_url must be a URL"),
        (b"model: " + b"[" * 5000, "cannot read judge.yaml"),
        (b"model: m\nstore: answers.jsonl/v.sqlite\n", "cannot use answers.jsonl/v.sqlite as a verdict store"),
        (b"model: m\nstore: answers.jsonl\n", "cannot use answers.jsonl as a verdict store"),
    ],
)
def test_odd_files_of_the_judge_are_one_line(answers, tmp_path, capsys, yaml, message):
    (tmp_path / "judge.yaml").write_bytes(yaml)
    assert main(["judge", "grade", "answers.jsonl", "--config", "judge.yaml"]) == 2
    assert message in capsys.readouterr().err


def test_a_check_of_a_dead_judge_is_an_error_and_not_a_table(answers, capsys):
    with FaultServer(lambda number, body: 400) as server:
        assert judge("check", server, "--rows", "2") == 2
        assert server.requests == 2 * 5 * 3  # the test and retest; nothing is asked of the dead after that
    assert "no verdict on any of 10 criteria: 10 failed" in capsys.readouterr().err
    with FaultServer() as server:
        assert judge("check", server, "--json", "no/such/check.json") == 2
        assert server.requests == 0
    assert "cannot write no/such/check.json" in capsys.readouterr().err
