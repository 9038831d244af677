"""RubricReward: channels out of judged criteria, in Python and in the trainer, over real HTTP."""

import asyncio
import json
import math
import pickle
import socket

import pytest

import forked
from judging.fault_server import FaultServer, honest, seldom
from rvpo.errors import ConfigError, JudgeError
from rvpo.judging.config import JudgeConfig
from rvpo.judging.criteria import Criterion, Rubric
from rvpo.judging.grading import RuleJudge
from rvpo.judging.store import VerdictStore
from rvpo.llm.model_text import completion_text
from rvpo.rewards.declarations import declaration
from rvpo.rewards.rubric import RubricReward

RUBRIC = Rubric(
    (
        Criterion("rest", "says rest", 5, tags=("accuracy", "essential")),
        Criterion("ice", "says ice", -1, "negative", ("pitfall",)),
        Criterion("water", "says water", 2),
    )
)


def by_rule(prompt, answer, criterion):
    word = criterion.text.removeprefix("says ")
    return None if "lost" in answer else word in answer.split()


def call(reward, completions, **kwargs):
    prompts, rubric = ["q"] * len(completions), [RUBRIC.to_rows()] * len(completions)

    async def run():
        try:
            return await reward(prompts=prompts, completions=completions, rubric=rubric, **kwargs)
        finally:
            await reward.close()

    return asyncio.run(run())


def test_channels_are_oriented_named_by_tag_and_missing_where_lost():
    reward = RubricReward(RuleJudge(by_rule, max_missing=1.0))
    assert call(reward, ["rest ice", "water", "lost"]) == [
        {"accuracy/rest": 1.0, "pitfall/ice": 0.0, "water": 0.0},
        {"accuracy/rest": 0.0, "pitfall/ice": 1.0, "water": 1.0},
        {"accuracy/rest": None, "pitfall/ice": None, "water": None},
    ]
    assert declaration(reward).is_vector
    assert reward.__name__ == "rubric"


def test_the_explicit_score_is_rars_weighted_share():
    reward = RubricReward(RuleJudge(by_rule, max_missing=1.0), aggregate="explicit", name="explicit")
    # weights: essential 1.0, pitfall 0.9, two points are optional 0.3
    assert call(reward, ["rest ice", "water", "lost"]) == [
        pytest.approx(1.0 / 2.2),
        pytest.approx(1.2 / 2.2),
        None,
    ]
    assert not declaration(reward).is_vector


def test_the_implicit_score_is_the_judges_own_rating():
    def rating(body):
        assert "importance 5" in body["messages"][1]["content"]
        assert "fault 1" in body["messages"][1]["content"]
        return '{"reason": "x", "rating": 7}'

    with FaultServer(reply=rating) as server:
        reward = RubricReward({"model": "m", "base_url": server.url}, aggregate="implicit")
        assert call(reward, ["rest", "", "<think>rest</think>"]) == [pytest.approx(6 / 9), 0.0, 0.0]
        assert server.requests == 1
    with pytest.raises(ConfigError, match="rules give none"):
        RubricReward(RuleJudge(by_rule), aggregate="implicit")


def test_outcomes_are_logged_where_the_trainer_offers_a_way():
    logged = {}
    reward = RubricReward(RuleJudge(by_rule, max_missing=1.0))
    call(reward, ["rest ice water", "lost"], log_metric=logged.__setitem__, log_extra=None)
    assert logged == {"rubric/met": 0.5, "rubric/unparsed": 0.5}


def test_reasons_go_into_the_completions_table_if_they_are_wanted():
    logged = {}

    def judged(body):
        return honest(body).replace("by rule", "caf\\u00e9 \\ud83d")

    with FaultServer(reply=judged) as server:
        for log_reasons in (False, True):
            reward = RubricReward({"model": "m", "base_url": server.url}, name="mine", log_reasons=log_reasons)
            call(reward, ["rest", ""], log_metric=None, log_extra=logged.__setitem__)
            assert list(logged) == ["mine/reasons"] * log_reasons
        with pytest.raises(ConfigError, match="log_reasons needs a trainer that hands over log_extra"):
            call(reward, ["rest"])
    first, empty = logged["mine/reasons"]
    assert first.isascii()
    assert json.loads(first) == dict.fromkeys(["accuracy/rest", "pitfall/ice", "water"], "caf\u00e9 \ud83d")
    assert json.loads(empty) == dict.fromkeys(["accuracy/rest", "pitfall/ice", "water"])
    with pytest.raises(ConfigError, match="no effect with aggregate 'implicit'"):
        RubricReward({"model": "m"}, aggregate="implicit", log_reasons=True)


