"""Agreement with the installed TRL and verl, whose own code is run here, and what length must not change."""

import ast
import inspect
import math
import textwrap
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from rvpo import PRESETS, compute_advantages

NAN = float("nan")


# --- TRL ------------------------------------------------------------------------------------------------------


def assigned(statement):
    """Source of the targets of an assignment."""
    return [ast.unparse(target) for target in statement.targets] if isinstance(statement, ast.Assign) else []


@pytest.fixture(scope="module")
def trl_advantages():
    """TRL's own statements from rewards to advantages, as a function.

    They stand inline in a method that generates completions: from the mask of unscorable completions up to the
    slice of the process.
    """
    grpo_trainer = pytest.importorskip("trl.trainer.grpo_trainer")
    source = inspect.getsource(grpo_trainer.GRPOTrainer._generate_and_score_completions)
    body = ast.parse(textwrap.dedent(source)).body[0].body
    first = [i for i, statement in enumerate(body) if assigned(statement) == ["unscorable_mask"]]
    last = [i for i, statement in enumerate(body) if assigned(statement) == ["process_slice"]]
    if not (first and last and "normalize_then_sum" in ast.unparse(body[first[0] : last[0]])):
        pytest.fail("TRL's rewards-to-advantages block is not where it was in 1.16: compare its code with gdpo anew")
    block = ast.Module(body[first[0] : last[0]], type_ignores=[])
    code = compile(block, inspect.getsourcefile(grpo_trainer), "exec")

    def run(rewards, aggregation, weights):
        prompts, rollouts, channels = rewards.shape
        trainer = SimpleNamespace(
            multi_objective_aggregation=aggregation,
            reward_weights=torch.tensor(weights, dtype=torch.float32),
            reward_funcs=[None] * channels,
            scale_rewards="group",
        )
        names = vars(grpo_trainer) | {
            "self": trainer,
            "rewards_per_func": rewards.reshape(prompts * rollouts, channels).clone(),
            "num_generations": rollouts,
            "device": rewards.device,
        }
        exec(code, names)
        return names["advantages"].reshape(prompts, rollouts)

    return run


def trl_rewards(seed, rollouts=6):
    """Rewards in eighths, exact in float32, with every kind of missing and dead channel."""
    rng = np.random.default_rng(seed)
    rewards = rng.integers(0, 9, (8, rollouts, 4)) / 8.0
    rewards[rng.random(rewards.shape) < 0.2] = NAN
    rewards[0, :, 1] = 0.5  # dead
    rewards[1, :, :] = 0.25  # all dead
    rewards[2, :, 3] = NAN  # a channel that the prompt lacks
    rewards[3, 1:, 0] = NAN  # a single value
    rewards[4, 0, :] = NAN  # an unscored rollout
    rewards[5, :, :] = NAN  # an unscored prompt
    rewards[6, 1:, :] = NAN  # a single scored rollout
    return torch.tensor(rewards)


AGGREGATIONS = [("gdpo", "normalize_then_sum"), ("grpo", "sum_then_normalize")]
WEIGHTS = [[1.0, 1.0, 1.0, 1.0], [0.5, 2.0, 1.0, 0.25]]


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize(("method", "aggregation"), AGGREGATIONS)
def test_advantages_equal_those_of_trl(trl_advantages, method, aggregation, weights):
    for seed in range(10):
        rewards = trl_rewards(seed)
        expected = trl_advantages(rewards, aggregation, weights)
        ours = compute_advantages(rewards, method=method, weights=weights, **PRESETS["trl"]).advantages
        assert expected.abs().max() > 0.5
        # Not closer: TRL's n / (n - 1) is a quotient of integers, which torch gives in float32.
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize(("method", "aggregation"), AGGREGATIONS)
def test_advantages_equal_those_of_trl_in_float32(trl_advantages, method, aggregation, weights):
    # TRL's type. A mean of eighths is rounded in float32, so an all but dead channel in TRL carries 1e-8 / 1e-4.
    for seed in range(10):
        rewards = trl_rewards(seed).to(torch.float32)
        expected = trl_advantages(rewards, aggregation, weights)
        ours = compute_advantages(rewards, method=method, weights=weights, **PRESETS["trl"]).advantages
        assert ours.dtype == expected.dtype == torch.float32
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("method", "aggregation"), AGGREGATIONS)
@pytest.mark.parametrize("rollouts", [1, 2])
def test_small_groups_equal_those_of_trl(trl_advantages, method, aggregation, rollouts):
    rewards = trl_rewards(0, rollouts)
    expected = trl_advantages(rewards, aggregation, WEIGHTS[1])
    ours = compute_advantages(rewards, method=method, weights=WEIGHTS[1], **PRESETS["trl"]).advantages
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-6)


