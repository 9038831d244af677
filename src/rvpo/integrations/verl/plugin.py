"""RVPO in verl, from outside: the estimator `rvpo`, and what brings the reward channels to it.

Loaded by `import verl` in every process, through the entry point group `verl.plugins` (whose errors verl swallows)
or `VERL_USE_EXTERNAL_MODULES=rvpo.integrations.verl.plugin` (whose errors it does not). Imports nothing of verl's
trainers itself: each hook waits until verl imports the module that it sits in.

What verl hands to an estimator are the summed rewards. The channels are in the batch that `compute_advantage` gets
(the legacy trainer), or in TransferQueue (the default trainer), so both callers are wrapped. Anything but
`algorithm.adv_estimator=rvpo` passes through unchanged.
"""

import importlib.abc
import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

from rvpo.integrations.versions import check_verl

__all__ = ["AfterImport", "install"]

Hook = Callable[[ModuleType], None]


def _hooks() -> dict[str, Hook]:
    from rvpo.integrations.verl import hooks

    return {
        "verl.trainer.ppo.core_algos": hooks.register_estimator,
        "verl.trainer.ppo.metric_utils": hooks.log_metrics,
        "verl.trainer.ppo.ray_trainer": hooks.bring_channels,
        "verl.trainer.ppo.v1.trainer_base": hooks.bring_queued_channels,
        "verl.experimental.separation.ray_trainer": hooks.know_step,
        "verl.experimental.reward_loop.reward_loop": hooks.restart_workers,
    }


class AfterImport(importlib.abc.MetaPathFinder):
    """Runs a hook on a module right after the module has run, before whoever imports it goes on."""

    def __init__(self, hooks: dict[str, Hook]) -> None:
        self.hooks = hooks

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return the spec that the other finders have, with a loader that runs the hook; None for other modules."""
        hook = self.hooks.pop(name, None)  # no longer there for the search below
        spec = None if hook is None else importlib.util.find_spec(name)
        if hook is None or spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def then_hook(module: ModuleType) -> None:
            execute(module)
            hook(module)

        spec.loader.exec_module = then_hook  # type: ignore[method-assign]
        return spec


def install() -> None:
    """Install the hooks in this process, once. Raises IntegrationError unless a release of verl fits."""
    check_verl()
    if any(isinstance(finder, AfterImport) for finder in sys.meta_path):
        return
    hooks = _hooks()
    for name in [name for name in hooks if name in sys.modules]:
        hooks.pop(name)(sys.modules[name])
    sys.meta_path.insert(0, AfterImport(hooks))


install()
