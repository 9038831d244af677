"""Sampled answers of a Llama model, many at once: what TRL's hook `rollout_func` gets where generation is the brake.

    trainer.rollout_func = Sampler(trainer.model, rows=128, capacity=384, eos=2).rollout(tokenizer, 96, seed=0)

`generate` launches about a thousand small kernels a token from Python; on a GPU that takes ten times as long as the
kernels themselves. Here one token of all rows is one CUDA graph, equal prompts are read once, and the weights are a
bfloat16 copy of the trainer's, taken anew before each batch. Answers follow the same distribution as
`generate(do_sample=True, top_k=0)` at the temperature given (tested against it); nothing else of the training changes.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional as F

from rvpo.errors import ConfigError

__all__ = ["Sampler", "fits"]

CHECKED_EVERY = 16
"""Tokens after which it is looked whether all rows have ended: each look waits for the GPU."""

Rollout = Callable[[list[Any], Any], dict[str, Any]]


def fits(model: Any) -> bool:
    """Return whether the model is one that `Sampler` computes: Llama, no biases, plain rotary positions."""
    config = model.config
    return (
        config.model_type == "llama"
        and not config.attention_bias
        and not config.mlp_bias
        and config.hidden_act == "silu"
        and config.rope_parameters["rope_type"] == "default"
        and not hasattr(model, "peft_config")
    )


class Sampler:
    """The newest weights of a model, the caches of `rows` answers with `capacity` tokens each, prompt included."""

    def __init__(self, model: Any, *, rows: int, capacity: int, eos: int, temperature: float = 1.0) -> None:
        if not fits(model):
            raise ConfigError(f"the graph sampler computes Llama models without adapters, not {type(model).__name__}")
        config, self.device = model.config, model.device
        self.dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        self.rows, self.capacity, self.eos, self.temperature = rows, -(-capacity // 64) * 64, eos, temperature
        self.heads, self.groups = config.num_attention_heads, config.num_key_value_heads
        self.width = getattr(config, "head_dim", None) or config.hidden_size // self.heads
        self.eps, self.model = config.rms_norm_eps, model
        self._take_shapes(model)
        self._fill_rotary(config.rope_parameters["rope_theta"])
        shape = (len(self.layers), rows, self.groups, self.capacity, self.width)
        self.keys = torch.zeros(shape, dtype=self.dtype, device=self.device)
        self.values = torch.zeros_like(self.keys)
        self.mask = torch.zeros((rows, 1, 1, self.capacity), dtype=self.dtype, device=self.device)
        self.tokens, self.positions, self.slot = (
            torch.zeros(size, dtype=torch.long, device=self.device) for size in (rows, rows, 1)
        )
        self.ended = torch.zeros(rows, dtype=torch.bool, device=self.device)
        self.noise = torch.ones((rows, config.vocab_size), device=self.device)
        self.answers = torch.zeros((rows, self.capacity), dtype=torch.long, device=self.device)
        self.graph: Any = None

    def _take_shapes(self, model: Any) -> None:
        """Make room for the weights: matrices in the sampler's dtype, what reads the same input in one."""
        self.copies: list[tuple[torch.Tensor, torch.Tensor]] = []
        body = model.model

        def room(*weights: torch.Tensor, dtype: torch.dtype = self.dtype) -> torch.Tensor:
            joined = torch.empty((sum(w.shape[0] for w in weights), *weights[0].shape[1:]), dtype=dtype).to(
                self.device
            )
            self.copies += list(zip(joined.split([w.shape[0] for w in weights]), weights, strict=True))
            return joined

        self.embedding = room(body.embed_tokens.weight)
        tied = model.lm_head.weight is body.embed_tokens.weight
        self.head = self.embedding if tied else room(model.lm_head.weight)
        self.norm = room(body.norm.weight, dtype=torch.float32)
        self.layers = [
            (
                room(layer.input_layernorm.weight, dtype=torch.float32),
                room(layer.self_attn.q_proj.weight, layer.self_attn.k_proj.weight, layer.self_attn.v_proj.weight),
                room(layer.self_attn.o_proj.weight),
                room(layer.post_attention_layernorm.weight, dtype=torch.float32),
                room(layer.mlp.gate_proj.weight, layer.mlp.up_proj.weight),
                room(layer.mlp.down_proj.weight),
            )
            for layer in body.layers
        ]

    def _fill_rotary(self, theta: float) -> None:
        """Compute cosines and sines of every position."""
        powers = torch.arange(0, self.width, 2, device=self.device, dtype=torch.float32) / self.width
        angles = torch.arange(self.capacity, device=self.device)[:, None] * theta**-powers
        self.cosines, self.sines = (torch.cat([part, part], -1) for part in (angles.cos(), angles.sin()))

    @torch.no_grad()
    def refresh(self) -> None:
        """Take over the model's weights as they are now."""
        torch._foreach_copy_([place for place, _ in self.copies], [weight for _, weight in self.copies])

    def _turned(self, heads: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> torch.Tensor:
        """Return heads (rows, T, heads, width) with their positions, as (rows, heads, T, width)."""
        first, second = heads.float().chunk(2, -1)
        turned = heads * cosines[:, :, None] + torch.cat([-second, first], -1) * sines[:, :, None]
        return turned.to(self.dtype).transpose(1, 2)

    def _forward(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        mask: torch.Tensor,
        cached: Callable[[int, torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]],
    ) -> torch.Tensor:
        """Return the logits (rows, vocabulary) after the last of tokens (rows, T); `cached` keeps keys and values."""
        rows, length = tokens.shape
        own = self.heads // self.groups
        cosines, sines = self.cosines[positions], self.sines[positions]
        mask = mask.expand(rows, own, length, mask.shape[-1]).reshape(rows, 1, own * length, -1)
        x = self.embedding[tokens].float()
        for index, (norm, into, out, second_norm, up, down) in enumerate(self.layers):
            h = F.linear(self._normed(x, norm), into).view(rows, length, -1, self.width)
            query, key, value = h.split([self.heads, self.groups, self.groups], 2)
            query, key = (self._turned(part, cosines, sines) for part in (query, key))
            key, value = cached(index, key, value.transpose(1, 2))
            # The query heads of one key head stand one after the other, as further queries of it.
            query = query.reshape(rows, self.groups, own * length, self.width)
            h = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
            h = h.view(rows, self.heads, length, self.width).transpose(1, 2).reshape(rows, length, -1)
            x = x + F.linear(h, out)
            gate, h = F.linear(self._normed(x, second_norm), up).chunk(2, -1)
            x = x + F.linear(F.silu(gate) * h, down)
        return F.linear(self._normed(x[:, -1], self.norm), self.head).float()

    def _normed(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x, weight.shape, weight, self.eps).to(self.dtype)

    def _choose(self, logits: torch.Tensor) -> None:
        """Sample the next token of each row: the largest of logit plus Gumbel noise; an ended row stays ended."""
        best = (logits / self.temperature - self.noise.log()).argmax(-1)
        self.tokens.copy_(torch.where(self.ended, self.eos, best))
        self.ended |= self.tokens == self.eos
        self.answers.index_copy_(1, self.slot, self.tokens[:, None])

    def _step(self) -> None:
        """Read the newest tokens and sample the next."""
        self.mask.index_fill_(3, self.slot, 0.0)

        def cached(index: int, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            self.keys[index].index_copy_(2, self.slot, key)
            self.values[index].index_copy_(2, self.slot, value)
            return self.keys[index], self.values[index]

        logits = self._forward(self.tokens[:, None], self.positions[:, None], self.mask, cached)
        self.slot += 1
        self.positions += 1
        self._choose(logits)

    def _begin(self, prompts: Sequence[Sequence[int]], generator: torch.Generator) -> int:
        """Read the prompts, each different one once, and sample the first tokens; return the prompts' width."""
        width = max(map(len, prompts))
        different = list(dict.fromkeys(map(tuple, prompts)))
        number = {prompt: index for index, prompt in enumerate(different)}
        which = torch.tensor([number[tuple(prompt)] for prompt in prompts], device=self.device)
        tokens = torch.tensor([[self.eos] * (width - len(p)) + list(p) for p in different], device=self.device)
        padding = torch.tensor([width - len(p) for p in different], device=self.device)
        columns = torch.arange(width, device=self.device)
        is_token = columns >= padding[:, None]
        seen = is_token[:, None, None, :] & (columns <= columns[:, None])
        seen |= torch.eye(width, dtype=torch.bool, device=self.device)  # padding sees itself: no row without a key
        mask = torch.zeros(seen.shape, dtype=self.dtype, device=self.device).masked_fill_(~seen, -torch.inf)

        def cached(index: int, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            self.keys[index, :, :, :width] = key[which]
            self.values[index, :, :, :width] = value[which]
            return key.contiguous(), value.contiguous()

        positions = (columns - padding[:, None]).clamp(min=0)
        logits = self._forward(tokens, positions, mask, cached)[which]
        self.mask.fill_(-torch.inf)
        self.mask[:, 0, 0, :width].masked_fill_(is_token[which], 0.0)
        self.ended.fill_(False)
        self.slot.fill_(width)
        self.positions.copy_((width - padding)[which])
        self.noise.exponential_(generator=generator)
        self._choose(logits)
        return width

    @torch.no_grad()
    def sample(
        self, prompts: Sequence[Sequence[int]], max_new_tokens: int, generator: torch.Generator
    ) -> list[list[int]]:
        """Return the tokens of one answer to each prompt, up to and with its end.

        Raises ConfigError for more prompts than rows, or prompts with no room left for an answer.
        """
        number, longest = len(prompts), max(map(len, prompts))
        if number > self.rows or longest + max_new_tokens > self.capacity:
            raise ConfigError(
                f"the sampler holds {self.rows} rows of {self.capacity} tokens; asked for {number} rows of "
                f"{longest} + {max_new_tokens}"
            )
        if self.device.type == "cuda" and self.graph is None:
            self._capture()
        self.refresh()
        filled = [*prompts, *[prompts[-1]] * (self.rows - number)]
        width = self._begin(filled, generator)
        for token in range(1, max_new_tokens):
            if token % CHECKED_EVERY == 0 and bool(self.ended.all()):
                break
            self.noise.exponential_(generator=generator)
            if self.graph is None:
                self._step()
            else:
                self.graph.replay()
        rows = self.answers[:number, width : int(self.slot) + 1].tolist()
        return [row[: row.index(self.eos) + 1] if self.eos in row else row for row in rows]

    def _capture(self) -> None:
        """Record one step as a CUDA graph."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                self._step()
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self._step()

    def rollout(self, tokenizer: Any, max_new_tokens: int, *, seed: int) -> Rollout:
        """Return a function for TRL's `rollout_func`; its random numbers are its own."""
        generator = torch.Generator(self.device).manual_seed(seed)

        def rollout(prompts: list[Any], trainer: Any) -> dict[str, Any]:
            ids = tokenizer.apply_chat_template(prompts, add_generation_prompt=True, return_dict=True)["input_ids"]
            return {
                "prompt_ids": ids,
                "completion_ids": self.sample(ids, max_new_tokens, generator),
                "logprobs": None,
            }

        return rollout
