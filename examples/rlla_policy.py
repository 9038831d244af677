"""Build and warm-start a small policy for RLLA tool calling, from local files, on a CPU.

    python examples/rlla_policy.py --rows rlla_4k_test80.parquet --sft rlla_sft400.json --out runs/rlla_policy
    rvpo train --config configs/rlla_tiny.yaml --dataset_name rlla_4k_test80.parquet

The tokenizer (byte pairs, names of tools and parameters one token each) is trained on the rows. The policy is a
Qwen2 of about 1 million parameters whose chat template keeps the tools' names and parameters and the end of the
dialogue, and leaves out the instructions that all prompts share. It is fine-tuned on the supervised answers, their
thoughts cut to one sentence, and on as many prompts of the rows answered by a call of one of their tools at random
with made-up values: so small a policy does not learn in minutes to read an unknown tool's name off the prompt. The
rows' own answers are not used. What is left to learn from the rewards is which tool to call, and the form.
"""

import argparse
import json
import random
import re
from pathlib import Path

from datasets import load_dataset

from rvpo_lab.tasks.policy import build_policy, byte_tokenizer, warm_start

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
VALUES = ("1", "10", "True", "en", 1, 10, True)
THOUGHT = "<think> I should use the appropriate tool with proper parameters to respond to the user's need. </think>"


def answer_of(output: str) -> str:
    """Return a supervised answer with one sentence in the place of its thoughts."""
    return THOUGHT + re.sub(r"^.*?</think>", "", output, count=1, flags=re.DOTALL)


def tools_of(system: str) -> list[tuple[str, list[str]]]:
    """Return name and parameters of each tool that a system prompt lists."""
    shown = re.split(r"^\d+\. Name: ", system.split("**Steps for Each Turn**")[0], flags=re.MULTILINE)[1:]
    return [(tool.partition("\n")[0], re.findall(r'"([^"]+)": \{"description"', tool)) for tool in shown]


def random_call(system: str, draw: random.Random) -> str:
    """Return an answer that calls one of the prompt's tools with made-up values, one in five of a broken form."""
    name, parameters = draw.choice(tools_of(system))
    call = json.dumps({"name": name, "parameters": {key: draw.choice(VALUES) for key in parameters}})
    answer = f"{THOUGHT}\n<tool_call>\n{call}\n</tool_call>"
    return (
        answer
        if draw.random() < 0.8
        else draw.choice([answer.removeprefix(THOUGHT), answer + "\n", f"{THOUGHT}\n{call}"])
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", required=True, help="RLLA rows as parquet; only the prompts train the tokenizer")
    parser.add_argument("--sft", required=True, help="supervised rows as JSON: instruction, input, output")
    parser.add_argument("--out", type=Path, default=Path("runs/rlla_policy"))
    parser.add_argument("--steps", type=int, default=800, help="steps of supervised fine-tuning (default: 800)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    supervised = json.loads(Path(options.sft).read_text())
    rows = load_dataset("parquet", data_files=options.rows, split="train")
    draw = random.Random(options.seed)
    chats = [
        [{"role": "system", "content": row["instruction"]}, {"role": "user", "content": row["input"]}]
        for row in supervised
    ]
    examples = [(chat, answer_of(row["output"])) for chat, row in zip(chats, supervised, strict=True)]
    of_rows = [chat for chat in rows["prompt"] if tools_of(chat[0]["content"])]
    examples += [(chat, random_call(chat[0]["content"], draw)) for _ in range(8) for chat in of_rows]
    chats += of_rows
    tools = [tool for chat in chats for tool in tools_of(chat[0]["content"])]
    names = sorted({name for name, _ in tools})
    parameters = sorted({name for _, names in tools for name in names if len(name) > 3 and name.isidentifier()})
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
    folder = build_policy(options.out, tokenizer, hidden_size=128, layers=2, max_length=4096, seed=options.seed)

    def report(step: int, loss: float) -> None:
        if step % 50 == 0:
            print(f"warm start {step}/{options.steps}  loss {loss:.3f}", flush=True)

    warm_start(
        folder, pairs, steps=options.steps, batch_size=16, learning_rate=3e-3, seed=options.seed, on_step=report
    )
    print(f"policy: {folder}")


if __name__ == "__main__":
    main()
