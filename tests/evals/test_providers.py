"""inspect's view of the models here: messages there and back, tool calls, batches, seeds, what is lost."""

import asyncio

import pytest

pytest.importorskip("inspect_ai")
from inspect_ai.model import ChatMessageUser, GenerateConfig, get_model
from inspect_ai.tool import ToolInfo, ToolParams

import rvpo.evals.registry  # noqa: F401
from rvpo.errors import ConfigError
from rvpo.evals.models import LocalModel, Question, Sampling
from rvpo.evals.providers import LostAnswerError, _as_dict, _question, _tool_calls, chat_messages
from rvpo_lab.tasks.policy import build_policy, word_tokenizer

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
