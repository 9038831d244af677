"""What a checkpoint holds beside the model: the state of the channels, the settings, and that it is whole.

The file is written last, under another name first: a checkpoint without it was killed while it was saved, or is of a
run without rvpo. It lists the other files with their sizes, so that one which lacks a part is known too.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from rvpo.errors import ConfigError
from rvpo.files import write_whole
from rvpo.integrations.batch import ChannelState

__all__ = ["STATE_FILE", "Newest", "check_settings", "load_state", "newest_whole", "save_state", "what_is_broken"]

STATE_FILE = "rvpo_state.json"


def save_state(folder: Path, state: ChannelState, settings: Mapping[str, Any]) -> None:
    """Write state and settings into a checkpoint's folder, whose other files are there: the mark of a whole one."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    sizes = {str(file.relative_to(folder)): file.stat().st_size for file in files}
    sizes.pop(STATE_FILE, None)
    content = json.dumps({**asdict(state), "settings": settings, "files": sizes}, default=repr)
    write_whole(folder / STATE_FILE, content)


def load_state(folder: Path) -> ChannelState:
    """Return the state of a checkpoint; a new one if it has none."""
    saved = _read(folder) or {}
    parts = {name: saved.get(name) or {} for name in ("anchor", "multipliers")}
    numbers = {name: {str(key): float(value) for key, value in part.items()} for name, part in parts.items()}
    return ChannelState(**numbers, sampling=saved.get("sampling") or {})


def _read(folder: Path) -> dict[str, Any] | None:
    try:
        content = json.loads((folder / STATE_FILE).read_text())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def what_is_broken(folder: Path) -> str | None:
    """Return what a checkpoint lacks, in words; None if it is whole."""
    content = _read(folder)
    if content is None:
        return f"it has no readable {STATE_FILE}, which is written last"
    for name, size in (content.get("files") or {}).items():
        file = folder / name
        if not file.is_file():
            return f"{name} is not there"
        if file.stat().st_size != size:
            return f"{name} has {file.stat().st_size} bytes, not {size}"
    return None


class Newest(NamedTuple):
    """The newest whole checkpoint of a run, and the newer ones that are not."""

    folder: Path | None
    broken: list[str]
    """One sentence each."""


def newest_whole(run: Path, prefix: str = "checkpoint-") -> Newest:
    """Return the checkpoint to go on from; `folder` is None without a whole one."""
    numbered = [(name.name.removeprefix(prefix), name) for name in run.glob(f"{prefix}*") if name.is_dir()]
    broken: list[str] = []
    for _, folder in sorted(((int(step), folder) for step, folder in numbered if step.isdecimal()), reverse=True):
        if (lack := what_is_broken(folder)) is None:
            return Newest(folder, broken)
        broken.append(f"{folder} is not whole ({lack}): it was killed while it was saved, or is not of this package")
    return Newest(None, broken)


def check_settings(folder: Path, settings: Mapping[str, Any], *, resumed: bool) -> None:
    """Raise ConfigError, saying what differs, unless a checkpoint was made with these settings.

    Args:
        folder: of the checkpoint.
        settings: of the run that begins now, plain values of JSON.
        resumed: it goes on from this checkpoint; False: it would only be written beside it.
    """
    saved = (_read(folder) or {}).get("settings") or {}
    now = json.loads(json.dumps(settings, default=repr))
    changed = [
        f"{name} {saved.get(name)!r} -> {now.get(name)!r}"
        for name in dict.fromkeys([*saved, *now])
        if saved.get(name) != now.get(name)
    ]
    if changed:
        what = f"cannot go on from {folder}" if resumed else f"{folder} is of another run"
        way = "resume with the settings as they were" if resumed else "choose another output folder"
        raise ConfigError(
            f"{what}, which was made with other settings ({'; '.join(changed)}); {way}, or set "
            "allow_changed_settings=true"
        )
