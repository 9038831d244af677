"""What is asked and answered, and a folder with a transformers model or LoRA adapters that answers; no harness here.

    model = LocalModel("runs/gdpo/checkpoint-50")
    answers = model.answers(questions, Sampling(max_tokens=512))

Every question has a seed of its own, from which all its tokens are drawn, so that an answer depends neither on the
other questions of its batch nor on what was answered before. What is left is arithmetic: a matrix product of another
batch size may round differently.
"""

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

from rvpo.errors import ConfigError

__all__ = [
    "Answer",
    "LocalModel",
    "Question",
    "Sampling",
    "fingerprint",
]

Prompt = str | Sequence[Mapping[str, object]]

ADAPTER = "adapter_config.json"
WHOLE = 2**24
"""Bytes up to which a file is hashed as a whole; of a larger one BLOCKS blocks of BLOCK bytes, evenly spread."""
BLOCKS, BLOCK = 64, 2**16
HASHED = (
    "*.safetensors", "pytorch_model*.bin", "adapter_model*", "*config.json", "tokenizer*", "chat_template*", "vocab*",
    "merges.txt",
)  # fmt: skip
"""Files that answers depend on."""


@dataclass(frozen=True)
class Question:
    """One thing to be answered once."""

    id: str
    """Unique in its benchmark: "UNIT/REPEAT"."""
    unit: str
    """The item of the benchmark that all its repeats share: what statistics count once."""
    prompt: Prompt
    """Chat messages, or a text that a local model continues as it is and an endpoint gets as the user's message."""
    seed: int
    tools: Sequence[Mapping[str, object]] = ()
    """Functions that may be called, as in a chat request. Calls come back in the answer's text: `tool_text`."""

    @classmethod
    def of(cls, unit: str, repeat: int, prompt: Prompt, seed: int) -> "Question":
        """Return a question; its own seed is a hash of the run's seed, the unit and the repeat, below 2^31."""
        name = f"{unit}/{repeat}"
        digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
        return cls(name, unit, prompt, int.from_bytes(digest[:4], "big") >> 1)


@dataclass(frozen=True)
class Answer:
    """What came back."""

    text: str | None
    """None: lost, and so no answer at all; an empty text is an answer."""
    tokens: int = 0
    """Tokens that were sampled, the end token included."""
    is_cut: bool = False
    """It ended because `max_tokens` was reached."""
    lost: str = ""
    """Why there is no text."""


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn. Raises ConfigError for a value out of its domain."""

    temperature: float = 1.0
    """0: the most probable token each time."""
    top_p: float = 1.0
    """Draw from the smallest set of tokens with this much probability, in (0, 1]."""
    max_tokens: int = 1024
    """Longest answer."""
    template: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of the chat template, for example {"enable_thinking": false}."""

    def __post_init__(self) -> None:
        """Check the values."""
        if not self.temperature >= 0:
            raise ConfigError(f"temperature must be >= 0, got {self.temperature!r}")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p must lie in (0, 1], got {self.top_p!r}")
        if self.max_tokens < 1:
            raise ConfigError(f"max_tokens must be at least 1, got {self.max_tokens!r}")


