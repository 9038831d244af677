"""Kinds of runs that TRL has beside prompts of text and rewards of functions: images, environments, masked tokens,
reward models, code of a model's own; each in a real run of a tiny model."""

import json
from importlib.metadata import version

import graders
import numpy as np
import pytest
import torch
from datasets import Dataset
from packaging.version import Version
from recording import Recording, settings

import mentions
from rvpo import ConfigError, RewardError, RVPOConfig, RVPOTrainer, compute_advantages, vector_reward
from rvpo.integrations.trl.run import _processing_class
from rvpo.llm.tokenizer import load_tokenizer

has_environments = pytest.mark.skipif(
    Version(version("trl")) < Version("1.8") or Version(version("transformers")) >= Version("5.13"),
    reason="no environments with a reward of their own, or replies are read by a template that this tokenizer lacks",
)
has_env_mask = pytest.mark.skipif(
    Version(version("trl")) < Version("1.0"), reason="TRL has no mask of a rollout function's tokens"
)


class Recorded(Recording, RVPOTrainer):
    pass


def long(completions, **kwargs):
    return [float(len(str(completion))) for completion in completions]


# --- Images ---


@pytest.fixture(scope="module")
def seeing(tmp_path_factory):
    """A folder with a random Llava of one layer that sees images of 8 x 8 pixels."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("seeing")
    tokenizer = mentions.tokenizer()
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    template = (
        "{% for m in messages %}{% for p in m['content'] %}"
        "{% if p.type == 'image' %}<image> {% else %}{{ p.text }} {% endif %}{% endfor %}{% endfor %}"
    )
    image_processor = getattr(transformers, "CLIPImageProcessorPil", transformers.CLIPImageProcessor)
    transformers.LlavaProcessor(
        image_processor=image_processor(size={"shortest_edge": 8}, crop_size={"height": 8, "width": 8}),
        tokenizer=tokenizer,
        patch_size=4,
        vision_feature_select_strategy="default",
        image_token="<image>",
        chat_template=template,
        num_additional_image_tokens=1,
    ).save_pretrained(folder)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    words = {"vocab_size": len(tokenizer), "num_key_value_heads": 2, "pad_token_id": tokenizer.pad_token_id}
    words |= {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
    image = tokenizer.convert_tokens_to_ids("<image>")
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(image_size=8, patch_size=4, **sizes).to_dict(),
        text_config=transformers.Qwen2Config(**sizes, **words).to_dict(),
        image_token_index=image,
        image_token_id=image,
    )
    transformers.LlavaForConditionalGeneration(config).save_pretrained(folder)
    return folder


class Seen(Recorded):
    def _generate_and_score_completions(self, inputs):
        self.saw = "pixel_values" in super(Recording, self)._generate_and_score_completions(inputs)
        return super()._generate_and_score_completions(inputs)


def test_a_model_that_sees_gets_its_processor(seeing):
    from transformers import LlavaProcessor

    processor = _processing_class(str(seeing), False, None)
    assert isinstance(processor, LlavaProcessor)
    assert processor.tokenizer.padding_side == "left"


def test_a_model_that_sees_trains_on_the_images(seeing, tmp_path):
    from PIL import Image

    processor = _processing_class(str(seeing), False, None)
    image = processor.tokenizer.convert_tokens_to_ids("<image>")  # which a random model would write, too
    prompt = [{"role": "user", "content": "mention rain :"}]
    rows = [{"prompt": prompt, "image": Image.new("RGB", (8, 8), (40 * red, 0, 0))} for red in range(4)]
    trainer = Seen(
        model=str(seeing),
        reward_funcs=[long],
        args=RVPOConfig(**settings(tmp_path / "run", generation_kwargs={"suppress_tokens": [image]})),
        train_dataset=Dataset.from_list(rows),
        processing_class=processor,
    )
    trainer.train()
    assert trainer.saw
    assert np.isfinite(trainer.state.log_history[0]["loss"])


def test_a_model_of_text_gets_its_tokenizer_as_it_was_saved(policy):
    processing_class = _processing_class(str(policy), False, None)
    assert type(processing_class) is type(load_tokenizer(policy))
    assert processing_class.get_vocab() == load_tokenizer(policy).get_vocab()
    assert (processing_class.padding_side, processing_class.truncation_side) == ("left", "left")


OWN_CODE = """
from transformers import PreTrainedTokenizerFast

class OwnTokenizer(PreTrainedTokenizerFast):
    own = True
