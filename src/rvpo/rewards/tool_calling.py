"""Rule-based rewards for tool calling: the two channels that ToolRL trains on RLLA-4k.

A completion is judged against a ground truth written in the same form::

    <think> ... </think>
    <tool_call>
    {"name": "weather", "parameters": {"city": "Oslo"}}
    </tool_call>
    <response> ... </response>

where the tool-call block, the response or both may be missing from the ground truth.

- `format_reward` is 1 when the completion has exactly the blocks of the ground truth, else 0.
- `correctness_reward` compares the tool calls by name, parameter names and values, in [-3, 3].

The form is the paper's, which the prompts of RLLA-4k ask for, whatever form a model's chat template has for calls of
its own (`rvpo.llm.tool_calls` reads those). Training refuses a tokenizer that drops a tag, and warns of rows that have
tools.
Both have the reward-function signature of TRL and accept plain text or chat messages:

>>> call = '{"name": "weather", "parameters": {"city": "Oslo"}}'
>>> truth = f"<think> Look it up. </think>\\n<tool_call>\\n{call}\\n</tool_call>"
>>> other_city = truth.replace("Oslo", "Rome")
>>> chat = [{"role": "assistant", "content": truth}]
>>> format_reward(completions=[truth, other_city, "It rains."], ground_truth=[truth] * 3)
[1.0, 1.0, 0.0]
>>> correctness_reward(completions=[chat, other_city, "It rains."], ground_truth=[truth] * 3)
[3.0, 1.0, -3.0]

Source of the rules: ToolRL (arXiv 2504.13958) and its data set RLLA-4k; implemented independently.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rvpo.errors import reason
from rvpo.llm.model_text import Completion, completion_text, without_thoughts
from rvpo.rewards.declarations import scalar_reward

__all__ = ["ToolCall", "correctness_reward", "format_reward", "format_reward_opened", "read_calls"]

_HIGHEST = 3.0
_LOWEST = -3.0
_TAGS = ("<think>", "</think>", "<tool_call>", "</tool_call>", "<response>", "</response>")


@scalar_reward(range=(0.0, 1.0), tags=_TAGS)
def format_reward(completions: Sequence[Completion], ground_truth: Sequence[str], **kwargs: object) -> list[float]:
    r"""Reward the output form: 1 when a completion has the blocks its ground truth has, else 0.

    With ``...`` for any text, the whole completion must read, without space around it:

    ==================  ==============================================================================
    ground truth has    required form
    ==================  ==============================================================================
    neither             ``<think>...</think>``
    a response          ``<think>...</think>\n<response>...</response>``
    a tool call         ``<think>...</think>\n<tool_call>\n...\n</tool_call>``
    both                ``<think>...</think>\n<tool_call>\n...\n</tool_call>\n<response>...</response>``
    ==================  ==============================================================================

    and each tag of the form must occur exactly once. The other tags may be named inside a block, as in a
    thought that says why no ``<response>`` is needed. What the calls say is not looked at.

    Args:
        completions: One text or one list of chat messages each; of messages, the last assistant one counts.
        ground_truth: The reference answer of each completion. What its ``<think>`` block says is ignored.
        **kwargs: What else a trainer passes (prompts, token ids, ...); ignored.

    Returns:
        One value per completion, 0.0 or 1.0. Empty input gives an empty list; an empty completion gives 0.0.

    Raises:
        ValueError: `completions` and `ground_truth` differ in length.
        TypeError: A completion is neither text nor a list of messages, or a ground truth is not text.

    Source: ToolRL (arXiv 2504.13958), data set RLLA-4k.
    """
    return [
        float(_has_form(text, _required_pieces(reference))) for text, reference in _rows(completions, ground_truth)
    ]


@scalar_reward(range=(0.0, 1.0), tags=_TAGS[1:])
def format_reward_opened(
    completions: Sequence[Completion], ground_truth: Sequence[str], **kwargs: object
) -> list[float]:
    """Reward the output form as `format_reward` does, where the prompt ends with the ``<think>`` of the answer.

    Chat templates of reasoning models do that, so that a completion begins inside its thought.

    >>> format_reward_opened(["It rains.</think>", "<think>It rains.</think>"], ["<think></think>"] * 2)
    [1.0, 0.0]
    """
    return [
        float(_has_form("<think>" + text, _required_pieces(reference)))
        for text, reference in _rows(completions, ground_truth)
    ]


@scalar_reward(range=(_LOWEST, _HIGHEST), tags=_TAGS[2:4])
def correctness_reward(
    completions: Sequence[Completion], ground_truth: Sequence[str], **kwargs: object
) -> list[float]:
    r"""Reward the tool calls: -3 for unreadable or entirely wrong ones, 3 for the expected ones.

    With expected calls :math:`g` and predicted calls :math:`p`, and :math:`J` the Jaccard index of multisets
    (shared / united elements, 1 when both are empty):

    .. math::

        R = 6 \, \frac{J(\text{names}_g, \text{names}_p) + \sum_g \text{match}(g)}
                      {1 + \sum_g (1 + |\text{parameters}_g|)} - 3

    where match(g) is the highest ``J(parameter names) + number of parameters with an equal value`` among the
    predicted calls of the same tool that no earlier expected call has taken, and 0 when there is none. The
    order of the calls does not matter when each has a perfect match, so equal lists give exactly 3.

    Values are compared as Python compares them: ``1 == 1.0 == True``, but ``1 != "1"``; NaN equals NaN.

    The calls of a completion are the lines between its first ``<tool_call>`` and the next ``</tool_call>``,
    whatever surrounds them, so the channel does not depend on `format_reward`. A thought that the prompt opened, up to
    a ``</think>`` before any ``<think>``, is no part of them. Each line must be one JSON
    object with text "name" and an object "parameters"; further keys are ignored. No tags, an empty block, a
    blank line between calls or one unreadable line make the whole completion -3.

    Args:
        completions: One text or one list of chat messages each; of messages, the last assistant one counts.
        ground_truth: The reference answer of each completion. What its ``<think>`` block says is ignored.
        **kwargs: What else a trainer passes (prompts, token ids, ...); ignored.

    Returns:
        One finite value in [-3, 3] per completion. It is 0 for every completion whose ground truth calls no
        tool, so that a group of rollouts of such a prompt has no variance here. Empty input gives an empty
        list.

    Raises:
        ValueError: `completions` and `ground_truth` differ in length, or the tool calls of a ground truth
            are unreadable; the message names its index. A completion never raises.
        TypeError: A completion is neither text nor a list of messages, or a ground truth is not text.

    Source: ToolRL (arXiv 2504.13958), data set RLLA-4k.
    """
    return [
        _correctness(text, _expected_calls(reference, index))
        for index, (text, reference) in enumerate(_rows(completions, ground_truth))
    ]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call of a tool by name with named parameters."""

    name: str
    parameters: Mapping[str, object]


