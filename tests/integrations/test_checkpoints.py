"""What a checkpoint says of itself: its state, its settings, and whether it is whole."""

import json
import math

import pytest

from rvpo import ConfigError
from rvpo.integrations.batch import ChannelState
from rvpo.integrations.checkpoints import (
    STATE_FILE,
    check_settings,
    load_state,
    newest_whole,
    save_state,
    what_is_broken,
)

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
