"""How the runs of a report were made: settings, versions, the command that makes them again."""

import shlex
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from rvpo_lab.report.inputs import FinishedSuite
from rvpo_lab.suite.plan import CONTENDERS, OPTIONS, SuiteSettings
from rvpo_lab.tasks.catalog import TASKS

__all__ = ["command", "settings", "versions"]

QUICKSTART = (["rubric"], ["gdpo", "grpo", "rvpo", "rvpo_policy"])
"""Tasks and methods, sorted, of `rvpo quickstart`."""


def _united(tables: Iterable[dict[str, Any]]) -> dict[str, str]:
    """Return each key with its value, or with all its values where the tables differ."""
    united: dict[str, dict[str, None]] = {}
    for table in tables:
        for key, value in table.items():
            united.setdefault(key, {})[str(value)] = None
    return {key: " or ".join(values) for key, values in united.items()}


def settings(suite: FinishedSuite) -> dict[str, str]:
    """Return the settings of a suite's cells."""
    return _united(record.about.get("settings", {}) for record in suite.records)


def versions(suite: FinishedSuite) -> dict[str, str]:
    """Return the versions of the packages that the cells were made with."""
    return _united(record.about.get("versions", {}) for record in suite.records)


def command(suite: FinishedSuite) -> str:
    """Return the command line that trains these cells, empty where the settings are no command's."""
    tasks, methods, seeds = (
        list(dict.fromkeys(record.about[key] for record in suite.records))
        for key in ("catalog_task", "contender", "seed")
    )
    first, *others = (record.about.get("settings") for record in suite.records)
    known = set(tasks) <= set(TASKS) and set(methods) <= set(CONTENDERS)
    if (
        not known
        or not first
        or any(other != first for other in others)
        or not set(first) <= set(asdict(SuiteSettings()))
    ):
        return ""
    made = SuiteSettings(**first)
    common = f"--seeds {_seeds(sorted(seeds))} --steps {made.steps}"
    out = f"--out {shlex.quote(str(suite.folder))}"
    if (tasks, sorted(methods)) == QUICKSTART and made == _quickstart_settings(made):
        is_usual = made.warm_start_steps == SuiteSettings.warm_start_steps
        return f"rvpo quickstart {common} {'' if is_usual else f'--warm-start-steps {made.warm_start_steps} '}{out}"
    usual = asdict(SuiteSettings())
    unusual = {name: value for name, value in asdict(made).items() if value != usual[name]}
    if unusual.keys() - OPTIONS.keys():
        return ""
    given = {"beta": made.beta, "learning_rate": made.learning_rate} | unusual
    given.pop("steps", None)
    options = " ".join(f"--{name.replace('_', '-')} {value!r}" for name, value in given.items())
    return f"rvpo bench neglect --tasks {','.join(tasks)} --methods {','.join(methods)} {common} {options} {out}"


def _quickstart_settings(made: SuiteSettings) -> SuiteSettings:
    """Return the settings of a quickstart of as many steps."""
    steps = made.steps
    return SuiteSettings(steps=steps, evaluate_every=max(steps // 10, 1), warm_start_steps=made.warm_start_steps)


def _seeds(seeds: list[int]) -> str:
    """Return seeds as the command line takes them: "0-4" or "1,5"."""
    first, last = seeds[0], seeds[-1]
    return f"{first}-{last}" if seeds == list(range(first, last + 1)) else ",".join(map(str, seeds))
