"""A benchmark as a task of inspect, and back: the records of a log, and the summary of them.

Every repeat of a question is a sample of its own, "UNIT/REPEAT". A sample's score is a mapping from the names of the
scores to numbers (None: missing); the rest of the record is the score's metadata. A lost answer is scored too, as
missing, with the bounds between which its scores lie.
"""

import hashlib
import json
from collections.abc import Awaitable, Mapping
from importlib.metadata import version
from typing import Any

from inspect_ai import Epochs, Task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import GenerateConfig, ModelOutput, ModelUsage, get_model
from inspect_ai.scorer import (
    Metric,
    SampleScore,
    Score,
    Scorer,
    ScoreReducer,
    Target,
    Value,
    metric,
    score_reducer,
    scorer,
)  # fmt: skip
from inspect_ai.solver import Generate, Solver, TaskState, solver
from inspect_ai.tool import ToolInfo

from rvpo.errors import ConfigError, JudgeError, RvpoError
from rvpo.evals.benchmark import Benchmark, questions_digest
from rvpo.evals.logs import OWN
from rvpo.evals.models import Answer, Question
from rvpo.evals.providers import chat_messages
from rvpo.llm.limits import MOST_MISSING, too_many_so_far

__all__ = ["as_task"]


def as_task(benchmark: Benchmark, *, temperature: float, max_tokens: int) -> Task:
    """Return a benchmark as a task; answers are drawn so unless the run says otherwise.

    Raises ConfigError unless each question has an id of its own.
    """
    order = [question.id for question in benchmark.questions]
    if not order or len(set(order)) < len(order):
        raise ConfigError(f"a benchmark needs questions with ids of their own, got {len(order)} of {len(set(order))}")
    samples = [
        Sample(input=chat_messages(question.prompt), id=question.id, metadata={"unit": question.unit})
        for question in benchmark.questions
    ]
    about = {
        "benchmark": benchmark.name,
        "item_score": benchmark.item_score,
        "questions": questions_digest(benchmark.questions),
        "settings": dict(benchmark.about),
        "version": version("rvpo"),
    }
    return Task(
        dataset=MemoryDataset(samples, name=benchmark.name),
        solver=_answers(benchmark),
        scorer=_scores(benchmark),
        config=GenerateConfig(temperature=temperature, max_tokens=max_tokens),
        metadata={OWN: about},
        version=hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16],  # other rows: another log, not that one's
        display_name=benchmark.name,
        epochs=Epochs(1, as_it_is()),  # inspect's own mean over epochs takes what is missing for 0
    )


@score_reducer(name="as_it_is")
def as_it_is() -> ScoreReducer:
    """Return what leaves the one score of a sample as it is."""

    def only(scores: list[Score]) -> Score:
        return scores[0]

    return only


def _answers(benchmark: Benchmark) -> Solver:
    questions = {question.id: question for question in benchmark.questions}
    answered = lost = 0

    async def ask(question: Question) -> Answer:
        model = get_model()
        try:
            tools = [ToolInfo.model_validate(tool["function"]) for tool in question.tools]
            output = await model.generate(chat_messages(question.prompt), tools)
        except RvpoError:
            raise
        except Exception as error:  # of any provider, after its own retries
            return Answer(None, lost=str(error) or type(error).__name__)
        return _answer(output)

    @solver(name=f"{benchmark.name}_answers")
    def answers() -> Solver:
        async def solve(state: TaskState, generate: Generate) -> TaskState:
            nonlocal answered, lost
            question = questions[str(state.sample_id)]
            answer = await (benchmark.converse(question, ask) if benchmark.converse else ask(question))
            answered, lost = answered + 1, lost + (answer.text is None)
            if too_many_so_far(lost, answered):
                raise JudgeError(
                    f"{lost} of {answered} answers were lost (the last one: {answer.lost}), more than "
                    f"{MOST_MISSING:.0%}; mend the cause, then give the same command again with --retry-missing"
                )
            state.output = _output(str(state.model), answer)
            state.messages.append(state.output.message)
            return state

        return solve

    return answers()


def _answer(output: ModelOutput) -> Answer:
    tokens = output.usage.output_tokens if output.usage is not None else 0
    text = output.completion if output.error is None else None
    return Answer(text, tokens, output.stop_reason == "max_tokens", output.error or "")


def _output(model: str, answer: Answer) -> ModelOutput:
    output = ModelOutput.from_content(model, answer.text or "", "max_tokens" if answer.is_cut else "stop")
    output.error = answer.lost if answer.text is None else None
    output.usage = ModelUsage(output_tokens=answer.tokens)
    return output


def _scores(benchmark: Benchmark) -> Scorer:
    questions = {question.id: question for question in benchmark.questions}
    scoring = 0

    @metric(name="summary")
    def summary() -> Metric:
        def summed(scores: list[SampleScore]) -> Value:
            records = [{**(sample.score.metadata or {}), "scores": sample.score.value} for sample in scores]
            return _flat(benchmark.summarize(records))

        return summed

    @scorer(metrics=[summary()], name=benchmark.name)
    def scores() -> Scorer:
        async def score(state: TaskState, target: Target) -> Score:
            nonlocal scoring
            answer = _answer(state.output)
            scoring += 1
            try:
                made = benchmark.score(questions[str(state.sample_id)], answer)
                record = await made if isinstance(made, Awaitable) else made
            finally:
                scoring -= 1
                if not scoring and benchmark.close is not None:
                    await benchmark.close()
            rest = {key: value for key, value in record.items() if key != "scores"}
            outcome = {"tokens": answer.tokens, "is_cut": answer.is_cut, "lost": answer.lost}
            return Score(value=record["scores"], metadata=rest | outcome)

        return score

    return scores()


def _flat(summary: Mapping[str, Any]) -> dict[str, float]:
    """Return a summary as the numbers that inspect shows: each score, and what is missing from it."""
    shown: dict[str, float] = {}
    for name in summary["shown"]:
        entry = summary["scores"][name]
        shown |= {name: float("nan") if entry["value"] is None else entry["value"]}
        if "unclipped" in entry and entry["unclipped"] is not None:
            shown[f"{name} unclipped"] = entry["unclipped"]
        if entry["missing"]:
            low, high = entry["bounds"] or (float("nan"), float("nan"))
            shown |= {f"{name} missing": entry["missing"], f"{name} lowest": low, f"{name} highest": high}
    return shown
