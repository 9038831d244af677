"""What conditions, moving weights and rewards that see the group do to a run: python benchmarks/channel_features.py

The embedded task `tools` with a third channel, `unlike`: the share of a prompt's other answers that an answer differs
from, which only a reward that sees the group can say. GDPO trains on it in four ways that differ in one option each,
with the same prompts and seeds. One measure of each was chosen before the first run: correctness for the condition
(format counts only in calls that are at least half right) and for the weight (format's falls to a fifth), unlikeness
for the reward that sees the group. The runs stay in the folder, and a second call goes on.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from rvpo.rewards import scalar_reward
from rvpo.stats import holm, paired_test
from rvpo.text import markdown_table, number, p_value
from rvpo_lab.cli.suite_view import LiveView
from rvpo_lab.suite.compare import difference
from rvpo_lab.suite.plan import CONTENDERS, Contender, SuiteSettings, cells
from rvpo_lab.suite.results import means_of_channels
from rvpo_lab.suite.schedule import run_cells
from rvpo_lab.suite.storage import keep_settings, read_cells
from rvpo_lab.tasks.catalog import TASKS

TASK = "tools_unlike"
BASE = "as it is"
WAYS = {
    BASE: {},
    "condition": {"channel_conditions": {"format_reward": "correctness_reward >= 0"}},
    "weight": {"channel_weights": {"format_reward": "1 -> 0.2 linear", "unlike": 0.0}},
    "group": {"channel_weights": {"unlike": 1.0}},
}
MEASURES = {"format": "held out", "correctness": "held out", "unlike": "last fifth of training"}
CHOSEN = {"condition": "correctness", "weight": "correctness", "group": "unlike"}


@scalar_reward(range=(0.0, 1.0), scope="group")
def unlike(completions, **kwargs):
    """The share of the other answers that differ."""
    return [sum(other != answer for other in completions) / (len(completions) - 1) for answer in completions]


# Here, because the processes that train import this file.
TOOLS = TASKS["tools"]
TASKS[TASK] = replace(TOOLS, name=TASK, reward_funcs=(*TOOLS.reward_funcs, "channel_features.unlike"))
for name, options in WAYS.items():
    CONTENDERS[name] = Contender(name, name, {"method": "gdpo", "channel_weights": {"unlike": 0.0}} | options)


def measures(record):
    """Return held-out format and correctness at the end, and how unlike answers were late in training."""
    means = means_of_channels(record)
    held_out = {str(name).partition("/")[0]: value for name, value in zip(means.names, means.values[-1], strict=True)}
    logged = np.array(record.log["channels/unlike/mean"])
    late = np.array(record.logged_steps) > 0.8 * record.about["settings"]["steps"]
    return held_out | {"unlike": logged[late].mean()}


def main():
    """Train what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("channel_features"), help="folder (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=8, help="runs of each way (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=100, help="of each run (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="runs side by side (default: %(default)s)")
    options = parser.parse_args()
    settings = SuiteSettings(steps=options.steps)
    planned = cells([TASK], list(WAYS), range(options.seeds))
    keep_settings(options.out, settings)
    with LiveView() as show:
        run_cells(options.out, planned, settings, workers=options.workers, show=show)
    found = {(r.cell.contender, r.cell.seed): measures(r) for r in read_cells(options.out, planned)}
    values = {
        way: {name: [found[way, seed][name] for seed in range(options.seeds)] for name in MEASURES} for way in WAYS
    }
    tests = {way: {name: paired_test(values[way][name], values[BASE][name]) for name in MEASURES} for way in CHOSEN}
    corrected = holm([tests[way][name].p_value for way, name in CHOSEN.items()])
    rows = [[BASE, *(number(np.mean(values[BASE][name]), 3) for name in MEASURES), ""]]
    for (way, name), p in zip(CHOSEN.items(), corrected, strict=True):
        rows.append([way, *(difference(tests[way][measure]) for measure in MEASURES), f"{name}: {p_value(p)}"])
    print(markdown_table(["way", *(f"{name}, {where}" for name, where in MEASURES.items()), "p (Holm) of"], rows))


if __name__ == "__main__":
    main()
