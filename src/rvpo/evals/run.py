"""One model on one benchmark: answers are drawn, then scored, each kept as soon as it is there; then the summary.

A results folder holds

    about.json      everything that the results depend on; a folder is only gone on with under the same
    answers.jsonl   one answer a line
    items.jsonl     one scored answer a line: its scores, what is missing, the bounds of what that could change
    summary.json    the scores of the benchmark with intervals, counts of what is missing, and about.json's content

Lines are appended as they are finished, so a killed run goes on where it was; a last line that a kill cut short is
dropped. A finished run puts its lines into the benchmark's order, and holds no time of day: a run that was killed and
one that was not end with the same bytes.
"""

import hashlib
import json
import math
import os
import platform
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rvpo.errors import ConfigError, JudgeError
from rvpo.evals.models import Answer, Model, Question
from rvpo.llm.json_text import json_text
from rvpo.llm.limits import ENOUGH_TO_TELL, MOST_MISSING, too_many_missing
from rvpo.stats import bootstrap_interval

__all__ = [
    "Benchmark",
    "Record",
    "Result",
    "differences",
    "each",
    "evaluate",
    "mean_score",
    "read_result",
    "result_folders",
    "units_of",
    "unknown_record",
]

ABOUT, ANSWERS, ITEMS, SUMMARY = "about.json", "answers.jsonl", "items.jsonl", "summary.json"
DRAWS = 1000
"""Bootstrap draws of a summary's intervals, as in HealthBench's own code."""
COMPARABLE = ("benchmark", "questions", "settings.", "model.sampling.", "versions.rvpo")
"""What must be equal in `about` for two results to be compared without a note."""

Record = dict[str, Any]
"""A scored answer: `id`, `unit`, `scores` (name -> number, None for missing), `bounds` (name -> lowest and highest
value of a missing score), `missing` (how many parts were lost that asking again could bring), and the benchmark's own.
"""
Progress = Callable[[str, int, int], None]
Score = Callable[[Sequence[Question], Sequence[Answer]], Awaitable[list[Record]]]


async def nothing() -> None:
    """Do nothing: most benchmarks hold no connections."""


@dataclass(frozen=True)
class Benchmark:
    """Questions, how answers are scored, and what becomes of the scores."""

    name: str
    questions: Sequence[Question]
    score: Score
    """Questions and their answers -> a record each, in order. Lost answers are among them."""
    summarize: Callable[[Sequence[Record]], Mapping[str, Any]]
    """All records -> `headline` (a name in `scores`), `scores` (name -> as `mean_score`), `aggregates` (name -> its
    definition), `shown` (names for tables), and what else is to be in the summary."""
    item_score: str
    """The name in a record's `scores` that comparisons use."""
    about: Mapping[str, Any]
    """What results depend on beside the questions: judge, prompts, seeds."""
    batch: int = 64
    """Answers scored at once."""
    through: Callable[[Model], Model] | None = None
    """Makes of the model what answers the questions, where one question is more than one prompt."""
    close: Callable[[], Awaitable[None]] = nothing
    """Gives back what the scoring holds on the running loop; to be called when all models are evaluated."""
    note: Callable[[], str] = str
    """What the scoring has done and cost so far, in a line, "" for nothing to say."""


def units_of(contents: Sequence[object]) -> list[str]:
    """Return a name for each row from what it says (as JSON), so that results pair up on equal rows only.

    Rows that say the same are numbered: two results have the k-th of them in common.
    """
    seen: Counter[str] = Counter()
    names = []
    for content in contents:
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
        seen[digest] += 1
        names.append(digest if seen[digest] == 1 else f"{digest}-{seen[digest]}")
    return names


def each(score: Callable[[Question, Answer], Record]) -> Score:
    """Return a benchmark's `score` from a function of one answer."""

    async def all_of_them(questions: Sequence[Question], answers: Sequence[Answer]) -> list[Record]:
        return [score(one, answer) for one, answer in zip(questions, answers, strict=True)]

    return all_of_them


def unknown_record(one: Question, bounds: Mapping[str, tuple[float, float]]) -> Record:
    """Return the record of a lost answer: every score in `bounds` is missing, and lies between its two ends."""
    return {
        "id": one.id,
        "unit": one.unit,
        "scores": dict.fromkeys(bounds),
        "bounds": {name: list(ends) for name, ends in bounds.items()},
        "missing": 1,
    }


