"""Tool calling on held-out rows of RLLA's schema: the two reward channels of training, read as an evaluation.

    format                 share of answers with the form that the row asks for, in {0, 1}
    correctness            mean over all rows, in [-3, 3]; 0 on every row that calls no tool
    correctness_of_calls   the same over the rows that call a tool
    correct_calls          share of those whose calls are exactly the expected ones

The channels are `rvpo.rewards.tool_calling`'s. Source: ToolRL (arXiv 2504.13958), data set RLLA-4k.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rvpo.data.rows import Message, Place, messages_of
from rvpo.errors import ConfigError
from rvpo.evals.benchmark import Benchmark, Record, mean_score, repeated, scored, units_of, unknown_record
from rvpo.evals.models import Answer, Question
from rvpo.rewards.tool_calling import correctness_reward, format_reward

__all__ = ["Call", "build", "read_row", "record", "summarize"]

HIGHEST = 3.0
BOUNDS = {"format": (0.0, 1.0), "correctness": (-HIGHEST, HIGHEST)}
OF_CALLS = {"correctness_of_calls": (-HIGHEST, HIGHEST), "correct_calls": (0.0, 1.0)}


class Call(NamedTuple):
    """A row: what is asked, and the answer that is expected."""

    prompt: list[Message]
    truth: str
    calls_a_tool: bool


def read_row(row: Mapping[str, Any], place: Place) -> Call:
    """Return a row's prompt and ground truth (`reward_model.ground_truth`, or a column `ground_truth`).

    Raises ConfigError, with the place, for a row without them or with an unreadable expected call.
    """
    model = row.get("reward_model")
    truth = model.get("ground_truth") if isinstance(model, Mapping) else row.get("ground_truth")
    messages = messages_of(row.get("prompt"), place, "prompt")
    if not messages or not isinstance(truth, str):
        raise ConfigError(
            f"{place}: a row needs prompt, a list of messages, and reward_model.ground_truth, a text; it has "
            f"{sorted(map(str, row))}"
        )
    try:
        # An empty answer has -3 where calls are expected, and 0 where none are.
        worst = correctness_reward([""], [truth])[0]
    except ValueError as error:
        raise ConfigError(f"{place}: {error}") from error
    return Call(messages, truth, worst < 0)


def build(rows: Sequence[tuple[Place, Mapping[str, Any]]], *, repeats: int = 1, seed: int = 0) -> Benchmark:
    """Return the benchmark of rows with their places. Raises ConfigError for a row that cannot be used."""
    read = [read_row(row, place) for place, row in rows]
    calls = dict(zip(units_of([(call.prompt, call.truth) for call in read]), read, strict=True))
    return Benchmark(
        name="rlla",
        questions=repeated({unit: call.prompt for unit, call in calls.items()}, repeats, seed),
        score=lambda question, answer: record(question, calls[question.unit], answer),
        summarize=summarize,
        item_score="correctness",
        about={"repeats": repeats, "seed": seed},
    )


def record(question: Question, call: Call, answer: Answer) -> Record:
    """Return the record of an answer: both channels, and those of calls where the row calls a tool."""
    if answer.text is None:
        return unknown_record(question, BOUNDS | (OF_CALLS if call.calls_a_tool else {}))
    correctness = correctness_reward([answer.text], [call.truth])[0]
    scores = {"format": format_reward([answer.text], [call.truth])[0], "correctness": correctness}
    if call.calls_a_tool:
        scores |= {"correctness_of_calls": correctness, "correct_calls": float(correctness >= HIGHEST)}
    return scored(question, scores)


def summarize(records: Sequence[Record]) -> dict[str, Any]:
    """Return the benchmark's part of a summary; see `rvpo.evals.benchmark.Benchmark`."""
    scores = {name: mean_score(records, name) for name in BOUNDS | OF_CALLS}
    return {"headline": "correctness", "shown": list(scores), "scores": scores}
