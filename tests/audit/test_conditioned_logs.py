"""What a condition would have made of a log: as if the rewards had been conditioned before they were logged."""

import numpy as np
import pytest

from rvpo.audit import Groups, audit_groups, audit_log
from rvpo.cli.audit import main
from rvpo.errors import ConfigError

METHODS = {"methods": ["gdpo", "rvpo_policy"], "ks": [2.0], "draws": 50}


def rewards(seed=0, prompts=40):
    """(P, 6, 2): a hard reward, and an easy one that is mostly collected without it; one in ten is missing."""
    rng = np.random.default_rng(seed)
    values = np.stack([rng.random((prompts, 6)) < 0.3, rng.random((prompts, 6)) < 0.8], axis=2).astype(float)
    values[rng.random(values.shape) < 0.1] = np.nan
    return values


def conditioned(values, otherwise=0.0):
    hard, easy = values[..., 0], values[..., 1]
    easy = np.where(np.isnan(hard + easy), np.nan, np.where(hard >= 1, easy, otherwise))  # missing stays missing
    return np.stack([hard, easy], axis=2)


@pytest.mark.parametrize(("text", "otherwise"), [("hard >= 1", 0.0), ("hard >= 1 else missing", np.nan)])
@pytest.mark.parametrize("once", [False, True])
def test_the_audit_is_that_of_conditioned_rewards(text, otherwise, once):
    values = rewards()
    blocks = [Groups(values[:15]), Groups(values[15:])]
    result = audit_groups(blocks if once else lambda: blocks, ["hard", "easy"], conditions={"easy": text}, **METHODS)
    expected = audit_groups([Groups(conditioned(values, otherwise))], ["hard", "easy"], **METHODS)
    for ours, theirs in zip(result.channels, expected.channels, strict=True):
        assert ours.mean.value == pytest.approx(theirs.mean.value)
        for signal in ("gdpo", "rvpo_policy k=2"):
            assert ours.forecasts[signal].change.value == pytest.approx(theirs.forecasts[signal].change.value)
    known = values[..., 0][~np.isnan(values[..., 0])]
    assert result.reading[-1].startswith(f"easy only if {text}")
    assert result.reading[-1].endswith(f"not met by {100 * (known < 1).mean():.0f} % of the rollouts")


def test_a_log_is_read_twice_with_the_condition_applied_each_time(monkeypatch):
    monkeypatch.setattr("rvpo.audit.analysis.KEPT_BYTES", 0)
    values = rewards()
    result = audit_groups(lambda: [Groups(values)], ["hard", "easy"], conditions={"easy": "hard >= 1"}, **METHODS)
    expected = audit_groups([Groups(conditioned(values))], ["hard", "easy"], **METHODS)
    assert result.channel("easy").mean.value == pytest.approx(expected.channel("easy").mean.value)


def write(file, values):
    lines = ["step,prompt,hard,easy"]
    for prompt, group in enumerate(values):
        lines += [f"{prompt % 4},p{prompt},{hard},{easy}".replace("nan", "") for hard, easy in group]
    file.write_text("\n".join(lines) + "\n")
    return str(file)


def test_the_command_shows_the_log_beside_what_the_condition_makes_of_it(tmp_path, capsys):
    log = write(tmp_path / "log.csv", rewards())
    assert main([log, "--methods", "gdpo", "--only-if", "easy=hard >= 1"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "easy only if hard >= 1 else 0: not met by" in out
    assert "Against the log without the condition: " in out
    plain = audit_log(log, methods=["gdpo"]).channel("easy").mean.value
    made = audit_log(log, methods=["gdpo"], conditions={"easy": "hard >= 1"}).channel("easy").mean.value
    assert made < plain - 0.3
    (row,) = [line for line in out.split(" easy ")[1:] if line.startswith(f"{made:.2f} {plain:.2f} ")]
    assert row


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("easy", "--only-if takes NAME=CONDITION"),
        ("easy=hard", "a condition is written NAME OP NUMBER"),
        ("easy=easy >= 1", "in a circle"),
        ("esay=hard >= 1", "unknown channel 'esay': did you mean 'easy'"),
        ("easy=herd >= 1", "unknown channel 'herd': did you mean 'hard'"),
    ],
)
def test_a_condition_that_cannot_be_applied_is_an_error(tmp_path, option, message):
    with pytest.raises(ConfigError, match=message):
        main([write(tmp_path / "log.csv", rewards()), "--only-if", option])
