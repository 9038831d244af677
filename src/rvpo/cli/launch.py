"""One command starts all processes of a run, as `trl grpo` does: `rvpo train --accelerate_config zero3 ...`.

What TrlParser does not know is looked up among the options of `accelerate launch`, on the command line and in YAML;
with any of them the command starts itself again, through accelerate, once per process.
"""

import signal
import subprocess
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from rvpo.cli.options import nearest
from rvpo.errors import ConfigError, unknown_name

__all__ = ["NOT_LAUNCHED", "accelerate_words", "launch"]

NOT_LAUNCHED = "none"
"""Value of `accelerate_config` with which a command runs in its own process, whatever else is configured."""


def accelerate_words(
    config: str | None, settings: Mapping[str, Any], words: Sequence[str], own: Sequence[str] = ()
) -> list[str]:
    """Return the command line of `accelerate launch` up to the script; empty: nothing asks for a launch.

    Args:
        config: a name of TRL's accelerate configurations, or a file.
        settings: options from YAML that are not the training's own.
        words: such options from the command line, with their values.
        own: options of the training, of which an unknown one may be a misspelling.

    Raises:
        ConfigError: something is no option of accelerate either, or there is no such configuration.
    """
    file = [] if config in (None, NOT_LAUNCHED) else ["--config_file", str(_config_file(str(config)))]
    given = [word for key, value in settings.items() for word in _option(key, value)] + list(words)
    known = _options_of_accelerate() if given else set()
    unknown = [word for word in given if word.startswith("--") and word.partition("=")[0] not in known]
    if unknown or (given and not given[0].startswith("--")):
        wrong = unknown or given
        raise ConfigError(
            f"{' '.join(wrong)}: no option of rvpo train, of TRL's GRPO or of accelerate launch"
            f"{nearest(wrong[0].partition('=')[0], [*own, *known])}; see rvpo train --help"
        )
    return file + given


def _option(key: str, value: object) -> list[str]:
    """Return an option from YAML as words; accelerate's switches take no value."""
    if value is None or value is False:
        return []
    return [f"--{key}"] if value is True else [f"--{key}", str(value)]


def _options_of_accelerate() -> set[str]:
    from accelerate.commands.launch import launch_command_parser

    return {name for action in launch_command_parser()._actions for name in action.option_strings}


def _config_file(name: str) -> Path:
    """Return the file of a configuration, one of one's own or TRL's by its name."""
    if Path(name).is_file():
        return Path(name)
    folder = Path(str(resources.files("trl"))) / "accelerate_configs"
    file = folder / f"{name}.yaml"
    if not file.is_file():
        raise unknown_name("accelerate_config", name, [file.stem for file in folder.glob("*.yaml")] + [NOT_LAUNCHED])
    return file


def launch(words: Sequence[str], arguments: Sequence[str]) -> int:
    """Run `rvpo train` with these arguments in the processes that accelerate starts; return the first exit status."""
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    command = ["--module", "rvpo.cli.main", "train", *arguments, "--accelerate_config", NOT_LAUNCHED]
    parsed = launch_command_parser().parse_args([*words, *command])
    # Ctrl-C is for the processes: they save and end, and this one waits for them.
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        launch_command(parsed)
    except ChildFailedError as error:
        return _status(error.get_first_failure()[1].exitcode)
    except subprocess.CalledProcessError as error:
        return _status(error.returncode)
    except SignalException as error:
        return 128 + error.sigval
    except ValueError as error:
        raise ConfigError(f"accelerate launch: {error}") from error
    finally:
        signal.signal(signal.SIGINT, before)
    return 0


def _status(code: int) -> int:
    """Return a process's end as a shell does: 128 + N if signal N ended it."""
    return code if code >= 0 else 128 - code
