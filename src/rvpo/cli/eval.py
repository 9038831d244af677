"""`rvpo eval`: a model, or every checkpoint of a training run, on any task of inspect; killed, it goes on."""

import argparse
import inspect
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rvpo.cli.eval_run import LOCAL, SERVED, Target, evaluated, forget_missing
from rvpo.cli.laboratory import laboratory_command
from rvpo.cli.options import HelpfulParser
from rvpo.errors import ConfigError
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

A TASK is one of this package's (healthbench, gpqa, rlla, ifeval, bfcl, and with the laboratory the embedded ones),
or whatever `inspect eval` takes; an option that is not below is the task's own, and 'rvpo eval TASK --help' tells
them. Interrupted or killed, it goes on with the same command. Results are logs of inspect (`inspect view`).
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


Option = tuple[Callable[[str], Any], str, str]
OPTIONS: Mapping[str, Mapping[str, Option]] = {
    "model": {
        "--model": (
            str,
            "MODEL",
            "folder with a model or LoRA adapters, a name at --base-url, or inspect's PROVIDER/NAME",
        ),
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
Task = Callable[..., Any]


def main(arguments: Sequence[str]) -> int:
    """Run the command."""
    if find_spec("inspect_ai") is None:
        raise ConfigError("rvpo eval needs inspect-ai, not installed here: pip install 'rvpo[evals]'")
    parser = _parser()
    tasks = {name: _task(name) for name in arguments[: _first_option(arguments)]}
    if tasks and {"-h", "--help"} & set(arguments):
        parser.epilog = "\n".join(_described(name, task) for name, task in tasks.items())
    options, rest = parser.parse_known_args(arguments)
    if list(tasks) != options.tasks:
        raise ConfigError(f"tasks come first, then options: rvpo eval {' '.join(options.tasks)} --model ...")
    given = _task_arguments(tasks, rest, options.limit)
    _check(options, given)
    targets = _targets(options)
    made = {name: _made(name, task, given[name], options) for name, task in tasks.items()}
    try:
        for name, task in made.items():
            _run(name, task, given[name], targets, options)
    except KeyboardInterrupt:
        print("interrupted; go on with the same command")
        return 130
    return 0


def _run(
    name: str, task: Any, given: Mapping[str, Any], targets: Sequence[Target], options: argparse.Namespace
) -> None:
    from rvpo.cli.eval_view import print_summaries, summary_of
    from rvpo.evals.logs import read_log

    folder = _out(options, name)
    if options.retry_missing:
        forget_missing(folder)
    files = [evaluated(task, given, target, folder, options) for target in targets]
    summaries = [summary_of(read_log(file)) for file in files]
    print_summaries(summaries)
    print(f"logs: {folder}, to be seen by: inspect view --log-dir {folder}")


def _made(name: str, task: Task | None, given: Mapping[str, Any], options: argparse.Namespace) -> Any:
    """Return a task with its arguments; of one that is inspect's to find, the name."""
    if task is None:
        return name
    made = task(**given, seed=options.seed)
    temperature = made.config.temperature if options.temperature is None else options.temperature
    if given.get("repeats", 1) > 1 and temperature == 0 and "gpqa" not in name:  # which shuffles its options
        raise ConfigError("at temperature 0 all --repeats are the same answer; give a --temperature above 0")
    return made


def _first_option(arguments: Sequence[str]) -> int:
    return next((place for place, word in enumerate(arguments) if word.startswith("-")), len(arguments))


def _parser() -> argparse.ArgumentParser:
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
    parser.add_argument(
        "--checkpoints",
        nargs="?",
        const="all",
        metavar="WHICH",
        help="--model is a training folder: evaluate its checkpoints, all (default), last, or steps as 100,200",
    )
    parser.add_argument("--retry-missing", action="store_true", help="ask again for lost answers and verdicts")
    parser.set_defaults(seed=0)
    return parser


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


def _parameters(task: Task) -> dict[str, inspect.Parameter]:
    return {name: one for name, one in inspect.signature(task).parameters.items() if name not in ("limit", "seed")}


def _described(name: str, task: Task | None) -> str:
    if task is None:
        return f"{name} is inspect's to describe."
    return f"{name}: {inspect.getdoc(task)}\n\n  its own options: {_flags(_parameters(task))}"


def _flags(names: Iterable[str]) -> str:
    return ", ".join(f"--{name.replace('_', '-')}" for name in names)


def _task_arguments(
    tasks: Mapping[str, Task | None], rest: Sequence[str], limit: int | None
) -> dict[str, dict[str, Any]]:
    """Return the arguments of each task from the options that are not the command's own.

    Raises ConfigError for an option that no task has, and for one that is needed and absent.
    """
    words: dict[str, list[str]] = {}
    for word in rest:
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            words.setdefault(name.replace("-", "_"), []).extend([value] if equals else [])
        elif words:
            words[next(reversed(words))].append(word)
        else:
            raise ConfigError(f"cannot read {word!r}: tasks come first, then options")
    known = {name for task in tasks.values() if task is not None for name in _parameters(task)}
    if None not in tasks.values():
        strange = [name for name in words if name not in known]
        if strange:
            raise ConfigError(
                f"{', '.join(tasks)}: no option {_flags(strange[:1])}; there are {_flags(sorted(known))}"
            )
    given = {}
    for name, task in tasks.items():
        parameters = {} if task is None else _parameters(task)
        given[name] = {
            key: _typed(key, values, parameters.get(key))
            for key, values in words.items()
            if task is None or key in parameters
        }
        absent = [key for key, one in parameters.items() if one.default is one.empty and key not in given[name]]
        if absent:
            raise ConfigError(f"{name} needs {_flags(absent[:1])}")
        if task is not None and limit is not None:
            if "limit" not in inspect.signature(task).parameters:
                raise ConfigError(f"{name} has no rows for --limit; its own options are {_flags(parameters)}")
            given[name]["limit"] = limit
    return given


def _typed(name: str, values: Sequence[str], parameter: inspect.Parameter | None) -> Any:
    """Return the value of an option: as the task's parameter wants it, or as JSON has it."""
    if parameter is not None and parameter.annotation in (int, float):
        try:
            return parameter.annotation(*values)
        except (ValueError, TypeError):
            raise ConfigError(f"{_flags([name])} needs a number, got {' '.join(values)!r}") from None
    if parameter is not None:
        return values[0] if len(values) == 1 else list(values)
    try:
        return json.loads(values[0]) if len(values) == 1 else list(values) or True
    except ValueError:
        return values[0]


def _check(options: argparse.Namespace, given: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise ConfigError for options that do not go together."""
    kinds = SERVED if options.base_url else LOCAL
    foreign = [name for name in {*LOCAL, *SERVED} - set(kinds) if getattr(options, name) is not None]
    if foreign:
        kind = "of local models; leave out --base-url" if options.base_url else "of servers; give --base-url"
        raise ConfigError(f"{_flags(sorted(foreign))}: {kind}")
    if options.base_url and options.checkpoints:
        raise ConfigError("--checkpoints are folders; evaluate what a server serves one by one, with --step")
    for arguments in given.values():
        repeats = arguments.get("repeats", 1)
        if repeats < 1 or options.seed < 0:
            raise ConfigError(f"--repeats must be at least 1 and --seed at least 0, got {repeats}, {options.seed}")
    if options.limit is not None and options.limit < 1:
        raise ConfigError(f"--limit must be at least 1, got {options.limit}")


def _targets(options: argparse.Namespace) -> list[Target]:
    """Return the models that are asked for; raises ConfigError for a training folder without checkpoints."""
    given = options.model if options.base_url else str(Path(options.model))
    label = _label(options)
    if not options.checkpoints:
        named = CHECKPOINT.fullmatch(Path(given).name)
        step = options.step if options.step is not None or not named or options.base_url else int(named[1])
        is_own = bool(options.base_url) or "/" not in given or Path(given).exists()
        return [Target(given, label, step, is_own)]
    return [
        Target(str(folder), f"{label} {folder.name}", step, is_own=True)
        for step, folder in _checkpoints(Path(given), options.checkpoints)
    ]


def _label(options: argparse.Namespace) -> str:
    if options.label or options.base_url or not Path(options.model).exists():
        return str(options.label or options.model)
    path = Path(options.model).resolve()
    return f"{path.parent.name}-{path.name}" if CHECKPOINT.fullmatch(path.name) else path.name


def _out(options: argparse.Namespace, task: str) -> Path:
    label = re.sub(r"[^\w.=+-]+", "-", _label(options))
    return options.out or Path("results") / task.rpartition("/")[2] / label


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