def rows_of(reward, rubrics, answer="rest"):
    """Return what a reward says of one answer under several rubrics."""
    number = len(rubrics)
    return asyncio.run(reward(prompts=["q"] * number, completions=[answer] * number, rubric=rubrics))


DOCUMENTED = ["says rest", {"text": "says ice", "points": -2, "tags": ["scope"]}]


def test_a_rubric_may_be_null_json_text_or_texts():
    rubrics = [
        None,
        [],
        "",
        " null\n",
        float("nan"),  # what tables make of null
        DOCUMENTED,
        json.dumps(DOCUMENTED),
        [json.dumps(DOCUMENTED[1]), "says rest"],
        RUBRIC.to_rows(),
    ]
    none, empty, blank, null, nan, listed, text, mixed, canonical = rows_of(RubricReward(RuleJudge(by_rule)), rubrics)
    assert none == empty == blank == null == nan == {}
    assert listed == text == {"c1": 1.0, "scope/c2": 1.0}  # negative points: not met is good
    assert mixed == {"scope/c1": 1.0, "c2": 1.0}
    assert canonical == {"accuracy/rest": 1.0, "pitfall/ice": 1.0, "water": 0.0}
    for aggregate in ("explicit", "implicit"):
        judge = (
            RuleJudge(by_rule) if aggregate == "explicit" else JudgeConfig(model="m", base_url="http://127.0.0.1:9/v1")
        )
        assert rows_of(RubricReward(judge, aggregate=aggregate), [None, []]) == [None, None]  # and nobody is asked


@pytest.mark.parametrize(
    ("rubric", "message"),
    [
        ("Be kind.", "completion 1: a rubric must be a list of criteria.*got text that is no JSON list: 'Be kind.'"),
        ({"text": "x"}, "got dict"),
        (3, "got int: '3'"),
        ('{"text": "x"}', "got text that is no JSON list"),
        ([["x"]], "criterion 1 of a rubric must be a text or an object, got list"),
        ([{"criterion": "x"}], "unknown key of a criterion 'criterion'"),
        ([{"id": "c2", "text": "x"}, "y"], "ids must be unique"),
    ],
)
def test_a_rubric_that_cannot_be_read_is_refused_by_its_type(rubric, message):
    with pytest.raises(ConfigError, match=message):
        rows_of(RubricReward(RuleJudge(by_rule)), [None, rubric])


@pytest.mark.parametrize("aggregate", ["explicit", "implicit"])
def test_a_rubric_without_any_points_is_refused_before_calls_are_paid(aggregate):
    rows = [{"text": "says rest", "points": 0}, {"text": "says ice", "points": 0.0}]
    with FaultServer() as server:
        reward = RubricReward({"model": "m", "base_url": server.url}, aggregate=aggregate)
        with pytest.raises(ConfigError, match=f"none of its 2 criteria has any points, so that no {aggregate} score"):
            rows_of(reward, [rows])
        assert server.requests == 0
    assert rows_of(RubricReward(RuleJudge(by_rule)), [rows]) == [{"c1": 1.0, "c2": 0.0}]  # channels need none


def test_rows_without_a_rubric_column_are_refused_by_name():
    with pytest.raises(ConfigError, match="reward 'mine' needs rows with a column 'rubric'"):
        asyncio.run(RubricReward(RuleJudge(by_rule), name="mine")(prompts=["q"], completions=["a"]))


def test_thoughts_are_cut_before_rules_and_judges_and_counted():
    logged = {}
    reward = RubricReward(RuleJudge(by_rule))
    answers = ["Perhaps ice.</think>rest", "<think>rest", "rest"]
    first, cut, plain = call(reward, answers, log_metric=logged.__setitem__)
    assert first == plain == {"accuracy/rest": 1.0, "pitfall/ice": 1.0, "water": 0.0}
    assert cut["accuracy/rest"] == 0.0
    assert logged["rubric/thoughts_cut"] == pytest.approx(2 / 3)
    assert logged["rubric/ended_in_thought"] == pytest.approx(1 / 3)
    call(reward, ["rest"], log_metric=logged.__setitem__)
    assert logged["rubric/thoughts_cut"] == 0.0
    (kept,) = call(RubricReward(RuleJudge(by_rule, thoughts={})), ["ice </think> rest"])
    assert kept["pitfall/ice"] == 0.0


