"""`rvpo eval`: a model, or every checkpoint of a training run, on any task of inspect; killed, it goes on."""

import argparse
import inspect
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

from rvpo.cli.laboratory import laboratory_command
from rvpo.cli.options import HelpfulParser
from rvpo.errors import ConfigError
from rvpo.evals.logs import MODEL, OWN
from rvpo.text import listed

__all__ = ["main"]

CHECKPOINT = re.compile(r"checkpoint-(\d+)")
EXAMPLES = """
examples:
  rvpo eval tools --model runs/quickstart/runs/tools-gdpo-0
  rvpo eval healthbench --data oss_eval.jsonl --model runs/rvpo --checkpoints \\
      --judge Qwen/Qwen3-32B --judge-url http://localhost:8001/v1
  rvpo eval gpqa --data gpqa_diamond.csv --model runs/rvpo/checkpoint-300 --repeats 4
  rvpo eval rlla --data rlla_4k_test80.parquet --model my-model --base-url http://localhost:8000/v1
  rvpo eval inspect_evals/gsm8k inspect_evals/mbpp --model runs/rvpo --checkpoints last
  rvpo eval mine.py@words -T number=5 --model openai/gpt-4.1

A TASK is one of this package's (healthbench, gpqa, rlla, ifeval, bfcl, and with the laboratory the embedded ones),
whose own options 'rvpo eval TASK --help' lists, or whatever `inspect eval` takes, with -T as there. Interrupted or
killed, it goes on with the same command. Results are logs of inspect (`inspect view`).
Then: rvpo compare. docs/evaluation.md has every rule.
"""


def _mapping(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"needs a JSON object, got {text!r}")
    return value


def _task_argument(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"needs NAME=VALUE, got {text!r}")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


Option = tuple[Callable[[str], Any], str, str]
OPTIONS: Mapping[str, Mapping[str, Option]] = {
    "model": {
        "--model": (str, "MODEL", "folder of a model or LoRA adapters, name at --base-url, inspect's PROVIDER/NAME"),
        "--base-url": (str, "URL", "OpenAI-compatible server of the model"),
        "--label": (str, "NAME", "in tables (default: that of the folder or model)"),
        "--step": (int, "N", "of training, for a checkpoint that a server serves"),
        "--batch-size": (int, "N", "local: questions at once (default: 16)"),
        "--device": (str, "DEVICE", "local: cpu, cuda, cuda:1 (default: cuda if there is one)"),
        "--dtype": (str, "TYPE", "local: of the weights, as bfloat16 (default: as saved)"),
        "--concurrency": (int, "N", "server: calls at once (default: 64)"),
        "--timeout": (float, "S", "server: seconds for one call (default: 600)"),
        "--retry-minutes": (float, "M", "server: try again so long (default: 10)"),
        "--api-key-env": (str, "NAME", "server: variable of the key (default: OPENAI_API_KEY)"),
        "--extra": (_mapping, "JSON", "server: further fields of a request"),
        "--template": (_mapping, "JSON", 'for the chat template, as {"enable_thinking": false}'),
    },
    "answers and results": {
        "--temperature": (float, "T", "0: the likeliest token (default: the task's)"),
        "--top-p": (float, "P", "(default: 1, all tokens)"),
        "--max-tokens": (int, "N", "of an answer (default: the task's)"),
        "--seed": (int, "N", "of answers, shuffles and drawn prompts (default: 0)"),
        "--limit": (int, "N", "the first N rows only; of bfcl N cases of a category"),
        "--out": (Path, "FOLDER", "logs (default: results/TASK/LABEL)"),
    },
}
LOCAL = ("batch_size", "device", "dtype", "template")
SERVED = ("concurrency", "timeout", "retry_minutes", "api_key_env", "extra", "template")
"""Options of one kind of model only."""
SAMPLING = ("temperature", "top_p", "max_tokens", "seed")
AT_ONCE = 64
"""Samples on their way: while some wait for the judge, others can be answered."""
RAISED = re.compile(r"(?s)\w+Error\(([\"'])(.*)\1\)")
"""How inspect shows an exception."""
FAILING = 0.2
"""Share of the samples of a task of somebody else that may end in an error before inspect stops it."""
Task = Callable[..., Any]
Tasks = Mapping[str, Task | None]
"""Tasks by name; None for those that inspect is to find."""


class Target(NamedTuple):
    """A model to be evaluated."""

    model: str
    """Folder, name on the server, or PROVIDER/NAME."""
    label: str
    step: int | None
    is_own: bool
    """It is answered for by this package's providers."""


