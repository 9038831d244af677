"""Files that are written whole or not at all: a full disk or a kill leaves what was there before."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from rvpo.errors import ConfigError

__all__ = ["replaced", "write_whole"]


@contextmanager
def replaced(file: str | Path) -> Iterator[BinaryIO]:
    """Yield a stream whose bytes take the place of a file's when the block ends without an error; make the folder.

    Links are followed. What is no regular file (a pipe, /dev/stdout) cannot be replaced and is written to as it is.

    Raises:
        ConfigError: the file cannot be written.
    """
    try:
        target = Path(file).resolve()
        if target.exists() and not target.is_file():
            with target.open("wb") as stream:
                yield stream
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = target.with_name(f"{target.name}.{os.getpid()}.new")
        try:
            with beside.open("wb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())  # a name must not outlive its content when the machine stops
            if target.exists():
                shutil.copymode(target, beside)
            beside.replace(target)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot write {file}: {error.strerror or error}") from error


def write_whole(file: str | Path, content: str | bytes) -> None:
    """Write a file by `replaced`; text as UTF-8."""
    with replaced(file) as stream:
        stream.write(content.encode() if isinstance(content, str) else content)
