"""`rvpo eval`: a model, or every checkpoint of a training run, on one benchmark; killed or not, the same results."""

import argparse
import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rvpo.cli.eval_benchmarks import Entry, benchmarks
from rvpo.errors import ConfigError

if TYPE_CHECKING:
    from rvpo.evals.benchmark import Benchmark
    from rvpo.evals.models import Model, Sampling

__all__ = ["main"]

CHECKPOINT = re.compile(r"checkpoint-(\d+)")
LOCAL = ("batch_size", "device", "dtype")
SERVED = ("concurrency", "timeout", "retry_minutes", "api_key_env", "extra")
"""Options of one kind of model only."""

EXAMPLES = """
examples:
  rvpo eval rubric --model runs/quickstart/runs/rubric-gdpo-0
  rvpo eval healthbench --data oss_eval.jsonl --model runs/rvpo --checkpoints \\
      --judge Qwen/Qwen3-32B --judge-url http://localhost:8001/v1
  rvpo eval gpqa --data gpqa_diamond.csv --model runs/rvpo/checkpoint-300 --repeats 4
  rvpo eval rlla --data rlla_4k_test80.parquet --model my-model --base-url http://localhost:8000/v1

Interrupted or killed, it goes on with the same command. Then: rvpo compare, rvpo tables. 'rvpo eval BENCHMARK --help'
tells a benchmark's options; docs/evaluation.md has every rule, and the commands for the rows of the paper. The
embedded tasks, as rubric, come with the laboratory, rvpo-lab.
"""


def main(arguments: Sequence[str]) -> int:
    """Run the command."""
    known = benchmarks(next(iter(arguments), ""))
    options = _parser(known).parse_args(arguments)
    if find_spec("rich") is None:
        raise ConfigError("rvpo eval needs rich, not installed here: pip install 'rvpo[evals]'")
    entry = known[options.benchmark]
    _check(options, entry)
    sampling = _sampling(options, entry)
    targets = _targets(options)
    models = [_model(target, sampling, options) for target in targets]
    benchmark = entry.build(options)
    try:
        summaries = asyncio.run(_evaluate(benchmark, targets, models, retry_missing=options.retry_missing))
    except KeyboardInterrupt:
        print("interrupted; go on with the same command")
        return 130
    from rvpo.cli.eval_view import print_summaries

    print_summaries(summaries)
    if benchmark.note():
        print(benchmark.note())
    print(f"results: {targets[0].out if len(targets) == 1 else targets[0].out.parent}")
    return 0


def _parser(known: Mapping[str, Entry]) -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="rvpo eval",
        description="Evaluate a model, or all checkpoints of a training run, on a benchmark.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(dest="benchmark", required=True, metavar="BENCHMARK")
    for name, entry in known.items():
        parser = commands.add_parser(name, help=entry.summary.replace("%", "%%"), description=entry.summary)
        entry.add_options(parser)
        _add_model(parser)
        _add_sampling(parser, entry)
    return top


def _add_model(parser: argparse.ArgumentParser) -> None:
    model = parser.add_argument_group("model")
    model.add_argument(
        "--model", required=True, help="folder with a model or LoRA adapters, or with --base-url a name there"
    )
    model.add_argument("--base-url", metavar="URL", help="OpenAI-compatible server of the model")
    model.add_argument(
        "--checkpoints",
        nargs="?",
        const="all",
        metavar="WHICH",
        help="--model is a training folder: evaluate its checkpoints, all (default), last, or steps as 100,200",
    )
    model.add_argument("--label", help="name in tables (default: that of the folder or model)")
    model.add_argument("--step", type=int, help="of training, for a checkpoint that a server serves")
    model.add_argument("--batch-size", type=int, metavar="N", help="local: questions at once (default: 16)")
    model.add_argument("--device", help="local: cpu, cuda, cuda:1 (default: cuda if there is one)")
    model.add_argument("--dtype", help="local: of the weights, as bfloat16 (default: as saved)")
    model.add_argument("--concurrency", type=int, metavar="N", help="server: calls at once (default: 64)")
    model.add_argument("--timeout", type=float, metavar="S", help="server: seconds for one call (default: 600)")
    model.add_argument("--retry-minutes", type=float, metavar="M", help="server: try again so long (default: 10)")
    model.add_argument("--api-key-env", metavar="NAME", help="server: variable of the key (default: OPENAI_API_KEY)")
    model.add_argument("--extra", type=_mapping, metavar="JSON", help="server: further fields of a request")


