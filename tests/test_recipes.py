"""Every recipe of the paper: parsed, validated, and trained for a step with a tiny Qwen2 in place of its model."""

import json
import math
import re
from pathlib import Path

import pytest
import yaml

from judging.fault_server import FaultServer
from recipe_parts import TEMPLATE, TRUTH, by_hash
from rvpo.cli import train
from rvpo.cli.main import main

CONFIGS = Path(__file__).parents[1] / "configs"
PAPER = CONFIGS / "paper"

RAR = [f"rar_{field}-{size}" for field in ("medicine", "science") for size in ("3b", "7b", "14b")]
RLLA = ["rlla-1.5b", "rlla-3b"]
METHODS = {
    # file: (method, k at the first and the second of two steps, None without one, reward of the RaR recipes)
    "grpo": ("grpo", None, "rubric"),
    "gdpo": ("gdpo", None, "rubric"),
    "hard_min": ("hard_min", None, "rubric"),
    "mean_variance": ("mean_variance", [0.5, 1.25], "rubric"),
    "rvpo_k5": ("rvpo", [5.0, 5.0], "rubric"),
    "rvpo": ("rvpo", [0.5, 1.25], "rubric"),
    "rar_single": ("grpo", None, "rubric_explicit"),
    "rvpo_policy": ("rvpo_policy", [2.0, 2.0], "rubric"),
}
RECIPES = [(setting, method) for setting in RAR for method in METHODS]
RECIPES += [(setting, method) for setting in RLLA for method in METHODS if method != "rar_single"]
MODELS = {size: f"Qwen/Qwen2.5-{size.upper()}" for size in ("1.5b", "3b", "7b", "14b")}


def words(setting, method, *others):
    return ["--config", *(str(PAPER / file) for file in (f"{setting}.yaml", f"methods/{method}.yaml")), *others]


def test_there_is_a_recipe_for_every_row_of_the_paper():
    assert sorted(file.stem for file in PAPER.glob("*.yaml")) == sorted([*RAR, *RLLA, "rar", "rlla"])
    assert {file.stem for file in (PAPER / "methods").glob("*.yaml")} == set(METHODS)
    assert len(RECIPES) == 6 * 8 + 2 * 7


@pytest.mark.parametrize(("setting", "method"), RECIPES)
def test_every_recipe_is_what_the_paper_states(setting, method):
    command = train.read(words(setting, method))
    script, args, model = train.configure(command, "--use_cpu", "true")
    size = setting.split("-")[1]
    assert model.model_name_or_path.removesuffix("-Instruct") == MODELS[size]
    assert args.output_dir == f"runs/{setting}-{method}"
    assert args.method == METHODS[method][0]
    if METHODS[method][1] is None:
        assert (args.k, args.k_schedule, args.k_end) == (None, "constant", None)
    else:
        assert [args.schedule()(step, 2) for step in (0, 1)] == METHODS[method][1]
    assert args.beta > 0
    if setting in RAR:
        field = setting.removeprefix("rar_").split("-")[0]
        assert script.dataset_name == f"anisha2102/RaR-{field.capitalize()}"
        assert script.reward_funcs == [METHODS[method][2]]
        assert (args.num_generations, args.generation_batch_size, args.learning_rate) == (16, 96 * 16, 5e-6)
        assert args.temperature == 1.0
        assert args.max_completion_length < args.vllm_max_model_length == 3584
    else:
        assert script.reward_funcs == ["tool_format", "tool_correctness"]
        assert (args.num_generations, args.generation_batch_size, args.rollouts_per_step) == (4, 512 * 4, 128 * 4)
        assert (args.learning_rate, args.max_steps, args.max_completion_length) == (1e-6, 4 * 100, 1024)
    for processes in (1, 2, 4, 6, 8) if setting in RAR else (1, 2, 4, 8):
        assert args.rollouts_per_step % (args.per_device_train_batch_size * processes) == 0


@pytest.mark.parametrize("setting", RAR + RLLA)
def test_a_recipe_starts_trls_configuration_of_accelerate(setting):
    command = train.read(words(setting, "rvpo", "--num_processes", "4"))
    name = "zero2" if setting in RLLA or "3b" in setting else "zero3"
    option, file, *others = command.to_accelerate
    assert option == "--config_file"
    assert Path(file).parts[-3:] == ("trl", "accelerate_configs", f"{name}.yaml")
    assert others == ["--num_processes", "4"]


@pytest.mark.parametrize(
    ("file", "to_accelerate"), [("lora", "multi_gpu"), ("one_gpu", "single_gpu"), ("vllm_server", "zero3")]
)
def test_what_goes_with_a_recipe(file, to_accelerate):
    command = train.read([*words("rar_science-7b", "gdpo"), str(CONFIGS / "with" / f"{file}.yaml")])
    _, args, model = train.configure(command, "--use_cpu", "true")
    assert Path(command.to_accelerate[1]).stem == to_accelerate
    assert args.output_dir == f"runs/rar_science-7b-gdpo-{file}"
    assert model.use_peft == (file == "lora")
    assert args.vllm_mode == ("server" if file == "vllm_server" else "colocate")
    assert args.rollouts_per_step == 1536


