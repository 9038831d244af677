"""The hooks themselves: each takes one of verl's modules, just imported, and changes the names that it needs.

core_algos                  the estimator `rvpo` joins verl's registry
ray_trainer                 `compute_advantage`: the channels of its batch (every trainer but the default one)
v1.trainer_base             `PPOTrainer._compute_advantage`: the channels out of TransferQueue (the default trainer)
metric_utils                `compute_data_metrics`: the channels' metrics join verl's
separation.ray_trainer      the step of the run, for the schedule of k
metric_utils                `process_validation_metrics`: an answer without a score is left out of its means
reward_loop                 a reward worker that dies is started again, and its calls with it
"""

import functools
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from rvpo.errors import ConfigError, IntegrationError
from rvpo.integrations.checkpoints import STATE_FILE, check_settings, load_state, save_state
from rvpo.integrations.verl.config import ESTIMATOR, VerlConfig, is_ours
from rvpo.integrations.verl.estimator import Estimator, Rollouts

__all__ = [
    "bring_channels",
    "bring_queued_channels",
    "estimate",
    "keep_state",
    "know_step",
    "log_metrics",
    "register_estimator",
    "restart_workers",
]

RESTARTS = 3
"""How often verl's reward workers are started again."""


class _Rows(NamedTuple):
    """What the trainers' own call of an estimator leaves out."""

    infos: Sequence[Mapping[str, Any]]
    is_real: Sequence[bool] | None = None
    sessions: Sequence[tuple[str, int]] | None = None


_ROWS: ContextVar[_Rows | None] = ContextVar("rvpo_rows", default=None)
_COLUMNS: ContextVar[Mapping[str, Any] | None] = ContextVar("rvpo_columns", default=None)
_TRAINER: ContextVar[Any] = ContextVar("rvpo_trainer", default=None)
_ESTIMATORS: dict[str, Estimator] = {}
"""One for each configuration that this process has seen; a trainer has one."""
_PENDING: list[dict[str, float]] = []
"""Metrics of the batches since verl last asked for a step's metrics."""


