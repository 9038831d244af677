"""What rewards declare, which returns are refused, and how several of them become one matrix."""

import math

import numpy as np
import pytest

from rvpo import Channel, RewardError, scalar_reward, vector_reward
from rvpo.rewards.channels import Returned, assemble, check_rows, check_scalars
from rvpo.rewards.declarations import Declaration, declaration

NAN = math.nan


def nothing(completions, **kwargs):
    return []


def scalar(name, values, *, weight=1.0, range=None, own_weight=1.0):
    return Returned(name, Declaration(template=Channel("", range, own_weight), is_vector=False), weight, values)


def vector(name, channels, rows, *, weight=1.0):
    return Returned(name, Declaration(tuple(channels)), weight, rows)


def rubric(name, rows, *, weight=1.0, range=None, own_weight=1.0):
    return Returned(name, Declaration(template=Channel("", range, own_weight)), weight, rows)


# --- What a scalar reward returns ---


@pytest.mark.parametrize(
    "returned",
    [[1.0, None], (True, NAN), np.array([1.0, NAN]), iter([np.float32(1), None]), range(1, 3)],
    ids=["list", "tuple", "array", "iterator", "range"],
)
def test_a_scalar_reward_returns_a_number_or_nothing_for_each_completion(returned):
    values = check_scalars(returned, "f", 2)
    assert values[0] == 1.0
    assert math.isnan(values[1]) or values[1] == 2.0


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ([1.0], "reward 'f' must return 2 values, one a completion; got 1"),
        ([1.0] * 3, "must return 2 values, one a completion; got 3"),
        (1.0, "must return 2 values, one a completion; got float"),
        (None, "must return 2 values, one a completion; got NoneType"),
        ("ab", "must return 2 values, one a completion; got str"),
        ({1.0, 2.0}, "must return 2 values, one a completion; got set"),  # which value is whose?
        ({"a": 1.0, "b": 2.0}, "must return 2 values, one a completion; got dict"),
        ([1.0, "good"], "reward 'f', completion 1 returned 'good'; a reward is a number, or None for 'no value'"),
        ([1.0, math.inf], "reward 'f', completion 1 is infinite; return None or NaN for 'no value'"),
        (
            [{"a": 1.0}, 1.0],
            "completion 0 returned {'a': 1.0}, several values: declare its channels with @rvpo.vector",
        ),
        (
            [1.0, [0.5, 1.0]],
            "completion 1 returned [0.5, 1.0], several values: declare its channels with @rvpo.vector",
        ),
    ],
    ids=str,
)
def test_what_a_scalar_reward_must_not_return_is_named(returned, message):
    with pytest.raises(RewardError) as error:
        check_scalars(returned, "f", 2)
    assert message in str(error.value)


def test_a_negative_weight_turns_a_reward_round_and_the_table_shows_it_as_it_was():
    matrix = assemble([scalar("right", [0.5, 1.0]), scalar("long", [10.0, NAN], range=(0, 40), weight=-0.5)], 2)
    np.testing.assert_array_equal(matrix.values, [[0.5, -10.0], [1.0, NAN]])
    assert matrix.weights.tolist() == [1.0, 0.5]
    assert matrix.ranges.tolist() == [[0.0, 1.0], [-40.0, 0.0]]
    assert matrix.penalties == {"long"}
    assert matrix.columns["long"][0] == 10.0


# --- Declarations ---


def test_a_function_that_declares_nothing_is_a_scalar_reward():
    assert declaration(nothing) == Declaration(channels=(), template=Channel("", None, 1.0), is_vector=False)


def test_a_scalar_reward_declares_range_and_weight_and_stays_the_same_function():
    def reward(completions):
        return [1.0]

    declared = scalar_reward(range=(-3, 3), weight=0.5)(reward)
    assert declared is reward
    assert declaration(reward) == Declaration((), Channel("", (-3, 3), 0.5), is_vector=False)


