"""Reward functions as TRL calls them, and what they returned as channels.

Some see all rollouts of a prompt, wherever these were generated: each group is scored by one process. The rollouts of
all processes are gathered, group i is scored by process i modulo their number, and what was returned is gathered. So
the rewards are those of a single process, and a function is called as often as there are groups.
"""

import asyncio
import inspect
import json
import logging
import math
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from itertools import count
from typing import Any

from torch import nn

from rvpo.core.methods import find_method
from rvpo.errors import ConfigError, RewardError, StopRequestedError
from rvpo.integrations.method_config import MethodConfig
from rvpo.llm.tokenizer import check_decoded
from rvpo.rewards.channels import Returned, check_rows, check_scalars
from rvpo.rewards.declarations import Channel, Declaration, channel_names, check_channels, declaration

__all__ = [
    "Batch",
    "RewardAdapter",
    "check_adapters",
    "check_before_loading",
    "check_tags",
    "different_names",
    "gather_batch",
    "score_groups",
]

logger = logging.getLogger(__name__)

Row = dict[str, float]
Scalars = list[float]
Batch = Mapping[str, Sequence[Any]]
"""What reward functions get by name, a value for each rollout."""
OF_TRL = ("prompt", "completion", "completion_ids")
"""Columns of a row that TRL does not hand on under their own names."""


class RewardAdapter:
    """A reward function for one batch. Of a vector reward TRL gets one number for each completion, to log."""

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        environment = _environment(function)
        self.function, self.name = function, name
        self.declares = declaration(function if environment is None else environment.get_reward)
        self.is_open = environment is not None and not self.declares.is_vector
        """What it returns decides: an environment's `get_reward` may return a number or a mapping undeclared."""
        self._kept: Sequence[float | Row] = []
        """What the function returned for this process's completions."""
        self._first = 0
        self._of_all: Sequence[float | Row] | None = None
        """What it returned for those of all processes, of a reward that sees groups."""
        self.stopped: StopRequestedError | None = None
        """Why the function gave up; the other processes must hear of it before anything is raised."""

    @property
    def channels(self) -> tuple[Channel, ...]:
        """The channels that it declares; of an open vector reward the one that they are all like."""
        return self.declares.channels or (self.declares.template,)

    @property
    def is_asynchronous(self) -> bool:
        """The function, or the object's call, is a coroutine function."""
        return any(map(inspect.iscoroutinefunction, (self.function, getattr(self.function, "__call__", None))))  # noqa: B004

    def see_groups(self, batch: Batch, group_size: int, first: int, **options: Any) -> None:
        """Score all groups of a batch; this process's rollouts are those from `first` on. `score_groups` has the rest.

        Raises RewardError for what the function must not return.
        """
        options["run"] = options["run"] if self.is_asynchronous else None
        function = self._awaited if self.is_asynchronous else self._called
        values = score_groups(function, batch, group_size, check=partial(self._read, number=group_size), **options)
        self._of_all, self._first = values, first

    def for_trl(self, run: Callable[[Any], Scalars] | None) -> Callable[..., Any]:
        """Return a reward function of TRL's kind: awaited by TRL if this one is asynchronous, or else by `run`."""
        function = self.function
        if isinstance(function, nn.Module):  # a reward model, which TRL calls on tokens
            return function
        if self._of_all is not None:
            of_all, first = self._of_all, self._first
            return lambda completions, **kwargs: _scalars(of_all[first : first + len(completions)])
        asynchronous = self.is_asynchronous

        async def keep_awaited(**kwargs: Any) -> Scalars:
            return self._keep(await self._awaited(**kwargs), len(kwargs["completions"]))

        def keep(**kwargs: Any) -> Scalars:
            if asynchronous and run is not None:
                return run(keep_awaited(**kwargs))
            return self._keep(self._called(**kwargs), len(kwargs["completions"]))

        return keep_awaited if asynchronous and run is None else keep

    async def _awaited(self, **kwargs: Any) -> Any:
        try:
            return await self.function(**kwargs)
        except StopRequestedError as error:
            return self._give_up(error, kwargs)

    def _called(self, **kwargs: Any) -> Any:
        try:
            return self.function(**kwargs)
        except StopRequestedError as error:
            return self._give_up(error, kwargs)

    def _give_up(self, error: StopRequestedError, kwargs: Mapping[str, Any]) -> list[Any]:
        """Return no values, which are never used: the trainer raises once all processes know."""
        self.stopped = error
        return [{} if self.declares.is_vector else None for _ in kwargs["completions"]]

    def returned(self, weight: float, scalars: Sequence[float]) -> Returned:
        """Return what the function returned on all processes, N rollouts, NaN for None.

        `scalars` are what TRL has gathered; the rows of a vector reward are gathered here, in the same order.
        """
        if not (self.declares.is_vector or self.is_open):
            return Returned(self.name, self.declares, weight, scalars)
        if self._of_all is not None:
            return Returned(self.name, self.declares, weight, self._of_all)  # type: ignore[arg-type]
        from accelerate.utils import gather_object

        kept = gather_object(list(self._kept))
        if self.declares.is_vector:
            return Returned(self.name, self.declares, weight, kept)
        names = dict.fromkeys(name for row in kept if isinstance(row, Mapping) for name in row)
        if not names:
            return Returned(self.name, self.declares, weight, scalars)
        number = next((row for row in kept if not isinstance(row, Mapping) and not math.isnan(row)), None)
        if number is not None:
            raise RewardError(f"{self.name}.get_reward returned {number} here and a mapping there; return one of them")
        rows = [row if isinstance(row, Mapping) else {} for row in kept]
        return Returned(self.name, Declaration(tuple(map(Channel, names))), weight, rows)

    def _keep(self, returned: object, number: int) -> Scalars:
        """Keep what was returned; return one number a completion, of a row the mean of its values, NaN without any."""
        self._kept = self._read(returned, number=number)
        return _scalars(self._kept)

    def _read(self, returned: object, *, number: int) -> Sequence[float | Row]:
        """Return the numbers, or rows of a vector reward, that were returned for so many completions."""
        is_row = self.declares.is_vector or (
            self.is_open and isinstance(returned, list) and any(isinstance(entry, Mapping) for entry in returned)
        )
        if is_row:
            return check_rows(returned, self.name, self.declares, number)
        return check_scalars(returned, self.name, number)


