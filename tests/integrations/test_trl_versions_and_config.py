"""Which releases of TRL are accepted, and what a reader is told about the others.

RVPOConfig: what is refused and how, and that YAML and command line say the same as Python.
"""

import math
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement
from trl import GRPOConfig, TrlParser

from rvpo import METHODS, Aggregate, ConfigError, IntegrationError, RVPOConfig
from rvpo.core.aggregations import prior
from rvpo.integrations import versions
from rvpo.integrations.trl.config import as_mapping
from rvpo.integrations.versions import check_pair, check_trl

# --- Releases ---


TESTED = "tested: 0.27, 0.29, 1.0, 1.8, 1.12, 1.16"


@pytest.fixture
def installed(monkeypatch):
    """Pretend that another release is installed; None: no TRL at all."""

    def pretend(number):
        def version_of(name):
            if name == "transformers":
                return "4.57.3"
            assert name == "trl"
            if number is None:
                raise PackageNotFoundError(name)
            return number

        monkeypatch.setattr(versions, "version", version_of)

    return pretend


def test_a_missing_trl_is_an_error_with_the_versions_that_fit_and_the_command(installed):
    installed(None)
    with pytest.raises(IntegrationError) as error:
        check_trl()
    assert str(error.value) == (
        f"TRL is not installed; rvpo needs trl>=0.27,<2 ({TESTED}). Run: pip install 'rvpo[trl]'"
    )


@pytest.mark.parametrize("number", ["0.9.6", "0.26.2", "2.0.0", "2.1", "10.0"])
def test_a_release_outside_is_refused_with_the_versions_that_fit(installed, number):
    installed(number)
    with pytest.raises(IntegrationError) as error:
        check_trl()
    assert f"TRL {number} is installed, but rvpo needs trl>=0.27,<2 ({TESTED})" in str(error.value)
    assert "pip install 'trl>=0.27,<2'" in str(error.value)


@pytest.mark.parametrize("number", ["0.27.0", "0.27.2", "0.29.1", "1.0.0", "1.8.0", "1.16.0", "1.99", "1.17.0.dev0"])
def test_a_release_inside_is_accepted(installed, number):
    installed(number)
    check_trl()


@pytest.mark.parametrize(
    "pair", [("0.27.0", "4.57.6"), ("0.28.0", "4.56.2"), ("0.29.0", "5.0.0"), ("1.16.0", "5.10.4")]
)
def test_pairs_that_can_be_imported_are_accepted(pair):
    check_pair(*pair)


@pytest.mark.parametrize("trl", ["0.27.0", "0.27.2", "0.28.0", "0.28.0.post1"])
@pytest.mark.parametrize("transformers", ["5.0.0rc1", "5.0.0", "5.10.4"])
def test_the_first_releases_are_refused_beside_transformers_5(trl, transformers):
    with pytest.raises(IntegrationError) as error:
        check_pair(trl, transformers)
    assert str(error.value) == (
        f"TRL {trl} cannot be imported beside transformers {transformers}. Run: pip install 'trl>=0.29,<2', or pip "
        "install 'transformers<5'"
    )


def test_the_release_in_use_is_accepted():
    assert version("trl")
    check_trl()


def test_the_project_asks_for_the_same_releases():
    import tomllib

    project = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text())["project"]
    extra = {Requirement(text).name: Requirement(text) for text in project["optional-dependencies"]["trl"]}
    assert set(str(extra["trl"].specifier).split(",")) == {f">={versions.FIRST_TRL}", f"<{versions.TRL_LIMIT}"}


WITHOUT_TRL = """
import importlib.metadata, sys
real = importlib.metadata.version
def version(name):
    if name == "trl":
        raise importlib.metadata.PackageNotFoundError(name)
    return real(name)
importlib.metadata.version = version
sys.modules["trl"] = None
from rvpo.cli.main import main
sys.exit(main(["train"]))
"""


