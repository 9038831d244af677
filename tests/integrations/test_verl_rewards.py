"""Score functions as verl loads and calls them, and rows as verl reads them."""

import asyncio
import inspect
import json
import math
import warnings

import numpy as np
import pytest

from judging.fault_server import FaultServer, honest
from rvpo.data.load import load_rubric_rows
from rvpo.errors import ConfigError
from rvpo.integrations.trl.rows import load_rows
from rvpo.integrations.verl import rewards as verl_rewards
from rvpo.integrations.verl.rows import main, verl_rows
from rvpo.judging.criteria import Rubric

RUBRIC = [
    {"id": "rest", "text": "says rest", "points": 5.0, "polarity": "positive", "tags": ["accuracy", "essential"]},
    {"id": "ice", "text": "says ice", "points": -1.0, "polarity": "negative", "tags": ["pitfall"]},
]
NAN = float("nan")
CALL = '<think> x </think>\n<tool_call>\n{"name": "weather", "parameters": {"city": "Oslo"}}\n</tool_call>'


def ask(answer, judge, ground_truth=None, extra_info=None, **kwargs):
    async def run():
        return await verl_rewards.rubric(
            data_source="d",
            solution_str=answer,
            ground_truth=json.dumps(RUBRIC) if ground_truth is None else ground_truth,
            extra_info={"prompt": '[{"role": "user", "content": "q"}]'} if extra_info is None else extra_info,
            judge=judge,
            **kwargs,
        )

    return asyncio.run(run())


def test_tool_calls_are_scored_on_two_channels():
    scored = verl_rewards.tool_calling("rlla", CALL, CALL, extra_info={})
    assert scored == {"score": 4.0, "format": 1.0, "correctness": 3.0}
    assert verl_rewards.tool_calling("rlla", "It rains.", CALL) == {"score": -3.0, "format": 0.0, "correctness": -3.0}


def test_rubrics_come_back_as_json_of_channels_and_the_store_is_asked_first(tmp_path):
    with FaultServer() as server:
        judge = {"model": "m", "base_url": server.url, "store": str(tmp_path / "v.sqlite")}
        scored = ask("rest ice", judge)
        # weights: essential 1.0, pitfall 0.9; the pitfall's ice is bad
        assert scored["score"] == scored["explicit"] == pytest.approx(1.0 / 1.9)
        assert json.loads(scored["rubric"]) == {"accuracy/rest": 1.0, "pitfall/ice": 0.0}
        assert server.requests == 2
        assert ask("rest ice", judge, workers=2) == scored
        assert server.requests == 2


def test_a_lost_verdict_is_null_and_the_score_is_not_0():
    def only_ice(body):
        return honest(body) if "says ice" in body["messages"][1]["content"] else "no JSON"

    with FaultServer(reply=only_ice) as server:
        scored = ask("rest", {"model": "m", "base_url": server.url, "asks": 1})
    assert json.loads(scored["rubric"]) == {"accuracy/rest": None, "pitfall/ice": 1.0}
    assert scored["explicit"] == 1.0
    with FaultServer(reply=lambda body: "no JSON") as server:
        scored = ask("rest", {"model": "m", "base_url": server.url, "asks": 1})
    assert scored["explicit"] is None
    assert math.isnan(scored["score"])


def test_a_validation_leaves_answers_without_a_score_out_and_counts_them():
    metric_utils = pytest.importorskip("verl.trainer.ppo.metric_utils")
    from rvpo.integrations.verl.hooks import leave_out_missing

    original = metric_utils.process_validation_metrics
    original = getattr(original, "__wrapped__", original)
    patched = leave_out_missing(original)
    sources, uids = ["d"] * 6 + ["e"] * 2, ["p", "p", "q", "q", "r", "r", "s", "s"]
    whole = {"reward": [0.25, 0.75, 1.0, 0.5, 0.0, 0.5, 1.0, 0.0], "note": ["x"] * 8}
    assert patched(sources, uids, whole) == original(sources, uids, whole)
    gappy = whole | {"reward": [0.25, 0.75, 1.0, math.nan, math.nan, math.nan, 1.0, 0.0]}
    with np.errstate(invalid="ignore"):
        assert math.isnan(original(sources, uids, gappy)["d"]["reward"]["mean@2"])
    metrics = patched(sources, uids, gappy)
    assert metrics["d"]["reward"]["mean@2"] == 0.75  # prompts of 0.5 and 1.0; r has none
    assert metrics["d"]["reward/missing"] == {"mean@2": 0.5}
    assert "mean@1" not in metrics["d"]["reward"]
    assert metrics["e"]["reward"] == original(sources, uids, whole)["e"]["reward"]
    assert metrics["e"]["reward/missing"] == {"mean@2": 0.0}
    nothing = patched(sources, uids, whole | {"reward": [math.nan] * 8})
    assert "reward" not in nothing["d"]
    assert nothing["d"]["reward/missing"] == {"mean@2": 1.0}


@pytest.mark.parametrize("row", [{"ground_truth": "no JSON"}, {"extra_info": {}}, {"extra_info": {"prompt": None}}])
def test_a_row_of_another_form_is_an_error_that_says_where_rows_come_from(row):
    with pytest.raises(ConfigError, match=r"rvpo\.integrations\.verl\.rows writes such"):
        ask("rest", {"model": "m"}, **row)


