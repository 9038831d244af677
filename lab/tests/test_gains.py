"""What methods teach about a criterion by its pass rate: on the log of a real model, in closed forms for large groups,
and in the figure."""

import itertools
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from made_up_cells import cell, write_suite
from rvpo.audit import REAL_EXAMPLE
from rvpo.errors import ConfigError
from rvpo_lab.cli.bench import main
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
from rvpo_lab.report.suite_figures import gains_picture
from rvpo_lab.suite.gains import (
    LINES,
    OTHERS,
    RATES,
    SHAPES,
    Line,
    expected_gains,
    gains_table,
    measured_gains,
)
from rvpo_lab.suite.storage import CellRecord


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
    page = (Path(__file__).parents[2] / "docs" / "real-model.md").read_text()
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


OTHER = [0.3, 0.6]
LARGE = {"group_size": 4000, "groups": 40}


def variance(p):
    return p * (1 - p)


def test_gdpo_teaches_by_the_standard_deviation():
    """A = sum Z: Cov(R, A) is R's standard deviation, and Var A = M for independent channels."""
    computed = expected_gains(Line("x", "x", "gdpo"), [0.1, 0.5, 0.9], OTHER, **LARGE)
    np.testing.assert_allclose(computed, [0.3 / math.sqrt(3), 0.5 / math.sqrt(3), 0.3 / math.sqrt(3)], atol=0.004)


def test_grpo_teaches_by_the_variance():
    """A is the standardised sum: Cov(R, A) = p (1 - p) / std(sum)."""
    computed = expected_gains(Line("x", "x", "grpo"), [0.1, 0.5], OTHER, **LARGE)
    rest = sum(map(variance, OTHER))
    by_hand = [variance(p) / math.sqrt(variance(p) + rest) for p in (0.1, 0.5)]
    np.testing.assert_allclose(computed, by_hand, atol=0.004)


def test_the_policy_level_weighs_the_variance_by_how_low_the_mean_is():
    """A = sum w (R - m) with w = softmax(-k m): Cov = w p (1 - p), Var = sum w^2 p (1 - p)."""
    k, p = 2.0, 0.1
    computed = expected_gains(Line("x", "x", "rvpo_policy", k), [p], OTHER, **LARGE)
    means = [p, *OTHER]
    whole = sum(math.exp(-k * m) for m in means)
    weights = [math.exp(-k * m) / whole for m in means]
    spread = math.sqrt(sum(w * w * variance(m) for w, m in zip(weights, means, strict=True)))
    assert computed[0] == pytest.approx(weights[0] * variance(p) / spread, abs=0.004)


def soft_minimum_gain(p, other, k):
    """Cov(R, A) of the paper's form for two independent criteria, over their four outcomes; and Var A."""

    def z(met, rate):
        return math.sqrt((1 - rate) / rate) if met else -math.sqrt(rate / (1 - rate))

    outcomes = []
    for first, second in itertools.product((0, 1), repeat=2):
        chance = (p if first else 1 - p) * (other if second else 1 - other)
        a = -math.log((math.exp(-k * z(first, p)) + math.exp(-k * z(second, other))) / 2) / k
        outcomes.append((chance, first, a))
    mean = sum(chance * a for chance, _, a in outcomes)
    covariance = sum(chance * (first - p) * (a - mean) for chance, first, a in outcomes)
    return covariance, sum(chance * (a - mean) ** 2 for chance, _, a in outcomes)


@pytest.mark.parametrize("p", [0.05, 0.5, 0.95])
def test_rvpo_by_enumeration(p):
    covariance, spread = soft_minimum_gain(p, 0.6, 2.0)
    computed = expected_gains(Line("x", "x", "rvpo", 2.0), [p], [0.6], **LARGE)
    assert computed[0] == pytest.approx(covariance / math.sqrt(spread), abs=0.004)


