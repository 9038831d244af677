"""HealthBench by its official rule (Arora et al., arXiv 2505.08775), from verdicts on the criteria of each example.

With met criteria C and the criteria K of an example, the score of the example is

    s = sum_{c in C} points_c / sum_{c in K, points_c > 0} points_c

not clipped, and may be negative. The same ratio over the criteria with a tag (axis, level, cluster) is the example's
score for that tag; without positive criteria of the tag the example has none. The example's own tags (themes) get its
overall score. A reported number is `clip(mean over examples, 0, 1)`; the mean itself stands beside it, because a
reported 0 hides how far below 0 it was.

An example with a missing verdict has no score; `bounds` tells between which ends it lies, and so does the summary of
the means. The official code asks the judge until it answers, so that it knows no missing verdicts.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from typing import Any

from rvpo.data.formats import AXES
from rvpo.data.rows import RubricRow
from rvpo.errors import ConfigError, JudgeError
from rvpo.evals.benchmark import Benchmark, Record, mean_score, repeated, scored
from rvpo.evals.models import Answer, Question
from rvpo.judging.criteria import Rubric
from rvpo.judging.grading import Graded, Grader, Item, MetById, healthbench_bounds, healthbench_score
from rvpo.judging.judge import Judge
from rvpo.llm.limits import MOST_MISSING, too_many_so_far

__all__ = ["build", "example_scores", "judge_about", "record", "summarize"]

CONSENSUS = "level:cluster"
"""Tag of the criteria that HealthBench Consensus keeps."""
ORDER = ("overall", "axis:", "subset:", "theme:", "level:")

Subsets = Mapping[str, Set[str]]


def build(
    rows: Sequence[RubricRow],
    grader: Grader,
    *,
    subsets: Subsets | None = None,
    repeats: int = 1,
    seed: int = 0,
    about: Mapping[str, Any] | None = None,
    max_missing: float = MOST_MISSING,
) -> Benchmark:
    """Return the benchmark of canonical rows (`rvpo.data.load_rubric_rows`), judged by `grader`.

    Args:
        rows: prompts with rubrics whose negative points mean that being met is bad.
        grader: a `Judge`, or a `RuleJudge`.
        subsets: name -> ids of the rows in it.
        repeats: answers per prompt.
        seed: of the answers.
        about: what verdicts depend on, for example the judge's model.
        max_missing: share of the verdicts that may be missing; more stops the run, once 20 are.

    Raises:
        ConfigError: a rubric that the rule cannot score, or a subset without any of the rows.
    """
    subsets = subsets or {}
    every = {row["id"]: Rubric.from_rows(row["rubric"]) for row in rows}
    rubrics = {name: rubric for name, rubric in every.items() if any(criterion.points > 0 for criterion in rubric)}
    rows = [row for row in rows if row["id"] in rubrics]
    _check(rubrics, subsets)
    tags = {
        row["id"]: [*row["tags"], *(f"subset:{name}" for name, ids in subsets.items() if row["id"] in ids)]
        for row in rows
    }

    prompts = {row["id"]: row["prompt"] for row in rows}
    verdicts = lost = 0

    async def score(question: Question, answer: Answer) -> Record:
        nonlocal verdicts, lost
        rubric, graded = rubrics[question.unit], None
        if answer.text is not None:
            (graded,) = await grader.grade_many([Item(prompts[question.unit], answer.text, rubric)])
            verdicts += len(rubric)
            lost += sum(verdict.is_lost for verdict in graded.verdicts.values())
            if too_many_so_far(lost, verdicts, max_missing):
                raise JudgeError(
                    f"{lost} of {verdicts} verdicts are missing, more than max_missing={max_missing:g}; look at the "
                    "judge's server, then give the same command again (the store has what was answered)"
                )
        return record(question, rubric, tags[question.unit], graded)

    settings = {
        "repeats": repeats,
        "seed": seed,
        "rows_left_out": len(every) - len(rubrics),
        "rubrics": _digest({name: rubric.to_rows() for name, rubric in rubrics.items()}),
        "subsets": {name: _digest(sorted(ids)) for name, ids in subsets.items()},
    }
    return Benchmark(
        name="healthbench",
        questions=repeated(prompts, repeats, seed),
        score=score,
        summarize=summarize,
        item_score="overall",
        about={**(about or {}), **settings},
        close=grader.close,
    )


def judge_about(judge: Judge) -> dict[str, Any]:
    """Return what a judge's verdicts depend on, for a summary: its settings without those of speed and budget."""
    config = judge.config
    names = (
        *("model", "base_url", "criteria_per_call", "repeats", "temperature", "max_tokens", "asks"),
        *("structured_output", "opens_thought", "lost_as"),
    )
    settings = {name: getattr(config, name) for name in names}
    settings |= {"extra": dict(config.extra), "thoughts": dict(config.thoughts)}
    return {"judge": settings, "prompts": {"judge": judge.prompt.digest[:16]}}


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _check(rubrics: Mapping[str, Rubric], subsets: Subsets) -> None:
    """Raise ConfigError for what the rule cannot score."""
    if not rubrics:
        raise ConfigError("HealthBench's rule divides by the positive points, and no row has any")
    for name, rubric in rubrics.items():
        other = [criterion.id for criterion in rubric if (criterion.points < 0) != (criterion.polarity == "negative")]
        if other:
            raise ConfigError(
                f"HealthBench's rule reads points, which must be negative where being met is bad; criteria "
                f"{other[:5]} of row {name} have another polarity. Score such rows with `rvpo judge grade`"
            )
    for name, ids in subsets.items():
        if not ids & rubrics.keys():
            raise ConfigError(f"none of the {len(ids)} ids of the subset {name} is that of one of {len(rubrics)} rows")