def test_a_vector_reward_gives_names_range_and_weight_and_channels_a_range_if_they_have_none():
    own = Channel("concise", range=(0, 10), weight=2.0)

    @vector_reward("correct", own, Channel("kind", weight=3.0), range=(0, 1), weight=0.5)
    def graded(completions):
        return []

    named = (Channel("correct", (0, 1), 0.5), own, Channel("kind", (0, 1), 3.0))
    assert declaration(graded) == Declaration(named, Channel("", (0, 1), 0.5), True)


@pytest.mark.parametrize("decorator", [scalar_reward, vector_reward])
def test_a_reward_sees_rollouts_unless_it_asks_for_groups(decorator):
    assert declaration(nothing).scope == declaration(decorator()(lambda completions: [])).scope == "rollout"
    assert declaration(decorator(scope="group")(lambda completions: [])).scope == "group"
    with pytest.raises(RewardError, match="scope must be 'rollout' or 'group', got 'prompt'"):
        decorator(scope="prompt")


def test_a_vector_reward_without_names_is_a_rubric():
    declared = declaration(vector_reward(range=(0, 1))(lambda completions: []))
    assert declared == Declaration((), Channel("", (0, 1), 1.0), is_vector=True)


def test_a_class_and_its_objects_and_methods_declare():
    @vector_reward("a")
    class Judge:
        def __call__(self, completions):
            return []

        @vector_reward("b", "c")
        def other(self, completions):
            return []

    assert [channel.name for channel in declaration(Judge()).channels] == ["a"]
    assert [channel.name for channel in declaration(Judge().other).channels] == ["b", "c"]


def test_two_channels_of_one_name_cannot_be_declared():
    with pytest.raises(RewardError, match=r"channel names must differ, got \['a', 'b', 'a'\]"):
        vector_reward("a", "b", Channel("a"))


def test_an_attribute_of_another_kind_is_no_declaration():
    def reward(completions):
        return []

    reward.rvpo_declaration = "vector"
    assert declaration(reward).is_vector is False


# --- Rows of a vector reward ---

TWO = Declaration((Channel("a"), Channel("b")))
RUBRIC = Declaration()


@pytest.mark.parametrize(("declared", "empty"), [(TWO, [[1, 2], None]), (RUBRIC, [{"a": 1, "b": 2}, NAN])])
def test_no_row_for_a_completion_is_no_value_of_any_channel(declared, empty):
    assert check_rows(empty, "f", declared, 2) == [{"a": 1.0, "b": 2.0}, {}]


def same(rows, expected):
    """The rows are equal, NaN included."""
    assert [list(row) for row in rows] == [list(row) for row in expected]
    for row, other in zip(rows, expected, strict=True):
        np.testing.assert_array_equal(list(row.values()), list(other.values()))


def test_sequences_and_mappings_become_rows_and_none_becomes_nan():
    returned = [[1, None], (0.5, NAN), {"b": 2.0}, {"b": None, "a": True}, {}]
    same(
        check_rows(returned, "f", TWO, 5),
        [{"a": 1.0, "b": NAN}, {"a": 0.5, "b": NAN}, {"b": 2.0}, {"b": NAN, "a": 1.0}, {}],
    )


def test_a_rubrics_rows_keep_their_own_names():
    returned = [{"x/1": 1}, {"y": None, "x/2": 0.25}, {}]
    same(check_rows(returned, "f", RUBRIC, 3), [{"x/1": 1.0}, {"y": NAN, "x/2": 0.25}, {}])


@pytest.mark.parametrize(
    "returned",
    [[[np.float32(0.5), np.int64(2)]], np.array([[0.5, 2.0]]), [np.array([0.5, 2.0])], [{"a": np.array(0.5), "b": 2}]],
    ids=["numbers", "matrix", "rows", "in a mapping"],
)
def test_arrays_are_rows_and_numbers(returned):
    same(check_rows(returned, "f", TWO, 1), [{"a": 0.5, "b": 2.0}])


