"""HealthBench (Arora et al., arXiv 2505.08775; openai/healthbench, MIT): rubrics written by physicians.

The original JSON Lines have prompt, rubrics [{criterion, points, tags}], example_tags, prompt_id and
ideal_completions_data; conversions for verl put the rubrics into reward_model and leave the rest out.
Evaluation data: never to be trained on.
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

__all__ = ["AXES", "healthbench_rubrics", "read_healthbench"]

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