def test_the_command_line_without_trl_is_one_line_and_status_2():
    done = subprocess.run([sys.executable, "-c", WITHOUT_TRL], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("rvpo: error: TRL is not installed")
    assert len(done.stderr.splitlines()) == 1


# --- Options ---


CPU = {"use_cpu": True, "bf16": False, "report_to": "none"}


def config(**options):
    return RVPOConfig(output_dir="run", **CPU, **options)


def parse(tmp_path, yaml, *words):
    """Configuration from YAML lines and a command line."""
    file = tmp_path / "run.yaml"
    file.write_text("output_dir: run\nuse_cpu: true\nbf16: false\nreport_to: none\n" + yaml)
    return TrlParser((RVPOConfig,)).parse_args_and_config(["--config", str(file), *words])[0]


def test_the_defaults_are_the_papers_with_k_1():
    made = config()
    assert made.advantage_options() == {
        "method": "rvpo",
        "ddof": 1,
        "eps": 1e-4,
        "dead_channels": "keep",
        "recenter": False,
        "whiten": True,
    }
    assert [made.schedule()(step, 10) for step in (0, 5, 10)] == [1.0, 1.0, 1.0]


def test_every_option_of_trl_is_there_with_its_default():
    stock = GRPOConfig(output_dir="run", **CPU).to_dict()
    ours = config().to_dict()
    assert {name: ours[name] for name in stock if name != "logging_dir"} == {
        name: value for name, value in stock.items() if name != "logging_dir"
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "rvop"}, "unknown method 'rvop': did you mean 'rvpo'?"),
        ({"k": -1.0}, "k must be a number >= 0"),
        ({"k": math.nan}, "k must be a number >= 0"),
        ({"k_schedule": "lineer"}, "unknown schedule 'lineer': did you mean 'linear'?"),
        ({"k_schedule": "linear"}, "k_schedule 'linear' needs k_end"),
        ({"k_schedule": "linear", "k_end": -2.0}, "k must be a number >= 0"),
        ({"k_end": 2.0}, "k_end has no effect with k_schedule 'constant'; remove one of them"),
        ({"method": "gdpo", "k": 0.0}, "k: no effect with method 'gdpo', which reads no risk coefficient"),
        (
            {"method": "cvar", "k_schedule": "linear", "k": 1.0, "k_end": 2.0},
            "k and k_end and k_schedule: no effect with method 'cvar'",
        ),
        ({"method": f"{__name__}:ignores_weights", "k": 1.0}, "k: no effect with method"),
        ({"method": "gdpo", "scale_rewards": "none"}, "scale_rewards 'none' has no effect with method 'gdpo'"),
        ({"scale_rewards": False}, "scale_rewards 'none' has no effect with method 'rvpo'"),
        ({"scale_rewards": "batch"}, "scale_rewards 'batch' has no effect with method 'rvpo'"),
        ({"method": "grpo", "scale_rewards": "groups"}, "scale_rewards must be group, batch or none, got 'groups'"),
        (
            {"method": "grpo", "scale_rewards": "none", "method_options": {"scale": "group"}},
            "scale_rewards and the option scale of grpo say the same",
        ),
        ({"method": "grpo", "method_options": {"scale": "groups"}}, "scale of grpo must be 'group', 'none' or a"),
        (
            {"multi_objective_aggregation": "normalize_then_sum"},
            "multi_objective_aggregation 'normalize_then_sum' has no effect with method 'rvpo'",
        ),
        (
            {"method": "grpo", "multi_objective_aggregation": "normalize_then_sum", "scale_rewards": "none"},
            "'none' has no effect with method 'grpo' and multi_objective_aggregation 'normalize_then_sum'",
        ),
        ({"multi_objective_aggregation": "sum"}, "multi_objective_aggregation must be sum_then_normalize or"),
        ({"whiten": "tokens"}, "whiten must be true, false, sequence or token, got 'tokens'"),
        ({"anchor_decay": 1.0}, r"anchor_decay must be in [0, 1), got 1.0"),
        ({"dead_channels": "drop"}, "dead_channels must be 'keep' or 'mask', got 'drop'"),
        ({"std_ddof": 2}, "ddof must be 0 or 1, got 2"),
        ({"std_eps": -1.0}, "eps must be a finite number >= 0, got -1.0"),
        ({"method_options": "share=1"}, "method_options must be a JSON mapping, got 'share=1'"),
        ({"method_options": "[1]"}, "method_options must be a mapping, got [1]"),
        ({"method": "cvar", "method_options": {"shar": 0.3}}, "method 'cvar' has no option 'shar'; it takes share"),
        ({"method_options": {"anchor": "average"}}, "method 'rvpo' has no option 'anchor'"),
        ({"method": "rvpo_policy", "method_options": {"anchor": "averege"}}, "averege"),
        ({"channel_weights": [1.0]}, "channel_weights must be a mapping, got [1.0]"),
        ({"channel_weights": {"a": "x"}}, "channel_weights"),
        ({"channel_weights": {"a": -1.0}}, "channel_weights"),
        ({"channel_weights": {"a": "1 -> -0.5"}}, "channel_weights gives 'a' '1 -> -0.5': "),
        (
            {"channel_weights": {"a": "1 -> 0.5 cosine"}},
            "channel_weights gives 'a' '1 -> 0.5 cosine': unknown schedule",
        ),
        (
            {"channel_weights": {"a": "1 -> 0.5"}, "method": "hard_min"},
            "a schedule in channel_weights has no effect with method 'hard_min'",
        ),
        ({"channel_conditions": {"a": "b"}}, "a condition is written NAME OP NUMBER"),
        ({"channel_conditions": {"a": "b > 0", "b": "a > 0"}}, "conditions go in a circle"),
        (
            {"channel_conditions": {"a": "b > 0 else -1"}, "channel_ranges": {"a": [0, 1]}},
            "channel 'a' is -1 unless b > 0, but its range is [0, 1]",
        ),
        ({"channel_targets": {"a": "high"}}, "channel_targets gives 'a' 'high'; a target is a finite number"),
        ({"channel_targets": {"a": math.inf}}, "channel_targets gives 'a' inf"),
        ({"channel_targets": "a=1"}, "channel_targets must be a JSON mapping"),
        ({"target_rate": 0.0}, "target_rate must be a finite number > 0, got 0.0"),
        (
            {"channel_targets": {"a": 0.5}, "method": "hard_min"},
            "channel_targets has no effect with method 'hard_min'",
        ),
        ({"channel_targets": {"a": 0.5}, "k": math.inf}, "channel_targets has no effect with method 'rvpo' and k inf"),
        ({"channel_ranges": {"a": 3}}, "channel_ranges"),
        ({"channel_ranges": {"a": [1, 0]}}, "channel_ranges"),
        ({"channel_ranges": "{'a': [0, 1]}"}, "channel_ranges must be a JSON mapping"),
    ],
    ids=str,
)
def test_an_option_that_cannot_be_used_is_an_error_before_any_model_is_loaded(options, message):
    with pytest.raises(ConfigError) as error:
        config(**options)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"k": 3.0}, [3.0, 3.0, 3.0]),
        ({"k": math.inf}, [math.inf] * 3),
        ({"k_schedule": "linear", "k": 0.5, "k_end": 2.0}, [0.5, 1.25, 2.0]),
        ({"k_schedule": "linear", "k": 2.0, "k_end": 0.0}, [2.0, 1.0, 0.0]),
    ],
    ids=str,
)
def test_the_schedule_is_the_one_configured(options, expected):
    schedule = config(**options).schedule()
    assert [schedule(step, 10) for step in (0, 5, 10)] == pytest.approx(expected)


