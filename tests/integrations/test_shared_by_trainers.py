"""What the trainers share, each by itself: statistics of the batch, targets, and what a checkpoint says of itself."""

import json
import math

import numpy as np
import pytest

from rvpo import METHODS, compute_advantages
from rvpo.errors import ConfigError, RewardError
from rvpo.integrations.batch import ChannelState, batch_options, dual_ascent, unit_targets
from rvpo.integrations.checkpoints import (
    STATE_FILE,
    check_settings,
    load_state,
    newest_whole,
    save_state,
    what_is_broken,
)
from rvpo.integrations.method_config import MethodConfig
from rvpo.rewards.channels import Returned, assemble
from rvpo.rewards.declarations import Channel, Declaration

# --- Methods that weigh channels by the batch: by name or tag, over all rollouts ---


OF_BATCH = [name for name, method in METHODS.items() if method.of_batch]
TAGS = ["a", "b", "c"]
GROUP_SIZE = 4


def rubric_rows(seed):
    """Rows of six prompts with two of three tags each, in an order of their own, some verdicts missing."""
    rng = np.random.default_rng(seed)
    rates = dict(zip(TAGS, (0.2, 0.5, 0.9), strict=True))
    rows = []
    for _ in range(6):
        tags = [TAGS[i] for i in rng.permutation(3)[:2]]
        for _ in range(GROUP_SIZE):
            row = {f"{tag}/criterion": float(rng.random() < rates[tag]) for tag in tags}
            rows.append({name: None if rng.random() < 0.1 else value for name, value in row.items()})
    return rows


def options_of(matrix, method, **config):
    return batch_options(MethodConfig(method=method, **config), matrix, GROUP_SIZE, ChannelState(), move=True)


@pytest.mark.parametrize("method", OF_BATCH)
@pytest.mark.parametrize("seed", range(4))
def test_a_rubric_is_weighed_as_its_tags_side_by_side(method, seed):
    rows = rubric_rows(seed)
    matrix = assemble([Returned("rubric", Declaration(template=Channel("")), 1.0, rows)], GROUP_SIZE)
    side_by_side = [[row.get(f"{tag}/criterion") for tag in TAGS] for row in rows]
    # eps 0: z-scores that are added up in another order then differ by rounding alone.
    ours = compute_advantages(matrix.values, group_size=GROUP_SIZE, **options_of(matrix, method))
    expected = compute_advantages(side_by_side, group_size=GROUP_SIZE, method=method)
    np.testing.assert_allclose(ours.advantages, expected.advantages, atol=1e-12)
    by_column = compute_advantages(matrix.values, group_size=GROUP_SIZE, method=method)
    assert abs(ours.advantages - by_column.advantages).max() > 1e-3


@pytest.mark.parametrize("method", OF_BATCH)
def test_a_channel_of_weight_0_is_in_no_statistic(method):
    rows = rubric_rows(0)
    rubric = Returned("rubric", Declaration(template=Channel("")), 1.0, rows)
    even = Returned("even", Declaration(template=Channel(""), is_vector=False), 0.0, [i % 2 for i in range(len(rows))])
    alone, beside = (assemble(rewards, GROUP_SIZE) for rewards in ([rubric], [even, rubric]))
    expected, ours = (
        compute_advantages(matrix.values, group_size=GROUP_SIZE, **options_of(matrix, method)).advantages
        for matrix in (alone, beside)
    )
    np.testing.assert_allclose(ours, expected, atol=1e-12)


@pytest.mark.parametrize("method", OF_BATCH)
def test_channels_that_all_prompts_share_are_left_to_the_core(method):
    named = Declaration((Channel("x"), Channel("y")))
    rows = [{"x": float(i % 2), "y": float(i % 3 == 0)} for i in range(8)]
    matrix = assemble([Returned("both", named, 1.0, rows)], GROUP_SIZE)
    assert not set(METHODS[method].of_batch) & set(options_of(matrix, method))


def test_a_statistic_of_the_configuration_comes_first():
    matrix = assemble([Returned("rubric", Declaration(template=Channel("")), 1.0, rubric_rows(1))], GROUP_SIZE)
    options = options_of(matrix, "sa_mrpo", method_options={"saturation": [0.25, 0.5]})
    assert options["saturation"] == [0.25, 0.5]