def main(arguments: Sequence[str]) -> int:
    """Run the command."""
    if find_spec("inspect_ai") is None:
        raise ConfigError("rvpo eval needs inspect-ai, not installed here: pip install 'rvpo[evals]'")
    tasks = {name: _task(name) for name in takewhile(lambda word: not word.startswith("-"), arguments)}
    parser = _parser(tasks)
    options, unknown = parser.parse_known_args(arguments)
    if list(tasks) != options.tasks:
        raise ConfigError(f"tasks come first, then options: rvpo eval {' '.join(options.tasks)} --model ...")
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    own_arguments = {name: _arguments(name, task, options) for name, task in tasks.items()}
    _check(options, tasks, own_arguments)
    targets = _targets(options)
    made = {name: _made(name, task, own_arguments[name], options) for name, task in tasks.items()}
    try:
        for name, task in made.items():
            _run(name, task, targets, options)
    except KeyboardInterrupt:
        print("interrupted; go on with the same command")
        return 130
    return 0


def _parser(tasks: Tasks) -> argparse.ArgumentParser:
    """Return the command's parser, with the options that tasks of this package have of their own."""
    parser = HelpfulParser(
        prog="rvpo eval",
        description="Evaluate a model, or all checkpoints of a training run, on tasks of inspect.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("tasks", nargs="+", metavar="TASK", help="as ifeval, rvpo/ifeval or inspect_evals/gsm8k")
    for title, options in OPTIONS.items():
        group = parser.add_argument_group(title)
        for flag, (kind, shown, text) in options.items():
            group.add_argument(flag, type=kind, metavar=shown, help=text, required=flag == "--model")
    which = "--model is a training folder: its checkpoints, all (default), last, or steps as 100,200"
    parser.add_argument("--checkpoints", nargs="?", const="all", metavar="WHICH", help=which)
    parser.add_argument("--retry-missing", action="store_true", help="ask again for lost answers and verdicts")
    parser.add_argument(
        "-T", dest="task_args", action="append", type=_task_argument, default=[], metavar="NAME=VALUE",
        help="argument of a task that is not this package's",
    )  # fmt: skip
    parser.set_defaults(seed=0)
    for name, task in tasks.items():
        group = parser.add_argument_group(f"options of {name}", task and inspect.getdoc(task))
        for key, parameter in _parameters(task).items():
            if _flag(key) not in parser._option_string_actions:
                is_list = parameter.annotation not in (str, int, float)
                group.add_argument(
                    _flag(key),
                    type=str if is_list else parameter.annotation,
                    nargs="+" if is_list else None,
                    metavar=key.upper(),
                    default=argparse.SUPPRESS,
                    required=parameter.default is parameter.empty,
                )
    return parser


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _parameters(task: Task | None) -> Mapping[str, inspect.Parameter]:
    return {} if task is None else inspect.signature(task).parameters


def _task(name: str) -> Task | None:
    """Return a task of this package or of the laboratory; None for any other, which inspect is to find."""
    from rvpo.evals.tasks import TASKS

    package, _, short = name.rpartition("/")
    if package not in ("", "rvpo"):
        return None
    if short in TASKS:
        own: Task = TASKS[short]
        return own
    if Path(name.partition("@")[0]).exists():
        return None
    embedded: Mapping[str, Task] = laboratory_command(
        "bench", f"a task other than {listed(list(TASKS))}, as {name!r},"
    ).embedded_tasks()
    if short not in embedded:
        raise ConfigError(f"there is no task {name!r}; there are {', '.join([*TASKS, *embedded])} and PACKAGE/NAME")
    return embedded[short]


def _arguments(name: str, task: Task | None, options: argparse.Namespace) -> dict[str, Any]:
    """Return what a task is called with: its own options, seed and limit, or -T. Raises ConfigError for a limit of
    a task without rows."""
    if task is None:
        return dict(options.task_args)
    parameters = _parameters(task)
    if options.limit is not None and "limit" not in parameters:
        flags = ", ".join(_flag(key) for key in parameters if key != "seed")
        raise ConfigError(f"{name} has no rows for --limit; its own options are {flags}")
    return {key: getattr(options, key) for key in parameters if getattr(options, key, None) is not None}


def _check(options: argparse.Namespace, tasks: Tasks, own_arguments: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise ConfigError for options that do not go together."""
    kinds = SERVED if options.base_url else LOCAL
    foreign = [name for name in {*LOCAL, *SERVED} - set(kinds) if getattr(options, name) is not None]
    if foreign:
        kind = "of local models; leave out --base-url" if options.base_url else "of servers; give --base-url"
        raise ConfigError(f"{', '.join(map(_flag, sorted(foreign)))}: {kind}")
    if options.base_url and options.checkpoints:
        raise ConfigError("--checkpoints are folders; evaluate what a server serves one by one, with --step")
    if options.task_args and None not in tasks.values():
        raise ConfigError(f"-T is for tasks of other packages; {', '.join(tasks)} take options, see --help")
    repeats = min(arguments.get("repeats", 1) for arguments in own_arguments.values())
    if repeats < 1 or options.seed < 0:
        raise ConfigError(f"--repeats must be at least 1 and --seed at least 0, got {repeats}, {options.seed}")
    if options.limit is not None and options.limit < 1:
        raise ConfigError(f"--limit must be at least 1, got {options.limit}")


def _made(name: str, task: Task | None, arguments: Mapping[str, Any], options: argparse.Namespace) -> Any:
    """Return a task with its arguments; of a task that is inspect's to find, the name."""
    if task is None:
        return name
    made = task(**arguments)
    temperature = made.config.temperature if options.temperature is None else options.temperature
    if arguments.get("repeats", 1) > 1 and temperature == 0 and "gpqa" not in name:  # which shuffles its options
        raise ConfigError("at temperature 0 all --repeats are the same answer; give a --temperature above 0")
    return made


def _targets(options: argparse.Namespace) -> list[Target]:
    """Return the models that are asked for; raises ConfigError for a training folder without checkpoints."""
    model = options.model if options.base_url else str(Path(options.model))
    label = _label(options)
    if not options.checkpoints:
        named = CHECKPOINT.fullmatch(Path(model).name)
        step = options.step if options.step is not None or not named or options.base_url else int(named[1])
        is_own = bool(options.base_url) or "/" not in model or Path(model).exists()
        return [Target(model, label, step, is_own)]
    return [
        Target(str(folder), f"{label} {folder.name}", step, is_own=True)
        for step, folder in _checkpoints(Path(model), options.checkpoints)
    ]


def _label(options: argparse.Namespace) -> str:
    if options.label or options.base_url or not Path(options.model).exists():
        return str(options.label or options.model)
    path = Path(options.model).resolve()
    return f"{path.parent.name}-{path.name}" if CHECKPOINT.fullmatch(path.name) else path.name


def _checkpoints(folder: Path, which: str) -> list[tuple[int, Path]]:
    """Return (step, folder) of the wanted checkpoints, by step."""
    named = [(CHECKPOINT.fullmatch(place.name), place) for place in folder.glob("checkpoint-*") if place.is_dir()]
    by_step = {int(match[1]): place for match, place in named if match}
    if not by_step:
        raise ConfigError(f"{folder} has no folder checkpoint-N; leave out --checkpoints to evaluate a model's folder")
    if which == "all":
        return sorted(by_step.items())
    try:
        steps = [max(by_step)] if which == "last" else [int(text) for text in which.split(",")]
    except ValueError:
        raise ConfigError(f"--checkpoints takes all, last, or steps as 100,200; got {which!r}") from None
    absent = [step for step in steps if step not in by_step]
    if absent:
        raise ConfigError(f"{folder} has no checkpoint {absent[0]}; it has {', '.join(map(str, sorted(by_step)))}")
    return sorted((step, by_step[step]) for step in set(steps))


def _run(name: str, task: Any, targets: Sequence[Target], options: argparse.Namespace) -> None:
    """Evaluate every model on a task, or go on with what was begun, and show the scores."""
    from rvpo.cli.eval_view import print_summaries, summary_of
    from rvpo.evals.logs import read_log

    label = re.sub(r"[^\w.=+-]+", "-", _label(options))
    folder = options.out or Path("results") / name.rpartition("/")[2] / label
    if options.retry_missing:
        _forget_missing(folder)
    files = [_evaluated(task, target, folder, options) for target in targets]
    print_summaries([summary_of(read_log(file)) for file in files])
    print(f"logs: {folder}, to be seen by: inspect view --log-dir {folder}")


def _evaluated(task: Any, target: Target, folder: Path, options: argparse.Namespace) -> Path:
    """Evaluate a model on a task, or finish what was begun in the folder; return the log's file.

    Raises ConfigError if the model or the task cannot be used, or the evaluation was stopped; what was finished is
    kept.
    """
    from inspect_ai import eval_set

    model, is_foreign = _model(target, options), isinstance(task, str)
    try:
        _, logs = eval_set(
            task,
            log_dir=str(folder),
            model=model,
            task_args=dict(options.task_args) if is_foreign else {},
            limit=options.limit if is_foreign else None,
            metadata={MODEL: {"label": target.label, "step": target.step}},
            fail_on_error=FAILING if is_foreign else True,
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
            **{name: value for name in SAMPLING if (value := getattr(options, name)) is not None},
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

    import rvpo.evals.tasks  # noqa: F401  # the providers, also where the package's entry point is not installed

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


def _forget_missing(folder: Path) -> None:
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
