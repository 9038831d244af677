"""Answers of local models: the same whatever else is in the batch, as a loop gives them, with LoRA, cut or lost."""

import json
import shutil
from collections import Counter
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM

from rvpo.errors import ConfigError
from rvpo.evals.models import LocalModel, Question, Sampling, SeededChoice, fingerprint, texts_of
from rvpo.llm.tokenizer import load_tokenizer
from rvpo_lab.tasks.policy import build_policy, word_tokenizer

WORDS = ["red", "green", "blue", "black", "white"]
QUESTIONS = [Question.of(f"q{at}", 0, " ".join(WORDS[: 1 + at % 5]), 0) for at in range(12)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return build_policy(tmp_path_factory.mktemp("policy"), word_tokenizer(WORDS), hidden_size=32, layers=1)


def answers(model, sampling, questions=QUESTIONS, batch_size=16):
    batches = [questions[start : start + batch_size] for start in range(0, len(questions), batch_size)]
    pairs = [pair for batch in batches for pair in zip(batch, model.answers(batch, sampling), strict=True)]
    return {question.id: answer for question, answer in pairs}


def generated(folder, prompt, length, model=None):
    """The likeliest continuation, one prompt by itself."""
    model = model or AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = load_tokenizer(folder)
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    with torch.no_grad():
        for _ in range(length):
            ids = torch.cat([ids, model(ids).logits[:, -1].argmax(-1, keepdim=True)], 1)
            if ids[0, -1] == tokenizer.eos_token_id:
                break
    return tokenizer.decode(ids[0, len(tokenizer(prompt).input_ids) :], skip_special_tokens=True)


def test_the_likeliest_answer_is_that_of_a_loop(folder):
    answered = answers(LocalModel(folder), Sampling(0.0, max_tokens=6), batch_size=5)
    assert {name: answer.text for name, answer in answered.items()} == {
        question.id: generated(folder, question.prompt, 6) for question in QUESTIONS
    }


def test_an_answer_does_not_depend_on_its_batch(folder):
    model, sampling = LocalModel(folder), Sampling(1.0, max_tokens=8)
    whole = answers(model, sampling, batch_size=12)
    assert len({answer.text for answer in whole.values()}) > 6
    assert answers(model, sampling, batch_size=1) == whole
    rest = answers(model, sampling, [QUESTIONS[5], *QUESTIONS[7:]], batch_size=5)
    assert rest == {name: whole[name] for name in ("q5/0", "q7/0", "q8/0", "q9/0", "q10/0", "q11/0")}
    other = answers(model, sampling, [Question.of("q1", 1, QUESTIONS[1].prompt, 0)])
    assert other["q1/1"] != whole["q1/0"]


def test_tokens_are_drawn_with_the_models_probabilities():
    scores = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]]))
    choose = SeededChoice([7], Sampling(1.0))
    drawn = Counter(int(choose(None, scores).argmax()) for _ in range(4000))
    for token, share in enumerate((0.5, 0.3, 0.15, 0.05)):
        assert abs(drawn[token] / 4000 - share) < 4 * (share * (1 - share) / 4000) ** 0.5
    nucleus = SeededChoice([7], Sampling(1.0, top_p=0.75))
    drawn = Counter(int(nucleus(None, scores).argmax()) for _ in range(2000))
    assert set(drawn) == {0, 1}
    assert abs(drawn[0] / 2000 - 0.5 / 0.8) < 0.05
    colder = SeededChoice([7], Sampling(0.5))
    drawn = Counter(int(colder(None, scores).argmax()) for _ in range(2000))
    assert abs(drawn[0] / 2000 - 0.25 / (0.25 + 0.09 + 0.0225 + 0.0025)) < 0.05


def test_cut_answers_and_prompts_without_room_are_told(folder):
    asked = [QUESTIONS[0], Question.of("long", 0, "red " * 8, 0)]
    answered = answers(LocalModel(folder), Sampling(0.0, max_tokens=505), asked)
    assert answered["q0/0"].tokens <= 505
    assert answered["q0/0"].is_cut == (answered["q0/0"].tokens == 505 and not answered["q0/0"].lost)
    assert answered["long/0"].text is None
    assert answered["long/0"].lost == "prompt of 8 tokens leaves no room for 505 of 512"
    assert answers(LocalModel(folder), Sampling(0.0, max_tokens=1))["q0/0"].is_cut


