"""`rvpo compare` on files that this project did not write: inspect's logs, lm-eval's samples, plain rows."""

import json

import pytest

from rvpo.cli.main import main
from rvpo.errors import ConfigError
from rvpo.evals.logs import read_log


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