def test_an_array_of_the_wrong_shape_is_refused():
    with pytest.raises(RewardError, match="must return 2 rows"):
        check_rows(np.zeros((3, 2)), "f", TWO, 2)
    with pytest.raises(RewardError, match="for the 2 channels"):
        check_rows(np.zeros((2, 3)), "f", TWO, 2)


@pytest.mark.parametrize(
    ("returned", "declared", "message"),
    [
        ([[1, 2]], TWO, "vector reward 'f' must return 2 rows, one a completion; got 1"),
        ([[1, 2]] * 3, TWO, "must return 2 rows, one a completion; got 3"),
        (None, TWO, "must return 2 rows, one a completion; got NoneType"),
        (3.0, TWO, "must return 2 rows, one a completion; got float"),
        ([[1, 2], [1, 2, 3]], TWO, "completion 1 returned [1, 2, 3] for the 2 channels ['a', 'b']"),
        ([[1, 2], [1]], TWO, "completion 1 returned [1] for the 2 channels ['a', 'b']"),
        ([1.0, 2.0], TWO, "completion 0 returned 1.0 for the 2 channels ['a', 'b']"),
        ([{"a": 1}, {"c": 1, "a": 2}], TWO, "completion 1 returned channels ['c'] that are not among the declared"),
        ([{"x": 1}, [1]], RUBRIC, "completion 1 returned list; without declared names a row is a mapping"),
        ([{"x": 1}, "x"], RUBRIC, "completion 1 returned str; without declared names a row is a mapping"),
        ({"a": 1, "b": 2}, TWO, "must return 2 rows, one a completion; got dict"),
        ([[1, 2], [1, 10**400]], TWO, "completion 1, channel 'b' returned 1000"),
        (
            [{"x": 1}, {"x": "good"}],
            RUBRIC,
            "completion 1, channel 'x' returned 'good'; a reward is a number, or None",
        ),
        ([[1, 2], [1, [2]]], TWO, "completion 1, channel 'b' returned [2]; a reward is a number, or None"),
        ([[1, 2], [1, "2"]], TWO, "completion 1, channel 'b' returned '2'; a reward is a number, or None"),
        ([[1, math.inf], [1, 2]], TWO, "completion 0, channel 'b' returned inf; return None for 'no value'"),
        ([[1, 2], [-math.inf, 2]], TWO, "completion 1, channel 'a' returned -inf; return None for 'no value'"),
    ],
)
def test_what_a_vector_reward_must_not_return_is_named(returned, declared, message):
    with pytest.raises(RewardError) as error:
        check_rows(returned, "f", declared, 2)
    assert message in str(error.value)


# --- Assembling ---


def test_scalars_vectors_and_rubrics_stand_side_by_side():
    matrix = assemble(
        [
            scalar("format", [1.0, NAN, 0.0, 1.0]),
            vector("graded", [Channel("a"), Channel("b")], [{"a": 1.0, "b": 2.0}, {"b": 3.0}, {"a": NAN}, {}]),
            rubric("rubric", [{"x": 1.0}, {"y": 0.0, "x": 0.5}, {"z/1": 1.0, "z/2": 0.0, "q": NAN}, {}]),
        ],
        2,
    )
    np.testing.assert_array_equal(
        matrix.values,
        [
            [1, 1, 2, 1, NAN, NAN],
            [NAN, NAN, 3, 0.5, 0, NAN],
            [0, NAN, NAN, 1, 0, NAN],
            [1, NAN, NAN, NAN, NAN, NAN],
        ],
    )
    assert matrix.names == ["format", "a", "b", "rubric", "rubric/z"]
    np.testing.assert_array_equal(matrix.labels, [[0, 1, 2, 3, 3, -1], [0, 1, 2, 4, 4, 3]])
    np.testing.assert_array_equal(matrix.weights, np.ones(6))
    np.testing.assert_array_equal(matrix.ranges, [[0, 1]] * 6)


