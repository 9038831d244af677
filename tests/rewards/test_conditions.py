"""Rewards that count only if another one is met: what is read, by hand, chains, missing values, rubrics, errors.

What a condition would have made of a log is audited as if its rewards had been conditioned before they were logged.
"""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rvpo import Channel, scalar_reward, vector_reward
from rvpo.audit import Groups, audit_groups, audit_log
from rvpo.cli.audit import main
from rvpo.errors import ConfigError
from rvpo.rewards.channels import Returned, assemble
from rvpo.rewards.conditions import Condition, Rule, apply_rules, in_order, read_condition, read_rule
from rvpo.rewards.declarations import Declaration, declaration

NAN = math.nan


PLAIN = Channel("")


def scalar(name, values, template=PLAIN):
    return Returned(name, Declaration(template=template, is_vector=False), 1.0, values)


def vector(*channels, rows):
    return Returned("graded", Declaration(channels), 1.0, rows)


def rules(**texts):
    return {name: read_rule(text) for name, text in texts.items()}


# --- What is read ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("correct >= 1", Condition("correct", ">=", 1.0)),
        ("correct>=1", Condition("correct", ">=", 1.0)),
        ("  tool/format  ==  -.5e1 ", Condition("tool/format", "==", -5.0)),
        ("two words != 2.", Condition("two words", "!=", 2.0)),
        ("a < 3", Condition("a", "<", 3.0)),
        ("a <= +3", Condition("a", "<=", 3.0)),
        ("a > 0", Condition("a", ">", 0.0)),
        ("richtig, größer >= 1", Condition("richtig, größer", ">=", 1.0)),
    ],
)
def test_conditions_are_name_operator_number(text, expected):
    assert read_condition(text) == expected
    assert read_rule(text) == Rule(expected, 0.0)
    assert read_rule(str(read_rule(text))) == Rule(expected, 0.0)


@pytest.mark.parametrize(
    "text",
    [
        *("", "correct", "correct >=", ">= 1", " >= 1", "correct >= one", "correct >= nan", "correct >= 1e999"),
        *("correct => 1", "1 <= correct", "correct >= 1 and style > 0", "correct = 1", "correct >= 1 > 0"),
        *("correct >= 1 else", "correct >= 1 else 0 else 0", "correct >= 1 else nan", "else 0"),
        *(None, 1, True, ["correct >= 1"]),
    ],
)
def test_anything_else_is_an_error_that_shows_the_form(text):
    with pytest.raises(ConfigError, match=r"a condition is written NAME OP NUMBER, with one of >= <= == != > <"):
        read_rule(text)


def test_nothing_in_a_condition_is_evaluated(tmp_path):
    file = tmp_path / "made"
    condition = read_condition(f"open({str(file)!r}, 'w') >= 1")
    assert condition.channel.startswith("open(")
    assert not file.exists()


def test_a_long_text_is_read_in_one_pass():
    with pytest.raises(ConfigError):
        read_rule("a " * 20000 + "> " * 20000)  # a cubic search would take days


def test_what_counts_otherwise():
    assert read_rule("a >= 1 else -2.5").otherwise == -2.5
    assert math.isnan(read_rule("a >= 1 else missing").otherwise)
    assert str(read_rule("a>=1 else missing")) == "a >= 1 else missing"


@pytest.mark.parametrize(
    ("operator", "holds"),
    [
        (">=", [False, True, True]),
        (">", [False, False, True]),
        ("<=", [True, True, False]),
        ("<", [True, False, False]),
        ("==", [False, True, False]),
        ("!=", [True, False, True]),
    ],
)
def test_operators_at_their_bound(operator, holds):
    values = np.array([0.5, 0.75, 1.0])
    assert Condition("a", operator, 0.75).holds(values).tolist() == holds


def test_a_reward_that_was_gathered_as_float32_meets_its_own_value():
    gathered = np.array([0.7, 0.1], dtype=np.float32).astype(np.float64)
    assert gathered[0] < 0.7
    assert Condition("a", ">=", 0.7).holds(gathered).tolist() == [True, False]
    assert Condition("a", "==", 0.1).holds(gathered).tolist() == [False, True]


# --- By hand --------------------------------------------------------------------------------------------------


def test_a_channel_counts_only_where_the_other_is_met():
    matrix = assemble(
        [
            vector(
                Channel("correct"),
                Channel("style", only_if="correct >= 1"),
                rows=[
                    {"correct": c, "style": s} for c, s in [(1.0, 0.5), (0.0, 0.5), (NAN, 0.5), (1.0, NAN), (0.5, NAN)]
                ],
            )
        ],
        5,
    )
    # Met; not met; not known; met, but no value; not met, and no value: missing stays missing.
    np.testing.assert_array_equal(matrix.values[:, 1], [0.5, 0.0, NAN, NAN, NAN])
    np.testing.assert_array_equal(matrix.values[:, 0], [1.0, 0.0, NAN, 1.0, 0.5])
    np.testing.assert_array_equal(matrix.columns["style"], [0.5, 0.0, NAN, NAN, NAN])
    assert matrix.unmet == {"style": 0.5}


