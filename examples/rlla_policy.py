"""Build and warm-start a small policy for RLLA tool calling, from local files, on a CPU.

    python examples/rlla_policy.py --rows rlla_4k_test80.parquet --sft rlla_sft400.json --out runs/rlla_policy
    rvpo train --config configs/rlla_tiny.yaml --dataset_name rlla_4k_test80.parquet

The tokenizer (byte pairs, names of tools and parameters one token each) is trained on the rows. The policy is a
Qwen2 of about 1 million parameters whose chat template keeps the tools' names and parameters and the end of the
dialogue, and leaves out the instructions that all prompts share. Supervised answers have their thoughts cut to one
sentence, and each is seen with its tools renamed and reordered at random, so that the policy learns to copy from
the prompt. It calls tools badly but not never: enough for both reward channels to move.
"""

import argparse
import json
import random
import re
from pathlib import Path

from datasets import load_dataset

from rvpo.tasks.policy import build_policy, byte_tokenizer, warm_start

CHAT_TEMPLATE = """\
{%- for message in messages -%}
{%- if message['role'] == 'system' -%}
[tools]
{% for line in message['content'].split('\\n') -%}
{%- if '. Name: ' in line %}{{ line.split('. Name: ')[1] }} ({% endif -%}
{%- if line.startswith('Parameters: ') -%}
{% for part in line.split('": {"description"')[:-1] %} {{ part.split('"')[-1] }}{% endfor %} )
{% endif -%}
{%- endfor -%}
{%- else -%}
[{{ message['role'] }}]
{{ message['content'][-240:] }}
{% endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
[assistant]
{% endif -%}
"""
TAGS = ("<tool_call>", "</tool_call>", "<response>", "</response>")
THOUGHT = "<think> I should use the appropriate tool with proper parameters to respond to the user's need. </think>"


def answer_of(output: str) -> str:
    """Return a supervised answer with one sentence in the place of its thoughts."""
    return THOUGHT + re.sub(r"^.*?</think>", "", output, count=1, flags=re.DOTALL)


def renamed(row: dict[str, str], names: list[str], draw: random.Random) -> tuple[list[dict[str, str]], str]:
    """Return a supervised row as a chat and an answer, its tools shuffled and renamed in both."""
    head, *tools = re.split(
        r"^\d+\. Name: ", row["instruction"].split("**Steps for Each Turn**")[0], flags=re.MULTILINE
    )
    answer = answer_of(row["output"])
    shown = []
    for tool, new in zip(tools, draw.sample(names, len(tools)), strict=True):
        old, _, rest = tool.partition("\n")
        shown.append(f"{new}\n{rest.rstrip()}\n")
        answer = answer.replace(f'"name": {json.dumps(old)}', f'"name": {json.dumps(new)}')
    draw.shuffle(shown)
    system = head + "".join(f"{number}. Name: {tool}" for number, tool in enumerate(shown, 1))
    return [{"role": "system", "content": system}, {"role": "user", "content": row["input"]}], answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", required=True, help="RLLA rows as parquet; only the prompts train the tokenizer")
    parser.add_argument("--sft", required=True, help="supervised rows as JSON: instruction, input, output")
    parser.add_argument("--out", type=Path, default=Path("runs/rlla_policy"))
    parser.add_argument("--steps", type=int, default=700, help="steps of supervised fine-tuning (default: 700)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    supervised = json.loads(Path(options.sft).read_text())
    rows = load_dataset("parquet", data_files=options.rows, split="train")
    chats = [[{"role": "system", "content": row["instruction"]}] for row in supervised]
    tools = [chat[0]["content"] for chat in [*chats, *rows["prompt"]]]
    names = sorted({name for tool in tools for name in re.findall(r"^\d+\. Name: (.+)$", tool, re.MULTILINE)})
    parameters = sorted({name for tool in tools for name in re.findall(r'"(\w{4,})": \{"description"', tool)})
    draw = random.Random(options.seed)
    examples = [renamed(row, names, draw) for _ in range(20) for row in supervised]
    chats = [chat for chat, _ in examples[: len(supervised)]] + list(rows["prompt"])
    plain = byte_tokenizer([], 300, chat_template=CHAT_TEMPLATE)
    texts = [plain.apply_chat_template(chat, tokenize=False) for chat in chats]
    tokenizer = byte_tokenizer(
        texts + [answer for _, answer in examples],
        2000,
        chat_template=CHAT_TEMPLATE,
        extra=[*TAGS, THOUGHT, *names, *parameters],
    )
    pairs = [
        (tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True), answer)
        for chat, answer in examples
    ]
    # A few very long dialogues would set the time of every padded batch.
    pairs = [(prompt, answer) for prompt, answer in pairs if len(prompt) + len(answer) < 1500]
    folder = build_policy(options.out, tokenizer, hidden_size=128, layers=3, max_length=4096, seed=options.seed)

    def report(step: int, loss: float) -> None:
        if step % 50 == 0:
            print(f"warm start {step}/{options.steps}  loss {loss:.3f}", flush=True)

    warm_start(
        folder, pairs, steps=options.steps, batch_size=16, learning_rate=3e-3, seed=options.seed, on_step=report
    )
    print(f"policy: {folder}")


if __name__ == "__main__":
    main()