def test_half_an_emoji_in_a_completion_costs_no_step():
    with FaultServer() as server:
        (row,) = call(RubricReward({"model": "m", "base_url": server.url}), ["rest \ud83d \0"])
    assert row["accuracy/rest"] == 1.0


def test_chat_messages_are_answers_too():
    assert completion_text([{"role": "assistant", "content": "rest"}], 0) == "rest"
    assert completion_text([{"role": "user", "content": "no"}, {"role": "assistant", "content": None}], 0) == ""
    assert completion_text([{"role": "assistant", "content": [{"type": "text", "text": "rest"}]}], 0) == "rest"
    reward = RubricReward(RuleJudge(by_rule))
    (row,) = call(reward, [[{"role": "assistant", "content": "rest"}]])
    assert row["accuracy/rest"] == 1.0


def test_a_reward_travels_as_its_configuration():
    reward = pickle.loads(pickle.dumps(RubricReward(JudgeConfig(model="m"), name="mine")))
    assert reward.__name__ == "mine"
    assert reward.judge.config == JudgeConfig(model="m")


@pytest.mark.parametrize("options", [{"aggregate": "mean"}, {"aggregate": "Explicit"}])
def test_unknown_aggregates(options):
    with pytest.raises(ConfigError, match="aggregate"):
        RubricReward(RuleJudge(by_rule), **options)


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    from rvpo_lab.tasks.policy import build_policy, word_tokenizer

    words = ["rest", "ice", "water", "question", *map(str, range(8))]
    return build_policy(tmp_path_factory.mktemp("policy"), word_tokenizer(words), hidden_size=32, layers=1)


