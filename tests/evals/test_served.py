"""Answers of a server, over real HTTP: what is sent, what is tried again, what is lost."""

import asyncio
import hashlib

import pytest

pytest.importorskip("inspect_ai")
from inspect_ai.model import get_model

import rvpo.evals.registry  # noqa: F401
from judging.fault_server import FaultServer
from rvpo.errors import JudgeError
from rvpo.evals.models import Question, Sampling

QUESTIONS = [Question.of(f"q{at}", 0, [{"role": "user", "content": f"prompt {at}"}], 0) for at in range(30)]


def echo(body):
    return f"answer to {body['messages'][-1]['content']}"


def answers(server, questions=QUESTIONS, sampling=None, **options):
    async def collect():
        settings = {"timeout": 60.0, "retry_minutes": 3.0} | options
        api = get_model("rvpo-server/m", base_url=server.url, memoize=False, **settings).api
        asked = (api.answer(question, sampling or Sampling()) for question in questions)
        answered = await asyncio.gather(*asked, return_exceptions=True)
        for error in answered:
            if isinstance(error, Exception):
                raise error
        return answered

    return {question.id: answer for question, answer in zip(questions, asyncio.run(collect()), strict=True)}


def test_every_question_is_answered_through_faults_that_pass():
    def plan(number, body):
        return ("429", "500", "cut")[number % 3] if number % 4 == 0 else None

    with FaultServer(plan, echo) as server:
        answered = answers(server)
    assert {name: answer.text for name, answer in answered.items()} == {
        f"q{at}/0": f"answer to prompt {at}" for at in range(30)
    }
    assert set(server.faults) == {"429", "500", "cut"}


def test_refusals_and_rejected_requests_are_lost_and_told():
    faults = {"prompt 1": "refusal", "prompt 2": 422}
    with FaultServer(lambda number, body: faults.get(body["messages"][-1]["content"]), echo) as server:
        answered = answers(server, QUESTIONS[:3])
    assert [answered[f"q{at}/0"].text for at in range(3)] == ["answer to prompt 0", None, None]
    assert answered["q1/0"].lost == "refused: I cannot help with that."
    assert answered["q2/0"].lost == "failed: HTTP 422"


def test_what_a_request_carries():
    bodies = []
    sampling = Sampling(0.7, 0.9, 20, {"enable_thinking": False})
    with FaultServer(reply=lambda body: bodies.append(body) or "x") as server:
        answered = answers(
            server, [*QUESTIONS[:1], Question.of("t", 0, "plain", 0)], sampling=sampling, extra={"top_k": 5}
        )
        answers(server, QUESTIONS[:1], sampling=Sampling(0.0))
    sent = {body["messages"][0]["content"]: body for body in bodies[:2]}
    assert sent["plain"]["messages"] == [{"role": "user", "content": "plain"}]
    seed = int.from_bytes(hashlib.sha256(b"0 q0/0").digest()[:4], "big") >> 1
    assert {name: sent["prompt 0"][name] for name in sent["prompt 0"] if name != "messages"} == {
        "model": "m", "temperature": 0.7, "top_p": 0.9, "max_tokens": 20, "seed": seed, "top_k": 5,
        "chat_template_kwargs": {"enable_thinking": False},
    }  # fmt: skip
    assert "seed" not in bodies[2]
    assert answered["q0/0"].is_cut  # the server counts 20 tokens, as many as may be


def test_a_server_without_the_model_stops_at_once():
    with FaultServer(lambda number, body: 404, echo) as server, pytest.raises(JudgeError, match="no model 'm'"):
        answers(server)
