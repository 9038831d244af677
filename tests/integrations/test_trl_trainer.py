"""What RVPOTrainer trains on, logs, saves and refuses, in real training runs of a tiny policy on the CPU."""

import inspect
import json
import math
from collections import Counter
from functools import partial

import graders
import numpy as np
import pytest
import torch
from reference import assert_metrics, completions_table, expected_metrics, moving_average, weights_with_multipliers
from safetensors.torch import load_file
from trl import GRPOConfig, GRPOTrainer

import rvpo
from rvpo import (
    ConfigError,
    IntegrationError,
    RewardError,
    RVPOTrainer,
    compute_advantages,
    scalar_reward,
    vector_reward,
)
from rvpo.integrations.trl.trainer import RVPOMixin

REWARD_SETS = {
    "sync": ["sure_warm", "gappy"],
    "async": ["sure_async", "gappy_async"],
    "fixed lists": ["graded"],
    "fixed dicts from a coroutine": ["marked"],
    "ragged": ["rubric"],
    "ragged from an object with async call": ["judge"],
    "all kinds": ["sure_warm", "graded", "gappy_async", "rubric", "marked"],
}
ALL_KINDS = REWARD_SETS["all kinds"]


def functions(names):
    for name in names:
        grader = getattr(graders, name)
        if not hasattr(grader, "__name__"):
            grader.__name__ = name
        yield grader


def rewards_of(names):
    return list(functions(names))


def expected_advantages(names, generation, group_size=4, **options):
    """An independent call of compute_advantages, as float32 like the tensor that TRL trains on."""
    prompts, completions = generation["prompts"], generation["completions"]
    values, _, weights = graders.matrix(names, prompts, completions, group_size)
    k = 2.0 if options.get("method") == "rvpo_policy" else 1.0
    result = compute_advantages(values, group_size=group_size, **{"weights": weights, "k": k, **options})
    return result.advantages.astype(np.float32)


def assert_same(actual, expected):
    np.testing.assert_allclose(np.asarray(actual, dtype=np.float32), expected, rtol=0, atol=3e-7)


def assert_trained_as_generated(trainer, *, times):
    """Every rollout reached the loss `times` times, with the advantage of its generation."""
    generated = Counter()
    for generation in trainer.generations:
        if generation["training"]:
            generated.update(zip(generation["ids"], generation["advantages"], strict=True))
    assert Counter(trainer.trained) == Counter({key: count * times for key, count in generated.items()})


# --- What the policy is trained on ---


@pytest.mark.parametrize("names", REWARD_SETS.values(), ids=REWARD_SETS)
def test_advantages_are_those_of_compute_advantages(run, names):
    trainer = run(rewards_of(names), max_steps=2)
    assert len(trainer.generations) == 2
    for generation in trainer.generations:
        assert_same(generation["advantages"], expected_advantages(names, generation))
        assert np.ptp(generation["advantages"]) > 1
    assert_trained_as_generated(trainer, times=1)


BATCHING = {
    "accumulation": ({"gradient_accumulation_steps": 2}, 1),
    "four steps a generation": (
        {"steps_per_generation": 4, "gradient_accumulation_steps": 2, "per_device_train_batch_size": 2},
        1,
    ),
    "two iterations": ({"num_iterations": 2}, 2),
    "reference model": ({"beta": 0.1}, 1),
    "truncated completions masked": ({"mask_truncated_completions": True}, 1),
}


@pytest.mark.parametrize(("options", "times"), BATCHING.values(), ids=BATCHING)
def test_batching_does_not_change_the_advantages(run, options, times):
    trainer = run(rewards_of(ALL_KINDS), max_steps=2, **options)
    for generation in trainer.generations:
        assert_same(generation["advantages"], expected_advantages(ALL_KINDS, generation))
    assert_trained_as_generated(trainer, times=times)


def test_a_rollout_without_any_value_gets_zero_and_the_others_are_whitened_without_it(run):
    trainer = run(rewards_of(["gappy", "rubric"]), max_steps=3, per_device_train_batch_size=16)
    unscored = 0
    for generation in trainer.generations:
        values, _, _ = graders.matrix(["gappy", "rubric"], generation["prompts"], generation["completions"], 4)
        without = np.isnan(values).all(axis=1)
        advantages = np.asarray(generation["advantages"])
        assert (advantages[without] == 0).all()
        assert advantages[~without].mean() == pytest.approx(0, abs=1e-6)
        assert advantages[~without].std(ddof=1) == pytest.approx(1, abs=1e-3)
        unscored += without.sum()
    assert unscored > 0


def nothing(completions, **kwargs):
    return [None] * len(completions)


@vector_reward()
def empty_rubric(completions, **kwargs):
    return [{} for _ in completions]


@pytest.mark.parametrize("reward", [nothing, empty_rubric])
def test_a_batch_without_any_value_is_trained_on_with_zeros(run, reward):
    trainer = run([reward])
    assert trainer.generations[0]["advantages"] == [0.0] * 8
    assert trainer.state.log_history[0]["rvpo/unscored"] == 8


def test_an_empty_rubric_beside_another_reward_changes_nothing(run):
    trainer = run([graders.sure_warm, empty_rubric])
    generation = trainer.generations[0]
    assert_same(generation["advantages"], expected_advantages(["sure_warm"], generation))


