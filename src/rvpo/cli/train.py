"""`rvpo train`: TRL's GRPO script with RVPO's advantages, from YAML files and overrides, in one process or several.

    rvpo train --config run.yaml gdpo.yaml
    rvpo train --config run.yaml --accelerate_config zero3

Several files are one configuration: later files come first, the command line before all of them. A file may begin with
`include: base.yaml` (or a list), by a path relative to itself; what it says itself comes before what it includes.
Mappings, such as `judge`, are merged key by key; everything else is replaced.

One command starts all processes of a run, as `trl grpo` does. What TrlParser does not know is looked up among the
options of `accelerate launch`, on the command line and in YAML; with any of them the command starts itself again,
through accelerate, once per process.
"""

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from rvpo.cli.options import HelpfulParser, nearest
from rvpo.core.methods import find_method
from rvpo.errors import ConfigError, RvpoError, unknown_name
from rvpo.integrations.method_config import MethodConfig

if TYPE_CHECKING:
    from trl import ModelConfig, TrlParser

    from rvpo.integrations.trl.config import RVPOConfig
    from rvpo.integrations.trl.run import RVPOScriptArguments

__all__ = ["NOT_LAUNCHED", "Given", "accelerate_words", "launch", "main", "read_config_files"]

INCLUDE = "include"


class Given(NamedTuple):
    """What a command line gives."""

    settings: dict[str, Any]
    """The configuration files, merged."""
    words: list[str]
    """The command line without them."""
    name: str | None
    """The files' names, without endings, joined by "-"; None without any."""


def read_config_files(arguments: Sequence[str]) -> Given:
    """Take `--config FILE ...` out of a command line (also `--config=FILE`, also several times) and read the files.

    An `env` mapping sets environment variables, as in TRL. Raises ConfigError for a file that cannot be read.
    """
    files, words = _split(arguments)
    settings: dict[str, Any] = {}
    for file in files:
        settings = _merged(settings, _read(file, ()))
    environment = settings.pop("env", None) or {}
    if not isinstance(environment, Mapping):
        raise ConfigError(f"env must be a mapping of environment variables, got {environment!r}")
    os.environ.update({str(key): str(value) for key, value in environment.items()})
    return Given(settings, words, "-".join(file.stem for file in files) or None)


