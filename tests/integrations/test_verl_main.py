"""The entry point: help, and what it refuses, as one line and exit status 2."""

import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from rvpo.errors import IntegrationError
from rvpo.integrations.verl import main as verl_main
from rvpo.integrations.verl import version as verl_version

ROOT = Path(__file__).resolve().parents[2]


def test_help_has_examples(capsys):
    assert verl_main.main(["--help"]) == 0
    assert "algorithm.adv_estimator=rvpo" in capsys.readouterr().out


@pytest.mark.parametrize("installed", ["0.8.0", "0.9.0", "0.10.0", "1.2", None])
def test_another_verl_is_refused(installed, monkeypatch, capsys):
    def version(name):
        if installed is None:
            raise PackageNotFoundError(name)
        return installed

    monkeypatch.setattr(verl_version, "version", version)
    assert verl_main.main(["algorithm.adv_estimator=rvpo"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("verl_main: error: verl ")
    assert error.count("\n") == 1
    with pytest.raises(IntegrationError, match=r"verl>=0\.9\.1,<0\.10"):
        verl_version.check_verl()


@pytest.mark.parametrize("installed", ["0.9.1", "0.9.2", "0.9.1.post1"])
def test_releases_of_this_line_fit(installed, monkeypatch):
    monkeypatch.setattr(verl_version, "version", lambda name: installed)
    verl_version.check_verl()


def test_a_run_without_channels_ends_before_ray_starts(tmp_path):
    pytest.importorskip("verl")
    command = [sys.executable, "-W", "ignore", "-m", "rvpo.integrations.verl.main", "algorithm.adv_estimator=rvpo"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("verl_main: error: algorithm.rvpo.channels must name")
    assert "Traceback" not in done.stderr
    assert "ray init" not in done.stdout
