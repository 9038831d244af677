"""This package's benchmarks as tasks of inspect: `rvpo/healthbench`, `rvpo/gpqa` and so on.

Their parameters are the options of `rvpo eval` and inspect's `-T`. Data is the user's own: `data` is a file (.jsonl,
.json, .parquet, .csv), a folder saved by `datasets`, or a name on the hub, of which `limit` rows of `split` are read.
"""

from pathlib import Path

from inspect_ai import Task, task

from rvpo.data.files import raw_rows
from rvpo.data.load import load_rubric_rows
from rvpo.errors import ConfigError
from rvpo.evals import bfcl as bfcl_cases
from rvpo.evals import gpqa as gpqa_rows
from rvpo.evals import healthbench as healthbench_rows
from rvpo.evals import ifeval as ifeval_rows
from rvpo.evals import rlla as rlla_rows
from rvpo.evals.harness import as_task
from rvpo.judging.config import JudgeConfig
from rvpo.judging.judge import Judge

__all__ = ["TASKS"]


@task
def healthbench(
    data: str, judge: str = "", judge_url: str = "", judge_config: str = "", judge_store: str = "",
    subset: list[str] | str = "", split: str = "test", limit: int = 0, repeats: int = 1, seed: int = 0,
) -> Task:  # fmt: skip
    """HealthBench or any rubric rows with points, judged: --judge MODEL --judge-url URL, or --judge-config FILE.

    `subset` is NAME=FILE, as hard=hard.jsonl: the rows of that file are also scored by themselves.
    """
    rows = load_rubric_rows(data, split=split, limit=limit or None).rows
    files = [text.partition("=") for text in ([subset] if isinstance(subset, str) else subset) if text]
    if wrong := ["".join(parts) for parts in files if not all(parts)]:
        raise ConfigError(f"--subset takes NAME=FILE, as hard=hard.jsonl; got {wrong[0]!r}")
    if not judge and not judge_config:
        raise ConfigError("healthbench needs a judge: --judge MODEL --judge-url URL, or --judge-config FILE")
    given = {"model": judge, "base_url": judge_url, "store": judge_store}
    settings = {name: value for name, value in given.items() if value}
    judging = Judge(JudgeConfig.from_file(Path(judge_config) if judge_config else None, settings))
    benchmark = healthbench_rows.build(
        rows,
        judging,
        subsets={name: {row["id"] for row in load_rubric_rows(file).rows} for name, _, file in files},
        repeats=repeats,
        seed=seed,
        about=healthbench_rows.judge_about(judging),
        max_missing=judging.config.max_missing,
    )
    return as_task(benchmark, temperature=1.0, max_tokens=2048)


@task
def gpqa(data: str, split: str = "test", limit: int = 0, repeats: int = 1, seed: int = 0) -> Task:
    """GPQA-Diamond from your own CSV (Question, Correct Answer, Incorrect Answer 1 to 3), options shuffled."""
    rows = raw_rows(data, split, limit or None)
    return as_task(gpqa_rows.build(rows, repeats=repeats, seed=seed), temperature=0.0, max_tokens=2048)


@task
def rlla(data: str, split: str = "test", limit: int = 0, repeats: int = 1, seed: int = 0) -> Task:
    """Tool calls on rows of RLLA's schema (prompt, reward_model.ground_truth), both channels of training."""
    rows = raw_rows(data, split, limit or None)
    return as_task(rlla_rows.build(rows, repeats=repeats, seed=seed), temperature=0.0, max_tokens=1024)


@task
def ifeval(data: str, split: str = "test", limit: int = 0, repeats: int = 1, seed: int = 0) -> Task:
    """IFEval, strict and loose, by prompt, instruction and kind; rows as google/IFEval (--split train)."""
    rows = raw_rows(data, split, limit or None)
    return as_task(ifeval_rows.build(rows, repeats=repeats, seed=seed), temperature=0.0, max_tokens=1280)


@task
def bfcl(
    format: str = "prompt", categories: list[str] | str = "all", limit: int = 0, repeats: int = 1, seed: int = 0
) -> Task:
    """BFCL v3, the Berkeley function-calling cases, see docs/bfcl.md.

    `format` is how calls are asked for and read: prompt, native or rlla. `categories` are all, single_turn, non_live,
    live, multi_turn, or categories by name; `limit` is a number of cases of each, which gives no aggregate.
    """
    benchmark = bfcl_cases.build(
        answer_format=format,
        categories=[categories] if isinstance(categories, str) else list(categories),
        number=limit or None,
        repeats=repeats,
        seed=seed,
    )
    return as_task(benchmark, temperature=0.0, max_tokens=1024)


TASKS = {"healthbench": healthbench, "gpqa": gpqa, "rlla": rlla, "ifeval": ifeval, "bfcl": bfcl}
"""Tasks by name."""