def gather_batch(
    inputs: Sequence[Mapping[str, Any]],
    prompts: Sequence[Any],
    completions: Sequence[Any],
    completion_ids: Sequence[Any],
) -> Batch:
    """Return prompts, completions, their tokens and the rows' columns of all processes' rollouts, in their order."""
    from accelerate.utils import gather_object

    own: dict[str, Sequence[Any]] = {key: [row[key] for row in inputs] for key in inputs[0] if key not in OF_TRL}
    own |= {"prompts": prompts, "completions": completions, "completion_ids": completion_ids}
    rollouts = gather_object(list(zip(*own.values(), strict=True)))
    return dict(zip(own, map(list, zip(*rollouts, strict=True)), strict=True))


def score_groups(
    function: Callable[..., Any],
    batch: Batch,
    group_size: int,
    *,
    check: Callable[[object], Sequence[Any]],
    run: Callable[[Coroutine[Any, Any, Any]], Any] | None,
    process: tuple[int, int],
    others: Mapping[str, Any],
) -> list[Any]:
    """Return what the function returned for the rollouts of all processes.

    Args:
        function: called with the lists of one group, and with `others`.
        batch: of all processes.
        group_size: G.
        check: makes values of what the function returned for a group; raises RewardError for what it must not return.
        run: awaits; None for a function that is not asynchronous. The groups of a process are then scored at once.
        process: index of this process, and how many there are.
        others: more keyword arguments.
    """
    from accelerate.utils import gather_object

    index, processes = process
    number = len(batch["prompts"]) // group_size
    own = range(index, number, processes)
    parts = [slice(group * group_size, (group + 1) * group_size) for group in own]
    calls = ({name: values[part] for name, values in batch.items()} for part in parts)
    if run is None:
        returned = [function(**call, **others) for call in calls]
    else:
        returned = run(_all(function, [{**call, **others} for call in calls]))
    scored = gather_object([(group, check(values)) for group, values in zip(own, returned, strict=True)])
    return [value for _, values in sorted(scored, key=lambda pair: pair[0]) for value in values]