def test_every_other_configuration_is_read():
    folders = {file.relative_to(CONFIGS).parts[0] for file in CONFIGS.rglob("*.yaml")}
    assert folders == {"paper", "with", "rlla_tiny.yaml"}
    _, args, _ = train.configure(train.read(["--config", str(CONFIGS / "rlla_tiny.yaml")]))
    assert args.k_end == 2.0


# --- With a tiny policy ---

SYSTEM = "You may call tools."


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A tiny Qwen2 with random weights, and rows as RaR and RLLA have them."""
    from datasets import Dataset

    from rvpo_lab.tasks.policy import build_policy, byte_tokenizer

    folder = tmp_path_factory.mktemp("recipes")
    tokenizer = byte_tokenizer([], 300, chat_template=TEMPLATE, extra=["<|im_start|>", "<|im_end|>"])
    build_policy(folder / "policy", tokenizer, hidden_size=32, layers=1)
    kinds = [("Essential", 5), ("Important", 3), ("Optional", 1), ("Pitfall", -1)]
    rows = []
    for index in range(8):
        rubric = [
            {"title": kind, "description": f"{kind} Criteria: Says {index}{number}.", "weight": weight}
            for number, (kind, weight) in enumerate(kinds[: 2 + index % 3])
        ]
        answer = {"reference_answer": "Yes.", "question_source": "made up", "rubric_count": len(rubric)}
        rows.append({"question": f"Question {index}?", **answer, "rubric": rubric})
    (folder / "rar.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    chats = [[{"role": "system", "content": SYSTEM}, {"role": "user", "content": f"Add {n}."}] for n in range(8)]
    truth = {"ground_truth": TRUTH, "style": "rule"}
    Dataset.from_list([{"prompt": chat, "reward_model": truth} for chat in chats]).to_parquet(folder / "rlla.parquet")
    return folder


@pytest.fixture(scope="module")
def server():
    with FaultServer(reply=by_hash) as running:
        yield running


def dry_run(project, server, setting, method):
    """The words of a recipe's dry run, with the folder's policy, rows and judge."""
    judge = {"judge": {"model": "m", "base_url": server.url, "store": "v.sqlite", "concurrency": 8}}
    Path("here.yaml").write_text(yaml.safe_dump(judge))
    rows = project / ("rar.jsonl" if setting in RAR else "rlla.parquet")
    here = [*words(setting, method), str(CONFIGS / "with" / "dry_run.yaml"), "here.yaml"]
    here += ["--model_name_or_path", str(project / "policy"), "--dataset_name", str(rows), "--output_dir", "run"]
    here += ["--vllm_tensor_parallel_size", "1"]  # no vLLM here
    return [*here, "--disable_tqdm", "true", "--log_completions", "false"]


@pytest.fixture(scope="module")
def logs():
    """Configuration -> the log of its dry run."""
    return {}


def log_of(logs, command):
    """The log of a dry run. Recipes that differ in what it replaces alone, as model and memory, share one."""
    configuration = repr(train.configure(train.read(command)))
    if configuration not in logs:
        assert main(["train", *command]) == 0
        logs[configuration] = list(map(json.loads, Path("run/metrics.jsonl").read_text().splitlines()))
    return logs[configuration]


@pytest.fixture
def elsewhere(project, tmp_path, monkeypatch):
    """A current folder of its own."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", project / "cache")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("setting", "method"), RECIPES)
@pytest.mark.usefixtures("elsewhere")
def test_one_step_of_every_recipe(project, server, logs, setting, method):
    (step,) = (entry for entry in log_of(logs, dry_run(project, server, setting, method)) if "loss" in entry)
    _, k, reward = METHODS[method]
    assert step.get("rvpo/k") == (None if k is None else k[0])
    assert math.isfinite(step["loss"])
    channels = {key.split("/", 1)[1].removesuffix("/mean") for key in step if re.fullmatch("channels/.*/mean", key)}
    if setting in RLLA:
        assert channels == {"format_reward", "correctness_reward"}
        return
    assert step["grad_norm"] > 0
    if reward == "rubric_explicit":
        assert channels == {"rubric_explicit"}
    else:  # each prompt has two to four of them
        assert {"rubric/essential", "rubric/important"} <= channels
        assert channels <= {f"rubric/{kind}" for kind in ("essential", "important", "optional", "pitfall")}


@pytest.mark.usefixtures("elsewhere")
def test_recipes_share_a_dry_run_only_where_their_methods_and_rewards_are_the_same(project, server):
    configurations = {
        (setting.split("_")[0].split("-")[0], method, repr(train.configure(train.read(command))))
        for setting, method in RECIPES
        for command in [dry_run(project, server, setting, method)]
    }
    assert len(configurations) == 8 + 7  # methods of RaR and of RLLA
    assert len({configuration for *_, configuration in configurations}) == 8 + 7
