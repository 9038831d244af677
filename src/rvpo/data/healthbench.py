"""HealthBench, HealthBench Professional and RubricHub: rubrics of criteria with points.

- HealthBench (Arora et al., arXiv 2505.08775; openai/healthbench, MIT), written by physicians: JSON Lines of prompt,
  rubrics [{criterion, points, tags}], example_tags, prompt_id and ideal_completions_data; conversions for verl put the
  rubrics into reward_model and leave the rest out. Evaluation data: never to be trained on.
- HealthBench Professional (arXiv 2604.27470; openai/healthbench-professional, 525 rows): id, conversation {messages},
  rubric_items [{criterion_text, points}], use_case, type, difficulty, specialty, physician_response. Evaluation data,
  too. Fields as its card and readers of the rows describe them.
- RubricHub (Li et al., arXiv 2601.08430; sojuL/RubricHub_v1, Apache-2.0), folder RuRL: prompt, Rubrics and the same in
  reward_model.rubrics [{criterion, points, tags {verifier, function, parameters}}], ability, data_source. Fields as
  the graders published with it read them.
"""

from collections.abc import Mapping
from typing import Any

from rvpo.data.rows import (
    Draft,
    Place,
    items_of,
    mapping_of,
    messages_of,
    number_of,
    optional_text,
    polarity_of,
    texts_of,
)
from rvpo.judging.criteria import Criterion

__all__ = ["AXES", "healthbench_rubrics", "read_healthbench", "read_professional", "read_rubrichub"]

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
        criteria=tuple(_criterion(item, place, index) for index, item in enumerate(items)),
        id=optional_text(raw.get("prompt_id"), place, "prompt_id"),
        reference=optional_text(completion, place, "ideal_completions_data.ideal_completion"),
        source=optional_text(raw.get("data_source"), place, "data_source"),
        tags=texts_of(raw.get("example_tags"), place, "example_tags"),
    )


def _criterion(item: object, place: Place, index: int) -> Criterion:
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
            _plain(item, place, f"rubric_items[{at}]", at, "criterion_text") for at, item in enumerate(items)
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
        criteria=tuple(_plain(item, place, f"Rubrics[{at}]", at, "criterion") for at, item in enumerate(items)),
        tags=() if domain is None else (f"ability:{domain}",),
    )


def _plain(item: object, place: Place, key: str, index: int, text: str) -> Criterion:
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
