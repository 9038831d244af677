"""`rvpo train`: what it writes, prints and returns, in real runs of a tiny policy and with input that is wrong."""

import json
import shutil
import signal
import sys
from importlib.metadata import version

import numpy as np
import pandas
import pytest
import torch
from packaging.version import Version
from reference import completions_table
from transformers import AutoConfig, AutoModelForSequenceClassification

import forked
import mentions
from judging.fault_server import FaultServer
from rvpo.cli.main import main
from rvpo.cli.train import configure, read
from rvpo.integrations.trl import run as trl_run
from rvpo.llm.tokenizer import load_tokenizer

YAML = """
model_name_or_path: policy
dataset_name: rows.jsonl
dataset_columns: {topics: task.topics}
reward_funcs: [mentions.brevity_reward, my_rewards.mention, my_rewards.Wordy]
output_dir: run
k_schedule: linear
k: 0.5
k_end: 2.0
max_steps: 2
logging_steps: 1
per_device_train_batch_size: 8
num_generations: 4
max_completion_length: 8
learning_rate: 1e-3
seed: 3
save_strategy: steps
save_steps: 1
use_cpu: true
bf16: false
gradient_checkpointing: false
report_to: none
disable_tqdm: true
dataloader_pin_memory: false
"""

REWARDS = """
import os, time
from rvpo import scalar_reward, vector_reward
from mentions import mention_reward as mention

calls = 0

class Wordy:
    def __call__(self, completions, **columns):
        return [len(text.split()) / 8 for text in completions]

def signalling(completions, **columns):
    global calls
    calls += 1
    if calls == 2:
        for number in os.environ["TEST_SIGNALS"].split():
            os.kill(os.getpid(), int(number))
            time.sleep(0.2)  # two signals at once may arrive as one
    return [float(len(text)) for text in completions]

@scalar_reward(range=(0, 1), scope="group")
def unlike(completions, **columns):
    return [sum(other != text for other in completions) / 4 for text in completions]

@scalar_reward(range=(0, 1))
def rare(completions, **columns):
    return [float(text[:1] == "t") for text in completions]

def is_held_out(completions, held_out=None, **columns):
    return [float(held_out is not None)] * len(completions)

value = 3
"""


@pytest.fixture
def project(tmp_path, policy, monkeypatch):
    """A folder with configuration, rows, rewards and a policy, that is the current one."""
    rows = [{"prompt": row["prompt"], "task": {"topics": row["topics"]}} for row in mentions.prompts(8, seed=1)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "my_rewards.py").write_text(REWARDS)
    (tmp_path / "run.yaml").write_text(YAML)
    (tmp_path / "policy").symlink_to(policy)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "my_rewards", raising=False)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    yield tmp_path
    sys.modules.pop("my_rewards", None)


def without(key):
    return "\n".join(line for line in YAML.splitlines() if not line.startswith(key))


def logged(folder):
    entries = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [entry for entry in entries if "rvpo/k" in entry]


# --- A run ---


def test_a_run_from_yaml_writes_the_model_the_metrics_and_a_table(project, capsys):
    assert main(["train", "--config", "run.yaml"]) == 0
    entries = logged(project / "run")
    assert [entry["rvpo/k"] for entry in entries] == [0.5, 1.25]
    for channel in ("brevity_reward", "mention_reward", "Wordy"):
        assert 0 <= entries[0][f"channels/{channel}/mean"] <= 1
    assert (project / "run" / "model.safetensors").exists()
    assert (project / "run" / "tokenizer.json").exists()
    out = capsys.readouterr().out
    assert "rvpo, 2 of 2 steps" in out
    for channel in ("brevity_reward", "mention_reward", "Wordy"):
        row = next(line for line in out.splitlines() if line.startswith(f"│ {channel.removesuffix('_reward')} "))
        assert f"{entries[-1][f'channels/{channel}/mean']:.3f}" in row
    assert "run: run" in out
    card = (project / "run" / "README.md").read_text()
    assert "trained with RVPO, a method introduced in" in card
    assert "fine-tuned version of `policy`" in card