def ignores_weights(channels, k=0.0):
    return Aggregate(channels.z.sum(axis=2), prior(channels))


MINIMA = [
    {"method": "hard_min"},
    {"method": "rvpo", "k": math.inf},
    {"method": "rvpo_policy", "k": math.inf},
    {"method": f"{__name__}:ignores_weights"},
]
NOT_MINIMA = [
    {"method": "rvpo", "k": 1e6},
    {"method": "rvpo_policy", "k": math.inf, "method_options": {"utility": "log"}},
    {"method": "rvpo_policy", "method_options": {"anchor": "average"}},
    {"method": "tchebycheff", "k": math.inf},
    {"method": "cvar", "method_options": {"share": 0.01}},
    *({"method": name} for name in METHODS if name != "hard_min"),
]


@pytest.mark.parametrize("options", MINIMA, ids=str)
def test_targets_are_refused_where_weights_change_nothing(options):
    with pytest.raises(ConfigError, match="channel_targets has no effect with method"):
        config(channel_targets={"a": 0.5}, **options)


@pytest.mark.parametrize("options", NOT_MINIMA, ids=str)
def test_targets_are_taken_where_weights_change_the_advantages(options):
    assert config(channel_targets={"a": 0.5}, **options).channel_targets == {"a": 0.5}


YAML = """
method: rvpo_policy
k_schedule: linear
k: 0.5
k_end: 2
method_options: {anchor: average, signal: zscore}
channel_weights:
  format: 0.5
channel_ranges: '{"correct": [-3, 3]}'
channel_targets: {correct: 1.5, rubric/accuracy: 0.6}
target_rate: 5e-2
whiten: false
recenter: true
std_eps: 1e-6
std_ddof: 0
dead_channels: mask
"""


def test_yaml_gives_what_python_gives(tmp_path):
    read = parse(tmp_path, YAML)
    assert read.advantage_options() == {
        "method": "rvpo_policy",
        "ddof": 0,
        "eps": 1e-6,
        "dead_channels": "mask",
        "recenter": True,
        "whiten": False,
        "anchor": "average",
        "signal": "zscore",
    }
    assert read.channel_weights == {"format": 0.5}
    assert read.channel_ranges == {"correct": [-3, 3]}
    assert read.channel_targets == {"correct": 1.5, "rubric/accuracy": 0.6}
    assert read.target_rate == 0.05
    assert [read.schedule()(step, 4) for step in (0, 1, 2, 4)] == [0.5, 0.875, 1.25, 2.0]