@pytest.mark.parametrize(("otherwise", "value"), [(0.0, 0.0), (-1.0, -1.0), (None, NAN)])
def test_what_an_unmet_condition_gives_is_a_choice(otherwise, value):
    style = Channel("style", (-1, 1), only_if="correct >= 1", otherwise=otherwise)
    matrix = assemble([vector(Channel("correct"), style, rows=[{"correct": 0.0, "style": 1.0}])], 1)
    np.testing.assert_array_equal(matrix.values, [[0.0, value]])


def test_conditions_chain_in_whatever_order_channels_stand():
    chain = [Channel("c", only_if="b >= 1"), Channel("b", only_if="a >= 1"), Channel("a")]
    rows = [{"a": a, "b": b, "c": 1.0} for a, b in [(1, 1), (0, 1), (1, 0), (0, 0)]]
    matrix = assemble([vector(*chain, rows=rows)], 4)
    np.testing.assert_array_equal(matrix.values, [[1, 1, 1], [0, 0, 0], [0, 0, 1], [0, 0, 0]])
    assert matrix.unmet == {"b": 0.5, "c": 0.75}


def test_a_chain_through_a_missing_link_is_missing():
    chain = [Channel("a"), Channel("b", only_if="a >= 1", otherwise=None), Channel("c", only_if="b >= 1")]
    matrix = assemble([vector(*chain, rows=[{"a": 0.0, "b": 1.0, "c": 1.0}])], 1)
    np.testing.assert_array_equal(matrix.values, [[0.0, NAN, NAN]])
    assert math.isnan(matrix.unmet["c"])


def test_conditions_go_across_reward_functions():
    matrix = assemble(
        [scalar("short", [1.0, 1.0], Channel("", only_if="right > 0")), scalar("right", [0.5, 0.0])],
        2,
    )
    np.testing.assert_array_equal(matrix.values, [[1.0, 0.5], [0.0, 0.0]])
    assert matrix.columns == {"short": [1.0, 0.0], "right": [0.5, 0.0]}


def test_a_condition_is_of_the_reward_as_it_was_returned_also_of_a_penalty():
    # `long` has a negative weight: it is turned round after its condition, and that of the other, were looked at.
    penalty = Returned(
        "long", Declaration(template=Channel("", (0, 9), only_if="right > 0"), is_vector=False), -1.0, [4.0, 8.0]
    )
    short = scalar("short", [1.0, 1.0], Channel("", only_if="long > 3"))
    matrix = assemble([penalty, short, scalar("right", [1.0, 0.0])], 2)
    np.testing.assert_array_equal(matrix.values, [[-4.0, 1.0, 1.0], [0.0, 0.0, 0.0]])


def test_the_configuration_comes_before_the_declaration():
    rewards = [scalar("short", [1.0, 1.0], Channel("", only_if="right > 0")), scalar("right", [0.5, 0.0])]
    matrix = assemble(rewards, 2, rules=rules(short="right < 0.25 else 0.5"))
    np.testing.assert_array_equal(matrix.values[:, 0], [0.5, 1.0])


def test_a_rubrics_condition_is_that_of_all_its_criteria_but_for_a_tags_own():
    rows = [
        {"accuracy/x": 1.0, "style/y": 0.5},
        {"accuracy/x": 1.0, "style/y": 0.5},
        {"style/z": 0.5},
        {"style/z": 0.5},
    ]
    rubric = Returned("rubric", Declaration(template=Channel("", (0, 1), only_if="short == 1")), 1.0, rows)
    short = scalar("short", [1.0, 0.0, 1.0, 0.0])
    matrix = assemble([rubric, short], 2, rules=rules(**{"rubric/style": "short == 0"}))
    # A criterion that the second prompt lacks stays absent: nothing fills it.
    np.testing.assert_array_equal(matrix.values[:, :2], [[1.0, 0.0], [0.0, 0.5], [0.0, NAN], [0.5, NAN]])
    shown = [
        {"accuracy/x": 1.0, "style/y": 0.0},
        {"accuracy/x": 0.0, "style/y": 0.5},
        {"style/z": 0.0},
        {"style/z": 0.5},
    ]
    assert matrix.columns["rubric"] == shown
    assert matrix.unmet == {"rubric/accuracy": 0.5, "rubric/style": 0.5}


