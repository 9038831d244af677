"""Benchmarks through inspect, and its view of the models here.

Records are kept in its log; what is lost is missing, with bounds; too much of it stops. Messages there and back, tool
calls, batches, seeds; and answers of a server, over real HTTP: what is sent, what is tried again, what is lost.
"""

import asyncio
import hashlib
import json

import numpy as np
import pytest

pytest.importorskip("inspect_ai")
from inspect_ai.model import ChatMessageUser, GenerateConfig, get_model
from inspect_ai.tool import ToolInfo, ToolParams

import rvpo.evals.tasks  # noqa: F401
from evals.scripted import Scripted, logged, record, run
from judging.fault_server import FaultServer
from rvpo.errors import ConfigError, JudgeError
from rvpo.evals.benchmark import Benchmark, mean_score, scored, units_of, unknown_record
from rvpo.evals.logs import differences, read_log, read_logs
from rvpo.evals.models import Answer, LocalModel, Question, Sampling
from rvpo.evals.providers import LostAnswerError, _as_dict, _question, _tool_calls, chat_messages
from rvpo_lab.tasks.policy import build_policy, word_tokenizer

# --- Benchmarks and their logs ---


def length(question, answer):
    if answer.text is None:
        return unknown_record(question, {"length": (0.0, 10.0)})
    return scored(question, {"length": float(len(answer.text))})


def benchmark(number=10, repeats=1, **about):
    """Questions whose score is the length of the answer."""

    def summarize(records):
        return {"headline": "length", "shown": ["length"], "scores": {"length": mean_score(records, "length")}}

    return Benchmark(
        name="lengths",
        questions=[
            Question.of(f"q{at}", repeat, f"prompt {at}", 0) for at in range(number) for repeat in range(repeats)
        ],
        score=length,
        summarize=summarize,
        item_score="length",
        about=about,
    )


def echo(question):
    return "x" * (1 + int(question.unit[1:]))


def lossy(question):
    return Answer(None, lost="failed: HTTP 500") if question.unit in ("q0", "q9") else echo(question)


def test_a_log_has_the_records_that_the_benchmark_makes(tmp_path):
    log = logged(benchmark(repeats=2), Scripted(lossy), tmp_path, label="m", step=5)
    assert log.status == "success"
    metrics = {name: metric.value for name, metric in log.results.scores[0].metrics.items()}
    # 2 to 9 are known, the two lost ones lie between 0 and 10
    assert metrics == pytest.approx(
        {"length": 5.5, "length missing": 4, "length lowest": 44 / 10, "length highest": (44 + 20) / 10}
    )
    read = read_log(log.location)
    assert (read.task, read.model, read.step, read.score, read.is_own) == ("lengths", "m", 5, "length", True)
    direct = tmp_path / "direct"
    run(benchmark(repeats=2), Scripted(lossy), direct)
    expected = [json.loads(line) for line in (direct / "items.jsonl").read_text().splitlines()]
    assert [line | {"tags": None} for line in read.seeds[0]] == [line | {"tags": None} for line in expected]


def test_a_run_that_loses_too_much_stops_and_says_why(tmp_path):
    model = Scripted(lambda question: Answer(None, lost="failed: HTTP 500"))
    log = logged(benchmark(100), model, tmp_path, max_samples=5)
    assert log.status == "error"
    assert "20 of 20 answers were lost (the last one: failed: HTTP 500), more than 20%" in log.error.message
    assert len(model.asked) <= 25
    with pytest.raises(ConfigError, match="is not finished: its status is 'error'"):
        read_log(log.location)


def test_a_model_that_cannot_be_used_stops_the_run_at_once(tmp_path):
    def refused(question):
        raise ConfigError("no chat template")

    model = Scripted(refused)
    log = logged(benchmark(100), model, tmp_path, max_samples=5)
    assert (log.status, len(model.asked) <= 5) == ("error", True)
    assert "no chat template" in log.error.message


def test_questions_need_ids_of_their_own(tmp_path):
    twice = benchmark(2)
    with pytest.raises(ConfigError, match="ids of their own, got 4 of 2"):
        logged(Benchmark(**(vars(twice) | {"questions": [*twice.questions] * 2})), Scripted(echo), tmp_path)