def test_a_rubrics_columns_are_those_its_prompts_rollouts_name_in_that_order():
    matrix = assemble([rubric("r", [{"b": 1.0}, {"a": 2.0, "b": 3.0}, {"a": 4.0}, {"c": 5.0}])], 2)
    np.testing.assert_array_equal(matrix.values, [[1, NAN], [3, 2], [4, NAN], [NAN, 5]])


def test_a_prompt_without_criteria_has_no_labels():
    matrix = assemble([scalar("s", [1.0, 2.0]), rubric("r", [{}, {"a": 1.0}])], 1)
    np.testing.assert_array_equal(matrix.labels, [[0, -1], [0, 1]])
    np.testing.assert_array_equal(matrix.values, [[1, NAN], [2, 1]])


@pytest.mark.parametrize(
    ("criterion", "label"),
    [("polite", "judge"), ("tone/polite", "judge/tone"), ("tone/polite/very", "judge/tone")],
)
def test_the_tag_is_what_stands_before_the_first_slash(criterion, label):
    assert assemble([rubric("judge", [{criterion: 1.0}])], 1).names == [label]


def test_two_rubrics_do_not_share_a_tag():
    matrix = assemble([rubric("one", [{"a/x": 1.0}]), rubric("two", [{"a/x": 2.0}])], 1)
    assert matrix.names == ["one/a", "two/a"]
    np.testing.assert_array_equal(matrix.labels, [[0, 1]])


def test_weights_of_function_and_channel_multiply():
    matrix = assemble(
        [
            scalar("s", [1.0], weight=0.5, own_weight=4.0),
            vector("v", [Channel("a", weight=3.0), Channel("b")], [{"a": 1.0, "b": 1.0}], weight=2.0),
            rubric("r", [{"x": 1.0, "y": 1.0}], weight=0.25, own_weight=2.0),
        ],
        1,
    )
    np.testing.assert_array_equal(matrix.weights, [2.0, 6.0, 2.0, 0.5, 0.5])


def test_configured_weights_and_ranges_take_the_place_of_declared_ones():
    matrix = assemble(
        [
            scalar("s", [5.0], weight=0.5, own_weight=4.0, range=(0, 1)),
            vector("v", [Channel("a", (0, 1), 3.0), Channel("b", (0, 2))], [{"a": -1.0, "b": 1.0}]),
            rubric("r", [{"x/1": 7.0, "y": 1.0}], range=(0, 1)),
        ],
        1,
        ranges={"s": (0, 10), "a": [-1, 1], "r": (0, 8)},
        weights={"s": 3.0, "a": 0.0, "r": 0.5},
    )
    np.testing.assert_array_equal(matrix.weights, [1.5, 0.0, 1.0, 0.5, 0.5])
    np.testing.assert_array_equal(matrix.ranges, [[0, 10], [-1, 1], [0, 2], [0, 8], [0, 8]])


def test_tags_have_weights_of_their_own_times_that_of_their_function():
    rows = [{"a/x": 1.0, "b/y": 0.0}, {"b/z": 1.0, "c/u": 1.0}]
    rewards = [rubric("judged", rows, weight=0.5, own_weight=3.0), scalar("short", [1.0, 0.0], weight=2.0)]
    matrix = assemble(rewards, 1, weights={"judged/b": 4.0, "short": 0.25, "judged/absent": 9.0})
    # a and c keep the rubric's 3; b is the second criterion of one prompt and the first of the other.
    np.testing.assert_array_equal(matrix.weights, [[1.5, 2.0, 0.5], [2.0, 1.5, 0.5]])
    whole = assemble(rewards, 1, weights={"judged/b": 4.0, "judged": 1.0})
    np.testing.assert_array_equal(whole.weights, [[0.5, 2.0, 2.0], [2.0, 0.5, 2.0]])
    absent = assemble(rewards, 1, weights={"judged/absent": 9.0})
    np.testing.assert_array_equal(absent.weights, [1.5, 1.5, 2.0])


