"""How far a policy has moved from its start."""

from collections.abc import Sequence
from typing import Any

import torch

__all__ = ["divergence"]

CHUNK = 16
"""Answers whose logits over the whole vocabulary are held at once."""


@torch.no_grad()
def divergence(
    model: Any, start: Any, prompts: Sequence[list[int]], answers: Sequence[list[int]], pad: int
) -> tuple[float, float]:
    """Return KL(model || start) over the whole vocabulary on the model's own answers: nats a token, nats an answer."""
    total, tokens = 0.0, 0
    for first in range(0, len(prompts), CHUNK):
        pairs = list(zip(prompts[first : first + CHUNK], answers[first : first + CHUNK], strict=True))
        before, after = (max(map(len, part)) for part in zip(*pairs, strict=True))
        ids = [[pad] * (before - len(p)) + p + a + [pad] * (after - len(a)) for p, a in pairs]
        seen = [[0] * (before - len(p)) + [1] * len(p + a) + [0] * (after - len(a)) for p, a in pairs]
        batch = {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(seen)}
        batch = {name: value.to(model.device) for name, value in batch.items()}
        now, then = (
            policy(**batch, logits_to_keep=after + 1).logits[:, :-1].float().log_softmax(-1)
            for policy in (model, start)
        )
        kl = (now.exp() * (now - then)).sum(-1)
        total += float(kl[batch["attention_mask"][:, before:] == 1].sum())
        tokens += sum(len(answer) for _, answer in pairs)
    return total / tokens, total / len(prompts)