def test_the_judges_calls_are_shared_by_the_workers():
    assert verl_rewards.judge_config({"model": "m", "concurrency": 64}, 8).concurrency == 8
    assert verl_rewards.judge_config({"model": "m", "concurrency": 2}, 8).concurrency == 1
    with pytest.raises(ConfigError, match="workers"):
        verl_rewards.judge_config({"model": "m"}, 0)


def test_verl_loads_them_by_their_package_path():
    import_utils = pytest.importorskip("verl.utils.import_utils")
    load = import_utils.load_extern_object
    assert load("pkg://rvpo.integrations.verl.rewards", "tool_calling") is verl_rewards.tool_calling
    # verl awaits what is a coroutine function, and would call anything else in a thread.
    assert inspect.iscoroutinefunction(load("pkg://rvpo.integrations.verl.rewards", "rubric"))


def write_rubrics(file):
    rows = [{"prompt": f"question {i}", "rubric": RUBRIC[: 1 + i % 2]} for i in range(3)]
    file.write_text("\n".join(map(json.dumps, rows)))
    return file


def test_rows_become_a_file_that_holds_all_that_the_score_function_needs(tmp_path, capsys):
    source, out = write_rubrics(tmp_path / "rubrics.jsonl"), tmp_path / "deep" / "rows.parquet"
    assert main([str(source), "--out", str(out)]) == 0
    assert f"{out}: 3 rows (0 without" in capsys.readouterr().out
    rows = list(load_rows(str(out), "train"))
    canonical = load_rubric_rows(str(source)).rows
    assert rows == verl_rows(canonical)
    for row, original in zip(rows, canonical, strict=True):
        assert row["prompt"] == original["prompt"] == json.loads(row["extra_info"]["prompt"])
        assert Rubric.from_rows(json.loads(row["reward_model"]["ground_truth"])).to_rows() == original["rubric"]


def test_rows_that_cannot_be_read_are_one_line(tmp_path, capsys):
    assert main([str(tmp_path / "none.jsonl"), "--out", str(tmp_path / "rows.parquet")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("rvpo.integrations.verl.rows: error: ")
    assert error.count("\n") == 1


def test_verls_own_data_set_reads_the_rows(tmp_path):
    """verl's RLHFDataset gives the score function's arguments back."""
    rl_dataset = pytest.importorskip("verl.utils.dataset.rl_dataset")
    from omegaconf import OmegaConf

    from rvpo_lab.tasks.policy import word_tokenizer

    out = tmp_path / "rows.parquet"
    main([str(write_rubrics(tmp_path / "rubrics.jsonl")), "--out", str(out)])
    tokenizer = word_tokenizer(["question"])
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
    config = OmegaConf.create({"max_prompt_length": 16, "filter_overlong_prompts": False, "cache_dir": str(tmp_path)})
    row = rl_dataset.RLHFDataset(data_files=str(out), tokenizer=tokenizer, config=config)[1]
    assert row["raw_prompt"] == [{"role": "user", "content": "question 1"}]
    assert json.loads(row["reward_model"]["ground_truth"]) == [
        criterion | {} for criterion in Rubric.from_rows(RUBRIC).to_rows()
    ]
    assert json.loads(row["extra_info"]["prompt"]) == row["raw_prompt"]


@pytest.fixture
def dead_groups(monkeypatch):
    """(metric, group -> scores of its answers) -> the groups that verl's own filter drops.

    What the function reads from the queue is put in its place; the rest is verl's.
    """
    pytest.importorskip("verl")
    import rvpo.integrations.verl.plugin  # noqa: F401

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # engines that are not installed
        from verl.trainer.ppo.v1 import replay_buffer

    def dropped(metric, groups):
        stored = {f"{uid}_{index}_0": row for uid, rows in groups.items() for index, row in enumerate(rows)}

        def fetched(keys, partition_id, select_fields):
            assert select_fields == ["extra_fields"]
            return {"extra_fields": [{"reward_extra_info": stored[key]} for key in keys]}

        monkeypatch.setattr(replay_buffer.tq, "kv_batch_get", fetched)
        buffer = replay_buffer.ReplayBuffer(
            "sync", {}, None, "drop", {}, refill_fn=lambda number: None, filter_groups_metric=metric
        )
        buffer.partitions["train"] = {key: {} for key in stored}
        buffer.finished_keys["train"] = set(groups)
        return buffer._dapo_filtered_keys("train")[0]

    return dropped


def test_verls_group_filter_sees_every_channel_by_their_pattern(dead_groups):
    def scores(*channels):
        return [
            verl_rewards.with_pattern({"score": form + call, "format": form, "call": call}) for form, call in channels
        ]

    groups = {
        "equal": scores((1.0, 0.1), (1.0, 0.1), (1.0, 0.1)),
        "trade": scores((1.0, 0.0), (0.0, 1.0), (1.0, 0.0)),  # one sum, two channels that differ
        "live": scores((1.0, 0.0), (1.0, 1.0), (0.0, 0.0)),
        "missing": scores((1.0, NAN), (1.0, NAN), (1.0, NAN)),
    }
    assert dead_groups("score", {name: groups[name] for name in ("equal", "trade", "live")}) >= {"trade"}
    assert dead_groups("pattern", groups) == {"equal", "missing"}
    rubrics = [verl_rewards.with_pattern({"score": 0.5, "rubric": json.dumps({"a": a, "b": 1 - a})}) for a in (0, 1)]
    assert dead_groups("pattern", {"rubric": rubrics}) == set()
    assert dead_groups("score", {"rubric": rubrics}) == {"rubric"}
