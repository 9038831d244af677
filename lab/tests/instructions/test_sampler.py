"""The sampler against `generate`, and a log that it draws from a real (tiny, random) Llama model: whole, interrupted,
refused; the checks of a GPU, as far as a CPU can make them."""

import json
from collections import Counter

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from made_up_cells import tiny_policy
from rvpo import METHODS
from rvpo.audit import audit_log
from rvpo.cli.judge_grade import read_answers
from rvpo.errors import ConfigError
from rvpo.llm.tokenizer import load_tokenizer
from rvpo_lab.cli.instructions import main as instructions
from rvpo_lab.instructions.checks import advantages_agree, checks, example_rewards, step_ratio
from rvpo_lab.instructions.rollouts import CHUNK, draw_answers, main
from rvpo_lab.instructions.sampler import Sampler, fits
from rvpo_lab.instructions.task import Settings, rows

QUESTIONS = ["a note about rain", "birds?", "a note about rain", "a list of birds, and of rain"]


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    folder = tiny_policy(tmp_path_factory.mktemp("policy"))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return model, load_tokenizer(folder, padding_side="left")


def ids_of(tokenizer, questions=QUESTIONS):
    chats = [[{"role": "user", "content": question}] for question in questions]
    return tokenizer.apply_chat_template(chats, add_generation_prompt=True, return_dict=True)["input_ids"]


def made(policy, rows=5, room=20, **options):
    model, tokenizer = policy
    longest = max(map(len, ids_of(tokenizer)))
    return Sampler(model, rows=rows, capacity=longest + room, eos=tokenizer.eos_token_id, **options)


def test_without_noise_it_answers_as_generate_does(policy):
    model, tokenizer = policy
    ids = ids_of(tokenizer)
    ours = made(policy, temperature=1e-9).sample(ids, 20, torch.Generator().manual_seed(0))
    batch = tokenizer.pad({"input_ids": ids}, return_tensors="pt")
    theirs = model.generate(**batch, do_sample=False, max_new_tokens=20)[:, batch.input_ids.shape[1] :]
    for answer, peer in zip(ours, theirs.tolist(), strict=True):
        end = peer.index(tokenizer.eos_token_id) + 1 if tokenizer.eos_token_id in peer else None
        assert answer == peer[:end]
    assert ours[0] == ours[2]


def test_it_takes_over_the_weights_as_they_are_at_each_call(policy):
    model, tokenizer = policy
    sampler = made(policy, temperature=1e-9)
    before = sampler.sample(ids_of(tokenizer), 8, torch.Generator().manual_seed(0))
    norm = model.model.norm.weight
    with torch.no_grad():
        norm.neg_()  # turns every logit around
        try:
            after = sampler.sample(ids_of(tokenizer), 8, torch.Generator().manual_seed(0))
        finally:
            norm.neg_()
    assert before != after


def test_samples_have_the_models_distribution(policy):
    model, tokenizer = policy
    ids = ids_of(tokenizer, ["birds?"])[0]
    with torch.no_grad():
        expected = model(torch.tensor([ids])).logits[0, -1].softmax(-1)
    sampler = made(policy, rows=1000)
    answers = sampler.sample([ids] * 1000, 1, torch.Generator().manual_seed(1))
    counts = Counter(answer[0] for answer in answers)
    top = expected.topk(5)
    for share, token in zip(top.values.tolist(), top.indices.tolist(), strict=True):
        # Four standard deviations of a binomial share.
        assert abs(counts[token] / 1000 - share) < 4 * (share * (1 - share) / 1000) ** 0.5


def test_the_seed_decides_and_global_randomness_stays(policy):
    tokenizer = policy[1]
    sampler, state = made(policy), torch.get_rng_state()
    first, repeated, other = (
        sampler.sample(ids_of(tokenizer), 12, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4)
    )
    assert first == repeated != other
    assert torch.equal(state, torch.get_rng_state())


def test_an_answer_ends_with_its_end_token(policy):
    _model, tokenizer = policy
    ids = ids_of(tokenizer)
    frequent = made(policy, temperature=1e-9).sample(ids, 1, torch.Generator())[1][0]
    sampler = made(policy, temperature=1e-9)
    sampler.eos = frequent
    answers = sampler.sample(ids, 12, torch.Generator().manual_seed(0))
    assert answers[1] == [frequent]
    assert all(frequent not in answer[:-1] for answer in answers)


def test_what_does_not_fit_is_an_error(policy):
    model, tokenizer = policy
    ids = ids_of(tokenizer)
    with pytest.raises(ConfigError, match="holds 2 rows"):
        made(policy, rows=2).sample(ids, 4, torch.Generator())
    with pytest.raises(ConfigError, match=r"asked for 4 rows of \d+ \+ 500"):
        made(policy).sample(ids, 500, torch.Generator())
    assert fits(model)
    model.config.hidden_act = "gelu"
    try:
        with pytest.raises(ConfigError, match="Llama models without adapters"):
            made(policy)
    finally:
        model.config.hidden_act = "silu"


