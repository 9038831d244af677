"""A run and its folder: kept line by line, gone on with, refused under other settings; missing is counted."""

import json

import pytest

from evals.scripted import Scripted, record, run
from rvpo.errors import ConfigError, JudgeError
from rvpo.evals.benchmark import Benchmark, mean_score, per_answer, units_of, unknown_record
from rvpo.evals.models import Answer, Question
from rvpo.evals.results import differences, read_result, result_folders

FILES = ("about.json", "answers.jsonl", "items.jsonl", "summary.json")


def length(one, answer):
    if answer.text is None:
        return unknown_record(one, {"length": (0.0, 10.0)})
    scores = {"length": float(len(answer.text))}
    return {"id": one.id, "unit": one.unit, "scores": scores, "bounds": {}, "missing": 0}


def benchmark(number=10, repeats=1, **about):
    """Questions whose score is the length of the answer."""
    return Benchmark(
        name="lengths",
        questions=[
            Question.of(f"q{at}", repeat, f"prompt {at}", 0) for at in range(number) for repeat in range(repeats)
        ],
        score=per_answer(length),
        summarize=lambda records: {"headline": "length", "scores": {"length": mean_score(records, "length")}},
        item_score="length",
        about=about,
        batch=3,
    )


def echo(one):
    return "x" * (1 + int(one.unit[1:]))


def files(folder):
    return {name: (folder / name).read_bytes() for name in FILES}


def test_answers_and_scores_are_kept_in_the_benchmarks_order(tmp_path):
    model, told = Scripted(echo), []
    summary = run(benchmark(), model, tmp_path / "r", label="m", step=5, progress=lambda *one: told.append(one))
    assert summary["scores"]["length"]["value"] == 5.5  # lengths 1 to 10
    assert (summary["label"], summary["step"], summary["item_score"]) == ("m", 5, "length")
    assert summary["answers"]["asked"] == summary["answers"]["units"] == 10
    assert model.closed == 1
    assert told[0] == ("answers", 0, 10)
    assert told[-1] == ("scores", 10, 10)
    result = read_result(tmp_path / "r")
    assert [one["id"] for one in result.records] == [f"q{at}/0" for at in range(10)]
    assert result.summary == json.loads(json.dumps(summary))


def test_a_run_that_broke_off_asks_nothing_twice_and_ends_with_the_same_bytes(tmp_path):
    run(benchmark(), Scripted(echo), tmp_path / "whole")
    stops = Scripted(lambda one: RuntimeError("power cut") if one.unit == "q9" else echo(one))
    with pytest.raises(RuntimeError, match="power cut"):
        run(benchmark(), stops, tmp_path / "broken")
    kept = [json.loads(line)["id"] for line in (tmp_path / "broken" / "answers.jsonl").read_text().splitlines()]
    assert kept == [f"q{at}/0" for at in range(8)]  # two whole batches of four
    with (tmp_path / "broken" / "answers.jsonl").open("a") as stream:
        stream.write('{"id": "q8/0", "text": "cut sho')  # what a kill leaves of a line
    again = Scripted(echo)
    run(benchmark(), again, tmp_path / "broken")
    assert again.asked == ["q8/0", "q9/0"]
    assert files(tmp_path / "broken") == files(tmp_path / "whole")
    finished = Scripted(echo)
    run(benchmark(), finished, tmp_path / "broken")
    assert finished.asked == []
    assert files(tmp_path / "broken") == files(tmp_path / "whole")


def test_another_order_of_answers_ends_with_the_same_bytes(tmp_path):
    run(benchmark(), Scripted(echo, batch=4), tmp_path / "one")

    class Backwards(Scripted):
        async def answers(self, questions, done=()):
            async for some in super().answers(list(reversed(questions)), done):
                yield some

    run(benchmark(), Backwards(echo, batch=3), tmp_path / "other")
    assert files(tmp_path / "one") == files(tmp_path / "other")


@pytest.mark.parametrize(
    ("other", "model", "told"),
    [
        (benchmark(judge="b"), Scripted(echo), r"settings\.judge 'a' and 'b'"),
        (benchmark(9, judge="a"), Scripted(echo), "questions "),
        (benchmark(judge="a"), Scripted(echo, name="newer"), r"model\.name 'scripted' and 'newer'"),
    ],
)
def test_a_folder_is_not_gone_on_with_under_other_settings(tmp_path, other, model, told):
    run(benchmark(judge="a"), Scripted(echo), tmp_path / "r")
    with pytest.raises(ConfigError, match=told):
        run(other, model, tmp_path / "r")
    assert model.asked == []


def test_lost_answers_are_missing_with_bounds_and_can_be_asked_again(tmp_path):
    def lossy(one):
        return Answer(None, lost="failed: HTTP 500") if one.unit in ("q0", "q9") else echo(one)

    summary = run(benchmark(), Scripted(lossy), tmp_path / "r")
    found = summary["scores"]["length"]
    assert found["value"] == sum(range(2, 10)) / 8
    assert (found["items"], found["missing"]) == (8, 2)
    assert found["bounds"] == [sum(range(2, 10)) / 10, (sum(range(2, 10)) + 2 * 10) / 10]
    assert summary["answers"]["lost_because"] == {"failed: HTTP 500": 2}
    same = Scripted(echo)
    assert run(benchmark(), same, tmp_path / "r")["scores"]["length"]["missing"] == 2  # not asked for
    again = Scripted(echo)
    assert run(benchmark(), again, tmp_path / "r", retry_missing=True)["scores"]["length"]["value"] == 5.5
    assert (same.asked, again.asked) == ([], ["q0/0", "q9/0"])


