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
from functools import cached_property, partial
from importlib import import_module
from pathlib import Path
from typing import Any

from rvpo.errors import ConfigError
from rvpo.llm.tool_calls import MARKERS, template_form

__all__ = ["Answer", "LocalModel", "Question", "Sampling", "fingerprint", "native_text", "texts_of"]

Prompt = str | Sequence[Mapping[str, object]]

ADAPTER = "adapter_config.json"
WHOLE = 2**24
"""Bytes up to which a file is hashed as a whole; of a larger one PARTS parts of PART bytes, evenly spread."""
PARTS, PART = 64, 2**16
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
    """Functions that may be called, as in a chat request. Calls come back in the answer's text: `native_text`."""

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
        self.folder, self.device, self.dtype = Path(folder), device, dtype
        self.is_adapter = (self.folder / ADAPTER).is_file()
        if not self.is_adapter and not (self.folder / "config.json").is_file():
            raise ConfigError(
                f"a model folder has config.json or {ADAPTER}; {self.folder} has neither. A hub name must be "
                "downloaded first, a model on a server needs its base URL, a training folder --checkpoints"
            )
        self._loaded: tuple[Any, Any] | None = None
        self._form: str | None = None

    @cached_property
    def base(self) -> str | None:
        """The model that the adapters belong to."""
        if not self.is_adapter:
            return None
        try:
            return str(json.loads((self.folder / ADAPTER).read_text())["base_model_name_or_path"])
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise ConfigError(f"{self.folder / ADAPTER} must name its base_model_name_or_path: {error!r}") from error

    @cached_property
    def weights(self) -> str:
        """Hash of everything that answers depend on: the folder, and with adapters the base model if it is local."""
        base = fingerprint(self.base) if self.base is not None and Path(self.base).is_dir() else ""
        return "-".join(filter(None, (fingerprint(self.folder), base)))

    def close(self) -> None:
        """Give back the memory of the weights."""
        if self._loaded is not None:
            self._loaded = None
            import_module("torch").cuda.empty_cache()  # nothing without a GPU

    def answers(self, batch: Sequence[Question], sampling: Sampling) -> list[Answer]:
        """Return the answers to a batch of questions, in order."""
        model, tokenizer = self._load()
        prompts = [self._token_ids(tokenizer, question, sampling) for question in batch]
        wanted, room = sampling.max_tokens, getattr(model.config, "max_position_embeddings", None)
        kept = [place for place, ids in enumerate(prompts) if room is None or len(ids) + wanted <= room]
        drawn = _drawn(model, tokenizer, [prompts[at] for at in kept], [batch[at].seed for at in kept], sampling)
        answers = dict(zip(kept, drawn, strict=True))
        no_room = "prompt of {} tokens leaves no room for {} of {}"
        return [
            answers.get(place) or Answer(None, lost=no_room.format(len(ids), wanted, room))
            for place, ids in enumerate(prompts)
        ]

    def _token_ids(self, tokenizer: Any, question: Question, sampling: Sampling) -> list[int]:
        """Return the token ids of a prompt: a text's own, or those of the chat template, as in TRL.

        A model without a template continues a single message of a user as a text.
        """
        prompt = question.prompt
        match prompt:
            case [{"role": "user", "content": str(text)}] if not tokenizer.chat_template:
                prompt = text
        if isinstance(prompt, str):
            return list(tokenizer(prompt).input_ids)
        if not tokenizer.chat_template:
            raise ConfigError(f"{self.folder} has no chat template, and the prompts are chat messages; save one there")
        if question.tools and "tools" not in str(tokenizer.chat_template):
            raise ConfigError(f"the chat template in {self.folder} knows no tools; choose another answer format")
        if question.tools and (form := self._unread_form(tokenizer)):
            raise ConfigError(
                f"the chat template in {self.folder} writes a call as {form[:200]!r}, a form that is not read "
                "(rvpo.llm.tool_calls lists those that are), so that every answer would count as without a call; "
                "choose another answer format, or a server that reads the model's calls"
            )
        options = {"tokenize": False, "add_generation_prompt": True} | dict(sampling.template)
        text = tokenizer.apply_chat_template(list(prompt), tools=list(question.tools) or None, **options)
        return list(tokenizer(text, add_special_tokens=False).input_ids)

    def _unread_form(self, tokenizer: Any) -> str | None:
        """Return how the chat template writes a call if that is not read; looked at once."""
        if self._form is None:
            render = partial(tokenizer.apply_chat_template, tokenize=False)
            self._form = template_form(render) or ""
        return self._form

    def _load(self) -> tuple[Any, Any]:
        """Return model and tokenizer."""
        if self._loaded is None:
            try:
                self._loaded = _loaded(self.folder, self.base, self.dtype, self.device)
            except (OSError, ValueError, RuntimeError) as error:
                raise ConfigError(f"cannot load the model in {self.folder}: {error}") from error
        return self._loaded