def test_lora_is_trained_on_the_same_advantages(run):
    from peft import LoraConfig

    lora = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    trainer = run(rewards_of(ALL_KINDS), max_steps=2, peft_config=lora)
    for generation in trainer.generations:
        assert_same(generation["advantages"], expected_advantages(ALL_KINDS, generation))
    assert_trained_as_generated(trainer, times=1)
    adapters = [weight for name, weight in trainer.model.named_parameters() if "lora_B" in name]
    assert any(weight.abs().max() > 0 for weight in adapters)


def test_the_mixin_sits_on_another_loss(run, monkeypatch):
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    gmpo = pytest.importorskip("trl.experimental.gmpo")
    trainer = run(
        rewards_of(ALL_KINDS), base=type("RVPOGMPOTrainer", (RVPOMixin, gmpo.GMPOTrainer), {}), num_iterations=2
    )
    for generation in trainer.generations:
        assert_same(generation["advantages"], expected_advantages(ALL_KINDS, generation))
    assert_trained_as_generated(trainer, times=1)  # one step is half of num_iterations


def test_evaluation_groups_by_its_own_number_of_generations(run):
    trainer = run(
        rewards_of(ALL_KINDS),
        max_steps=2,
        num_generations_eval=2,
        eval_strategy="steps",
        eval_steps=1,
        per_device_eval_batch_size=4,
    )
    evaluations = [generation for generation in trainer.generations if not generation["training"]]
    assert len(evaluations) == 4
    for generation in evaluations:
        assert_same(generation["advantages"], expected_advantages(ALL_KINDS, generation, group_size=2))
    assert_trained_as_generated(trainer, times=1)


def completion_lengths(generation, end=1):
    """Tokens up to the end token inclusive, or all."""
    rows = [json.loads("[" + ids.split("] [")[1]) for ids in generation["ids"]]
    return [row.index(end) + 1 if end in row else len(row) for row in rows]


def test_whitening_over_tokens_counts_the_tokens_of_each_completion(run):
    trainer = run(rewards_of(["sure_warm", "rubric"]), whiten="token", max_completion_length=16)
    generation = trainer.generations[0]
    lengths = completion_lengths(generation)
    assert len(set(lengths)) > 2
    expected = expected_advantages(["sure_warm", "rubric"], generation, whiten="token", lengths=np.asarray(lengths))
    assert_same(generation["advantages"], expected)
    assert abs(expected - expected_advantages(["sure_warm", "rubric"], generation)).max() > 1e-3


CONFIGURED = {
    "k": ({"k": 4.0}, {"k": 4.0}),
    "infinite k": ({"k": math.inf}, {"k": math.inf}),
    "dead channels": ({"dead_channels": "mask", "k": 8.0}, {"dead_channels": "mask", "k": 8.0}),
    "recenter": ({"recenter": True, "whiten": "false"}, {"recenter": True, "whiten": False}),
    "deviations": ({"std_eps": 0.5, "std_ddof": 0}, {"eps": 0.5, "ddof": 0}),
    "whiten": ({"method": "grpo", "whiten": "sequence"}, {"method": "grpo", "whiten": "sequence"}),
    "method options": (
        {"method": "cvar", "method_options": {"share": 0.3}},
        {"method": "cvar", "share": 0.3},
    ),
}


@pytest.mark.parametrize(("options", "called_with"), CONFIGURED.values(), ids=CONFIGURED)
def test_every_option_reaches_the_advantages(run, options, called_with):
    generation = run(rewards_of(["graded", "rubric"]), **options).generations[0]
    expected = expected_advantages(["graded", "rubric"], generation, **called_with)
    assert_same(generation["advantages"], expected)
    if "dead_channels" not in options:  # a random batch need not have one
        assert abs(expected - expected_advantages(["graded", "rubric"], generation)).max() > 1e-3


def test_weights_and_ranges_of_the_configuration_come_before_those_declared(run):
    names = ["graded", "gappy", "rubric"]
    trainer = run(
        rewards_of(names),
        method="rvpo_policy",
        channel_weights={"tone": 0.25, "rubric": 3.0},
        channel_ranges={"length": [-1, 3], "rubric": [0, 2], "gappy": [0, 4]},
        reward_weights=[2.0, 0.5, 1.0],
    )
    generation = trainer.generations[0]
    rubric_columns = len(graders.matrix(["rubric"], generation["prompts"], generation["completions"], 4)[2])
    expected = expected_advantages(
        names,
        generation,
        method="rvpo_policy",
        weights=[0.5, 2.0, 0.5] + [3.0] * rubric_columns,
        ranges=[(0, 1), (-1, 3), (0, 4)] + [(0, 2)] * rubric_columns,
    )
    assert_same(generation["advantages"], expected)


def test_weights_of_channels_and_tags_follow_the_global_step(run):
    names, steps = ["graded", "rubric"], 3
    weights = {"tone": "2 -> 0.5 linear", "rubric": 1.5, "rubric/style": "0 -> 3", "rubric/absent": "1 -> 2"}
    trainer = run(rewards_of(names), channel_weights=weights, max_steps=steps)
    entries = logs_with(trainer, "channels/tone/given_weight")
    for step, (generation, entry) in enumerate(zip(trainer.generations, entries, strict=True)):
        values, labels, _ = graders.matrix(names, generation["prompts"], generation["completions"], 4)
        tone, style = 2 - 1.5 * step / steps, 3 * step / steps
        given = [
            [{"tone": tone, "length": 1.0, "rubric/style": style}.get(name, 1.5) for name in row] for row in labels
        ]
        expected = compute_advantages(values, group_size=4, weights=given, k=1.0).advantages
        assert_same(generation["advantages"], expected)
        logged = {name: entry[f"channels/{name}/given_weight"] for name in ("tone", "rubric/style", "rubric/absent")}
        assert logged == pytest.approx({"tone": tone, "rubric/style": style, "rubric/absent": 1 + step / steps})