SETTINGS = {"prompts": CHUNK + 3, "rollouts": 3, "tokens": 6, "seed": 5}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    letters = ["<end>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    bpe = Tokenizer(models.BPE({letter: at for at, letter in enumerate(letters)}, []))
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<end>",
        pad_token="<end>",
        chat_template="{% for m in messages %}{{ m['content'] }}{% endfor %}\n",
    )
    torch.manual_seed(0)
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(letters), **size, num_key_value_heads=1, eos_token_id=0))
    path = tmp_path_factory.mktemp("policy")
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return str(path)


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory):
    file = tmp_path_factory.mktemp("log") / "answers.jsonl"
    draw_answers(folder, file, **SETTINGS)
    return file


def test_a_line_for_each_prompt(whole):
    first, *lines = map(json.loads, whole.read_text().splitlines())
    assert first == SETTINGS
    assert [(line["prompt"], line["instructions"]) for line in lines] == [
        (row["prompt"], row["instructions"]) for row in rows(SETTINGS["prompts"], SETTINGS["seed"])
    ]
    assert {len(line["answers"]) for line in lines} == {3}
    assert all(1 <= number <= 6 for line in lines for number in line["tokens"])
    assert len({answer for line in lines for answer in line["answers"]}) > 20


@pytest.mark.parametrize("cut", [0.3, 0.9])
def test_an_interrupted_log_goes_on_to_the_same_answers(folder, whole, tmp_path, cut):
    text = whole.read_text()
    file = tmp_path / "answers.jsonl"
    file.write_text(text[: int(cut * len(text))])
    draw_answers(folder, file, **SETTINGS)
    assert file.read_text() == text


def test_other_settings_are_refused(folder, whole):
    with pytest.raises(ConfigError, match="'seed': 5"):
        draw_answers(folder, whole, **SETTINGS | {"seed": 6})


def test_the_command_writes_what_the_audit_reads(folder, whole, tmp_path, capsys):
    options = [word for name, value in SETTINGS.items() for word in (f"--{name}", str(value))]
    judged = tmp_path / "judged.jsonl"
    log = tmp_path / "log.parquet"
    main(["--policy", folder, "--answers", str(whole), "--out", str(log), "--rubrics", str(judged), *options])
    assert "written" in capsys.readouterr().out
    result = audit_log(log, methods=["gdpo"], draws=10)
    assert (result.rollouts, result.groups) == (33, 11)
    lines = [json.loads(line) for line in whole.read_text().splitlines()[1:]]
    for line, judged_answer in zip(lines, read_answers(judged), strict=True):
        kinds = [instruction["kind"] for instruction in json.loads(line["instructions"])]
        assert [criterion.id for criterion in judged_answer.item.rubric] == kinds
        assert judged_answer.item.answer == line["answers"][0]


def test_example_rewards_have_missing_values_and_dead_channels():
    rewards = example_rewards((4, 8, 5), torch.bfloat16).double().numpy()
    assert 0.05 < np.isnan(rewards[2:]).mean() < 0.35
    assert np.isnan(rewards[1]).all()
    assert np.nanstd(rewards[0, :, 1]) == 0


def test_every_method_agrees_with_numpy_in_both_float_types():
    distances = advantages_agree("cpu")
    assert set(distances) == set(METHODS)
    for by_type in distances.values():
        assert by_type["float32"] < 1e-5
        assert by_type["bfloat16"] < 0.04  # a unit in the last place at 4


def test_a_step_of_ours_and_of_trls(tmp_path, monkeypatch):
    for name, fewer in (("PROMPTS", 4), ("WARM_UP_PAIRS", 1)):
        monkeypatch.setattr(f"rvpo_lab.instructions.checks.{name}", fewer)
    policy = tiny_policy(tmp_path / "policy")
    result = step_ratio(policy, Settings(tokens=6), pairs=2)
    assert 0.2 < result["ratio"] < 5
    assert result["low"] <= result["ratio"] <= result["high"]
    assert result["grpo_s"] > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what a machine without a GPU leaves out")
def test_without_a_gpu_the_command_says_what_is_left_out(tmp_path, capsys):
    assert instructions(["--checks", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "No GPU: times, kernels, steps and memory are left out." in printed
    assert "| rvpo_policy |" in printed
    assert set(json.loads((tmp_path / "checks.json").read_text())["distance"]) == set(METHODS)
    assert checks(None, Settings(), tmp_path) == printed
