"""What `rvpo eval` does with a task and a model: inspect's evaluation, gone on with; what is missing asked again."""

import argparse
import re
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from rvpo.errors import ConfigError
from rvpo.evals.logs import MODEL, OWN

__all__ = ["LOCAL", "SERVED", "Target", "evaluated", "forget_missing"]

LOCAL = ("batch_size", "device", "dtype", "template")
SERVED = ("concurrency", "timeout", "retry_minutes", "api_key_env", "extra", "template")
"""Options of one kind of model only."""
DRAWN = ("temperature", "top_p", "max_tokens", "seed")
AT_ONCE = 64
"""Samples on their way: while some wait for the judge, others can be answered."""
RAISED = re.compile(r"(?s)\w+Error\(([\"'])(.*)\1\)")
"""How inspect shows an exception."""
FAILING = 0.2
"""Share of the samples of a task that may end in an error before inspect stops it."""


class Target(NamedTuple):
    """One model to be evaluated."""

    model: str
    """Folder, name on the server, or PROVIDER/NAME."""
    label: str
    step: int | None
    is_own: bool
    """It is answered for by this package's providers."""


def evaluated(
    task: Any, arguments: Mapping[str, Any], target: Target, folder: Path, options: argparse.Namespace
) -> Path:
    """Evaluate a model on a task, or finish what was begun in the folder; return the log's file.

    Args:
        task: a task, or its name.
        arguments: of a task that is a name.
        target: the model.
        folder: of the logs.
        options: of the command.

    Raises:
        ConfigError: the model or the task cannot be used, or the evaluation was stopped; what was finished is kept.
    """
    from inspect_ai import eval_set

    model = _model(target, options)
    drawn = {name: value for name in DRAWN if (value := getattr(options, name)) is not None}
    try:
        _, logs = eval_set(
            task,
            log_dir=str(folder),
            model=model,
            task_args=dict(arguments),
            limit=options.limit if isinstance(task, str) else None,
            metadata={MODEL: {"label": target.label, "step": target.step}},
            fail_on_error=FAILING if isinstance(task, str) else True,
            continue_on_fail=None,
            retry_attempts=0,
            retry_immediate=False,
            max_tasks=1,
            max_samples=AT_ONCE,
            max_connections=model.api.max_connections() if target.is_own else None,
            log_buffer=1,  # a kill loses only what was being answered
            log_dir_allow_dirty=True,
            log_realtime=False,
            display="rich" if sys.stdout.isatty() else "plain",
            **drawn,
        )
    except (OSError, ImportError, ValueError) as error:  # of a task of somebody else: data that cannot be loaded
        raise ConfigError(f"{getattr(task, 'name', task)}: {error}") from error
    finally:
        if target.is_own and not options.base_url:
            model.api.close()  # one model in memory at a time
    (log,) = logs
    if log.status != "success":
        why = log.error.message if log.error is not None else f"its status is {log.status!r}"
        named = RAISED.fullmatch(why)
        raise ConfigError(f"{target.label}: {named[2] if named else why}".replace("\\'", "'"))
    file = Path(log.location.removeprefix("file://"))
    for other in folder.glob(f"*_{log.eval.task_id}.eval"):
        if other.name != file.name:
            other.unlink()  # what a kill left behind, whose samples are in the finished log
    return file


def _model(target: Target, options: argparse.Namespace) -> Any:
    """Return inspect's model: on a server, in a folder, or of any provider."""
    from inspect_ai.model import get_model

    import rvpo.evals.registry  # noqa: F401  # the providers, also where the package's entry point is not installed

    names = SERVED if options.base_url else LOCAL
    chosen = {name: value for name in names if (value := getattr(options, name)) is not None}
    if options.base_url:
        if find_spec("openai") is None:
            raise ConfigError("a model on a server needs openai, not installed here: pip install 'rvpo[evals]'")
        return get_model(f"rvpo-server/{target.model}", base_url=options.base_url, memoize=False, **chosen)
    if not target.is_own:
        try:
            return get_model(target.model, memoize=False, **chosen)
        except ValueError as error:
            raise ConfigError(f"{target.model} is neither a folder nor a model of a provider: {error}") from error
    missing = [name for name in ("torch", "transformers") if find_spec(name) is None]
    if missing:
        raise ConfigError(f"a local model needs {' and '.join(missing)}: pip install 'rvpo[trl]'")
    from rvpo.evals.models import LocalModel

    return get_model(f"rvpo/{target.model}", memoize=False, weights=LocalModel(target.model).weights, **chosen)


def forget_missing(folder: Path) -> None:
    """Take the samples with something missing out of the logs in a folder, so that they are asked for again."""
    from inspect_ai.log import read_eval_log, write_eval_log

    for file in sorted(folder.glob("*.eval")):
        log = read_eval_log(str(file))
        kept = [sample for sample in log.samples or () if not _is_missing(sample, OWN in (log.eval.metadata or {}))]
        if log.samples and len(kept) < len(log.samples):
            log.samples, log.status, log.results, log.reductions = kept, "cancelled", None, None
            write_eval_log(log, str(file))


def _is_missing(sample: Any, is_own: bool) -> bool:
    scores = (sample.scores or {}).values()
    lacks = any((score.metadata or {}).get("missing") for score in scores) if is_own else not scores
    return sample.error is not None or lacks
