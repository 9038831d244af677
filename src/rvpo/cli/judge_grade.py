"""`rvpo judge grade`: answers of a jsonl file in, one line of verdicts out for each; goes on where it stopped.

A run appends what it graded to the output file, so that a kill loses nothing, and writes the file anew at its end.
"""

import fcntl
import json
import os
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from rvpo.errors import ConfigError, reason
from rvpo.files import write_whole
from rvpo.judging.config import JudgeConfig
from rvpo.judging.criteria import Rubric
from rvpo.judging.grading import LOST, Graded, Item, explicit_score
from rvpo.judging.judge import Judge
from rvpo.llm.model_text import json_text, whole
from rvpo.text import plural

__all__ = ["AnswerLine", "batches_graded", "grade", "locked", "read_answers"]

BATCH = 64
"""Answers graded at once: what an interrupted run may have to look up again in the store."""


BEGINNING = b'{"id": '
"""How every row begins, also one that was cut."""


class AnswerLine(NamedTuple):
    """One answer of the input file."""

    name: str
    """Id or line number of its row, and which of the row's answers it is."""
    item: Item


def read_answers(file: Path) -> list[AnswerLine]:
    """Return the answers of a jsonl file; raise ConfigError with file and line for what cannot be used.

    Bytes that are no UTF-8, half an emoji and NUL become replacement characters.
    """
    try:
        text = file.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error}") from error
    answers: list[AnswerLine] = []
    line_of: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), start=1):  # splitlines would split inside JSON texts
        if not line.strip():
            continue
        try:
            of_row = list(_answers_of_row(whole(json.loads(line)), number))
        except (ValueError, RecursionError) as error:  # ConfigError is a ValueError
            raise ConfigError(f"{file}, line {number}: {reason(error)}") from error
        for answer in of_row:
            first = line_of.setdefault(answer.name, number)
            if first != number:
                raise ConfigError(
                    f"{file}, line {number}: an id must be unique, but line {first} has {answer.name!r} too"
                )
        answers += of_row
    return answers


def _answers_of_row(row: Any, number: int) -> Iterator[AnswerLine]:
    """Yield the answers of a row; raise ConfigError for what cannot be used."""
    if not isinstance(row, dict):
        raise ConfigError(f"a row must be an object, got {type(row).__name__}")
    absent = [key for key in ("prompt", "rubric") if key not in row] or ["answer"] * ("answers" not in row)
    if absent and absent[0] not in row:
        raise ConfigError(f"no key {absent[0]!r}; a row has prompt, rubric and answer (or answers)")
    prompt, answers = row["prompt"], row["answers"] if "answers" in row else [row["answer"]]
    is_chat = isinstance(prompt, list) and all(isinstance(message, dict) for message in prompt)
    if not isinstance(prompt, str) and not is_chat:
        raise ConfigError(f"a prompt must be text or a list of messages, got {type(prompt).__name__}")
    if not isinstance(answers, list):
        raise ConfigError(f"answers must be a list of texts, got {type(answers).__name__}")
    rubric = Rubric.from_rows(row["rubric"])
    for index, answer in enumerate(answers):
        if not isinstance(answer, str):
            raise ConfigError(f"an answer is text, got {type(answer).__name__}")
        yield AnswerLine(f"{row.get('id', number)}/{index}", Item(prompt, answer, rubric))


async def grade(config: JudgeConfig, lines: Sequence[AnswerLine], out: Path) -> int:
    """Grade what the output file does not have yet, a batch at a time; return the exit status, 1 for lost verdicts.

    Answers with lost verdicts are in the file, and are asked for again by the next run.
    """
    judge = Judge(config)
    with locked(out) as file:
        rows = _rows(out)
        unfinished = [line for line in lines if line.name not in rows or _lost(rows[line.name])]
        if len(unfinished) < len(lines):
            print(f"{len(lines) - len(unfinished)} of {len(lines)} answers are in {out} already")
        try:
            async for batch, answers in batches_graded(judge, unfinished, f"judging with {config.model}"):
                for line, answer in zip(batch, answers, strict=True):
                    rows[line.name] = graded_row(line.name, answer)
                    file.write(f"{json_text(rows[line.name])}\n".encode())
                file.flush()
        finally:
            await judge.close()
            print(judge.summary())
        in_order = [rows.pop(line.name) for line in lines]
        write_whole(out, "".join(f"{json_text(row)}\n" for row in [*in_order, *rows.values()]))
    print(f"verdicts: {out}")
    lost = sum(map(_lost, in_order))
    if lost:
        print(f"{plural(lost, 'verdict')} lost; the same command asks for them again", file=sys.stderr)
    return 1 if lost else 0


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


@contextmanager
def locked(out: Path) -> Iterator[IO[bytes]]:
    """Open the output file to append to it; ConfigError if it cannot be written, or another process writes it."""
    try:
        with out.open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                is_current = os.path.samestat(os.fstat(file.fileno()), out.stat())
            except BlockingIOError:
                is_current = False
            if not is_current:
                raise ConfigError(f"another process writes {out}; wait for it, or give another --out")
            yield file
    except OSError as error:
        raise ConfigError(f"cannot write {out}: {error.strerror or error}") from error


def _rows(out: Path) -> dict[str, dict[str, Any]]:
    """Return the rows of an output file by name, the last of each; a line that a kill cut short is none.

    Raises ConfigError for a file that is no output of this command.
    """
    rows = {}
    text = out.read_bytes()
    for number, line in enumerate(text.split(b"\n"), start=1):
        try:
            row = json.loads(line) if line.strip() else None
        except ValueError:
            if not BEGINNING.startswith(line[: len(BEGINNING)]):
                raise ConfigError(f"{out}, line {number}, is no row of this command; give another --out") from None
            continue
        if row is not None and not (isinstance(row, dict) and isinstance(row.get("verdicts"), dict) and "id" in row):
            raise ConfigError(f"{out}, line {number}, is no row of this command; give another --out")
        if row is not None:
            rows[row["id"]] = row
    if text and not text.endswith(b"\n"):
        with out.open("ab") as file:
            file.write(b"\n")
    return rows


def _lost(row: Mapping[str, Any]) -> int:
    """Return how many verdicts of a row were lost."""
    return sum(verdict["outcome"] in LOST for verdict in row["verdicts"].values())


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
