"""Benchmarks as tasks of inspect, and this package's own: `rvpo/healthbench`, `rvpo/gpqa` and so on.

Every repeat of a question is a sample of its own, "UNIT/REPEAT". A sample's score is a mapping from the names of the
scores to numbers (None: missing); the rest of the record is the score's metadata. A lost answer is scored too, as
missing, with the bounds between which its scores lie.

The tasks' parameters are the options of `rvpo eval` and inspect's `-T`. Data is the user's own: `data` is a file
(.jsonl, .json, .parquet, .csv), a folder saved by `datasets`, or a name on the hub, of which `limit` rows of `split`
are read. By this module's entry point inspect finds the tasks, and the models `rvpo/` and `rvpo-server/`.
"""

import hashlib
import json
from collections.abc import Awaitable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from inspect_ai import Epochs, Task, task
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

from rvpo.data.load import load_rubric_rows
from rvpo.data.rows import raw_rows
from rvpo.errors import ConfigError, JudgeError, RvpoError
from rvpo.evals import bfcl as bfcl_cases
from rvpo.evals import gpqa as gpqa_rows
from rvpo.evals import healthbench as healthbench_rows
from rvpo.evals import ifeval as ifeval_rows
from rvpo.evals import rlla as rlla_rows
from rvpo.evals.benchmark import Benchmark, questions_digest
from rvpo.evals.logs import OWN
from rvpo.evals.models import Answer, Question
from rvpo.evals.providers import LocalAPI, ServerAPI, chat_messages
from rvpo.judging.config import JudgeConfig
from rvpo.judging.judge import Judge
from rvpo.llm.limits import MOST_MISSING, too_many_so_far

__all__ = ["TASKS", "LocalAPI", "ServerAPI", "as_task", "bfcl", "gpqa", "healthbench", "ifeval", "rlla"]


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


@task
def healthbench(
    data: str, judge: str = "", judge_url: str = "", judge_config: str = "", judge_store: str = "",
    subset: list[str] | str = "", split: str = "test", limit: int = 0, repeats: int = 1, seed: int = 0,
) -> Task:  # fmt: skip
    """HealthBench or any rubric rows with points, judged: --judge MODEL --judge-url URL, or --judge-config FILE.

    `subset` is NAME=FILE, as hard=hard.jsonl: the rows of that file are also scored by themselves.
    """
    rows = load_rubric_rows(data, split=split, limit=limit or None).rows
    files = [text.partition("=") for text in ([subset] if isinstance(subset, str) else subset) if text]
    if wrong := ["".join(parts) for parts in files if not all(parts)]:
        raise ConfigError(f"--subset takes NAME=FILE, as hard=hard.jsonl; got {wrong[0]!r}")
    if not judge and not judge_config:
        raise ConfigError("healthbench needs a judge: --judge MODEL --judge-url URL, or --judge-config FILE")
    given = {"model": judge, "base_url": judge_url, "store": judge_store}
    settings = {name: value for name, value in given.items() if value}
    judging = Judge(JudgeConfig.from_file(Path(judge_config) if judge_config else None, settings))
    benchmark = healthbench_rows.build(
        rows,
        judging,
        subsets={name: {row["id"] for row in load_rubric_rows(file).rows} for name, _, file in files},
        repeats=repeats,
        seed=seed,
        about=healthbench_rows.judge_about(judging),
        max_missing=judging.config.max_missing,
    )
    return as_task(benchmark, temperature=1.0, max_tokens=2048)


@task
def gpqa(data: str, split: str = "test", limit: int = 0, repeats: int = 1, seed: int = 0) -> Task:
    """GPQA-Diamond from your own CSV (Question, Correct Answer, Incorrect Answer 1 to 3), options shuffled."""
    rows = raw_rows(data, split, limit or None)
    return as_task(gpqa_rows.build(rows, repeats=repeats, seed=seed), temperature=0.0, max_tokens=2048)


@task
def rlla(data: str, split: str = "test", limit: int = 0, repeats: int = 1, seed: int = 0) -> Task:
    """Tool calls on rows of RLLA's schema (prompt, reward_model.ground_truth), both channels of training."""
    rows = raw_rows(data, split, limit or None)
    return as_task(rlla_rows.build(rows, repeats=repeats, seed=seed), temperature=0.0, max_tokens=1024)


@task
def ifeval(data: str, split: str = "test", limit: int = 0, repeats: int = 1, seed: int = 0) -> Task:
    """IFEval, strict and loose, by prompt, instruction and kind; rows as google/IFEval (--split train)."""
    rows = raw_rows(data, split, limit or None)
    return as_task(ifeval_rows.build(rows, repeats=repeats, seed=seed), temperature=0.0, max_tokens=1280)


@task
def bfcl(
    format: str = "prompt", categories: list[str] | str = "all", limit: int = 0, repeats: int = 1, seed: int = 0
) -> Task:
    """BFCL v3, the Berkeley function-calling cases, see docs/bfcl.md.

    `format` is how calls are asked for and read: prompt, native or rlla. `categories` are all, single_turn, non_live,
    live, multi_turn, or categories by name; `limit` is a number of cases of each, which gives no aggregate.
    """
    benchmark = bfcl_cases.build(
        answer_format=format,
        categories=[categories] if isinstance(categories, str) else list(categories),
        number=limit or None,
        repeats=repeats,
        seed=seed,
    )
    return as_task(benchmark, temperature=0.0, max_tokens=1024)


TASKS = {"healthbench": healthbench, "gpqa": gpqa, "rlla": rlla, "ifeval": ifeval, "bfcl": bfcl}
"""Tasks by name."""
