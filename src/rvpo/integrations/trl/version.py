"""Which releases of TRL the integration was run with; imported before anything of TRL is."""

from importlib.metadata import PackageNotFoundError, version

from packaging.version import Version

from rvpo.errors import IntegrationError

__all__ = ["FIRST", "LIMIT", "check_trl"]

FIRST, LIMIT = "0.27", "2"


def check_trl() -> None:
    """Raise IntegrationError, naming the versions that fit, unless a release of TRL in [0.27, 2) is installed."""
    fits = f"rvpo needs trl>={FIRST},<{LIMIT} (tested: 0.27, 0.29, 1.0, 1.8, 1.12, 1.16)"
    try:
        installed = version("trl")
    except PackageNotFoundError:
        raise IntegrationError(f"TRL is not installed; {fits}. Run: pip install 'rvpo[trl]'") from None
    if not Version(FIRST) <= Version(installed) < Version(LIMIT):
        raise IntegrationError(f"TRL {installed} is installed, but {fits}. Run: pip install 'trl>={FIRST},<{LIMIT}'")
