"""What training logged: k, channel weights, dead and missing shares, rewards; as panels, maps and sentences.

Channels are logged as `channels/NAME/KIND`; NAME is a reward function's, an axis below it, or a channel's own.
"""

import math
from collections.abc import Mapping, Sequence

from rvpo.report.curves import Curve, Panel, WeightMap, curve, last_finite
from rvpo.report.runs import Inputs, TrainingRun
from rvpo.report.words import listed, number, percent, plural, span

__all__ = [
    "channel_names",
    "dead_in_words",
    "ends_in_words",
    "k_in_words",
    "k_panel",
    "log_panels",
    "missing_in_words",
    "task_runs",
    "weight_maps",
    "weights_in_words",
]

MOST_COLUMNS = 40
"""Columns of a heat map."""
SAME = 5e-4
ALIKE = 0.15
"""Weights whose lowest is within this share of the highest are told as alike: rubrics differ in length."""

Labels = Mapping[str, str]


def task_runs(inputs: Inputs) -> dict[str, list[TrainingRun]]:
    """Return the logs of the cells, task by task."""
    found: dict[str, list[TrainingRun]] = {}
    for record in inputs.records:
        if record.logged_steps:
            run = TrainingRun(record.about["contender"], tuple(record.logged_steps), record.log)
            found.setdefault(record.about["task"], []).append(run)
    return found


def channel_names(runs: Sequence[TrainingRun]) -> dict[str, str]:
    """Return the logged channels and the names shown: without what all begin with and what every reward ends with.

    >>> log = {"channels/judge/tone/mean": [0.5], "channels/judge/facts/mean": [1.0]}
    >>> channel_names([TrainingRun("a", (1,), log)])
    {'judge/tone': 'tone', 'judge/facts': 'facts'}
    """
    keys = dict.fromkeys(key for run in runs for key in run.log if key.startswith("channels/") and key.count("/") > 1)
    names = list(dict.fromkeys(key.removeprefix("channels/").rpartition("/")[0] for key in keys))
    first = {name.partition("/")[0] for name in names}
    below = [name.partition("/")[2] for name in names]
    shown = below if len(first) == 1 and all(below) else [name.removesuffix("_reward") for name in names]
    return dict(zip(names, shown if len(set(shown)) == len(names) else names, strict=True))


def _curves(runs: Sequence[TrainingRun], methods: Sequence[str], key: str, most: int = 120) -> list[Curve]:
    """Return a curve of a metric for each method that logged it."""
    curves = []
    for method in methods:
        courses = [(run.steps, run.log[key]) for run in runs if run.method == method and key in run.log]
        if any(math.isfinite(value) for _, values in courses for value in values):
            curves.append(curve(method, courses, most=most))
    return curves


def k_panel(runs: Sequence[TrainingRun], methods: Sequence[str], title: str) -> Panel:
    """Return the course of k of these methods."""
    return Panel(title, tuple(_curves(runs, methods, "rvpo/k")))


def log_panels(runs: Sequence[TrainingRun], methods: Sequence[str], kind: str) -> list[Panel]:
    """Return a panel per channel with the course of `mean`, `dead`, `missing` or another logged kind."""
    panels = [
        Panel(shown, tuple(_curves(runs, methods, f"channels/{name}/{kind}")))
        for name, shown in channel_names(runs).items()
    ]
    return sorted((panel for panel in panels if panel.curves), key=lambda panel: panel.title)


def weight_maps(runs: Sequence[TrainingRun], methods: Sequence[str]) -> list[WeightMap]:
    """Return each method's channel weights over training, averaged over its runs, in at most 40 columns."""
    maps = []
    shown = dict(sorted(channel_names(runs).items(), key=lambda pair: pair[1]))
    for method in methods:
        mine = [run for run in runs if run.method == method]
        rows = {shown[name]: _curves(mine, [method], f"channels/{name}/weight", MOST_COLUMNS) for name in shown}
        present = {name: curves[0] for name, curves in rows.items() if curves}
        if present:
            steps = tuple(sorted({step for one in present.values() for step in one.steps}))
            at = {name: dict(zip(one.steps, one.mean, strict=True)) for name, one in present.items()}
            values = tuple(tuple(row.get(step, math.nan) for step in steps) for row in at.values())
            maps.append(WeightMap(method, tuple(at), steps, values))
    return maps