"""


def test_the_code_of_a_model_is_run_for_its_tokenizer_if_it_is_trusted(tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    folder = mentions.tiny_policy(tmp_path / "own_code")
    (folder / "own_tokenizer.py").write_text(OWN_CODE)
    file = folder / "tokenizer_config.json"
    named = {"tokenizer_class": "OwnTokenizer", "auto_map": {"AutoTokenizer": [None, "own_tokenizer.OwnTokenizer"]}}
    file.write_text(json.dumps(json.loads(file.read_text()) | named))
    assert _processing_class(str(folder), True, None).own
    if Version(version("transformers")) < Version("5"):
        with pytest.raises(ConfigError, match="trust_remote_code=True"):
            _processing_class(str(folder), False, None)
    else:
        assert not hasattr(_processing_class(str(folder), False, None), "own")


# --- Environments ---


class Game:
    """An environment with a reward of its own."""

    played = 0

    def reset(self, **kwargs):
        return None

    def get_reward(self):
        Game.played += 1
        return {"won": float(Game.played % 2), "polite": Game.played % 3 / 2, "late": None}

    def move(self, to: str) -> str:
        """Move.

        Args:
            to: Where.
        """
        return to


class Judged(Game):
    @vector_reward("won", "polite", range=(0, 1))
    def get_reward(self):
        return super().get_reward() | {"late": 0.0}


class Mixed(Game):
    def get_reward(self):
        return 1.0 if Game.played % 2 else super().get_reward()


@pytest.fixture
def playing(policy, tmp_path, monkeypatch):
    """Return a trainer of rollouts in an environment."""
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    # Replies without calls need no jmespath, which transformers before 5.13 reads calls with.
    monkeypatch.setattr("trl.trainer.grpo_trainer.is_jmespath_available", lambda: True, raising=False)
    monkeypatch.setattr(Game, "played", 0)
    tokenizer = load_tokenizer(policy)
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['content'] or '' }} "
        "{% for c in m.tool_calls or [] %}{{ c.function.name }} {{ c.function.arguments | tojson }} {% endfor %}"
        "{% endfor %}"
    )
    text = {"role": {"const": "assistant"}, "content": {"type": "string", "x-regex": "^(.*)$"}}
    tokenizer.response_schema = {"type": "object", "properties": text}
    rows = [{"prompt": [{"role": "user", "content": "mention rain :"}]}] * 4

    def make(environment, rewards=None, **options):
        return Recorded(
            model=str(policy),
            reward_funcs=rewards,
            args=RVPOConfig(**settings(tmp_path / "run", **options)),
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            environment_factory=environment,
        )

    return make


@has_environments
def test_a_mapping_that_an_environment_returns_is_channels(playing):
    trainer = playing(Game, method="gdpo", channel_weights={"polite": 0.5})
    trainer.train()
    played = np.arange(1, 9)
    values = np.stack([played % 2, played % 3 / 2], axis=1)
    expected = compute_advantages(values, group_size=4, method="gdpo", weights=[1.0, 0.5]).advantages
    np.testing.assert_allclose(trainer.generations[0]["advantages"], expected, atol=3e-7)
    entry = trainer.state.log_history[0]
    assert entry["channels/won/mean"] == 0.5
    assert entry["channels/late/missing"] == 1.0


@has_environments
def test_what_an_environment_declares_is_checked(playing):
    with pytest.raises(RewardError, match=r"\['late'\] that are not among the declared \['won', 'polite'\]"):
        playing(Judged, method="rvpo_policy").train()
    with pytest.raises(RewardError, match=r"\['tune'\], but the channels are \['polite', 'won'\]"):
        playing(Judged, channel_weights={"tune": 1.0})


@has_environments
def test_numbers_and_mappings_of_one_environment_are_refused(playing):
    with pytest.raises(RewardError, match="vector reward 'Mixed', completion"):
        playing(Mixed).train()


# --- Tokens that the model has not written ---


@has_env_mask
def test_whitening_over_tokens_counts_those_of_the_model(policy, rows, tmp_path, monkeypatch):
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    own = [1, 2, 3, 4, 5, 6, 1, 2]

    def rollouts(prompts, trainer):
        return {
            "prompt_ids": [[5, 6]] * len(prompts),
            "completion_ids": [[7] * 8] * len(prompts),
            "logprobs": [[-1.0] * 8] * len(prompts),
            "env_mask": [[1] * number + [0] * (8 - number) for number in own],
        }

    def uneven(completions, **kwargs):
        return [float(index % 5) for index, _ in enumerate(completions)]

    trainer = Recorded(
        model=str(policy),
        reward_funcs=[uneven],
        args=RVPOConfig(**settings(tmp_path / "run", whiten="token")),
        train_dataset=rows,
        processing_class=load_tokenizer(policy),
        rollout_func=rollouts,
    )
    trainer.train()
    values = np.asarray([[float(index % 5)] for index in range(8)])
    expected, of_all = (
        compute_advantages(values, group_size=4, k=1.0, whiten="token", lengths=lengths).advantages
        for lengths in (own, [8] * 8)
    )
    np.testing.assert_allclose(trainer.generations[0]["advantages"], expected, atol=3e-7)
    assert abs(expected - of_all).max() > 0.01


# --- Reward models ---


def test_a_reward_model_is_a_channel(policy, rows, tmp_path):
    from transformers import Qwen2Config, Qwen2ForSequenceClassification

    config = Qwen2Config.from_pretrained(policy)
    config.num_labels = 1
    folder = tmp_path / "scorer"
    Qwen2ForSequenceClassification(config).save_pretrained(folder)
    load_tokenizer(policy).save_pretrained(folder)
    trainer = Recorded(
        model=str(policy),
        reward_funcs=[graders.sure_warm, Qwen2ForSequenceClassification.from_pretrained(folder)],
        args=RVPOConfig(**settings(tmp_path / "run", method="gdpo", reward_weights=[1.0, 0.5])),
        train_dataset=rows,
        processing_class=load_tokenizer(policy),
        reward_processing_classes=[None, load_tokenizer(folder)],
    )
    trainer.train()
    generation = trainer.generations[0]
    expected = compute_advantages(
        np.asarray(generation["scalars"]), group_size=4, method="gdpo", weights=[1.0, 0.5]
    ).advantages
    np.testing.assert_allclose(generation["advantages"], expected, atol=3e-6)
    assert torch.as_tensor(generation["scalars"])[:, 1].std() > 0