class LocalModel:
    """A folder with a transformers model, or with LoRA adapters (`adapter_config.json`), run on this machine.

    The folder's own generation settings are not used (some ship a repetition penalty), but its end tokens are. A
    prompt that leaves no room for `max_tokens` is not cut: its answer is lost. Raises ConfigError if the folder holds
    no model; weights are loaded with the first batch.

    Args:
        folder: with config.json, or adapter_config.json, whose `base_model_name_or_path` is a folder or hub name.
        device: "cpu", "cuda" and so on; None: "cuda" where there is one.
        dtype: of the weights, for example "bfloat16"; "auto": as saved.
    """

    def __init__(self, folder: str | Path, *, device: str | None = None, dtype: str = "auto") -> None:
        self.folder, self.dtype = Path(folder), dtype
        self.is_adapter = (self.folder / ADAPTER).is_file()
        if not self.is_adapter and not (self.folder / "config.json").is_file():
            raise ConfigError(
                f"a model folder has config.json or {ADAPTER}; {self.folder} has neither. A hub name must be "
                "downloaded first, a model on a server needs its base URL, a training folder --checkpoints"
            )
        self._device = device
        self._loaded: tuple[Any, Any] | None = None

    @cached_property
    def device(self) -> str:
        """Where it runs."""
        if self._device is not None:
            return self._device
        return "cuda" if import_module("torch").cuda.is_available() else "cpu"

    @cached_property
    def base(self) -> str | None:
        """The model that the adapters belong to."""
        if not self.is_adapter:
            return None
        try:
            named = json.loads((self.folder / ADAPTER).read_text())["base_model_name_or_path"]
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise ConfigError(f"{self.folder / ADAPTER} must name its base_model_name_or_path: {error!r}") from error
        return str(named)

    @cached_property
    def weights(self) -> str:
        """Hash of everything that answers depend on: the folder, and with adapters the base model if it is local."""
        base = fingerprint(self.base) if self.base is not None and Path(self.base).is_dir() else ""
        return "-".join(filter(None, (fingerprint(self.folder), base)))

    @property
    def has_template(self) -> bool:
        """Whether its tokenizer has a chat template."""
        return bool(self._load()[1].chat_template)

    def close(self) -> None:
        """Give back the memory of the weights."""
        if self._loaded is not None:
            self._loaded = None
            if self.device.startswith("cuda"):
                import_module("torch").cuda.empty_cache()

    def answers(self, batch: Sequence[Question], sampling: Sampling) -> list[Answer]:
        """Return the answers to a batch of questions, in order."""
        model, tokenizer = self._load()
        lengths = [len(ids) for ids in self._encode(tokenizer, batch, sampling).input_ids]
        wanted, room = sampling.max_tokens, getattr(model.config, "max_position_embeddings", None)
        fits = [room is None or length + wanted <= room for length in lengths]
        kept = [question for question, is_fit in zip(batch, fits, strict=True) if is_fit]
        drawn = iter(self._generate(model, tokenizer, kept, sampling) if kept else ())
        return [
            next(drawn)
            if is_fit
            else Answer(None, lost=f"prompt of {length} tokens leaves no room for {wanted} of {room}")
            for is_fit, length in zip(fits, lengths, strict=True)
        ]

    def _encode(self, tokenizer: Any, batch: Sequence[Question], sampling: Sampling, **options: Any) -> Any:
        """Return the token ids of the prompts: a text's own, or those of the chat template, as in TRL."""
        texts = [question.prompt for question in batch if isinstance(question.prompt, str)]
        if texts:
            return tokenizer(texts, **options)
        if not tokenizer.chat_template:
            raise ConfigError(f"{self.folder} has no chat template, and the prompts are chat messages; save one there")
        if any(question.tools for question in batch) and "tools" not in str(tokenizer.chat_template):
            raise ConfigError(f"the chat template in {self.folder} knows no tools; choose another answer format")
        texts = [
            tokenizer.apply_chat_template(
                list(question.prompt),
                tools=list(question.tools) or None,
                tokenize=False,
                add_generation_prompt=True,
                **sampling.template,
            )
            for question in batch
        ]
        return tokenizer(texts, add_special_tokens=False, **options)

    def _generate(self, model: Any, tokenizer: Any, batch: Sequence[Question], sampling: Sampling) -> list[Answer]:
        torch: Any = import_module("torch")
        encoded = self._encode(tokenizer, batch, sampling, return_tensors="pt", padding=True).to(self.device)
        seeds = [question.seed for question in batch]
        choose = [SeededChoice(seeds, sampling)] if sampling.temperature > 0 else []
        with torch.no_grad():
            output = model.generate(
                **encoded, do_sample=False, max_new_tokens=sampling.max_tokens, logits_processor=choose
            )
        drawn = output[:, encoded.input_ids.shape[1] :]
        ends = _as_list(model.generation_config.eos_token_id)
        answers = []
        for ids, text in zip(drawn.tolist(), tokenizer.batch_decode(drawn, skip_special_tokens=True), strict=True):
            end = next((place for place, token in enumerate(ids) if token in ends), None)
            answers.append(Answer(text, len(ids) if end is None else end + 1, is_cut=end is None))
        return answers

    def _load(self) -> tuple[Any, Any]:
        if self._loaded is None:
            try:
                self._loaded = _load(self.folder, self.base, self.dtype, self.device)
            except (OSError, ValueError, RuntimeError) as error:
                raise ConfigError(f"cannot load the model in {self.folder}: {error}") from error
        return self._loaded


