"""Benchmarks through inspect: records kept in its log; what is lost is missing, with bounds; too much of it stops."""

import json

import numpy as np
import pytest

from evals.scripted import Scripted, logged, record, run
from rvpo.errors import ConfigError
from rvpo.evals.benchmark import Benchmark, mean_score, scored, units_of, unknown_record
from rvpo.evals.logs import differences, read_log, read_logs
from rvpo.evals.models import Answer, Question


def length(question, answer):
    if answer.text is None:
        return unknown_record(question, {"length": (0.0, 10.0)})
    return scored(question, {"length": float(len(answer.text))})


def benchmark(number=10, repeats=1, **about):
    """Questions whose score is the length of the answer."""

    def summarize(records):
        return {"headline": "length", "shown": ["length"], "scores": {"length": mean_score(records, "length")}}

    return Benchmark(
        name="lengths",
        questions=[
            Question.of(f"q{at}", repeat, f"prompt {at}", 0) for at in range(number) for repeat in range(repeats)
        ],
        score=length,
        summarize=summarize,
        item_score="length",
        about=about,
    )


def echo(question):
    return "x" * (1 + int(question.unit[1:]))


def lossy(question):
    return Answer(None, lost="failed: HTTP 500") if question.unit in ("q0", "q9") else echo(question)


@pytest.fixture(scope="module", autouse=True)
def harness():
    pytest.importorskip("inspect_ai")


def test_a_log_has_the_records_that_the_benchmark_makes(tmp_path):
    log = logged(benchmark(repeats=2), Scripted(lossy), tmp_path, label="m", step=5)
    assert log.status == "success"
    metrics = {name: metric.value for name, metric in log.results.scores[0].metrics.items()}
    # 2 to 9 are known, the two lost ones lie between 0 and 10
    assert metrics == pytest.approx(
        {"length": 5.5, "length missing": 4, "length lowest": 44 / 10, "length highest": (44 + 20) / 10}
    )
    read = read_log(log.location)
    assert (read.task, read.model, read.step, read.score, read.is_own) == ("lengths", "m", 5, "length", True)
    direct = tmp_path / "direct"
    run(benchmark(repeats=2), Scripted(lossy), direct)
    expected = [json.loads(line) for line in (direct / "items.jsonl").read_text().splitlines()]
    assert [line | {"tags": None} for line in read.seeds[0]] == [line | {"tags": None} for line in expected]


def test_a_run_that_loses_too_much_stops_and_says_why(tmp_path):
    model = Scripted(lambda question: Answer(None, lost="failed: HTTP 500"))
    log = logged(benchmark(100), model, tmp_path, max_samples=5)
    assert log.status == "error"
    assert "20 of 20 answers were lost (the last one: failed: HTTP 500), more than 20%" in log.error.message
    assert len(model.asked) <= 25
    with pytest.raises(ConfigError, match="is not finished: its status is 'error'"):
        read_log(log.location)


def test_a_model_that_cannot_be_used_stops_the_run_at_once(tmp_path):
    def refused(question):
        raise ConfigError("no chat template")

    model = Scripted(refused)
    log = logged(benchmark(100), model, tmp_path, max_samples=5)
    assert (log.status, len(model.asked) <= 5) == ("error", True)
    assert "no chat template" in log.error.message


def test_questions_need_ids_of_their_own(tmp_path):
    twice = benchmark(2)
    with pytest.raises(ConfigError, match="ids of their own, got 4 of 2"):
        logged(Benchmark(**(vars(twice) | {"questions": [*twice.questions] * 2})), Scripted(echo), tmp_path)


def test_a_mean_counts_what_is_missing_and_bounds_it():
    records = [record("a", 1.0), record("b", None, bounds=[-0.5, 0.5]), record("c", 0.0)]
    score = mean_score([*records, record("d", 9.0, name="other")], "s")
    assert (score["value"], score["items"], score["missing"]) == (0.5, 2, 1)
    assert score["bounds"] == [(1 - 0.5) / 3, (1 + 0.5) / 3]
    assert mean_score([*records, record("d", None)], "s")["bounds"] is None  # one of unknown reach
    nothing = mean_score([record("b", None, bounds=[0, 1])], "s")
    assert (nothing["value"], nothing["interval"], nothing["bounds"]) == (None, None, [0, 1])
    assert mean_score([record("a", 1.0)], "s")["interval"] is None


def test_the_interval_is_that_of_the_mean_of_all_values_where_units_have_different_numbers_of_them():
    sizes = [3 if at % 2 else 1 for at in range(80)]  # as prompts with one or three instructions
    records = [record(str(at), float(size == 3), k) for at, size in enumerate(sizes) for k in range(size)]
    summary = mean_score(records, "s")
    assert summary["value"] == 0.75
    rng = np.random.default_rng(0)
    means = [np.average(drawn == 3, weights=drawn) for drawn in rng.choice(sizes, size=(20_000, 80))]
    assert summary["interval"] == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.01)


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
    header = {"benchmark": "b", "questions": "h", "settings": {"seed": 0}, "sampling": {"temperature": 1}}
    assert differences(header, header) == ""
    assert differences(header, header | {"settings": {"seed": 0, "base_url": "elsewhere"}}) == ""
    assert differences(header, header | {"sampling": {"temperature": 0}}) == "sampling.temperature 1 and 0"


def test_logs_of_checkpoints_come_by_step(tmp_path):
    for step in (100, 20):
        logged(benchmark(2), Scripted(echo), tmp_path / "run", step=step)
    assert [log.step for log in read_logs(tmp_path)] == [20, 100]
    (tmp_path / "empty").mkdir()
    for name, reason in (("empty", "no finished results"), ("nothing", "no file or folder")):
        with pytest.raises(ConfigError, match=reason):
            read_logs(tmp_path / name)