def write_config(policy, folder, server, *, missing=1.0, batch=8, rubrics=None, **options):
    """Write rows and configuration of two steps of two prompts x four rollouts; return the file."""
    rubrics = rubrics or [RUBRIC.to_rows()]
    rows = [{"prompt": f"question {index}", "rubric": rubrics[index % len(rubrics)]} for index in range(8)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    judge = {
        "model": "m", "base_url": server.url, "store": str(folder / "v.sqlite"), "criteria_per_call": 3, "asks": 1,
        "timeout": 0.5, "retry_minutes": 0.5, "max_missing": missing, **options,
    }  # fmt: skip
    config = {
        "model_name_or_path": str(policy), "dataset_name": str(folder / "rows.jsonl"), "reward_funcs": ["rubric"],
        "judge": judge, "output_dir": str(folder / "run"), "max_steps": 2, "per_device_train_batch_size": batch,
        "num_generations": 4, "max_completion_length": 4, "logging_steps": 1, "report_to": "none", "bf16": False,
        "gradient_checkpointing": False, "use_cpu": True, "save_strategy": "no", "dataloader_pin_memory": False,
    }  # fmt: skip
    (folder / "run.yaml").write_text(json.dumps(config))  # JSON is YAML
    return folder / "run.yaml"


def read_log(folder):
    return [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]


def train(policy, folder, server, **options):
    """Train with `rvpo train`; return status and log."""
    from rvpo.cli.main import main

    status = main(["train", "--config", str(write_config(policy, folder, server, **options))])
    return status, read_log(folder) if status == 0 else []


def test_rvpo_train_with_a_served_judge(policy, tmp_path):
    with FaultServer() as server:
        status, log = train(policy, tmp_path, server)
    assert status == 0
    assert {"channels/rubric/accuracy/mean", "channels/rubric/pitfall/mean", "channels/rubric/mean"} <= set(log[0])
    assert log[0]["channels/rubric/accuracy/missing"] == 0.0
    shares = [log[0].get(f"rubric/{outcome}", 0.0) for outcome in ("met", "unmet", "skipped")]
    assert math.fsum(shares) == pytest.approx(1.0)


def test_two_processes_judge_their_own_completions_into_one_store(policy, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with FaultServer() as server:
        file = write_config(policy, tmp_path, server, batch=4)
        launch = {
            "WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "ACCELERATE_USE_CPU": "true",
        }
        printed = tmp_path / "printed.txt"
        ranks = [
            forked.start(["train", "--config", file], printed, RANK=rank, LOCAL_RANK=rank, **launch) for rank in "01"
        ]
        for process in ranks:
            process.join(timeout=300)
        assert [process.exitcode for process in ranks] == [0, 0], printed.read_text()[-4000:]
        stored = VerdictStore(tmp_path / "v.sqlite").statistics()[0]["replies"]
        # Both processes may ask for one completion at the same moment; what is stored is not asked for again.
        assert stored <= server.requests <= stored + 4
    log = read_log(tmp_path)
    assert log[0]["channels/rubric/accuracy/missing"] == 0.0
    assert printed.read_text().count("rubric: ") == 2  # each process tells what it spent


def test_lost_verdicts_are_missing_channels_in_training(policy, tmp_path):
    def plan(number, body):
        return "refusal" if seldom(0.5, seed=number)(number, body) else None

    with FaultServer(plan) as server:
        status, log = train(policy, tmp_path, server)
    assert status == 0
    assert any(0.0 < entry["channels/rubric/accuracy/missing"] < 1.0 for entry in log[:2])
    assert all(math.isfinite(entry["loss"]) for entry in log[:2])


def test_training_stops_where_too_much_is_missing(policy, tmp_path, capsys):
    with FaultServer(lambda number, body: "refusal") as server:
        status, _ = train(policy, tmp_path, server, missing=0.2)
    assert status == 2
    assert "verdicts are missing" in capsys.readouterr().err


def test_training_on_documented_rows_and_rows_without_a_rubric(policy, tmp_path):
    with FaultServer() as server:
        status, log = train(policy, tmp_path, server, rubrics=[DOCUMENTED, None])
    assert status == 0
    assert "channels/rubric/scope/mean" in {key for entry in log for key in entry}


def test_a_dead_judge_stops_training_in_steps_too_small_to_tell(policy, tmp_path, capsys):
    """Two steps of 8 verdicts: no batch is large enough for max_missing."""
    with FaultServer(lambda number, body: 400) as server:
        status, _ = train(policy, tmp_path, server, rubrics=[["says rest"]], missing=0.5, dead_after=12)
    assert status == 2
    error = capsys.readouterr().err
    assert "is dead: 12 verdicts one after the other were lost" in error
    assert "HTTP 400: scripted" in error


def test_a_rubric_reward_needs_its_judge():
    from rvpo.integrations.trl.rewards import load_reward

    with pytest.raises(ConfigError, match="set 'judge'"):
        load_reward("rubric")


def test_the_error_of_a_judge_reaches_the_caller():
    reward = RubricReward(RuleJudge(lambda *words: None))
    with pytest.raises(JudgeError, match="24 of 24"):
        call(reward, ["x"] * 8)


def test_stock_grpo_takes_the_explicit_score(policy, tmp_path):
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    from rvpo.llm.tokenizer import load_tokenizer

    rows = Dataset.from_list([{"prompt": f"question {index}", "rubric": RUBRIC.to_rows()} for index in range(4)])
    with FaultServer() as server:
        reward = RubricReward({"model": "m", "base_url": server.url, "criteria_per_call": 3}, aggregate="explicit")
        args = GRPOConfig(
            output_dir=str(tmp_path), max_steps=1, per_device_train_batch_size=4, num_generations=4,
            max_completion_length=4, logging_steps=1, report_to="none", bf16=False, gradient_checkpointing=False,
            use_cpu=True, save_strategy="no", dataloader_pin_memory=False, disable_tqdm=True,
        )  # fmt: skip
        tokenizer = load_tokenizer(policy)
        trainer = GRPOTrainer(
            model=str(policy),
            reward_funcs=reward,
            args=args,
            train_dataset=rows,
            processing_class=tokenizer,
        )
        trainer.train()
        asyncio.run_coroutine_threadsafe(reward.close(), trainer.async_loop).result(timeout=60)
    assert 0.0 <= trainer.state.log_history[0]["rewards/rubric/mean"] <= 1.0
    assert reward.judge.counts.total() == 4 * len(RUBRIC)
