"""Prompts of the judge: files beside this one, whose hash is part of every verdict's key.

A file holds the system message, a line "=== user" and the user message. Slots are written {{name}}; they are filled
in one pass, so that text put into one slot is never read as another.
"""

import hashlib
import hmac
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rvpo.errors import ConfigError
from rvpo.llm.model_text import json_text, whole

__all__ = ["PROMPTS", "Conversation", "Prompt", "Sheet", "load_prompt"]

PROMPTS = {"criteria": "criteria.txt", "rating": "rating.txt"}
SLOT = re.compile(r"\{\{(\w+)\}\}")
SLOTS = frozenset({"nonce", "conversation", "answer", "criteria"})
CRITERIA = "{{criteria}}"
DIVIDER = "=== user\n"
ID_DIGITS = 10
"""Hexadecimal digits of an id, drawn by a secret: 40 bits that no answer can guess and a model still copies."""

Conversation = str | Sequence[Mapping[str, Any]]
"""A prompt: a text, or chat messages."""


@dataclass(frozen=True)
class Prompt:
    """The judge's instructions."""

    system: str
    user: str

    @cached_property
    def digest(self) -> str:
        """Hash of the whole prompt; another wording is another judge."""
        return hashlib.sha256(f"{self.system}\0{self.user}".encode()).hexdigest()

    def sheet(self, conversation: Conversation, answer: str) -> "Sheet":
        """Return what all calls about one answer have in common."""
        messages = conversation if isinstance(conversation, str) else list(conversation)
        quoted = {"conversation": _quoted(messages), "answer": _quoted(answer)}
        judged = f"{self.digest}\0{quoted['conversation']}\0{quoted['answer']}"
        slots = quoted | {"nonce": hashlib.sha256(judged.encode()).hexdigest()[:12]}
        before, after = (SLOT.sub(lambda slot: slots[slot[1]], part) for part in self.user.split(CRITERIA))
        return Sheet(self.system, before, after)


@dataclass(frozen=True)
class Sheet:
    """A conversation and its answer, written for the judge once for all calls about it.

    Both come first in a message and the criteria last, so that a server's prefix cache serves every call. Block tags
    carry a nonce: a hash of the judged text itself, which the text cannot contain, and which is the same every time.
    """

    system: str
    before: str
    """The user message up to the criteria."""
    after: str

    @cached_property
    def digest(self) -> str:
        """Hash of what all calls about one answer begin with; it is most of a call, so keys take it from here."""
        return hashlib.sha256(json.dumps([self.system, self.before]).encode()).hexdigest()

    def messages(
        self, criteria: Sequence[tuple[str, str]], secret: bytes = b"", sample: Sequence[int] = ()
    ) -> tuple[list[dict[str, str]], tuple[str, ...]]:
        """Return the chat messages for one call, and the id by which each criterion is asked for.

        An id depends on the secret, the judged text, the criterion and the sample: no answer can name it, and no other
        call has it, so that a reply to another call says nothing here.

        Args:
            criteria: pairs of (mark, text); the mark, for example an importance, may be empty.
            secret: of whoever asks; equal calls with one secret have equal ids.
            sample: numbers that tell repetitions of a call apart.
        """
        ids = tuple(
            f"{number}-{self._id(secret, [*criterion, *map(str, sample)])}"
            for number, criterion in enumerate(criteria, 1)
        )
        lines = []
        for name, (mark, text) in zip(ids, criteria, strict=True):
            entry = {"id": name, "importance": mark, "criterion": text} if mark else {"id": name, "criterion": text}
            lines.append(_quoted(entry))
        user = f"{self.before}{chr(10).join(lines)}{self.after}"
        return [{"role": "system", "content": self.system}, {"role": "user", "content": user}], ids

    def _id(self, secret: bytes, parts: Sequence[str]) -> str:
        text = json.dumps([self.digest, *parts])
        return hmac.new(secret, text.encode(), hashlib.sha256).hexdigest()[:ID_DIGITS]


def _quoted(value: object) -> str:
    """Return a value as JSON; "<" is written as an escape, so that no text can open or close a block."""
    return json_text(whole(value), allow_nan=True).replace("<", "\\u003c")


def load_prompt(name: str | Path) -> Prompt:
    """Return a prompt by name (a key of `PROMPTS`) or file. Raises ConfigError if the file does not fit."""
    file = Path(__file__).parent / PROMPTS[str(name)] if str(name) in PROMPTS else Path(name)
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:  # ValueError: no UTF-8, or a name that no file has
        raise ConfigError(f"cannot read prompt {name}: {error}; built-in prompts are {sorted(PROMPTS)}") from None
    system, divider, user = text.partition(DIVIDER)
    used = set(SLOT.findall(user))
    if not divider or not used <= SLOTS or "answer" not in used or user.count(CRITERIA) != 1 or SLOT.search(system):
        raise ConfigError(
            f"prompt {file} needs a system message, a line '{DIVIDER.strip()}' and a user message with the slots "
            f"{{{{answer}}}} and, once, {CRITERIA} (known: {sorted(SLOTS)}); it has {sorted(used)}"
        )
    return Prompt(system.strip(), user.strip())
