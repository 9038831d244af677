"""What became of criteria that were met to begin with, and of those that were not: change by warm-start rate.

The paper's form weighs a failure the more, the more often the rest of the group succeeds (docs/algorithm.md), so this
is where it should win: criteria that are mostly met must not be lost again.
"""

import pandas as pd

from rvpo_lab.suite.results import RUN, at_end

__all__ = ["BANDS", "change_by_band"]

BANDS = ((0.0, 0.2), (0.2, 0.5), (0.5, 0.8), (0.8, 1.0))
"""Shares of the answers of the warm start that meet a channel; the last band holds its upper end."""


def change_by_band(means: pd.DataFrame) -> pd.DataFrame:
    """Return one row per task, method, seed and band: the mean change of its channels from warm start to end.

    A channel's band is decided by the mean of its warm-start rates over all runs of the task. `channels` counts them.
    `means` has the rows of `results.channel_means`.
    """
    key = [*RUN, "channel"]
    start = means[means["step"] == 0].set_index(key)["mean"]
    end = at_end(means).set_index(key)["mean"]
    change = pd.DataFrame({"start": start, "change": end - start}).reset_index()
    rate = change.groupby(["task", "channel"])["start"].transform("mean")
    edges = [*(low for low, _ in BANDS), BANDS[-1][1] + 1e-9]
    change["band"] = pd.cut(rate, edges, right=False, labels=range(len(BANDS))).astype(int)
    grouped = change.groupby([*RUN, "band"], sort=False)["change"]
    return pd.DataFrame({"change": grouped.mean(), "channels": grouped.size()}).reset_index()