def test_trl_statements_are_run_not_copied(trl_advantages):
    # A branch that TRL does not have is TRL's own error.
    with pytest.raises(ValueError, match="Invalid multi_objective_aggregation: soft_minimum"):
        trl_advantages(trl_rewards(0), "soft_minimum", WEIGHTS[0])


# --- verl -----------------------------------------------------------------------------------------------------


def verl_batch(rewards, lengths, prompt_length=3):
    """Arguments of verl's estimator for rewards (P, G, M) and response lengths (P, G)."""
    prompts, rollouts, channels = rewards.shape
    lengths = torch.tensor(lengths.reshape(-1))
    size = int(lengths.max()) + 2  # two columns of padding that no response reaches
    response_mask = (torch.arange(size)[None, :] < lengths[:, None]).to(torch.int64)
    seen = torch.ones((prompts * rollouts, prompt_length), dtype=torch.int64)
    components = {f"channel_{j}": rewards[:, :, j].reshape(-1) for j in range(channels)}
    return {
        "token_level_rewards": torch.zeros(response_mask.shape),
        "response_mask": response_mask,
        "index": np.repeat([f"prompt-{p}" for p in range(prompts)], rollouts),
        "non_tensor_batch": components,
        "batch": {"prompts": seen, "attention_mask": torch.cat([seen, response_mask], dim=1)},
    }


def unequal_lengths(seed, shape):
    return np.random.default_rng(seed).integers(1, 13, shape)


@pytest.mark.parametrize("weights", [None, [0.5, 2.0, 1.5]])
def test_advantages_equal_those_of_verl_on_every_token(weights):
    core_algos = pytest.importorskip("verl.trainer.ppo.core_algos")
    for seed in range(10):
        # Halves: groups of four have means that float32 holds, so verl's dead channels are dead as ours are.
        rewards = np.random.default_rng(seed).integers(0, 3, (5, 4, 3)) / 2.0
        rewards[0, :, 1] = 0.5
        rewards[1, :, :] = 1.0
        rewards[:, :, 2] *= 2.0 ** (-14 * (seed % 2))  # a spread so small that the eps of 1e-6 shows
        lengths = unequal_lengths(seed, (5, 4))
        config = {"gdpo_reward_keys": [f"channel_{j}" for j in range(3)]}
        if weights is not None:
            config["gdpo_reward_weights"] = weights
        batch = verl_batch(rewards, lengths)
        theirs, _ = core_algos.compute_gdpo_outcome_advantage(config=config, **batch)
        ours = compute_advantages(
            rewards, method="gdpo", weights=weights, lengths=lengths, **PRESETS["verl"]
        ).advantages
        per_token = torch.tensor(ours.reshape(-1, 1)) * batch["response_mask"]
        assert theirs.abs().max() > 0.5
        torch.testing.assert_close(theirs.to(torch.float64), per_token, rtol=0, atol=1e-5)


def test_verl_whitens_over_tokens_and_so_differs_from_whitening_over_sequences():
    rewards = np.random.default_rng(0).integers(0, 3, (5, 4, 3)) / 2.0
    lengths = unequal_lengths(0, (5, 4))
    by_token = compute_advantages(rewards, method="gdpo", lengths=lengths, **PRESETS["verl"]).advantages
    by_sequence = compute_advantages(rewards, method="gdpo", **PRESETS["trl"]).advantages
    assert np.abs(by_token - by_sequence).max() > 0.01


# --- length, and GDPO as the limit of RVPO --------------------------------------------------------------------