def k_in_words(panel: Panel, left_out: Sequence[str], labels: Labels) -> str:
    """Return the course of k in words."""
    said = []
    for one in panel.curves:
        known = [value for value in one.mean if math.isfinite(value)]
        changes = max(known) - min(known) > SAME
        said.append(
            f"{labels[one.method]} goes from {number(known[0])} to {number(known[-1])}"
            if changes
            else f"{labels[one.method]} stays at {number(known[0])}"
        )
    without = f" It has no effect on {listed(left_out)}." if left_out else ""
    return f"k: {'; '.join(said)}.{without}" if said else without.strip()


def weights_in_words(maps: Sequence[WeightMap], labels: Labels) -> str:
    """Return which channel each method weighs most and least at the end."""
    said = []
    for one in maps:
        last = {name: last_finite(row) for name, row in zip(one.channels, one.values, strict=True)}
        known = {name: value for name, value in last.items() if math.isfinite(value)}
        low, high = min(known, key=lambda name: known[name]), max(known, key=lambda name: known[name])
        if known[high] - known[low] <= ALIKE * known[high]:
            said.append(f"{labels[one.method]} about alike on all ({_between(known[low], known[high])})")
        else:
            said.append(
                f"{labels[one.method]} most on {high} ({number(known[high])}), least on {low} ({number(known[low])})"
            )
    return f"At the last logged step: {'; '.join(said)}." if said else ""


def _between(low: float, high: float) -> str:
    """Return two numbers, or one where both are written alike."""
    return number(low) if number(low) == number(high) else span(low, high)


def _highest(panels: Sequence[Panel]) -> tuple[float, Panel, Curve] | None:
    """Return the highest last value of all curves, with its panel and curve."""
    ends = [(last_finite(one.mean), panel, one) for panel in panels for one in panel.curves]
    return max(ends, key=lambda end: end[0], default=None)


def ends_in_words(panels: Sequence[Panel], labels: Labels) -> str:
    """Return how many channels each run raises and lowers from the first to the last logged step."""
    said = []
    for method, label in labels.items():
        mine = [one for panel in panels for one in panel.curves if one.method == method]
        known = [[value for value in one.mean if math.isfinite(value)] for one in mine]
        raised = sum(values[-1] > values[0] for values in known)
        lowered = sum(values[-1] < values[0] for values in known)
        said.append(f"{label}: of {plural(len(known), 'channel')} {raised} higher and {lowered} lower")
    return f"Mean reward at the last logged step against the first: {'; '.join(said)}."


def dead_in_words(panels: Sequence[Panel], labels: Labels) -> str:
    """Return where most groups are without spread at the end."""
    top = _highest(panels)
    if top is None:
        return ""
    value, panel, one = top
    if value == 0:
        return "At the last logged step no channel is dead in any group."
    return (
        f"A channel is dead in a group of answers that it rates all alike: it then teaches nothing there. At the last "
        f"logged step the highest dead share is {percent(value)}, in {panel.title} under {labels[one.method]}."
    )


def missing_in_words(panels: Sequence[Panel], labels: Labels) -> str:
    """Return how many rewards were missing."""
    ends = [(value, panel, one) for panel in panels for one in panel.curves for value in one.high]
    known = [end for end in ends if math.isfinite(end[0])]
    if not known:
        return ""
    value, panel, one = max(known, key=lambda end: end[0])
    if value == 0:
        return "No reward was missing."
    return (
        f"Rewards were missing: up to {percent(value)} at a logged step, in {panel.title} under {labels[one.method]}."
    )
