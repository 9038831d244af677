"""The forms in which rubric data sets are published, and one's own: from a raw row to a draft, a reader for each.

- plain: the form in which users write rubrics of their own (docs/data.md) and canonical rows are written.
- HealthBench (Arora et al., arXiv 2505.08775; openai/healthbench, MIT), written by physicians: JSON Lines of prompt,
  rubrics [{criterion, points, tags}], example_tags, prompt_id and ideal_completions_data; conversions for verl put the
  rubrics into reward_model and leave the rest out. Evaluation data: never to be trained on.
- HealthBench Professional (arXiv 2604.27470; openai/healthbench-professional, 525 rows): id, conversation {messages},
  rubric_items [{criterion_text, points}], use_case, type, difficulty, specialty, physician_response. Evaluation data,
  too. Fields as its card and readers of the rows describe them.
- RubricHub (Li et al., arXiv 2601.08430; sojuL/RubricHub_v1, Apache-2.0), folder RuRL: prompt, Rubrics and the same in
  reward_model.rubrics [{criterion, points, tags {verifier, function, parameters}}], ability, data_source. Fields as
  the graders published with it read them.
- RaR-Medicine and RaR-Science (Gunjal et al., arXiv 2507.17746), written by language models; hub names
  anisha2102/RaR-Medicine and anisha2102/RaR-Science (also with -20k-o3-mini at the end), and copies under ScaleAI/:
  question, reference_answer, question_source, rubric [{title, description, weight}], rubric_list (the descriptions
  again), rubric_count. Splits: train, val, test. The category is nothing but the beginning of the description,
  "Essential Criteria: ...", now and then misspelt or absent.
- ResearchRubrics (ScaleAI/researchrubrics, MIT), research questions with long weighted rubrics: sample_id, prompt,
  rubrics [{criterion, weight, axis}], domain, conceptual_breadth, logical_nesting, exploration. The weights are -5 to
  5, with strays such as 0 and 10; negative: being met is bad.
- IFBench and IFEval (allenai/IFBench_test, Pyatkin et al., arXiv 2507.02833; google/IFEval, Zhou et al., arXiv
  2311.07911), prompts whose instructions a program can check, each a criterion of its own:

    {"key": 1, "prompt": ..., "instruction_id_list": ["count:word_count_range"], "kwargs": [{"min_words": 50, ...}]}

  The criterion's text is the name of the check and its arguments as JSON, for `rvpo.judging.grading.RuleJudge` and a
  package that has the checks; it is no sentence for a judge that reads.
"""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from difflib import SequenceMatcher
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from rvpo.data.rows import (
    Draft,
    Place,
    criterion_at,
    items_of,
    mapping_of,
    messages_of,
    number_of,
    optional_text,
    polarity_of,
    texts_of,
)
from rvpo.errors import ConfigError, unknown_name
from rvpo.judging.check import wording
from rvpo.judging.criteria import Criterion, Polarity, criterion_row, rubric_items
from rvpo.judging.grading import CATEGORY_WEIGHTS

__all__ = [
    "AXES",
    "POLARITY_RULES",
    "PolarityRule",
    "default_rule",
    "healthbench_rubrics",
    "read_category",
    "read_healthbench",
    "read_instructions",
    "read_plain",
    "read_professional",
    "read_rar",
    "read_researchrubrics",
    "read_rubrichub",
]

PLAIN_KEYS = ("prompt", "rubric", "reference", "id", "tags", "source")


def read_plain(raw: Mapping[str, Any], place: Place) -> Draft:
    """Return the draft of a raw row.

    A criterion that is a text is met or not, for one point. Ids that are not given number the criteria: c1, c2.
    Without a polarity, negative points mean that being met is bad. Raises ConfigError, with place and key, for an
    unknown key and a value that does not fit.
    """
    for key in raw:
        if key not in PLAIN_KEYS:
            raise ConfigError(f"{place}: {unknown_name('key', key, PLAIN_KEYS)}")
    rubric = raw.get("rubric")
    with suppress(ConfigError):  # what is no rubric as text either is no list, which `items_of` says with the place
        rubric = rubric_items(rubric)
    items = items_of(rubric, place, "rubric")
    return Draft(
        prompt=messages_of(raw.get("prompt"), place, "prompt"),
        criteria=tuple(_plain_criterion(item, place, index) for index, item in enumerate(items)),
        id=optional_text(raw.get("id"), place, "id"),
        reference=optional_text(raw.get("reference"), place, "reference"),
        source=optional_text(raw.get("source"), place, "source"),
        tags=texts_of(raw.get("tags"), place, "tags"),
    )