def test_asking_again_that_breaks_off_leaves_no_summary_of_before(tmp_path):
    run(benchmark(), Scripted(lambda one: Answer(None, lost="why") if one.unit == "q0" else "x"), tmp_path / "r")
    with pytest.raises(RuntimeError):
        run(benchmark(), Scripted(lambda one: RuntimeError()), tmp_path / "r", retry_missing=True)
    with pytest.raises(ConfigError, match="no finished results"):
        read_result(tmp_path / "r")


def test_a_run_that_loses_too_much_stops_and_says_why(tmp_path):
    model = Scripted(lambda one: Answer(None, lost="failed: HTTP 500"), batch=5)
    with pytest.raises(JudgeError, match=r"20 of 20 answers were lost .*HTTP 500.*--retry-missing"):
        run(benchmark(100), model, tmp_path / "r")
    assert len(model.asked) == 20
    assert model.closed == 1


def test_text_that_utf8_cannot_hold_is_kept(tmp_path):
    run(benchmark(1), Scripted(lambda one: "a\ud800\u2028b"), tmp_path / "r")
    (line,) = (tmp_path / "r" / "answers.jsonl").read_bytes().splitlines()
    assert json.loads(line)["text"] == "a\ud800\u2028b"


def test_a_spoiled_line_in_the_middle_is_an_error_with_its_number(tmp_path):
    run(benchmark(), Scripted(echo), tmp_path / "r")
    lines = (tmp_path / "r" / "items.jsonl").read_text().splitlines()
    (tmp_path / "r" / "items.jsonl").write_text("\n".join([*lines[:2], "spoiled", *lines[3:]]) + "\n")
    with pytest.raises(ConfigError, match=r"items\.jsonl, line 3"):
        run(benchmark(), Scripted(echo), tmp_path / "r")


def test_questions_need_ids_of_their_own(tmp_path):
    twice = benchmark(2)
    with pytest.raises(ConfigError, match="ids of their own, got 4 of 2"):
        run(Benchmark(**(vars(twice) | {"questions": [*twice.questions, *twice.questions]})), Scripted(echo), tmp_path)


def test_a_mean_counts_what_is_missing_and_bounds_it():
    records = [record("a", 1.0), record("b", None, bounds=[-0.5, 0.5]), record("c", 0.0)]
    found = mean_score([*records, record("d", 9.0, name="other")], "s")
    assert (found["value"], found["items"], found["missing"]) == (0.5, 2, 1)
    assert found["bounds"] == [(1 - 0.5) / 3, (1 + 0.5) / 3]
    assert mean_score([*records, record("d", None)], "s")["bounds"] is None  # one of unknown reach
    nothing = mean_score([record("b", None, bounds=[0, 1])], "s")
    assert (nothing["value"], nothing["interval"], nothing["bounds"]) == (None, None, [0, 1])
    assert mean_score([record("a", 1.0)], "s")["interval"] is None


def test_repeats_of_a_unit_count_as_one_in_the_interval():
    once = mean_score([record(str(at), float(at % 2)) for at in range(40)], "s")
    repeated = mean_score([record(str(at), float(at % 2), k) for at in range(40) for k in range(25)], "s")
    width = once["interval"][1] - once["interval"][0]
    assert repeated["interval"][1] - repeated["interval"][0] == pytest.approx(width, rel=0.2)  # not a fifth of it


def test_units_are_named_by_what_they_say():
    names = units_of([{"a": 1, "b": 2}, ["x"], {"b": 2, "a": 1}])
    assert names[2] == f"{names[0]}-2"
    assert names[1] == units_of([["x"]])[0]
    assert len(set(names)) == 3


def test_what_makes_results_incomparable_is_told():
    model = {"weights": "a", "sampling": {"t": 1}}
    one = {"benchmark": "b", "questions": "h", "settings": {"seed": 0}, "model": model}
    other = one | {"model": {"weights": "b", "sampling": {"t": 0}}}
    assert differences(one, one) == ""
    assert differences(one, one | {"settings": {"seed": 0, "judge": {"base_url": "elsewhere"}}}) == ""
    assert differences(one, other) == "model.sampling.t 1 and 0"
    assert "model.weights 'a' and 'b'" in differences(one, other, whole=True)


def test_folders_of_checkpoints_come_by_step(tmp_path):
    for step in (100, 20):
        run(benchmark(2), Scripted(echo), tmp_path / f"checkpoint-{step}", step=step)
    assert [one.name for one in result_folders(tmp_path)] == ["checkpoint-20", "checkpoint-100"]
    assert result_folders(tmp_path / "checkpoint-20") == [tmp_path / "checkpoint-20"]
    with pytest.raises(ConfigError, match="no finished results"):
        result_folders(tmp_path / "nothing")