def _add_sampling(parser: argparse.ArgumentParser, entry: Entry) -> None:
    run = parser.add_argument_group("answers and results")
    run.add_argument(
        "--temperature",
        type=float,
        default=entry.temperature,
        metavar="T",
        help="0: the likeliest token (default: %(default)s)",
    )
    run.add_argument("--top-p", type=float, default=1.0, metavar="P", help="(default: 1, all tokens)")
    run.add_argument(
        "--max-tokens", type=int, default=entry.max_tokens, metavar="N", help="of an answer (default: %(default)s)"
    )
    run.add_argument(
        "--template", type=_mapping, metavar="JSON", help='for the chat template, as {"enable_thinking": false}'
    )
    run.add_argument("--repeats", type=int, default=1, metavar="N", help="answers per item (default: 1)")
    run.add_argument("--seed", type=int, default=0, help="of answers, shuffles and drawn prompts (default: 0)")
    run.add_argument("--out", type=Path, metavar="FOLDER", help="results (default: results/BENCHMARK/LABEL)")
    run.add_argument("--retry-missing", action="store_true", help="ask again for lost answers and verdicts")


def _mapping(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"needs a JSON object, got {text!r}")
    return value


def _check(options: argparse.Namespace, entry: Entry) -> None:
    """Raise ConfigError for options that do not go together."""
    foreign = LOCAL if options.base_url else SERVED
    given = [f"--{name.replace('_', '-')}" for name in foreign if getattr(options, name) is not None]
    if given:
        kind = "of local models; leave out --base-url" if options.base_url else "of servers; give --base-url"
        raise ConfigError(f"{', '.join(given)}: {kind}")
    if options.base_url and options.checkpoints:
        raise ConfigError("--checkpoints are folders; evaluate what a server serves one by one, with --step")
    if options.repeats < 1 or options.seed < 0:
        raise ConfigError(f"--repeats must be at least 1 and --seed at least 0, got {options.repeats}, {options.seed}")
    if options.repeats > 1 and options.temperature == 0 and not entry.varies:
        raise ConfigError("at temperature 0 all --repeats are the same answer; give a --temperature above 0")


def _sampling(options: argparse.Namespace, entry: Entry) -> "Sampling":
    from rvpo.evals.models import Sampling

    return Sampling(options.temperature, options.top_p, options.max_tokens, options.template or {})


@dataclass(frozen=True)
class Target:
    """One model to be evaluated."""

    model: str
    """Folder, or name on the server."""
    label: str
    step: int | None
    out: Path


def _targets(options: argparse.Namespace) -> list[Target]:
    """Return the models that are asked for; raises ConfigError for a training folder without checkpoints."""
    given = options.model if options.base_url else str(Path(options.model))
    label = options.label or _label(given, bool(options.base_url))
    out = options.out or Path("results") / options.benchmark / re.sub(r"[^\w.=+-]+", "-", label)
    if not options.checkpoints:
        named = CHECKPOINT.fullmatch(Path(given).name)
        step = options.step if options.step is not None or not named or options.base_url else int(named[1])
        return [Target(given, label, step, out)]
    return [
        Target(str(folder), f"{label} {folder.name}", step, out / folder.name)
        for step, folder in _checkpoints(Path(given), options.checkpoints)
    ]


def _label(model: str, is_served: bool) -> str:
    path = Path(model).resolve()
    if is_served or not CHECKPOINT.fullmatch(path.name):
        return model if is_served else path.name
    return f"{path.parent.name}-{path.name}"


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


async def _evaluate(
    benchmark: "Benchmark", targets: Sequence[Target], models: Sequence["Model"], *, retry_missing: bool
) -> list[dict[str, Any]]:
    """Evaluate one model after the other; return their summaries."""
    from rvpo.cli.eval_view import EvalView
    from rvpo.evals.run import evaluate

    summaries = []
    try:
        with EvalView(len(targets)) as view:
            for target, model in zip(targets, models, strict=True):
                summary = await evaluate(
                    benchmark,
                    model,
                    target.out,
                    label=target.label,
                    step=target.step,
                    retry_missing=retry_missing,
                    progress=view.of(target.label),
                )
                summaries.append(summary)
    finally:
        await benchmark.close()
    return summaries


def _model(target: Target, sampling: "Sampling", options: argparse.Namespace) -> "Model":
    names = SERVED if options.base_url else LOCAL
    chosen: Mapping[str, Any] = {name: value for name in names if (value := getattr(options, name)) is not None}
    if not options.base_url:
        missing = [name for name in ("torch", "transformers") if find_spec(name) is None]
        if missing:
            raise ConfigError(f"a local model needs {' and '.join(missing)}: pip install 'rvpo[trl]'")
        from rvpo.evals.models import LocalModel

        return LocalModel(target.model, sampling, **chosen)
    if find_spec("openai") is None:
        raise ConfigError("a model on a server needs openai, not installed here: pip install 'rvpo[judge]'")
    from rvpo.evals.endpoint import Endpoint

    return Endpoint(target.model, options.base_url, sampling, **chosen)