@pytest.mark.parametrize("evaluates", [False, True])
def test_a_reward_that_sees_groups_gets_one_prompts_rollouts_a_call(run, evaluates):
    options = {"eval_strategy": "steps", "eval_steps": 1, "num_generations_eval": 2, "per_device_eval_batch_size": 8}
    trainer = run(rewards_of(["ranked", "sure_warm", "different"]), max_steps=2, **options if evaluates else {})
    for generation in trainer.generations:
        size = 4 if generation["training"] else 2
        prompts, completions = generation["prompts"], generation["completions"]
        groups = [completions[i - i % size : i - i % size + size] for i in range(len(completions))]
        rows = [
            [
                graders.rank(c, g),
                graders.value("own_rank", p, c),
                graders.value("sure_warm", p, c),
                graders.unlike(c, g),
            ]
            for p, c, g in zip(prompts, completions, groups, strict=True)
        ]
        expected = compute_advantages(rows, group_size=size, k=1.0).advantages
        assert_same(generation["advantages"], expected)
    assert {generation["training"] for generation in trainer.generations} == ({True, False} if evaluates else {True})


@vector_reward("a", scope="group")
def of_another_number(prompts, completions, **kwargs):
    return [[1.0]]


def test_a_reward_that_sees_groups_must_return_a_row_for_each_of_the_group(build):
    with pytest.raises(
        RewardError, match="vector reward 'of_another_number' must return 4 rows, one a completion; got 1"
    ):
        build([of_another_number]).train()


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        (
            {"tune": "length > 0"},
            r"a condition names channel 'tune', but the channels are \['length', 'rubric', 'tone'\]",
        ),
        ({"tone": "lenght > 0"}, "a condition names channel 'lenght'"),
        ({"tone": "length > 0", "length": "tone > 0"}, "in a circle"),
    ],
)
def test_a_condition_that_cannot_be_applied_is_an_error_before_anything_is_generated(build, conditions, message):
    with pytest.raises(ConfigError, match=message):
        build(rewards_of(["graded", "rubric"]), channel_conditions=conditions)
    build(rewards_of(["graded", "rubric"]), channel_conditions={"rubric/any": "length > 0", "tone": "rubric/any > 0"})


def test_a_condition_acts_on_advantages_metrics_and_the_table(run, tmp_path):
    names = ["sure_warm", "graded", "rubric"]
    conditions = {"tone": "sure_warm >= 0.5 else missing", "sure_warm": "length < 0.75", "rubric/style": "tone > 0.25"}
    trainer = run(rewards_of(names), channel_conditions=conditions, log_completions=True)
    (generation,) = trainer.generations
    prompts, completions = generation["prompts"], generation["completions"]
    values, labels, weights = graders.matrix(names, prompts, completions, 4)
    warm, tone, length = values[:, 0], values[:, 1], values[:, 2]
    warm[:] = np.where(np.isnan(length), math.nan, np.where(length < 0.75, warm, 0.0))
    tone[:] = np.where(warm >= 0.5, tone, math.nan)
    style = np.repeat([[label == "rubric/style" for label in row] for row in labels], 4, axis=0)
    values[style & (tone <= 0.25)[:, None]] = 0.0
    values[style & np.isnan(tone)[:, None]] = math.nan
    plain = graders.matrix(names, prompts, completions, 4)[0]
    assert (values[:, 0] != plain[:, 0]).any()
    assert_same(generation["advantages"], compute_advantages(values, group_size=4, weights=weights, k=1.0).advantages)
    (entry,) = logs_with(trainer, "channels/tone/unmet")
    assert entry["channels/sure_warm/unmet"] == pytest.approx(np.mean((length >= 0.75)[~np.isnan(length)]))
    assert entry["channels/sure_warm/mean"] == pytest.approx(np.nanmean(warm))
    table = completions_table(tmp_path / "run", 1)
    np.testing.assert_array_equal(table["sure_warm"].astype(float), warm)
    np.testing.assert_array_equal(table["tone"].astype(float), tone)


def test_an_object_with_a_coroutine_is_awaited_where_trl_made_no_event_loop_for_it(run, monkeypatch):
    """TRL up to 1.12 makes the loop for coroutine functions only."""
    monkeypatch.setattr("trl.trainer.grpo_trainer.is_async_callable", inspect.iscoroutinefunction, raising=False)
    generation = run([graders.sure_warm, *functions(["judge"])]).generations[0]
    assert_same(generation["advantages"], expected_advantages(["sure_warm", "judge"], generation))


def test_a_partial_of_a_coroutine_function_is_awaited(run):
    async def warm(prompts, completions, kind, **kwargs):
        return graders.by_rollout(prompts, completions, lambda p, c: [graders.value(kind, p, c)])

    bound = partial(warm, kind="sure_warm")
    bound.__name__ = "bound"  # TRL before 1.16 names every reward by it
    generation = run([vector_reward("sure_warm")(bound)]).generations[0]
    assert_same(generation["advantages"], expected_advantages(["sure_warm"], generation))