def test_the_command_line_comes_before_yaml_and_config_may_be_one_word(project):
    words = ["--output_dir", "other", "--max_steps", "1", "--k_schedule", "constant", "--k", "3"]
    words += ["--reward_funcs", "mentions.brevity_reward"]
    (project / "run.yaml").write_text(without("k_end"))
    assert main(["train", "--config=run.yaml", *words]) == 0
    assert not (project / "run").exists()
    (entry,) = logged(project / "other")
    assert entry["rvpo/k"] == 3.0
    assert {name.split("/")[1] for name in entry if name.startswith("channels/")} == {"brevity_reward"}


@pytest.mark.parametrize(
    "yaml",
    ["reward_funcs: {}", "reward_funcs: [{}]"],
)
def test_one_reward_may_be_written_without_a_list(project, yaml):
    (project / "run.yaml").write_text(f"{without('reward_funcs')}\n{yaml.format('mentions.brevity_reward')}\n")
    assert main(["train", "--config", "run.yaml", "--max_steps", "1"]) == 0
    assert "channels/brevity_reward/mean" in logged(project / "run")[0]


def test_evaluation_rows_may_come_from_another_file(project):
    rows = [json.loads(line) for line in (project / "rows.jsonl").read_text().splitlines()]
    (project / "eval.jsonl").write_text("".join(json.dumps(row | {"held_out": True}) + "\n" for row in rows))
    words = ["--eval_dataset_name", "eval.jsonl", "--eval_strategy", "steps", "--eval_steps", "1"]
    words += ["--per_device_eval_batch_size", "8", "--max_steps", "1", "--reward_funcs", "my_rewards.is_held_out"]
    assert main(["train", "--config", "run.yaml", *words]) == 0
    entries = [json.loads(line) for line in (project / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [e["channels/is_held_out/mean"] for e in entries if "channels/is_held_out/mean" in e] == [0.0]
    assert [e["eval_channels/is_held_out/mean"] for e in entries if "eval_channels/is_held_out/mean" in e] == [1.0]


def test_lora_is_trained_and_saved(project):
    words = ["--use_peft", "true", "--lora_r", "2", "--lora_target_modules", "q_proj", "v_proj", "--max_steps", "1"]
    assert main(["train", "--config", "run.yaml", *words]) == 0
    assert json.loads((project / "run" / "adapter_config.json").read_text())["r"] == 2
    assert not (project / "run" / "model.safetensors").exists()


@pytest.mark.parametrize("words", [["--dtype", "bfloat16"], ["--model_init_kwargs", '{"dtype": "bfloat16"}']])
def test_the_model_is_loaded_as_configured(project, words):
    assert main(["train", "--config", "run.yaml", "--max_steps", "1", *words]) == 0
    assert json.loads((project / "run" / "config.json").read_text())["dtype"] == "bfloat16"


def test_a_release_of_trl_without_quantization_is_served(project, monkeypatch):
    class Before(trl_run.RVPOTrainer):
        """The arguments of GRPOTrainer up to TRL 1.0."""

        def __init__(self, model, reward_funcs, args, train_dataset, eval_dataset, processing_class, peft_config):
            super().__init__(
                model=model,
                reward_funcs=reward_funcs,
                args=args,
                train_dataset=train_dataset,
                eval_dataset=eval_dataset,
                processing_class=processing_class,
                peft_config=peft_config,
            )

    monkeypatch.setattr(trl_run, "RVPOTrainer", Before)
    assert main(["train", "--config", "run.yaml", "--max_steps", "1"]) == 0


@pytest.mark.parametrize(
    ("yaml", "words", "hint"),
    [
        ("", [], "--use_cpu true --bf16 false"),
        ("bf16: false\n", [], "--use_cpu true"),
        ("", ["--bf16=false"], "--use_cpu true"),
        ("use_cpu: true\nbf16: false\n", [], None),
    ],
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="a machine with an accelerator")
def test_a_machine_without_accelerator_trains_on_its_cpu_and_says_so(project, capsys, yaml, words, hint):
    (project / "run.yaml").write_text(YAML.replace("use_cpu: true\nbf16: false\n", yaml))
    assert main(["train", "--config", "run.yaml", "--max_steps", "1", *words]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("rvpo train:")]
    assert lines == ([] if hint is None else [f"rvpo train: no accelerator here, so it trains on the CPU ({hint})"])


def test_another_method_leaves_the_k_of_the_files_and_says_so(project, capsys):
    assert main(["train", "--config", "run.yaml", "--max_steps", "1", "--method", "gdpo"]) == 0
    assert "k, k_end, k_schedule of the files left out, as --method gdpo reads none" in capsys.readouterr().err
    assert main(["train", "--config", "run.yaml", "--max_steps", "1", "--method", "gdpo", "--k", "1"]) == 2
    assert "k: no effect with method 'gdpo'" in capsys.readouterr().err


@pytest.mark.parametrize("wanted", ["last", "true", "run/checkpoint-1", "yaml"])
def test_a_run_is_resumed_from_its_checkpoint(project, wanted):
    assert main(["train", "--config", "run.yaml", "--max_steps", "1"]) == 0
    words = ["--resume_from_checkpoint", wanted]
    if wanted == "yaml":
        (project / "run.yaml").write_text(YAML + "resume_from_checkpoint: true\n")
        words = []
    words += ["--k", "1", "--allow_changed_settings", "true"]
    assert main(["train", "--config", "run.yaml", "--max_steps", "3", *words]) == 0
    entries = logged(project / "run")
    assert [entry["step"] for entry in entries] == [1, 2, 3]
    assert [entry["rvpo/k"] for entry in entries] == pytest.approx([0.5, 1 + 1 / 3, 1 + 2 / 3])


CHOSEN = """
reward_funcs: [mentions.brevity_reward, my_rewards.unlike, my_rewards.rare]
channel_conditions: {unlike: "brevity_reward >= 0.1"}
channel_weights: {brevity_reward: "2 -> 0.5 linear"}
prompt_sampling: signal
prompt_sampling_floor: 0.3
resample_dead: 1
resample_signal: neglected
per_device_train_batch_size: 24
max_steps: 4
"""


def test_a_run_goes_on_from_yaml_with_all_that_chooses_prompts_and_weighs_channels(project):
    yaml = "\n".join(line for line in YAML.splitlines() if line.split(":")[0] not in CHOSEN)
    (project / "run.yaml").write_text(yaml + CHOSEN)
    assert main(["train", "--config", "run.yaml"]) == 0
    words = ["--output_dir", "on", "--resume_from_checkpoint", "run/checkpoint-2"]
    assert main(["train", "--config", "run.yaml", *words]) == 0
    whole, on = logged(project / "run"), logged(project / "on")
    assert [entry["step"] for entry in on] == [1, 2, 3, 4]
    for entry, other in zip(whole, on, strict=True):
        assert entry["rvpo/effective_prompts"] <= 8
        same = [name for name in entry if name.startswith(("rvpo/", "channels/", "loss"))]
        np.testing.assert_equal({name: other[name] for name in same}, {name: entry[name] for name in same})
    assert max(entry["rvpo/generated"] for entry in whole[2:]) > 24
    assert min(entry["rvpo/effective_prompts"] for entry in whole[2:]) < 8
    assert whole[2]["channels/brevity_reward/given_weight"] == 1.25
    assert whole[2]["channels/unlike/unmet"] > 0
    models = [(project / name / "model.safetensors").read_bytes() for name in ("run", "on")]
    assert models[0] == models[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--k", "1"], "k 0.5 -> 1.0"),
        (["--method", "mean_variance"], "method 'rvpo' -> 'mean_variance'"),
        (["--num_generations", "2"], "group size 4 -> 2"),
        (["--seed", "4"], "seed 3 -> 4"),
        (["--reward_funcs", "tool_format"], "channels "),
        (["--dead_channels", "mask"], "dead_channels 'keep' -> 'mask'"),
    ],
    ids=str,
)
def test_changed_settings_are_said_and_refused(project, capsys, words, message):
    assert main(["train", "--config", "run.yaml", "--max_steps", "1"]) == 0
    before = (project / "run" / "metrics.jsonl").read_text()
    for way in ("cannot go on from", "is of another run"):
        capsys.readouterr()
        resumed = ["--resume_from_checkpoint", "last"] if way == "cannot go on from" else []
        assert main(["train", "--config", "run.yaml", "--max_steps", "2", *words, *resumed]) == 2
        error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("rvpo: error:")]
        assert len(error) == 1
        assert way in error[0]
        assert message in error[0]
    assert (project / "run" / "metrics.jsonl").read_text() == before


