"""One number for a whole answer, made from the verdicts on its criteria. A missing verdict is never filled."""

import math
from collections.abc import Mapping
from typing import TypeAlias

from rvpo.errors import unknown_name
from rvpo.judging.criteria import Criterion, Rubric

__all__ = [
    "CATEGORY_WEIGHTS",
    "MetById",
    "category_weight",
    "explicit_score",
    "healthbench_bounds",
    "healthbench_score",
]

MetById: TypeAlias = Mapping[str, bool | None]
"""Whether a criterion is met, by its id; an absent id means the same as None, no verdict."""

CATEGORY_WEIGHTS = {"essential": 1.0, "important": 0.7, "optional": 0.3, "pitfall": 0.9}
"""Weights of RaR's explicit aggregation (arXiv 2507.17746) by the category, which is a tag of the criterion."""
ESSENTIAL_POINTS, IMPORTANT_POINTS = 5.0, 3.0
"""Points from which on a criterion counts as essential or important, as RaR's generation prompt gives them out."""


def category_weight(criterion: Criterion) -> float:
    """Return RaR's weight of a criterion: that of its category tag, otherwise that of its points.

    Points are read as RaR's generation prompt gives them out: 5 and more essential, 3 and 4 important, below that
    optional, negative a pitfall; 0 weighs nothing.
    """
    for tag in criterion.tags:
        if tag in CATEGORY_WEIGHTS:
            return CATEGORY_WEIGHTS[tag]
    points = criterion.points
    if points <= 0:
        return CATEGORY_WEIGHTS["pitfall"] if points < 0 else 0.0
    category = "essential" if points >= ESSENTIAL_POINTS else "important" if points >= IMPORTANT_POINTS else "optional"
    return CATEGORY_WEIGHTS[category]


def explicit_score(rubric: Rubric, met: MetById) -> float | None:
    """RaR's explicit aggregation `sum w c / sum w` in [0, 1] (arXiv 2507.17746), None if no verdict is known.

    w is `category_weight`, c the verdict oriented so that higher is better. The paper does not say what becomes of
    a missing verdict: here it leaves numerator and denominator, so that the score is that of the criteria known.
    Raises ConfigError for a verdict on a criterion that the rubric does not have.

    >>> rubric = Rubric((Criterion("a", "", tags=("essential",)), Criterion("b", "", -1, "negative", ("pitfall",))))
    >>> explicit_score(rubric, {"a": True, "b": True}), explicit_score(rubric, {"a": True, "b": None})
    (0.5263157894736842, 1.0)
    """
    _check_ids(rubric, met)
    pairs = [(category_weight(criterion), criterion.value(met.get(criterion.id))) for criterion in rubric]
    known = [(weight, value) for weight, value in pairs if value is not None]
    total = math.fsum(weight for weight, _ in known)
    return math.fsum(weight * value for weight, value in known) / total if total > 0 else None


def healthbench_score(rubric: Rubric, met: MetById) -> float | None:
    """HealthBench's score of one answer: points of the criteria met / sum of the positive points, not clipped.

    May be negative. None if there are no positive points or a verdict is missing; `healthbench_bounds` tells how
    far the missing ones reach. The rule reads points, not polarity: it needs points that are negative where being
    met is bad, as HealthBench's are (arXiv 2505.08775). Raises ConfigError for a verdict on an unknown criterion.
    """
    bounds = healthbench_bounds(rubric, met)
    complete = all(met.get(criterion.id) is not None for criterion in rubric)
    return bounds[0] if bounds is not None and complete else None


def healthbench_bounds(rubric: Rubric, met: MetById) -> tuple[float, float] | None:
    """Return the lowest and the highest `healthbench_score` that the missing verdicts could still produce.

    Equal without missing verdicts; None if there are no positive points. Raises as `healthbench_score`.
    """
    _check_ids(rubric, met)
    for criterion in rubric:
        criterion.value(met.get(criterion.id))  # refuses what is no verdict
    positive = math.fsum(max(criterion.points, 0.0) for criterion in rubric)
    if positive <= 0:
        return None
    known = [criterion.points for criterion in rubric if met.get(criterion.id)]
    open_points = [criterion.points for criterion in rubric if met.get(criterion.id) is None]
    lowest = math.fsum([*known, *(min(points, 0.0) for points in open_points)])
    highest = math.fsum([*known, *(max(points, 0.0) for points in open_points)])
    return lowest / positive, highest / positive


def _check_ids(rubric: Rubric, met: MetById) -> None:
    known = {criterion.id for criterion in rubric}
    for name in met:
        if name not in known:
            raise unknown_name("criterion", name, known)
