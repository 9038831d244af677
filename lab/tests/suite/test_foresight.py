"""The forecast against what happened: figures worked by hand on made-up runs, and on the suite's own."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rvpo.audit import audit_log
from rvpo.errors import ConfigError
from rvpo_lab.suite.foresight import (
    SPANS,
    OwnMethod,
    advantage,
    audit_run,
    audits,
    auroc,
    falls,
    forecasts,
    foresight,
    orders,
    own_method,
    signs,
    values_by_channel,
    wins,
    write_log,
)
from rvpo_lab.suite.plan import Cell
from rvpo_lab.suite.storage import CellRecord, read_cells

SUITE = Path(__file__).parents[3] / "benchmarks" / "neglect"
BOTH = np.ones((1, 2))
"""A draw in which each of two runs comes once."""


def run(contender="gdpo", seed=0, *, task="rubric", lost=False):
    """A run of two channels; easy rises, hard is lost or not."""
    draw = np.random.default_rng(seed)
    rollouts = []
    for step in range(1, 6):
        for group in range(4):
            easy = (draw.random(8) < 0.7).astype(float)
            hard = (draw.random(8) < (0.1 if lost else 0.5)).astype(float)
            rollouts += [(step, group, "a/easy", easy.tolist()), (step, group, "b/hard:1", hard.tolist())]
    end = 0.0 if lost else 1.0
    held_out = {(p, name): [0.0, 0.5, 1.0, at] for p in range(4) for name, at in (("a/easy", 1.0), ("b/hard:2", end))}
    about = {"task": task, "contender": contender, "seed": seed, "settings": {"steps": 100}}
    return CellRecord(about, [], steps=[0, 10, 20, 100], held_out=held_out, rollouts=rollouts)


def test_a_row_holds_what_was_said_and_what_happened():
    table = forecasts(audits([run(lost=True)]))
    assert table["channel"].tolist() == ["a/easy", "b/hard"]
    assert table["neglected"].tolist() == [False, True]
    assert table["next"].tolist() == [0.5, 0.5]
    assert table["whole"].tolist() == [1.0, 0.0]
    assert table["outlook"][0] > table["outlook"][1]


@pytest.mark.parametrize(("met", "neglected"), [(3, False), (2, True)])
def test_a_channel_that_ends_at_0_3_is_not_neglected(met, neglected):
    record = run()
    record.held_out = {(prompt, "a/easy"): [0.0, 0.0, 0.0, float(prompt < met)] for prompt in range(10)}
    assert forecasts(audits([record]))["neglected"].tolist() == [neglected]


def test_the_audit_is_of_the_runs_own_method_at_its_own_k():
    assert own_method(run("gdpo")) == ("gdpo", 1.0)
    assert own_method(run("rvpo_k5")) == ("rvpo", 5.0)
    rvpo = own_method(run("rvpo"))
    assert rvpo == ("rvpo", pytest.approx(0.5 + 1.5 * 5 / 100))
    assert own_method(run("unheard_of")) is None
    assert [method.name for method in audit_run(run(), [rvpo]).methods] == [rvpo.name] == [f"rvpo k={rvpo.k:g}"]


def test_gdpos_log_is_audited_under_the_methods_of_the_same_task_and_seed():
    gdpo, rvpo, other = audits([run("gdpo"), run("rvpo_k5"), run("rvpo_policy", seed=1)])
    assert [method.name for method in gdpo.result.methods] == ["gdpo", "rvpo k=5"]
    assert [method.name for method in rvpo.result.methods] == ["rvpo k=5"]
    assert [method.name for method in other.result.methods] == ["rvpo_policy k=2"]


def test_auroc_by_hand():
    rows = pd.DataFrame(
        {
            "task": "t",
            "method": "m",
            "seed": [0, 0, 0, 1, 1],
            "outlook": [0.1, 0.5, 0.5, 0.6, 0.2],
            "neglected": [True, True, False, True, False],
        }
    )
    # Neglected 0.1, 0.5, 0.6 against others 0.5, 0.2: below in 0.1 twice, and one tie.
    assert wins(rows, "outlook").auroc == pytest.approx(2.5 / 6)
    # Inside run 0: one below and one tie of two; inside run 1: none of one.
    assert wins(rows, "outlook").inside == pytest.approx(1.5 / 3)


def test_what_the_forecast_adds_to_the_mean_by_hand():
    rows = pd.DataFrame(
        {
            "task": "t",
            "method": "m",
            "seed": [0, 0, 1, 1],
            "outlook": [0.1, 0.5, 0.2, 0.6],
            "level": [0.3, 0.3, 0.4, 0.2],
            "neglected": [True, False, True, False],
        }
    )
    # The outlook orders all four pairs. The mean 0.3 of one ties with 0.3; 0.4 is above both, and 0.3 above 0.2.
    outlook, level = wins(rows, "outlook"), wins(rows, "level")
    assert advantage(outlook, level, BOTH) == "+0.88 [+0.88, +0.88]"
    assert auroc(outlook, BOTH) == "1.00 [1.00, 1.00]"
    # Run 1 twice: its outlook orders its pair, its mean does not; run 0 twice: the mean ties.
    assert advantage(outlook, level, np.array([[0.0, 2.0]])).endswith("[+1.00, +1.00]")
    assert advantage(outlook, level, np.array([[2.0, 0.0]])).endswith("[+0.50, +0.50]")


def moved(**columns):
    """Five channels, one a run, of which the fourth did not move and the last one hardly did."""
    course = {which: [0.2, -0.2, -0.2, 0.0, 0.01] for which in SPANS}
    errors = {f"{which}_error": [0.01] * 5 for which in SPANS}
    return pd.DataFrame({"task": "t", "method": "m", "seed": range(5), **course, **errors, **columns})


def test_signs_by_hand():
    right, up = signs(moved(change=[0.1, 0.1, -0.1, -0.1, -0.1]), "next", 0)
    assert right.startswith("0.67 [")
    assert right.endswith("] of 3")
    assert up == "0.33"


def test_a_move_of_two_standard_errors_is_not_clear():
    rows = moved(change=[0.1] * 5).assign(next=[0.02, 0.0201, -0.02, -0.0201, 0.0])
    assert signs(rows, "next", 0)[0].endswith("] of 2")


def test_falls_by_hand():
    text = falls(moved(falls=[True, False, True, True, True]))
    assert "over the next steps 1 of 2 and 1 of 2," in text


def test_what_is_advised_is_held_against_its_own_run():
    runs = [run(method, seed=1, lost=method == "gdpo") for method in ("gdpo", "rvpo", "rvpo_policy")]
    (row,) = orders(audits(runs)).to_dict("records")
    # The lower channel of two ends at 0 under GDPO and at 1 in the others, whichever of them is advised.
    assert row["gain"] == 1.0
    audit = audit_run(runs[0], [OwnMethod("gdpo", 1.0), OwnMethod("rvpo_policy", 2.0)])
    assert row["ahead"] == (audit.method("rvpo_policy k=2").ahead.low >= 0.01)


def test_the_page_tells_chosen_seeds_from_the_others():
    records = [run(method, seed, lost=True) for seed in (0, 1, 2, 3) for method in ("gdpo", "rvpo", "grpo")]
    text = foresight(records)
    assert text.index("**Seeds 2, 3, a test**") < text.index("**Seeds 0, 1, on which the horizon was chosen**")
    assert "| RVPO 0.5-2 | 2 | 2 of 4 | 1.00 [1.00, 1.00] |" in text
    assert len(orders(audits(records))) == 4


def test_runs_beside_the_rivals_stand_for_themselves():
    """With MaxRL, and without the methods that weigh by the batch of a step, which a log does not tell."""
    records = [run(method, seed) for seed in (0, 2) for method in ("gdpo", "rvpo", "grpo")]
    rivals = [run(method, 8) for method in ("gdpo", "maxrl", "saw", "rvpo_policy")]
    text = foresight(records, rivals)
    own = text.partition("**Seeds 8, a test beside the rivals**")[2].partition("**Seeds 0, on which")[0]
    assert "| MaxRL | 1 | 0 of 2 |" in own
    assert "| all | 3 | 0 of 6 |" in own
    assert "SAW" not in text


def test_runs_that_say_nothing_are_an_error():
    with pytest.raises(ConfigError, match="no run of a known method"):
        forecasts(audits([run("unheard_of")]))
    short = run()
    short.steps = short.steps[:2]
    with pytest.raises(ConfigError, match="three evaluations"):
        foresight([short])


def test_a_log_is_written_as_the_audit_reads_it(tmp_path):
    record = run()
    write_log(record, tmp_path / "log.parquet")
    read = audit_log(tmp_path / "log.parquet", methods=["gdpo"], ks=[1.0], draws=200)
    direct = audit_run(record, [OwnMethod("gdpo", 1.0)])
    assert (read.rollouts, read.groups, read.steps) == (160, 20, (1.0, 5.0))
    for first, other in zip(read.channels, direct.channels, strict=True):
        assert first.forecasts["gdpo"].change == pytest.approx(other.forecasts["gdpo"].change)


def test_the_example_is_the_log_of_a_run_that_neglected_what_it_names(tmp_path):
    from rvpo.audit import EXAMPLE

    (record,) = read_cells(SUITE, [Cell("conflict", "gdpo", 0)])
    write_log(record, tmp_path / "example.parquet")
    assert (tmp_path / "example.parquet").read_bytes() == EXAMPLE.read_bytes()
    named = audit_log(EXAMPLE, draws=200).findings[0].channels[0]
    values = values_by_channel(record, [named])[named]
    assert values[-1].mean() < 0.05 < values[0].mean()
