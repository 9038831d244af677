"""`rvpo data`: counts by hand, no texts unless asked for, rows written, errors in one line."""

import json

import pytest

from rvpo.cli import main as program
from rvpo.cli.data import FEW, TAGS, main
from rvpo.data import load_rubric_rows

ROWS = [
    {"prompt": "A?", "rubric": [{"text": "Secret one.", "points": 2, "tags": ["[red]tone"]}, "Omits secret two."]},
    {"prompt": "A?", "rubric": ["secret  ONE.", {"text": "secret\x1b[31m three.", "points": -3}], "reference": "x"},
    {"prompt": "B?", "rubric": ["", "Secret one.", "Same.", "same."], "tags": ["theme:x"]},
    {"prompt": "C?", "rubric": []},
    {"prompt": "", "rubric": ["x"]},
]


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def run(capsys, *arguments):
    """Standard output of the command."""
    assert main(list(arguments)) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def test_the_counts_are_those_of_the_rows(tmp_path, capsys):
    lines = run(capsys, jsonl(tmp_path / "rows.jsonl", ROWS)).splitlines()
    assert lines[0].endswith("rows.jsonl, read as plain: 5 rows, 3 kept, 2 dropped")
    assert [line.split(maxsplit=1) for line in lines[1:5]] == [
        ["1", "dropped: no prompt"],
        ["1", "dropped: no rubric"],
        ["1", "with the prompt of an earlier row"],
        ["2", "without a reference"],
    ]
    assert "criteria per prompt: 2 to 4, median 2, 8 in all" in lines
    assert [line.split() for line in lines if "█" in line] == [["2", "█" * 40, "2"], ["4", "█" * 20, "1"]]
    cells = [line.strip("│").split("│") for line in lines if line.startswith("│")]
    assert [[cell.strip() for cell in row] for row in cells] == [["[red]tone", "1", "2", "2", "2"], ["theme:x", "1"]]
    assert "polarity: 7 positive (met is good), 1 negative (met is bad)" in lines
    assert "criteria with suspicious polarity: 1" in lines
    assert "texts more than once in one rubric: 1" in lines
    assert "rubrics with empty texts: 1" in lines
    assert "texts in several rubrics: 1" in lines
    row = load_rubric_rows(str(tmp_path / "rows.jsonl")).rows[0]["id"]
    assert f"  in 3 rubrics, first row {row}, c1" in lines
    assert f"  row {row}, c2: reads as a fault, but being met counts as good" in lines


def test_texts_are_printed_only_if_asked_for(tmp_path, capsys):
    file = jsonl(tmp_path / "rows.jsonl", ROWS)
    assert "ecret" not in run(capsys, file)
    shown = run(capsys, file, "--show")
    assert "    Omits secret two.\n" in shown
    assert "    Secret one.\n" in shown


def test_what_would_steer_the_terminal_is_not_printed(tmp_path, capsys):
    row = {"id": "\x1b[2J", "prompt": "A?", "rubric": ["Omits\x1b[31m it.\x07"], "tags": ["\x1b[1m[bold]"]}
    shown = run(capsys, jsonl(tmp_path / "rows.jsonl", [row]), "--show")
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "Omits\N{REPLACEMENT CHARACTER}[31m it." in shown


def test_long_lists_are_cut_and_say_so(tmp_path, capsys):
    rows = [{"prompt": f"{n}?", "rubric": [{"text": f"Omits {n}.", "tags": [f"t{n}"]}]} for n in range(TAGS + 3)]
    shown = run(capsys, jsonl(tmp_path / "rows.jsonl", rows))
    assert f"criteria with suspicious polarity: {TAGS + 3}, the first {FEW}" in shown
    assert shown.count("reads as a fault") == FEW
    assert "and 3 more tags" in shown
    assert max(map(len, shown.splitlines()[1:])) <= 90


def test_rows_are_written_in_canonical_form(tmp_path, capsys):
    file = jsonl(tmp_path / "rows.jsonl", ROWS)
    out = tmp_path / "new" / "rows.jsonl"
    assert run(capsys, file, "--out", str(out)).endswith(f"written: {out} (3 rows)\n")
    assert load_rubric_rows(str(out)).rows == load_rubric_rows(file).rows


def test_the_options_reach_the_loader(tmp_path, capsys):
    rubric = [{"title": "x", "description": f"Pitfall Criteria: {text}", "weight": -1} for text in ("Avoids x", "x")]
    rows = [{"question": f"{n}?", "reference_answer": "", "rubric": rubric} for n in range(3)]
    rubric[0] = rubric[0] | {"description": "Mandatory: y"}
    file = jsonl(tmp_path / "RaR-Science.jsonl", rows)
    shown = run(capsys, file, "--limit", "2")
    assert "read as rar: 2 rows, 2 kept" in shown
    assert "       2  criteria of an unreadable category" in shown
    assert "polarity: 4 positive (met is good), 0 negative (met is bad)" in shown
    bad = run(capsys, file, "--polarity", "met_is_bad", "--format", "rar", "--split", "anything")
    assert "polarity: 0 positive (met is good), 6 negative (met is bad)" in bad
    assert "pitfalls whose wording does not tell" in run(capsys, file, "--polarity", "by_wording")


def test_real_rows_are_described_without_their_texts(shared_data, capsys):
    file = shared_data / "researchrubrics100.jsonl"
    shown = run(capsys, str(file))
    raw = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    criteria = [criterion for row in raw for criterion in row["rubrics"]]
    sizes = [len(row["rubrics"]) for row in raw]
    assert f"criteria per prompt: {min(sizes)} to {max(sizes)}, median" in shown
    assert f", {len(criteria)} in all" in shown
    bad = sum(criterion["weight"] < 0 for criterion in criteria)
    assert f"polarity: {len(criteria) - bad} positive (met is good), {bad} negative (met is bad)" in shown
    assert not [criterion for criterion in criteria if criterion["criterion"][:30] in shown]
    assert not [row for row in raw if row["prompt"][:30] in shown]


def test_an_error_is_one_line_and_status_2(tmp_path, capsys):
    file = jsonl(tmp_path / "rows.jsonl", [*ROWS, {"prompt": "A?", "rubric": [3]}])
    assert program.main(["data", file]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"rvpo: error: {file}, line 6, key 'rubric[0]': must be an object, got 3\n"


def test_help_has_examples(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    assert "rvpo data rubrics.jsonl" in capsys.readouterr().out
