"""The tokenizer of a model, as it was saved."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerFast

from rvpo.errors import ConfigError

__all__ = ["check_decoded", "load_tokenizer", "special_tokens"]


def load_tokenizer(name_or_path: str | Path, **kwargs: Any) -> Any:
    """Return the tokenizer of a model, as AutoTokenizer does, but a generic tokenizer as it was saved.

    AutoTokenizer (transformers 5) takes Qwen2's own tokenizer class for every Qwen2 model, whatever the
    folder's tokenizer_config.json says, and so would read a word-level vocabulary as byte pairs.
    """
    file = Path(name_or_path) / "tokenizer_config.json"
    if file.is_file():
        saved_as = json.loads(file.read_text()).get("tokenizer_class")
        if saved_as in ("PreTrainedTokenizerFast", "TokenizersBackend"):
            return PreTrainedTokenizerFast.from_pretrained(name_or_path, **kwargs)
    return AutoTokenizer.from_pretrained(name_or_path, **kwargs)


def special_tokens(tokenizer: Any) -> dict[int, str]:
    """Return the tokens that decoding leaves out by default, by their number."""
    added = getattr(tokenizer, "added_tokens_decoder", {}).items()
    named = zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=False)
    return {number: token.content for number, token in added if token.special} | dict(named)


def check_decoded(reward: str, tags: Iterable[str], tokenizer: Any) -> None:
    """Raise ConfigError if decoding leaves out tags that a reward reads in completions."""
    dropped = sorted(set(tags) & set(special_tokens(tokenizer).values()))
    if dropped:
        raise ConfigError(
            f"{reward} reads {', '.join(dropped)} in completions, but to this tokenizer these are special tokens, "
            "which decoding leaves out: it would reward none. Save a tokenizer to which they are ordinary ones "
            "(special_tokens=False), or take another model or reward"
        )