def _plain_criterion(item: object, place: Place, index: int) -> Criterion:
    key = f"rubric[{index}]"
    given = criterion_row(item if isinstance(item, str) else mapping_of(item, place, key), index)
    if given.get("points") is not None:
        number_of(given["points"], place, f"{key}.points")
    return criterion_at(place, key, given)


AXES = ("accuracy", "completeness", "context_awareness", "communication_quality", "instruction_following")
AXIS = "axis:"


def healthbench_rubrics(raw: Mapping[str, Any]) -> object:
    """Return the raw criteria of a row: the column rubrics, or reward_model.rubrics."""
    model = raw.get("reward_model")
    if raw.get("rubrics") is None and isinstance(model, Mapping):
        return model.get("rubrics")
    return raw.get("rubrics")


def read_healthbench(raw: Mapping[str, Any], place: Place) -> Draft:
    """Return the draft of a raw row.

    A criterion's first tag is its axis without "axis:", so that metrics are kept per axis; its other tags
    ("level:example", "cluster:...") stay as they are. Negative points mean that being met is bad. The reference is
    the ideal completion, if there is one. Raises ConfigError for a value of the wrong type.
    """
    items = items_of(healthbench_rubrics(raw), place, "rubrics")
    ideal = raw.get("ideal_completions_data")
    completion = None if ideal is None else mapping_of(ideal, place, "ideal_completions_data").get("ideal_completion")
    return Draft(
        prompt=messages_of(raw.get("prompt"), place, "prompt"),
        criteria=tuple(_healthbench_criterion(item, place, index) for index, item in enumerate(items)),
        id=optional_text(raw.get("prompt_id"), place, "prompt_id"),
        reference=optional_text(completion, place, "ideal_completions_data.ideal_completion"),
        source=optional_text(raw.get("data_source"), place, "data_source"),
        tags=texts_of(raw.get("example_tags"), place, "example_tags"),
    )


def _healthbench_criterion(item: object, place: Place, index: int) -> Criterion:
    key = f"rubrics[{index}]"
    given = mapping_of(item, place, key)
    tags = texts_of(given.get("tags"), place, f"{key}.tags")
    axes = [tag.removeprefix(AXIS) for tag in tags if tag.startswith(AXIS) and tag != AXIS]
    points = number_of(given.get("points"), place, f"{key}.points")
    return Criterion(
        id=f"c{index + 1}",
        text=optional_text(given.get("criterion"), place, f"{key}.criterion") or "",
        points=points,
        polarity=polarity_of(points),
        tags=(*axes, *(tag for tag in tags if not tag.startswith(AXIS))),
    )


def read_professional(raw: Mapping[str, Any], place: Place) -> Draft:
    """Return the draft of a raw row of HealthBench Professional: its criteria have no tags.

    Use case, type, difficulty and specialty are the example's tags, as "COLUMN:VALUE"; the physician's response is the
    reference. Raises ConfigError for a value of the wrong type.
    """
    conversation = raw.get("conversation")
    if isinstance(conversation, Mapping):
        conversation = conversation.get("messages")
    items = items_of(raw.get("rubric_items"), place, "rubric_items")
    values = {key: optional_text(raw.get(key), place, key) for key in ("use_case", "type", "difficulty", "specialty")}
    return Draft(
        prompt=messages_of(conversation, place, "conversation"),
        criteria=tuple(
            _criterion_of_points(item, place, f"rubric_items[{at}]", at, "criterion_text")
            for at, item in enumerate(items)
        ),
        id=optional_text(raw.get("id"), place, "id"),
        reference=optional_text(raw.get("physician_response"), place, "physician_response"),
        tags=tuple(f"{key}:{value}" for key, value in values.items() if value is not None),
    )


