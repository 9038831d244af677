"""The entry point: help, and what it refuses, as one line and exit status 2."""

from importlib.metadata import PackageNotFoundError

import pytest

from rvpo.errors import IntegrationError
from rvpo.integrations import versions
from rvpo.integrations.verl import main as verl_main


def test_help_has_examples(capsys):
    assert verl_main.main(["--help"]) == 0
    assert "algorithm.adv_estimator=rvpo" in capsys.readouterr().out


@pytest.mark.parametrize("installed", ["0.8.0", "0.9.0", "0.10.0", "1.2", None])
def test_another_verl_is_refused(installed, monkeypatch, capsys):
    def version(name):
        if installed is None:
            raise PackageNotFoundError(name)
        return installed

    monkeypatch.setattr(versions, "version", version)
    assert verl_main.main(["algorithm.adv_estimator=rvpo"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("rvpo.integrations.verl.main: error: verl ")
    assert error.count("\n") == 1
    with pytest.raises(IntegrationError, match=r"verl>=0\.9\.1,<0\.10"):
        versions.check_verl()


@pytest.mark.parametrize("installed", ["0.9.1", "0.9.2", "0.9.1.post1"])
def test_releases_of_this_line_fit(installed, monkeypatch):
    monkeypatch.setattr(versions, "version", lambda name: installed)
    versions.check_verl()


@pytest.mark.filterwarnings("ignore")  # engines that are not installed
def test_a_run_without_channels_ends_before_ray_starts(tmp_path, monkeypatch, capsys):
    pytest.importorskip("verl")
    import ray

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(verl_main.MODULES, "")  # main sets it
    quiet = ["hydra/job_logging=disabled", "hydra/hydra_logging=disabled"]  # which would stay in this process
    with pytest.raises(SystemExit) as end:
        verl_main.main(["algorithm.adv_estimator=rvpo", *quiet])
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert error.splitlines()[-1].startswith("rvpo.integrations.verl.main: error: algorithm.rvpo.channels must name")
    assert "Traceback" not in error
    assert not ray.is_initialized()


@pytest.mark.filterwarnings("ignore")  # engines that are not installed
@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)])
def test_options_of_hydra_stand_before_or_after_overrides(order, tmp_path, monkeypatch, capsys):
    pytest.importorskip("verl")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(verl_main.MODULES, "")
    parts = [["--cfg", "job"], ["algorithm.adv_estimator=rvpo", "trainer.nnodes=3"]]
    assert verl_main.main([word for part in parts[order] for word in part]) == 0
    printed = capsys.readouterr().out
    assert "nnodes: 3" in printed
    assert f"{verl_main.MODULES}: {verl_main.PLUGIN}" in printed