def _loaded(folder: Path, base: str | None, dtype: str, device: str | None) -> tuple[Any, Any]:
    """Return model and tokenizer; heavy, and so are the imports."""
    transformers: Any = import_module("transformers")
    from rvpo.llm.tokenizer import load_tokenizer

    transformers.utils.logging.disable_progress_bar()  # it would break the lines of whoever shows progress here
    has_tokenizer = (folder / "tokenizer_config.json").is_file()
    tokenizer = load_tokenizer(folder if base is None or has_tokenizer else base)
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
    if device is None:
        device = "cuda" if import_module("torch").cuda.is_available() else "cpu"
    return model.to(device).eval(), tokenizer


def _drawn(
    model: Any, tokenizer: Any, prompts: Sequence[list[int]], seeds: Sequence[int], sampling: Sampling
) -> list[Answer]:
    """Return the answers to prompts of token ids, each drawn from its own seed."""
    if not prompts:
        return []
    torch: Any = import_module("torch")
    width, pad = max(map(len, prompts)), tokenizer.pad_token_id
    ids = torch.tensor([[pad] * (width - len(prompt)) + prompt for prompt in prompts], device=model.device)
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=model.device)
    choose = [SeededChoice(seeds, sampling)] if sampling.temperature > 0 else []
    with torch.no_grad():
        output = model.generate(
            input_ids=ids, attention_mask=mask, do_sample=False, max_new_tokens=sampling.max_tokens,
            logits_processor=choose,
        )[:, width:]  # fmt: skip
    ends = model.generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    answers = []
    for row, text in zip(output.tolist(), texts_of(tokenizer, output.tolist()), strict=True):
        end = next((place for place, token in enumerate(row) if token in ends), None)
        answers.append(Answer(text, len(row) if end is None else end + 1, is_cut=end is None))
    return answers


def texts_of(tokenizer: Any, rows: Sequence[Sequence[int]]) -> list[str]:
    """Return tokens as texts, without special tokens other than those that mark calls."""
    from rvpo.llm.tokenizer import special_tokens

    special = special_tokens(tokenizer)
    if not set(special.values()) & set(MARKERS):
        return list(tokenizer.batch_decode(rows, skip_special_tokens=True))
    kept = [[token for token in row if special.get(token) in (None, *MARKERS)] for row in rows]
    return list(tokenizer.batch_decode(kept, skip_special_tokens=False))


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

    Large files are sampled, 64 parts of each: enough to tell training from no training, in milliseconds; not a
    checksum against a damaged disk.
    """
    files = sorted({file for pattern in HASHED for file in Path(folder).glob(pattern) if file.is_file()})
    digest = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.name} {size}\0".encode())
        starts = [0] if size <= WHOLE else [part * (size - PART) // (PARTS - 1) for part in range(PARTS)]
        with file.open("rb") as stream:
            for start in starts:
                stream.seek(start)
                digest.update(stream.read(size if size <= WHOLE else PART))
    return digest.hexdigest()[:16]


def native_text(content: str, calls: Sequence[tuple[str, str]]) -> str:
    """Return an answer's text followed by its tool calls, each as a `<tool_call>` block with name and arguments.

    It is the form of Hermes and Qwen (`rvpo.llm.tool_calls`). Arguments that are no JSON stay a text.
    """
    blocks = []
    for name, arguments in calls:
        try:
            values = json.loads(arguments)
        except (ValueError, RecursionError):
            values = arguments
        # No tag inside of a value may end the block.
        call = json.dumps({"name": name, "arguments": values}, ensure_ascii=False).replace("<", "\\u003c")
        blocks.append(f"<tool_call>\n{call}\n</tool_call>")
    return "\n".join(([content] if content else []) + blocks)
