"""What a set of canonical rows contains, as numbers and ids: `rvpo data` prints it."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rvpo.data.rows import RubricRow
from rvpo.judging.check import RubricProblem, plain_text, rubric_problems
from rvpo.judging.criteria import Criterion, Rubric

__all__ = ["Description", "RowProblem", "SharedText", "TagCount", "describe", "histogram"]


class TagCount(NamedTuple):
    """A tag of criteria."""

    tag: str
    criteria: int
    """Criteria that have it."""
    points: float
    """Their points in sum; then the lowest and the highest."""
    lowest: float
    highest: float


class RowProblem(NamedTuple):
    """A problem of a row's rubric."""

    row: str
    """Id of the row."""
    problem: RubricProblem
    text: str
    """Text of the first criterion concerned."""


class SharedText(NamedTuple):
    """A criterion text that several rubrics have."""

    rubrics: int
    """How many."""
    row: str
    """Id of the first such row, and of the criterion there."""
    criterion: str
    text: str


@dataclass(frozen=True)
class Description:
    """What is in a set of rows."""

    sizes: list[int]
    """Criteria per prompt, in the order of the rows."""
    tags: list[TagCount]
    """Tags of criteria, the most frequent first. A criterion counts under each of its tags."""
    example_tags: list[tuple[str, int]]
    """Tags of examples with their number, the most frequent first."""
    positive: int
    """Criteria that are good to meet."""
    negative: int
    """Criteria that are bad to meet."""
    problems: list[RowProblem]
    """Problems of the rubrics, in the order of the rows."""
    shared: list[SharedText]
    """Texts that occur in several rubrics, the most frequent first; compared without case and white space."""


def describe(rows: Iterable[RubricRow]) -> Description:
    """Return what is in the rows; everything empty without any. Raises ConfigError for a rubric that is none."""
    rubrics = [(row["id"], row["tags"], Rubric.from_rows(row["rubric"])) for row in rows]
    criteria = [criterion for _, _, rubric in rubrics for criterion in rubric]
    return Description(
        sizes=[len(rubric) for _, _, rubric in rubrics],
        tags=_tag_counts(criteria),
        example_tags=Counter(tag for _, tags, _ in rubrics for tag in tags).most_common(),
        positive=sum(criterion.polarity == "positive" for criterion in criteria),
        negative=sum(criterion.polarity == "negative" for criterion in criteria),
        problems=[problem for row, _, rubric in rubrics for problem in _problems(row, rubric)],
        shared=_shared([(row, rubric) for row, _, rubric in rubrics]),
    )


def _tag_counts(criteria: Iterable[Criterion]) -> list[TagCount]:
    points: dict[str, list[float]] = {}
    for criterion in criteria:
        for tag in criterion.tags:
            points.setdefault(tag, []).append(criterion.points)
    counts = [TagCount(tag, len(of_tag), sum(of_tag), min(of_tag), max(of_tag)) for tag, of_tag in points.items()]
    return sorted(counts, key=lambda count: -count.criteria)


def _problems(row: str, rubric: Rubric) -> list[RowProblem]:
    texts = {criterion.id: criterion.text for criterion in rubric}
    return [RowProblem(row, problem, texts[problem.ids[0]]) for problem in rubric_problems(rubric)]


def _shared(rubrics: Iterable[tuple[str, Rubric]]) -> list[SharedText]:
    first: dict[str, tuple[str, Criterion]] = {}
    rubrics_with: Counter[str] = Counter()
    for row, rubric in rubrics:
        criteria = {plain_text(criterion.text): criterion for criterion in reversed(rubric.criteria)}
        rubrics_with.update(criteria.keys())
        for text, criterion in criteria.items():
            first.setdefault(text, (row, criterion))
    several = [
        SharedText(rubrics_with[text], row, criterion.id, criterion.text)
        for text, (row, criterion) in first.items()
        if text and rubrics_with[text] > 1
    ]
    return sorted(several, key=lambda shared: -shared.rubrics)


def histogram(sizes: Sequence[int], bins: int = 10) -> list[tuple[int, int, int]]:
    """Return (lowest, highest, number) of equally wide bins of whole numbers, at most `bins`; empty without any.

    >>> histogram([2, 3, 3, 9], bins=4)
    [(2, 3, 3), (4, 5, 0), (6, 7, 0), (8, 9, 1)]
    """
    if not sizes:
        return []
    first, last = min(sizes), max(sizes)
    width = -(-(last - first + 1) // bins)
    counts = Counter((size - first) // width for size in sizes)
    used = (last - first) // width + 1
    return [(first + at * width, first + (at + 1) * width - 1, counts[at]) for at in range(used)]