def mean_score(records: Sequence[Record], name: str, *, seed: int = 0) -> dict[str, Any]:
    """Return what is known of a score's mean over the records that have it.

    `value` is the mean of those that are not missing (None without any), `items` and `missing` their numbers,
    `interval` the 95 % bootstrap interval of the mean over units (None with a single one), and `bounds` the lowest
    and the highest mean that the missing ones could still produce (None where a missing one has no bounds).
    """
    given = [record for record in records if name in record["scores"]]
    known = [record for record in given if record["scores"][name] is not None]
    values = [float(record["scores"][name]) for record in known]
    ends = [record.get("bounds", {}).get(name) for record in given if record["scores"][name] is None]
    total = math.fsum(values)
    return {
        "value": total / len(values) if values else None,
        "interval": _interval(values, [record["unit"] for record in known], seed),
        "items": len(known),
        "missing": len(ends),
        "bounds": None
        if None in ends or not given
        else [(total + sum(end[at] for end in ends)) / len(given) for at in (0, 1)],
    }


def _interval(values: Sequence[float], units: Sequence[str], seed: int) -> list[float] | None:
    if len(set(units)) < 2:
        return None
    blocks = units if len(set(units)) < len(units) else None
    found = bootstrap_interval(values, seed=seed, draws=DRAWS, blocks=blocks)
    return [found.low, found.high]


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
    order = [one.id for one in benchmark.questions]
    if not order or len(set(order)) < len(order):
        raise ConfigError(f"a benchmark needs questions with ids of their own, got {len(order)} of {len(set(order))}")
    about = {
        "benchmark": benchmark.name,
        "questions": questions_digest(benchmark.questions),
        "settings": dict(benchmark.about),
        "model": dict(model.about),
        "versions": {"rvpo": version("rvpo"), "python": platform.python_version()},
    }
    _keep_about(folder, about)
    answers, records = Kept(folder / ANSWERS), Kept(folder / ITEMS)
    if retry_missing:
        lost = {name for name, line in answers.lines.items() if line["text"] is None}
        missing = lost | {name for name, line in records.lines.items() if line["missing"]}
        if missing:
            (folder / SUMMARY).unlink(missing_ok=True)  # no longer what the lines say
        answers.forget(lost)
        records.forget(missing)
    try:
        await _answer(benchmark.questions, model, answers, progress)
    finally:
        await model.close()
    await _score(benchmark, answers, records, progress)
    for kept in (answers, records):
        kept.replace(order)
    summary = {"label": label, "step": step} | _summary(benchmark, [records.lines[name] for name in order], answers)
    summary["about"] = about
    _write(folder / SUMMARY, json.dumps(summary, indent=2, allow_nan=False) + "\n")
    return summary


async def _answer(questions: Sequence[Question], model: Model, kept: "Kept", progress: Progress) -> None:
    progress("answers", len(kept.lines), len(questions))
    if len(kept.lines) == len(questions):
        return
    new = lost = 0
    async with aclosing(model.answers(questions, kept.lines)) as finished:
        async for some in finished:
            kept.add([{"id": one.id, **asdict(answer)} for one, answer in some])
            new, lost = new + len(some), lost + sum(answer.text is None for _, answer in some)
            progress("answers", len(kept.lines), len(questions))
            # Refused prompts come back first, so a stream must have lost that many, not only begun.
            if lost >= ENOUGH_TO_TELL and too_many_missing(lost, new):
                why = next(answer.lost for _, answer in some if answer.text is None)
                raise JudgeError(
                    f"{lost} of {new} answers were lost (the last one: {why}), more than {MOST_MISSING:.0%}; mend the "
                    "cause, then give the same command again with --retry-missing"
                )


async def _score(benchmark: Benchmark, answers: "Kept", records: "Kept", progress: Progress) -> None:
    left = [one for one in benchmark.questions if one.id not in records.lines]
    progress("scores", len(records.lines), len(benchmark.questions))
    for start in range(0, len(left), benchmark.batch):
        batch = left[start : start + benchmark.batch]
        records.add(await benchmark.score(batch, [_as_answer(answers.lines[one.id]) for one in batch]))
        progress("scores", len(records.lines), len(benchmark.questions))


def _as_answer(line: Mapping[str, Any]) -> Answer:
    return Answer(line["text"], line["tokens"], line["is_cut"], line["lost"])


def _summary(benchmark: Benchmark, records: Sequence[Record], answers: "Kept") -> dict[str, Any]:
    said = [line for line in answers.lines.values() if line["text"] is not None]
    lost = Counter(line["lost"] for line in answers.lines.values() if line["text"] is None)
    return {
        "benchmark": benchmark.name,
        "item_score": benchmark.item_score,
        "answers": {
            "asked": len(records),
            "units": len({record["unit"] for record in records}),
            "lost": lost.total(),
            "lost_because": dict(sorted(lost.items())),
            "cut_at_max_tokens": sum(line["is_cut"] for line in said),
            "mean_tokens": sum(line["tokens"] for line in said) / len(said) if said else None,
        },
        **benchmark.summarize(records),
    }


