"""The plain form, in which users write rubrics of their own (docs/data.md) and canonical rows are written."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from rvpo.data.rows import (
    Draft,
    Place,
    criterion_at,
    items_of,
    mapping_of,
    messages_of,
    number_of,
    optional_text,
    texts_of,
)
from rvpo.errors import ConfigError, unknown_name
from rvpo.judging.criteria import Criterion, criterion_row, rubric_items

__all__ = ["read_plain"]

KEYS = ("prompt", "rubric", "reference", "id", "tags", "source")


def read_plain(raw: Mapping[str, Any], place: Place) -> Draft:
    """Return the draft of a raw row.

    A criterion that is a text is met or not, for one point. Ids that are not given number the criteria: c1, c2.
    Without a polarity, negative points mean that being met is bad. Raises ConfigError, with place and key, for an
    unknown key and a value that does not fit.
    """
    for key in raw:
        if key not in KEYS:
            raise ConfigError(f"{place}: {unknown_name('key', key, KEYS)}")
    rubric = raw.get("rubric")
    with suppress(ConfigError):  # what is no rubric as text either is no list, which `items_of` says with the place
        rubric = rubric_items(rubric)
    items = items_of(rubric, place, "rubric")
    return Draft(
        prompt=messages_of(raw.get("prompt"), place, "prompt"),
        criteria=tuple(_criterion(item, place, index) for index, item in enumerate(items)),
        id=optional_text(raw.get("id"), place, "id"),
        reference=optional_text(raw.get("reference"), place, "reference"),
        source=optional_text(raw.get("source"), place, "source"),
        tags=texts_of(raw.get("tags"), place, "tags"),
    )


def _criterion(item: object, place: Place, index: int) -> Criterion:
    key = f"rubric[{index}]"
    given = criterion_row(item if isinstance(item, str) else mapping_of(item, place, key), index)
    if given.get("points") is not None:
        number_of(given["points"], place, f"{key}.points")
    return criterion_at(place, key, given)