def test_the_command_line_comes_before_yaml(tmp_path):
    words = ["--method", "tchebycheff", "--method_options", '{"ideal": 0.75}', "--k", "inf"]
    read = parse(tmp_path, "method: rvpo\nk: 2\nwhiten: token\nstd_ddof: 0\n", *words, "--whiten", "sequence")
    assert read.advantage_options()["method"] == "tchebycheff"
    assert read.advantage_options()["ideal"] == 0.75
    assert read.advantage_options()["whiten"] == "sequence"
    assert read.advantage_options()["ddof"] == 0
    assert read.schedule()(0, 1) == math.inf


@pytest.mark.parametrize(("yaml", "k"), [("k: .inf", math.inf), ("k: inf", math.inf), ("k: 1e-1", 0.1), ("k: 2", 2.0)])
def test_k_is_read_from_every_way_of_writing_a_number(tmp_path, yaml, k):
    assert parse(tmp_path, yaml).schedule()(0, 1) == k


@pytest.mark.parametrize(("written", "meant"), [("true", True), ("false", False), ("token", "token"), ("True", True)])
def test_whiten_is_read_from_yaml_and_command_line(tmp_path, written, meant):
    assert parse(tmp_path, f"whiten: {written}").advantage_options()["whiten"] == meant
    assert parse(tmp_path, "", "--whiten", written).advantage_options()["whiten"] == meant


def test_an_unknown_key_in_yaml_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="k_shedule"):
        parse(tmp_path, "k_shedule: linear")


def test_an_unknown_option_on_the_command_line_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="k_shedule"):
        parse(tmp_path, "", "--k_shedule", "linear")


def test_trls_own_checks_still_hold():
    with pytest.raises(ValueError, match="num_generations"):
        config(num_generations=3, per_device_train_batch_size=8)


def test_every_option_has_a_help_text():
    added = set(RVPOConfig.__dataclass_fields__) - set(GRPOConfig.__dataclass_fields__)
    assert added >= {"method", "k", "k_schedule", "whiten", "channel_weights"}
    for name in added:
        assert len(RVPOConfig.__dataclass_fields__[name].metadata["help"]) > 20, name


def test_the_configuration_survives_its_own_dictionary():
    options = {
        "method": "cvar",
        "method_options": '{"share": 0.5}',
        "channel_ranges": {"a": [0, 1]},
        "whiten": "token",
    }
    first = config(**options)
    second = config(**{name: first.to_dict()[name] for name in options})
    assert second.advantage_options() == first.advantage_options()
    assert second.channel_ranges == {"a": [0, 1]}


@pytest.mark.parametrize("value", [None, {"a": 1}, '{"a": 1}'])
def test_a_mapping_may_be_written_as_json(value):
    assert as_mapping("columns", value) == (None if value is None else {"a": 1})


@pytest.mark.parametrize("value", ["{", "[1]", "3", [1], 3])
def test_what_is_no_mapping_is_an_error_that_names_the_option(value):
    with pytest.raises(ConfigError, match="columns must be a"):
        as_mapping("columns", value)


@pytest.mark.parametrize(("processes", "accumulation"), [(1, 48), (2, 24), (6, 8), (8, 6)])
def test_the_rollouts_of_a_step_are_the_same_for_any_number_of_processes(monkeypatch, processes, accumulation):
    made = config(rollouts_per_step=192, per_device_train_batch_size=4)
    assert made.gradient_accumulation_steps == 48
    assert made.generation_batch_size == 192
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    made.gradient_accumulation_steps = 1
    assert made._accumulation(192) == accumulation


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"rollouts_per_step": 30},
            "must be a multiple of 8, that is per_device_train_batch_size 8 times 1 processes",
        ),
        ({"rollouts_per_step": 0}, "must be a multiple of 8"),
        ({"rollouts_per_step": 32, "gradient_accumulation_steps": 2}, "sets gradient_accumulation_steps to 4"),
    ],
)
def test_rollouts_that_cannot_be_divided_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        config(per_device_train_batch_size=8, **options)


def test_a_machine_without_accelerator_is_chosen_for_and_said(tmp_path, caplog, monkeypatch):
    seen = "rvpo.integrations.trl.config.without_accelerator"
    monkeypatch.setattr(seen, lambda: {"use_cpu": True, "bf16": False})
    made = RVPOConfig(output_dir=str(tmp_path))
    assert (made.use_cpu, made.bf16) == (True, False)
    assert "no accelerator here, so it trains on the CPU (use_cpu=True, bf16=False)" in caplog.text
    caplog.clear()
    made = RVPOConfig(output_dir=str(tmp_path), use_cpu=True, bf16=True)
    assert (made.use_cpu, made.bf16, caplog.text) == (True, True, "")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match=r"bf16=True needs an accelerator .* write use_cpu=True, bf16=False"):
            RVPOConfig(output_dir=str(tmp_path), bf16=True)
    monkeypatch.setattr(seen, dict)  # a machine with one
    made = RVPOConfig(output_dir=str(tmp_path), use_cpu=True)
    assert (made.bf16, caplog.text) == (True, "")
