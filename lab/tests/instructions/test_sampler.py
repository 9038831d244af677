from collections import Counter

import pytest
import torch
from tiny import tiny_policy
from transformers import AutoModelForCausalLM

from rvpo.errors import ConfigError
from rvpo.llm.tokenizer import load_tokenizer
from rvpo_lab.instructions.sampler import Sampler, fits

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
