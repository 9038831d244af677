"""docs/add-a-method.md does what it says; a method of one's own is one everywhere, and a wrong one an error."""

import doctest
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest

import rvpo
from rvpo import METHODS, Aggregate, ConfigError, Method, RVPOConfig, compute_advantages
from rvpo.cli.main import main
from rvpo.core.aggregations import prior
from rvpo.core.methods import find_method

PAGE = Path(__file__).parents[2] / "docs" / "add-a-method.md"
BLOCKS = re.findall(r"```(python|bash)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
MODULE = BLOCKS[0][1]
NAME = "my_methods:mean_distance"
GROUP = np.array([[[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0]]])
CPU = {"use_cpu": True, "bf16": False, "report_to": "none"}


@pytest.fixture
def module(tmp_path, monkeypatch):
    """The page's module in the current folder, as for a user who saved it there."""
    (tmp_path / "my_methods.py").write_text(MODULE + "\n\nnot_a_method = 3\nname = 'rvpo'\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    yield tmp_path
    sys.modules.pop("my_methods", None)


def config(**options):
    return RVPOConfig(output_dir="run", **CPU, **options)


# --- the page -------------------------------------------------------------------------------------------------


def test_the_pages_module_is_short():
    body = MODULE[MODULE.index("def ") :]
    assert len(MODULE.splitlines()) <= 15
    assert body.startswith("def mean_distance(")


def test_the_pages_examples_give_what_it_shows(module):
    examples = "\n".join(code for language, code in BLOCKS[1:] if language == "python")
    test = doctest.DocTestParser().get_doctest(examples, {}, PAGE.name, str(PAGE), 0)
    assert len(test.examples) >= 10
    assert doctest.DocTestRunner().run(test).failed == 0


def test_the_pages_numbers_are_those_of_its_formula(module):
    # ddof 0 and eps 0: Z = +-1. Rollouts with both or none: no distance. The others: mean 0, both at distance 1.
    raw = compute_advantages(GROUP, method=find_method(NAME), k=0.5, ddof=0, eps=0.0, whiten=False).advantages
    np.testing.assert_allclose(raw, [[-0.5, -0.5, 1.0, -1.0]])
    below = compute_advantages(GROUP, method=NAME, k=0.5, only_below=True, ddof=0, eps=0.0, whiten=False).advantages
    np.testing.assert_allclose(below, [[-0.25, -0.25, 1.0, -1.0]])


@pytest.mark.parametrize("command", ["audit", "simulate"])
def test_the_pages_commands_run(module, command, capsys):
    (commands,) = [code for language, code in BLOCKS if language == "bash"]
    (line,) = [line for line in commands.splitlines() if line.startswith(f"rvpo {command}")]
    assert main(shlex.split(line)[1:]) == 0
    assert "distance" in capsys.readouterr().out


def test_the_suite_plans_runs_of_a_method_of_ones_own(module):
    from rvpo_lab.suite.plan import find_contender

    contender = find_contender(f"{NAME}:0.5-2:only_below=true,recenter=true")
    assert contender.options == {
        "method": NAME,
        "k_schedule": "linear",
        "k": 0.5,
        "k_end": 2.0,
        "recenter": True,
        "method_options": {"only_below": True},
    }
    assert find_contender(NAME).options == {"method": NAME, "k": 1.0}
    with pytest.raises(ConfigError, match="cannot load method 'my_methods:mean_distnce'"):
        find_contender("my_methods:mean_distnce")


# --- the same method, by every way of handing it over ---------------------------------------------------------


def test_a_function_a_method_and_a_path_are_the_same_method(module):
    from my_methods import mean_distance

    ways = [mean_distance, Method(mean_distance, takes_k=True), NAME]
    first, *others = [compute_advantages(GROUP, method=way, k=0.7).advantages for way in ways]
    for other in others:
        np.testing.assert_array_equal(first, other)


@pytest.mark.parametrize("name", METHODS)
def test_a_built_in_method_handed_over_as_ones_own_gives_the_same(name):
    method = METHODS[name]
    assert method.name == name
    rewards = np.random.default_rng(0).random((3, 5, 4))
    expected = compute_advantages(rewards, method=name)
    for way in (method, f"{method.function.__module__}:{name}"):
        own = compute_advantages(rewards, method=way, k=method.default_k, whiten=method.whitens, ranges=(0, 1))
        np.testing.assert_array_equal(own.advantages, expected.advantages)


@pytest.mark.parametrize("name", METHODS)
def test_a_plain_function_takes_k_as_the_table_says(name):
    assert find_method(METHODS[name].function).takes_k == METHODS[name].takes_k


def test_a_method_states_its_k_its_scale_and_its_range():
    seen = []

    def unit_mean(channels, k):
        seen.append((k, channels.low[0, 0, 0], channels.width[0, 0, 0]))
        unit = (channels.rewards - channels.low) / channels.width
        return Aggregate((prior(channels) * unit).sum(axis=2), prior(channels))

    method = Method(unit_mean, whitens=False, needs_range=True, default_k=3.0)
    assert compute_advantages(GROUP, method=method).advantages.tolist() == [[0.5, 0.5, 1.0, 0.0]]
    assert compute_advantages(10 * GROUP, method=method, ranges=(0, 10)).advantages.tolist() == [[0.5, 0.5, 1.0, 0.0]]
    assert seen == [(3.0, 0.0, 1.0), (3.0, 0.0, 10.0)]
    with pytest.raises(rvpo.RewardError, match="outside its range"):
        compute_advantages(10 * GROUP, method=method)


# --- errors ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("my_method", r"unknown method 'my_method':.* Known: .*package\.module:function"),
        ("my_methods:no_such", "cannot load method 'my_methods:no_such'.*no attribute"),
        ("no_such_module:f", "cannot load method 'no_such_module:f': No module named"),
        (":f", "cannot load method ':f'"),
        ("my_methods:not_a_method", "a method is a name, a function or a rvpo.Method, got 3"),
        ("my_methods:name", "'my_methods:name' is the text 'rvpo', not a function"),
        (
            "builtins:len",
            r"a method is a function \(channels, k, \*, options...\), and <built-in function len> is",
        ),
    ],
)
def test_what_is_no_method_is_an_error(module, method, message):
    with pytest.raises(ConfigError, match=message):
        compute_advantages(GROUP, method=method)
    with pytest.raises(ConfigError, match=message):
        config(method=method)


