"""What trackers get of the channels: few charts, whatever the number of channels; the log has everything."""

import csv
import json
import math
import sqlite3
from contextlib import closing
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest
from recording import settings
from transformers import TrainerCallback

from rvpo import RVPOConfig, vector_reward
from rvpo.errors import ConfigError
from rvpo.integrations.trl.run_log import MOST, ShortMetrics

KINDS = {"mean", "std", "missing", "dead", "weight", "conflict", "forecast"}


class Tracker(TrainerCallback):
    """Stands where W&B, TensorBoard and trackio do."""

    def __init__(self):
        self.seen = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.seen.append(dict(logs))


def tags(count):
    """A reward of `count` tags between 0 and 1, the higher ones of higher values, that differ among answers."""

    @vector_reward(*(f"tag {index}" for index in range(count)), range=(0, 1))
    def judged(completion_ids, **kwargs):
        return [{f"tag {index}": (index + sum(ids) % 2) / count for index in range(count)} for ids in completion_ids]

    return judged


def train(build, count, **options):
    trainer, tracker = build([tags(count)], max_steps=2, **options), Tracker()
    trainer.add_callback(tracker)
    trainer.train()
    return trainer, tracker.seen


def test_17_channels_are_charted_side_by_side_by_kind(build, tmp_path):
    trainer, logs = train(build, 17, eval_strategy="steps", eval_steps=1)
    seen, held_out = logs[0], next(entry for entry in logs if "eval_loss" in entry)
    entry = trainer.state.log_history[0]
    assert {key.rpartition("/")[2] for key in entry if key.startswith("channels/")} == KINDS
    charts = {key for key in seen if key.startswith("channels/")}
    named = {f"channels/{kind}/tag {index}" for kind in ("mean", "weight", "dead") for index in range(17)}
    assert charts == named | {f"channels/{kind}" for kind in KINDS}
    for index in range(17):
        assert seen[f"channels/mean/tag {index}"] == entry[f"channels/tag {index}/mean"]
    means = [entry[f"channels/tag {index}/mean"] for index in range(17)]
    assert seen["channels/mean"] == pytest.approx(np.mean(means))
    assert {key.removeprefix("eval_") for key in held_out if key.startswith("eval_channels/")} == charts
    assert not (tmp_path / "run/channels.csv").exists()


def test_300_tags_are_the_ten_lowest_and_highest_and_a_table(build, tmp_path):
    trainer, (seen, *_) = train(build, 300)
    assert len([key for key in seen if key.startswith("channels/")]) == MOST + len(KINDS)
    means = sorted(trainer.state.log_history[0][f"channels/tag {index}/mean"] for index in range(300))
    for rank in range(10):
        assert seen[f"channels/lowest/{rank + 1:02}"] == pytest.approx(means[rank])
        assert seen[f"channels/highest/{rank + 1:02}"] == pytest.approx(means[-1 - rank])
    rows = list(csv.DictReader((tmp_path / "run/channels.csv").read_text().splitlines()))
    last = trainer.state.log_history[1]  # the table is of the newest step
    assert {row["channel"]: row["mean"] for row in rows} == {
        f"tag {index}": f"{last[f'channels/tag {index}/mean']:.4g}" for index in range(300)
    }
    running = [float(row["running mean"]) for row in rows]
    assert running == sorted(running)


def test_every_metric_is_charted_if_asked_for(build):
    trainer, (seen, *_) = train(build, 21, tracker_metrics="all")
    assert {key for key in trainer.state.log_history[0] if key.startswith("channels/")} == {
        key for key in seen if key.startswith("channels/")
    }


@pytest.mark.parametrize(("count", "by_rank"), [(20, False), (21, True)])
def test_ranks_are_of_running_means_and_channels_absent_from_a_step_keep_theirs(count, by_rank, tmp_path):
    callback, place = ShortMetrics(), SimpleNamespace(output_dir=str(tmp_path))
    main = SimpleNamespace(is_world_process_zero=True)
    first = {f"channels/a/{index}/mean": index / 100 for index in range(count)}
    callback.on_log(place, main, None, first)
    second = {"channels/a/0/mean": 1.0, "channels/a/1/mean": math.nan, "loss": 1.0}
    callback.on_log(place, main, None, second)
    assert ("channels/lowest/01" in second) == (tmp_path / "channels.csv").exists() == by_rank
    if by_rank:  # 0.9 * 0 + 0.1 * 1 stands behind 0.01, ..., 0.09 and beside 0.1
        assert [second[f"channels/lowest/{rank:02}"] for rank in range(1, 11)] == pytest.approx(
            [0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.09, 0.1]
        )
    else:
        assert set(second) == {"channels/mean/a/0", "channels/mean", "loss"}
    assert second["channels/mean"] == second["loss"] == 1.0


def test_other_words_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="tracker_metrics must be short or all, got 'some'"):
        RVPOConfig(**settings(tmp_path, tracker_metrics="some"))


@pytest.mark.skipif(find_spec("trackio") is None, reason="trackio is not installed")
def test_trackio_has_the_short_metrics(build, tmp_path, monkeypatch):
    monkeypatch.setattr("trackio.sqlite_storage.TRACKIO_DIR", tmp_path)
    build([tags(3)], max_steps=2, report_to="trackio", project="tags").train()
    with closing(sqlite3.connect(tmp_path / "tags.db")) as database, database:
        logged = [json.loads(row) for (row,) in database.execute("SELECT metrics FROM metrics")]
    names = {name for row in logged for name in row if name.startswith("train/channels/mean")}
    assert names == {"train/channels/mean", *(f"train/channels/mean/tag {index}" for index in range(3))}