def test_a_partial_of_a_declared_reward_keeps_its_declaration(run):
    bound = partial(graders.graded)
    bound.__name__ = "bound"
    generation = run([bound]).generations[0]
    assert_same(generation["advantages"], expected_advantages(["graded"], generation))


def test_reward_functions_get_the_rows_columns_and_the_trainers_state(run):
    seen = []

    @vector_reward("any")
    def look(prompts, completions, topics, trainer_state, **kwargs):
        seen.append((prompts, topics, trainer_state.global_step))
        return [[0.0] for _ in completions]

    trainer = run([look], max_steps=2)
    assert [step for _, _, step in seen] == [0, 1]
    for prompts, topics, _ in seen:
        assert [f"mention {' '.join(words)} :" for words in topics] == prompts
    assert trainer.reward_funcs == [look]  # as it was given: the adapter is gone


def test_trl_logs_the_mean_of_a_vector_rewards_values(run):
    trainer = run([graders.graded, graders.sure_warm])
    generation = trainer.generations[0]
    values, _, _ = graders.matrix(["graded"], generation["prompts"], generation["completions"], 4)
    means = [np.mean(row[~np.isnan(row)]) if (~np.isnan(row)).any() else np.nan for row in values]
    np.testing.assert_allclose([row[0] for row in generation["scalars"]], means, atol=1e-7)
    assert trainer.state.log_history[0]["rewards/graded/mean"] == pytest.approx(np.nanmean(means), abs=1e-6)


# --- Equal to TRL where TRL has the method ---


@pytest.mark.parametrize(
    ("method", "aggregation"), [("gdpo", "normalize_then_sum"), ("grpo", "sum_then_normalize")], ids=["gdpo", "grpo"]
)
def test_baseline_methods_train_the_same_weights_as_stock_trl(run, policy, tmp_path, method, aggregation):
    names = ["sure_warm", "gappy", "gappy_async"]
    common = {"max_steps": 3, "reward_weights": [1.0, 0.5, 2.0], "per_device_train_batch_size": 16}
    ours = run(rewards_of(names), folder=tmp_path / "ours", method=method, **common)
    stock = run(
        rewards_of(names),
        base=GRPOTrainer,
        config=GRPOConfig,
        folder=tmp_path / "stock",
        multi_objective_aggregation=aggregation,
        **common,
    )
    for mine, theirs in zip(ours.generations, stock.generations, strict=True):
        assert mine["completions"] == theirs["completions"]
        np.testing.assert_allclose(mine["advantages"], theirs["advantages"], rtol=0, atol=1e-4)
        assert np.ptp(mine["advantages"]) > 1
    before = load_file(policy / "model.safetensors")
    for (name, mine), theirs in zip(ours.model.named_parameters(), stock.model.parameters(), strict=True):
        assert (mine - before[name]).abs().max() > 1e-3
        torch.testing.assert_close(mine, theirs, rtol=0, atol=2e-5)


# --- What is logged and saved ---


def logs_with(trainer, key):
    return [entry for entry in trainer.state.log_history if key in entry]


def metrics_of(generation, names, *, group_size, k):
    values, labels, weights = graders.matrix(names, generation["prompts"], generation["completions"], group_size)
    return expected_metrics(values, labels, group_size, generation["advantages"], k=k, weights=weights)


def test_metrics_of_every_channel_are_logged_in_training_and_evaluation(run):
    names = ["sure_warm", "graded", "rubric"]
    trainer = run(
        rewards_of(names),
        max_steps=2,
        k=0.5,
        k_end=2.0,
        k_schedule="linear",
        per_device_train_batch_size=16,
        eval_strategy="steps",
        eval_steps=1,
        num_generations_eval=2,
        per_device_eval_batch_size=8,
    )
    training = [generation for generation in trainer.generations if generation["training"]]
    evaluations = [generation for generation in trainer.generations if not generation["training"]]
    for entry, generation, k in zip(logs_with(trainer, "rvpo/k"), training, [0.5, 1.25], strict=True):
        assert_metrics(entry, metrics_of(generation, names, group_size=4, k=k))
    for entry, generation, k in zip(logs_with(trainer, "eval_rvpo/k"), evaluations, [1.25, 2.0], strict=True):
        assert_metrics(entry, metrics_of(generation, names, group_size=2, k=k), prefix="eval_")
    kinds = {key.split("/")[-1] for key in trainer.state.log_history[0] if key.startswith("channels/rubric/accuracy/")}
    assert kinds == {"mean", "std", "dead", "missing", "weight", "conflict", "forecast"}


@pytest.mark.parametrize(
    ("options", "steps_of_generations"),
    [({}, [0, 1, 2, 3]), ({"num_iterations": 2}, [0, 2]), ({"gradient_accumulation_steps": 2}, [0, 1, 2, 3])],
    ids=["every step", "two iterations", "accumulation"],
)
def test_k_follows_the_global_step(run, options, steps_of_generations):
    trainer = run([graders.sure_warm], max_steps=4, k_schedule="linear", k=0.5, k_end=2.0, **options)
    logged = [(entry["step"] - 1, entry["rvpo/k"]) for entry in logs_with(trainer, "rvpo/k")]
    assert logged == [(step, 0.5 + 1.5 * step / 4) for step in steps_of_generations]


