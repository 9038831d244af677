"""The OpenAI-compatible server that ships with transformers, with a model built here: the protocol, end to end."""

import asyncio
import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
import zipfile
from pathlib import Path

import pytest

import forked
from rvpo.judging.config import JudgeConfig
from rvpo.judging.criteria import Criterion, Rubric
from rvpo.judging.grading import Item
from rvpo.judging.judge import Judge
from rvpo.judging.prompts import load_prompt
from rvpo.judging.verdicts import Outcome

REPLY = '{"reason": "constant", "rating": 7}'
RUBRIC = Rubric((Criterion("a", "says rest", 5), Criterion("b", "says ice", -2, "negative")))
SERVE = Path(sys.executable).with_name("transformers")

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("fastapi") is None or not SERVE.is_file(), reason="needs transformers' server and fastapi"
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A GPT-2 of one layer that answers everything with one rating."""
    import torch
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    texts = [prompt.system + prompt.user for prompt in map(load_prompt, ("criteria", "rating"))]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=800, special_tokens=["<eos>"], initial_alphabet=alphabet)
    )
    bpe.add_tokens([AddedToken(REPLY, normalized=False), AddedToken("<reply>", normalized=False)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<eos>",
        pad_token="<eos>",
        chat_template="{% for m in messages %}{{ m['content'] }}\n{% endfor %}<reply>",
    )
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=4096, n_embd=32, n_layer=1, n_head=2, eos_token_id=0, bos_token_id=0
    )
    policy = GPT2LMHeadModel(config)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-2)
    ids = torch.tensor([[*tokenizer("so it is<reply>" + REPLY).input_ids, 0]])
    labels = ids.clone()
    labels[:, :-2] = -100
    for _ in range(60):
        loss = policy(ids, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    policy.generation_config.pad_token_id = 0
    folder = tmp_path_factory.mktemp("model")
    policy.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def url(model, tmp_path_factory):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = (tmp_path_factory.mktemp("log") / "server.txt").open("w+")
    server = subprocess.Popen(
        [SERVE, "serve", str(model), "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"],
        env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        stdout=log,
        stderr=log,
    )
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except OSError:
                log.seek(0)
                assert server.poll() is None, log.read()
                assert time.monotonic() < deadline, log.read()
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait(timeout=30)
        log.close()


def test_a_rating_and_lost_verdicts_from_a_server_that_people_run(model, url):
    judge = Judge(JudgeConfig(model=str(model), base_url=url, max_tokens=4, max_missing=1.0, asks=1, timeout=60.0))

    async def run():
        try:
            rating = await judge.rate("How?", "rest and ice", RUBRIC)
            graded = await judge.grade_many([Item("How?", "rest and ice", RUBRIC)])
            return rating, graded[0]
        finally:
            await judge.close()

    rating, graded = asyncio.run(run())
    assert rating == pytest.approx((7 - 1) / 9)
    assert graded.met() == {"a": None, "b": None}  # it rates where verdicts were asked for: missing, not False
    assert judge.counts == {Outcome.CUT: 2}  # the server ended it at four tokens
    assert judge.client.usage.calls == 3
    assert judge.client.usage.prompt_tokens > 300


def test_a_served_model_is_evaluated_killed_and_gone_on_with(model, url, tmp_path, monkeypatch):
    from rvpo.cli.main import main

    monkeypatch.chdir(tmp_path)
    words = ["eval", "tools", "--model", str(model), "--base-url", url, "--label", "served", "--prompts", "24",
             "--temperature", "0", "--max-tokens", "4", "--concurrency", "1"]  # fmt: skip
    assert main([*words, "--out", "whole"]) == 0
    whole = answers(tmp_path / "whole")
    assert len(whole) == 24
    assert {text.replace(REPLY, "") for text in whole.values()} == {""}  # once, or again and again
    assert len(set(whole.values())) > 1  # the prompt decides which
    killed = forked.start([*words, "--out", "killed"])
    deadline = time.monotonic() + 300
    while not 3 <= (kept := len(samples_in(tmp_path / "killed"))) < 24:
        assert kept < 24
        assert killed.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    killed.kill()
    killed.join()
    before = samples_in(tmp_path / "killed")
    assert main([*words, "--out", "killed"]) == 0
    after = samples_in(tmp_path / "killed")
    assert {name: after[name]["uuid"] for name in before} == {name: before[name]["uuid"] for name in before}
    assert answers(tmp_path / "killed") == whole


def samples_in(folder):
    """File name -> sample, of the evaluation's log in a folder, whole or not; empty while there is none."""
    for log in folder.glob("*.eval"):
        try:
            with zipfile.ZipFile(log) as file:
                return {name: json.loads(file.read(name)) for name in file.namelist() if name.startswith("samples/")}
        except (zipfile.BadZipFile, OSError):
            return {}
    return {}


def answers(folder):
    """Sample's id -> answer, of the evaluation's log in a folder."""
    return {
        sample["id"]: sample["output"]["choices"][0]["message"]["content"] for sample in samples_in(folder).values()
    }
