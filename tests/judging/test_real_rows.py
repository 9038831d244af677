"""Real rubrics, graded over HTTP by a scripted judge: every verdict arrives where it belongs."""

import asyncio
import json
from zlib import crc32

import pytest

from judging.fault_server import FaultServer, blocks
from rvpo.data import load_rubric_rows
from rvpo.judging.config import JudgeConfig
from rvpo.judging.criteria import Rubric
from rvpo.judging.grading import Item
from rvpo.judging.judge import Judge
from rvpo.judging.scores import healthbench_score


def scripted(answer, text):
    """Return a verdict that only the criterion's text and the answer decide."""
    return crc32((answer + text).encode()) % 3 == 0


def script(body):
    answer, criteria = blocks(body)
    listed = [{"id": name, "reason": "script", "met": scripted(answer, text)} for name, text in criteria]
    return json.dumps({"verdicts": listed})


@pytest.mark.parametrize(("file", "rows"), [("healthbench_val500.parquet", 500), ("researchrubrics100.jsonl", 100)])
def test_all_rows_can_be_graded(shared_data, file, rows):
    loaded = load_rubric_rows(str(shared_data / file)).rows
    assert len(loaded) == rows
    items = [
        Item(row["prompt"], f"answer {index}", Rubric.from_rows(row["rubric"])) for index, row in enumerate(loaded)
    ]

    async def run(judge):
        try:
            return await judge.grade_many(items)
        finally:
            await judge.close()

    with FaultServer(reply=script) as server:
        graded = asyncio.run(run(Judge(JudgeConfig(model="m", base_url=server.url, criteria_per_call=8))))
    for item, result in zip(items, graded, strict=True):
        assert result.met() == {criterion.id: scripted(item.answer, criterion.text) for criterion in item.rubric}
        positive = sum(criterion.points for criterion in item.rubric if criterion.points > 0)
        earned = sum(criterion.points for criterion in item.rubric if scripted(item.answer, criterion.text))
        assert healthbench_score(item.rubric, result.met()) == pytest.approx(earned / positive)
        assert len(result.values()) == len(item.rubric)