async def _all(function: Callable[..., Any], calls: Sequence[Mapping[str, Any]]) -> list[Any]:
    return await asyncio.gather(*(function(**call) for call in calls))


def _scalars(returned: Sequence[float | Row]) -> Scalars:
    """Return a number for each completion: of a row the mean of its values, NaN without any."""
    rows = [row.values() if isinstance(row, Mapping) else [row] for row in returned]
    present = [[value for value in row if not math.isnan(value)] for row in rows]
    return [sum(values) / len(values) if values else math.nan for values in present]


def _environment(function: Any) -> Any:
    """Return the class of the environment whose `get_reward` TRL has made a reward function of; None for others."""
    names = getattr(getattr(function, "__code__", None), "co_varnames", ())
    is_trls = str(getattr(function, "__module__", "")).startswith("trl.") and "_env_type" in names
    return function.__defaults__[0] if is_trls and function.__defaults__ else None


def check_before_loading(reward_funcs: Any, config: MethodConfig) -> None:
    """Check names and ranges, as `check_adapters`, of rewards that TRL is given, before it loads a model.

    A reward model has its name from its own configuration: then the check waits for TRL.
    """
    functions = list(reward_funcs) if isinstance(reward_funcs, list | tuple) else [reward_funcs]
    if all(callable(function) and not isinstance(function, nn.Module) for function in functions):
        names = different_names([_name(function) for function in functions])
        check_adapters([*map(RewardAdapter, functions, names)], config)


def _name(function: Callable[..., Any]) -> str:
    """Return the name that TRL gives a reward function."""
    while isinstance(function, partial):
        function = function.func
    return str(getattr(function, "__name__", type(function).__name__))


def check_adapters(adapters: Sequence[RewardAdapter], config: MethodConfig) -> None:
    """Raise RewardError or ConfigError for names and ranges that cannot be used, before anything is generated."""
    ranges, weights = config.mapping("channel_ranges") or {}, config.mapping("channel_weights") or {}
    # Names that an environment's rewards have are known with the first batch.
    is_open = any(adapter.is_open for adapter in adapters)
    functions = [(adapter.name, adapter.declares) for adapter in adapters]
    if is_open:
        check_channels(functions)
    else:
        check_channels(functions, ranges, weights, config.rules())
    without = [
        name
        for adapter in adapters
        for name, channel in zip(channel_names(adapter.name, adapter.declares), adapter.channels, strict=True)
        if not adapter.is_open and channel.range is None and name not in ranges
    ]
    if without and find_method(config.method).needs_range:
        example = json.dumps({name: [0, 1] for name in without})
        raise ConfigError(
            f"method {config.method!r} compares channels by their ranges, and {without} declare none: set the "
            f"lowest and highest value, channel_ranges={example} for rewards between 0 and 1 (or with "
            f"@scalar_reward(range=...) above the function); on the command line --channel_ranges '{example}'"
        )


def check_tags(adapters: Sequence[RewardAdapter], processor: Any, asks_for_tools: bool) -> None:
    """Raise ConfigError for a reward of tags that the tokenizer drops from what it decodes.

    Warns where the chat template asks for calls in another form beside that of the reward.
    """
    for adapter in (adapter for adapter in adapters if adapter.declares.tags):
        check_decoded(adapter.name, adapter.declares.tags, getattr(processor, "tokenizer", processor))
        if asks_for_tools:
            logger.warning(
                "%s reads calls between %s, as its prompts must ask for; the rows or the trainer have tools too, and "
                "calls in the form of the model's chat template are not rewarded",
                adapter.name,
                ", ".join(adapter.declares.tags),
            )


def different_names(names: Sequence[str]) -> list[str]:
    """Return names of which none is there twice: closures and lambdas share theirs.

    >>> different_names(["long", "<lambda>", "<lambda>", "<lambda>_2"])
    ['long', '<lambda>', '<lambda>_3', '<lambda>_2']
    """
    different: list[str] = []
    for name in names:
        numbered = (f"{name}_{number}" for number in count(2))
        free = (new for new in numbered if new not in names and new not in different)
        different.append(name if name not in different else next(free))
    return different
