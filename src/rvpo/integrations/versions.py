"""Which releases of TRL and verl the integrations were run with; imported before anything of theirs is."""

from importlib.metadata import PackageNotFoundError, version

from rvpo.errors import IntegrationError

__all__ = ["FIRST_TRL", "FIRST_VERL", "TRL_LIMIT", "VERL_LIMIT", "check_pair", "check_trl", "check_verl"]

FIRST_TRL, TRL_LIMIT = "0.27", "2"
FIRST_BESIDE_5 = "0.29"
"""Of TRL, beside transformers 5, whose test for an optional package returns a tuple: to TRL 0.27 and 0.28 that means
"it is there", so that the import of any trainer ends in "No module named 'weave'"."""
FITS = f"rvpo needs trl>={FIRST_TRL},<{TRL_LIMIT} (tested: 0.27, 0.29, 1.0, 1.8, 1.12, 1.16)"
FIRST_VERL, VERL_LIMIT = "0.9.1", "0.10"


def check_trl() -> None:
    """Raise IntegrationError, naming the versions that fit, unless TRL is there and `check_pair` has no objection."""
    try:
        check_pair(version("trl"), version("transformers"))
    except PackageNotFoundError:
        raise IntegrationError(f"TRL is not installed; {FITS}. Run: pip install 'rvpo[trl]'") from None


def check_pair(trl: str, transformers: str) -> None:
    """Raise IntegrationError unless TRL's release is in [0.27, 2) and can be imported beside that of transformers.

    >>> check_pair("0.27.2", "4.57.3"), check_pair("1.16.0", "5.10.4")
    (None, None)
    """
    from packaging.version import Version

    if not Version(FIRST_TRL) <= Version(trl) < Version(TRL_LIMIT):
        raise IntegrationError(f"TRL {trl} is installed, but {FITS}. Run: pip install 'trl>={FIRST_TRL},<{TRL_LIMIT}'")
    if Version(trl).release < Version(FIRST_BESIDE_5).release and Version(transformers).major >= 5:
        raise IntegrationError(
            f"TRL {trl} cannot be imported beside transformers {transformers}. Run: pip install "
            f"'trl>={FIRST_BESIDE_5},<{TRL_LIMIT}', or pip install 'transformers<5'"
        )


def check_verl() -> None:
    """Raise IntegrationError, naming the versions that fit, unless a release of verl in [0.9.1, 0.10) is installed."""
    fits = f"rvpo needs verl>={FIRST_VERL},<{VERL_LIMIT} (tested: 0.9.1)"
    try:
        installed = version("verl")
    except PackageNotFoundError:
        raise IntegrationError(f"verl is not installed; {fits}. docs/verl.md says how") from None
    from packaging.version import Version

    if not Version(FIRST_VERL) <= Version(installed) < Version(VERL_LIMIT):
        raise IntegrationError(
            f"verl {installed} is installed, but {fits}. Run: pip install 'verl>={FIRST_VERL},<{VERL_LIMIT}'"
        )
