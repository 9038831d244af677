"""`rvpo judge grade`: answers of a jsonl file in, one line of verdicts out for each; goes on where it stopped."""

import json
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from rvpo.errors import ConfigError
from rvpo.judging.config import JudgeConfig
from rvpo.judging.criteria import Rubric
from rvpo.judging.grading import Graded, Item
from rvpo.judging.judge import Judge
from rvpo.judging.scores import explicit_score
from rvpo.llm.json_text import json_text

__all__ = ["AnswerLine", "batches_graded", "grade", "read_answers"]

BATCH = 64
"""Answers graded at once: what an interrupted run may have to look up again in the store."""


class AnswerLine(NamedTuple):
    """One answer of the input file."""

    name: str
    """Id or line number of its row, and which of the row's answers it is."""
    item: Item


def read_answers(file: Path) -> Iterator[AnswerLine]:
    """Yield the answers of a jsonl file; raise ConfigError with file and line for what cannot be used."""
    try:
        lines = file.read_text(encoding="utf-8").split("\n")  # splitlines would split inside JSON texts
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error}") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            rubric = Rubric.from_rows(row["rubric"])
            answers = row["answers"] if "answers" in row else [row["answer"]]
            for index, answer in enumerate(answers):
                if not isinstance(answer, str):
                    raise ConfigError(f"an answer is text, got {type(answer).__name__}")
                yield AnswerLine(f"{row.get('id', number)}/{index}", Item(row["prompt"], answer, rubric))
        except KeyError as error:
            raise ConfigError(
                f"{file}, line {number}: no key {error}; a row has prompt, rubric and answer (or answers)"
            ) from None
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{file}, line {number}: {error}") from error


async def grade(config: JudgeConfig, lines: Sequence[AnswerLine], out: Path) -> int:
    """Grade what the output file does not have yet, a batch at a time."""
    done = finished_names(out)
    unfinished = [line for line in lines if line.name not in done]
    if done:
        print(f"{len(lines) - len(unfinished)} of {len(lines)} answers are in {out} already")
    judge = Judge(config)
    try:
        with out.open("a", encoding="utf-8") as file:
            async for batch, graded in batches_graded(judge, unfinished, f"judging with {config.model}"):
                for line, answer in zip(batch, graded, strict=True):
                    file.write(json_text(graded_row(line.name, answer)) + "\n")
                file.flush()
    finally:
        await judge.close()
        print(judge.summary())
    print(f"verdicts: {out}")
    return 0


async def batches_graded(
    judge: Judge, lines: Sequence[AnswerLine], title: str
) -> AsyncIterator[tuple[Sequence[AnswerLine], list[Graded]]]:
    """Yield batches of answers with their verdicts, showing progress."""
    columns = (TextColumn("{task.description}"), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task(title, total=len(lines))
        for start in range(0, len(lines), BATCH):
            batch = lines[start : start + BATCH]
            items = [line.item for line in batch]
            yield batch, await judge.grade_many(items, progress=lambda done, of: progress.advance(bar))


def finished_names(out: Path) -> set[str]:
    """Return the names in an output file; a last line that a kill cut short is cut off the file."""
    if not out.is_file():
        return set()
    whole, newline, _ = out.read_bytes().rpartition(b"\n")
    os.truncate(out, len(whole) + len(newline))
    return {json.loads(line)["id"] for line in whole.split(b"\n") if line.strip()}


def graded_row(name: str, graded: Graded) -> dict[str, Any]:
    """Return one graded answer as the output file has it."""
    return {
        "id": name,
        "verdicts": {
            criterion: {"met": verdict.met, "outcome": str(verdict.outcome), "reason": verdict.reason}
            for criterion, verdict in graded.verdicts.items()
        },
        "values": graded.values(),
        "explicit": explicit_score(graded.rubric, graded.met()),
    }
