"""RVPO in TRL: `RVPOTrainer` is `GRPOTrainer` with another way from rewards to advantages.

    from rvpo import RVPOConfig, RVPOTrainer

    trainer = RVPOTrainer(
        model="Qwen/Qwen2.5-1.5B-Instruct",
        reward_funcs=[format_reward, correctness_reward],
        args=RVPOConfig(output_dir="run", k_schedule="linear", k=0.5, k_end=2.0),
        train_dataset=dataset,
    )
    trainer.train()

`RVPOMixin` is the whole difference, and sits on any trainer that scores as `GRPOTrainer` does, for example
`class RVPOGMPOTrainer(RVPOMixin, GMPOTrainer): ...` (and, for GMPO's own defaults beside RVPO's options,
`@dataclass class RVPOGMPOConfig(GMPOConfig, RVPOConfig): ...`). Two of its methods are the method:
`_calculate_rewards` keeps the channels, `_generate_and_score_completions` replaces the advantages that TRL computed.
The others log, and refuse a base class that scores elsewhere; `ResumingMixin` saves what is known of the channels and
goes on from it.
"""

import asyncio
import json
import math
import textwrap
import weakref
from collections.abc import Coroutine, Mapping, MutableSequence, Sequence
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import numpy as np

from rvpo.core.advantages import AdvantageResult, compute_advantages
from rvpo.core.methods import find_method
from rvpo.errors import ConfigError, IntegrationError, StopRequestedError
from rvpo.files import write_whole
from rvpo.integrations.batch import ChannelState, batch_options, channel_metrics
from rvpo.integrations.trl.adapters import (
    RewardAdapter,
    check_adapters,
    check_before_loading,
    check_tags,
    different_names,
    gather_batch,
)
from rvpo.integrations.trl.config import RVPOConfig
from rvpo.integrations.trl.resampling import (
    Snapshot,
    dead_groups,
    draw_rows,
    merge_outputs,
    merge_returned,
    neglected_channels,
    plan_refill,
)
from rvpo.integrations.trl.resuming import ResumingMixin
from rvpo.integrations.trl.run_log import ShortMetrics
from rvpo.integrations.trl.sampler import FLOOR, PromptSampler, group_signals, prompt_sampler
from rvpo.rewards.channels import ChannelMatrix, Returned, assemble

# TRL is first imported by the configuration, behind the check of its version.
import torch  # isort: skip
from trl import GRPOConfig, GRPOTrainer  # isort: skip

__all__ = ["RVPOConfig", "RVPOMixin", "RVPOTrainer"]


