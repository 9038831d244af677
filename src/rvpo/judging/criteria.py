"""What an answer is judged by: criteria, rubrics, and scalar scores made from verdicts.

A judge is asked of every criterion whether an answer *meets* it. Whether being met is good is the criterion's
polarity, not its points: data sets put negative points on "recommends a harmful dose" (met is bad) and on
"avoids a harmful dose" (met is good) alike.

A verdict is True (met), False (not met) or None (missing: refused, unreadable, failed). Missing is never filled.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from numbers import Real
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

from rvpo.errors import ConfigError, RewardError, unknown_name

__all__ = [
    "CATEGORY_WEIGHTS",
    "Criterion",
    "Polarity",
    "Problem",
    "Rubric",
    "Verdicts",
    "category_weight",
    "explicit_score",
    "healthbench_bounds",
    "healthbench_score",
    "is_finite_number",
    "plain_text",
    "suspicious_polarity",
    "wording",
]

Polarity: TypeAlias = Literal["positive", "negative"]
"""positive: an answer is better for meeting the criterion; negative: worse."""
POLARITIES: tuple[str, ...] = get_args(Polarity)

Verdicts: TypeAlias = Mapping[str, bool | None]
"""Whether a criterion is met, by its id; an absent id means the same as None, no verdict."""

CATEGORY_WEIGHTS = {"essential": 1.0, "important": 0.7, "optional": 0.3, "pitfall": 0.9}
"""Weights of RaR's explicit aggregation (arXiv 2507.17746) by the category, which is a tag of the criterion."""


