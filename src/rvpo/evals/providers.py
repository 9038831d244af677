"""inspect's view of this package's models: `rvpo/FOLDER` runs here, `rvpo-server/NAME` is on a server.

Both keep an answer's text as it came (inspect's own providers take `<think>` out of it, which a reward of the form
reads), draw it with a seed of the sample's own, and count what is lost as such. Whoever asks at the same moment is
answered in one batch.
"""

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from inspect_ai.log._samples import sample_active
from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageTool,
    GenerateConfig,
    ModelAPI,
    ModelOutput,
    ModelUsage,
    modelapi,
)
from inspect_ai.tool import ToolCall, ToolChoice, ToolInfo
from pydantic import TypeAdapter

from rvpo.evals.models import Answer, LocalModel, Prompt, Question, Sampling, native_text
from rvpo.llm.client import ChatClient
from rvpo.llm.config import ServerConfig
from rvpo.llm.model_text import without_thoughts
from rvpo.llm.reply import Failure, Refusal
from rvpo.llm.tool_calls import text_with_calls

__all__ = ["LocalAPI", "LostAnswerError", "ServerAPI", "chat_messages"]

BATCH = 16
SOON = 0.02
"""Seconds to wait for others to ask: what is asked together is answered together."""
TIMEOUT = 600.0
"""Seconds for one call of a server where nothing else is said; the rest as `ServerConfig` has it."""
MESSAGES: TypeAdapter[list[ChatMessage]] = TypeAdapter(list[ChatMessage])


class LostAnswerError(RuntimeError):
    """There is no answer: refused, failed, or no room in the context."""


class _API(ModelAPI):
    """What both providers share: messages to questions, answers to outputs."""

    def __init__(
        self, model_name: str, base_url: str | None = None, api_key: str | None = None,
        config: GenerateConfig | None = None, **arguments: Any,
    ) -> None:  # fmt: skip
        super().__init__(model_name, base_url, api_key, [], config or GenerateConfig())
        self.template = _mapping(arguments.pop("template", None))
        arguments.pop("weights", None)  # tells logs of other weights under the same name apart
        self.arguments = arguments

    async def generate(
        self, input: list[ChatMessage], tools: list[ToolInfo], tool_choice: ToolChoice, config: GenerateConfig
    ) -> ModelOutput:
        """Return the answer as inspect has it. Raises LostAnswerError where there is none."""
        names = ("temperature", "top_p", "max_tokens")
        given = {name: value for name in names if (value := getattr(config, name)) is not None}
        question = _question(input, tools, config.seed or 0)
        answer = await self.answer(question, Sampling(**given, template=self.template))
        if answer.text is None:
            raise LostAnswerError(answer.lost)
        calls = _tool_calls(answer.text, question.tools) if tools else None
        message = ChatMessageAssistant(content=answer.text, tool_calls=calls, model=self.model_name, source="generate")
        choice = ChatCompletionChoice(message=message, stop_reason="max_tokens" if answer.is_cut else "stop")
        usage = ModelUsage(output_tokens=answer.tokens, total_tokens=answer.tokens)
        return ModelOutput(model=self.model_name, choices=[choice], usage=usage)

    async def answer(self, question: Question, sampling: Sampling) -> Answer:
        """Return the model's answer."""
        raise NotImplementedError


