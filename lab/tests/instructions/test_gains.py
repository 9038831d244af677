import json
from pathlib import Path

import numpy as np
import pytest

from rvpo.audit import REAL_EXAMPLE
from rvpo_lab.instructions.gains import (
    RolloutLog,
    gains,
    gains_tables,
    rates_table,
    ratios,
    read_log,
    shuffled,
    taught,
)
from rvpo_lab.instructions.rollouts import write_log
from rvpo_lab.instructions.task import KINDS, rows
from rvpo_lab.suite.gains import Line, expected_gains


@pytest.fixture(scope="module")
def independent():
    """Twelve independent criteria, the first met by one answer in ten."""
    rates = np.array([0.1, *((2 * index + 1) / 22 for index in range(11))])
    return rates, (np.random.default_rng(1).random((1500, 8, 12)) < rates).astype(float)


def test_gain_of_a_single_channel_is_its_standard_deviation():
    """cov(R, cR) / std(cR) = std(R), whatever the method makes of one channel."""
    rewards = np.array([[[1.0], [0.0], [0.0], [0.0]]])
    for method in ("gdpo", "rvpo", "rvpo_policy"):
        assert gains(rewards, method, 2.0) == pytest.approx(np.sqrt(3) / 4)


def test_absent_channels_have_no_gain_and_dead_ones_none_either():
    rewards = np.array([[[1.0, np.nan, 1.0], [0.0, np.nan, 1.0]], [[1.0, 1.0, np.nan], [0.0, 0.0, np.nan]]])
    computed = gains(rewards, "gdpo", 1.0)
    assert np.array_equal(np.isnan(computed), [[False, True, False], [False, False, True]])
    assert computed[0, 2] == 0.0
    assert computed[1, 0] == computed[1, 1]
    # Group 1 has advantages +-a, group 2 +-2a: spread a sqrt(2.5), covariance a / 2 and a.
    assert computed[0, 0] == pytest.approx(0.5 / np.sqrt(2.5))
    assert computed[1, 0] == pytest.approx(1.0 / np.sqrt(2.5))


def test_shuffling_keeps_every_pass_rate_and_breaks_dependence():
    column = np.random.default_rng(0).random((300, 8, 1)) < 0.5
    rewards = np.concatenate([column, column, np.full_like(column, np.nan, dtype=float)], axis=2).astype(float)
    mixed = shuffled(rewards, 3)
    assert np.array_equal(mixed.sum(axis=1), rewards.sum(axis=1), equal_nan=True)
    assert np.corrcoef(mixed[:, :, 0].ravel(), mixed[:, :, 1].ravel())[0, 1] < 0.2


def test_agreement_with_the_simulated_criteria(independent):
    rates, rewards = independent
    where = np.zeros((1500, 12), dtype=bool)
    where[:, 0] = True
    base = taught(rewards, "gdpo", 1.0)
    for method, k in (("rvpo", 2.0), ("rvpo_policy", 2.0)):
        measured, after_shuffling = ratios(taught(rewards, method, k), base, where)
        expected = expected_gains(Line(method, method, method, k), [0.1], rates[1:]) / expected_gains(
            Line("gdpo", "GDPO", "gdpo"), [0.1], rates[1:]
        )
        assert measured.low < measured.value < measured.high
        assert measured.value == pytest.approx(expected[0], abs=0.06)
        assert after_shuffling == pytest.approx(expected[0], abs=0.06)


def test_the_sqrt_law(independent):
    """What RVPO teaches against GDPO falls with the pass rate in the group, at k = 1 about as its root."""
    log = RolloutLog([f"c{index}" for index in range(12)], independent[1][:300])
    lines = [line.split("|")[1:] for line in gains_tables(log)[0].splitlines()[2:]]
    by_rate = {float(cells[0]): float(cells[2].split("[")[0]) for cells in lines}
    low, middle = by_rate[0.12], by_rate[0.25]
    assert low < middle < 0.9
    assert middle / low == pytest.approx(np.sqrt(2), rel=0.25)


def test_log_and_tables(tmp_path):
    comma = {"kind": "no_comma", "arguments": {}}
    title = {"kind": "title", "arguments": {}}
    lines = [
        {"prompts": 2},
        {
            "instructions": json.dumps([comma, title]),
            "answers": ["a, b", "<<a>> b", "<<a>>, b", "a"],
            "tokens": [4] * 4,
        },
        {"instructions": json.dumps([comma]), "answers": ["a", "b", "c", "d"], "tokens": [1] * 4},
    ]
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_log(tmp_path / "answers.jsonl", tmp_path / "log.parquet")
    log = read_log(tmp_path / "log.parquet")
    assert log.names == ["no_comma", "title"]
    nan = np.nan
    assert np.array_equal(
        log.rewards, [[[0, 0], [1, 1], [0, 1], [1, 0]], [[1, nan], [1, nan], [1, nan], [1, nan]]], equal_nan=True
    )
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in rates_table(log).splitlines()[2:]]
    assert [cells[:4] + cells[5:] for cells in table] == [
        ["title", "a title in double angle brackets", "1", "0.50", "1.00"],
        ["no_comma", "no commas", "2", "0.75", "0.50"],
    ]


def test_the_page_has_the_tables_of_the_log_that_comes_with_the_package():
    page = (Path(__file__).parents[3] / "docs" / "real-model.md").read_text()
    log = read_log(REAL_EXAMPLE)
    assert log.rewards.shape == (200, 8, len(KINDS))
    for table in (rates_table(log), *gains_tables(log)):
        assert table in page


def test_the_log_is_of_the_task_as_it_is():
    """Prompts that the task draws differently now would make the stored log one of another task."""
    rewards = read_log(REAL_EXAMPLE)
    for row, group in zip(rows(200, 0), rewards.rewards, strict=True):
        kinds = {instruction["kind"] for instruction in json.loads(row["instructions"])}
        assert {name for name, present in zip(rewards.names, ~np.isnan(group[0]), strict=True) if present} == kinds