def read_rubrichub(raw: Mapping[str, Any], place: Place) -> Draft:
    """Return the draft of a raw row of RubricHub.

    Criteria are tagged "llm" or "rule", by which its own graders check them: what a rule checks there is a text for
    the judge here, like all others. The domain is the example's tag. Raises ConfigError for a value of the wrong type.
    """
    tagged = healthbench_rubrics(raw)
    items = items_of(raw.get("Rubrics") if tagged is None else tagged, place, "Rubrics")
    domain = optional_text(raw.get("ability"), place, "ability")
    return Draft(
        prompt=messages_of(raw.get("prompt"), place, "prompt"),
        criteria=tuple(
            _criterion_of_points(item, place, f"Rubrics[{at}]", at, "criterion") for at, item in enumerate(items)
        ),
        tags=() if domain is None else (f"ability:{domain}",),
    )


def _criterion_of_points(item: object, place: Place, key: str, index: int, text: str) -> Criterion:
    """Return a criterion of points and a text; tagged by its verifier, if it names one."""
    given = mapping_of(item, place, key)
    points = number_of(given.get("points"), place, f"{key}.points")
    tags = given.get("tags")
    verifier = tags.get("verifier") if isinstance(tags, Mapping) else None
    return Criterion(
        id=f"c{index + 1}",
        text=optional_text(given.get(text), place, f"{key}.{text}") or "",
        points=points,
        polarity=polarity_of(points),
        tags=(verifier,) if isinstance(verifier, str) and verifier else (),
    )


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
        criterion, category, decided = _rar_criterion(mapping_of(item, place, key), place, key, index, rule)
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


def _rar_criterion(
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


EXAMPLE_TAGS = ("domain", "conceptual_breadth", "logical_nesting", "exploration")


def read_researchrubrics(raw: Mapping[str, Any], place: Place) -> Draft:
    """Return the draft of a raw row: the axis is a criterion's tag, its weight the points.

    Example tags are written as "COLUMN:VALUE". Raises ConfigError for a value of the wrong type.
    """
    items = items_of(raw.get("rubrics"), place, "rubrics")
    values = {key: optional_text(raw.get(key), place, key) for key in EXAMPLE_TAGS}
    return Draft(
        prompt=messages_of(raw.get("prompt"), place, "prompt"),
        criteria=tuple(_researchrubrics_criterion(item, place, index) for index, item in enumerate(items)),
        id=optional_text(raw.get("sample_id"), place, "sample_id"),
        tags=tuple(f"{key}:{value}" for key, value in values.items() if value is not None),
    )


def _researchrubrics_criterion(item: object, place: Place, index: int) -> Criterion:
    key = f"rubrics[{index}]"
    given = mapping_of(item, place, key)
    points = number_of(given.get("weight"), place, f"{key}.weight")
    axis = optional_text(given.get("axis"), place, f"{key}.axis")
    return Criterion(
        id=f"c{index + 1}",
        text=optional_text(given.get("criterion"), place, f"{key}.criterion") or "",
        points=points,
        polarity=polarity_of(points),
        tags=() if axis is None else (axis,),
    )


def read_instructions(raw: Mapping[str, Any], place: Place) -> Draft:
    """Return the draft of a raw row: a criterion of one point for every instruction, tagged by its name.

    Arguments that are None, as parquet fills them in, are left out. Raises ConfigError for a value of the wrong type
    and for lists of different length.
    """
    names = texts_of(raw.get("instruction_id_list"), place, "instruction_id_list")
    given = items_of(raw.get("kwargs"), place, "kwargs")
    if len(given) != len(names):
        raise place.error("kwargs", f"a list as long as instruction_id_list ({len(names)})", given)
    criteria = []
    for index, (name, item) in enumerate(zip(names, given, strict=True)):
        arguments = {} if item is None else mapping_of(item, place, f"kwargs[{index}]")
        known = {key: value for key, value in arguments.items() if value is not None}
        criteria.append(Criterion(f"c{index + 1}", f"{name} {json.dumps(known, sort_keys=True)}", tags=(name,)))
    key = raw.get("key")
    return Draft(
        prompt=messages_of(raw.get("prompt"), place, "prompt"),
        criteria=tuple(criteria),
        id=None if key is None else str(key),
    )