def test_a_broken_checkpoint_is_named_and_the_one_before_is_gone_on_from(project, capsys):
    assert main(["train", "--config", "run.yaml", "--max_steps", "2"]) == 0
    (project / "run" / "checkpoint-2" / "optimizer.pt").unlink()
    capsys.readouterr()
    assert main(["train", "--config", "run.yaml", "--max_steps", "2", "--resume_from_checkpoint", "last"]) == 0
    assert "checkpoint-2 is not whole (optimizer.pt is not there)" in capsys.readouterr().err
    assert [entry["step"] for entry in logged(project / "run")] == [1, 2]
    (project / "run" / "checkpoint-2" / "rvpo_state.json").unlink()
    words = ["--resume_from_checkpoint", "run/checkpoint-2"]
    assert main(["train", "--config", "run.yaml", "--max_steps", "3", *words]) == 2
    assert "cannot go on from run/checkpoint-2, which is not whole" in capsys.readouterr().err


def test_a_finished_run_that_is_resumed_stays_as_it_is(project, capsys):
    assert main(["train", "--config", "run.yaml"]) == 0
    files = [project / "run" / name for name in ("model.safetensors", "metrics.jsonl")]
    before = [file.read_bytes() for file in files]
    assert main(["train", "--config", "run.yaml", "--resume_from_checkpoint", "last"]) == 0
    printed = capsys.readouterr()
    assert "nothing is left to train: run/checkpoint-2 is of step 2 of 2" in printed.err
    assert "rvpo, 2 of 2 steps" in printed.out
    assert [file.read_bytes() for file in files] == before
    assert not (project / "run" / "checkpoint-3").exists()


