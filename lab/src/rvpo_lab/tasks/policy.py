"""A tiny policy of the Qwen2 architecture, built and warm-started on this machine.

    folder = build_policy("runs/policy", word_tokenizer(["red", "green", "blue"]))
    warm_start(folder, [("red ?", "green")], steps=50)

The folder then loads like any model folder, but for its tokenizer: use `rvpo.llm.tokenizer.load_tokenizer(folder)`.
The policy that a task starts from, `warm_policy`, is made once and then taken from a cache.
"""

import hashlib
import json
import math
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    set_seed,
)

from rvpo_lab.tasks.task import Task

__all__ = [
    "SPECIAL",
    "PairsSeen",
    "build_policy",
    "byte_tokenizer",
    "cache_folder",
    "warm_policy",
    "warm_start",
    "word_tokenizer",
    "wrap_tokenizer",
]

SPECIAL = ["<pad>", "<eos>", "<unk>"]


def wrap_tokenizer(tokenizer: Tokenizer, chat_template: str | None = None) -> PreTrainedTokenizerFast:
    """Wrap a tokenizer for transformers, padding on the left as generation needs."""
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=SPECIAL[0],
        eos_token=SPECIAL[1],
        unk_token=SPECIAL[2],
        padding_side="left",
        # Qwen2 takes no token_type_ids; without this generate() of transformers 4 is handed them.
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
        chat_template=chat_template,
    )


def word_tokenizer(words: Iterable[str]) -> PreTrainedTokenizerFast:
    """Return a tokenizer with one token for each word; text is split at spaces."""
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *dict.fromkeys(words)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=SPECIAL[2]))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return wrap_tokenizer(tokenizer)


def byte_tokenizer(
    texts: Iterable[str], size: int, *, chat_template: str | None = None, extra: Sequence[str] = ()
) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer of `size` tokens on texts; `extra` strings are one token each
    (words only where they stand alone)."""
    tokenizer = Tokenizer(models.BPE())
    split_digits = pre_tokenizers.Split(Regex(r"\d"), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split_digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=SPECIAL,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer.add_tokens([AddedToken(text, single_word=text.isidentifier(), normalized=False) for text in extra])
    return wrap_tokenizer(tokenizer, chat_template)


def build_policy(
    folder: str | Path,
    tokenizer: PreTrainedTokenizerFast,
    *,
    hidden_size: int = 128,
    layers: int = 4,
    max_length: int = 512,
    seed: int = 0,
) -> Path:
    """Write a Qwen2 model with random weights and its tokenizer to a folder; return the folder.

    The defaults give about 0.8 million parameters beside the embeddings (tied).
    """
    set_seed(seed)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=4 * hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=max(hidden_size // 32, 1),
        num_key_value_heads=max(hidden_size // 32, 1),
        max_position_embeddings=max_length,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    model = Qwen2ForCausalLM(config)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Path(folder)


def warm_start(
    folder: str | Path,
    pairs: Sequence[tuple[str, str]],
    *,
    steps: int,
    batch_size: int = 32,
    learning_rate: float = 2e-3,
    seed: int = 0,
    on_step: Callable[[int, float], None] | None = None,
) -> float:
    """Fine-tune the policy in a folder on (prompt, answer) pairs, in place; return the last loss.

    Next-token loss on the answers and the end token, AdamW with linear warm-up over a tenth of the steps and
    cosine decay, pairs drawn with replacement by the seed.
    """
    model = Qwen2ForCausalLM.from_pretrained(folder)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    examples = [_example(tokenizer, prompt, answer) for prompt, answer in pairs]
    draw = random.Random(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.0)
    warm_up = max(steps // 10, 1)
    model.train()
    loss = math.nan
    for step in range(steps):
        decay = 0.5 * (1 + math.cos(math.pi * step / steps))
        optimizer.param_groups[0]["lr"] = learning_rate * min((step + 1) / warm_up, 1.0) * decay
        batch = _batch(draw.choices(examples, k=batch_size), tokenizer.pad_token_id)
        output = model(**batch)
        output.loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        loss = float(output.loss.detach())
        if on_step is not None:
            on_step(step, loss)
    model.save_pretrained(folder)
    return loss


def _example(tokenizer: PreTrainedTokenizerFast, prompt: str, answer: str) -> tuple[list[int], list[int]]:
    """Return token ids and labels; the prompt's labels are -100, which the loss leaves out."""
    before = tokenizer(prompt).input_ids
    after = [*tokenizer(answer).input_ids, tokenizer.eos_token_id]
    return before + after, [-100] * len(before) + after


def _batch(examples: Sequence[tuple[list[int], list[int]]], pad: int) -> dict[str, Any]:
    """Return examples as tensors, padded on the right."""
    longest = max(len(ids) for ids, _ in examples)
    return {
        "input_ids": torch.tensor([ids + [pad] * (longest - len(ids)) for ids, _ in examples]),
        "attention_mask": torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids, _ in examples]),
        "labels": torch.tensor([labels + [-100] * (longest - len(labels)) for _, labels in examples]),
    }


HIDDEN_SIZE, LAYERS, STEPS, BATCH, PAIRS, LEARNING_RATE = 128, 3, 300, 48, 20_000, 3e-3
"""0.8 million parameters, 300 steps: about half a minute on two cores. Chosen so that the policy has learnt how often
the author meets each kind of criterion, and with which words."""

PairsSeen = Callable[[int, float], None]


def cache_folder() -> Path:
    """Return where policies are kept: $RVPO_CACHE, or rvpo in the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("RVPO_CACHE") or Path(home) / "rvpo")


def policy_key(task: Task, steps: int, hidden_size: int = HIDDEN_SIZE) -> str:
    """Return the name of a warm start: it changes with whatever changes the policy."""
    vocabulary = sorted(task.tokenizer().get_vocab().items())
    design = [vocabulary, task.pairs(100, 0), hidden_size, LAYERS, steps, BATCH, PAIRS, LEARNING_RATE]
    return f"{task.policy}-{hashlib.sha256(json.dumps(design).encode()).hexdigest()[:12]}"


def warm_policy(
    task: Task, *, steps: int = STEPS, hidden_size: int = HIDDEN_SIZE, on_step: PairsSeen | None = None
) -> Path:
    """Return the folder of the task's policy, made first if the cache has none.

    Always seed 0: what is compared later starts from one policy, as with one base model. `on_step(step, loss)`
    is called while the policy is made.
    """
    folder = cache_folder() / "policies" / policy_key(task, steps, hidden_size)
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Made beside its place and moved there whole, so that a killed process leaves nothing that looks finished.
    making = Path(tempfile.mkdtemp(prefix="making-", dir=folder.parent))
    try:
        build_policy(making, task.tokenizer(), hidden_size=hidden_size, layers=LAYERS)
        warm_start(
            making, task.pairs(PAIRS, 0), steps=steps, batch_size=BATCH, learning_rate=LEARNING_RATE, on_step=on_step
        )
        try:
            making.rename(folder)
        except OSError:
            if not folder.is_dir():  # another process was faster, which is as well
                raise
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return folder