def _rows(completions: Sequence[Completion], ground_truth: Sequence[str]) -> list[tuple[str, str]]:
    """Pair the text of each completion with its ground truth, after checking lengths and types."""
    if len(completions) != len(ground_truth):
        raise ValueError(
            f"completions and ground_truth must have the same length, got {len(completions)} and {len(ground_truth)}"
        )
    for index, reference in enumerate(ground_truth):
        # Data columns hold what the file held, whatever the annotation says.
        if not isinstance(reference, str):
            raise TypeError(f"ground_truth[{index}] must be a str, got {type(reference).__name__}")
    return [
        (completion_text(completion, index), reference)
        for index, (completion, reference) in enumerate(zip(completions, ground_truth, strict=True))
    ]


def _answer(reference: str) -> str:
    """Return a ground truth without its leading thought, which may mention tags that it does not use."""
    if not reference.startswith("<think>"):
        return reference
    _, end_of_thought, answer = reference.partition("</think>")
    return answer if end_of_thought else reference


def _required_pieces(reference: str) -> tuple[str, ...]:
    """Return the fixed pieces of the form that a completion must have; any text may stand between them."""
    answer = _answer(reference)
    match "<tool_call>" in answer, "<response>" in answer:
        case True, True:
            return "<think>", "</think>\n<tool_call>\n", "\n</tool_call>\n<response>", "</response>"
        case True, False:
            return "<think>", "</think>\n<tool_call>\n", "\n</tool_call>"
        case False, True:
            return "<think>", "</think>\n<response>", "</response>"
        case _:
            return "<think>", "</think>"


