"""What a set of canonical rows contains, as numbers and ids: `rvpo data` prints it."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rvpo.data.rows import RubricRow
from rvpo.judging.criteria import Criterion, Problem, Rubric, plain_text

__all__ = ["Description", "Finding", "Shared", "TagCount", "describe", "histogram"]


class TagCount(NamedTuple):
    """A tag of criteria."""

    tag: str
    criteria: int
    """Criteria that have it."""
    points: float
    """Their points in sum; then the lowest and the highest."""
    lowest: float
    highest: float


class Finding(NamedTuple):
    """A problem of one rubric."""

    row: str
    """Id of the row."""
    problem: Problem
    text: str
    """Text of the first criterion concerned."""


class Shared(NamedTuple):
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
    findings: list[Finding]
    """Problems of the rubrics, in the order of the rows."""
    shared: list[Shared]
    """Texts that occur in several rubrics, the most frequent first; compared without case and white space."""


def describe(rows: Iterable[RubricRow]) -> Description:
    """Return what is in the rows; everything empty without any. Raises ConfigError for a rubric that is none."""
    rubrics = [(row["id"], row["tags"], Rubric.from_rows(row["rubric"])) for row in rows]
    criteria = [each for _, _, rubric in rubrics for each in rubric]
    return Description(
        sizes=[len(rubric) for _, _, rubric in rubrics],
        tags=_tag_counts(criteria),
        example_tags=Counter(tag for _, tags, _ in rubrics for tag in tags).most_common(),
        positive=sum(each.polarity == "positive" for each in criteria),
        negative=sum(each.polarity == "negative" for each in criteria),
        findings=[finding for row, _, rubric in rubrics for finding in _findings(row, rubric)],
        shared=_shared([(row, rubric) for row, _, rubric in rubrics]),
    )


def _tag_counts(criteria: Iterable[Criterion]) -> list[TagCount]:
    points: dict[str, list[float]] = {}
    for each in criteria:
        for tag in each.tags:
            points.setdefault(tag, []).append(each.points)
    counts = [TagCount(tag, len(of_tag), sum(of_tag), min(of_tag), max(of_tag)) for tag, of_tag in points.items()]
    return sorted(counts, key=lambda each: -each.criteria)


def _findings(row: str, rubric: Rubric) -> list[Finding]:
    texts = {each.id: each.text for each in rubric}
    return [Finding(row, problem, texts[problem.ids[0]]) for problem in rubric.problems()]


def _shared(rubrics: Iterable[tuple[str, Rubric]]) -> list[Shared]:
    found: dict[str, Shared] = {}
    for row, rubric in rubrics:
        for text, each in {plain_text(each.text): each for each in reversed(rubric.criteria)}.items():
            before = found.get(text)
            found[text] = (
                Shared(1, row, each.id, each.text) if before is None else before._replace(rubrics=before[0] + 1)
            )
    several = [each for text, each in found.items() if each.rubrics > 1 and text]
    return sorted(several, key=lambda each: -each.rubrics)


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
