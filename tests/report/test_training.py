"""What training logged, in words and maps: worked out by hand."""

import math

from rvpo.report.curves import Curve, Panel, WeightMap
from rvpo.report.runs import TrainingRun
from rvpo.report.training import channel_names, k_in_words, missing_in_words, weight_maps, weights_in_words

LABELS = {"gdpo": "GDPO", "rvpo": "RVPO"}


def panel(*values, method="gdpo"):
    return Panel("tone", (Curve(method, tuple(range(len(values))), values, values, values, 1),))


def test_channel_names_lose_what_all_share():
    def names(*channels):
        return list(
            channel_names([TrainingRun("a", (1,), {f"channels/{name}/mean": [0.0] for name in channels})]).values()
        )

    assert names("judge/tone", "judge/facts/dates") == ["tone", "facts/dates"]
    assert names("tone_reward", "facts_reward") == ["tone", "facts"]
    assert names("judge/tone", "length_reward") == ["judge/tone", "length"]
    assert names("tone", "tone_reward") == ["tone", "tone_reward"]  # would be the same
    assert names("judge") == ["judge"]


def test_weights_are_averaged_over_runs_and_gaps_stay_gaps():
    logs = [
        {"channels/a/weight": [0.25, 0.5], "channels/b/weight": [0.75, math.nan]},
        {"channels/a/weight": [0.75, 0.0]},
    ]
    (weights,) = weight_maps([TrainingRun("gdpo", (5, 10), log) for log in logs], ["gdpo", "rvpo"])
    assert (weights.method, weights.channels, weights.steps) == ("gdpo", ("a", "b"), (5, 10))
    assert weights.values[0] == (0.5, 0.25)
    assert weights.values[1][0] == 0.75
    assert math.isnan(weights.values[1][1])


def test_weights_in_words():
    alike = WeightMap("gdpo", ("a", "b"), (5.0,), ((0.5,), (0.5,)))
    uneven = WeightMap("rvpo", ("a", "b"), (5.0, 10.0), ((0.75, 0.9), (0.25, math.nan)))
    sentence = weights_in_words([alike, uneven], LABELS)
    assert (
        sentence
        == "At the last logged step: GDPO about alike on all (0.50); RVPO most on a (0.90), least on b (0.25)."
    )


def test_k_and_missing_in_words():
    assert k_in_words(panel(2.0, 2.0), ["GRPO"], LABELS) == "k: GDPO stays at 2.00. It has no effect on GRPO."
    assert k_in_words(panel(0.5, math.nan, 1.0), [], LABELS) == "k: GDPO goes from 0.50 to 1.00."
    assert missing_in_words([panel(0.0, math.nan)], LABELS) == "No reward was missing."
    assert missing_in_words([panel(math.nan)], LABELS) == ""