def test_the_completions_table_has_every_channel_and_the_advantages_used(run, tmp_path):
    names = ["sure_warm", "graded", "rubric", "marked"]
    trainer = run(rewards_of(names), log_completions=True, max_steps=2)
    table = completions_table(tmp_path / "run", 2)
    generation = trainer.generations[1]
    assert table["completion"].tolist() == generation["completions"]
    np.testing.assert_allclose(table["advantage"], generation["advantages"], atol=3e-7)
    for channel in ("sure_warm", "tone", "length", "clarity", "sure_depth"):
        expected = [
            graders.value(channel, prompt, completion)
            for prompt, completion in zip(generation["prompts"], generation["completions"], strict=True)
        ]
        np.testing.assert_array_equal(table[channel].astype(float), np.asarray(expected, dtype=float), err_msg=channel)


def test_the_completions_table_of_an_evaluation_keeps_advantages_beside_their_completions(run, tmp_path):
    """The table holds the newest rollouts: those of the evaluation, and before them some of the training."""
    options = {"per_device_train_batch_size": 16, "per_device_eval_batch_size": 8, "num_generations_eval": 2}
    trainer = run([graders.sure_warm], log_completions=True, eval_strategy="steps", eval_steps=1, **options)
    newest = [
        pair
        for generation in trainer.generations
        for pair in zip(generation["completions"], generation["advantages"], strict=True)
    ][-16:]
    assert not trainer.generations[-1]["training"]
    assert len(trainer.generations[-1]["completions"]) == 8
    table = completions_table(tmp_path / "run", 1)
    assert table["completion"].tolist() == [completion for completion, _ in newest]
    np.testing.assert_allclose(table["advantage"], [advantage for _, advantage in newest], atol=3e-7)


def test_the_completions_table_has_a_rubrics_rows_as_json(run, tmp_path):
    trainer = run([graders.rubric], log_completions=True)
    if "extra" not in trainer._logs:
        pytest.skip("the table of TRL before 1.0 has no room for text")
    generation = trainer.generations[0]
    table = completions_table(tmp_path / "run", 1)
    texts = zip(table["rubric/channels"], generation["prompts"], generation["completions"], strict=True)
    for cell, prompt, completion in texts:
        row = graders.rubric_row(prompt, completion)
        assert json.loads(cell) == {name: graders.value(name, prompt, completion) for name in row}


@vector_reward("mark", "length")
def tone(completions, **kwargs):
    return [[0.0, 1.0] for _ in completions]


@vector_reward("own", "rest")
def own(completions, **kwargs):
    return [[float(index), 1.0] for index, _ in enumerate(completions)]


@vector_reward("tone")
def other(completions, **kwargs):
    return [[float(index)] for index, _ in enumerate(completions)]


@vector_reward("step")
def counted(completions, **kwargs):
    return [[float(index)] for index, _ in enumerate(completions)]


@pytest.mark.parametrize(
    ("rewards", "channel"),
    [([tone, other], "tone"), ([own], "own"), ([counted], "step")],
    ids=["of another function", "of its function", "of a column"],
)
def test_a_channel_with_a_taken_name_is_refused_or_shown_unharmed(build, tmp_path, rewards, channel):
    try:
        trainer = build(rewards, log_completions=True)
    except RewardError:
        return
    trainer.train()
    if not trainer.state.log_history:
        return
    table = completions_table(tmp_path / "run", 1)
    assert table["step"].tolist() == [1] * 8
    assert table[channel].tolist() == list(range(8))


def test_the_model_card_cites_the_paper(run, tmp_path):
    run([graders.sure_warm], save_strategy="steps", save_steps=1)
    card = (tmp_path / "run" / "README.md").read_text()
    assert "huggingface.co/papers/2605.05750" in card
    assert "RVPO: Risk-Sensitive Alignment via Variance Regularization" in card
    assert "@article{montero2026rvpo" in card
    assert "- rvpo" in card.split("---")[1]


# --- What TRL takes, taken likewise ---

STOCK = {
    "group": {},
    "none": {"scale_rewards": "none"},
    "false": {"scale_rewards": False},
    "batch": {"scale_rewards": "batch"},
    "normalized first": {"multi_objective_aggregation": "normalize_then_sum"},
    "a penalty": {"reward_weights": [1.0, -0.5, 0.25]},
    "a penalty, over the batch": {"reward_weights": [1.0, -0.5, 0.25], "scale_rewards": "batch"},
}


class Stock(GRPOTrainer):
    pass


