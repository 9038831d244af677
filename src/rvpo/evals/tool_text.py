"""Native tool calls as text, so that an answer is one text wherever it comes from."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["native_text", "split_calls", "with_text_arguments"]

OPENING, CLOSING = "<tool_call>", "</tool_call>"
"""Tags of a call in a local model's text, in the form of Hermes and Qwen."""


def split_calls(text: str) -> tuple[str, list[str]]:
    """Return a text without its `<tool_call>` blocks, and what these hold; in linear time, whatever is left open.

    >>> split_calls("Look: <tool_call>{}</tool_call>, <tool_call>")
    ('Look: , <tool_call>', ['{}'])
    """
    outside, blocks, end = "", [], 0
    while (start := text.find(OPENING, end)) >= 0 and (close := text.find(CLOSING, start)) >= 0:
        outside += text[end:start]
        blocks.append(text[start + len(OPENING) : close])
        end = close + len(CLOSING)
    return outside + text[end:], blocks


def native_text(content: str, calls: Sequence[tuple[str, str]]) -> str:
    """Return an answer's text followed by its tool calls, each as a `<tool_call>` block with name and arguments.

    It is what a local model's own text has in the form of Hermes and Qwen. Arguments that are no JSON stay a text.
    """
    blocks = []
    for name, arguments in calls:
        try:
            values = json.loads(arguments)
        except (ValueError, RecursionError):
            values = arguments
        # No tag inside of a value may end the block.
        call = json.dumps({"name": name, "arguments": values}, ensure_ascii=False).replace("<", "\\u003c")
        blocks.append(f"<tool_call>\n{call}\n</tool_call>")
    return "\n".join(([content] if content else []) + blocks)


def with_text_arguments(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message with the arguments of its calls as JSON text, as servers want them; templates want objects."""
    if "tool_calls" not in message:
        return dict(message)
    calls = [
        call | {"function": call["function"] | {"arguments": json.dumps(call["function"]["arguments"])}}
        for call in message["tool_calls"]
    ]
    return dict(message) | {"tool_calls": calls}
