"""Shapes are checked at run time in the tests: every function of the core runs under jaxtyping and beartype."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from jaxtyping import install_import_hook

with install_import_hook(
    [
        "rvpo.core",
        "rvpo.stats",
        "rvpo_lab.wind_tunnel",
    ],
    "shape_checks.check",
):
    import rvpo
    import rvpo.stats  # noqa: F401
    import rvpo_lab.wind_tunnel.measures  # noqa: F401

from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("rvpo", deadline=None, max_examples=100)
settings.load_profile("rvpo")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real rows beside the repository; tests that need it are skipped without it."""
    folder = Path(__file__).resolve().parents[1] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no folder ../shared/data beside the repository")
    return folder
