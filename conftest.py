"""Shapes are checked at run time in the tests: every function of the core runs under jaxtyping and beartype."""

import functools
import gc
import logging
import os
import signal
import sys
from collections import Counter

# Started by `&` in a script, tests and what they start would ignore Ctrl-C, and wait for it for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from jaxtyping import install_import_hook

# Before the hook: it has no shapes to check, and is called more often than all other functions of the core together.
import rvpo.core.arrays

with install_import_hook(
    [
        "rvpo.core",
        "rvpo.stats",
        "rvpo_lab.wind_tunnel",
    ],
    "shape_checks.check",
):
    import rvpo.core.advantages
    import rvpo.stats  # noqa: F401
    import rvpo_lab.wind_tunnel.simulation  # noqa: F401

from pathlib import Path

import pytest
from hypothesis import settings
from xdist.scheduler import LoadFileScheduling

settings.register_profile("rvpo", deadline=None, max_examples=100)
settings.load_profile("rvpo")
gc.set_threshold(50_000, 50, 50)  # collected at the usual pace, imports and tests take a twentieth longer


class Scheduling(LoadFileScheduling):
    """A file's tests in one process, and those of all files that import verl in one, which takes it seconds."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return "verl" if "verl" in file or file.endswith("test_agreement.py") else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Scheduling:
    """What takes the place of --dist."""
    return Scheduling(config, log)


LONG = (
    "test_cells.py", "test_examples.py", "test_findings_page.py", "test_policy.py", "test_real_server.py",
    "test_sampler.py", "test_trl_judge.py", "test_trl_processes.py",
)  # fmt: skip
"""Files of few tests that take long: were they last, the other processes would wait for them."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files of many tests, and with those of `LONG` among them."""
    tests = Counter(item.path for item in items)
    items.sort(key=lambda item: -tests[item.path] - 50 * (item.path.name in LONG))


def pytest_collection_finish() -> None:
    """Take out of every run what accelerate repeats in it: it reads the metadata of packages again for every model."""
    if packages := sys.modules.get("accelerate.utils.imports"):
        packages._is_package_available = functools.cache(packages._is_package_available)


@pytest.fixture(scope="module", autouse=True)
def what_stays_is_not_collected_again() -> None:
    """Keep what is there by now out of garbage collections: accelerate asks for a full one after every run."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def own_loggers() -> None:
    """Undo what the set-up of other packages' logging (inspect's, verl's) did to this package's in earlier tests."""
    for name in ["rvpo", *(name for name in logging.root.manager.loggerDict if name.startswith("rvpo."))]:
        logger = logging.getLogger(name)
        logger.disabled, logger.propagate = False, True
        logger.setLevel(logging.WARNING if name == "rvpo" else logging.NOTSET)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real rows beside the repository; tests that need it are skipped without it."""
    folder = Path(__file__).resolve().parents[1] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no folder ../shared/data beside the repository")
    return folder