def test_no_resuming_starts_anew(project):
    assert main(["train", "--config", "run.yaml", "--max_steps", "1"]) == 0
    words = ["--resume_from_checkpoint", "false", "--allow_changed_settings", "true"]
    assert main(["train", "--config", "run.yaml", "--k", "1", *words]) == 0
    assert [entry["rvpo/k"] for entry in logged(project / "run")] == [1.0, 1.5]


@pytest.fixture
def judged(project):
    """The words of a run whose rows have rubrics, by a judge that says why."""
    rows = [json.loads(line) for line in (project / "rows.jsonl").read_text().splitlines()]
    for row in rows:
        topics = row["task"]["topics"]
        row["rubric"] = [{"id": topic, "text": f"says {topic}", "points": 1.0, "tags": []} for topic in topics]
    (project / "rubrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with FaultServer() as server:
        judge = json.dumps({"model": "m", "base_url": server.url})
        yield ["--dataset_name", "rubrics.jsonl", "--reward_funcs", "rubric", "--judge", judge, "--max_steps", "1"]


@pytest.mark.skipif(Version(version("trl")) < Version("1.0"), reason="the table of completions has no room for text")
def test_the_judges_reasons_are_in_the_table_of_completions(project, judged):
    words = ["--log_completions", "true", "--log_reasons", "true"]
    assert main(["train", "--config", "run.yaml", *judged, *words]) == 0
    (file,) = (project / "run" / "completions").glob("*.parquet")
    table = pandas.read_parquet(file)
    assert len(table) == 8
    for prompt, reasons in zip(table["prompt"], table["rubric/reasons"], strict=True):
        assert json.loads(reasons) == dict.fromkeys(prompt.split()[1:-1], "by rule")


def test_reasons_that_nothing_would_show_are_refused(project, judged, capsys):
    logged = ["--log_completions", "true"]
    for words in (judged, logged, [*judged, *logged, "--reward_funcs", "rubric_implicit"]):
        assert main(["train", "--config", "run.yaml", "--log_reasons", "true", *words]) == 2
        assert "log_reasons has no effect without log_completions and a judge's verdicts" in capsys.readouterr().err


def test_a_reward_model_by_name_is_a_channel_beside_the_functions(project):
    config = AutoConfig.from_pretrained(project / "policy", num_labels=1, pad_token_id=0)
    torch.manual_seed(4)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(project / "models" / "taste")
    tokenizer = load_tokenizer(project / "policy")
    tokenizer.save_pretrained(project / "models" / "taste")
    words = ["--reward_model_name_or_path", "models/taste", "--reward_funcs", "mentions.brevity_reward"]
    logs = ["--log_completions", "true", "--max_steps", "1"]
    assert main(["train", "--config", "run.yaml", *words, *logs]) == 0
    (entry,) = logged(project / "run")
    assert {name for name in entry if name.endswith("/weight")} >= {"channels/taste/weight"}
    table = completions_table(project / "run", 1)
    model = AutoModelForSequenceClassification.from_pretrained(project / "models" / "taste")
    for prompt, completion, score in zip(table["prompt"], table["completion"], table["taste"], strict=True):
        with torch.no_grad():
            expected = model(**tokenizer(prompt + completion, return_tensors="pt", add_special_tokens=False)).logits
        assert score == pytest.approx(float(expected), abs=1e-5)


MIXTURE = """
datasets:
  - path: rows.jsonl
  - {path: json, data_files: more.jsonl, columns: [prompt, task]}
"""


@pytest.fixture
def mixture(project):
    """A second file of rows, and a configuration that mixes it with the first."""
    more = [
        {"prompt": row["prompt"], "task": {"topics": row["topics"]}, "other": 1} for row in mentions.prompts(6, seed=2)
    ]
    (project / "more.jsonl").write_text("".join(json.dumps(row) + "\n" for row in more))
    (project / "mixed.yaml").write_text(without("dataset_name") + MIXTURE)
    return [
        json.loads(line) for name in ("rows", "more") for line in (project / f"{name}.jsonl").read_text().splitlines()
    ]


def rows_of(*words):
    return trl_run._rows(*configure(read(["--config", "mixed.yaml", *words]))[:2])


def test_a_mixture_is_the_data_sets_one_after_the_other(mixture, project):
    as_json = '{"path": "json", "data_files": "more.jsonl", "columns": ["task", "prompt"]}'
    for words in ([], ["--datasets", "rows.jsonl", "more.jsonl"], ["--datasets", "rows.jsonl", as_json]):
        rows, tests = rows_of(*words)
        assert tests is None
        assert rows["prompt"] == [row["prompt"] for row in mixture]
        assert rows["topics"] == [row["task"]["topics"] for row in mixture]  # dataset_columns
    assert "other" not in rows_of()[0].column_names


def test_a_mixtures_held_out_rows_are_the_same_in_every_process_and_run(mixture, project):
    words = [
        "--test_split_size",
        "0.25",
        "--eval_strategy",
        "steps",
        "--eval_steps",
        "1",
        "--num_generations_eval",
        "4",
    ]
    rows, tests = rows_of(*words)
    assert sorted([*rows["prompt"], *tests["prompt"]]) == sorted(row["prompt"] for row in mixture)
    assert len(tests) == 4  # of 14, rounded up
    assert [part["prompt"] for part in rows_of(*words)] == [rows["prompt"], tests["prompt"]]
    assert rows_of(*words, "--seed", "9")[1]["prompt"] != tests["prompt"]
    assert main(["train", "--config", "mixed.yaml", "--max_steps", "1", *words]) == 0
    assert any(
        "eval_loss" in json.loads(line) for line in (project / "run" / "metrics.jsonl").read_text().splitlines()
    )
    settings = json.loads((project / "run" / "run.json").read_text())["settings"]
    assert [part["path"] for part in settings["datasets"]] == ["rows.jsonl", "json"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dataset_name", "rows.jsonl"], "dataset_name has no effect with datasets, a mixture"),
        (["--dataset_format", "rar"], "dataset_format has no effect with datasets, a mixture"),
        (["--datasets", "absent.jsonl"], "cannot mix the data sets absent.jsonl"),
        (["--datasets", '{"file": "rows.jsonl"}'], "is no data set of a mixture"),
        (["--datasets", '{"path": '], "is no data set of a mixture"),
        (["--eval_strategy", "steps", "--eval_steps", "1"], "evaluation needs test_split_size"),
        (["--reward_model_name_or_path", "models/absent"], "cannot load reward model 'models/absent'"),
    ],
)
def test_what_does_not_fit_a_mixture_or_a_reward_model_is_one_line(mixture, capsys, words, message):
    assert main(["train", "--config", "mixed.yaml", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_the_split_of_a_mixture_without_one_is_refused(project, capsys):
    assert main(["train", "--config", "run.yaml", "--test_split_size", "0.5"]) == 2
    assert "test_split_size has no effect with dataset_name, which is one data set" in capsys.readouterr().err


def signalled(project, monkeypatch, *numbers):
    """Status of a run whose second step sends signals to its own process."""
    monkeypatch.setenv("TEST_SIGNALS", " ".join(str(int(number)) for number in numbers))
    words = ["--reward_funcs", "my_rewards.signalling", "--max_steps", "9", "--save_strategy", "no"]
    own = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    try:
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        status = main(["train", "--config", "run.yaml", *words])
        assert {number: signal.getsignal(number) for number in before} == before
    finally:
        signal.signal(signal.SIGINT, own)
    return status


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_step_and_saves(project, monkeypatch, capsys, number, status):
    assert signalled(project, monkeypatch, number) == status
    assert [path.name for path in (project / "run").glob("checkpoint-*")] == ["checkpoint-2"]
    assert [entry["step"] for entry in logged(project / "run")] == [1, 2]
    assert not (project / "run" / "model.safetensors").exists()  # the run is not done
    printed = capsys.readouterr()
    assert "--resume_from_checkpoint last --output_dir run" in printed.out
    assert "once more stops at once" in printed.err


def test_a_run_that_is_killed_leaves_its_settings_and_log_for_a_report(project):
    inside = {"x": [{"api_key": "secret"}], "Authorization": "secret", "seed": 3}
    judge = json.dumps({"model": "m", "base_url": "http://me:secret@127.0.0.1:1/v1", "extra": inside})
    changed = ["--reward_funcs", "my_rewards.signalling", "--max_steps", "9", "--method", "gdpo"]
    words = ["train", "--config", "run.yaml", *changed, "--judge", judge, "--hub_token", "secret"]
    killed = forked.start(words, printed=project / "printed.txt", TEST_SIGNALS=str(int(signal.SIGKILL)))
    killed.join()
    assert killed.exitcode == -signal.SIGKILL, (project / "printed.txt").read_text()[-2000:]
    folder = project / "run"
    kept = (folder / "run.json").read_text()
    settings = json.loads(kept)["settings"]
    assert (settings["method"], settings["model_name_or_path"], settings["learning_rate"]) == ("gdpo", "policy", 1e-3)
    assert "secret" not in kept
    assert settings["judge"]["extra"] == {"x": [{}], "seed": 3}
    (line,) = (folder / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line)["step"] == 1
    (folder / "metrics.jsonl").write_text(f'{line}\n{{"rvpo/k": 1.0, "st')  # killed while it wrote
    assert main(["report", "run"]) == 0
    assert "1 logged step, 1 to 1: gdpo, policy, rows.jsonl, step 1 of 9" in (folder / "report.html").read_text()
    card = (folder / "README.md").read_text()
    assert "trained with the method gdpo of rvpo.\n" in card
    assert "montero2026rvpo" not in card


def test_a_second_ctrl_c_stops_at_once(project, monkeypatch):
    assert signalled(project, monkeypatch, signal.SIGINT, signal.SIGINT) == 130
    assert not list((project / "run").glob("checkpoint-*"))


# --- Input that is wrong ---

WRONG = {
    "no configuration file": (["--config", "gone.yaml"], "gone.yaml"),
    "config without a file": (["--config"], "--config"),
    "unknown key": (["--config", "unknown.yaml"], "k_shedule"),
    "yaml that is a list": (["--config", "list.yaml"], "list.yaml"),
    "yaml that is empty": (["--config", "empty.yaml"], "empty.yaml"),
    "yaml that is broken": (["--config", "broken.yaml"], "broken.yaml"),
    "unknown option": (["--config", "run.yaml", "--k_shedule", "linear"], "--k_shedule"),
    "unknown method": (["--config", "run.yaml", "--method", "rvop"], "unknown method 'rvop': did you mean 'rvpo'?"),
    "unknown reward": (
        ["--config", "run.yaml", "--reward_funcs", "tool_formt"],
        "unknown reward 'tool_formt': did you mean 'tool_format'?",
    ),
    "no such module": (["--config", "run.yaml", "--reward_funcs", "gone.reward"], "cannot load reward 'gone.reward'"),
    "no such function": (
        ["--config", "run.yaml", "--reward_funcs", "my_rewards.gone"],
        "cannot load reward 'my_rewards.gone'",
    ),
    "no module before the dot": (["--config", "run.yaml", "--reward_funcs", ".gone"], "cannot load reward '.gone'"),
    "a reward that cannot be called": (
        ["--config", "run.yaml", "--reward_funcs", "my_rewards.value"],
        "my_rewards.value",
    ),
    "no rows": (["--config", "run.yaml", "--dataset_name", "gone.jsonl"], "there is no file gone.jsonl"),
    "no such column": (
        ["--config", "run.yaml", "--dataset_columns", '{"topics": "task.topic"}'],
        "there is no 'topic' on the path 'task.topic' of a row; there is ['topics']",
    ),
    "columns that are no mapping": (
        ["--config", "run.yaml", "--dataset_columns", "topics=task.topics"],
        "dataset_columns must be a JSON mapping",
    ),
    "no model": (["--config", "nomodel.yaml"], "model_name_or_path is not set; give it in the config file or as --"),
    "no rewards": (["--config", "norewards.yaml"], "reward_funcs is not set; give it in the config file or as --"),
    "no data": (["--config", "nodata.yaml"], "dataset_name is not set; give it in the config file or as --"),
    "no such model": (["--config", "run.yaml", "--model_name_or_path", "./gone"], "./gone"),
    "nothing to resume": (
        ["--config", "run.yaml", "--resume_from_checkpoint", "last"],
        "there is no checkpoint in run to resume from",
    ),
    "no such checkpoint": (
        ["--config", "run.yaml", "--resume_from_checkpoint", "run/checkpoint-7"],
        "there is no checkpoint folder run/checkpoint-7",
    ),
    "batch that does not fit": (["--config", "run.yaml", "--num_generations", "3"], "num_generations"),
}


@pytest.mark.parametrize(("words", "message"), WRONG.values(), ids=WRONG)
def test_wrong_input_is_one_line_and_status_2(project, capsys, words, message):
    (project / "unknown.yaml").write_text(YAML + "k_shedule: linear\n")
    (project / "list.yaml").write_text("- a\n")
    (project / "empty.yaml").write_text("")
    (project / "broken.yaml").write_text("a: [1\nb: }")
    for file, key in {"nomodel": "model_name", "norewards": "reward_funcs", "nodata": "dataset_name"}.items():
        (project / f"{file}.yaml").write_text(without(key))
    assert main(["train", *words]) == 2
    printed = capsys.readouterr().err.splitlines()
    ours = [line for line in printed if line.startswith("rvpo: error: ")]
    assert len(ours) == 1
    assert message in ours[0]
    assert printed[-1] == ours[0]
    assert "Traceback" not in "\n".join(printed)


def test_a_wrong_channel_is_refused_before_the_weights_are_loaded(project, capsys):
    """A model without its file of weights gets as far as its tokenizer."""
    shutil.copytree(project / "policy", project / "hollow", ignore=shutil.ignore_patterns("*.safetensors"))
    words = ["train", "--config", "run.yaml", "--model_name_or_path", "hollow"]
    for option in ("channel_weights", "channel_ranges", "channel_conditions"):
        value = {"channel_weights": 2.0, "channel_ranges": [0, 1], "channel_conditions": "mention >= 1"}[option]
        assert main([*words, f"--{option}", json.dumps({"brevty_reward": value})]) == 2
        assert "brevty_reward" in capsys.readouterr().err.splitlines()[-1]
    with pytest.raises(OSError, match="safetensors"):
        main([*words, "--channel_weights", '{"brevity_reward": 2.0}'])


def test_an_error_of_the_users_own_reward_is_not_hidden(project):
    (project / "my_rewards.py").write_text("def reward(completions, **columns):\n    return 1 / 0\n")
    with pytest.raises(ZeroDivisionError):
        main(["train", "--config", "run.yaml", "--reward_funcs", "my_rewards.reward"])


def test_a_reward_that_returns_nonsense_is_one_line_and_status_2(project, capsys):
    reward = "@rvpo.vector_reward('a')\ndef reward(completions, **columns):\n    return [[1.0]]\n"
    (project / "my_rewards.py").write_text(f"import rvpo\n\n{reward}")
    assert main(["train", "--config", "run.yaml", "--reward_funcs", "my_rewards.reward"]) == 2
    assert "rvpo: error: vector reward 'reward' must return 8 rows" in capsys.readouterr().err