def questions_digest(questions: Sequence[Question]) -> str:
    """Return a hash of all questions: their ids, prompts and seeds, and tools where there are any."""
    told = [
        [
            one.id,
            one.prompt if isinstance(one.prompt, str) else list(one.prompt),
            one.seed,
            *([list(one.tools)] if one.tools else []),
        ]
        for one in questions
    ]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


class Kept:
    """Lines of JSON in a file, by their id; of an id that occurs twice the first line counts."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.lines: dict[str, dict[str, Any]] = {}
        for line in _read_lines(file):
            self.lines.setdefault(line["id"], line)

    def add(self, lines: Sequence[dict[str, Any]]) -> None:
        """Append lines; they are with the system when this returns, so that a kill loses none."""
        with self.file.open("ab") as stream:
            stream.write(b"".join(map(_encoded, lines)))
        self.lines.update((line["id"], line) for line in lines)

    def forget(self, names: set[str]) -> None:
        """Take lines out."""
        if names & self.lines.keys():
            self.replace([name for name in self.lines if name not in names])

    def replace(self, order: Sequence[str]) -> None:
        """Write the file anew, whole or not at all, with these lines in this order."""
        self.lines = {name: self.lines[name] for name in order}
        _write(self.file, b"".join(map(_encoded, self.lines.values())))


def _encoded(line: Mapping[str, Any]) -> bytes:
    return f"{json_text(line)}\n".encode()


def _read_lines(file: Path) -> list[dict[str, Any]]:
    """Return the lines of a file, none without one; what a kill left of a last line is cut off the file."""
    if not file.is_file():
        return []
    data = file.read_bytes()
    end = data.rfind(b"\n") + 1
    if end < len(data):
        os.truncate(file, end)
    lines = []
    for number, text in enumerate(data[:end].split(b"\n")[:-1], start=1):
        try:
            lines.append(json.loads(text))
            lines[-1]["id"]
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{file}, line {number} is no result ({error}); take it out, or begin anew") from error
    return lines


def _write(file: Path, content: str | bytes) -> None:
    """Write a file whole or not at all."""
    made = file.with_name(f".{file.name}.new")
    made.write_bytes(content.encode() if isinstance(content, str) else content)
    made.replace(file)


def _keep_about(folder: Path, about: Mapping[str, Any]) -> None:
    """Write what the results will depend on; raise ConfigError if the folder holds results of something else."""
    file = folder / ABOUT
    if file.is_file():
        apart = differences(_read_json(file), json.loads(json.dumps(about)), whole=True)
        if apart:
            raise ConfigError(
                f"{folder} holds results of something else ({apart}, there and now); choose another folder with --out"
            )
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write(file, json.dumps(about, indent=2) + "\n")
    except OSError as error:
        raise ConfigError(f"cannot write to {folder}: {error}") from error


def differences(one: Mapping[str, Any], other: Mapping[str, Any], *, whole: bool = False) -> str:
    """Return in words where two `about` differ, "" for nowhere: in all, or else in what makes scores incomparable.

    What may differ between models that are compared: their weights and names, and where and how fast they ran.
    """
    first, second = _flat(one), _flat(other)
    names = [name for name in {**first, **second} if first.get(name) != second.get(name)]
    if not whole:
        names = [name for name in names if name.startswith(COMPARABLE) and not name.endswith(".base_url")]
    return ", ".join(f"{name} {first.get(name)!r} and {second.get(name)!r}" for name in names)


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        return {name: value}
    return {key: one for part in value for key, one in _flat(value[part], f"{name}.{part}" if name else part).items()}


@dataclass(frozen=True)
class Result:
    """A finished results folder."""

    folder: Path
    summary: Mapping[str, Any]
    records: Sequence[Record]
    """In the benchmark's order."""


def read_result(folder: str | Path) -> Result:
    """Return what a finished folder holds; ConfigError if it is none."""
    folder = Path(folder)
    return Result(folder, _read_json(folder / SUMMARY), list(Kept(folder / ITEMS).lines.values()))


def _read_json(file: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file.parent} is no finished results folder of `rvpo eval`: {error}") from error
    return found


def result_folders(folder: str | Path) -> list[Path]:
    """Return the folder itself if it holds a summary, otherwise every folder beneath that does, by training step.

    Raises ConfigError if there is none.
    """
    folder = Path(folder)
    if (folder / SUMMARY).is_file():
        return [folder]
    found = [file.parent for file in sorted(folder.rglob(SUMMARY))]
    if not found:
        raise ConfigError(f"there are no finished results in {folder}; make some with `rvpo eval`")
    steps = {one: _read_json(one / SUMMARY).get("step") for one in found}
    return sorted(found, key=lambda one: (steps[one] is None, steps[one] or 0))