def test_a_mean_counts_what_is_missing_and_bounds_it():
    records = [record("a", 1.0), record("b", None, bounds=[-0.5, 0.5]), record("c", 0.0)]
    score = mean_score([*records, record("d", 9.0, name="other")], "s")
    assert (score["value"], score["items"], score["missing"]) == (0.5, 2, 1)
    assert score["bounds"] == [(1 - 0.5) / 3, (1 + 0.5) / 3]
    assert mean_score([*records, record("d", None)], "s")["bounds"] is None  # one of unknown reach
    nothing = mean_score([record("b", None, bounds=[0, 1])], "s")
    assert (nothing["value"], nothing["interval"], nothing["bounds"]) == (None, None, [0, 1])
    assert mean_score([record("a", 1.0)], "s")["interval"] is None


def test_the_interval_is_that_of_the_mean_of_all_values_where_units_have_different_numbers_of_them():
    sizes = [3 if at % 2 else 1 for at in range(80)]  # as prompts with one or three instructions
    records = [record(str(at), float(size == 3), k) for at, size in enumerate(sizes) for k in range(size)]
    summary = mean_score(records, "s")
    assert summary["value"] == 0.75
    rng = np.random.default_rng(0)
    means = [np.average(drawn == 3, weights=drawn) for drawn in rng.choice(sizes, size=(20_000, 80))]
    assert summary["interval"] == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.01)


def test_repeats_of_a_unit_count_as_one_in_the_interval():
    once = mean_score([record(str(at), float(at % 2)) for at in range(40)], "s")
    repeated = mean_score([record(str(at), float(at % 2), k) for at in range(40) for k in range(25)], "s")
    width = once["interval"][1] - once["interval"][0]
    assert repeated["interval"][1] - repeated["interval"][0] == pytest.approx(width, rel=0.2)  # not a fifth of it


def test_units_are_named_by_what_they_say():
    names = units_of([{"a": 1, "b": 2}, ["x"], {"b": 2, "a": 1}])
    assert names[2] == f"{names[0]}-2"
    assert names[1] == units_of([["x"]])[0]
    assert len(set(names)) == 3


def test_what_makes_results_incomparable_is_told():
    header = {"benchmark": "b", "questions": "h", "settings": {"seed": 0}, "sampling": {"temperature": 1}}
    assert differences(header, header) == ""
    assert differences(header, header | {"settings": {"seed": 0, "base_url": "elsewhere"}}) == ""
    assert differences(header, header | {"sampling": {"temperature": 0}}) == "sampling.temperature 1 and 0"


def test_logs_of_checkpoints_come_by_step(tmp_path):
    for step in (100, 20):
        logged(benchmark(2), Scripted(echo), tmp_path / "run", step=step)
    assert [log.step for log in read_logs(tmp_path)] == [20, 100]
    (tmp_path / "empty").mkdir()
    for name, reason in (("empty", "no finished results"), ("nothing", "no file or folder")):
        with pytest.raises(ConfigError, match=reason):
            read_logs(tmp_path / name)


# --- Local models ---


WORDS = ["red", "green", "blue", "black", "white"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return build_policy(tmp_path_factory.mktemp("policy"), word_tokenizer(WORDS), hidden_size=32, layers=1)


def generated(folder, prompts, config, **options):
    async def all_of_them():
        api = get_model(f"rvpo/{folder}", memoize=False, **options).api
        asked = (api.generate([ChatMessageUser(content=text)], [], "auto", config) for text in prompts)
        return api, await asyncio.gather(*asked, return_exceptions=True)

    return asyncio.run(all_of_them())


def test_every_turn_of_a_conversation_has_a_seed_of_its_own():
    turns = ["<user> hi </user>", "<user> hi </user>\n<response> hello </response>\n<user> more </user>"]
    prompts = [
        chat_messages([{"role": "system", "content": "s"}, {"role": "user", "content": text}]) for text in turns
    ]
    first, second = (_question(prompt, [], 0).seed for prompt in prompts)
    assert first != second
    assert first == _question(prompts[0], [], 0).seed != _question(prompts[0], [], 1).seed


def test_messages_go_there_and_back():
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
    contents = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "name": "f", "content": "2"},
        {"role": "assistant", "content": "two"},
    ]
    assert [_as_dict(message) for message in chat_messages(contents)] == contents


