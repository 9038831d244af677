import json
import time

import pytest

from made_up_cells import tiny_policy
from rvpo.errors import ConfigError
from rvpo_lab.cli.instructions import main
from rvpo_lab.instructions.program import Pace, Workers, run_cells
from rvpo_lab.instructions.table import best_rate, markdown
from rvpo_lab.instructions.task import TASK, Settings, cells, rows
from rvpo_lab.instructions.train import train_cell
from rvpo_lab.suite.compare import at_distance
from rvpo_lab.suite.plan import Cell
from rvpo_lab.suite.results import score_curves
from rvpo_lab.suite.storage import CellRecord, keep_settings, pack, read_cell, read_cells, write_cell
from rvpo_lab.suite.train_cell import divergence

SMALL = Settings(
    steps=3, prompts=2, rollouts=4, updates=2, tokens=10, evaluate_every=2, held_out=9, learning_rate=1e-3
)


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return tiny_policy(tmp_path_factory.mktemp("policy"))


@pytest.fixture(scope="module")
def trained(policy, tmp_path_factory):
    """A finished cell, and what it reported."""
    file, reports = tmp_path_factory.mktemp("cells") / "cell.parquet", []
    train_cell(Cell(TASK, "rvpo_policy", 3), SMALL, policy, file, lambda *report: reports.append(report))
    return read_cell(file), reports, file


def test_a_cell_holds_what_was_measured(trained):
    record, reports, file = trained
    assert record.steps == [0, 2, 3]
    assert [report[0] for report in reports] == [0, 1, 2, 3]
    held_out = rows(9, 3, held_out=True)
    assert record.prompts == [row["prompt"][0]["content"] for row in held_out]
    kinds = {(i, given["kind"]) for i, row in enumerate(held_out) for given in json.loads(row["instructions"])}
    assert set(record.held_out) == kinds
    assert all(len(values) == 3 and set(values) <= {0.0, 1.0} for values in record.held_out.values())
    assert record.about["kl_per_token"][0] == pytest.approx(0, abs=1e-6)
    assert record.about["kl_per_token"][-1] > 1e-4
    assert record.about["sampler"] == "graph"
    assert len(record.samples) == 9  # all of them, there are fewer than 64
    assert {step for step, _, _ in record.samples} == {3}
    assert file.stat().st_size < 100_000


def test_rewards_of_the_first_steps_are_kept_for_the_audit(trained):
    record = trained[0]
    asked = rows(SMALL.prompts * SMALL.steps, 3)
    of_step = {step: {} for step in (1, 2, 3)}
    for step, group, kind, values in record.rollouts:
        of_step[step].setdefault(group, set()).add(kind)
        assert len(values) == SMALL.rollouts
    # TRL shuffles prompts; all of them come, each with the kinds of its instructions.
    seen = sorted(sorted(kinds) for groups in of_step.values() for kinds in groups.values())
    assert seen == sorted(sorted(given["kind"] for given in json.loads(row["instructions"])) for row in asked)


def test_updates_of_a_batch_are_counted_as_trl_counts_them(trained):
    assert trained[0].logged_steps == [2, 4, 6]


def test_methods_of_a_seed_see_the_same_prompts_and_first_answers(policy, trained, tmp_path):
    train_cell(Cell(TASK, "gdpo", 3), SMALL, policy, tmp_path / "gdpo.parquet", lambda *report: None)
    other, record = read_cell(tmp_path / "gdpo.parquet"), trained[0]
    first = [[entry for entry in cell.rollouts if entry[0] == 1] for cell in (record, other)]
    assert first[0] == first[1]
    assert {key: values[0] for key, values in record.held_out.items()} == {
        key: values[0] for key, values in other.held_out.items()
    }
    assert record.about["kl_per_token"][-1] != other.about["kl_per_token"][-1]


def test_adapters_are_trained_through_generate(policy, tmp_path):
    import dataclasses

    settings = dataclasses.replace(SMALL, lora=4, steps=2, passes=2)
    train_cell(Cell(TASK, "gdpo", 0), settings, policy, tmp_path / "cell.parquet", lambda *report: None)
    record = read_cell(tmp_path / "cell.parquet")
    assert record.about["sampler"] == "generate"
    assert record.logged_steps == [4, 8]
    assert record.about["kl_per_token"][-1] > 1e-6
    assert {step for step, _, _, _ in record.rollouts} == {1, 2}


def test_divergence_is_the_sum_over_tokens_by_hand(policy):
    import torch
    from transformers import AutoModelForCausalLM

    start = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32)
    model = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32)
    with torch.no_grad():
        model.model.norm.weight *= 1.5
    prompts, answers = [[5, 6, 7], [9]], [[10], [11, 12, 13]]
    per_token, per_answer = divergence(model, start, prompts, answers, pad=0)
    total = 0.0
    for prompt, answer in zip(prompts, answers, strict=True):
        ids = torch.tensor([prompt + answer])
        with torch.no_grad():
            p, q = (network(ids).logits[0].log_softmax(-1) for network in (model, start))
        for position in range(len(prompt) - 1, len(prompt + answer) - 1):
            total += float((p[position].exp() * (p[position] - q[position])).sum())
    assert per_token == pytest.approx(total / 4, rel=1e-4)
    assert per_answer == pytest.approx(total / 2, rel=1e-4)


