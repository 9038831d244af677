"""Logs of every kind: what stock TRL and verl write, rvpo's own trainer, tables; and files that are broken."""

import ast
import importlib.util
import json
import math
import os
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

import mentions
from rvpo.audit import audit_log
from rvpo.audit.batches import read_batches
from rvpo.audit.columns import find_columns
from rvpo.audit.groups import ChannelNames, TooManyChannelsError
from rvpo.audit.readers import open_log
from rvpo.errors import ConfigError

QUICK = {"methods": ["gdpo"], "draws": 20}


def table(folder, columns, name="log.parquet"):
    """Write columns as a file of the kind that its name says."""
    file = folder / name
    written = pa.table(columns)
    if name.endswith(".parquet"):
        pq.write_table(written, file)
    elif name.endswith(".csv"):
        pa_csv.write_csv(written, file)
    else:
        file.write_text("".join(json.dumps(row) + "\n" for row in written.to_pylist()))
    return file


def columns(prompts=12, rollouts=4, seed=0):
    """Rewards a and b of so many groups, a step for every two of them, an answer each."""
    draw = np.random.default_rng(seed)
    number = prompts * rollouts
    return {
        "step": np.repeat(np.arange(prompts) // 2, rollouts),
        "prompt": np.repeat([f"prompt {index}" for index in range(prompts)], rollouts),
        "completion": [f"answer {index}" for index in range(number)],
        "a": draw.integers(0, 2, number).astype(float),
        "b": draw.integers(0, 2, number).astype(float),
    }


# --- TRL -----------------------------------------------------------------------------------------------------


def by_length(completions, **kwargs):
    return [len(completion) / 100 for completion in completions]


def of_even(completions, prompts, **kwargs):
    return [
        None if "salt" in prompt else float(len(completion) % 2)
        for prompt, completion in zip(prompts, completions, strict=True)
    ]


@pytest.fixture(scope="module")
def trl_run(tmp_path_factory):
    """Train a tiny policy; `train(trainer, config, rewards, **options)` returns the output folder."""
    pytest.importorskip("trl")
    from datasets import Dataset

    from rvpo.llm.tokenizer import load_tokenizer

    policy = mentions.tiny_policy(tmp_path_factory.mktemp("policy"))
    rows = Dataset.from_list(list({row["prompt"]: row for row in mentions.prompts(40, seed=1)}.values())[:16])

    def train(trainer, config, rewards, **options):
        folder = tmp_path_factory.mktemp("run")
        settings = {
            "output_dir": str(folder), "use_cpu": True, "bf16": False, "gradient_checkpointing": False,
            "report_to": "none", "disable_tqdm": True, "dataloader_pin_memory": False,
            "per_device_train_batch_size": 8, "num_generations": 4, "max_completion_length": 8, "max_steps": 3,
            "logging_steps": 1, "save_strategy": "no", "seed": 3, "log_completions": True, **options,
        }  # fmt: skip
        trainer(
            model=str(policy),
            reward_funcs=rewards,
            args=config(**settings),
            train_dataset=rows,
            eval_dataset=rows.select(range(2)),
            processing_class=load_tokenizer(policy),
        ).train()
        return folder

    return train


def test_a_run_of_stock_trl_needs_its_folder_alone(trl_run, capsys):
    from trl import GRPOConfig, GRPOTrainer

    folder = trl_run(GRPOTrainer, GRPOConfig, [by_length, of_even])
    result = audit_log(folder, methods=["gdpo", "rvpo"], ks=[2.0], draws=50)
    assert [channel.name for channel in result.channels] == ["by_length", "of_even"]
    assert (result.rollouts, result.groups, result.steps) == (24, 6, (1.0, 3.0))
    assert result.reference == "logged"
    assert result.has_length
    assert result.has_text
    files = sorted((folder / "completions").glob("*.parquet"))
    rows = [row for file in files for row in pq.read_table(file).to_pylist()]
    present = [row["of_even"] for row in rows if row["of_even"] is not None and not math.isnan(row["of_even"])]
    assert result.channel("of_even").values == len(present)
    assert result.channel("of_even").mean.value == pytest.approx(np.mean(present))
    groups = np.array([row["by_length"] for row in rows]).reshape(-1, 4)
    advantages = np.array([row["advantage"] for row in rows]).reshape(-1, 4)
    covariance = [np.cov(*pair)[0, 1] for pair in zip(groups, advantages, strict=True)]
    expected = np.mean(covariance) / math.sqrt(np.mean(advantages.var(axis=1, ddof=1)))
    assert result.channel("by_length").forecasts["logged"].change.value == pytest.approx(expected, rel=1e-5)
    of_two = audit_log(folder / "completions", steps=(2, 3), **QUICK)
    assert (of_two.rollouts, of_two.steps) == (16, (2.0, 3.0))


def test_a_generation_that_trl_logs_for_every_update_counts_once(trl_run):
    from trl import GRPOConfig, GRPOTrainer

    folder = trl_run(GRPOTrainer, GRPOConfig, [by_length], num_iterations=3, max_steps=6)
    assert len(list((folder / "completions").iterdir())) == 6
    assert audit_log(folder, **QUICK).rollouts == 16


def test_a_run_of_our_trainer_has_its_channels_and_not_their_means(trl_run):
    from rvpo import RVPOConfig, RVPOTrainer, vector_reward

    @vector_reward("short", "even", range=(0, 1))
    def judged(completions, **kwargs):
        return [[float(len(text) < 30), float(len(text) % 2)] for text in completions]

    @vector_reward(range=(0, 1))
    def rubric(completions, prompts, **kwargs):
        return [
            {f"form/short:{prompt}": float(len(text) < 25), "tone": None if len(text) % 3 else 1.0}
            for prompt, text in zip(prompts, completions, strict=True)
        ]

    folder = trl_run(RVPOTrainer, RVPOConfig, [judged, rubric])
    result = audit_log(folder, **QUICK)
    assert sorted(channel.name for channel in result.channels) == ["even", "form/short", "short", "tone"]
    reading = " ".join(result.reading)
    assert "judged (the mean of short and even)" in reading
    assert "rubric (the mean of rubric/channels)" in reading
    assert result.channel("tone").missing.value > 0


def test_rows_of_an_evaluation_in_the_log_of_our_trainer_are_kept_apart(trl_run):
    from rvpo import RVPOConfig, RVPOTrainer

    folder = trl_run(RVPOTrainer, RVPOConfig, [by_length], eval_strategy="steps", eval_steps=2)
    files = sorted((folder / "completions").iterdir())
    marks = [[row["evaluation"] for row in pq.read_table(file).to_pylist()] for file in files]
    assert marks[0] == [False] * 8
    assert any(marks[1])  # TRL writes the table of a step anew when it evaluates
    result = audit_log(folder, **QUICK)
    assert "kept apart: rows of evaluations (evaluation is true)" in result.reading
    assert result.rollouts == sum(mark.count(False) for mark in marks)


def test_rows_marked_as_evaluation_are_kept_apart_in_a_table(tmp_path):
    both = columns(prompts=6)
    expected = audit_log(table(tmp_path, {name: values[:16] for name, values in both.items()}), **QUICK)
    marked = audit_log(table(tmp_path, both | {"evaluation": [False] * 16 + [True] * 8}), **QUICK)
    assert marked.rollouts == expected.rollouts == 16
    assert [channel.forecasts for channel in marked.channels] == [channel.forecasts for channel in expected.channels]
    rewarded = audit_log(table(tmp_path, both | {"evaluation": [0.5, 1.0] * 12}), **QUICK)  # a reward of that name
    assert [channel.name for channel in rewarded.channels] == ["a", "b", "evaluation"]


# --- equal prompts ---------------------------------------------------------------------------------------------

TASKS = {
    "ground truth": {"ground_truth": [f"answer {index // 4}" for index in range(48)]},
    "numbers": {"gts": [index // 4 for index in range(48)]},
    "rubric as JSON": {"rubric": [json.dumps([{"id": str(index // 4)}]) for index in range(48)]},
    "rubric": {"rubric": [[{"id": str(index // 4), "points": 1.0}] for index in range(48)]},
    "both": {
        "label": [index // 8 for index in range(48)],
        "criteria": [f"is {index // 4 % 2}" for index in range(48)],
    },
}


@pytest.mark.parametrize("group", ["prompt", "question", "input"])
@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_equal_prompts_of_another_task_are_other_groups(tmp_path, group, task):
    whole = columns() | {"step": [0] * 48}
    apart = audit_log(table(tmp_path, whole), **QUICK)
    names = {name: values for name, values in whole.items() if name != "prompt"}
    file = table(tmp_path, names | {group: ["the same prompt"] * 48} | task)
    result = audit_log(file, **QUICK)
    assert (result.groups, result.rollouts) == (apart.groups, apart.rollouts) == (12, 48)
    assert [channel.forecasts for channel in result.channels] == [channel.forecasts for channel in apart.channels]
    assert f"{group} and {' and '.join(task)} and step" in " ".join(result.reading)


def test_an_answer_of_the_policy_is_no_ground_truth(tmp_path):
    whole = columns()
    file = table(tmp_path, {"answer" if name == "completion" else name: values for name, values in whole.items()})
    assert audit_log(file, **QUICK).groups == 12


def test_ids_of_groups_stay_the_groups(tmp_path):
    whole = columns() | {"group_id": np.repeat(np.arange(12), 4), "answer": ["yes", "no"] * 24}
    assert audit_log(table(tmp_path, whole), **QUICK).groups == 12


def test_groups_of_unequal_size_are_said(tmp_path):
    uneven = {name: values[:45] for name, values in columns().items()}  # 11 groups of 4, one of a single rollout
    assert "groups of unequal size" not in " ".join(audit_log(table(tmp_path, uneven), **QUICK).reading)
    uneven = {name: values[:46] for name, values in columns().items()}
    assert "groups of unequal size: 2 to 4 rollouts" in audit_log(table(tmp_path, uneven), **QUICK).reading


# --- verl ----------------------------------------------------------------------------------------------------


def verl_function(module):
    """Return verl's own function that writes rollouts, without importing the module, which needs a cluster."""
    spec = importlib.util.find_spec("verl")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("verl is not installed")
    source = (Path(spec.submodule_search_locations[0]) / module).read_text()
    definition = next(
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef) and node.name == "_write_generations"
    )
    definition.decorator_list = []
    names = {"os": os, "json": json, "np": np}
    exec(compile(ast.Module([definition], []), module, "exec"), names)
    return names["_write_generations"]


def verl_rows(draw, prompts=6, rollouts=4):
    number = prompts * rollouts
    correct, form = draw.integers(0, 2, number), draw.integers(0, 2, number)
    return {
        "inputs": np.repeat([f"user\nprompt {index}" for index in range(prompts)], rollouts).tolist(),
        "outputs": [f"answer {index} " * int(draw.integers(1, 9)) for index in range(number)],
        "gts": [str(index) for index in range(number)],
        "scores": (correct + 0.5 * form).tolist(),
        "correct": correct,
        "form": form,
    }


def test_a_verl_folder_needs_its_path_alone(tmp_path):
    write = verl_function("trainer/ppo/ray_trainer.py")
    draw = np.random.default_rng(0)
    for step in (2, 10, 1):
        rows = verl_rows(draw)
        order = draw.permutation(24)  # verl balances the batch over its workers before it writes
        extras = {
            "acc": [np.bool_(rows["correct"][i]) for i in order],
            "form": [np.float32(rows["form"][i]) for i in order],
            "pred": [str(i) for i in order],
            "request_id": [f"id-{i}" for i in order],
            "num_turns": [2 for _ in order],
        }
        given = [[rows[name][i] for i in order] for name in ("inputs", "outputs", "gts", "scores")]
        write(*given, extras, str(tmp_path), step)
    result = audit_log(tmp_path, **QUICK)
    assert [channel.name for channel in result.channels] == ["acc", "form"]
    assert (result.rollouts, result.groups, result.steps) == (72, 18, (1.0, 10.0))
    assert result.reference == "logged"
    assert "score (their total)" in " ".join(result.reading)
    assert audit_log(tmp_path, steps=(2, 9), **QUICK).rollouts == 24
    # What GRPO makes of acc + form / 2 moves acc more.
    acc, form = (result.channel(name).forecasts["logged"].change.value for name in ("acc", "form"))
    assert acc > form > 0


def test_a_folder_of_verls_v1_trainer_has_the_score_alone_and_rollouts_of_several_outputs(tmp_path):
    write = verl_function("trainer/ppo/v1/trainer_base.py")
    draw = np.random.default_rng(0)
    rows = verl_rows(draw)
    rows["inputs"] = ["the same text"] * 24
    uid = [f"sample-{index // 4}_{index % 4}_{output}" for index in range(24) for output in range(2)]
    given = [[value for value in rows[name] for _ in range(2)] for name in ("inputs", "outputs", "gts")]
    scores = [score for last in rows["scores"] for score in (-9.0, last)]
    write(*given, scores, {"uid": uid}, str(tmp_path), 1)
    result = audit_log(tmp_path, **QUICK)
    assert [channel.name for channel in result.channels] == ["score"]
    assert (result.rollouts, result.groups) == (24, 6)
    assert result.channel("score").mean.value == pytest.approx(np.mean(rows["scores"]))


# --- tables --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["log.parquet", "log.csv", "log.jsonl"])
def test_tables_of_every_kind_give_the_same_audit(tmp_path, name):
    expected = audit_log(table(tmp_path, columns()), **QUICK).to_dict()
    result = audit_log(table(tmp_path, columns(), name), **QUICK).to_dict()
    assert {**result, "source": ""} == {**expected, "source": ""}


def test_rows_of_a_group_may_lie_anywhere_and_groups_be_of_any_size(tmp_path):
    whole = columns(prompts=10)
    draw = np.random.default_rng(1)
    kept = draw.permutation(40)[:33]
    file = table(tmp_path, {name: np.array(values)[kept] for name, values in whole.items()})
    result = audit_log(file, **QUICK)
    sizes = np.bincount(kept // 4, minlength=10)
    assert result.groups == (sizes > 1).sum()
    assert result.single == (sizes == 1).sum()


def test_columns_are_taken_as_named(tmp_path):
    named = {"epoch": [1] * 8, "q": list("aaaabbbb"), "x": [0.0, 1, 0, 1, 0, 0, 1, 1], "y": [1.0] * 8}
    result = audit_log(table(tmp_path, named), group="q", step="epoch", rewards=["x"], **QUICK)
    assert [channel.name for channel in result.channels] == ["x"]
    assert result.steps == (1.0, 1.0)


def test_a_rubric_may_be_a_map_a_struct_json_or_a_list(tmp_path):
    rubrics = [{"a/x:1": 1.0, "b": None}, {"a/x:1": 0.0, "b": 1.0}, {"a/x:2": 1.0}, {"a/x:2": 0.0}]
    prompt = list("ppqq")
    maps = pa.array([list(row.items()) for row in rubrics], type=pa.map_(pa.string(), pa.float32()))
    structs = pa.array([{"a/x:1": None, "b": None, "a/x:2": None} | row for row in rubrics])
    texts = pa.array([json.dumps(row) for row in rubrics])
    for column in (maps, structs, texts):
        result = audit_log(table(tmp_path, {"prompt": prompt, "rubric": column}), **QUICK)
        assert [channel.name for channel in result.channels] == ["a/x", "b"]
        assert result.channel("a/x").mean.value == 0.5
        assert (result.channel("b").values, result.channel("b").share.value) == (1, 0.5)
    lists = table(tmp_path, {"prompt": prompt, "rubric": [[1.0, None], [0.0, 1.0], [1.0], [0.0]]})
    assert [channel.name for channel in audit_log(lists, **QUICK).channels] == ["1", "2"]


def test_too_many_kinds_of_criteria_become_tags_and_too_many_tags_one_channel(tmp_path):
    def audit(names, **options):
        rows = [json.dumps({name: float(g)}) for name in names for g in range(2)]
        return audit_log(table(tmp_path, {"prompt": np.repeat(names, 2), "rubric": rows}), **QUICK, **options)

    few = [f"tag{index % 3}/c{index}" for index in range(30)]
    assert len(audit(few).channels) == 30
    assert [channel.name for channel in audit(few, by_tag=True).channels] == ["tag0", "tag1", "tag2"]
    many = audit([f"tag{index % 3}/c{index}" for index in range(60)])
    assert [channel.name for channel in many.channels] == ["tag0", "tag1", "tag2"]
    assert "channels: criteria by tag" in many.reading
    assert [channel.name for channel in audit([f"text {index}" for index in range(60)]).channels] == ["rubric"]


def test_channel_names():
    names = ChannelNames(["plain"])
    assert [names.index(name, "r") for name in ("accuracy/dose", "accuracy/cause:fever", "accuracy/cause:pain")] == [
        1,
        2,
        2,
    ]
    assert names.names == ["plain", "accuracy/dose", "accuracy/cause"]
    tags = ChannelNames([], "tag")
    assert [tags.index(name, "r") for name in ("a/x", "a/y:1", "b")] == [0, 0, 1]
    assert tags.names == ["a", "r"]
    with pytest.raises(TooManyChannelsError):
        [names.index(f"c{index}", "r") for index in range(60)]


def test_messages_are_texts_of_one_length(tmp_path):
    messages = [[{"role": "assistant", "content": "x" * length}] for length in (1, 2, 3, 3)]
    file = table(
        tmp_path, {"prompt": [[{"role": "user", "content": "hi"}]] * 4, "completion": messages, "a": [0.0, 1, 2, 2]}
    )
    result = audit_log(file, **QUICK)
    assert result.groups == 1
    assert result.channel("a").length.value == pytest.approx(1.0)
    assert result.channel("a").repeats == 1


def test_what_no_reward_is_is_left_out_with_the_reason():
    draw = np.random.default_rng(0)
    a, b = draw.random(20).tolist(), draw.random(20).tolist()
    head = {
        "prompt": ["p"] * 20,
        "completion": ["c"] * 20,
        "helpful": a,
        "length_penalty": b,
        "both": [x + y for x, y in zip(a, b, strict=True)],
        "reward": b,
        "completion_length": list(range(20)),
        "sample_id": list(range(20)),
        "logprob": a,
        "answer": a,
        "advantage": a,
        "meta": ["text"] * 20,
        "extra_info": [{"index": index} for index in range(20)],
    }
    columns_of_head = find_columns(head)
    assert columns_of_head.plain == ("helpful", "length_penalty")
    assert (columns_of_head.group, columns_of_head.text, columns_of_head.length, columns_of_head.advantage) == (
        "prompt",
        "completion",
        "completion_length",
        "advantage",
    )
    assert columns_of_head.left_out == {
        "both": "the sum of helpful and length_penalty",
        "reward": "their total",
        "completion_length": "a length",
        "sample_id": "an id or a counter",
        "logprob": "a likelihood",
        "extra_info": "metadata",
        "answer": "the ground truth",
    }


def test_a_run_of_twice_the_size_is_one_prompt_drawn_twice(tmp_path):
    folder = tmp_path / "completions"
    folder.mkdir()
    made = {**columns(prompts=3), "step": [1] * 12, "prompt": ["p"] * 8 + ["q"] * 4}
    table(folder, made, "completions_00001.parquet")
    assert audit_log(tmp_path, **QUICK).groups == 3


def test_a_log_longer_than_the_window_is_the_same(tmp_path, monkeypatch):
    file = table(tmp_path, columns(prompts=200))
    expected = audit_log(file, **QUICK)
    monkeypatch.setattr("rvpo.audit.groups.WINDOW", 50)
    monkeypatch.setattr("rvpo.audit.groups.BLOCK", 40)
    monkeypatch.setitem(read_batches.__kwdefaults__, "rows", 30)
    result = audit_log(file, **QUICK)
    assert (result.groups, result.rollouts) == (200, 800)
    for channel, same in zip(result.channels, expected.channels, strict=True):
        assert channel.forecasts["gdpo"].change == pytest.approx(same.forecasts["gdpo"].change)


def test_groups_whose_rows_lie_too_far_apart_are_counted(tmp_path, monkeypatch):
    whole = columns(prompts=20)
    del whole["step"]
    halves = np.argsort(np.arange(80) % 4 >= 2, kind="stable")  # two rows of every group, then the other two
    torn = table(tmp_path, {name: np.array(values)[halves] for name, values in whole.items()}, "torn.parquet")
    assert audit_log(torn, **QUICK).torn == 0
    monkeypatch.setattr("rvpo.audit.groups.WINDOW", 16)
    monkeypatch.setitem(read_batches.__kwdefaults__, "rows", 8)
    result = audit_log(torn, **QUICK)
    assert (result.groups, result.torn) == (40, 20)
    assert result.limits[0].startswith("which rows make a group: 20 of 40 came back")
    assert audit_log(table(tmp_path, whole), **QUICK).torn == 0


# --- what is broken ------------------------------------------------------------------------------------------


def broken(tmp_path, name, content):
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("log.parquet", "", "is empty"),
        ("log.csv", "", "is empty"),
        ("log.jsonl", "", "is empty"),
        ("log.csv", "prompt,a\n", "has no rows"),
        ("log.jsonl", "\n\n", "has no rows"),
        ("log.parquet", b"PAR1 and then nothing", "cannot be read as parquet.*written to its end"),
        ("log.csv", "prompt,a\np,1\np,2,3\n", "cannot be read as csv"),
        ("log.csv", "prompt,a\np,1\np,good\n", r"log.csv, row 2: column 'a' holds 'good'"),
        ("log.csv", "prompt,a\np,1\np,inf\n", "row 2: column 'a' is infinite"),
        ("log.csv", "prompt,a\np,nan\np,\n", "no column holds rewards|has a value"),
        ("log.csv", b"prompt,a\n\xff\xfe,1\n", "cannot be read as csv"),
        ("log.csv", "question,a\np,1\nq,2\n", "each of the 2 groups holds one rollout"),
        ("log.csv", "a,b\n1,2\n3,4\n", "no column tells which rows answer the same prompt.*Columns: a and b"),
        ("log.csv", "prompt,name\np,x\np,y\n", "no column holds rewards"),
        ("log.jsonl", '{"prompt": "p", "a": 1}\n{"prompt": "p", "a": "x"}\n', "row 2: column 'a' holds 'x'"),
        ("log.jsonl", '{"prompt": "p", "a": 1}\n{"prompt": "p", "a": [1]}\n', r"row 2: column 'a' holds \[1\]"),
        ("log.jsonl", '{"prompt": "p", "a": 1}\n{"prompt": "p"', "line 2 is not JSON"),
        ("log.jsonl", '{"prompt": "p", "a": NaN}\n{"prompt": "p", "a": NaN}\n', "none of the 2 rollouts has a value"),
        ("log.csv", "prompt,a,a\np,1,2\np,2,3\n", "log.csv has several columns of the name a"),
        ("log.jsonl", '[1, 2]\n', r"line 1 holds \[1, 2\]; every line must be a JSON object"),
        ("log.jsonl", '{"prompt": "p", "a": 1}\n' + "x" * 10_000 + "\n", "line 2 is not JSON"),
        ("log.jsonl", b'{"prompt": "\xff", "a": 1}\n', "cannot be read as jsonl"),
        ("log.jsonl", "[" * 100_000, "line 1 is not JSON|cannot be read"),
        ("log.txt", "p 1", "is none of .parquet"),
    ],
)  # fmt: skip
def test_a_broken_file_is_one_clear_line(tmp_path, name, content, message):
    with pytest.raises(ConfigError, match=message) as caught:
        audit_log(broken(tmp_path, name, content), **QUICK)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("size", [8, 100, 500, 1000])
def test_a_truncated_parquet_is_one_clear_line(tmp_path, size):
    whole = table(tmp_path, columns(prompts=100)).read_bytes()
    with pytest.raises(ConfigError, match="cannot be read as parquet"):
        audit_log(broken(tmp_path, "cut.parquet", whole[:size]), **QUICK)


def test_a_damaged_parquet_is_one_clear_line(tmp_path):
    whole = bytearray(table(tmp_path, columns(prompts=100)).read_bytes())
    whole[200:900] = b"\xff" * 700
    with pytest.raises(ConfigError):
        audit_log(broken(tmp_path, "damaged.parquet", bytes(whole)), **QUICK)


def test_decimals_are_numbers_and_a_byte_order_mark_is_none_of_the_text(tmp_path):
    tenths = pa.array([Decimal("0.1"), None, Decimal("0.3"), Decimal("0.4")], type=pa.decimal128(5, 2))
    channel = audit_log(table(tmp_path, {"prompt": list("ppqq"), "a": tenths}), **QUICK).channel("a")
    assert (channel.values, channel.mean.value) == (3, pytest.approx(0.8 / 3))
    for name, text in (
        ("log.jsonl", '{"prompt": "p", "a": 1}\n{"prompt": "p", "a": 0}\n'),
        ("log.csv", "prompt,a\np,1\np,0"),
    ):
        assert audit_log(broken(tmp_path, name, b"\xef\xbb\xbf" + text.encode()), **QUICK).groups == 1


def test_a_long_line_is_read(tmp_path):
    rows = [{"prompt": "p", "completion": "x" * 10_000, "a": index} for index in range(4)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    assert audit_log(broken(tmp_path, "log.jsonl", text), **QUICK).rollouts == 4
    lines = "".join(f'p,"{"x" * 10_000}\n,",{index}\n' for index in range(4))
    assert audit_log(broken(tmp_path, "log.csv", "prompt,completion,a\n" + lines), **QUICK).rollouts == 4


def test_a_wrong_row_behind_the_first_batch_is_named(tmp_path):
    lines = [f"p{index // 4},{index % 2}" for index in range(20_000)]
    lines[15_000] = "p3750,bad"
    with pytest.raises(ConfigError, match=r"row 15001: column 'a' holds 'bad'"):
        audit_log(broken(tmp_path, "log.csv", "prompt,a\n" + "\n".join(lines) + "\n"), **QUICK)


def test_a_map_with_a_wrong_reward_is_named(tmp_path):
    rows = [{"prompt": "p", "rubric": {"a": 1.0}}] * 600 + [{"prompt": "p", "rubric": {"a": "much"}}]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    with pytest.raises(ConfigError, match="row 601: column 'rubric' holds a reward that is no number"):
        audit_log(broken(tmp_path, "log.jsonl", text), **QUICK)


def test_a_name_that_is_no_column_comes_with_the_nearest(tmp_path):
    file = table(tmp_path, columns())
    for wrong in ({"group": "promt"}, {"rewards": ["promt"]}, {"step": "promt"}):
        with pytest.raises(ConfigError, match="unknown column 'promt': did you mean 'prompt'"):
            open_log(file, **wrong)
    with pytest.raises(ConfigError, match="--step"):
        open_log(table(tmp_path, {"prompt": ["p"], "a": [1.0]}), steps=(1, 2))


def test_a_folder_that_holds_no_log_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="there is no file or folder"):
        open_log(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="holds no table, and neither completions"):
        open_log(tmp_path)
    table(tmp_path, columns())
    table(tmp_path, columns(), "log.csv")
    with pytest.raises(ConfigError, match=r"several kinds \(.csv, .parquet\)"):
        open_log(tmp_path)


def test_a_folder_of_tables_is_read_in_order_of_numbers(tmp_path):
    for part in (10, 2, 1):
        table(tmp_path, columns(seed=part), f"part-{part}.parquet")
    assert [file.stem for file in open_log(tmp_path).files] == ["part-1", "part-2", "part-10"]
    assert audit_log(tmp_path, **QUICK).rollouts == 144


# --- Memory --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("group_rows", [3, 8, 20, 100])
def test_batches_have_one_size_whatever_the_row_groups(tmp_path, group_rows):
    written = pa.table({"a": list(range(43)), "b": [f"text {index}" for index in range(43)]})
    pq.write_table(written, tmp_path / "log.parquet", row_group_size=group_rows)
    batches = list(read_batches(tmp_path / "log.parquet", ["b", "a"], rows=8))
    assert [batch.size for batch in batches] == [8, 8, 8, 8, 8, 3]
    assert [number for batch in batches for number in batch.numbers] == list(range(1, 44))
    for name in ("a", "b"):
        assert [value for batch in batches for value in batch.columns[name].to_pylist()] == written[name].to_pylist()


def test_row_groups_that_were_read_are_not_kept(tmp_path):
    """Each row group has 2 MB, which nothing compresses."""
    rows, groups = 2**13, 12
    draw = np.random.default_rng(0)
    log = tmp_path / "log.parquet"
    texts = pa.array([draw.bytes(125).hex() for _ in range(rows * groups)])
    pq.write_table(pa.table({"completion": texts}), log, row_group_size=rows)
    del texts
    before = pa.total_allocated_bytes()
    held = [pa.total_allocated_bytes() - before for _ in read_batches(log, None)]
    assert len(held) == groups
    assert max(held) < log.stat().st_size / 2
