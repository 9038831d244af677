"""verl's own program without a GPU: the model's forward, backward and sampling on a CPU, everything else verl's.

Loaded by verl itself (VERL_USE_EXTERNAL_MODULES) in every process. In the default trainer it replaces what needs a
GPU: the worker group that holds the actor, and the server that samples. Data loader, agent loops, reward workers,
TransferQueue, replay buffer, balancing, advantages, policy loss, metrics and logs stay verl's.

Every update is written to $VERL_CPU_RECORD as one line of JSON: what it was trained on.
"""

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import torch

from rvpo.integrations.verl.plugin import AfterImport

FIELDS = ["prompts", "responses", "response_mask", "extra_fields", "advantages", "old_log_probs"]
TENSORS = ("response_mask", "advantages", "old_log_probs")


def load(folder):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder).float()


class Client:
    """In the place of verl's LLMServerClient and its vLLM server; travels to the agent loop worker, and samples there.

    The weights are read from a file, as often as the trainer writes them.
    """

    def __init__(self, folder, weights, longest):
        self.folder, self.weights, self.longest, self.model, self.read = folder, weights, longest, None, None

    async def generate(self, request_id, *, prompt_ids, sampling_params, **kwargs):
        from verl.workers.rollout.replica import TokenOutput

        if self.model is None:
            torch.manual_seed(1)
            self.model = load(self.folder)
        written = self.weights.stat().st_mtime_ns
        if self.read != written:
            saved = torch.load(self.weights)
            self.model.load_state_dict(saved["weights"])
            self.step, self.read = saved["step"], written
        ids = torch.tensor([list(prompt_ids)])
        with torch.no_grad():
            answer = self.model.generate(
                ids, attention_mask=torch.ones_like(ids), do_sample=True, max_new_tokens=self.longest
            )
        steps = {"global_steps": self.step, "min_global_steps": self.step, "max_global_steps": self.step}
        return TokenOutput(token_ids=answer[0, len(prompt_ids) :].tolist(), extra_fields=steps)


def log_probs(model, data):
    """Log-probabilities of the responses' tokens, one row a tensor."""
    rows = []
    for prompt, response in zip(data["prompts"].unbind(), data["responses"].unbind(), strict=True):
        logits = model(torch.cat([prompt, response])[None]).logits[0, len(prompt) - 1 : -1]
        rows.append(torch.log_softmax(logits, -1).gather(1, response[:, None])[:, 0])
    return rows


def record(batch, data, step, tokenizer):
    extras = [getattr(extra, "data", extra) for extra in data["extra_fields"]]
    rows = [
        {
            "key": key,
            "is_padding": tag.get("is_padding", False),
            "text": tokenizer.decode(data["responses"][row], skip_special_tokens=True),
            "info": extras[row]["reward_extra_info"],
            "mask": data["response_mask"][row].tolist(),
            "advantages": data["advantages"][row].tolist(),
        }
        for row, (key, tag) in enumerate(zip(batch.keys, batch.tags, strict=True))
    ]
    with open(os.environ["VERL_CPU_RECORD"], "a") as file:
        file.write(json.dumps({"step": step, "rows": rows}) + "\n")


def without_gpu(trainer_base):
    """Replace methods of verl's default trainer."""
    from tensordict import TensorDict

    tq = trainer_base.tq

    class OnCpu:
        def _setup(self):
            self._init_tokenizer()
            self._init_dataloader()
            self._init_dump_executor()
            model = self.config.actor_rollout_ref.model.path
            self.model = load(model)
            self.optimizer = torch.optim.AdamW(
                self.model.parameters(), lr=self.config.actor_rollout_ref.actor.optim.lr
            )
            self.weights = Path(os.environ["VERL_CPU_RECORD"]).with_name("weights.pt")
            client = Client(model, self.weights, self.config.actor_rollout_ref.rollout.response_length)
            self.ref_in_actor = False
            self.teacher_model_manager = self.distillation_config = None
            self.resource_pool_manager = SimpleNamespace(get_n_gpus=lambda: 1)
            self.actor_rollout_wg = SimpleNamespace(_dispatch_info={"actor": [0]})
            self.llm_server_manager = SimpleNamespace(get_client=lambda: client)
            self.reward_loop_manager = trainer_base.RewardLoopManager(config=self.config)
            self.checkpoint_manager = SimpleNamespace(update_weights=self._sync, sleep_replicas=lambda: None)
            self._load_checkpoint()

        def _sync(self, step):
            new = self.weights.with_suffix(".new")
            torch.save({"step": step, "weights": self.model.state_dict()}, new)
            new.replace(self.weights)

        def _put(self, batch, **rows):
            fields = {name: torch.nested.as_nested_tensor(row, layout=torch.jagged) for name, row in rows.items()}
            return tq.kv_batch_put(
                keys=batch.keys, partition_id=batch.partition_id, fields=TensorDict(fields, batch_size=len(batch))
            )

        def _compute_old_log_prob(self, batch, metrics):
            data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=FIELDS[:2])
            with torch.no_grad():
                return self._put(batch, old_log_probs=log_probs(self.model, data))

        def _update_actor(self, batch, metrics):
            data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=FIELDS)
            record(batch, data, self.global_steps, self.tokenizer)
            pad = torch.nn.utils.rnn.pad_sequence
            padded = {name: pad(list(data[name].unbind()), batch_first=True) for name in TENSORS}
            actor = trainer_base.omega_conf_to_dataclass(self.config.actor_rollout_ref.actor)
            loss, _ = trainer_base.core_algos.compute_policy_loss_vanilla(
                old_log_prob=padded["old_log_probs"],
                log_prob=pad(log_probs(self.model, data), batch_first=True),
                advantages=padded["advantages"],
                response_mask=padded["response_mask"],
                config=actor,
            )
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            metrics["actor/pg_loss"] = loss.item()
            return batch

    for name, method in vars(OnCpu).items():
        if not name.startswith("__"):
            setattr(trainer_base.PPOTrainer, name, method)


sys.meta_path.insert(0, AfterImport({"verl.trainer.ppo.v1.trainer_base": without_gpu}))