def test_adapters_answer_as_the_merged_model(folder, tmp_path):
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    base = AutoModelForCausalLM.from_pretrained(folder)
    base.name_or_path = str(folder)
    adapted = get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    adapted.save_pretrained(tmp_path / "adapters")
    model = LocalModel(tmp_path / "adapters")
    answered = answers(model, Sampling(0.0, max_tokens=6))
    merged = adapted.merge_and_unload()
    expected = {question.id: generated(folder, question.prompt, 6, merged) for question in QUESTIONS}
    assert {name: answer.text for name, answer in answered.items()} == expected
    assert expected != {question.id: generated(folder, question.prompt, 6) for question in QUESTIONS}
    assert model.weights == f"{fingerprint(tmp_path / 'adapters')}-{fingerprint(folder)}"


def test_chat_messages_need_a_chat_template(folder, tmp_path):
    chat = [Question.of("c", 0, [{"role": "user", "content": "red"}, {"role": "user", "content": "green"}], 0)]
    with pytest.raises(ConfigError, match="has no chat template"):
        answers(LocalModel(folder), Sampling(), chat)
    shutil.copytree(folder, tmp_path / "chat")
    tokenizer = load_tokenizer(folder)
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }} {% endfor %}{% if last %}blue {% endif %}"
    tokenizer.save_pretrained(tmp_path / "chat")
    sampling = Sampling(0.0, max_tokens=5, template={"last": True})
    text = answers(LocalModel(tmp_path / "chat"), sampling, chat)["c/0"].text
    assert text == generated(folder, "red green blue", 5)


def test_a_fingerprint_tells_weights_and_tokenizer_apart_but_not_places(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "same")
    assert fingerprint(tmp_path / "same") == fingerprint(folder)
    file = tmp_path / "same" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert fingerprint(tmp_path / "same") != fingerprint(folder)


def test_a_large_file_is_sampled_at_its_ends_too(tmp_path, monkeypatch):
    monkeypatch.setattr("rvpo.evals.models.WHOLE", 1000)
    monkeypatch.setattr("rvpo.evals.models.PART", 10)
    seen = set()
    for place in (None, 0, 4999):
        content = bytearray(5000)
        if place is not None:
            content[place] = 1
        (tmp_path / "model.safetensors").write_bytes(content)
        seen.add(fingerprint(tmp_path))
    assert len(seen) == 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: LocalModel(path / "nothing"), "has neither"),
        (lambda path: Sampling(-1.0), "temperature must be"),
        (lambda path: Sampling(top_p=0.0), "top_p must lie"),
        (lambda path: Sampling(max_tokens=0), "max_tokens must be"),
        (lambda path: LocalModel(path).base, "must name its base_model_name_or_path"),
        (lambda path: answers(LocalModel(path / "broken"), Sampling()), "cannot load the model"),
    ],
)
def test_what_cannot_be_used_is_an_error(tmp_path, make, message):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 4}))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text('{"model_type": "qwen2"}')
    with pytest.raises(ConfigError, match=message):
        make(tmp_path)


CALLING = [Question.of("c", 0, [{"role": "user", "content": "red"}], 0)]


def with_tools(folder, template, place, *, marker=None):
    """A copy of a model's folder with another chat template; `marker` is a special token of its tokenizer."""
    shutil.copytree(folder, place)
    tokenizer = load_tokenizer(folder)
    if marker:
        tokenizer.add_tokens([marker], special_tokens=True)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(place)
    return LocalModel(place)


def test_a_template_whose_calls_are_not_read_is_refused_before_an_answer(folder, tmp_path):
    asked = [replace(CALLING[0], tools=[{"type": "function", "function": {"name": "f", "parameters": {}}}])]
    turn = "{% for m in messages %}{{ m.content }}{% for c in m.tool_calls or [] %}CALL{% endfor %}{% endfor %}"
    model = with_tools(folder, turn.replace("CALL", "!{{ c.function.name }}!{# tools #}"), tmp_path / "other")
    with pytest.raises(ConfigError, match="writes a call as '!look_up!', a form that is not read"):
        model.answers(asked, Sampling())
    read = "[TOOL_CALLS]{{ c.function.name }}[ARGS]{{ c.function.arguments | tojson }}{# tools #}"
    model = with_tools(folder, turn.replace("CALL", read), tmp_path / "mistral")
    assert model.answers(asked, Sampling(0.0, max_tokens=3))[0].text is not None


def test_tokens_that_mark_calls_stay_in_the_text_though_they_are_special(folder):
    tokenizer = load_tokenizer(folder)
    tokenizer.add_tokens(["[TOOL_CALLS]", "<|other|>"], special_tokens=True)
    ids = tokenizer.convert_tokens_to_ids(["red", "[TOOL_CALLS]", "<|other|>", "blue", tokenizer.eos_token])
    assert texts_of(tokenizer, [ids])[0].split() == ["red", "[TOOL_CALLS]", "blue"]
    assert tokenizer.decode(ids, skip_special_tokens=True).split() == ["red", "blue"]