def test_tags_of_a_penalty_are_turned_round_with_their_weights():
    rows = [{"a/x": 1.0, "b/y": 0.5}, {"b/z": 1.0, "c/u": 1.0}]
    matrix = assemble([rubric("judged", rows, weight=-2.0)], 1, weights={"judged/b": 4.0})
    np.testing.assert_array_equal(matrix.weights, [[2.0, 8.0], [8.0, 2.0]])
    np.testing.assert_array_equal(matrix.values, [[-1.0, -0.5], [-1.0, -1.0]])


def test_columns_are_the_channels_and_the_rubrics_rows():
    rows = [{"x": 1.0}, {"y": NAN}]
    matrix = assemble(
        [scalar("s", [1.0, NAN]), vector("v", [Channel("a")], [{"a": 0.5}, {}]), rubric("r", rows)],
        2,
    )
    assert list(matrix.columns) == ["s", "a", "r"]
    np.testing.assert_array_equal(matrix.columns["s"], [1.0, NAN])
    np.testing.assert_array_equal(matrix.columns["a"], [0.5, NAN])
    assert matrix.columns["r"][0] == {"x": 1.0}
    assert list(matrix.columns["r"][1]) == ["y"]


@pytest.mark.parametrize(
    ("value", "outside"),
    [(0.0, False), (1.0, False), (1.0 + 1e-7, False), (-1e-7, False), (1.001, True), (-0.001, True), (NAN, False)],
)
def test_a_value_outside_its_declared_range_is_named(value, outside):
    rewards = [
        scalar("s", [0.5, value], range=(0, 1)),
        vector("v", [Channel("a", (0, 1))], [{"a": 0.5}, {"a": value}]),
        rubric("r", [{"x": 0.5}, {"x": value}], range=(0, 1)),
    ]
    for reward, name in zip(rewards, ["s", "a", "r"], strict=True):
        if outside:
            message = rf"of channel '{name}', completion 1 of the batch, lies outside its declared range \[0.0, 1.0\]"
            with pytest.raises(RewardError, match=message):
                assemble([reward], 1)
        else:
            np.testing.assert_array_equal(assemble([reward], 1).values, [[0.5], [value]])


@pytest.mark.parametrize(
    "rewards",
    [
        [scalar("a", [1.0]), scalar("a", [2.0])],
        [scalar("a", [1.0]), vector("v", [Channel("a")], [{"a": 1.0}])],
        [vector("v", [Channel("a")], [{"a": 1.0}]), vector("w", [Channel("a")], [{"a": 1.0}])],
        [scalar("a", [1.0]), rubric("a", [{"x": 1.0}])],
        [rubric("a", [{"x": 1.0}]), rubric("a", [{"y": 1.0}])],
    ],
    ids=["scalars", "scalar and vector", "vectors", "scalar and rubric", "rubrics"],
)
def test_two_channels_of_one_name_are_refused(rewards):
    with pytest.raises(RewardError, match=r"several reward channels are named \['a'\]; rename one"):
        assemble(rewards, 1)


@pytest.mark.parametrize("option", ["ranges", "weights"])
def test_a_range_or_weight_of_no_channel_is_refused(option):
    rewards = [scalar("s", [1.0]), vector("v", [Channel("a")], [{"a": 1.0}]), rubric("r", [{"t/x": 1.0}])]
    given = {"ranges": (0, 1), "weights": 1.0}[option]
    assemble(rewards, 1, **{option: dict.fromkeys(["s", "a", "r"], given)})
    with pytest.raises(RewardError, match=r"name \['v'\], but the channels are \['a', 'r', 's'\]"):
        assemble(rewards, 1, **{option: {"v": given, "s": given}})


def test_a_batch_of_empty_rubrics_has_no_column_and_harms_no_other():
    matrix = assemble([scalar("s", [1.0, 2.0]), rubric("r", [{}, {}])], 2)
    np.testing.assert_array_equal(matrix.values, [[1.0], [2.0]])
    assert matrix.names == ["s"]
    assert matrix.labels.tolist() == [[0]]