def test_an_option_that_ones_own_method_lacks_is_an_error(module):
    with pytest.raises(ConfigError, match="method 'mean_distance' has no option 'only_bellow'; it takes only_below"):
        config(method=NAME, method_options={"only_bellow": True})


@pytest.mark.parametrize(
    ("returned", "seen"),
    [
        (lambda z: z.mean(axis=2), "ndarray"),
        (lambda z: Aggregate(z.mean(axis=(1, 2), keepdims=True)[..., 0], z), r"\(1, 1\)"),
    ],
)
def test_what_is_no_aggregate_of_the_batch_is_an_error(returned, seen):
    with pytest.raises(ConfigError, match=rf"method '<lambda>' must return an rvpo.Aggregate .* \(1, 4\).*got {seen}"):
        compute_advantages(GROUP, method=lambda channels, k: returned(channels.z))


def test_an_advantage_that_is_not_finite_is_an_error():
    def by_std(channels, k=0.0):
        with np.errstate(all="ignore"):
            return Aggregate((channels.z / channels.std).sum(axis=2), prior(channels))

    dead = np.ones((1, 4, 2))
    with pytest.raises(ConfigError, match="method 'by_std' returned an advantage that is not finite"):
        compute_advantages(dead, method=by_std)


# --- configuration --------------------------------------------------------------------------------------------


def test_a_configuration_holds_a_method_as_text_and_comes_back_from_it(module):
    made = config(method=NAME, k=0.5, method_options={"only_below": True})
    stored = made.to_dict()
    assert stored["method"] == NAME
    second = RVPOConfig(output_dir="run", **CPU, **{name: stored[name] for name in ("method", "k", "method_options")})
    assert second.advantage_options() == made.advantage_options()
    assert made.schedule()(0, 1) == 0.5


def test_a_configuration_does_not_take_a_function(module):
    from my_methods import mean_distance

    with pytest.raises(ConfigError, match=r"method is a name or 'package\.module:function', as text"):
        config(method=mean_distance)
