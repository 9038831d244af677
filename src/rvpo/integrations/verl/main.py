"""verl's own PPO program with RVPO: `python -m rvpo.integrations.verl.main OVERRIDES`.

The same as `python -m verl.trainer.main_ppo OVERRIDES`, but what cannot work fails before anything is started, and
the plugin is loaded in every process of the cluster in the way whose errors verl does not swallow.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rvpo.errors import ConfigError, RvpoError, unknown_name
from rvpo.integrations.verl.config import ESTIMATOR, VerlConfig, is_ours
from rvpo.integrations.versions import check_verl

__all__ = ["check", "main"]

PLUGIN = "rvpo.integrations.verl.plugin"
MODULES = "VERL_USE_EXTERNAL_MODULES"
"""verl's variable: modules that `import verl` imports, and whose errors it raises."""

HELP = """\
usage: python -m rvpo.integrations.verl.main [OVERRIDE ...] [--config-path DIR --config-name NAME] [--cfg job]

verl's PPO program (verl.trainer.main_ppo) with the estimator rvpo. Overrides are Hydra's; all of verl's options hold.
Options of RVPO are +algorithm.rvpo.NAME=VALUE; docs/verl.md lists them. --cfg job prints the configuration.

examples:
  python -m rvpo.integrations.verl.main algorithm.adv_estimator=rvpo \\
      '+algorithm.rvpo.channels=[format,correctness]' \\
      reward.custom_reward_function.path=pkg://rvpo.integrations.verl.rewards \\
      reward.custom_reward_function.name=tool_calling \\
      data.train_files=train.parquet data.val_files=test.parquet actor_rollout_ref.rollout.n=4
  # in a clone of the repository, which has configs/:
  python -m rvpo.integrations.verl.main --config-path "$PWD/configs/paper/verl" --config-name rlla \\
      size=qwen2.5_3b_instruct method=gdpo
"""


def check(config: Any) -> VerlConfig:
    """Return RVPO's options in verl's configuration; raise ConfigError for what cannot work."""
    if not is_ours(config.algorithm):
        raise ConfigError(
            f"algorithm.adv_estimator is {config.algorithm.get('adv_estimator')!r}; set it to {ESTIMATOR} "
            "(+algorithm.rvpo.method chooses among grpo, gdpo, rvpo and the others), or start verl.trainer.main_ppo"
        )
    if "sizes" in config and config.get("size") not in config.sizes:  # a recipe of configs/paper/verl
        raise unknown_name("size", config.get("size"), config.sizes)
    options = VerlConfig.from_algorithm(config.algorithm)
    rollouts = config.actor_rollout_ref.rollout.n
    if rollouts < 2:
        raise ConfigError(f"actor_rollout_ref.rollout.n is {rollouts}; a group needs at least 2 rollouts to compare")
    reward = config.reward.custom_reward_function
    is_own = str(reward.path).endswith("rvpo.integrations.verl.rewards")
    if is_own and reward.name == "tool_calling":
        _check_tags(Path(str(config.actor_rollout_ref.model.path)))
    if is_own and reward.name == "rubric":
        from rvpo.integrations.verl.rewards import judge_config

        given = reward.get("reward_kwargs") or {}
        judge_config(given.get("judge"), given.get("workers", 1))
    return options


def _check_tags(model: Path) -> None:
    """Raise ConfigError for a model in a folder whose tokenizer drops the tags that the reward of tool calls reads."""
    if (model / "tokenizer_config.json").is_file():
        from rvpo.llm.tokenizer import check_decoded, load_tokenizer
        from rvpo.rewards.declarations import declaration
        from rvpo.rewards.tool_calling import format_reward

        check_decoded("tool_calling", declaration(format_reward).tags, load_tokenizer(model))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run verl's program; return the exit status (2: an error of the input)."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if {"-h", "--help"} & set(arguments):
        print(HELP, end="")
        return 0
    try:
        check_verl()
        _run(arguments)
    except RvpoError as error:
        print(_one_line(error), file=sys.stderr)
        return 2
    return 0


def _run(arguments: Sequence[str]) -> None:
    given = os.environ.get(MODULES, "")
    modules = given if PLUGIN in given.split(",") else ",".join(filter(None, (given, PLUGIN)))
    os.environ[MODULES] = modules
    from verl.trainer import main_ppo

    validate = main_ppo.validate_config

    def check_first(config: Any, **others: Any) -> None:
        try:
            check(config)
        except RvpoError as error:
            print(_one_line(error), file=sys.stderr)
            raise SystemExit(2) from None  # Hydra would print a traceback of any other exception
        validate(config=config, **others)

    main_ppo.validate_config = check_first
    # Workers on other machines do not have this process's environment.
    everywhere = f"++ray_kwargs.ray_init.runtime_env.env_vars.{MODULES}='{modules}'"
    before = sys.argv
    # Beside the other overrides: Hydra takes none that an option parts from the rest.
    overrides = [i for i, argument in enumerate(arguments, start=1) if "=" in argument and argument[0] != "-"]
    place = overrides[-1] if overrides else len(arguments)
    sys.argv = [before[0], *arguments[:place], everywhere, *arguments[place:]]
    try:
        main_ppo.main()
    finally:
        sys.argv, main_ppo.validate_config = before, validate


def _one_line(error: RvpoError) -> str:
    return f"rvpo.integrations.verl.main: error: {' '.join(str(error).split())}"


if __name__ == "__main__":
    sys.exit(main())
