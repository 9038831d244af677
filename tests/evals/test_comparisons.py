"""Comparisons of results: pairing, seeds as blocks, Holm, bounds, words and JSON.

And `rvpo compare` on files that this project did not write: inspect's logs, lm-eval's samples, plain rows.
"""

import json
import math

import pytest

from evals.scripted import record
from rvpo.cli.main import main
from rvpo.errors import ConfigError
from rvpo.evals.logs import read_log
from rvpo.evals.paired import cautions, cells, compare, heads, to_json, unit_scores
from rvpo.stats import paired_test

# --- Paired results ---


def result(values, bounds=None):
    """A result with these values of units 0, 1, ..."""
    return [record(str(at), value, bounds=bounds if value is None else None) for at, value in enumerate(values)]


LOW = [0.1, 0.5, 0.3, 0.0, 0.2, 0.4, 0.1, 0.0]
HIGH = [value + gain for value, gain in zip(LOW, (0.3, 0.1, 0.2, 0.4, 0.2, 0.3, 0.1, 0.2), strict=True)]


def test_two_results_by_hand():
    (comparison,) = compare({"gdpo": [result(LOW)], "rvpo": [result(HIGH)]}, "s")
    assert comparison.test.difference == pytest.approx(1.8 / 8)
    assert comparison.test.p_value == comparison.adjusted_p == 2 / 2**8  # all eight differ in one direction
    assert (comparison.verdict, comparison.units) == ("higher", "8 items")
    assert comparison.sentence.startswith("rvpo against gdpo: higher by 0.225 [")
    assert comparison.sentence.endswith("p = 0.008")
    assert comparison.cautions == ["one result per name: says nothing about other training seeds"]


def test_the_other_way_round_is_told_as_a_positive_size():
    (comparison,) = compare({"rvpo": [result(HIGH)], "gdpo": [result(LOW)]}, "s")
    assert comparison.verdict == "lower"
    low, high = comparison.sentence.split("[")[1].split("]")[0].split(", ")
    assert 0 < float(low) < 0.225 < float(high)


def test_no_difference_is_a_result_in_words():
    (comparison,) = compare({"a": [result([0.0, 1.0, 0.0, 1.0])], "b": [result([1.0, 0.0, 0.5, 0.5])]}, "s")
    assert comparison.verdict == "no difference shown"
    assert comparison.sentence.startswith("b against a: no difference shown (+0.000 [")


def test_items_pair_by_unit_and_what_has_no_partner_is_told():
    first, second = result(LOW), [record(str(at), HIGH[at]) for at in (7, 6, 5, 4)] + [record("x", 1.0)]
    (comparison,) = compare({"a": [first], "b": [second]}, "s")
    assert comparison.test.difference == pytest.approx((0.2 + 0.3 + 0.1 + 0.2) / 4)
    assert (comparison.only_baseline, comparison.only_name) == (4, 1)
    assert comparison.cautions[0] == "1 items of b and 4 of a have no partner and were left out"


def test_missing_scores_leave_the_pair_and_bound_the_difference():
    (comparison,) = compare({"a": [result([0.5, None], (0.0, 0.4))], "b": [result([0.6, 1.0])]}, "s")
    assert (comparison.test.pairs, comparison.test.dropped) == (1, 1)
    assert comparison.test.difference == pytest.approx(0.1)
    assert comparison.bounds == pytest.approx(((0.1 + 0.6) / 2, (0.1 + 1.0) / 2))
    assert "with what is missing the difference lies between +0.350 and +0.550" in comparison.cautions
    (unknown,) = compare({"a": [result([0.5, None])], "b": [result([0.6, 1.0])]}, "s")
    assert unknown.bounds is None


def test_repeats_are_averaged_before_pairing():
    scores = unit_scores([record("q", 1.0), record("q", 0.0, 1), record("q", None, 2, bounds=(0.0, 1.0))], "s")
    assert scores["q"].value == 0.5
    assert (scores["q"].low, scores["q"].high) == (pytest.approx(1 / 3), pytest.approx(2 / 3))
    assert math.isnan(unit_scores([record("q", None)], "s")["q"].value)


