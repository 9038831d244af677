"""The benchmarks of `rvpo eval`: their own options, how answers are drawn by default, and how each is built."""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rvpo.cli import eval_bfcl
from rvpo.cli.laboratory import laboratory_command
from rvpo.errors import ConfigError
from rvpo.text import listed

if TYPE_CHECKING:
    from rvpo.evals.benchmark import Benchmark

__all__ = ["BENCHMARKS", "Entry", "benchmarks"]


@dataclass(frozen=True)
class Entry:
    """One benchmark of the command line."""

    summary: str
    add_options: Callable[[argparse.ArgumentParser], None]
    """Add what only this benchmark knows."""
    build: Callable[[argparse.Namespace], "Benchmark"]
    """Parsed options -> the benchmark; raises ConfigError for what cannot be used."""
    temperature: float
    """Of the answers, if none is given."""
    max_tokens: int
    """Of an answer, if none is given."""
    varies: bool = False
    """Repeats differ even at temperature 0."""


def _data_option(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("--data", required=True, metavar="FILE", help=text)
    parser.add_argument("--split", default="test", help="of a data set on the hub (default: test)")
    parser.add_argument("--limit", type=int, metavar="N", help="the first N rows only")


def _healthbench_options(parser: argparse.ArgumentParser) -> None:
    _data_option(parser, "HealthBench's jsonl, a parquet file of its schema, or any rubric rows with points")
    parser.add_argument("--judge", metavar="MODEL", help="judge, as its server knows it")
    parser.add_argument("--judge-url", metavar="URL", help="server of the judge (default: $OPENAI_BASE_URL or OpenAI)")
    parser.add_argument("--judge-config", type=Path, metavar="FILE", help="YAML with further options of the judge")
    parser.add_argument("--judge-store", metavar="FILE", help="sqlite file of its replies (default: verdicts.sqlite)")
    parser.add_argument(
        "--subset",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="score these rows also by themselves: ids, one a line, or the official jsonl of a subset",
    )


def _healthbench(options: argparse.Namespace) -> "Benchmark":
    from rvpo.data.load import load_rubric_rows
    from rvpo.evals.healthbench import build, judge_about, subset_ids

    rows = load_rubric_rows(options.data, split=options.split, limit=options.limit).rows
    subsets = {}
    for text in options.subset:
        name, equals, file = text.partition("=")
        if not (name and equals and file):
            raise ConfigError(f"--subset takes NAME=FILE, as hard=hard.jsonl; got {text!r}")
        subsets[name] = subset_ids(_lines(Path(file)))
    judge = _judge(options)
    return build(rows, judge, subsets=subsets, repeats=options.repeats, seed=options.seed, about=judge_about(judge))


def _judge(options: argparse.Namespace) -> Any:
    try:
        from rvpo.cli.judge import judge_config
        from rvpo.judging.judge import Judge
    except ModuleNotFoundError as error:
        raise ConfigError(f"healthbench needs a judge, and that {error.name}: pip install 'rvpo[judge]'") from error
    if options.judge is None and options.judge_config is None:
        raise ConfigError("healthbench needs a judge: --judge MODEL --judge-url URL, or --judge-config FILE")
    given = argparse.Namespace(
        config=options.judge_config, model=options.judge, base_url=options.judge_url, store=options.judge_store
    )
    return Judge(judge_config(given))


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {file}: {error}") from error


def _rows_benchmark(options: argparse.Namespace, module: str) -> "Benchmark":
    """Build a benchmark whose `build` takes raw rows."""
    from importlib import import_module

    from rvpo.data.files import raw_rows

    build: Callable[..., Benchmark] = import_module(module).build
    rows = raw_rows(options.data, options.split, options.limit)
    return build(rows, repeats=options.repeats, seed=options.seed)


BENCHMARKS: Mapping[str, Entry] = {
    "healthbench": Entry(
        "health conversations, judged by physicians' rubrics", _healthbench_options, _healthbench, 1.0, 2048
    ),
    "gpqa": Entry(
        "GPQA-Diamond from your own CSV, four options, shuffled",
        partial(_data_option, text="CSV with Question, Correct Answer and Incorrect Answer 1 to 3"),
        partial(_rows_benchmark, module="rvpo.evals.gpqa"),
        0.0,
        2048,
        varies=True,
    ),
    "rlla": Entry(
        "tool calls on rows of RLLA's schema, both channels",
        partial(_data_option, text="rows with prompt and reward_model.ground_truth"),
        partial(_rows_benchmark, module="rvpo.evals.rlla"),
        0.0,
        1024,
    ),
    "ifeval": Entry(
        "IFEval, instructions that a program can check, strict and loose",
        partial(
            _data_option, text="rows with prompt, instruction_id_list and kwargs, as google/IFEval (--split train)"
        ),
        partial(_rows_benchmark, module="rvpo.evals.ifeval"),
        0.0,
        1280,
    ),
    "bfcl": Entry("BFCL v3, the Berkeley function-calling cases", eval_bfcl.add_options, eval_bfcl.build, 0.0, 1024),
}
"""Every benchmark by name; a new one is a line here."""


def benchmarks(name: str) -> Mapping[str, Entry]:
    """Return the benchmarks among which the named one is to be looked up; "" or an option names none.

    The embedded tasks are the laboratory's, and loaded only where no other benchmark is named. Raises ConfigError for
    a name that only the laboratory could know where it is not installed.
    """
    if name in BENCHMARKS:
        return BENCHMARKS
    try:
        tasks: Mapping[str, Entry] = laboratory_command(
            "bench", f"a benchmark other than {listed(list(BENCHMARKS))}, as {name!r},"
        ).BENCHMARKS
    except ConfigError:
        if name and not name.startswith("-"):
            raise
        return BENCHMARKS
    return {**BENCHMARKS, **tasks}
