"""RaR-Medicine and RaR-Science (Gunjal et al., arXiv 2507.17746): rubrics written by language models.

Hub names: anisha2102/RaR-Medicine and anisha2102/RaR-Science (also with -20k-o3-mini at the end), and copies under
ScaleAI/. Columns: question, reference_answer, question_source, rubric [{title, description, weight}], rubric_list
(the descriptions again), rubric_count. Splits: train, val, test. The category is nothing but the beginning of the
description, "Essential Criteria: ...", now and then misspelt or absent.
"""

import re
from collections.abc import Mapping
from difflib import SequenceMatcher
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from rvpo.data.rows import Draft, Place, items_of, mapping_of, messages_of, number_of, optional_text
from rvpo.judging.criteria import Criterion, Polarity
from rvpo.judging.problems import wording
from rvpo.judging.scores import CATEGORY_WEIGHTS

__all__ = ["POLARITY_RULES", "PolarityRule", "default_rule", "read_category", "read_rar"]

PolarityRule: TypeAlias = Literal["met_is_good", "met_is_bad", "by_wording"]
"""How the polarity of a pitfall criterion is found: the same for all, or each by its wording."""
POLARITY_RULES: tuple[str, ...] = get_args(PolarityRule)

ALIKE_CRITERIA = 0.75
"""Likeness (difflib's ratio) to "criteria" from which on a description's second word is taken for it."""
ALIKE_BEFORE_CRITERIA = 0.7
"""Likeness to a category from which on the word before "criteria" is taken for it."""
ALIKE_ALONE = 0.82
"""The same of a word that stands alone before a colon: nothing else says that a category is meant."""
LENGTHS_APART = 2
"""Letters by which a misspelt category may be longer or shorter."""

_SEPARATOR = r"[*_]*\s*(?::|[\u2013\u2014]|-(?=\s))"
_TWO_WORDS = re.compile(rf"\W*([A-Za-z]+)[\s_]+([A-Za-z]+)({_SEPARATOR})?[*_]*\s*")
_ONE_WORD = re.compile(rf"\W*([A-Za-z]+){_SEPARATOR}[*_]*\s*")


def default_rule(name: str) -> PolarityRule:
    """Return how a data set's pitfalls are worded, by the last part of its name.

    RaR-Science mostly says "avoids X" (met is good), RaR-Medicine mostly "does not mention X" (met is bad), both
    with negative weights. A name that tells neither leaves it to each criterion's wording.
    """
    last = Path(name).name.lower()
    is_science, is_medicine = "science" in last, "medic" in last
    if is_science == is_medicine:
        return "by_wording"
    return "met_is_good" if is_science else "met_is_bad"


def read_category(description: str) -> tuple[str | None, str]:
    """Return the category that a description begins with, or None, and the text after it.

    Case, typos, "Criterion" for "Criteria", Markdown around it, and a missing colon or "Criteria" are forgiven;
    other words ("Mandatory Criteria: ...") are no category.

    >>> read_category("Esssential Criteria: Names the drug."), read_category("Names the drug.")
    (('essential', 'Names the drug.'), (None, 'Names the drug.'))
    """
    head = _TWO_WORDS.match(description)
    if head is not None and _likeness(head[2], ("criteria", "criterion")) >= ALIKE_CRITERIA:
        next_letter = description[head.end() : head.end() + 1]
        is_sentence = not head[3] and head[2].islower() and next_letter.islower()  # "Important criteria are listed"
        category = None if is_sentence else _nearest(head[1], ALIKE_BEFORE_CRITERIA)
    else:
        head = _ONE_WORD.match(description)
        category = None if head is None else _nearest(head[1], ALIKE_ALONE)
    if head is None or category is None:
        return None, description
    return category, description[head.end() :]


@lru_cache(maxsize=4096)  # hundreds of thousands of descriptions begin with a handful of words
def _nearest(word: str, enough: float) -> str | None:
    """Return the category that a word is, or is a misspelling of."""
    near = [category for category in CATEGORY_WEIGHTS if abs(len(category) - len(word)) <= LENGTHS_APART]
    best = max(near, key=lambda category: _likeness(word, (category,)), default=None)
    return best if best is not None and _likeness(word, (best,)) >= enough else None


@lru_cache(maxsize=4096)
def _likeness(word: str, names: tuple[str, ...]) -> float:
    return max(SequenceMatcher(None, word.lower(), name).ratio() for name in names)


def read_rar(raw: Mapping[str, Any], place: Place, rule: PolarityRule) -> Draft:
    """Return the draft of a raw row.

    A criterion has the category as its tag, the weight as its points, and the description without the category as
    its text. Without a readable category it has no tag and the whole description; it counts as a pitfall if its
    weight is negative. Pitfalls have the polarity that `rule` says, all others the positive one.
    Raises ConfigError for a value of the wrong type.
    """
    criteria = []
    unreadable = undecided = 0
    for index, item in enumerate(items_of(raw.get("rubric"), place, "rubric")):
        key = f"rubric[{index}]"
        criterion, category, decided = _criterion(mapping_of(item, place, key), place, key, index, rule)
        criteria.append(criterion)
        unreadable += category is None
        undecided += not decided
    origin = optional_text(raw.get("question_source"), place, "question_source")
    return Draft(
        prompt=messages_of(raw.get("question"), place, "question"),
        criteria=tuple(criteria),
        reference=optional_text(raw.get("reference_answer"), place, "reference_answer"),
        tags=() if origin is None else (f"question_source:{origin}",),
        unreadable_categories=unreadable,
        undecided_polarities=undecided,
    )


def _criterion(
    item: Mapping[str, Any], place: Place, key: str, index: int, rule: PolarityRule
) -> tuple[Criterion, str | None, bool]:
    """Return a criterion, its category, and whether its polarity was decided by what should decide it."""
    description = optional_text(item.get("description"), place, f"{key}.description") or ""
    category, text = read_category(description)
    if category is None:  # the title may hold it instead
        title = optional_text(item.get("title"), place, f"{key}.title") or ""
        of_title, rest = read_category(f"{title}:")
        category = None if rest else of_title
    points = number_of(item.get("weight"), place, f"{key}.weight")
    is_pitfall = category == "pitfall" or (category is None and points < 0)
    polarity, decided = _pitfall_polarity(text, rule) if is_pitfall else ("positive", True)
    return Criterion(f"c{index + 1}", text, points, polarity, (category,) if category else ()), category, decided


def _pitfall_polarity(text: str, rule: PolarityRule) -> tuple[Polarity, bool]:
    """Return a pitfall's polarity, and False where the wording was to tell and does not: then met is bad."""
    if rule == "by_wording":
        suggested = wording(text)
        return suggested or "negative", suggested is not None
    return ("positive" if rule == "met_is_good" else "negative"), True
