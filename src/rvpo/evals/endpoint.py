"""Answers of a model behind an OpenAI-compatible server."""

from collections.abc import Mapping
from typing import Any

from rvpo.evals.models import Answer, Question, Sampling
from rvpo.evals.tool_text import native_text, with_text_arguments
from rvpo.llm.client import ChatClient
from rvpo.llm.config import ServerConfig
from rvpo.llm.reply import Failure, Refusal

__all__ = ["Endpoint"]


class Endpoint:
    """A model behind an OpenAI-compatible server.

    Calls that fail are tried again for `retry_minutes`; then the answer is lost, as it is where the server refuses.
    A request carries the question's seed, which most servers honour as well as they can. A server that gives another
    model the same name is not noticed: start a new results folder for it. Raises JudgeError if the server cannot be
    used as configured.

    Args:
        name: of the model, as the server knows it.
        base_url: for example "http://localhost:8000/v1"; None: $OPENAI_BASE_URL or OpenAI.
        concurrency: calls at once.
        timeout: seconds for one call.
        retry_minutes: how long a failing call is tried again.
        api_key_env: environment variable with the key.
        extra: further fields of the request body.
    """

    def __init__(
        self,
        name: str,
        base_url: str | None,
        *,
        concurrency: int = 64,
        timeout: float = 600.0,
        retry_minutes: float = 10.0,
        api_key_env: str = "OPENAI_API_KEY",
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        self.name, self.extra = name, dict(extra or {})
        self.client = ChatClient(
            ServerConfig(
                model=name,
                base_url=base_url,
                api_key_env=api_key_env,
                concurrency=concurrency,
                timeout=timeout,
                retry_minutes=retry_minutes,
            )
        )

    async def answer(self, question: Question, sampling: Sampling) -> Answer:
        """Return the answer to a question."""
        reply = await self.client.ask(self._request(question, sampling))
        if isinstance(reply, Refusal):
            return Answer(None, lost=f"refused: {reply.reason}")
        if isinstance(reply, Failure):
            return Answer(None, lost=f"failed: {reply.reason}")
        if not (reply.text or reply.calls or reply.prompt_tokens or reply.completion_tokens):
            return Answer(None, lost="failed: a reply with neither text nor token counts")
        tokens = reply.completion_tokens
        text = native_text(reply.text, reply.calls) if question.tools else reply.text
        return Answer(text, tokens, is_cut=tokens >= sampling.max_tokens)

    def _request(self, question: Question, sampling: Sampling) -> dict[str, Any]:
        prompt = question.prompt
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
        request: dict[str, Any] = {
            "model": self.name,
            "messages": messages,
            "temperature": sampling.temperature,
            "max_tokens": sampling.max_tokens,
        }
        if question.tools:
            request["messages"] = [with_text_arguments(message) for message in messages]
            request["tools"] = list(question.tools)
        if sampling.temperature > 0:
            request["seed"] = question.seed
        if sampling.top_p < 1:
            request["top_p"] = sampling.top_p
        if sampling.template:
            request["chat_template_kwargs"] = dict(sampling.template)
        return request | self.extra

    async def close(self) -> None:
        """Close the running loop's connections."""
        await self.client.close()
