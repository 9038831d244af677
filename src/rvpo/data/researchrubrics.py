"""ResearchRubrics (ScaleAI/researchrubrics, MIT): research questions with long weighted rubrics.

Columns: sample_id, prompt, rubrics [{criterion, weight, axis}], domain, conceptual_breadth, logical_nesting,
exploration. The weights are -5 to 5, with strays such as 0 and 10; negative: being met is bad.
"""

from collections.abc import Mapping
from typing import Any

from rvpo.data.rows import Draft, Place, items_of, mapping_of, messages_of, number_of, optional_text, polarity_of
from rvpo.judging.criteria import Criterion

__all__ = ["read_researchrubrics"]

EXAMPLE_TAGS = ("domain", "conceptual_breadth", "logical_nesting", "exploration")


def read_researchrubrics(raw: Mapping[str, Any], place: Place) -> Draft:
    """Return the draft of a raw row: the axis is a criterion's tag, its weight the points.

    Example tags are written as "COLUMN:VALUE". Raises ConfigError for a value of the wrong type.
    """
    items = items_of(raw.get("rubrics"), place, "rubrics")
    values = {key: optional_text(raw.get(key), place, key) for key in EXAMPLE_TAGS}
    return Draft(
        prompt=messages_of(raw.get("prompt"), place, "prompt"),
        criteria=tuple(_criterion(item, place, index) for index, item in enumerate(items)),
        id=optional_text(raw.get("sample_id"), place, "sample_id"),
        tags=tuple(f"{key}:{value}" for key, value in values.items() if value is not None),
    )


def _criterion(item: object, place: Place, index: int) -> Criterion:
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