@modelapi(name="rvpo")
class LocalAPI(_API):
    """`rvpo/FOLDER`: a transformers model or LoRA adapters on this machine; arguments batch_size, device, dtype."""

    def __init__(self, *positional: Any, **named: Any) -> None:
        super().__init__(*positional, **named)
        self.batch_size = int(self.arguments.pop("batch_size", BATCH))
        self.model = LocalModel(self.model_name, **self.arguments)
        self._waiting: list[tuple[Question, Sampling, asyncio.Future[Answer]]] = []
        self._worker: asyncio.Task[None] | None = None

    def max_connections(self) -> int:
        """Return how many are asked at once: a batch."""
        return self.batch_size

    def close(self) -> None:
        """Give back the memory of the weights."""
        self.model.close()

    async def answer(self, question: Question, sampling: Sampling) -> Answer:
        """Return the answer, drawn in a batch with those that are asked at the same time."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, sampling, future))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await future

    async def _work(self) -> None:
        while self._waiting:
            await asyncio.sleep(SOON)
            sampling = self._waiting[0][1]
            batch = [entry for entry in self._waiting if entry[1] == sampling][: self.batch_size]
            self._waiting = [entry for entry in self._waiting if entry not in batch]
            questions = [question for question, _, _ in batch]
            try:
                answers: Sequence[Any] = await asyncio.to_thread(self.model.answers, questions, sampling)
            except Exception as error:
                answers = [error] * len(batch)
            for (_, _, future), answer in zip(batch, answers, strict=True):
                if not future.done():
                    (future.set_exception if isinstance(answer, Exception) else future.set_result)(answer)


@modelapi(name="rvpo-server")
class ServerAPI(_API):
    """`rvpo-server/NAME`: an OpenAI-compatible server at `base_url`; arguments: `extra`, and those of `ServerConfig`.

    Calls that fail are tried again for `retry_minutes`; then the answer is lost, as it is where the server refuses. A
    request carries the question's seed, which most servers honour as well as they can. Raises JudgeError if the server
    cannot be used as configured.
    """

    def __init__(self, *positional: Any, **named: Any) -> None:
        super().__init__(*positional, **named)
        self.extra = _mapping(self.arguments.pop("extra", None))
        settings = {"timeout": TIMEOUT, "model": self.model_name, "base_url": self.base_url} | self.arguments
        self.client = ChatClient(ServerConfig(**settings))
        self._asking = 0

    def max_connections(self) -> int:
        """Return how many calls there are at once."""
        return int(self.client.config.concurrency)

    async def answer(self, question: Question, sampling: Sampling) -> Answer:
        """Return the server's answer; the last of those who ask closes the connections."""
        self._asking += 1
        try:
            reply = await self.client.ask(self._request(question, sampling))
        finally:
            self._asking -= 1
            if not self._asking:
                await self.client.close()
        if isinstance(reply, Refusal):
            return Answer(None, lost=f"refused: {reply.reason}")
        if isinstance(reply, Failure):
            return Answer(None, lost=f"failed: {reply.reason}")
        if not (reply.text or reply.calls or reply.prompt_tokens or reply.completion_tokens):
            return Answer(None, lost="failed: a reply with neither text nor token counts")
        tokens = reply.completion_tokens
        text = native_text(reply.text, reply.calls) if question.tools else reply.text
        return Answer(text, tokens, is_cut=reply.is_cut or tokens >= sampling.max_tokens)

    def _request(self, question: Question, sampling: Sampling) -> dict[str, Any]:
        prompt = question.prompt
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
        request: dict[str, Any] = {
            "model": self.model_name,
            "messages": [_with_text_arguments(message) for message in messages],
            "temperature": sampling.temperature,
            "max_tokens": sampling.max_tokens,
        }
        if question.tools:
            request["tools"] = list(question.tools)
        if sampling.temperature > 0:
            request["seed"] = question.seed
        if sampling.top_p < 1:
            request["top_p"] = sampling.top_p
        if sampling.template:
            request["chat_template_kwargs"] = dict(sampling.template)
        return request | self.extra


def _with_text_arguments(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message with the arguments of its calls as JSON text, as servers want them; templates want objects."""
    calls = [
        call | {"function": call["function"] | {"arguments": json.dumps(call["function"]["arguments"])}}
        for call in message.get("tool_calls", ())
    ]
    return dict(message) | ({"tool_calls": calls} if calls else {})


def _mapping(value: object) -> dict[str, Any]:
    return dict(json.loads(value)) if isinstance(value, str) else dict(value or {})  # type: ignore[call-overload]


def _question(messages: Sequence[ChatMessage], tools: Sequence[ToolInfo], seed: int) -> Question:
    """Return messages as a question; its seed depends on the run's, the sample, its epoch and what was said so far."""
    prompt = [_as_dict(message) for message in messages]
    active = sample_active()
    name = f"{active.sample.id}/{active.epoch}" if active is not None else ""
    digest = hashlib.sha256(f"{seed} {name} {json.dumps(prompt)}".encode()).digest()
    functions = [{"type": "function", "function": tool.model_dump(exclude_none=True)} for tool in tools]
    return Question(name, name, prompt, int.from_bytes(digest[:4], "big") >> 1, functions)


def _as_dict(message: ChatMessage) -> dict[str, Any]:
    """Return a message as chat templates have it."""
    fields: dict[str, Any] = {"role": message.role, "content": message.text}
    if isinstance(message, ChatMessageAssistant) and message.tool_calls:
        fields["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.function, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if isinstance(message, ChatMessageTool):
        fields |= {"tool_call_id": message.tool_call_id, "name": message.function}
    return fields


def chat_messages(prompt: Prompt) -> list[ChatMessage]:
    """Return a prompt as inspect's messages."""
    messages: Sequence[Mapping[str, Any]] = (
        [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    )
    return MESSAGES.validate_python(
        [
            {
                **message,
                "role": "system" if message["role"] == "developer" else message["role"],
                "function": message.get("name"),
                "tool_calls": [{"id": call["id"]} | _function(call["function"]) for call in message["tool_calls"]]
                if "tool_calls" in message
                else None,
            }
            for message in messages
        ]
    )


def _function(called: Mapping[str, Any]) -> dict[str, Any]:
    return {"function": called["name"], "arguments": called["arguments"]}


def _tool_calls(text: str, tools: Sequence[Mapping[str, Any]]) -> list[ToolCall] | None:
    """Return the calls of an answer, without those of its thoughts, as inspect has them.

    One that cannot be read is the last, with a `parse_error`.
    """
    called = text_with_calls(without_thoughts(text), tools)
    calls = [
        ToolCall(id=f"call_{place}", function=call.name, arguments=call.arguments)
        for place, call in enumerate(called.calls)
    ]
    if called.unreadable:
        calls.append(ToolCall(id=f"call_{len(calls)}", function="", arguments={}, parse_error=called.unreadable))
    return calls or None
