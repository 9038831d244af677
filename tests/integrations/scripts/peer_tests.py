"""TRL's own GRPO tests with this project's classes in place of TRL's: which tests end otherwise than with TRL's.

    python tests/integrations/scripts/peer_tests.py CHECKOUT [-k EXPRESSION]

CHECKOUT is a clone of TRL at the tag of the release that is installed. Its hub models and data are replaced by small
ones that are made here. What needs others fails the same with both classes: those that see images, Nemotron-H, remote
code, and two tests that know the ids of Qwen's tokens. Prints both outcomes of every test that differs; the exit
status is their number.
"""

import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

TEXTS = ["Beautiful is better than", "Simple is better than", "Flat is better than", "Now is better than"] * 5
WORDS = ["Beautiful", "Simple", "Flat", "Now", "is", "better", "than", "ugly", "complex", "nested", "never"]
TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}assistant {% endif %}"
)
OUTCOME = re.compile(r"(PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS)")

CLASSES = """
import dataclasses, os, trl
import trl.trainer.grpo_trainer as module

if os.environ["RVPO_PEER_TESTS"] == "ours":
    from rvpo import RVPOConfig as Base, RVPOTrainer as Trainer
else:
    Base, Trainer = trl.GRPOConfig, trl.GRPOTrainer

@dataclasses.dataclass
class Config(Base):  # on a CPU, and with the method that is TRL's
    use_cpu: bool = True
    bf16: bool = False
    method: str = "grpo"

module.GRPOConfig = trl.GRPOConfig = Config
trl.GRPOTrainer = Trainer
"""


SIZES = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "moe_intermediate_size": 8,
    "num_local_experts": 4,
    "num_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
}
"""Of every model; each kind takes those that it knows."""
LANGUAGE_MODELS = {
    "tiny-Qwen2ForCausalLM-2.5": "qwen2",
    "tiny-Qwen3ForCausalLM": "qwen3",
    "tiny-Qwen3MoeForCausalLM": "qwen3_moe",
    "tiny-LlamaForCausalLM-3.2": "llama",
    "tiny-MistralForCausalLM-0.2": "mistral",
    "tiny-Gemma2ForCausalLM": "gemma2",
    "tiny-Cohere2ForCausalLM": "cohere2",
    "tiny-Glm4MoeForCausalLM": "glm4_moe",
    "tiny-GptOssForCausalLM": "gpt_oss",
}
REWARD_MODELS = {
    "tiny-Qwen2ForSequenceClassification-2.5": "qwen2",
    "tiny-Qwen3ForSequenceClassification": "qwen3",
    "tiny-LlamaForSequenceClassification-3.2": "llama",
}


def make_models(folder: Path) -> None:
    """Write small random models, by the names that the tests have for those on the hub."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

    from rvpo_lab.tasks.policy import byte_tokenizer

    # Byte-level, as what loads a Qwen2 tokenizer in transformers 5 takes it for one.
    tokenizer = byte_tokenizer([*TEXTS, *WORDS, "user assistant system"], 320, chat_template=TEMPLATE)
    tokens = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
    for models, kind, options in (
        (LANGUAGE_MODELS, AutoModelForCausalLM, {}),
        (REWARD_MODELS, AutoModelForSequenceClassification, {"num_labels": 1}),
    ):
        for name, architecture in models.items():
            known = vars(AutoConfig.for_model(architecture))
            sizes = {size: value for size, value in SIZES.items() if size in known}
            config = AutoConfig.for_model(architecture, vocab_size=len(tokenizer), **sizes, **tokens, **options)
            kind.from_config(config).save_pretrained(folder / name)
            tokenizer.save_pretrained(folder / name)


def make_data(folder: Path) -> None:
    """Write data sets of prompts, by the names of the configurations that the tests load."""
    from datasets import Dataset

    rows = {
        "standard_prompt_only": [{"prompt": text} for text in TEXTS],
        "conversational_prompt_only": [{"prompt": [{"role": "user", "content": text}]} for text in TEXTS],
    }
    lines = ["---", "configs:"]
    for name, of_name in rows.items():
        lines += [f"- config_name: {name}", "  data_files:"]
        for split, part in (("train", of_name[:17]), ("test", of_name[17:])):
            Dataset.from_list(part).to_parquet(folder / name / f"{split}.parquet")
            lines += [f"  - split: {split}", f"    path: {name}/{split}.parquet"]
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]))


def outcomes(checkout: Path, folder: Path, classes: str, words: list[str]) -> dict[str, str]:
    """Run the tests in a folder where the names of the hub are paths; return each test's outcome."""
    environment = os.environ | {"RVPO_PEER_TESTS": classes, "HF_HUB_OFFLINE": "1", "ACCELERATE_USE_CPU": "true"}
    paths = [str(folder), str(checkout), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    file = checkout / "tests" / "test_grpo_trainer.py"
    command = [sys.executable, "-m", "pytest", "-v", "-p", "peer_classes", "--rootdir", str(checkout), str(file)]
    done = subprocess.run([*command, *words], cwd=folder, env=environment, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if "::" in line and OUTCOME.search(line)]
    result = {line.split("::", 1)[1].split(" ")[0]: OUTCOME.search(line)[1] for line in lines if " " in line}
    if not result:
        sys.exit(done.stdout[-2000:] + done.stderr[-2000:])
    return result


def main(checkout: str, *words: str) -> int:
    """Run both and compare."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_models(folder / "trl-internal-testing")
        make_data(folder / "trl-internal-testing" / "zen")
        (folder / "peer_classes.py").write_text(CLASSES)
        with ThreadPoolExecutor() as pool:
            runs = [
                pool.submit(outcomes, Path(checkout), folder, classes, list(words)) for classes in ("stock", "ours")
            ]
        stock, ours = (run.result() for run in runs)
    for title, of_classes in (("TRL's classes", stock), ("ours", ours)):
        counts = {outcome: list(of_classes.values()).count(outcome) for outcome in sorted(set(of_classes.values()))}
        print(title, counts)
    different = [test for test in {**stock, **ours} if stock.get(test) != ours.get(test)]
    for test in different:
        print(f"{test}: {stock.get(test)} with TRL's classes, {ours.get(test)} with ours")
    return len(different)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