def _split(arguments: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Return the configuration files and the other words; files end where the next option begins."""
    files: list[Path] = []
    words: list[str] = []
    is_file = False
    for argument in arguments:
        option, equals, value = argument.partition("=")
        if option == "--config":
            is_file = not equals
            number = len(files)
            files += [Path(value)] if equals else []
        elif argument.startswith("--") or not is_file:
            if is_file and len(files) == number:
                break
            is_file = False
            words.append(argument)
        else:
            files.append(Path(argument))
    if is_file and len(files) == number:
        raise ConfigError("--config needs a file")
    return files, words


def _read(file: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    """Return a file's settings over those it includes; `above` are the files that include it."""
    if file.resolve() in above:
        raise ConfigError(f"{file} includes itself, by way of {above[-1]}")
    try:
        own = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read configuration {file}: {error}") from error
    if not isinstance(own, dict):
        raise ConfigError(f"{file} must be a YAML mapping of options, got {type(own).__name__}")
    included = own.pop(INCLUDE, None) or []
    if isinstance(included, str):
        included = [included]
    if not isinstance(included, list) or not all(isinstance(name, str) for name in included):
        raise ConfigError(f"{file}: include must be a file or a list of files, got {included!r}")
    settings: dict[str, Any] = {}
    for name in included:
        settings = _merged(settings, _read(file.parent / name, (*above, file.resolve())))
    return _merged(settings, {str(key): value for key, value in own.items()})


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merged(merged[key], value) if both else value
    return merged


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


EXAMPLES = """
examples:
  rvpo train --model_name_or_path Qwen/Qwen2.5-1.5B-Instruct --dataset_name rows.parquet \\
      --reward_funcs tool_format my_rewards.helpful --k_schedule linear --k 0.5 --k_end 2.0
  rvpo train --config run.yaml --method gdpo --max_steps 50 --output_dir runs/gdpo
  rvpo train --config run.yaml --resume_from_checkpoint last
  rvpo train --config run.yaml --accelerate_config zero3 --num_processes 4
  rvpo train --config configs/rlla_tiny.yaml     # in a clone of the repository, which has configs/
  rvpo train --config configs/paper/rar_medicine-7b.yaml configs/paper/methods/gdpo.yaml   # so too
"""


OFTEN = (
    "model_name_or_path", "output_dir", "max_steps", "num_train_epochs", "learning_rate", "beta", "temperature",
    "per_device_train_batch_size", "gradient_accumulation_steps", "num_generations", "max_completion_length",
    "use_peft", "use_vllm", "use_cpu", "bf16", "seed", "report_to", "logging_steps", "log_completions", "save_steps",
    "eval_strategy", "resume_from_checkpoint",
)  # fmt: skip
"""Options of TRL and transformers that most runs set; --help shows them, --help_all the hundreds of others too."""


class Command(NamedTuple):
    """A command line, read as far as can be without knowing the number of processes."""

    parser: "TrlParser"
    """Has the configuration files as its defaults."""
    words: list[str]
    to_accelerate: list[str]
    """Options of `accelerate launch`; empty: the run takes place in this process."""
    chosen: dict[str, bool]
    """Options that the machine decides, as it has no accelerator and nothing was said of one."""


def read(arguments: Sequence[str]) -> Command:
    """Read command line and YAML; raise ConfigError for what nobody knows."""
    given = read_config_files(arguments)  # before TRL, whose import takes seconds
    from rvpo.integrations.trl.config import RVPOConfig, without_accelerator
    from rvpo.integrations.trl.run import RVPOScriptArguments

    # TRL is first imported behind the check of its version.
    from trl import ModelConfig, TrlParser  # isort: skip

    _drop_k_of_another_method(given)
    if given.name is not None:
        given.settings.setdefault("output_dir", f"runs/{given.name}")
    parser_class: Any = type("TrainParser", (HelpfulParser, TrlParser), {})  # TRL's options, the help of rvpo
    parser: TrlParser = parser_class(
        (RVPOScriptArguments, RVPOConfig, ModelConfig),
        prog="rvpo train",
        description="Train a language model on many rewards at once. Options are those of TRL's GRPO and RVPO's own; "
        "--config FILE ... reads them from YAML, later files and then the command line come first. Options of "
        "'accelerate launch', such as --num_processes, start the run in several processes.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _group_options(parser, RVPOScriptArguments, shows_all="--help_all" in given.words)
    known = {action.dest for action in parser._actions}
    chosen = {} if _gives(given, "use_cpu") else without_accelerator()
    chosen = {name: value for name, value in chosen.items() if not _gives(given, name)}
    parser.set_defaults_with_config(**chosen)
    parser.set_defaults_with_config(**{key: value for key, value in given.settings.items() if key in known})
    others = {key: value for key, value in given.settings.items() if key not in known}
    parsed, other_words = parser.parse_known_args(["--help" if word == "--help_all" else word for word in given.words])
    words = accelerate_words(parsed.accelerate_config, others, other_words, list(parser._option_string_actions))
    is_launched = parsed.accelerate_config == NOT_LAUNCHED or "LOCAL_RANK" in os.environ
    return Command(parser, given.words, [] if is_launched else words, chosen)


def _group_options(parser: argparse.ArgumentParser, script: type, *, shows_all: bool) -> None:
    """Put the options of the help into groups by who needs them; the last is shown on demand."""
    import trl

    of_trl, of_script, of_method = (
        {setting.name for setting in fields(config)} for config in (trl.ScriptArguments, script, MethodConfig)
    )
    of_script -= of_trl - {"dataset_name", "dataset_train_split"}
    of_method |= {"rollouts_per_step"}
    titles = ("data and rewards", "method", "often needed, of TRL", "all others, of TRL, transformers and peft")
    groups = [parser.add_argument_group(title) for title in titles]
    for action in [action for action in parser._actions if action.dest != "help"]:
        number = 0 if action.dest in of_script else 1 if action.dest in of_method else 2 if action.dest in OFTEN else 3
        groups[number]._group_actions.append(action)
    others = len(groups[3]._group_actions)
    groups[3].description = None if shows_all else f"{others} more: rvpo train --help_all"
    if not shows_all:
        groups[3]._group_actions.clear()
    parser._action_groups[:] = groups


def _drop_k_of_another_method(given: Given) -> None:
    """Take k out of the files' settings, and say so, where the command line has another method that reads none."""
    words = " ".join(given.words).replace("=", " ").split()
    method = words[words.index("--method") + 1] if "--method" in words[:-1] else None
    named = [name for name in ("k", "k_end", "k_schedule") if given.settings.get(name) is not None]
    if method is None or method == given.settings.get("method") or not named:
        return
    try:
        if find_method(method).takes_k:
            return
    except ConfigError:  # said when it is used
        return
    for name in named:
        del given.settings[name]
    print(f"rvpo train: {', '.join(named)} of the files left out, as --method {method} reads none", file=sys.stderr)


def _gives(given: Given, option: str) -> bool:
    names = {f"--{option}", f"--{option.replace('_', '-')}"}
    return option in given.settings or any(word.partition("=")[0] in names for word in given.words)


def configure(command: Command, *words: str) -> "tuple[RVPOScriptArguments, RVPOConfig, ModelConfig]":
    """Return the configuration; raise ConfigError, or what TRL raises, for what does not fit."""
    parsed = command.parser.parse_args_into_dataclasses(args=[*command.words, *words], return_remaining_strings=True)
    return parsed[:3]  # type: ignore[no-any-return]


def main(arguments: Sequence[str]) -> int:
    """Run the command."""
    command = read(arguments)
    try:
        # The process that starts the others must not take memory of a GPU.
        script, args, model = configure(command, *(["--use_cpu", "true"] if command.to_accelerate else []))
    except RvpoError:
        raise
    except (ValueError, OSError, TypeError, AttributeError) as error:
        if not command.to_accelerate:  # or else TRL's checks are for the processes, which know their number
            raise ConfigError(str(error)) from error
    if command.to_accelerate:
        return launch(command.to_accelerate, arguments)
    if command.chosen and os.environ.get("LOCAL_RANK", "0") == "0":
        options = " ".join(f"--{name} {str(value).lower()}" for name, value in command.chosen.items())
        print(f"rvpo train: no accelerator here, so it trains on the CPU ({options})", file=sys.stderr)
    from rvpo.integrations.trl.run import run

    return run(script, args, model)