def test_the_program_goes_on_where_results_end(policy, tmp_path):
    planned = cells(["gdpo", "rvpo"], [0])
    with Workers(2) as workers:
        lines = []
        left = run_cells(tmp_path, planned, SMALL, policy, workers, deadline=None, pace=Pace(), show=lines.append)
        assert left == []
        files = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "cells").iterdir()}
        assert set(files) == {"instructions-gdpo-0.parquet", "instructions-rvpo-0.parquet"}
        assert "2 of 2 cells" in "".join(lines)
        more = cells(["gdpo", "rvpo"], [0, 1])
        # A cell takes longer than is left: none is begun, the two finished ones stay.
        slow = Pace(before_steps=0.0, a_step=1000.0)
        left = run_cells(
            tmp_path, more, SMALL, policy, workers, deadline=time.monotonic() + 60, pace=slow, show=lines.append
        )
        assert left == more[2:]
        left = run_cells(tmp_path, more, SMALL, policy, workers, deadline=None, pace=Pace(), show=lines.append)
        assert left == []
        wrong = run_cells(
            tmp_path,
            [Cell(TASK, "gdpo", 7)],
            SMALL,
            "/no/such/model",
            workers,
            deadline=None,
            pace=Pace(),
            show=lines.append,
        )
        assert wrong == [Cell(TASK, "gdpo", 7)]
        assert "instructions-gdpo-7 failed: ConfigError" in "".join(lines)
    assert {file.name: file.stat().st_mtime_ns for file in (tmp_path / "cells").iterdir()}.items() >= files.items()
    assert {record.cell for record in read_cells(tmp_path)} == set(more)
    text = markdown(tmp_path)
    assert "RVPO 0.5-2" in text
    assert "with fewer than 4 seeds they are directions" in " ".join(text.split())
    pack(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["cells.parquet"]
    assert markdown(tmp_path) == text
    with Workers(1) as workers:  # has nothing to do: packed cells are finished
        assert run_cells(tmp_path, more, SMALL, "/no", workers, deadline=None, pace=Pace(), show=lines.append) == []


def test_settings_of_a_folder_do_not_change(tmp_path):
    keep_settings(tmp_path, SMALL)
    keep_settings(tmp_path, SMALL)
    with pytest.raises(ConfigError, match="steps 3 there and 60 now"):
        keep_settings(tmp_path, Settings())


def test_what_cannot_be_trained_is_told(tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'rvpo'"):
        cells(["rvop"], [0])
    with pytest.raises(ConfigError, match="15 rollouts cannot be parted into 4"):
        main(["--prompts", "3", "--rollouts", "5", "--policy", "x", "--out", str(tmp_path)])


def made_up(method, seed, ends, kl):
    """Write-ready record: two kinds over two prompts each, evaluated at steps 0 and 10."""
    about = {
        "task": TASK,
        "contender": method,
        "seed": seed,
        "policy": "tiny",
        "kl_per_token": [0.0, kl],
        "settings": {**Settings().__dict__},
    }
    record = CellRecord(about, ["p", "q"], steps=[0, 10])
    for prompt in (0, 1):
        for kind, end in ends.items():
            record.held_out[prompt, kind] = [0.0, end]
    return record


def test_scores_by_hand():
    record = made_up("gdpo", 0, {"short": 0.2, "title": 0.4, "json": 0.9, "number": 0.1}, 0.5)
    measured = score_curves(record)
    assert measured["mean"].tolist() == [0.0, pytest.approx(0.4)]
    assert measured["lowest"][-1] == pytest.approx(0.15)  # two of four kinds
    assert measured["neglected"].tolist() == [1.0, 0.5]
    # Half the way in KL is half the way between the evaluations.
    assert at_distance(record, 0.25)["mean"] == pytest.approx(0.2)
    assert at_distance(record, 0.5)["mean"] == pytest.approx(0.4)
    assert at_distance(record, 0.0)["mean"] == pytest.approx(0.0)


def test_the_table_pairs_runs_by_seed(tmp_path):
    (tmp_path / "cells").mkdir()
    for seed in range(4):
        base = 0.4 + 0.1 * seed
        for method, gain, kl in (("gdpo", 0.0, 0.5), ("rvpo", -0.1, 0.25)):
            ends = {"short": base + gain, "title": base + gain, "json": base + gain}
            write_cell(made_up(method, seed, ends, kl), tmp_path / "cells" / f"{method}-{seed}.parquet")
    # A seed without its partner does not count in the differences.
    write_cell(
        made_up("rvpo", 9, {"short": 0.0, "title": 0.0, "json": 0.0}, 0.25), tmp_path / "cells" / "rvpo-9.parquet"
    )
    text = markdown(tmp_path)
    lines = text.splitlines()
    steps, distance = [line for line in lines if line.startswith("| RVPO 0.5-2")]
    # Four pairs of one sign: of the 16 ways to flip them two are as extreme.
    assert "| -0.100 [-0.100, -0.100], p 0.125 |" in steps
    # At KL 0.25 GDPO is half its way up: 0.275 on average, RVPO is at its end, 0.45.
    assert distance.startswith("| RVPO 0.5-2 | 4 | 0.250 | +0.175 [")
    assert "4 to 5 seeds a method" in " ".join(lines)


def test_no_results_are_an_error(tmp_path):
    with pytest.raises(ConfigError, match="no finished cells"):
        main(["--table", str(tmp_path)])


def test_the_learning_rate_is_chosen_by_the_late_mean():
    results = {
        1e-5: made_up("gdpo", 0, {"short": 0.3, "title": 0.3}, 0.1),
        4e-5: made_up("gdpo", 0, {"short": 0.5, "title": 0.2}, 0.4),
        1e-3: made_up("gdpo", 0, {"short": 0.0, "title": 0.1}, 9.0),
    }
    best, table = best_rate(results)
    assert best == 4e-5
    assert "| 4e-05 | 0.000 | 0.350 | +0.350 | 0.4000 |" in table


def test_a_pace_is_unknown_before_it_is_measured():
    assert Pace().seconds(10) is None
    assert Pace(5.0, 2.0).seconds(10) == 25.0
