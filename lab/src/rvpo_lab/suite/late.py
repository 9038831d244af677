"""Late in training: under which condition does a method give back what it had learnt?

A folder of suites, one for each condition, each with settings of its own (`rvpo bench neglect --out FOLDER/CONDITION
--learning-rate ...`). What a run gives back is its best mean less its final one (`drop` of `results.run_scores`).
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from rvpo.errors import ConfigError
from rvpo_lab.suite.folder import is_suite, read_cells, read_settings
from rvpo_lab.suite.plan import SuiteSettings
from rvpo_lab.suite.results import run_scores

__all__ = ["LateCondition", "read_conditions"]

WORDS = {
    "steps": "{} steps",
    "learning_rate": "learning rate {:g}",
    "beta": "KL penalty {:g}",
    "prompts_per_step": "{} prompts a step",
    "num_generations": "groups of {}",
    "num_iterations": "{} updates a batch",
    "epsilon": "clipped beyond {:g}",
    "hidden_size": "policy of width {}",
}


@dataclass(frozen=True)
class LateCondition:
    """One of the suites."""

    name: str
    settings: SuiteSettings
    runs: pd.DataFrame
    """Of `results.run_scores`."""

    @property
    def words(self) -> str:
        """Its settings as far as they are not the suite's defaults."""
        usual, settings = asdict(SuiteSettings()), asdict(self.settings)
        changed = [text.format(settings[name]) for name, text in WORDS.items() if settings[name] != usual[name]]
        return ", ".join(changed) or "the suite's settings"


def read_conditions(folder: Path) -> list[LateCondition]:
    """Return the suites in a folder, by name. Raises ConfigError if there is none."""
    suites = [place for place in sorted(folder.glob("*/")) if is_suite(place)]
    if not suites:
        raise ConfigError(f"{folder} holds no suites: no folder in it has finished cells or settings of one")
    return [
        LateCondition(suite.name, read_settings(suite, SuiteSettings), run_scores(read_cells(suite)))
        for suite in suites
    ]
