"""The paper's tables: names, best and final, seeds, quoted numbers, tests, what is missing."""

import pytest

from evals.scripted import record
from rvpo.evals.benchmark import mean_score
from rvpo.text import NOTHING
from rvpo_lab.paper_tables import QUOTED_AXES, QUOTED_HEALTHBENCH, Run, tables


def entry(value, **more):
    return {"value": value, "interval": None, "items": 4, "missing": 0, "bounds": None} | more


def summary(value, *, step=0, benchmark="healthbench", headline="overall", **scores):
    scores_of_run = {
        headline: entry(max(value, 0.0), unclipped=value),
        **{name: entry(score) for name, score in scores.items()},
    }
    return {
        "benchmark": benchmark, "headline": headline, "item_score": "overall", "label": f"step {step}", "step": step,
        "scores": scores_of_run, "shown": list(scores_of_run), "answers": {"asked": 4}, "unparsed": 1,
    }  # fmt: skip


def run(name, *values, **options):
    return Run(name, tuple(summary(value, step=step, **options) for step, value in enumerate(values)))


def rows(text, start):
    """The cells of the lines of a table that begin with `start`."""
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith(f"| {start}")
    ]


@pytest.mark.parametrize(
    ("name", "size", "method", "risk", "key"),
    [
        ("7B RVPO k=0.5-2", "7B", "RVPO k=0.5-2", "0.5-2", ("7B", "RVPO")),
        ("rvpo-14b", "14B", "rvpo", "0.5-2", ("14B", "RVPO")),
        ("7b-rvpo_k5", "7B", "rvpo_k5", "5", ("7B", "rvpo_k5")),
        ("7B-GDPO", "7B", "GDPO", "0", ("7B", "GDPO")),
        ("7B RVPO k=5", "7B", "RVPO k=5", "5", ("7B", "RVPO k=5")),
        ("7B RVPO k=0.5->2.0", "7B", "RVPO k=0.5->2.0", "0.5-2", ("7B", "RVPO")),
        ("1.5B hard-min", "1.5B", "hard-min", "hard-min", ("1.5B", "hard-min")),
        ("rvpo_policy", "", "rvpo_policy", "", ("", "RVPO_POLICY")),
    ],
)
def test_names_are_read(name, size, method, risk, key):
    scored_run = run(name, 0.1)
    assert (scored_run.size, scored_run.method, scored_run.risk, scored_run.key) == (size, method, risk, key)


def test_best_is_taken_before_clipping_and_final_is_the_last():
    scored_run = run("7B GDPO", -0.3, -0.1, -0.2)
    assert (scored_run.best["step"], scored_run.final["step"]) == (1, 2)
    assert run("x", 0.2, 0.2).best["step"] == 0  # the first of equals


def test_healthbench_beside_the_quoted_numbers():
    axes = {f"axis:{name}": 0.25 for name in QUOTED_AXES["7B", "RVPO"]}
    runs = [run("7B GDPO", 0.21, 0.05), run("7B RVPO k=0.5-2", 0.24, 0.22, **axes), run("7B RVPO k=5", 0.2, -0.1)]
    text = tables(runs)
    main = rows(text, "7B")
    assert main[0][:6] == ["7B", "GDPO", "1", "0.210", "0.050", "0.210 / 0.050"]
    assert main[0][-1] == "0.198 / 0.026"
    assert main[1][-1] == "0.230 / 0.204"
    assert main[2][3:6] == ["0.200", "0.000", "0.200 / -0.100"]  # clipped beside unclipped
    assert main[2][-1] == NOTHING
    quoted = [row for row in main if row[2] == "paper (quoted)"]
    assert quoted[1][3:] == ["33.3", "15.2", "21.2", "45.1", "30.1"]
    assert [row[:2] + row[-1:] for row in main[-4:]] == [
        ["7B", "0", "0.198 / 0.026"], ["7B", "0.5-2", "0.230 / 0.204"], ["7B", "5", "0.241 / 0.095"],
        ["7B", "hard-min", "not known / 0"],
    ]  # fmt: skip
    assert "Nothing is missing." in text


def test_numbers_of_other_sizes_are_quoted_only_where_no_size_is_ours():
    assert not rows(tables([run("7B GDPO", 0.2)]), "14B")
    everything = rows(tables([run("mine", 0.2)]), "14B")
    assert [row[-1] for row in everything] == ["0.215 / 0.000", "0.261 / 0.236"]
    assert QUOTED_HEALTHBENCH["3B", "RVPO"] == (0.189, 0.147)


def test_seeds_are_averaged_with_their_spread():
    text = tables([run("7B RVPO", 0.1, 0.2), run("7B RVPO", 0.4, 0.3)])
    assert rows(text, "7B | RVPO")[0][2:5] == ["2", "0.300 (0.200 to 0.400)", "0.250 (0.200 to 0.300)"]


def test_gpqa_and_bfcl_and_any_other():
    options = {"benchmark": "gpqa", "headline": "accuracy", "accuracy_of_parsed": 0.5}
    gpqa = tables([run("7B GDPO", 0.3, 0.35, **options)])
    assert rows(gpqa, "7B")[0] == ["7B", "GDPO", "1", "35.0", "35.0", NOTHING, "50.0", "1 of 4"]
    assert "+-6.5 points" in gpqa
    bfcl = tables([run("3B RVPO", 0.8, benchmark="bfcl", headline="overall_v3")])
    assert rows(bfcl, "3B")[0] == ["3B", "RVPO", "1", "overall_v3", "80.0", "80.0", "80.4"]
    assert rows(bfcl, "1.5B")[0][-1] == "71.9"
    other = tables([run("mine", 0.5, benchmark="tools", headline="prompt_mean", all_met=0.25)])
    assert rows(other, f"{NOTHING} |")[0] == [NOTHING, "mine", "1", "0.500", "0.500", NOTHING, "0.250"]


def test_what_is_missing_is_told_with_its_reach():
    scored_run = run("7B GDPO", 0.5)
    scored_run.summaries[0]["scores"]["overall"] |= {"missing": 1, "items": 3, "bounds": [0.25, 0.75]}
    assert "- 7B GDPO, step 0: 1 of 4 missing; with them 0.250 to 0.750" in tables([scored_run])


def test_tests_are_made_within_a_size_against_gdpo():
    def scored(name, *values):
        records = [record(str(at), value, name="overall") for at, value in enumerate(values)]
        overall = summary(sum(values) / len(values))
        overall["scores"]["overall"] = mean_score(records, "overall") | {"unclipped": sum(values) / len(values)}
        return Run(name, (overall,), (records,))

    low = [0.1, 0.2, 0.0, 0.3, 0.1, 0.2, 0.0, 0.1]
    runs = [
        scored("14B RVPO", *(value + 0.25 for value in low)), scored("14B GDPO", *low), scored("7B RVPO", *low)
    ]  # fmt: skip
    text = tables(runs)
    (best, final) = (rows(text, when)[0] for when in ("best", "final"))
    assert best[1:3] == ["14B RVPO against 14B GDPO", "+0.250"]
    assert final[4] == "0.008"  # 2 / 2^8
    assert final[-1] == "higher"
    assert "p < 0.001 for RVPO against GDPO" in text  # quoted
    assert len(rows(text, "final")) == 1  # the 7B run stands alone
    assert "Paired tests" not in tables([Run(scored_run.name, scored_run.summaries) for scored_run in runs])


def test_a_bar_in_a_name_breaks_no_table():
    (row,) = rows(tables([run("a|b", 0.5, benchmark="tools", headline="m")]), f"{NOTHING} |")
    assert row[1:3] == ["a\\", "b"]