def test_the_limits_that_the_documentation_derives():
    k, other = 2.0, 0.6
    # Rarely met: (p / k) E log(1 + 1 / W), with W = exp(-k Z) of the other criterion.
    met, unmet = math.exp(-k * math.sqrt(0.4 / 0.6)), math.exp(k * math.sqrt(0.6 / 0.4))
    limit = (0.6 * math.log(1 + 1 / met) + 0.4 * math.log(1 + 1 / unmet)) / k
    assert soft_minimum_gain(1e-8, other, k)[0] / 1e-8 == pytest.approx(limit, rel=1e-3)
    # Nearly always met: the standard deviation itself, M = 2 times its share in the mean.
    p = 1 - 1e-4
    assert soft_minimum_gain(p, other, k)[0] == pytest.approx(math.sqrt(1 - p), rel=0.02)


def test_the_papers_form_teaches_less_about_rare_success_and_more_about_rare_failure_than_gdpo():
    lines = {line.name: expected_gains(line, [0.05, 0.95], OTHERS) for line in LINES}
    for name in ("rvpo", "rvpo_k5", "hard_min"):
        assert lines[name][0] < 0.2 * lines["gdpo"][0]
        assert lines[name][1] > 1.5 * lines["gdpo"][1]
    assert lines["rvpo_policy"][0] > lines["gdpo"][0]
    assert lines["rvpo_policy"][1] < lines["gdpo"][1]


def run(groups=6):
    """Rollouts of two channels: one met by every second rollout, the other by the rest of them."""
    first, second = [1.0, 0.0] * 4, [0.0, 1.0] * 4
    rollouts = [
        row for g in range(groups) for row in ((1, g, "a/x", first), (1, g, "b/y:1", second), (1, g, "c", first))
    ]
    about = {"task": "rubric", "contender": "gdpo", "seed": 0, "settings": {"steps": 100}}
    return CellRecord(about, [], steps=[0], rollouts=rollouts)


def test_measured_gains_by_hand():
    """a and c agree and b is their opposite: S = 1 where b fails, so GDPO raises a and c and lowers b by 1/2 each.

    The sum Z_a + Z_b + Z_c is Z_a. Cov(R_a, A) / std(A) over the group of 8, divided by 8, is 0.25 / 0.5.
    """
    points = {point.channel: point for point in measured_gains([run(), run()], [Line("gdpo", "GDPO", "gdpo")])}
    assert {name: point.rate for name, point in points.items()} == {"a/x": 0.5, "b/y": 0.5, "c": 0.5}
    assert points["a/x"].gain == pytest.approx(0.5, rel=0.1)  # 8/7 where a sample covariance is meant
    assert points["b/y"].gain == pytest.approx(-points["a/x"].gain)


def test_the_picture_has_a_mark_for_each_channel_and_the_model_alone_without_runs():
    alone, both = gains_picture(), gains_picture([run()])
    assert [len(named.figure.axes) for named in (alone, both)] == [1, 2]
    marks = both.figure.axes[1].lines
    drawn = [line for line in marks if line.get_linestyle() == "None"]
    assert sum(len(line.get_xdata()) for line in drawn) == 3 * len(LINES)
    assert {line.get_markevery() for line in drawn} == {1}
    assert len(RATES) == 21
    assert re.search(r"RVPO k=2 0\.000 at 0\.01", alone.description)


def test_the_command_draws_from_the_runs_of_one_method(tmp_path, capsys):
    record = cell("gdpo")
    record.rollouts = run().rollouts
    suite = write_suite(tmp_path / "suite", [record])
    assert main(["gains", str(suite), "--out", str(tmp_path / "gains.svg")]) == 0
    assert "<svg" in (tmp_path / "gains.svg").read_text()
    assert main(["gains", "--out", str(tmp_path / "model.png")]) == 0
    assert (tmp_path / "model.png").read_bytes()[1:4] == b"PNG"
    with pytest.raises(ConfigError, match="no runs of rvpo on rubric"):
        main(["gains", str(suite), "--method", "rvpo", "--out", str(tmp_path / "none.svg")])
    assert str(tmp_path / "gains.svg") in capsys.readouterr().out


def test_whatever_the_group_size_channels_and_k_the_forms_lean_to_opposite_sides():
    rows = [[cell.strip() for cell in line.split("|")[2:-1]] for line in gains_table().splitlines()[2:]]
    assert len(rows) == len(SHAPES)
    for row in rows:
        rare, _, common, policy_rare, _, policy_common = map(float, row)
        assert rare < 0.5 < 1 < common
        assert policy_common < 1 < policy_rare