@dataclass(frozen=True)
class Criterion:
    """One statement about an answer which a judge finds met or not met.

    Raises ConfigError for an id that is empty or has a "/", a text that is none, points that are not a finite
    number, an unknown polarity, or tags that are not a tuple of non-empty strings. An empty text is possible; it is
    a problem of the rubric (`Rubric.problems`).
    """

    id: str
    """Unique inside its rubric. Without "/", which separates tag and id in a channel's name."""
    text: str
    """What the judge is asked about."""
    points: float = 1.0
    """Importance on the scale of the data set; may be 0 or negative. The sign does not decide what is good."""
    polarity: Polarity = "positive"
    """Whether an answer is better ("positive") or worse ("negative") for meeting it."""
    tags: tuple[str, ...] = ()
    """What it is about. The first one is what metrics are kept by."""

    def __post_init__(self) -> None:
        for name in ("id", "text"):
            value: object = getattr(self, name)
            if not isinstance(value, str):
                raise ConfigError(f"{name} of a criterion must be text, got {value!r}")
        if not self.id or "/" in self.id:
            raise ConfigError(f"id of a criterion must be non-empty text without '/', got {self.id!r}; make it a tag")
        if not is_finite_number(self.points):
            raise ConfigError(f"points of criterion {self.id!r} must be a finite number, got {self.points!r}")
        if self.polarity not in POLARITIES:
            raise unknown_name(f"polarity of criterion {self.id!r}", self.polarity, POLARITIES)
        given: object = self.tags
        if not isinstance(given, tuple) or not all(isinstance(tag, str) and tag for tag in given):
            raise ConfigError(f"tags of criterion {self.id!r} must be a tuple of non-empty strings, got {given!r}")

    @property
    def weight(self) -> float:
        """Importance without sign: abs(points)."""
        return abs(self.points)

    @property
    def channel(self) -> str:
        """Name as a reward channel: "TAG/ID" with the first tag, or the id where there is none.

        Metrics are kept per part before the first "/" (`rvpo.rewards.channels`), so a "/" inside the tag becomes
        "-": otherwise one tag would be counted under the beginning of its name. Unique in a rubric as the id is.
        """
        return f"{self.tags[0].replace('/', '-')}/{self.id}" if self.tags else self.id

    def value(self, met: bool | None) -> float | None:
        """Return the verdict oriented so that higher is better: 1.0 or 0.0, and None for None.

        Raises RewardError for anything else: half a verdict is none.

        >>> Criterion("c1", "recommends a harmful dose", -5, "negative").value(True)
        0.0
        """
        if met is None:
            return None
        if met not in (True, False):
            raise RewardError(f"the verdict on criterion {self.id!r} must be True, False or None, got {met!r}")
        return 1.0 if bool(met) == (self.polarity == "positive") else 0.0

    def to_row(self) -> dict[str, Any]:
        """Return the criterion as JSON has it, every key present (Arrow needs the same keys in every row)."""
        return {
            "id": self.id,
            "text": self.text,
            "points": float(self.points),
            "polarity": self.polarity,
            "tags": list(self.tags),
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "Criterion":
        """Return the criterion of such a dict; an absent or null key has its default.

        Raises ConfigError for an unknown key, an absent id or text, and what the class refuses.
        """
        for key in row:
            if key not in KEYS:
                raise unknown_name("key of a criterion", key, KEYS)
        given = {key: value for key, value in row.items() if value is not None}
        absent = [key for key in ("id", "text") if key not in given]
        if absent:
            raise ConfigError(f"a criterion must have id and text, but {absent} are absent; there is {sorted(given)}")
        if isinstance(given.get("tags"), list):
            given["tags"] = tuple(given["tags"])
        return cls(**given)


KEYS = tuple(each.name for each in fields(Criterion))


def is_finite_number(value: object) -> bool:
    """Return whether a value is an int or a float (not a bool) that a float can hold."""
    try:
        return not isinstance(value, bool) and isinstance(value, Real) and math.isfinite(value)
    except OverflowError:  # an int that is no float
        return False


class Problem(NamedTuple):
    """Something about a rubric that a person should look at."""

    kind: Literal["duplicate_text", "empty_text", "suspicious_polarity"]
    ids: tuple[str, ...]
    """The criteria concerned, in their order."""
    reason: str
    """What is wrong, in words that repeat no text of the data."""


@dataclass(frozen=True)
class Rubric:
    """The criteria of one prompt, in order. May be empty; then no score is defined.

    Raises ConfigError if two criteria have one id.
    """

    criteria: tuple[Criterion, ...]

    def __post_init__(self) -> None:
        twice = [name for name, count in Counter(each.id for each in self.criteria).items() if count > 1]
        if twice:
            raise ConfigError(
                f"ids must be unique inside a rubric, but {twice[:5]} occur more than once among "
                f"{len(self.criteria)} criteria; rename them"
            )

    def __len__(self) -> int:
        return len(self.criteria)

    def __iter__(self) -> Iterator[Criterion]:
        return iter(self.criteria)

    @classmethod
    def from_rows(cls, rows: Iterable[Mapping[str, Any]]) -> "Rubric":
        """Return the rubric of criteria as `Criterion.to_row` writes them; raises what that class raises."""
        return cls(tuple(Criterion.from_row(row) for row in rows))

    def to_rows(self) -> list[dict[str, Any]]:
        """Return the criteria as dicts; `Rubric.from_rows` is the inverse."""
        return [each.to_row() for each in self.criteria]

    def problems(self) -> list[Problem]:
        """Return what a person should look at: texts that are empty or occur twice, and suspicious polarities.

        Texts are compared without case and white space. Nothing is changed.
        """
        found = []
        by_text: dict[str, list[str]] = {}
        for each in self.criteria:
            by_text.setdefault(plain_text(each.text), []).append(each.id)
            reason = suspicious_polarity(each)
            if reason:
                found.append(Problem("suspicious_polarity", (each.id,), reason))
        for text, ids in by_text.items():
            if not text:
                found.append(Problem("empty_text", tuple(ids), "there is nothing to judge"))
            elif len(ids) > 1:
                found.append(Problem("duplicate_text", tuple(ids), "the same text, so it counts more than once"))
        return found


def plain_text(text: str) -> str:
    """Return a text as it is compared with others: without case and without differences in white space."""
    return " ".join(text.split()).casefold()


# An optional subject, as in "The response fails to ..."; then the wording decides. Anchored at the beginning:
# "explains that the label wrongly says ..." speaks of a fault that is not the answer's.
_SUBJECT = (
    r"^\W*(?:(?:the|this|an?|any|its?)\s+)?(?:(?:final|model'?s?|assistant'?s?)\s+)?"
    r"(?:(?:response|answer|explanation|solution|report|analysis|model|assistant|text|output|it)s?\s+)?"
)
_WRONGLY = r"(?:(?:in(?:c?or+ect|accurate|appropriate)|wrong|false|erroneous|mistaken|improper|misleading)ly)"
_BLUNDER = (
    r"(?:mis(?:identif|interpret|represent|stat|lead|attribut|diagnos|classif|tak|understand|characteri)\w*"
    r"|confus\w+|conflat\w+|contradict\w*|fabricat\w+|hallucinat\w+|invent\w*|overstat\w+|understat\w+|exaggerat\w+"
    r"|downplay\w*|omit\w*|overlook\w*|ignor\w+|neglect\w*|forget\w*|fail(?:s|ed|ing|ure)?\s+to)"
)
_STATE = (
    r"(?:mention|state|include|identify|address|note|specify|list|provide|discuss|explain|describe|acknowledge"
    r"|consider|clarify|recogni[sz]e|cite|define|give|name|offer|emphasi[sz]e|highlight|ask|seek|inform|indicate"
    r"|differentiate|distinguish|account|contain|present|reference|cover|warn|caution|follow|answer|meet)"
)
_AVOIDED = re.compile(
    _SUBJECT + r"(?:avoid(?:s|ed|ing)?|refrains?|never|do\s+not"
    r"|(?:must|should|shall)\s+(?:also\s+)?(?:not|never|avoid|refrain|steer)"
    rf"|(?:does|did)(?:\s+not|n\W?t)\s+(?:{_WRONGLY}|{_BLUNDER})"
    r"|(?:warn|caution)s?\s+against|(?:is|are|stays?|remains?)\s+free\s+(?:of|from))\b",
    re.IGNORECASE,
)
_FAULT = re.compile(
    _SUBJECT + r"(?:(?:may|might|could|would)\s+)?(?:\w+ly\s+(?:but\s+)?)?"
    rf"(?:(?:do|does|did)(?:\s+not|n\W?t)\s+(?:\w+ly\s+)?{_STATE}|{_WRONGLY}|{_BLUNDER}"
    r"|miss(?:es|ed|ing)?|lack(?:s|ed|ing)?)\b",
    re.IGNORECASE,
)


def wording(text: str) -> Polarity | None:
    """Return the polarity that a criterion's wording suggests, None where it suggests none.

    "positive": a prohibition or its observance ("avoids X", "must not X", "does not wrongly X"), which is good to
    meet. "negative": a fault of the answer ("fails to X", "omits X", "does not mention X", "incorrectly X").
    Only the beginning is read, in English, and no sense is made of X: "does not mention that X may be ignored"
    may be either, "does not recommend X" is left undecided because X may be good or bad.

    >>> wording("The response should not omit the unit"), wording("Omits the unit"), wording("States the unit")
    ('positive', 'negative', None)
    """
    if _AVOIDED.match(text):
        return "positive"
    return "negative" if _FAULT.match(text) else None


def suspicious_polarity(criterion: Criterion) -> str | None:
    """Return why the polarity may be the wrong way round, or None if nothing speaks against it.

    The wording is asked first (`wording`, whose limits hold here), then the sign of the points. A finding is a
    reason to look, not an error: a rubric may want a bad answer described, or reward what reads as a fault.
    """
    counts = "good" if criterion.polarity == "positive" else "bad"
    suggested = wording(criterion.text)
    if suggested is not None:
        what = "something to avoid" if suggested == "positive" else "a fault"
        return None if suggested == criterion.polarity else f"reads as {what}, but being met counts as {counts}"
    if criterion.points == 0 or (criterion.points > 0) == (criterion.polarity == "positive"):
        return None
    return f"has {'positive' if criterion.points > 0 else 'negative'} points, but being met counts as {counts}"


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
    return CATEGORY_WEIGHTS["essential" if points >= 5 else "important" if points >= 3 else "optional"]


def explicit_score(rubric: Rubric, met: Verdicts) -> float | None:
    """RaR's explicit aggregation `sum w c / sum w` in [0, 1] (arXiv 2507.17746), None if no verdict is known.

    w is `category_weight`, c the verdict oriented so that higher is better. The paper does not say what becomes of
    a missing verdict: here it leaves numerator and denominator, so that the score is that of the criteria known.
    Raises ConfigError for a verdict on a criterion that the rubric does not have.

    >>> rubric = Rubric((Criterion("a", "", tags=("essential",)), Criterion("b", "", -1, "negative", ("pitfall",))))
    >>> explicit_score(rubric, {"a": True, "b": True}), explicit_score(rubric, {"a": True, "b": None})
    (0.5263157894736842, 1.0)
    """
    _check_ids(rubric, met)
    pairs = [(category_weight(each), each.value(met.get(each.id))) for each in rubric]
    known = [(weight, value) for weight, value in pairs if value is not None]
    total = math.fsum(weight for weight, _ in known)
    return math.fsum(weight * value for weight, value in known) / total if total > 0 else None


def healthbench_score(rubric: Rubric, met: Verdicts) -> float | None:
    """HealthBench's score of one answer: points of the criteria met / sum of the positive points, not clipped.

    May be negative. None if there are no positive points or a verdict is missing; `healthbench_bounds` tells how
    far the missing ones reach. The rule reads points, not polarity: it needs points that are negative where being
    met is bad, as HealthBench's are (arXiv 2505.08775). Raises ConfigError for a verdict on an unknown criterion.
    """
    bounds = healthbench_bounds(rubric, met)
    complete = all(met.get(each.id) is not None for each in rubric)
    return bounds[0] if bounds is not None and complete else None


def healthbench_bounds(rubric: Rubric, met: Verdicts) -> tuple[float, float] | None:
    """Return the lowest and the highest `healthbench_score` that the missing verdicts could still produce.

    Equal without missing verdicts; None if there are no positive points. Raises as `healthbench_score`.
    """
    _check_ids(rubric, met)
    for each in rubric:
        each.value(met.get(each.id))  # refuses what is no verdict
    positive = math.fsum(max(each.points, 0.0) for each in rubric)
    if positive <= 0:
        return None
    known = [each.points for each in rubric if met.get(each.id)]
    open_points = [each.points for each in rubric if met.get(each.id) is None]
    lowest = math.fsum([*known, *(min(points, 0.0) for points in open_points)])
    highest = math.fsum([*known, *(max(points, 0.0) for points in open_points)])
    return lowest / positive, highest / positive


def _check_ids(rubric: Rubric, met: Verdicts) -> None:
    known = {each.id for each in rubric}
    for name in met:
        if name not in known:
            raise unknown_name("criterion", name, known)