class RVPOMixin(ResumingMixin):
    """The method, on top of a trainer that scores as `trl.GRPOTrainer` does."""

    # What is used of GRPOTrainer.
    args: RVPOConfig
    accelerator: Any
    callback_handler: Any
    model: Any
    num_generations: int
    num_generations_eval: int
    processing_class: Any
    reward_func_names: list[str]
    reward_funcs: list[Any]
    reward_weights: Any
    state: Any
    train_dataset: Any
    _logs: dict[str, Any]
    _metrics: dict[str, Any]

    # Returns of the reward functions for the newest rollouts; empty until the trainer has asked for them.
    _returned: list[Returned]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        order = cls.__mro__
        if GRPOTrainer in order and order.index(GRPOTrainer) < order.index(RVPOMixin):
            raise IntegrationError(
                f"{cls.__name__} lists a trainer before RVPOMixin, so that nothing of the mixin would run; "
                f"write class {cls.__name__}(RVPOMixin, ...)"
            )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        _check_base(type(self))
        args = _with_config(type(self).__name__, args, kwargs)
        given = args[2] if len(args) > 2 else kwargs["args"]
        if kwargs.get("environment_factory") is None:  # an environment may bring rewards of its own
            check_before_loading(args[1] if len(args) > 1 else kwargs.get("reward_funcs"), given)
        super().__init__(*args, **kwargs)
        self._schedule = self.args.schedule()
        self._returned = []
        self._channel_state = ChannelState()
        self._own_loop: asyncio.AbstractEventLoop | None = None
        self.reward_func_names = different_names(self.reward_func_names)
        check_adapters(self._adapters(), self.args)
        has_tools = bool(kwargs.get("tools")) or "tools" in (getattr(self.train_dataset, "column_names", None) or ())
        check_tags(self._adapters(), self.processing_class, has_tools)
        if self.args.tracker_metrics == "short":
            self.callback_handler.callbacks.insert(0, ShortMetrics())
        if self.args.resample_dead and not hasattr(self.train_dataset, "__getitem__"):
            raise ConfigError("resample_dead draws prompts by their place in the data set, which a stream has not")
        self._prompts: PromptSampler | None = None
        if self.args.prompt_sampling == "signal":
            number, floor = self.args.generation_batch_size // self.num_generations, self.args.prompt_sampling_floor
            channels = self.args.prompt_sampling_channels
            self._prompts = prompt_sampler(self.train_dataset, number, FLOOR if floor is None else floor, channels)

    def _adapters(self) -> list[RewardAdapter]:
        return [RewardAdapter(*pair) for pair in zip(self.reward_funcs, self.reward_func_names, strict=True)]

    def _settings(self) -> dict[str, Any]:
        """Return what a checkpoint of this run holds for those who resume it."""
        channels = {a.name: [[*astuple(c)] for c in a.channels] for a in self._adapters()}
        return self.args.settings() | {"channels": channels}

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, *rest: Any, **kwargs: Any) -> Any:
        """Score as TRL does, and keep every channel of every rollout of all processes."""
        functions, adapters = self.reward_funcs, self._adapters()
        # TRL up to 1.12 does not see that an object with an asynchronous __call__ is to be awaited, and makes no
        # event loop for it.
        trl_awaits = hasattr(self, "async_loop") or hasattr(self, "async_reward_loop")
        self._see_groups([a for a in adapters if a.declares.scope == "group"], inputs, prompts, completions, *rest)
        self.reward_funcs = [adapter.for_trl(None if trl_awaits else self._run_here) for adapter in adapters]
        try:
            scalars = super()._calculate_rewards(inputs, prompts, completions, *rest, **kwargs)  # type: ignore[misc]
        finally:
            self.reward_funcs = functions
        self._raise_if_stopped(adapters)
        # Gathered by TRL: (N, functions), NaN for None.
        columns, weights = scalars.double().cpu().numpy().T.tolist(), self.reward_weights.tolist()
        self._returned = [
            adapter.returned(weight, column)
            for adapter, weight, column in zip(adapters, weights, columns, strict=True)
        ]
        return scalars

    def _raise_if_stopped(self, adapters: Sequence[RewardAdapter]) -> None:
        """Raise StopRequestedError on all processes if a reward of one of them has given up."""
        stopped = next((adapter.stopped for adapter in adapters if adapter.stopped is not None), None)
        flag = torch.tensor([int(stopped is not None)], device=self.accelerator.device)
        if self.accelerator.gather(flag).any():
            raise stopped or StopRequestedError("another process of the run was told to stop")

    def _see_groups(
        self, adapters: Sequence[RewardAdapter], inputs: Any, prompts: Any, completions: Any, completion_ids: Any
    ) -> None:
        """Let rewards that see groups score those of all processes, before TRL asks for this process's values."""
        if not adapters:
            return
        batch = gather_batch(inputs, prompts, completions, completion_ids)
        index, processes = self.accelerator.process_index, self.accelerator.num_processes
        others = {"trainer_state": self.state}
        for adapter in adapters:
            first = index * len(prompts)
            options = {"run": self._await, "process": (index, processes), "others": others}
            adapter.see_groups(batch, self._group_size(), first, **options)

    def _await(self, awaitable: Coroutine[Any, Any, Any]) -> Any:
        """Await where TRL awaits rewards, so that a client meets one loop only, or in a loop of this trainer's."""
        loop = getattr(self, "async_loop", None) or getattr(self, "async_reward_loop", None)
        if loop is None:
            return self._run_here(awaitable)
        return asyncio.run_coroutine_threadsafe(awaitable, loop).result()

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        """Generate and score as TRL does, then put RVPO's advantages in the place of TRL's."""
        self._returned = []
        drawn = None
        if self._prompts and self.model.training:
            drawn = self._prompts.draw(self.args.generation_batch_size // self.num_generations, self.args.seed)
            inputs = self._own_rows(drawn.rows, len(inputs))
        output = super()._generate_and_score_completions(inputs)  # type: ignore[misc]
        if not self._returned:
            raise IntegrationError(
                f"{type(self).__name__} did not call _calculate_rewards: rvpo cannot see the rewards"
            )
        if self._prompts and drawn:
            self._metrics["train"]["rvpo/low_signal"].append(self._observe(self._prompts, drawn.rows))
            self._metrics["train"]["rvpo/effective_prompts"].append(drawn.effective)
        if self.args.resample_dead and self.model.training:
            output = self._resample(output)
        matrix = self._matrix()
        result = self._advantages(matrix, output)
        if drawn and self.args.prompt_sampling_unbiased:
            weights = np.repeat(drawn.weights, self._group_size())
            result = replace(result, advantages=result.advantages * weights)
        advantages = torch.as_tensor(result.advantages)
        local = output["advantages"].shape[0]
        if advantages.numel() != local * self.accelerator.num_processes:
            raise IntegrationError(
                f"{advantages.numel()} rollouts were scored, but {self.accelerator.num_processes} processes "
                f"with {local} rollouts each are trained on"
            )
        start = self.accelerator.process_index * local
        output["advantages"] = advantages[start : start + local].to(output["advantages"])
        self._log_channels(matrix, result)
        return output

    def _own_rows(self, prompts: Sequence[int], number: int) -> list[Any]:
        """Return this process's `number` rows of a batch of prompts, each G times, in the place of those that TRL
        would have."""
        first = self.accelerator.process_index * number
        own = [row for row in prompts for _ in range(self.num_generations)][first : first + number]
        rows = {row: self.train_dataset[row] for row in dict.fromkeys(own)}
        return [dict(rows[row]) for row in own]

    def _observe(self, sampler: PromptSampler, rows: Sequence[int]) -> float:
        """Let the sampler see the newest groups of all processes; return the share with signal in the lowest third."""
        groups = group_signals(self._matrix(), self.num_generations)
        sampler.observe(rows, groups)
        return sampler.low_signal(groups)

    def _matrix(self) -> ChannelMatrix:
        """Return the channels of the newest rollouts of all processes."""
        return assemble(
            self._returned,
            self._group_size(),
            ranges=self.args.mapping("channel_ranges"),
            weights=self.args.weights(*self._progress()),
            rules=self.args.rules(),
        )

    def _resample(self, output: Any) -> Any:
        """Return the batch with groups without signal replaced, as far as new ones have some; `_returned` likewise."""
        size, processes, index = self._group_size(), self.accelerator.num_processes, self.accelerator.process_index
        matrix = self._matrix()
        channels = neglected_channels(matrix, size) if self.args.resample_signal == "neglected" else None
        dead = dead_groups(matrix, size, channels)
        rollouts = spent = len(matrix.values)
        before = float(dead.mean())
        for attempt in range(self.args.resample_dead):
            number = int(dead.reshape(processes, -1).sum(axis=1).max())
            if not number:
                break
            key = (self.args.seed, self.state.global_step, attempt)
            drawn = draw_rows(number * processes, len(self.train_dataset), key)
            table, returned = Snapshot(self._logs, rollouts), self._returned
            own = drawn[index * number : (index + 1) * number].tolist()
            new = super()._generate_and_score_completions(  # type: ignore[misc]
                [self.train_dataset[row] for row in own for _ in range(size)]
            )
            if self._prompts:
                self._observe(self._prompts, drawn.tolist())
            refill = plan_refill(dead, dead_groups(self._matrix(), size, channels), processes)
            table.refill(refill, size, number * processes * size)
            self._returned = merge_returned(returned, self._returned, refill, size)
            output = merge_outputs(output, new, refill.of_process(index, len(dead) // processes, number), size)
            dead[refill.replaced] = False
            spent += number * processes * size
            self._metrics["train"]["frac_reward_zero_std"].pop()
        loss_mask = output["completion_mask"] * output.get("tool_mask", 1)
        output["num_items_in_batch"] = self.accelerator.gather(loss_mask.sum()).sum()
        shares = {"dead_before": before, "dead_after": dead.mean(), "dropped": 1 - rollouts / spent}
        for name, value in (shares | {"generated": spent}).items():
            self._metrics["train"][f"rvpo/{name}"].append(float(value))
        return output

    def _progress(self) -> tuple[int, int]:
        """Return the step of the run and its last one."""
        return self.state.global_step, self.state.max_steps

    def _group_size(self) -> int:
        return self.num_generations if self.model.training else self.num_generations_eval

    def _advantages(self, matrix: ChannelMatrix, output: Mapping[str, Any]) -> AdvantageResult:
        """Return the advantages of all processes' rollouts; the same on every process."""
        options = batch_options(self.args, matrix, self._group_size(), self._channel_state, move=self.model.training)
        if options["whiten"] == "token":
            lengths = (output["completion_mask"] * output.get("tool_mask", 1)).sum(dim=1)
            options["lengths"] = self.accelerator.gather(lengths).cpu().numpy()
        k = self._schedule(*self._progress())
        return compute_advantages(matrix.values, group_size=self._group_size(), k=k, **options)

    def _log_channels(self, matrix: ChannelMatrix, result: AdvantageResult) -> None:
        """Add RVPO's metrics and the channels' columns to what TRL logs."""
        metrics = self._metrics["train" if self.model.training else "eval"]
        takes_k = find_method(self.args.method).takes_k
        ours = channel_metrics(matrix, result, self._group_size(), self._channel_state, takes_k=takes_k)
        groups = torch.as_tensor(result.advantages).reshape(-1, self._group_size())
        # TRL's are of advantages that are not used.
        metrics["frac_reward_zero_std"].pop()
        ours["frac_reward_zero_std"] = (groups == groups[:, :1]).all(dim=1).double().mean().item()
        if self.args.method != "grpo":
            metrics.pop("reward_std")
        for name, value in (ours | self.args.weight_metrics(*self._progress())).items():
            metrics[name].append(value)
        table = self._logs
        for name, column in matrix.columns.items():
            if column and isinstance(column[0], Mapping):
                # Written as JSON: as a parquet struct each row would carry the names of all prompts' criteria.
                texts = [json.dumps({key: _none_if_nan(value) for key, value in row.items()}) for row in column]
                if "extra" in table:  # TRL 1.0 on; before, its table has no room for text
                    table["extra"][f"{name}/channels"].extend(texts)
            elif name not in self.reward_func_names:
                table["rewards"][name].extend(column)
            elif name in matrix.unmet:
                _put_last(table["rewards"][name], column)
        if "extra" in table:  # an audit keeps the rows of evaluations apart
            table["extra"]["evaluation"].extend([not self.model.training] * len(result.advantages))
        _put_last(table["advantages"], result.advantages.tolist())

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """Train as TRL does; refuse to go on if the rollouts were scored past this class."""
        loss = super().training_step(*args, **kwargs)  # type: ignore[misc]
        if not self._returned:
            raise IntegrationError(
                f"{type(self).__name__} trains on advantages that rvpo did not compute; "
                "its base class scores rollouts elsewhere and cannot take RVPO"
            )
        return loss

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log as TRL does, without the batches in which a metric has no value: TRL 0.27 averages NaN with the rest."""
        metrics = self._metrics["train" if self.model.training else "eval"]
        for name, values in metrics.items():
            metrics[name] = [value for value in values if not math.isnan(value)] or values
        super().log(logs, *args, **kwargs)  # type: ignore[misc]

    def close_rewards(self) -> None:
        """Close the connections of rewards that hold some, in the loop they live in, and print what they spent."""
        loop = getattr(self, "async_loop", None) or getattr(self, "async_reward_loop", None) or self._own_loop
        for function in self.reward_funcs:
            close = getattr(function, "close", None)
            if close is None or loop is None or loop.is_closed():
                continue
            if loop.is_running():
                asyncio.run_coroutine_threadsafe(close(), loop).result(timeout=60)
            else:
                loop.run_until_complete(close())

    def _run_here(self, awaitable: Coroutine[Any, Any, list[float]]) -> list[float]:
        """Await a vector reward where TRL would not; one loop for the whole run, as clients keep connections in it."""
        if self._own_loop is None:
            self._own_loop = asyncio.new_event_loop()
            weakref.finalize(self, self._own_loop.close)
        return self._own_loop.run_until_complete(awaitable)


class RVPOTrainer(RVPOMixin, GRPOTrainer):  # type: ignore[misc]
    """`GRPOTrainer` with Reward-Variance Policy Optimization (arXiv 2605.05750): same arguments, `RVPOConfig`.

    Reward functions are TRL's, sync or async, or vector rewards (`rvpo.rewards.vector_reward`). None or NaN is
    a missing value; a rollout without any value gets advantage 0.
    """

    _tag_names = ("trl", "rvpo")
    _name = "RVPO"
    _paper = {  # noqa: RUF012  TRL's name and type
        "title": "RVPO: Risk-Sensitive Alignment via Variance Regularization",
        "id": "2605.05750",
        "citation": textwrap.dedent("""\
            @article{montero2026rvpo,
                title        = {{RVPO: Risk-Sensitive Alignment via Variance Regularization}},
                author       = {Ivan Montero and Tomasz Jurczyk and Bhuwan Dhingra},
                year         = 2026,
                eprint       = {arXiv:2605.05750},
            }"""),
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if (method := getattr(self.args.method, "__name__", str(self.args.method))) != "rvpo":
            self._name, self._paper = f"the method {method} of rvpo", {}

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write TRL's card, with the method that was used, and the path of a base model that is a folder."""
        super().create_model_card(*args, **kwargs)
        card = Path(self.args.output_dir) / "README.md"
        if self.is_world_process_zero() and card.is_file():
            base = self.model.config._name_or_path
            text = card.read_text(encoding="utf-8").replace("[None](https://huggingface.co/None)", f"`{base}`")
            write_whole(card, text)


def _put_last(column: MutableSequence[float], values: Sequence[float]) -> None:
    """Put values in the place of those that TRL has just appended for the same rollouts."""
    for _ in range(min(len(values), len(column))):
        column.pop()
    column.extend(values)


def _none_if_nan(value: float) -> float | None:
    return None if math.isnan(value) else value


def _with_config(trainer: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """Return the arguments of a trainer, `args` of GRPOTrainer being the third, with a default configuration for None.

    A plain GRPOConfig gets RVPO's defaults. Raises IntegrationError for a configuration of another kind, before any
    model is loaded.
    """
    given = args[2] if len(args) > 2 else kwargs.get("args")
    if given is None:
        model = args[0] if args else kwargs.get("model")
        path = model if isinstance(model, str) else getattr(getattr(model, "config", None), "_name_or_path", "")
        given = RVPOConfig(output_dir=f"{Path(path).name or 'model'}-RVPO")
    if type(given) is GRPOConfig:
        given = RVPOConfig.of(given)
    if not isinstance(given, RVPOConfig):
        raise IntegrationError(
            f"{trainer} needs args=RVPOConfig(...), got {type(given).__name__}; "
            "RVPOConfig takes every option of GRPOConfig"
        )
    if len(args) > 2:
        return (*args[:2], given, *args[3:])
    kwargs["args"] = given
    return args


def _check_base(trainer: type) -> None:
    """Raise IntegrationError unless advantages come from GRPOTrainer's own code, where the mixin replaces them."""
    if not issubclass(trainer, GRPOTrainer):
        raise IntegrationError(f"{trainer.__name__} does not derive from trl.GRPOTrainer and cannot take RVPO")
    below = trainer.__mro__[trainer.__mro__.index(RVPOMixin) + 1 :]
    for base in below[: below.index(GRPOTrainer)]:
        if "_generate_and_score_completions" in vars(base):
            raise IntegrationError(
                f"{base.__name__} computes advantages itself, in its own _generate_and_score_completions: rvpo "
                "would not be used for all rollouts. Use RVPOTrainer, or a base that changes the loss only"
            )
