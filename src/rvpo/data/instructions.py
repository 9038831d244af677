"""IFBench and IFEval: prompts whose instructions a program can check, each a criterion of its own.

    {"key": 1, "prompt": ..., "instruction_id_list": ["count:word_count_range"], "kwargs": [{"min_words": 50, ...}]}

(allenai/IFBench_test, Pyatkin et al., arXiv 2507.02833; google/IFEval, Zhou et al., arXiv 2311.07911.) The criterion's
text is the name of the check and its arguments as JSON, for `rvpo.judging.rule_judge.RuleJudge` and a package that has
the checks; it is no sentence for a judge that reads.
"""

import json
from collections.abc import Mapping
from typing import Any

from rvpo.data.rows import Draft, Place, items_of, mapping_of, messages_of, texts_of
from rvpo.judging.criteria import Criterion

__all__ = ["read_instructions"]


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
