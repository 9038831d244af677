"""Which releases of verl the integration was run with."""

from importlib.metadata import PackageNotFoundError, version

from rvpo.errors import IntegrationError

__all__ = ["FIRST", "LIMIT", "check_verl"]

FIRST, LIMIT = "0.9.1", "0.10"


def check_verl() -> None:
    """Raise IntegrationError, naming the versions that fit, unless a release of verl in [0.9.1, 0.10) is installed."""
    fits = f"rvpo needs verl>={FIRST},<{LIMIT} (tested: 0.9.1)"
    try:
        installed = version("verl")
    except PackageNotFoundError:
        raise IntegrationError(f"verl is not installed; {fits}. docs/verl.md says how") from None
    from packaging.version import Version

    if not Version(FIRST) <= Version(installed) < Version(LIMIT):
        raise IntegrationError(f"verl {installed} is installed, but {fits}. Run: pip install 'verl>={FIRST},<{LIMIT}'")