def test_targets_act_on_methods_that_weigh_by_the_batch():
    for method in OF_BATCH:
        MethodConfig(method=method, channel_targets={"x": 0.5}).check_method()


# --- Targets: dual ascent by hand, on the channels' own scales ---


def test_a_step_by_hand():
    before = {"low": 0.2, "met": 0.01, "silent": 0.3, "dropped": 3.0}
    targets = {"low": 0.6, "met": 0.5, "silent": 0.9, "never": 0.9, "new": 0.5}
    means = {"low": 0.35, "met": 0.75, "new": 0.25, "other": 0.0}
    # 0.2 + 0.1 * 0.25; 0.01 - 0.025 is below 0; no mean: as it was, or none; from 0: 0.1 * 0.25.
    expected = {"low": 0.225, "met": 0.0, "silent": 0.3, "new": 0.025}
    assert dual_ascent(before, targets, means, rate=0.1) == pytest.approx(expected)


def test_a_multiplier_rises_below_the_target_and_falls_to_0_above_it():
    multipliers, course = {}, []
    for mean in (0.25, 0.25, 0.75, 0.75, 0.75, 0.25):
        multipliers = dual_ascent(multipliers, {"a": 0.5}, {"a": mean}, rate=0.5)
        course.append(multipliers["a"])
    assert course == [0.125, 0.25, 0.125, 0.0, 0.0, 0.125]


def test_a_target_out_of_reach_stops_at_the_bound():
    assert dual_ascent({"a": 9.9}, {"a": 1.0}, {"a": 0.5}, rate=0.3) == {"a": 10.0}


def matrix(*names, range=(-3.0, 3.0)):
    """A channel `correct` of that range, and a rubric of two prompts with criteria of these names."""
    rewards = [
        Returned("correct", Declaration(template=Channel("", range), is_vector=False), 1.0, [3.0, -3.0]),
        Returned(
            "rubric", Declaration(template=Channel("", (0.0, 2.0))), 1.0, [dict.fromkeys(names, 1.0), {"x/p": 2.0}]
        ),
    ]
    return assemble(rewards, 1)


def test_targets_are_on_the_channels_own_scales():
    # (1.5 + 3) / 6 and 0.5 / 2; x is the first criterion of one prompt and the second of the other.
    targets = unit_targets({"correct": 1.5, "rubric/x": 0.5, "rubric/y": 2.0}, matrix("y/q", "x/r"), {})
    assert targets == {"correct": 0.75, "rubric/x": 0.25, "rubric/y": 1.0}


def test_a_channel_that_does_not_exist_is_an_error_with_those_that_do():
    with pytest.raises(RewardError, match=r"channel_targets names \['corect'\], but the channels are \['correct', "):
        unit_targets({"corect": 1.0}, matrix("y/q"), {})


@pytest.mark.parametrize("name", ["rubric/z", "rubric"])
def test_a_tag_that_no_prompt_had_so_far_is_warned_of(name):
    with pytest.warns(UserWarning, match=f"channel_targets names .'{name}'., but no criterion so far"):
        unit_targets({name: 1.0}, matrix("y/q"), {})
    unit_targets({name: 1.0}, matrix("y/q"), {name: 0.0})  # it was there before: no warning


@pytest.mark.parametrize(("name", "target"), [("correct", 3.5), ("rubric/y", -0.1)])
def test_a_target_outside_the_range_is_an_error(name, target):
    with pytest.raises(ConfigError, match=rf"channel_targets gives '{name}' {target}, outside its range \["):
        unit_targets({name: target}, matrix("y/q"), {})


def test_an_undeclared_range_is_0_to_1():
    with pytest.raises(ConfigError, match=r"outside its range \[0, 1\]; mend the target, or declare"):
        unit_targets({"correct": 1.5}, matrix("y/q", range=None), {})


def test_a_target_for_a_penalty_is_refused():
    declares = Declaration((Channel("long", (0, 10)),))
    penalty = assemble([Returned("f", declares, -1.0, [{"long": 1.0}, {"long": 2.0}])], 2)
    with pytest.raises(ConfigError, match=r"channel_targets names \['long'\], whose weight is negative"):
        unit_targets({"long": 5.0}, penalty, {})


# --- Checkpoints: state, settings, and whether they are whole ---


SETTINGS = {"method": "rvpo", "k": math.inf, "channel_ranges": {"a": (0, 1)}, "group size": 4}