def _has_form(text: str, pieces: Sequence[str]) -> bool:
    """Tell whether the text is the pieces in order, from end to end, with each of their tags once."""
    # Counting and searching is linear in the text; a backtracking pattern need not be.
    tags = [tag for tag in _TAGS if any(tag in piece for piece in pieces)]
    if any(text.count(tag) != 1 for tag in tags) or not text.startswith(pieces[0]):
        return False
    position = 0
    for piece in pieces:
        start = text.find(piece, position)
        if start < 0:
            return False
        position = start + len(piece)
    return position == len(text)


def _expected_calls(reference: str, index: int) -> list[ToolCall]:
    """Return the calls of a ground truth, none when it calls no tool."""
    answer = _answer(reference)
    if "<tool_call>" not in answer:
        return []
    try:
        return read_calls(answer)
    except ValueError as error:
        raise ValueError(f"ground_truth[{index}] has an unreadable tool call: {error}") from error


def _correctness(text: str, expected: Sequence[ToolCall]) -> float:
    """Return the correctness of one completion."""
    if not expected:
        return 0.0
    try:
        predicted = read_calls(_without_opened_thought(text))
    except ValueError:
        return _LOWEST
    highest_score = 1 + sum(1 + len(call.parameters) for call in expected)
    share = _score(expected, predicted) / highest_score
    return _LOWEST + (_HIGHEST - _LOWEST) * share


def _without_opened_thought(text: str) -> str:
    """Return a completion without a thought that its prompt opened; any other as it is."""
    before, closing, _ = text.partition("</think>")
    return without_thoughts(text) if closing and "<think>" not in before else text


def read_calls(text: str) -> list[ToolCall]:
    """Read the calls in the first tool-call block, at least one; ValueError says what is wrong."""
    _, opening, rest = text.partition("<tool_call>")
    block, closing, _ = rest.partition("</tool_call>")
    if not (opening and closing):
        raise ValueError("there is no <tool_call> ... </tool_call> block")
    # Not splitlines: a JSON string may contain U+2028 and the other separators that it splits at.
    lines = block.strip().split("\n")
    return [_read_call(line, number) for number, line in enumerate(lines, start=1)]


def _read_call(line: str, number: int) -> ToolCall:
    """Read one line as a call; ValueError says what is wrong."""
    try:
        value: object = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"line {number} is not JSON: {reason(error)}") from error
    if not isinstance(value, dict):
        raise ValueError(f"line {number} is not a JSON object")
    name, parameters = value.get("name"), value.get("parameters")
    if not isinstance(name, str):
        raise ValueError(f'line {number} has no text "name"')
    if not isinstance(parameters, dict):
        raise ValueError(f'line {number} has no object "parameters"')
    return ToolCall(name, parameters)


def _score(expected: Sequence[ToolCall], predicted: Sequence[ToolCall]) -> float:
    """Return the Jaccard index of the tool names plus the best match of each expected call in turn."""
    total = _jaccard([call.name for call in expected], [call.name for call in predicted])
    unused = list(predicted)
    for call in expected:
        scores = [_match(call, candidate) for candidate in unused]
        best = max(scores, default=0.0)
        if best > 0:
            total += best
            unused.pop(scores.index(best))
    return total


def _match(expected: ToolCall, predicted: ToolCall) -> float:
    """Return the agreement of two calls, from 0 for other tools to 1 + the number of expected parameters."""
    if expected.name != predicted.name:
        return 0.0
    equal_values = sum(
        name in predicted.parameters and _is_equal(value, predicted.parameters[name])
        for name, value in expected.parameters.items()
    )
    return _jaccard(list(expected.parameters), list(predicted.parameters)) + equal_values


def _is_equal(first: object, second: object) -> bool:
    """Tell whether two JSON values are equal, NaN to NaN too."""
    try:
        # json reads every NaN as one object, so `is` lets it equal itself, as it does inside lists already.
        return first is second or first == second
    except RecursionError:
        return False


def _jaccard(first: list[str], second: list[str]) -> float:
    """Return shared / united elements of two multisets, 1 when both are empty."""
    first_counts, second_counts = Counter(first), Counter(second)
    united = (first_counts | second_counts).total()
    return (first_counts & second_counts).total() / united if united else 1.0
