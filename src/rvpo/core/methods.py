"""Every method as an object, in one table; a method of your own is one more object, or just its function."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from rvpo.core import aggregations, batch_statistics, reweighted
from rvpo.core.aggregations import Aggregate
from rvpo.core.batch_statistics import BatchStatistic
from rvpo.errors import ConfigError, unknown_name

__all__ = ["METHODS", "Aggregation", "Method", "find_method"]

Aggregation = Callable[..., Aggregate]
"""`(channels, k, **options) -> Aggregate`."""


@dataclass(frozen=True)
class Method:
    """How many reward channels become one advantage; docs/add-a-method.md adds one of your own."""

    function: Aggregation
    """`(channels, k, **options) -> Aggregate`; its options are its keyword-only parameters."""
    whitens: bool = True
    """The advantages are whitened over the batch. False: the method sets their scale inside the group."""
    takes_k: bool = False
    """The advantages depend on the risk coefficient k."""
    needs_range: bool = False
    """Rewards are compared between channels, so they need a range: [0, 1] where none is declared."""
    default_k: float = 1.0
    """k where none is given."""
    of_batch: Mapping[str, BatchStatistic] = field(default_factory=dict)
    """Options that are statistics of the whole batch, made by these functions where they are not given."""

    def __post_init__(self) -> None:
        """Raise ConfigError unless the function can be called as a method's."""
        try:
            inspect.signature(self.function).bind(None, 1.0)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"a method is a function (channels, k, *, options...), and {self.function!r} is not: {error}"
            ) from None

    @property
    def name(self) -> str:
        """The function's name, for messages."""
        return getattr(self.function, "__name__", repr(self.function))

    def check_options(self, options: Iterable[str]) -> None:
        """Raise ConfigError for an option that the function does not take."""
        parameters = inspect.signature(self.function).parameters.values()
        known = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
        for option in options:
            if option not in known:
                raise ConfigError(
                    f"method {self.name!r} has no option {option!r}; it takes {', '.join(known) or 'no options'}"
                )


METHODS: dict[str, Method] = {
    "grpo": Method(aggregations.grpo, whitens=False),
    "gdpo": Method(aggregations.gdpo),
    "rvpo": Method(aggregations.rvpo, takes_k=True),
    "rvpo_policy": Method(aggregations.rvpo_policy, takes_k=True, needs_range=True, default_k=2.0),
    "hard_min": Method(aggregations.hard_min),
    "mean_variance": Method(aggregations.mean_variance, takes_k=True),
    "corr_grpo": Method(aggregations.corr_grpo, whitens=False),
    "dvao": Method(aggregations.dvao, whitens=False),
    "gd2po": Method(aggregations.gd2po),
    "tchebycheff": Method(aggregations.tchebycheff, takes_k=True, needs_range=True),
    "cvar": Method(aggregations.cvar),
    "sa_mrpo": Method(reweighted.sa_mrpo, needs_range=True, of_batch={"saturation": batch_statistics.saturation}),
    "saw": Method(reweighted.saw, needs_range=True, of_batch={"variation": batch_statistics.variation}),
    "dara": Method(reweighted.dara, of_batch={"density": batch_statistics.density}),
    "maxrl": Method(reweighted.maxrl, whitens=False, needs_range=True),
    "pow3r": Method(reweighted.pow3r, whitens=False, needs_range=True),
}
"""Every method by its public name."""


def find_method(method: object, options: Iterable[str] = ()) -> Method:
    """Return a method by its name in `METHODS`, as "package.module:function", or as the function itself.

    A function of one's own has the fields that `Method` has by default, and takes k unless its k has a default.

    >>> find_method("rvpo_policy").default_k
    2.0
    >>> find_method("rvpo.core.aggregations:cvar").name
    'cvar'

    Raises:
        ConfigError: an unknown name, a path that cannot be imported, something that is not a method, or one that does
            not take the options.
    """
    if isinstance(method, str) and method not in METHODS:
        if ":" not in method:
            raise unknown_name("method", method, [*METHODS, "package.module:function"])
        method = _imported(method)
    known = METHODS[method] if isinstance(method, str) else _as_method(method)
    known.check_options(options)
    return known


def _as_method(method: object) -> Method:
    """Return a method as it is, and a function as one."""
    if isinstance(method, Method):
        return method
    if not callable(method):
        raise ConfigError(f"a method is a name, a function or a rvpo.Method, got {method!r}")
    parameters = [*inspect.signature(method).parameters.values()]
    return Method(method, takes_k=len(parameters) > 1 and parameters[1].default is inspect.Parameter.empty)


def _imported(path: str) -> Any:
    """Return what "package.module:name" names; raise ConfigError if that cannot be imported."""
    module, _, name = path.partition(":")
    try:
        value = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"cannot load method {path!r}: {error}; write package.module:function") from error
    if isinstance(value, str):
        raise ConfigError(f"method {path!r} is the text {value!r}, not a function or a rvpo.Method")
    return value