def checkpoint(run, step, **settings):
    folder = run / f"checkpoint-{step}"
    (folder / "part").mkdir(parents=True)
    (folder / "weights").write_bytes(b"1234")
    (folder / "part" / "optimizer").write_bytes(b"12")
    save_state(folder, ChannelState(), {**SETTINGS, **settings})
    return folder


def test_the_state_comes_back_with_and_without_multipliers(tmp_path):
    state = ChannelState({"a": 0.5}, {"a": 0.25, "rubric/x": 0.0})
    save_state(tmp_path / "new", state, SETTINGS)
    assert load_state(tmp_path / "new") == state
    (tmp_path / STATE_FILE).write_text(json.dumps({"anchor": {"a": 0.5}}))
    assert load_state(tmp_path) == ChannelState({"a": 0.5}, {})
    assert load_state(tmp_path / "none") == ChannelState()


def test_the_newest_is_by_number_and_other_folders_are_none(tmp_path):
    for step in (9, 10, 2):
        checkpoint(tmp_path, step)
    (tmp_path / "checkpoint-best").mkdir()
    (tmp_path / "checkpoint-99").write_text("a file")
    assert newest_whole(tmp_path) == (tmp_path / "checkpoint-10", [])
    assert newest_whole(tmp_path / "nowhere") == (None, [])


DAMAGE = {
    "no file": (lambda folder: (folder / "weights").unlink(), "weights is not there"),
    "a file in a folder": (lambda folder: (folder / "part" / "optimizer").unlink(), "part/optimizer is not there"),
    "cut": (lambda folder: (folder / "weights").write_bytes(b"123"), "weights has 3 bytes, not 4"),
    "no mark": (lambda folder: (folder / STATE_FILE).unlink(), f"it has no readable {STATE_FILE}"),
    "mark cut": (lambda folder: (folder / STATE_FILE).write_text('{"anchor"'), f"it has no readable {STATE_FILE}"),
    "mark of a list": (lambda folder: (folder / STATE_FILE).write_text("[]"), f"it has no readable {STATE_FILE}"),
    "mark beside": (
        lambda folder: (folder / STATE_FILE).rename(folder / f"{STATE_FILE}.new"),
        f"it has no readable {STATE_FILE}",
    ),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGE.values(), ids=DAMAGE)
def test_a_broken_checkpoint_is_named_and_the_one_before_taken(tmp_path, damage, message):
    checkpoint(tmp_path, 3)
    broken = checkpoint(tmp_path, 6)
    assert what_is_broken(broken) is None
    damage(broken)
    assert message in what_is_broken(broken)
    newest = newest_whole(tmp_path)
    assert newest.folder == tmp_path / "checkpoint-3"
    assert len(newest.broken) == 1
    assert newest.broken[0].startswith(f"{broken} is not whole ({message}")


def test_an_empty_folder_is_no_checkpoint(tmp_path):
    (tmp_path / "checkpoint-9").mkdir()
    newest = newest_whole(tmp_path)
    assert newest.folder is None
    assert "checkpoint-9 is not whole" in newest.broken[0]


def test_the_same_settings_are_the_same_however_they_are_written(tmp_path):
    same = {"group size": 4, "k": math.inf, "channel_ranges": {"a": [0.0, 1.0]}, "method": "rvpo"}
    check_settings(checkpoint(tmp_path, 3), same, resumed=True)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"method": "gdpo"}, "method 'rvpo' -> 'gdpo'"),
        ({"k": 1.0}, "k inf -> 1.0"),
        ({"group size": 8, "channel_ranges": None}, "channel_ranges {'a': [0, 1]} -> None; group size 4 -> 8"),
        ({"seed": 3}, "seed None -> 3"),
    ],
)
def test_what_has_changed_is_said(tmp_path, changed, message):
    folder = checkpoint(tmp_path, 3)
    with pytest.raises(ConfigError) as error:
        check_settings(folder, SETTINGS | changed, resumed=True)
    assert f"cannot go on from {folder}" in str(error.value)
    assert f"({message}); resume with the settings as they were, or set allow_changed_settings=true" in str(
        error.value
    )
    with pytest.raises(ConfigError, match=r"is of another run, .*; choose another output folder"):
        check_settings(folder, SETTINGS | changed, resumed=False)