def test_a_tag_of_one_criterion_can_be_a_condition_and_is_missing_where_a_prompt_lacks_it():
    rows = [{"accuracy/x": 1.0}, {"accuracy/x": 0.0}, {"style/z": 0.5}, {"style/z": 0.5}]
    rubric = Returned("rubric", Declaration(), 1.0, rows)
    short = scalar("short", [1.0] * 4, Channel("", only_if="rubric/accuracy >= 1"))
    np.testing.assert_array_equal(assemble([rubric, short], 2).values[:, -1], [1.0, 0.0, NAN, NAN])
    absent = assemble([rubric, scalar("short", [1.0] * 4)], 2, rules=rules(short="rubric/depth >= 1"))
    assert np.isnan(absent.values[:, -1]).all()
    unchanged = assemble([rubric, scalar("short", [1.0] * 4)], 2, rules=rules(**{"rubric/depth": "short >= 1"}))
    np.testing.assert_array_equal(unchanged.values[:, -1], [1.0] * 4)


# --- Properties -----------------------------------------------------------------------------------------------


@given(st.integers(0, 10**6))
def test_rules_are_a_plain_loop_and_applying_them_again_changes_nothing(seed):
    rng = np.random.default_rng(seed)
    names = [str(name) for name in rng.permutation(list("abcd"))]
    values = rng.choice([0.0, 0.5, 1.0, NAN], size=(6, 4))
    chosen = {
        name: Rule(
            Condition(names[int(rng.integers(place))], str(rng.choice([">=", "<"])), 0.5),
            float(rng.choice([0.0, 1.0, NAN])),
        )
        for place, name in enumerate(names)
        if place and rng.random() < 0.7
    }
    labels = np.tile(np.arange(4), (6, 1))
    ours = apply_rules(values, labels, names, chosen)
    expected = values.copy()
    for row in expected:
        for place, name in enumerate(names):  # a condition is always on an earlier channel
            if name in chosen:
                (other, operator, bound), otherwise = chosen[name]
                known = row[names.index(other)]
                holds = known >= bound if operator == ">=" else known < bound
                is_missing = math.isnan(known) or math.isnan(row[place])
                row[place] = NAN if is_missing else row[place] if holds else otherwise
    np.testing.assert_array_equal(ours.values, expected)
    np.testing.assert_array_equal(apply_rules(ours.values, labels, names, chosen).values, expected)


# --- Errors ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("texts", "circle"),
    [
        ({"a": "a >= 1"}, "'a' -> 'a'"),
        ({"a": "b >= 1", "b": "c >= 1", "c": "a >= 1"}, "'a' -> 'b' -> 'c' -> 'a'"),
    ],
)
def test_a_circle_is_an_error_that_shows_it(texts, circle):
    with pytest.raises(ConfigError, match="conditions go in a circle: ") as error:
        in_order(rules(**texts))
    turns = circle.split(" -> ")[:-1]
    shown = str(error.value).split(": ")[1].split(";")[0].split(" -> ")
    assert shown[0] == shown[-1]
    first = turns.index(shown[0])
    assert shown[:-1] == turns[first:] + turns[:first]


def test_a_circle_in_a_declaration_is_an_error_where_it_is_declared():
    with pytest.raises(ConfigError, match="in a circle"):
        vector_reward(Channel("a", only_if="b > 0"), Channel("b", only_if="a > 0"))
    with pytest.raises(ConfigError, match="in a circle"):
        Channel("a", only_if="a > 0")


def test_a_value_outside_the_range_is_an_error_where_it_is_declared():
    with pytest.raises(ConfigError, match=r"channel 'a' is 0 unless b > 0, but its range is \[1, 5\]"):
        Channel("a", (1, 5), only_if="b > 0")
    assert Channel("a", (1, 5), only_if="b > 0", otherwise=None).rules["a"].condition == Condition("b", ">", 0.0)
    with pytest.raises(ConfigError, match=r"channel 'short' is 0 unless"):
        assemble([scalar("short", [1.0], Channel("", (1, 5))), scalar("b", [1.0])], 1, rules=rules(short="b > 0"))


@pytest.mark.parametrize("texts", [{"styel": "correct >= 1"}, {"style": "corect >= 1"}])
def test_an_unknown_channel_is_an_error_with_those_that_exist(texts):
    with pytest.raises(
        ConfigError, match=r"names channel '(styel|corect)', but the channels are \['correct', 'style'\]"
    ):
        assemble([scalar("style", [1.0]), scalar("correct", [1.0])], 1, rules=rules(**texts))


def test_a_condition_on_several_criteria_is_an_error():
    rubric = Returned("rubric", Declaration(), 1.0, [{"accuracy/x": 1.0, "accuracy/y": 0.0}])
    with pytest.raises(ConfigError, match="rubric/accuracy >= 1 is of a channel with several values for one answer"):
        assemble([rubric, scalar("short", [1.0])], 1, rules=rules(short="rubric/accuracy >= 1"))