def test_seeds_are_blocks_as_in_paired_test():
    seeds = [[value + shift for value in HIGH] for shift in (0.0, 0.05, -0.1)]
    (comparison,) = compare({"a": [result(LOW)] * 3, "b": [result(values) for values in seeds]}, "s")
    flat = [value for values in seeds for value in values]
    expected = paired_test(flat, LOW * 3, blocks=[seed for seed in range(3) for _ in LOW])
    assert comparison.test == expected
    assert comparison.units == "24 items in 3 seeds"
    assert comparison.test.p_value == 2 / 2**3
    assert comparison.verdict == "no difference shown"
    assert comparison.cautions == ["3 seeds allow no p-value below 0.25"]


def test_right_and_wrong_answers_have_mcnemars_mid_p():
    binom = pytest.importorskip("scipy.stats").binom
    gained, lost, same = 24, 11, 65  # items that one of two models has right, and those that both have
    first, second = (
        result([0.0] * gained + [1.0] * (lost + same)),
        result([1.0] * gained + [0.0] * lost + [1.0] * same),
    )
    (made,) = compare({"a": [first], "b": [second]}, "s", draws=200_000)
    expected = 2 * binom.sf(gained, gained + lost, 0.5) + binom.pmf(gained, gained + lost, 0.5)
    assert made.test.p_value == pytest.approx(expected, abs=0.002)
    assert 2 * binom.sf(gained - 1, gained + lost, 0.5) - expected > 0.01  # without halving the ties
    (equal,) = compare({"a": [first], "b": [first]}, "s")
    assert equal.test.p_value == 1.0


def test_p_values_are_corrected_over_all_comparisons():
    groups = {"a": [result(LOW)], "b": [result(HIGH)], "c": [result(LOW)]}
    against = compare(groups, "s")
    assert [(comparison.name, comparison.baseline) for comparison in against] == [("b", "a"), ("c", "a")]
    assert [comparison.adjusted_p for comparison in against] == [2 * 2 / 2**8, 1.0]
    assert [(comparison.name, comparison.baseline) for comparison in compare(groups, "s", all_pairs=True)] == [
        ("b", "a"), ("c", "a"), ("c", "b")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("groups", "score", "message"),
    [
        ({"a": [result(LOW)]}, "s", "at least two names"),
        ({"a": [result(LOW)], "b": [result(LOW)] * 2}, "s", "equally many results"),
        ({"a": [result(LOW)], "b": [[record("x", 1.0)]]}, "s", "no item in common"),
        ({"a": [result(LOW)], "b": [result(LOW)]}, "t", "no item of a has a score 't'; there are s"),
        ({"a": [result([None])], "b": [result([1.0])]}, "s", "nothing to compare"),
    ],
)
def test_what_cannot_be_compared_is_an_error(groups, score, message):
    with pytest.raises(ConfigError, match=message):
        compare(groups, score)


def test_a_caution_about_all_comparisons_is_given_once_and_one_about_some_with_their_names():
    made = compare({"a": [result(LOW)], "b": [result(HIGH)], "c": [result(LOW[:-1])]}, "s")
    assert cautions(made) == [
        "one result per name: says nothing about other training seeds",
        "c against a: 0 items of c and 1 of a have no partner and were left out",
    ]


def test_the_cells_of_a_table():
    (made,) = compare({"a": [result([0.0, 0.0])], "b": [result([0.5, 0.5])]}, "s", level=0.9)
    assert dict(zip(heads(0.9), cells(made), strict=True)) == {
        "": "b against a",
        "difference": "+0.500",
        "90 % interval": "+0.500 to +0.500",
        "p (Holm)": "0.500",  # of the four ways to swap two pairs, two differ as much
        "p": "0.500",
        "effect size": "+inf",  # no spread
        "items": "2 items",
        "verdict": "no difference shown",
    }
    (single,) = compare({"a": [result([0.0])], "b": [result([0.5])]}, "s")
    assert cells(single)[2] == cells(single)[5] == ""


def test_json_has_no_numbers_that_json_has_not():
    made = compare({"a": [result([0.5])], "b": [result([0.5])]}, "s")
    (stored,) = json.loads(json.dumps(to_json(made), allow_nan=False))
    assert (stored["difference"], stored["low"], stored["effect_size"]) == (0.0, None, None)
    assert stored["verdict"] == "no difference shown"


# --- Files of others ---


def written(file, rows):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def compared(capsys, tmp_path, *words):
    assert main(["compare", *words, "--json", str(tmp_path / "out.json")]) == 0
    return json.loads((tmp_path / "out.json").read_text())