def estimate(
    token_level_rewards: Any,
    response_mask: Any,
    config: Any = None,
    index: Any = None,
    non_tensor_batch: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> tuple[Any, Any]:
    """verl's estimator `rvpo`: advantages (N, T) of N responses, the same on every token, and again as returns.

    `config` is verl's `algorithm` section, `index` the uid of each row. What the rewards in `token_level_rewards`
    were summed from comes with `non_tensor_batch`, or from the trainer through this module's hooks.

    Raises:
        IntegrationError: the channels, the groups or the step of the run cannot be seen.
        ConfigError, RewardError, JudgeError: see `VerlConfig` and `Estimator.score`.
    """
    import torch

    settings = VerlConfig.from_algorithm(config)
    rows, columns = _ROWS.get(), _COLUMNS.get() if non_tensor_batch is None else non_tensor_batch
    if rows is None and columns is not None:
        rows = _Rows(_infos(columns, settings.channels))
    if rows is None or index is None:
        raise IntegrationError(
            "verl called the estimator rvpo without its reward channels: the plugin's hooks are not in this process; "
            "start with python -m rvpo.integrations.verl.main, or set VERL_USE_EXTERNAL_MODULES"
        )
    lengths = response_mask.sum(dim=-1).tolist()
    step, total = _progress(settings)
    batch = Rollouts(rows.infos, list(index), lengths, rows.is_real, rows.sessions)
    scored = _estimator(settings).score(batch, step, total)
    _PENDING.append(scored.metrics)
    advantages = torch.as_tensor(scored.advantages, dtype=torch.float32, device=response_mask.device)
    by_token = advantages.unsqueeze(-1) * response_mask
    return by_token, by_token


def _estimator(settings: VerlConfig) -> Estimator:
    return _ESTIMATORS.setdefault(repr(settings), Estimator(settings))


def _progress(settings: VerlConfig) -> tuple[int, int]:
    """Return the step that the run is at, counted from 0, and the steps of the run."""
    trainer = _TRAINER.get()
    if trainer is None:
        if not settings.follows_the_step:
            return 0, 1
        raise IntegrationError(
            "the step of the run cannot be seen here, and k_schedule or a schedule in channel_weights needs it; use a "
            "constant k and constant weights"
        )
    if getattr(trainer, "total_train_steps", None):  # the fully asynchronous trainer counts weight updates
        return int(trainer.current_param_version), int(trainer.total_train_steps)
    return int(trainer.global_steps) - 1, int(trainer.total_training_steps)


def _infos(non_tensor_batch: Mapping[str, Any], channels: Sequence[str]) -> list[dict[str, Any]]:
    """Return verl's columns as one mapping a row."""
    columns = {name: values for name, values in non_tensor_batch.items() if name in channels}
    number = len(next(iter(non_tensor_batch.values()), ()))
    if not columns:  # so that the message about it can name what there is
        return [dict.fromkeys(non_tensor_batch)] * number
    return [{name: values[row] for name, values in columns.items()} for row in range(number)]


@contextmanager
def _known(variable: ContextVar[Any], value: Any) -> Iterator[None]:
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


def _wrap(owner: Any, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Replace a function of verl's by what `make` makes of it; raise IntegrationError if it is not there."""
    original = getattr(owner, name, None)
    if original is None:
        raise IntegrationError(
            f"verl has no {getattr(owner, '__name__', owner)}.{name} here, on which rvpo relies; "
            "install the release that docs/verl.md names"
        )
    wrapped = functools.wraps(original)(make(original))
    setattr(owner, name, wrapped)
    for path, module in list(sys.modules.items()):
        if path.startswith("verl.") and vars(module).get(name) is original:  # imported from there before
            setattr(module, name, wrapped)


def register_estimator(core_algos: ModuleType) -> None:
    """Add the estimator to verl's registry."""
    core_algos.register_adv_est(ESTIMATOR)(estimate)


def bring_channels(ray_trainer: ModuleType) -> None:
    """Let `compute_advantage` pass on the channels of its batch, and the legacy trainer its step."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def compute_advantage(data: Any, adv_estimator: Any, *args: Any, **kwargs: Any) -> Any:
            with _known(_COLUMNS, data.non_tensor_batch):
                return original(data, adv_estimator, *args, **kwargs)

        return compute_advantage

    _wrap(ray_trainer, "compute_advantage", make)
    _wrap(ray_trainer.RayPPOTrainer, "_get_gen_batch", _remembering_trainer)
    keep_state(ray_trainer.RayPPOTrainer)


def know_step(separation: ModuleType) -> None:
    """Let the trainers with separate rollouts pass on their step."""
    _wrap(separation.SeparateRayPPOTrainer, "_fit_compute_advantage", _remembering_trainer)


def _remembering_trainer(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a trainer's method that leaves the trainer behind for the estimator, later in the same step."""

    def remembering(self: Any, *args: Any, **kwargs: Any) -> Any:
        _TRAINER.set(self)
        return method(self, *args, **kwargs)

    return remembering


def bring_queued_channels(trainer_base: ModuleType) -> None:
    """Let the default trainer fetch the channels from TransferQueue, which its own estimators do without."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def _compute_advantage(self: Any, batch: Any, metrics: dict[str, Any]) -> Any:
            if not is_ours(self.config.algorithm):
                return original(self, batch, metrics)
            channels = VerlConfig.from_algorithm(self.config.algorithm).channels
            with _known(_TRAINER, self), _known(_ROWS, _queued_rows(trainer_base.tq, batch, channels)):
                return original(self, batch, metrics)

        return _compute_advantage

    _wrap(trainer_base.PPOTrainer, "_compute_advantage", make)
    keep_state(trainer_base.PPOTrainer)


def keep_state(trainer: type) -> None:
    """Let a trainer's checkpoints hold the state of the channels, and the settings that a resumed run must have."""

    def saving(original: Callable[..., Any]) -> Callable[..., Any]:
        def _save_checkpoint(self: Any, *args: Any, **kwargs: Any) -> Any:
            result = original(self, *args, **kwargs)
            if is_ours(self.config.algorithm):
                folder = _checkpoint(self, self.config.trainer.default_local_dir)
                options = VerlConfig.from_algorithm(self.config.algorithm)
                save_state(folder, _estimator(options).state, _settings(self, options))
            return result

        return _save_checkpoint

    def loading(original: Callable[..., Any]) -> Callable[..., Any]:
        def _load_checkpoint(self: Any, *args: Any, **kwargs: Any) -> Any:
            result = original(self, *args, **kwargs)
            if is_ours(self.config.algorithm) and self.global_steps > 0:
                places = self.config.trainer
                by_path = places.resume_mode == "resume_path"
                folder = _checkpoint(
                    self, Path(places.resume_from_path).parent if by_path else places.default_local_dir
                )
                options = VerlConfig.from_algorithm(self.config.algorithm)
                if not options.allow_changed_settings:
                    if not (folder / STATE_FILE).is_file():
                        raise ConfigError(
                            f"{folder} has no {STATE_FILE}, which is written last: it was killed while it was saved, "
                            "or is not of this estimator; take an earlier one (trainer.resume_mode=resume_path), or "
                            "set +algorithm.rvpo.allow_changed_settings=true"
                        )
                    check_settings(folder, _settings(self, options), resumed=True)
                _estimator(options).state = load_state(folder)
            return result

        return _load_checkpoint

    _wrap(trainer, "_save_checkpoint", saving)
    _wrap(trainer, "_load_checkpoint", loading)


def _settings(trainer: Any, options: VerlConfig) -> dict[str, Any]:
    """Return what must stay the same when a run is resumed."""
    return options.settings() | {"group size": trainer.config.actor_rollout_ref.rollout.n}


def _checkpoint(trainer: Any, checkpoints: str | Path) -> Path:
    return Path(checkpoints) / f"global_step_{trainer.global_steps}"


def _queued_rows(queue: Any, batch: Any, channels: Sequence[str]) -> _Rows:
    """Return the rows of a batch whose rewards are in TransferQueue.

    Reward workers leave them under `extra_fields`; a reward model on the trainer's own GPUs as fields of their own.
    """
    fields = ["extra_fields", *channels]
    data = queue.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=fields)
    infos: list[dict[str, Any]] = [{} for _ in batch.keys]
    if "extra_fields" in data.keys():  # noqa: SIM118  a TensorDict
        for info, extra in zip(infos, data["extra_fields"], strict=True):
            info.update(_unwrapped(extra).get("reward_extra_info") or {})
    for name in set(channels) & set(data.keys()):
        for info, value in zip(infos, data[name], strict=True):
            info.setdefault(name, _unwrapped(value))
    return _Rows(
        infos,
        [not tag.get("is_padding", False) for tag in batch.tags],
        [(key.rpartition("_")[0], int(key.rpartition("_")[2])) for key in batch.keys],
    )


def _unwrapped(value: Any) -> Any:
    """Return what a TensorDict holds for a row without the wrapper that some backends leave around it."""
    from tensordict.tensorclass import NonTensorData

    return value.data if isinstance(value, NonTensorData) else value


def log_metrics(metric_utils: ModuleType) -> None:
    """Let verl's metrics of a step include those of its channels, over all batches of the step."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def compute_data_metrics(*args: Any, **kwargs: Any) -> dict[str, Any]:
            return {**original(*args, **kwargs), **_take_metrics()}

        return compute_data_metrics

    _wrap(metric_utils, "compute_data_metrics", make)
    _wrap(metric_utils, "process_validation_metrics", leave_out_missing)


def leave_out_missing(original: Callable[..., Any]) -> Callable[..., Any]:
    """Return verl's metrics of a validation without the answers that have no score, which would make them NaN.

    A variable with such answers has as `mean@N` the mean over its prompts' means of what there is, whatever the number
    of a prompt's answers, and beside it `VARIABLE/missing`, the share of answers without.
    """

    def process_validation_metrics(
        sources: Any, uids: Any, infos: Mapping[str, Any], *args: Any, **kwargs: Any
    ) -> Any:
        missing = {
            name: np.asarray([isinstance(value, float) and np.isnan(value) for value in values])
            for name, values in infos.items()
        }
        gappy = {name: where for name, where in missing.items() if where.any()}
        if not gappy:
            return original(sources, uids, infos, *args, **kwargs)
        nones = {name: [None if gap else v for v, gap in zip(infos[name], gappy[name], strict=True)] for name in gappy}
        metrics = original(sources, uids, {**infos, **nones}, *args, **kwargs)
        for source in dict.fromkeys(sources):
            of_this = metrics.setdefault(source, {})
            of_source = np.asarray([other == source for other in sources])
            for name in gappy:
                by_prompt: dict[Any, list[float | None]] = defaultdict(list)
                for row in np.flatnonzero(of_source):
                    by_prompt[uids[row]].append(nones[name][row])
                present = [[value for value in values if value is not None] for values in by_prompt.values()]
                most = f"mean@{max(map(len, by_prompt.values()))}"
                of_this[f"{name}/missing"] = {most: float(gappy[name][of_source].mean())}
                if means := of_this.get(name):
                    for other in [metric for metric in means if metric.startswith("mean@")]:
                        del means[other]
                    means[most] = float(np.mean([np.mean(values) for values in present if values]))
        return metrics

    return process_validation_metrics


def _take_metrics() -> dict[str, float]:
    """Return the mean of each pending metric over the batches that have it, and forget them."""
    values: dict[str, list[float]] = defaultdict(list)
    for metrics in _PENDING:
        for name, value in metrics.items():
            values[name].append(value)
    _PENDING.clear()
    return {name: float(np.mean(by_batch)) for name, by_batch in values.items()}


def restart_workers(reward_loop: ModuleType) -> None:
    """Let verl's reward workers be started again when one dies, with the calls that it had, for this estimator.

    verl starts them for good: without this, a worker that is killed costs the rollouts that it was scoring (the
    default trainer) or the run (the legacy one). What its judge had answered is in the verdict store.
    """

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def _init_reward_loop_workers(self: Any) -> None:
            if is_ours(self.config.get("algorithm")):
                import ray

                lasting = ray.remote(max_restarts=RESTARTS, max_task_retries=RESTARTS)
                self.reward_loop_workers_class = lasting(reward_loop.RewardLoopWorker)
            original(self)

        return _init_reward_loop_workers

    _wrap(reward_loop.RewardLoopManager, "_init_reward_loop_workers", make)
