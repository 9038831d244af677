"""What of a model's text is its answer: the same for the judge, the rewards and the evaluations."""

__all__ = ["is_cut_in_thought", "without_thoughts"]

OPENING, CLOSING = "<think>", "</think>"


def without_thoughts(text: str) -> str:
    """Return what follows the last `</think>`, up to a `<think>` that nothing closes, without white space around it.

    A `</think>` ends a thought even if no `<think>` stands before it: many chat templates put that into the prompt.

    >>> without_thoughts("<think>Maybe B.</think> A"), without_thoughts("Maybe B.</think> A")
    ('A', 'A')
    >>> without_thoughts("A <think>or B")
    'A'
    """
    return text.rpartition(CLOSING)[2].partition(OPENING)[0].strip()


def is_cut_in_thought(text: str) -> bool:
    """Tell whether a text ends inside a thought, as a reply does that was cut short.

    >>> is_cut_in_thought("<think>A</think> or <think>B"), is_cut_in_thought("<think>A</think> B")
    (True, False)
    """
    return OPENING in text.rpartition(CLOSING)[2]
