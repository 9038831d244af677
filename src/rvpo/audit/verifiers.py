"""Saved rollouts of verifiers (PrimeIntellect-ai/verifiers), flattened to rows that the other readers understand.

    traces.jsonl    today's: an episode a line, {env, task, group, run, traces: [{rewards, nodes, ...}]}
    results.jsonl   earlier: a rollout a line, {example_id, prompt, completion, reward, metrics, timing, ...}

Named rewards become channels, as they were scored, before their weights; their weighted sum is the column `reward`,
what the run maximised (a reward that is None is missing as a channel and left out of that sum, as verifiers leaves it
out). Metrics of a trace are watched, not rewarded, and left out. Layouts read in verifiers 0.4.0
(v1/episode.py, v1/trace.py) and in its repository at 00d8320 (utils/save_utils.py).
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["flattened"]

EPISODE = {"env", "task", "traces"}
RESULT = {"example_id", "completion", "reward", "metrics", "timing"}
OWN = ("group", "completion", "reward", "step", "evaluation")
"""Columns of a flat row that are not named by the environment."""


def flattened(row: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the rollouts of a line of either file as flat rows, any other row as it is.

    An episode has a row for every trace whose agent is trained. Rows share a group if they are of one agent and of the
    group that the trainer gave, or without one of the same task. Raises AttributeError, KeyError or TypeError for a
    line that looks like one of verifiers and is not.
    """
    if row.keys() >= EPISODE and isinstance(row["traces"], list):
        return [_of_trace(row, trace) for trace in row["traces"] if trace.get("agent", {}).get("trainable", True)]
    if row.keys() >= RESULT and isinstance(row["metrics"], Mapping):
        group = json.dumps([row.get("task"), row["example_id"]])
        return [_named(row["metrics"]) | {"group": group, "completion": row["completion"], "reward": row["reward"]}]
    return [row]


def _named(scores: Mapping[str, Any]) -> dict[str, Any]:
    """Return scores by names that no column of ours has."""
    return {f"{name} (named)" if name in OWN else name: score for name, score in scores.items()}


def _of_trace(episode: Mapping[str, Any], trace: Mapping[str, Any]) -> dict[str, Any]:
    task, work = episode["task"], (episode.get("run") or {}).get("work") or {}
    group = (episode.get("group") or {}).get("id") or task.get("key") or task.get("hash")
    known = {name: reward for name, reward in trace.get("rewards", {}).items() if reward is not None}
    total = math.fsum(reward["score"] * reward.get("weight", 1.0) for reward in known.values())
    row = _named({name: reward["score"] for name, reward in known.items()}) | {
        "group": f"{trace.get('agent', {}).get('name')}: {group or json.dumps(task.get('data'), sort_keys=True)}",
        "completion": _reply(trace),
        "reward": total if known else None,
    }
    return row | ({"step": work["step"], "evaluation": work.get("type") == "eval"} if "step" in work else {})


def _reply(trace: Mapping[str, Any]) -> str | None:
    """Return what the policy said, over all turns; None if nothing was sampled."""
    nodes: Sequence[Mapping[str, Any]] = trace.get("nodes", [])
    contents = [node["message"].get("content") for node in nodes if node.get("sampled")]
    return "\n".join(text if isinstance(text, str) else json.dumps(text) for text in contents) if contents else None