@pytest.mark.parametrize("options", STOCK.values(), ids=STOCK)
def test_grpo_trains_the_weights_that_trl_trains(build, options, tmp_path):
    def long(completions, **kwargs):
        return [len(completion) / 8 for completion in completions]

    names = ["sure_warm", "sure_async"]
    stock = build([*rewards_of(names), long], base=Stock, config=GRPOConfig, folder=tmp_path / "stock", **options)
    stock.train()
    ours = build([*rewards_of(names), long], method="grpo", **options)
    ours.train()
    for theirs, own in zip(stock.generations, ours.generations, strict=True):
        assert own["completions"] == theirs["completions"]
        np.testing.assert_allclose(own["advantages"], theirs["advantages"], rtol=0, atol=2e-5)
        assert np.ptp(own["advantages"]) > 0.1
    for name, tensor in stock.model.state_dict().items():
        torch.testing.assert_close(ours.model.state_dict()[name], tensor, rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", ["gdpo", "rvpo"])
def test_a_negative_reward_weight_is_a_penalty(run, method):
    def long(completions, **kwargs):
        return [len(completion) / 8 for completion in completions]

    trainer = run([graders.sure_warm, long], method=method, reward_weights=[1.0, -0.5])
    generation = trainer.generations[0]
    warm = [
        graders.value("sure_warm", *texts)
        for texts in zip(generation["prompts"], generation["completions"], strict=True)
    ]
    lengths = [len(completion) / 8 for completion in generation["completions"]]
    expected = compute_advantages(
        np.asarray([warm, [-length for length in lengths]]).T, group_size=4, method=method, weights=[1.0, 0.5]
    )
    assert_same(generation["advantages"], expected.advantages.astype(np.float32))
    assert trainer.state.log_history[0]["channels/long/mean"] == pytest.approx(np.mean(lengths), abs=1e-6)


def test_rewards_of_one_name_get_a_number(run):
    def brief(limit):
        return lambda completions, **kwargs: [float(len(completion) < limit) for completion in completions]

    trainer = run([brief(3), brief(6), brief(9)], channel_weights={"<lambda>_2": 0.5}, method="gdpo")
    assert trainer.reward_func_names == ["<lambda>", "<lambda>_2", "<lambda>_3"]
    generation = trainer.generations[0]
    values = [[float(len(completion) < limit) for limit in (3, 6, 9)] for completion in generation["completions"]]
    expected = compute_advantages(np.asarray(values), group_size=4, method="gdpo", weights=[1.0, 0.5, 1.0])
    assert_same(generation["advantages"], expected.advantages.astype(np.float32))


def test_without_a_configuration_there_is_a_default_one(policy, rows, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trainer = RVPOTrainer(str(policy), [graders.sure_warm], train_dataset=rows)
    assert (trainer.args.method, trainer.args.output_dir) == ("rvpo", f"{policy.name}-RVPO")


def test_what_trl_says_of_its_advantages_is_said_of_those_used(run):
    @vector_reward("a", "b")
    def balanced(prompts, completions, **kwargs):
        # Means of 1/2 throughout: TRL's advantages are all 0. The first prompt's channels differ between rollouts.
        return [[float(i % 2), float((i + 1) % 2)] if p == prompts[0] else [0.5, 0.5] for i, p in enumerate(prompts)]

    entry = run([balanced], channel_weights={"a": 3.0}).state.log_history[0]
    assert entry["frac_reward_zero_std"] == 0.5
    assert "reward_std" not in entry
    assert entry["reward"] == pytest.approx(0.5)


def test_a_metric_without_a_value_in_some_batches_is_the_mean_of_the_others(run):
    calls = []

    def sparse(completions, **kwargs):
        calls.append(1)
        return [float(len(calls)) if len(calls) % 2 else None for _ in completions]

    trainer = run([graders.sure_warm, sparse], max_steps=4, logging_steps=4)
    entry = trainer.state.log_history[0]
    assert entry["channels/sparse/mean"] == entry["rewards/sparse/mean"] == 2.0  # 1, None, 3, None
    assert entry["channels/sparse/missing"] == 0.5


def test_a_method_that_reads_no_k_logs_none(run):
    entry = run([graders.sure_warm], method="gdpo").state.log_history[0]
    assert "rvpo/k" not in entry
    assert "rvpo/active_channels" in entry


# --- The moving average of rvpo_policy ---

POLICY = {"method": "rvpo_policy", "method_options": {"anchor": "average"}, "anchor_decay": 0.75}


def standing(names, generation, averages):
    values, labels, _ = graders.matrix(names, generation["prompts"], generation["completions"], 4)
    return moving_average(values, labels, averages, group_size=4, decay=0.75)


def assert_anchored(names, generations, averages):
    for generation in generations:
        anchor = standing(names, generation, averages)
        expected = expected_advantages(names, generation, method="rvpo_policy", anchor=anchor)
        assert_same(generation["advantages"], expected)


def test_the_moving_average_is_saved_and_restored(run, tmp_path):
    names = ["sure_warm", "marked"]
    options = {"max_steps": 3, "save_strategy": "steps", "save_steps": 2, **POLICY}
    first = run(rewards_of(names), **options)
    averages = {}
    assert_anchored(names, first.generations[:2], averages)
    second = run(rewards_of(names), resume=str(tmp_path / "run" / "checkpoint-2"), **options)
    assert [generation["step"] for generation in second.generations] == [2]
    alone = standing(names, second.generations[0], {})
    assert abs(np.asarray(standing(names, second.generations[0], dict(averages))) - alone).max() > 0.01
    assert_anchored(names, second.generations, averages)


def test_the_moving_average_of_a_rubric_is_kept_by_tag(run):
    assert_anchored(["rubric"], run(rewards_of(["rubric"]), max_steps=3, **POLICY).generations, {})


def test_evaluation_does_not_move_the_average(run):
    options = {"eval_strategy": "steps", "eval_steps": 1, "per_device_eval_batch_size": 4}
    names = ["sure_warm", "marked"]
    trainer = run(rewards_of(names), max_steps=3, **options, **POLICY)
    training = [generation for generation in trainer.generations if generation["training"]]
    assert len(training) < len(trainer.generations)
    assert_anchored(names, training, {})


# --- Targets ---

TARGETS = {"sure_warm": 0.875, "rubric/accuracy": 0.75, "tone": 0.0}


def test_multipliers_move_in_training_only_weigh_in_both_and_are_logged(run):
    names = ["sure_warm", "graded", "rubric"]
    options = {"eval_strategy": "steps", "eval_steps": 1, "per_device_eval_batch_size": 4}
    trainer = run(rewards_of(names), max_steps=3, channel_targets=TARGETS, target_rate=0.5, **options)
    multipliers, courses = {}, []
    for generation in trainer.generations:
        values, labels, weights = graders.matrix(names, generation["prompts"], generation["completions"], 4)
        weights = weights_with_multipliers(
            values, labels, weights, multipliers, TARGETS, group_size=4, rate=0.5 * generation["training"]
        )
        assert_same(generation["advantages"], expected_advantages(names, generation, weights=weights))
        courses += [dict(multipliers)] if generation["training"] else []
    assert len(courses) == 3 < len(trainer.generations)
    for prefix in ("", "eval_"):
        for entry, expected in zip(logs_with(trainer, f"{prefix}rvpo/k"), courses, strict=True):
            logged = [entry[f"{prefix}channels/{name}/multiplier"] for name in TARGETS]
            assert logged == pytest.approx([expected[name] for name in TARGETS], abs=1e-9)
    assert courses[-1]["sure_warm"] > 0.2  # means of about 0.5, three times
    assert courses[-1]["tone"] == 0.0
    assert "channels/length/multiplier" not in trainer.state.log_history[0]


@pytest.mark.parametrize(
    ("targets", "error", "message"),
    [
        ({"tune": 0.5}, RewardError, r"channel_targets names \['tune'\], but the channels are \['length', 'tone'\]"),
        ({"tone": 1.5}, ConfigError, r"channel_targets gives 'tone' 1.5, outside its range \[0, 1\]"),
    ],
)
def test_a_target_that_nothing_can_be_held_to_stops_the_run(build, targets, error, message):
    with pytest.raises(error, match=message):
        build([graders.graded], channel_targets=targets).train()


# --- What is refused ---


def test_a_base_that_scores_itself_is_refused(build):
    class OwnScoring(GRPOTrainer):
        def _generate_and_score_completions(self, inputs):
            return super()._generate_and_score_completions(inputs)

    with pytest.raises(IntegrationError, match=r"OwnScoring computes advantages itself.*Use RVPOTrainer"):
        build([graders.sure_warm], base=type("Mixed", (RVPOMixin, OwnScoring), {}))


def test_a_class_that_generates_past_the_mixin_is_refused(build):
    class Past(RVPOTrainer):
        def _generate_and_score_completions(self, inputs):
            return GRPOTrainer._generate_and_score_completions(self, inputs)

        def _calculate_rewards(self, *args, **kwargs):
            return GRPOTrainer._calculate_rewards(self, *args, **kwargs)

    with pytest.raises(IntegrationError, match="trains on advantages that rvpo did not compute"):
        build([graders.sure_warm], base=Past).train()


def test_a_class_that_scores_past_the_mixin_is_refused(build):
    class Past(RVPOTrainer):
        def _calculate_rewards(self, *args, **kwargs):
            return GRPOTrainer._calculate_rewards(self, *args, **kwargs)

    with pytest.raises(IntegrationError, match="did not call _calculate_rewards"):
        build([graders.sure_warm], base=Past).train()


def test_a_base_that_scores_other_rollouts_than_it_trains_on_is_refused(build):
    class Doubled(GRPOTrainer):
        def _calculate_rewards(self, *args, **kwargs):
            return super()._calculate_rewards(*args, **kwargs).repeat(2, 1)

    with pytest.raises(IntegrationError, match="16 rollouts were scored, but 1 processes with 8"):
        build([graders.sure_warm], base=type("Mixed", (RVPOMixin, Doubled), {})).train()


def test_a_mixin_behind_the_trainer_is_refused(build):
    with pytest.raises(IntegrationError, match="RVPOMixin"):
        build([graders.sure_warm], base=type("Behind", (GRPOTrainer, RVPOMixin), {}))


def test_a_mixin_on_another_trainer_is_refused():
    with pytest.raises(IntegrationError, match=r"Alone does not derive from trl.GRPOTrainer"):
        type("Alone", (RVPOMixin,), {})()


class OtherConfig(GRPOConfig):
    """Of another trainer of TRL."""


def test_a_configuration_of_another_kind_is_refused(build):
    with pytest.raises(IntegrationError, match=r"needs args=RVPOConfig.*got OtherConfig"):
        build([graders.sure_warm], config=OtherConfig)


def test_a_configuration_of_trl_trains_as_rvpos_own_does(build, caplog):
    ours = build([graders.graded])
    ours.train()
    caplog.clear()
    theirs = build([graders.graded], config=GRPOConfig)
    assert "taken as RVPOConfig with method 'rvpo' and k 1" in caplog.text
    theirs.train()
    assert type(theirs.args) is type(ours.args)
    first, second = (trainer.args.to_dict() for trainer in (ours, theirs))
    for settings_of in (first, second):
        settings_of.pop("logging_dir", None)  # of transformers 4: it holds the time
    assert first == second
    for mine, other in zip(ours.model.parameters(), theirs.model.parameters(), strict=True):
        assert torch.equal(mine, other)


@scalar_reward(range=(0, 1))
def out_of_range(completions, **kwargs):
    return [1.5 for _ in completions]


@vector_reward("a", "b")
def too_few_rows(completions, **kwargs):
    return [[0.0, 1.0]]


def one_value(completions, **kwargs):
    return [1.0]


async def one_value_later(completions, **kwargs):
    return [1.0]


def undeclared(completions, **kwargs):
    return [{"right": 1.0, "brief": 0.5} for _ in completions]


def in_words(completions, **kwargs):
    return ["good" for _ in completions]


@vector_reward("sure_warm")
def same_name(completions, **kwargs):
    return [[0.0] for _ in completions]


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (out_of_range, r"reward 1.5 of channel 'out_of_range', completion 0 .* outside its declared range \[0"),
        (too_few_rows, "'too_few_rows' must return 8 rows, one a completion; got 1"),
        (one_value, "'one_value' must return 8 values, one a completion; got 1"),
        (one_value_later, "'one_value_later' must return 8 values, one a completion; got 1"),
        (undeclared, r"'undeclared', completion 0 returned .*, several values: declare .* @rvpo.vector_reward"),
        (in_words, "'in_words', completion 0 returned 'good'; a reward is a number"),
    ],
)
def test_bad_rewards_stop_the_run(build, reward, message):
    trainer = build([graders.sure_warm, reward])
    with pytest.raises(RewardError, match=message):
        trainer.train()
    assert trainer.reward_funcs == [graders.sure_warm, reward]


