"""The cache of warm starts."""

import pytest

from rvpo.llm.tokenizer import load_tokenizer
from rvpo_lab.tasks.catalog import TASKS
from rvpo_lab.tasks.warm_start import policy_key, warm_policy


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RVPO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "policies"


def test_a_policy_is_made_once(cache):
    steps = []
    first = warm_policy(TASKS["rubric"], steps=2, on_step=lambda step, loss: steps.append(step))
    second = warm_policy(TASKS["noisy"], steps=2, on_step=lambda step, loss: steps.append(step))
    assert first == second  # tasks of one policy share it
    assert steps == [0, 1]
    assert [folder.name for folder in cache.iterdir()] == [policy_key(TASKS["rubric"], 2)]
    assert load_tokenizer(first).tokenize("child fever") == ["child", "fever"]


def test_what_was_not_finished_leaves_nothing(cache):
    def stop(step, loss):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        warm_policy(TASKS["rubric"], steps=2, on_step=stop)
    assert list(cache.iterdir()) == []


def test_another_design_is_another_policy():
    keys = {policy_key(TASKS[name], steps) for name in ("rubric", "rising", "saturated", "tools") for steps in (2, 3)}
    keys.add(policy_key(TASKS["rubric"], 2, 64))
    assert len(keys) == 9
