"""Metrics and moving averages worked out group by group, as their docstrings define them; what TRL has written."""

import math
from collections import defaultdict
from importlib.metadata import version

import graders
import numpy as np
import pandas
import pytest
from packaging.version import Version

from rvpo import compute_advantages
from rvpo.integrations.trl.sampler import PromptSampler


def zscore(column, eps):
    seen = column[~np.isnan(column)]
    if seen.size < 2 or np.all(seen == seen[0]):
        return np.where(np.isnan(column), np.nan, 0.0)
    return (column - seen.mean()) / (seen.std(ddof=1) + eps)


def shares(z, prior, k):
    """Weight of each channel in each rollout of a group: softmax of log prior - k z over the values present."""
    powers = np.where(np.isnan(z), 0.0, prior * np.exp(-k * np.nan_to_num(z)))
    return powers / np.maximum(powers.sum(axis=1, keepdims=True), 1e-300)


def entropy(weights):
    positive = weights[weights > 0]
    return float(-(positive * np.log(positive)).sum())


def offset_share(advantages, scored):
    kept = [group[seen] for group, seen in zip(advantages, scored, strict=True) if seen.any()]
    mean = np.concatenate(kept).mean()
    between = sum(group.size * (group.mean() - mean) ** 2 for group in kept)
    return between / ((np.concatenate(kept) - mean) ** 2).sum()


def conflict(z, column):
    own = z[:, column]
    rest = z.sum(axis=1) - own
    norm = np.sqrt((own @ own) * (rest @ rest))
    return [own @ rest / norm] if norm > 1e-12 else []


def expected_metrics(values, labels, group_size, advantages, *, k, weights):
    """Name -> value for method rvpo; a channel without a value to average is NaN."""
    groups = values.reshape(-1, group_size, values.shape[1])
    advantages = np.asarray(advantages).reshape(-1, group_size)
    cells = defaultdict(lambda: defaultdict(list))
    effective, active, unscored = [], [], 0
    for rewards, names, signal in zip(groups, labels, advantages, strict=True):
        z = np.stack([zscore(column, 1e-4) for column in rewards.T], axis=1)
        pure = np.nan_to_num(np.stack([zscore(column, 0.0) for column in rewards.T], axis=1))
        weight = shares(z, np.asarray(weights), k)
        scored = ~np.isnan(rewards).all(axis=1)
        effective += [np.exp(entropy(row)) for row in weight[scored]]
        unscored += int((~scored).sum())
        active.append(sum(len(set(column[~np.isnan(column)])) > 1 for column in rewards.T))
        for column, name in enumerate(names):
            if name is None:
                continue
            has = ~np.isnan(rewards[:, column])
            seen = rewards[has, column]
            cell = cells[name]
            cell["mean"] += seen.tolist()
            cell["std"] += [seen.std(ddof=1)] if seen.size > 1 else []
            cell["dead"] += [float(len(set(seen)) < 2)] if seen.size else []
            cell["missing"] += (~has).tolist()
            cell["weight"] += weight[has, column].tolist()
            cell["conflict"] += conflict(pure, column)
            cell["forecast"] += [float((seen - seen.mean()) @ signal[has]) / (seen.size - 1)] if seen.size > 1 else []
    metrics = {
        "rvpo/k": float(k),
        "rvpo/effective_channels": np.mean(effective),
        "rvpo/active_channels": np.mean(active),
        "rvpo/offset_share": offset_share(advantages, ~np.isnan(groups).all(axis=2)),
        "rvpo/unscored": float(unscored),
    }
    for name, kinds in cells.items():
        for kind, recorded in kinds.items():
            metrics[f"channels/{name}/{kind}"] = float(np.mean(recorded)) if recorded else np.nan
    return metrics


def assert_metrics(entry, expected, prefix=""):
    """The log entry has these metrics of rvpo, with these values, and no others."""
    ours = (f"{prefix}rvpo/", f"{prefix}channels/")
    logged = {key.removeprefix(prefix): value for key, value in entry.items() if key.startswith(ours)}
    assert set(logged) == set(expected)
    for name, value in expected.items():
        if math.isnan(value):
            assert logged[name] is None or math.isnan(logged[name]), name
        else:
            assert logged[name] == pytest.approx(value, rel=1e-5, abs=1e-6), name


def completions_table(folder, step):
    """The table of completions that TRL has written at a step."""
    if Version(version("trl")) < Version("0.29"):
        pytest.skip("TRL before 0.29 writes no table of completions")
    return pandas.read_parquet(folder / "completions" / f"completions_{step:05}.parquet")


def label_means(values, labels, group_size):
    """Mean of all values of each label that has one."""
    groups = values.reshape(-1, group_size, values.shape[1])
    means = {}
    for label in {name for group in labels for name in group if name}:
        where = [(p, c) for p, group in enumerate(labels) for c, name in enumerate(group) if name == label]
        column_values = np.concatenate([groups[prompt][:, column] for prompt, column in where])
        if not np.isnan(column_values).all():
            means[label] = np.nanmean(column_values)
    return means


def moving_average(values, labels, averages, *, group_size, decay):
    """Move each label's average by the mean of its values; return where each prompt's columns stand then."""
    for label, mean in label_means(values, labels, group_size).items():
        averages[label] = decay * averages[label] + (1 - decay) * mean if label in averages else mean
    return [[averages.get(name, 0.0) for name in group] for group in labels]


def weights_with_multipliers(values, labels, weights, multipliers, targets, *, group_size, rate):
    """Move the multiplier of each label with a target; return the weights of each prompt's columns then."""
    for label, mean in label_means(values, labels, group_size).items():
        if label in targets:
            multipliers[label] = max(0.0, multipliers.get(label, 0.0) + rate * (targets[label] - mean))
    return [[w + multipliers.get(name, 0.0) for w, name in zip(weights, group, strict=True)] for group in labels]


def shown(group, names):
    """What a group shows of its channels, (G, M)."""
    columns = {
        name: [value for value in column if value == value] for name, column in zip(names, group.T, strict=True)
    }
    return {
        name: (float(len(set(column)) > 1), float(np.mean(column)))
        for name, column in columns.items()
        if len(column) > 1
    }


def replay(generations, prompts, rewards, floor=0.2):
    """Draw prompts anew by what was recorded; return draw, expected advantages and low signal of each generation.

    Rewards are scalar ones, by the names of their graders.
    """
    sampler = PromptSampler(len(prompts), floor)
    for generation in generations:
        draw = sampler.draw(len(generation["prompts"]) // 4, 3)
        assert generation["prompts"] == [prompts[row] for row in draw.rows for _ in range(4)]
        answers = generation["prompts"], generation["completions"]
        values = np.array([getattr(graders, name)(*answers) for name in rewards], dtype=float).T
        groups = [shown(group, rewards) for group in values.reshape(-1, 4, len(rewards))]
        sampler.observe(draw.rows, groups)
        advantages = compute_advantages(values, group_size=4, k=1.0).advantages
        yield draw, advantages, sampler.low_signal(groups)