@pytest.mark.parametrize(
    ("rewards", "options", "error", "message"),
    [
        ([graders.sure_warm, same_name], {}, RewardError, r"several reward channels are named \['sure_warm'\]"),
        (
            [graders.graded],
            {"channel_weights": {"tune": 2.0}},
            RewardError,
            r"\['tune'\], but the channels are \['length', 'tone'\]",
        ),
        ([graders.rubric], {"channel_ranges": {"rubric/style": [0, 1]}}, RewardError, r"\['rubric/style'\]"),
        (
            [graders.sure_warm, graders.gappy],
            {"method": "rvpo_policy"},
            ConfigError,
            r"'rvpo_policy' compares channels .*\['gappy'\] declare none.*--channel_ranges '\{\"gappy\": \[0, 1\]\}'",
        ),
        ([graders.gappy], {"method": "saw"}, ConfigError, r"'saw' compares channels .*\['gappy'\] declare none"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_generated(build, rewards, options, error, message):
    with pytest.raises(error, match=message):
        build(rewards, **options)


def test_a_range_in_the_configuration_is_enough(run):
    def long(prompts, completions, **kwargs):
        return [-len(completion) / 100 for completion in completions]

    options = {"method": "rvpo_policy", "channel_ranges": {"long": [-10, 0]}}
    generation = run([graders.sure_warm, long], **options).generations[0]
    warm = [
        graders.value("sure_warm", *texts)
        for texts in zip(generation["prompts"], generation["completions"], strict=True)
    ]
    lengths = [-len(completion) / 100 for completion in generation["completions"]]
    expected = compute_advantages(
        np.asarray([warm, lengths]).T, group_size=4, method="rvpo_policy", ranges=[(0, 1), (-10, 0)]
    )
    assert_same(generation["advantages"], expected.advantages.astype(np.float32))


def test_an_infinite_scalar_reward_stops_the_run(build):
    def broken(completions, **kwargs):
        return [math.inf for _ in completions]

    with pytest.raises(RewardError, match="is infinite; return None or NaN for 'no value'"):
        build([broken]).train()


@pytest.mark.parametrize("option", [{"scale_rewards": "batch"}, {"multi_objective_aggregation": "normalize_then_sum"}])
def test_trls_own_advantages_are_refused_before_the_model_is_loaded(option):
    config = GRPOConfig("run", use_cpu=True, bf16=False, report_to="none", **option)
    with pytest.raises(ConfigError, match=f"{next(iter(option))}.*has no effect with method 'rvpo'"):
        RVPOTrainer("no/such-model", [graders.sure_warm], config)


def test_a_reward_of_tags_that_the_tokenizer_drops_is_refused_and_tools_beside_it_are_warned_of(
    policy, rows, tmp_path, caplog
):
    from recording import settings

    from rvpo.llm.tokenizer import load_tokenizer
    from rvpo.rewards.tool_calling import correctness_reward, format_reward

    def build(rewards, special=(), rows=rows):
        tokenizer = load_tokenizer(policy)
        tokenizer.add_tokens(list(special), special_tokens=True)
        args = rvpo.RVPOConfig(**settings(tmp_path / "run"))
        return rvpo.RVPOTrainer(str(policy), rewards, args, rows, processing_class=tokenizer)

    with pytest.raises(ConfigError, match=r"format_reward reads <think> in completions, but to this tokenizer"):
        build([format_reward], ["<think>"])
    build([correctness_reward], ["<think>"])  # which reads no thought
    with pytest.raises(ConfigError, match=r"correctness_reward reads </tool_call>, <tool_call>"):
        build([correctness_reward], ["<tool_call>", "</tool_call>"])
    assert "have tools too" not in caplog.text
    build([correctness_reward], rows=rows.add_column("tools", [[]] * len(rows)))
    assert "correctness_reward reads calls between <tool_call>, </tool_call>" in caplog.text