def test_both_decorators_declare_conditions():
    def reward(completions):
        return []

    declared = declaration(scalar_reward(range=(0, 1), only_if="a > 0", otherwise=None)(reward))
    assert declared.template == Channel("", (0, 1), 1.0, "a > 0", None)
    declared = declaration(vector_reward("x", Channel("y"), only_if="a > 0", otherwise=0.5)(reward))
    assert declared.channels == (Channel("x", None, 1.0, "a > 0", 0.5), Channel("y"))


# --- Logs ---


QUICK = {"methods": ["gdpo", "rvpo_policy"], "ks": [2.0], "draws": 50}


def logged(seed=0, prompts=40):
    """(P, 6, 2): a hard reward, and an easy one that is mostly collected without it; one in ten is missing."""
    rng = np.random.default_rng(seed)
    values = np.stack([rng.random((prompts, 6)) < 0.3, rng.random((prompts, 6)) < 0.8], axis=2).astype(float)
    values[rng.random(values.shape) < 0.1] = np.nan
    return values


def conditioned(values, otherwise=0.0):
    hard, easy = values[..., 0], values[..., 1]
    easy = np.where(np.isnan(hard + easy), np.nan, np.where(hard >= 1, easy, otherwise))  # missing stays missing
    return np.stack([hard, easy], axis=2)


@pytest.mark.parametrize(("text", "otherwise"), [("hard >= 1", 0.0), ("hard >= 1 else missing", np.nan)])
@pytest.mark.parametrize("once", [False, True])
def test_the_audit_is_that_of_conditioned_rewards(text, otherwise, once):
    values = logged()
    blocks = [Groups(values[:15]), Groups(values[15:])]
    result = audit_groups(blocks if once else lambda: blocks, ["hard", "easy"], conditions={"easy": text}, **QUICK)
    expected = audit_groups([Groups(conditioned(values, otherwise))], ["hard", "easy"], **QUICK)
    for ours, theirs in zip(result.channels, expected.channels, strict=True):
        assert ours.mean.value == pytest.approx(theirs.mean.value)
        for signal in ("gdpo", "rvpo_policy k=2"):
            assert ours.forecasts[signal].change.value == pytest.approx(theirs.forecasts[signal].change.value)
    known = values[..., 0][~np.isnan(values[..., 0])]
    assert result.reading[-1].startswith(f"easy only if {text}")
    assert result.reading[-1].endswith(f"not met by {100 * (known < 1).mean():.0f} % of the rollouts")


def test_a_log_is_read_twice_with_the_condition_applied_each_time(monkeypatch):
    monkeypatch.setattr("rvpo.audit.analysis.KEPT_BYTES", 0)
    values = logged()
    result = audit_groups(lambda: [Groups(values)], ["hard", "easy"], conditions={"easy": "hard >= 1"}, **QUICK)
    expected = audit_groups([Groups(conditioned(values))], ["hard", "easy"], **QUICK)
    assert result.channel("easy").mean.value == pytest.approx(expected.channel("easy").mean.value)


def write_log(file, values):
    lines = ["step,prompt,hard,easy"]
    for prompt, group in enumerate(values):
        lines += [f"{prompt % 4},p{prompt},{hard},{easy}".replace("nan", "") for hard, easy in group]
    file.write_text("\n".join(lines) + "\n")
    return str(file)


def test_the_command_shows_the_log_beside_what_the_condition_makes_of_it(tmp_path, capsys):
    log = write_log(tmp_path / "log.csv", logged())
    assert main([log, "--methods", "gdpo", "--only-if", "easy=hard >= 1"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "easy only if hard >= 1 else 0: not met by" in out
    assert "Against the log without the condition: " in out
    plain = audit_log(log, methods=["gdpo"]).channel("easy").mean.value
    made = audit_log(log, methods=["gdpo"], conditions={"easy": "hard >= 1"}).channel("easy").mean.value
    assert made < plain - 0.3
    (row,) = [line for line in out.split(" easy ")[1:] if line.startswith(f"{made:.2f} {plain:.2f} ")]
    assert row


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("easy", "--only-if takes NAME=CONDITION"),
        ("easy=hard", "a condition is written NAME OP NUMBER"),
        ("easy=easy >= 1", "in a circle"),
        ("esay=hard >= 1", "unknown channel 'esay': did you mean 'easy'"),
        ("easy=herd >= 1", "unknown channel 'herd': did you mean 'hard'"),
    ],
)
def test_a_condition_that_cannot_be_applied_is_an_error(tmp_path, option, message):
    with pytest.raises(ConfigError, match=message):
        main([write_log(tmp_path / "log.csv", logged()), "--only-if", option])
