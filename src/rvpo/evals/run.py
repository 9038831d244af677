"""A model on a benchmark: answers are drawn, then scored, each kept as soon as it is there; then the summary.

`rvpo.evals.results` says what a results folder holds, and why a killed run ends with the same bytes.
"""

import json
import platform
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rvpo.errors import ConfigError, JudgeError
from rvpo.evals.benchmark import Benchmark, Record, questions_digest
from rvpo.evals.models import Answer, Model, Question
from rvpo.evals.results import ANSWERS, ITEMS, SUMMARY, JsonLines, keep_about, write_whole
from rvpo.llm.limits import ENOUGH_TO_TELL, MOST_MISSING, too_many_missing

__all__ = ["evaluate"]

Progress = Callable[[str, int, int], None]


async def evaluate(
    benchmark: Benchmark,
    model: Model,
    folder: str | Path,
    *,
    label: str = "",
    step: int | None = None,
    retry_missing: bool = False,
    progress: Progress = lambda phase, done, of: None,
) -> dict[str, Any]:
    """Evaluate a model, or finish what was begun in the folder; return the summary, which is also written there.

    Args:
        benchmark: what is asked and how it is scored.
        model: what answers. It is closed before the scoring begins, so that a judge can have its memory.
        folder: the results folder; made if need be.
        label: name of the model in tables.
        step: of training, where the model is a checkpoint.
        retry_missing: ask again for lost answers and verdicts.
        progress: called with "answers" or "scores", how many are done, and of how many.

    Raises:
        ConfigError: the folder holds results of something else, or cannot be used; an id occurs twice.
        JudgeError: 20 answers or more are lost, and more than 20 % of those that came; or what the model or the
            benchmark raises. What was finished until then is kept.
    """
    folder = Path(folder)
    model = benchmark.through(model) if benchmark.through else model
    order = [question.id for question in benchmark.questions]
    if not order or len(set(order)) < len(order):
        raise ConfigError(f"a benchmark needs questions with ids of their own, got {len(order)} of {len(set(order))}")
    about = {
        "benchmark": benchmark.name,
        "questions": questions_digest(benchmark.questions),
        "settings": dict(benchmark.about),
        "model": dict(model.about),
        "versions": {"rvpo": version("rvpo"), "python": platform.python_version()},
    }
    keep_about(folder, about)
    answers, records = JsonLines(folder / ANSWERS), JsonLines(folder / ITEMS)
    if retry_missing:
        _forget_missing(answers, records, folder / SUMMARY)
    try:
        await _answer(benchmark.questions, model, answers, progress)
    finally:
        await model.close()
    await _score(benchmark, answers, records, progress)
    for kept in (answers, records):
        kept.replace(order)
    summary = {"label": label, "step": step} | _summary(benchmark, [records.lines[name] for name in order], answers)
    summary["about"] = about
    write_whole(folder / SUMMARY, json.dumps(summary, indent=2, allow_nan=False) + "\n")
    return summary


def _forget_missing(answers: JsonLines, records: JsonLines, summary: Path) -> None:
    """Take out lost answers and records with missing parts, and the summary, which is no longer of what is left."""
    lost = {name for name, line in answers.lines.items() if line["text"] is None}
    missing = lost | {name for name, line in records.lines.items() if line["missing"]}
    if missing:
        summary.unlink(missing_ok=True)
    answers.forget(lost)
    records.forget(missing)


async def _answer(questions: Sequence[Question], model: Model, kept: JsonLines, progress: Progress) -> None:
    progress("answers", len(kept.lines), len(questions))
    if len(kept.lines) == len(questions):
        return
    new = lost = 0
    async with aclosing(model.answers(questions, kept.lines)) as finished:
        async for batch in finished:
            kept.add([{"id": question.id, **asdict(answer)} for question, answer in batch])
            new, lost = new + len(batch), lost + sum(answer.text is None for _, answer in batch)
            progress("answers", len(kept.lines), len(questions))
            # Refused prompts come back first, so a stream must have lost that many, not only begun.
            if lost >= ENOUGH_TO_TELL and too_many_missing(lost, new):
                why = next(answer.lost for _, answer in batch if answer.text is None)
                raise JudgeError(
                    f"{lost} of {new} answers were lost (the last one: {why}), more than {MOST_MISSING:.0%}; mend the "
                    "cause, then give the same command again with --retry-missing"
                )


async def _score(benchmark: Benchmark, answers: JsonLines, records: JsonLines, progress: Progress) -> None:
    left = [question for question in benchmark.questions if question.id not in records.lines]
    progress("scores", len(records.lines), len(benchmark.questions))
    for start in range(0, len(left), benchmark.batch):
        batch = left[start : start + benchmark.batch]
        records.add(await benchmark.score(batch, [_as_answer(answers.lines[question.id]) for question in batch]))
        progress("scores", len(records.lines), len(benchmark.questions))


def _as_answer(line: Mapping[str, Any]) -> Answer:
    return Answer(line["text"], line["tokens"], line["is_cut"], line["lost"])


def _summary(benchmark: Benchmark, records: Sequence[Record], answers: JsonLines) -> dict[str, Any]:
    known = [line for line in answers.lines.values() if line["text"] is not None]
    lost = Counter(line["lost"] for line in answers.lines.values() if line["text"] is None)
    return {
        "benchmark": benchmark.name,
        "item_score": benchmark.item_score,
        "answers": {
            "asked": len(records),
            "units": len({record["unit"] for record in records}),
            "lost": lost.total(),
            "lost_because": dict(sorted(lost.items())),
            "cut_at_max_tokens": sum(line["is_cut"] for line in known),
            "mean_tokens": sum(line["tokens"] for line in known) / len(known) if known else None,
        },
        **benchmark.summarize(records),
    }
