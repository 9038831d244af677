"""An audit of files: readers and analysis put together."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from rvpo.audit.audit import DRAWS, audit_groups
from rvpo.audit.groups import NAMINGS, TooManyChannelsError
from rvpo.audit.readers import open_log
from rvpo.audit.result import AuditResult
from rvpo.audit.signals import KS, METHODS

__all__ = ["EXAMPLE", "audit_log"]

EXAMPLE = Path(__file__).with_name("example.parquet")
"""The rewards of the first ten steps of a real run under GDPO, made by the laboratory's foresight."""


def audit_log(
    path: str | Path,
    *,
    group: str | None = None,
    step: str | None = None,
    rewards: Sequence[str] = (),
    steps: tuple[float, float] | None = None,
    by_tag: bool = False,
    methods: Sequence[str] = METHODS,
    ks: Sequence[float] = KS,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    seed: int = 0,
    draws: int = DRAWS,
) -> AuditResult:
    """Return the audit of a log: TRL completions, a verl rollout folder, or a table with a row per rollout.

    The log is read twice, a batch at a time. Channels of rubrics are kinds of criteria, the name up to ":"; if these
    are more than 40, or `by_tag` is set, the name up to "/", and if these are too many, one channel a column.

    Args:
        path: see `rvpo.audit.readers`.
        group, step, rewards: columns; guessed if not given, see `rvpo.audit.columns.find_columns`.
        steps: first and last training step to read.
        methods, ks, ranges, seed, draws: see `audit_groups`.

    Raises:
        ConfigError: what cannot be read, understood or computed, in one sentence.
    """
    log = open_log(Path(path), group=group, step=step, rewards=rewards, steps=steps)
    for naming in NAMINGS[1:] if by_tag else NAMINGS:
        names = log.names(naming)
        told = [*log.told(), *([f"channels: criteria by {naming}"] if log.columns.maps else [])]
        try:
            return audit_groups(
                partial(log.groups, names),
                names.names,
                methods=methods,
                ks=ks,
                ranges=ranges,
                seed=seed,
                draws=draws,
                source=str(path),
                told=told,
            )
        except TooManyChannelsError:
            continue
    raise AssertionError("one channel a column is never too many")
