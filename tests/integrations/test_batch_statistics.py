"""Methods that weigh channels by the batch: in trainers the statistic is by name or tag, and over all rollouts."""

import numpy as np
import pytest

from rvpo import METHODS, compute_advantages
from rvpo.integrations.batch import ChannelState, batch_options
from rvpo.integrations.method_config import MethodConfig
from rvpo.rewards.channels import Returned, assemble
from rvpo.rewards.declarations import Channel, Declaration

OF_BATCH = [name for name, method in METHODS.items() if method.of_batch]
TAGS = ["a", "b", "c"]
GROUP_SIZE = 4


def rubric_rows(seed):
    """Rows of six prompts with two of three tags each, in an order of their own, some verdicts missing."""
    rng = np.random.default_rng(seed)
    rates = dict(zip(TAGS, (0.2, 0.5, 0.9), strict=True))
    rows = []
    for _ in range(6):
        tags = [TAGS[i] for i in rng.permutation(3)[:2]]
        for _ in range(GROUP_SIZE):
            row = {f"{tag}/criterion": float(rng.random() < rates[tag]) for tag in tags}
            rows.append({name: None if rng.random() < 0.1 else value for name, value in row.items()})
    return rows


def options_of(matrix, method, **config):
    return batch_options(MethodConfig(method=method, **config), matrix, GROUP_SIZE, ChannelState(), move=True)


@pytest.mark.parametrize("method", OF_BATCH)
@pytest.mark.parametrize("seed", range(4))
def test_a_rubric_is_weighed_as_its_tags_side_by_side(method, seed):
    rows = rubric_rows(seed)
    matrix = assemble([Returned("rubric", Declaration(template=Channel("")), 1.0, rows)], GROUP_SIZE)
    side_by_side = [[row.get(f"{tag}/criterion") for tag in TAGS] for row in rows]
    # eps 0: z-scores that are added up in another order then differ by rounding alone.
    ours = compute_advantages(matrix.values, group_size=GROUP_SIZE, **options_of(matrix, method))
    expected = compute_advantages(side_by_side, group_size=GROUP_SIZE, method=method)
    np.testing.assert_allclose(ours.advantages, expected.advantages, atol=1e-12)
    by_column = compute_advantages(matrix.values, group_size=GROUP_SIZE, method=method)
    assert abs(ours.advantages - by_column.advantages).max() > 1e-3


@pytest.mark.parametrize("method", OF_BATCH)
def test_a_channel_of_weight_0_is_in_no_statistic(method):
    rows = rubric_rows(0)
    rubric = Returned("rubric", Declaration(template=Channel("")), 1.0, rows)
    even = Returned("even", Declaration(template=Channel(""), is_vector=False), 0.0, [i % 2 for i in range(len(rows))])
    alone, beside = (assemble(rewards, GROUP_SIZE) for rewards in ([rubric], [even, rubric]))
    expected, ours = (
        compute_advantages(matrix.values, group_size=GROUP_SIZE, **options_of(matrix, method)).advantages
        for matrix in (alone, beside)
    )
    np.testing.assert_allclose(ours, expected, atol=1e-12)


@pytest.mark.parametrize("method", OF_BATCH)
def test_channels_that_all_prompts_share_are_left_to_the_core(method):
    named = Declaration((Channel("x"), Channel("y")))
    rows = [{"x": float(i % 2), "y": float(i % 3 == 0)} for i in range(8)]
    matrix = assemble([Returned("both", named, 1.0, rows)], GROUP_SIZE)
    assert not set(METHODS[method].of_batch) & set(options_of(matrix, method))


def test_a_statistic_of_the_configuration_comes_first():
    matrix = assemble([Returned("rubric", Declaration(template=Channel("")), 1.0, rubric_rows(1))], GROUP_SIZE)
    options = options_of(matrix, "sa_mrpo", method_options={"saturation": [0.25, 0.5]})
    assert options["saturation"] == [0.25, 0.5]


def test_targets_act_on_methods_that_weigh_by_the_batch():
    for method in OF_BATCH:
        MethodConfig(method=method, channel_targets={"x": 0.5}).check_method()