def sample(number, exact, *, filter_name="none", parity="even", **more):
    """A line of `lm_eval --log_samples`."""
    row = {
        "doc_id": number, "doc": {"question": f"{number}+{number}=", "parity": parity}, "target": str(2 * number),
        "arguments": {}, "resps": [[str(number)]], "filtered_resps": [str(number)], "filter": filter_name,
        "metrics": ["exact_match"], "doc_hash": f"hash {number}", "exact_match": exact,
    }  # fmt: skip
    return row | more


def test_two_files_of_lm_eval(tmp_path, capsys):
    for name, right in (("base", 10), ("tuned", 30)):
        (tmp_path / name).mkdir()
        rows = [
            sample(at, float(at < (right if filter_name == "strict" else 30)), filter_name=filter_name,
                   parity="odd" if at % 2 else "even")
            for at in range(40) for filter_name in ("strict", "flexible")
        ]  # fmt: skip
        written(tmp_path / name / "samples_sums_2026-11-26T14-04-20.jsonl", rows)
    files = [str(next((tmp_path / name).iterdir())) for name in ("base", "tuned")]
    result = compared(capsys, tmp_path, *files, "--score", "exact_match,strict", "--by", "parity")
    whole, even, odd = result["comparisons"]
    assert (whole["name"], whole["baseline"], whole["difference"], whole["pairs"]) == ("tuned", "base", 0.5, 40)
    assert [(comparison["part"], comparison["pairs"], comparison["difference"]) for comparison in (even, odd)] == [
        ("parity even", 20, 0.5), ("parity odd", 20, 0.5)
    ]  # fmt: skip
    assert "sums, exact_match,strict: compared" in " ".join(capsys.readouterr().out.split())
    same = compared(capsys, tmp_path, *files, "--score", "exact_match,flexible")
    assert same["comparisons"][0]["verdict"] == "no difference shown"
    assert main(["compare", *files]) == 2
    assert "--score is one of exact_match,strict, exact_match,flexible" in capsys.readouterr().err


def test_items_pair_only_where_the_same_was_asked(tmp_path, capsys):
    shifted = [sample(at, 1.0, doc_hash=f"hash {at + 5}") for at in range(20)]
    files = [
        written(tmp_path / "a.jsonl", [sample(at, 0.0) for at in range(20)]),
        written(tmp_path / "b.jsonl", shifted),
    ]
    assert main(["compare", *files]) == 2
    assert "no item in common" in capsys.readouterr().err


def test_a_list_of_instructions_counts_by_its_mean_and_what_is_no_number_is_no_score(tmp_path):
    more = {"metrics": ["loose", "said"], "loose": [True, False, True, True], "said": "text"}
    log = read_log(written(tmp_path / "s.jsonl", [sample(0, 1.0, **more)]))
    assert log.seeds[0][0]["scores"] == {"loose": 0.75}
    with pytest.raises(ConfigError, match="no metric with one number"):
        read_log(written(tmp_path / "n.jsonl", [sample(0, 1.0, metrics=["said"], said="text")]))


def test_plain_rows_with_seeds_epochs_and_missing_scores(tmp_path, capsys):
    def rows(gain):
        return [
            {"question_id": f"q{at}", "seed": seed, "epoch": epoch, "right": at % 2 == 0, "note": "free text",
             "subject": ["a", "b"] if at < 4 else ["b"], "score": None if at == 3 and gain else at / 10 + gain}
            for at in range(8) for seed in (7, 8) for epoch in (0, 1)
        ]  # fmt: skip

    files = [written(tmp_path / "one.jsonl", rows(0.0)), written(tmp_path / "two.jsonl", rows(0.25))]
    (comparison,) = compared(capsys, tmp_path, *files)["comparisons"]
    assert (comparison["seeds"], comparison["pairs"], comparison["dropped"]) == (
        2,
        14,
        2,
    )  # epochs averaged, q3 missing in both seeds
    assert comparison["difference"] == pytest.approx(0.25)
    by = compared(capsys, tmp_path, *files, "--by", "subject")["comparisons"]
    assert [(item["part"], item["pairs"]) for item in by] == [("", 14), ("subject a", 6), ("subject b", 14)]
    (right,) = compared(capsys, tmp_path, *files, "--score", "right")["comparisons"]
    assert (right["difference"], right["p_value"]) == (0.0, 1.0)
    assert main(["compare", *files, "--by", "topic"]) == 2
    assert "no item has 'topic'; --by is one of note, subject" in capsys.readouterr().err


