"""IFEval (Zhou et al., arXiv 2311.07911): prompts with one to three instructions that a program can check.

    prompt_strict, prompt_loose            share of the prompts whose instructions are all followed
    instruction_strict, instruction_loose  share of the instructions that are followed, over all prompts
    kind:NAME                              the same for the instructions of one kind, strict

Strict looks at the answer as it is. Loose also takes it without its first line, its last or both, and without its
asterisks: an instruction is followed if any of these follows it. A blank answer follows none. A `<think>` block is
not part of the answer. The rows are the user's own (541 in the original: google/IFEval, Apache-2.0), the checks in
`ifeval_checks`; where the language must be told, that is `langdetect`'s work.
"""

import inspect
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple

from rvpo.data.rows import Place
from rvpo.errors import ConfigError
from rvpo.evals.benchmark import Benchmark, Record, mean_score, repeated, scored, units_of, unknown_record
from rvpo.evals.ifeval_checks import CHECKS, LANGUAGE_CHECKS, RELATIONS, loose_variants
from rvpo.evals.models import Answer, Question
from rvpo.llm.thoughts import without_thoughts

__all__ = ["Instructed", "build", "followed", "read_row", "record", "summarize"]

SCORES = ("prompt_strict", "prompt_loose", "instruction_strict", "instruction_loose")


class Instructed(NamedTuple):
    """A prompt and its instructions."""

    prompt: str
    instructions: Sequence[tuple[str, Mapping[str, Any]]]
    """(name in `CHECKS`, its arguments)."""


def read_row(row: Mapping[str, Any], place: Place) -> Instructed:
    """Return the prompt of a row with its instructions; arguments that are None (as on the hub) are left out.

    Raises ConfigError, with the place, for a row without them, an unknown instruction or wrong arguments.
    """
    prompt = row.get("prompt")
    names, arguments = (list(row.get(name) or ()) for name in ("instruction_id_list", "kwargs"))
    if not isinstance(prompt, str) or not names or len(names) != len(arguments):
        raise ConfigError(
            f"{place}: IFEval needs prompt, a text, and instruction_id_list and kwargs, equally long lists; the "
            f"row has {sorted(map(str, row))}"
        )
    given = [{key: value for key, value in some.items() if value is not None} for some in arguments]
    for name, some in zip(names, given, strict=True):
        if name not in CHECKS:
            raise ConfigError(f"{place}: instruction {name!r} is not one of IFEval's {len(CHECKS)}")
        try:
            inspect.signature(CHECKS[name]).bind("", **some)
        except TypeError as error:
            raise ConfigError(f"{place}: {name} {error}; it is given {some}") from error
        wrong = [value for key, value in some.items() if key.endswith("relation") and value not in RELATIONS]
        if wrong:
            raise ConfigError(f"{place}: {name} has the relation {wrong[0]!r}, not one of {list(RELATIONS)}")
    return Instructed(prompt, list(zip(names, given, strict=True)))


def followed(item: Instructed, answer: str) -> list[tuple[bool, bool]]:
    """Return (strict, loose) of each instruction of an item, for an answer."""
    # Without a thought, blanks at the ends stay: they are part of the first and the last line.
    text = without_thoughts(answer) if "</think>" in answer else answer
    forms = [form for form in loose_variants(text) if form.strip()]
    checks = [(CHECKS[name], arguments) for name, arguments in item.instructions]
    strict = [bool(text.strip()) and check(text, **arguments) for check, arguments in checks]
    loose = [any(check(form, **arguments) for form in forms) for check, arguments in checks]
    return list(zip(strict, loose, strict=True))


def build(rows: Sequence[tuple[Place, Mapping[str, Any]]], *, repeats: int = 1, seed: int = 0) -> Benchmark:
    """Return the benchmark of rows with their places. Raises ConfigError for a row that cannot be used."""
    read = [read_row(row, place) for place, row in rows]
    if any(name in LANGUAGE_CHECKS for item in read for name, _ in item.instructions) and not find_spec("langdetect"):
        raise ConfigError("ifeval tells languages apart with langdetect, not installed here: pip install langdetect")
    items = dict(zip(units_of(read), read, strict=True))
    prompts = {unit: [{"role": "user", "content": item.prompt}] for unit, item in items.items()}
    return Benchmark(
        name="ifeval",
        questions=repeated(prompts, repeats, seed),
        score=lambda question, answer: record(question, items[question.unit], answer),
        summarize=summarize,
        item_score="prompt_strict",
        about={"repeats": repeats, "seed": seed},
    )


def record(question: Question, item: Instructed, answer: Answer) -> Record:
    """Return the record of an answer: the prompt's scores, and `instructions`, [name, strict, loose] of each."""
    names = [name for name, _ in item.instructions]
    if answer.text is None:
        bounds = dict.fromkeys(SCORES[:2], (0.0, 1.0))
        return unknown_record(question, bounds, instructions=[[name, None, None] for name in names])
    pairs = followed(item, answer.text)
    strict, loose = (float(all(verdicts)) for verdicts in zip(*pairs, strict=True))
    instructions = [[name, *map(float, pair)] for name, pair in zip(names, pairs, strict=True)]
    return scored(question, {"prompt_strict": strict, "prompt_loose": loose}, instructions=instructions)


def summarize(records: Sequence[Record]) -> dict[str, Any]:
    """Return the benchmark's part of a summary; see `rvpo.evals.benchmark.Benchmark`.

    Instructions are averaged over all of them; their intervals are over prompts, whose instructions are not
    independent.
    """
    instructions = [
        {
            "unit": record["unit"],
            "scores": {"instruction_strict": strict, "instruction_loose": loose, f"kind:{name}": strict},
            "bounds": dict.fromkeys(("instruction_strict", "instruction_loose", f"kind:{name}"), (0.0, 1.0)),
        }
        for record in records
        for name, strict, loose in record["instructions"]
    ]
    kinds = sorted({name for entry in instructions for name in entry["scores"] if name.startswith("kind:")})
    scores = {
        name: mean_score(records if name.startswith("prompt") else instructions, name) for name in [*SCORES, *kinds]
    }
    return {"headline": "prompt_strict", "shown": list(scores), "scores": scores}