def example_scores(
    rubric: Rubric, met: MetById, tags: Sequence[str] = ()
) -> tuple[dict[str, float | None], dict[str, tuple[float, float]]]:
    """Return an example's scores by name, None where a verdict is missing, and the bounds of those that are None.

    Names: "overall"; "axis:NAME" and the other tags of criteria, where one of the tag's criteria has positive
    points; `tags`, those of the example itself, with the overall score; and for each "subset:NAME" among them
    "subset:NAME level:cluster". Raises ConfigError for a verdict on a criterion that the rubric does not have.
    """
    parts = {"overall": rubric}
    for tag in dict.fromkeys(tag for criterion in rubric for tag in criterion.tags):
        name = f"axis:{tag}" if tag in AXES else tag
        parts[name] = Rubric(tuple(criterion for criterion in rubric if tag in criterion.tags))
    scores: dict[str, float | None] = {}
    bounds: dict[str, tuple[float, float]] = {}
    healthbench_bounds(rubric, met)  # refuses unknown ids, which the parts below would not see
    for name, part in parts.items():
        known = {criterion.id: met.get(criterion.id) for criterion in part}
        ends = healthbench_bounds(part, known)
        if ends is not None:
            scores[name] = healthbench_score(part, known)
            if scores[name] is None:
                bounds[name] = ends
    sources = dict.fromkeys(tags, "overall")
    sources |= {f"{tag} {CONSENSUS}": CONSENSUS for tag in tags if tag.startswith("subset:")}
    scores |= {name: scores[source] for name, source in sources.items() if source in scores}
    bounds |= {name: bounds[source] for name, source in sources.items() if source in bounds}
    return scores, bounds


def record(question: Question, rubric: Rubric, tags: Sequence[str], graded: Graded | None) -> Record:
    """Return the record of an answer; None for `graded`: there was no answer, and every verdict is missing."""
    met = {criterion.id: None for criterion in rubric} if graded is None else graded.met()
    scores, bounds = example_scores(rubric, met, tags)
    verdicts = (
        ["unanswered"] * len(rubric) if graded is None else [verdict.outcome for verdict in graded.verdicts.values()]
    )
    outcomes = dict(sorted(Counter(map(str, verdicts)).items()))
    ends = {name: list(pair) for name, pair in bounds.items()}
    missing = {"missing": sum(verdict is None for verdict in met.values())}
    return scored(question, scores, ends, verdicts=met, outcomes=outcomes) | missing


def summarize(records: Sequence[Record]) -> dict[str, Any]:
    """Return the benchmark's part of a summary; see `rvpo.evals.benchmark.Benchmark`.

    `value` is clipped, `unclipped` not; `interval` and `bounds` belong to the unclipped mean. `verdicts` counts what
    became of the criteria; its `missing_share` is that of all verdicts asked for.
    """
    names = sorted({name for record in records for name in record["scores"]}, key=_place)
    scores = {}
    for name in names:
        summary = mean_score(records, name)
        mean = summary["value"]
        scores[name] = {**summary, "value": None if mean is None else min(max(mean, 0.0), 1.0), "unclipped": mean}
    outcomes: Counter[str] = Counter()
    for record in records:
        outcomes.update(record["outcomes"])
    missing = sum(record["missing"] for record in records)
    return {
        "headline": "overall",
        "shown": [name for name in names if name.startswith(("overall", "axis:", "subset:", "level:"))],
        "scores": scores,
        "verdicts": {
            "asked": outcomes.total(),
            "missing": missing,
            "missing_share": missing / outcomes.total(),
            "outcomes": dict(sorted(outcomes.items())),
        },
    }


def _place(name: str) -> tuple[int, str]:
    return next((place for place, start in enumerate(ORDER) if name.startswith(start)), len(ORDER)), name