def test_blocks_are_calls_and_what_cannot_be_read_is_said():
    good, broken = _tool_calls(
        '<tool_call>{"name": "f", "arguments": {"x": 1}}</tool_call><tool_call>{"name"</tool_call>',
        [],
    )
    assert (good.function, good.arguments, good.parse_error) == ("f", {"x": 1}, None)
    assert broken.parse_error
    assert _tool_calls("none here", []) is None
    thought = '<think>Perhaps <tool_call>{"name": "f", "arguments": {}}</tool_call>?</think>'
    assert _tool_calls(f"{thought} No.", []) is None
    (call,) = _tool_calls(f'{thought}{{"name": "g", "parameters": {{}}}}', [])
    assert (call.function, call.parse_error) == ("g", None)


def test_who_asks_together_is_answered_together_and_as_alone(folder, monkeypatch):
    batches = []
    answers = LocalModel.answers
    monkeypatch.setattr(
        LocalModel,
        "answers",
        lambda self, batch, sampling: batches.append(len(batch)) or answers(self, batch, sampling),
    )
    prompts = [" ".join(WORDS[:at]) for at in range(1, 6)] * 2
    config = GenerateConfig(max_tokens=6, temperature=1.0, seed=3)
    _, together = generated(folder, prompts, config, batch_size=4)
    assert batches == [4, 4, 2]
    _, alone = generated(folder, prompts, config, batch_size=1)
    assert [output.completion for output in together] == [output.completion for output in alone]
    assert together[0].completion == together[5].completion  # the same prompt and seed
    assert len({output.completion for output in together}) > 3
    _, other = generated(folder, prompts, GenerateConfig(max_tokens=6, temperature=1.0, seed=4), batch_size=4)
    assert [output.completion for output in other] != [output.completion for output in together]


def test_a_prompt_without_room_is_lost_and_others_are_not(folder):
    api, (lost, kept) = generated(folder, ["red " * 600, "red"], GenerateConfig(max_tokens=4, temperature=0.0))
    assert isinstance(lost, LostAnswerError)
    assert "leaves no room" in str(lost)
    (expected,) = LocalModel(folder).answers([Question("a", "a", "red", 0)], Sampling(0.0, max_tokens=4))
    assert (kept.completion, kept.usage.output_tokens) == (expected.text, expected.tokens)
    assert kept.stop_reason == ("max_tokens" if expected.is_cut else "stop")
    api.close()
    assert api.model._loaded is None


def test_several_messages_need_a_chat_template(folder):
    async def asked():
        api = get_model(f"rvpo/{folder}", memoize=False).api
        messages = chat_messages([{"role": "system", "content": "a"}, {"role": "user", "content": "b"}])
        tool = ToolInfo(name="f", description="d", parameters=ToolParams())
        await api.generate(messages, [tool], "auto", GenerateConfig())

    with pytest.raises(ConfigError, match="has no chat template"):
        asyncio.run(asked())


# --- Served models ---


QUESTIONS = [Question.of(f"q{at}", 0, [{"role": "user", "content": f"prompt {at}"}], 0) for at in range(30)]


def echo_prompt(body):
    return f"answer to {body['messages'][-1]['content']}"


def served_answers(server, questions=QUESTIONS, sampling=None, **options):
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

    with FaultServer(plan, echo_prompt) as server:
        answered = served_answers(server)
    assert {name: answer.text for name, answer in answered.items()} == {
        f"q{at}/0": f"answer to prompt {at}" for at in range(30)
    }
    assert set(server.faults) == {"429", "500", "cut"}


def test_refusals_and_rejected_requests_are_lost_and_told():
    faults = {"prompt 1": "refusal", "prompt 2": 422}
    with FaultServer(lambda number, body: faults.get(body["messages"][-1]["content"]), echo_prompt) as server:
        answered = served_answers(server, QUESTIONS[:3])
    assert [answered[f"q{at}/0"].text for at in range(3)] == ["answer to prompt 0", None, None]
    assert answered["q1/0"].lost == "refused: I cannot help with that."
    assert answered["q2/0"].lost == "failed: HTTP 422"


def test_what_a_request_carries():
    bodies = []
    sampling = Sampling(0.7, 0.9, 20, {"enable_thinking": False})
    with FaultServer(reply=lambda body: bodies.append(body) or "x") as server:
        answered = served_answers(
            server, [*QUESTIONS[:1], Question.of("t", 0, "plain", 0)], sampling=sampling, extra={"top_k": 5}
        )
        served_answers(server, QUESTIONS[:1], sampling=Sampling(0.0))
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
    with FaultServer(lambda number, body: 404, echo_prompt) as server, pytest.raises(JudgeError, match="no model 'm'"):
        served_answers(server)