def test_the_text_nan_is_a_missing_score(tmp_path, capsys):
    (tmp_path / "t.csv").write_text("id,score\n" + "".join(f"{at},{'nan' if at == 3 else at}\n" for at in range(12)))
    file = str(tmp_path / "t.csv")
    (comparison,) = compared(capsys, tmp_path, f"a={file}", f"b={file}")["comparisons"]
    assert (comparison["pairs"], comparison["dropped"]) == (11, 1)


def test_parquet_and_csv_say_the_same_as_jsonl(tmp_path, capsys):
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"item": at, "f1": 0.1 * at if at else float("nan")} for at in range(12)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    lines = ["item,f1", *(f"{row['item']},{row['f1'] if row['item'] else ''}" for row in rows)]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    files = [str(tmp_path / name) for name in ("t.parquet", "t.csv")]
    (comparison,) = compared(capsys, tmp_path, f"a={files[0]}", f"b={files[1]}")["comparisons"]
    assert (comparison["pairs"], comparison["dropped"], comparison["difference"]) == (11, 1, pytest.approx(0.0))
    (by_item,) = compared(capsys, tmp_path, f"a={files[0]}", f"b={files[1]}", "--id", "item")["comparisons"]
    assert by_item["p_value"] == comparison["p_value"]


@pytest.mark.parametrize(
    ("rows", "words", "message"),
    [
        ([{"a": 1.0}], [], "needs a column that names the items, as id, or --id NAME; it has ['a']"),
        ([{"id": 1, "note": "x"}], [], "needs a column of numbers beside 'id'"),
        ([{"id": 1, "s": 1.0}, {"id": None, "s": 1.0}], [], "row 2: 'id' is absent"),
        ([{"id": 1, "s": 1.0}], ["--id", "key"], "--id NAME"),
        ([{"id": 1, "s": 1.0, "t": 2.0}], [], "--score is one of s, t"),
        ([{"id": 1, "s": 1.0}], ["--score", "t"], "has a score 't'"),
    ],
)
def test_what_cannot_be_compared_is_one_line(tmp_path, capsys, rows, words, message):
    file = written(tmp_path / "x.jsonl", rows)
    assert main(["compare", f"a={file}", f"b={file}", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def test_two_logs_of_plain_inspect(tmp_path, capsys):
    pytest.importorskip("inspect_ai")
    from inspect_ai import Task
    from inspect_ai import eval as run
    from inspect_ai.dataset import Sample
    from inspect_ai.model import ModelOutput, ModelUsage, get_model
    from inspect_ai.scorer import includes, match

    def model(right):
        def answer(messages, tools, choice, config):
            number = int(messages[-1].text.split()[0])
            if number == 11:
                raise RuntimeError("no answer")
            output = ModelOutput.from_content("mockllm/model", str(2 * number) if number < right else "no")
            output.usage = ModelUsage(input_tokens=1, output_tokens=1)  # else it downloads a tokenizer to count
            return output

        return get_model("mockllm/model", custom_outputs=answer, memoize=False)

    def task():
        rows = [
            Sample(input=f"{at} + {at}?", target=str(2 * at), id=at, metadata={"parity": "odd" if at % 2 else "even"})
            for at in range(1, 31)
        ]
        return Task(dataset=rows, scorer=[match(), includes()], name="sums")

    options = {"display": "none", "epochs": 2, "fail_on_error": False, "log_model_api": False}
    logs = [run(task(), model=model(right), log_dir=str(tmp_path / f"l{right}"), **options)[0] for right in (6, 26)]
    assert [log.status for log in logs] == ["success", "success"]
    words = [f"{name}={log.location}" for name, log in zip(("base", "tuned"), logs, strict=True)]
    result = compared(capsys, tmp_path, *words, "--score", "match", "--by", "parity")
    whole, even, odd = result["comparisons"]
    assert (whole["pairs"], whole["dropped"], even["pairs"], odd["pairs"]) == (29, 1, 15, 14)  # 11 ended in an error
    # 6 to 25 without 11 are right in the one and wrong in the other; what is missing lies between 0 and 1
    assert whole["difference"] == pytest.approx(19 / 29)
    assert whole["bounds"] == pytest.approx([(19 - 1) / 30, (19 + 1) / 30])
    assert result["notes"] == []
    exported = tmp_path / "log.json"
    from inspect_ai.log import read_eval_log, write_eval_log

    write_eval_log(read_eval_log(logs[1].location), str(exported))
    (same,) = compared(capsys, tmp_path, words[0], f"tuned={exported}", "--score", "match")["comparisons"]
    assert same["difference"] == whole["difference"]
