"""A completion as text: what the rewards of this package read."""

from collections.abc import Mapping, Sequence

__all__ = ["Completion", "completion_text"]

Completion = str | Sequence[Mapping[str, object]]
"""A text, or chat messages."""


def completion_text(completion: object, index: int) -> str:
    """Return the text of a batch's `index`-th completion: itself, or the last assistant message's; "" without one.

    Raises TypeError for what is neither text nor a list of messages.
    """
    if isinstance(completion, str):
        return completion
    if not isinstance(completion, Sequence) or not all(isinstance(message, Mapping) for message in completion):
        raise TypeError(
            f"completions[{index}] must be a str or a list of message dicts, got {type(completion).__name__}"
        )
    contents = [message.get("content") for message in completion if message.get("role") == "assistant"]
    return _content_text(contents[-1]) if contents else ""


def _content_text(content: object) -> str:
    """Return the text of a message content: text, a list of typed parts, or nothing."""
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence):
        return ""
    texts = [part.get("text") for part in content if isinstance(part, Mapping) and part.get("type") == "text"]
    return "".join(text for text in texts if isinstance(text, str))