def _load(folder: Path, base: str | None, dtype: str, device: str) -> tuple[Any, Any]:
    """Return model and tokenizer; heavy, and so are the imports."""
    transformers: Any = import_module("transformers")
    from rvpo.llm.tokenizer import load_tokenizer

    transformers.utils.logging.disable_progress_bar()  # it would break the lines of whoever shows progress here
    has_tokenizer = (folder / "tokenizer_config.json").is_file()
    tokenizer = load_tokenizer(folder if base is None or has_tokenizer else base, padding_side="left")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model = transformers.AutoModelForCausalLM.from_pretrained(folder if base is None else base, dtype=dtype)
    if base is not None:
        if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:  # training added tokens
            model.resize_token_embeddings(len(tokenizer))
        model = import_module("peft").PeftModel.from_pretrained(model, folder)
    ends = model.generation_config.eos_token_id
    model.generation_config = transformers.GenerationConfig(
        eos_token_id=tokenizer.eos_token_id if ends is None else ends, pad_token_id=tokenizer.pad_token_id
    )
    return model.to(device).eval(), tokenizer


def _as_list(value: int | list[int] | None) -> list[int]:
    return [] if value is None else value if isinstance(value, list) else [value]


class SeededChoice:
    """Leaves `generate` one token per row: the one that the row's own random numbers choose.

    By inversion: token v is chosen where `sum_{w < v} p_w <= u < sum_{w <= v} p_w`, in the order of the vocabulary
    (with top_p below 1 in the order of probability), u the next number of the row's generator.
    """

    def __init__(self, seeds: Sequence[int], sampling: Sampling) -> None:
        self.draws, self.sampling = [random.Random(seed) for seed in seeds], sampling

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """Return scores that are 0 for the chosen token and minus infinity for all others."""
        torch: Any = import_module("torch")
        # float64: the cumulative sum of 150,000 float32 probabilities would misplace the rare ones.
        probabilities = torch.softmax(scores.double() / self.sampling.temperature, dim=-1)
        order = None
        if self.sampling.top_p < 1:
            probabilities, order = probabilities.sort(dim=-1, descending=True, stable=True)
            before = probabilities.cumsum(-1) - probabilities
            probabilities = probabilities * (before < self.sampling.top_p)
        sums = probabilities.cumsum(-1)
        numbers = torch.tensor([[draw.random()] for draw in self.draws], dtype=sums.dtype, device=sums.device)
        chosen = torch.searchsorted(sums, numbers * sums[:, -1:], right=True).clamp(max=sums.shape[-1] - 1)
        if order is not None:
            chosen = order.gather(1, chosen)
        return torch.full_like(scores, float("-inf")).scatter(1, chosen, 0.0)


def fingerprint(folder: str | Path) -> str:
    """Return a hash of what answers depend on in a model's folder: weights, configuration, tokenizer, chat template.

    Large files are sampled, 64 blocks of each: enough to tell training from no training, in milliseconds; not a
    checksum against a damaged disk.
    """
    files = sorted({file for pattern in HASHED for file in Path(folder).glob(pattern) if file.is_file()})
    digest = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.name} {size}\0".encode())
        with file.open("rb") as stream:
            if size <= WHOLE:
                digest.update(stream.read())
                continue
            for block in range(BLOCKS):
                stream.seek(block * (size - BLOCK) // (BLOCKS - 1))
                digest.update(stream.read(BLOCK))
    return digest.hexdigest()[:16]