@pytest.mark.parametrize("whiten", [True, False, "sequence"])
def test_rvpo_does_not_depend_on_the_length_of_responses(whiten):
    rewards = np.random.default_rng(1).random((6, 4, 5))
    results = [
        compute_advantages(rewards, k=2.0, whiten=whiten, lengths=lengths).advantages
        for lengths in (None, np.ones((6, 4)), unequal_lengths(2, (6, 4)))
    ]
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


def test_token_whitening_of_rvpo_is_one_shift_and_one_scale_for_the_whole_batch():
    # Length counts in the mean and the std of the batch only; the order of rollouts and the ratios of their
    # differences stay. Were rewards summed over tokens before the soft minimum, they would not.
    rewards = np.random.default_rng(1).random((6, 4, 5))
    raw = compute_advantages(rewards, k=2.0, whiten=False).advantages.ravel()
    for seed in range(5):
        lengths = unequal_lengths(seed, (6, 4))
        by_token = compute_advantages(rewards, k=2.0, whiten="token", lengths=lengths).advantages.ravel()
        slope, intercept = np.polyfit(raw, by_token, 1)
        assert slope > 0
        np.testing.assert_allclose(by_token, intercept + slope * raw, atol=1e-12)
        assert (lengths.ravel() @ by_token) == pytest.approx(0, abs=1e-9)  # the mean over tokens is 0


@pytest.mark.parametrize("channels", [1, 2, 5, 17])
def test_rvpo_at_k_0_is_gdpo_but_for_eps(channels):
    # m = mean_j Z; GDPO's sum is M m. Whitened with s = std m:
    #   rvpo (m - mean m) / (s + eps),   gdpo M (m - mean m) / (M s + eps) = (m - mean m) / (s + eps / M),
    # so gdpo = rvpo (s + eps) / (s + eps / M): a relative difference below (1 - 1/M) eps / s, 5e-4 for s = 0.2.
    rewards = np.random.default_rng(3).random((6, 4, channels))
    raw = compute_advantages(rewards, k=0.0, whiten=False).advantages
    rvpo = compute_advantages(rewards, k=0.0).advantages
    gdpo = compute_advantages(rewards, method="gdpo").advantages
    s, eps = raw.std(ddof=1), 1e-4
    np.testing.assert_allclose(gdpo, rvpo * (s + eps) / (s + eps / channels), atol=1e-12)
    bound = np.abs(rvpo) * (1 - 1 / channels) * eps / s
    assert (np.abs(gdpo - rvpo) <= bound + 1e-12).all()
    assert bound.max() < (5e-4 if channels <= 2 else 2e-3)


@pytest.mark.parametrize("weights", [None, [1.0, 0.5, 3.0, 0.25]])
@pytest.mark.parametrize("whiten", [True, "token"])
def test_rvpo_at_k_0_is_gdpo_without_eps(whiten, weights):
    rewards = np.random.default_rng(4).random((6, 4, 4))
    settings = {"weights": weights, "eps": 0.0, "whiten": whiten, "lengths": unequal_lengths(5, (6, 4))}
    rvpo = compute_advantages(rewards, k=0.0, **settings).advantages
    gdpo = compute_advantages(rewards, method="gdpo", **settings).advantages
    np.testing.assert_allclose(rvpo, gdpo, atol=1e-12)


def test_rvpo_leaves_gdpo_as_k_grows():
    # To second order A = mean - k/2 var: the distance to the mean is k/2 var + O(k^2).
    rewards = np.random.default_rng(4).random((6, 4, 4))
    settings = {"eps": 0.0, "whiten": False}
    mean = compute_advantages(rewards, k=0.0, **settings).advantages
    z = (rewards - rewards.mean(axis=1, keepdims=True)) / rewards.std(axis=1, ddof=1, keepdims=True)
    for k in (1e-2, 1e-3, 1e-5):
        near = compute_advantages(rewards, k=k, **settings).advantages
        np.testing.assert_allclose((mean - near) / k, z.var(axis=2) / 2, atol=2 * k, rtol=0)
        assert math.isclose(np.abs(mean - near).max(), k / 2 * z.var(axis=2).max(), rel_tol=5 * k)
