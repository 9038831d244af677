"""Which releases of TRL are accepted, and what a reader is told about the others."""

import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from rvpo import IntegrationError
from rvpo.integrations.trl import version as trl_version
from rvpo.integrations.trl.version import check_pair, check_trl

TESTED = "tested: 0.27, 0.29, 1.0, 1.8, 1.12, 1.16"


@pytest.fixture
def installed(monkeypatch):
    """Pretend that another release is installed; None: no TRL at all."""

    def pretend(number):
        def version_of(name):
            if name == "transformers":
                return "4.57.3"
            assert name == "trl"
            if number is None:
                raise PackageNotFoundError(name)
            return number

        monkeypatch.setattr(trl_version, "version", version_of)

    return pretend


def test_a_missing_trl_is_an_error_with_the_versions_that_fit_and_the_command(installed):
    installed(None)
    with pytest.raises(IntegrationError) as error:
        check_trl()
    assert str(error.value) == (
        f"TRL is not installed; rvpo needs trl>=0.27,<2 ({TESTED}). Run: pip install 'rvpo[trl]'"
    )


@pytest.mark.parametrize("number", ["0.9.6", "0.26.2", "2.0.0", "2.1", "10.0"])
def test_a_release_outside_is_refused_with_the_versions_that_fit(installed, number):
    installed(number)
    with pytest.raises(IntegrationError) as error:
        check_trl()
    assert f"TRL {number} is installed, but rvpo needs trl>=0.27,<2 ({TESTED})" in str(error.value)
    assert "pip install 'trl>=0.27,<2'" in str(error.value)


@pytest.mark.parametrize("number", ["0.27.0", "0.27.2", "0.29.1", "1.0.0", "1.8.0", "1.16.0", "1.99", "1.17.0.dev0"])
def test_a_release_inside_is_accepted(installed, number):
    installed(number)
    check_trl()


@pytest.mark.parametrize(
    "pair", [("0.27.0", "4.57.6"), ("0.28.0", "4.56.2"), ("0.29.0", "5.0.0"), ("1.16.0", "5.10.4")]
)
def test_pairs_that_can_be_imported_are_accepted(pair):
    check_pair(*pair)


@pytest.mark.parametrize("trl", ["0.27.0", "0.27.2", "0.28.0", "0.28.0.post1"])
@pytest.mark.parametrize("transformers", ["5.0.0rc1", "5.0.0", "5.10.4"])
def test_the_first_releases_are_refused_beside_transformers_5(trl, transformers):
    with pytest.raises(IntegrationError) as error:
        check_pair(trl, transformers)
    assert str(error.value) == (
        f"TRL {trl} cannot be imported beside transformers {transformers}. Run: pip install 'trl>=0.29,<2', or pip "
        "install 'transformers<5'"
    )


def test_the_release_in_use_is_accepted():
    assert version("trl")
    check_trl()


def test_the_project_asks_for_the_same_releases():
    import tomllib

    project = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text())["project"]
    extra = {Requirement(text).name: Requirement(text) for text in project["optional-dependencies"]["trl"]}
    assert set(str(extra["trl"].specifier).split(",")) == {f">={trl_version.FIRST}", f"<{trl_version.LIMIT}"}


WITHOUT_TRL = """
import importlib.metadata, sys
real = importlib.metadata.version
def version(name):
    if name == "trl":
        raise importlib.metadata.PackageNotFoundError(name)
    return real(name)
importlib.metadata.version = version
sys.modules["trl"] = None
from rvpo.cli.main import main
sys.exit(main(["train"]))
"""


def test_the_command_line_without_trl_is_one_line_and_status_2():
    done = subprocess.run([sys.executable, "-c", WITHOUT_TRL], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("rvpo: error: TRL is not installed")
    assert len(done.stderr.splitlines()) == 1
