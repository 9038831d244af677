"""Drawing a log from a real (tiny, random) Llama model: whole, interrupted, refused."""

import json

import pytest

from rvpo.audit import audit_log
from rvpo.cli.judge_grade import read_answers
from rvpo.errors import ConfigError
from rvpo_lab.instructions.rollouts import CHUNK, draw_answers, main
from rvpo_lab.instructions.task import rows

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
