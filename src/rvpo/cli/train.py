"""`rvpo train`: TRL's GRPO script with RVPO's advantages, from a YAML file and overrides."""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, NamedTuple

from rvpo.cli.config_files import Given, read_config_files
from rvpo.cli.launch import NOT_LAUNCHED, accelerate_words, launch
from rvpo.cli.options import HelpfulParser
from rvpo.core.methods import find_method
from rvpo.errors import ConfigError, RvpoError
from rvpo.integrations.method_config import MethodConfig

if TYPE_CHECKING:
    from trl import ModelConfig, TrlParser

    from rvpo.integrations.trl.config import RVPOConfig
    from rvpo.integrations.trl.run import RVPOScriptArguments

__all__ = ["main"]

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
