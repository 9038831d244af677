"""What real judges send: cut, broken, swapped, under a schema or without one; and judges that are dead."""

import asyncio
import json
import re
import sqlite3
from contextlib import closing

import pytest

from judging.fault_server import FaultServer, RawServer, blocks, envelope, honest, items
from judging.test_judge import config, grade, wrong
from judging.worker import Worker
from rvpo.errors import ConfigError, JudgeError
from rvpo.judging.config import JudgeConfig
from rvpo.judging.criteria import Criterion, Rubric
from rvpo.judging.grading import Item
from rvpo.judging.judge import Judge
from rvpo.judging.prompts import load_prompt
from rvpo.judging.store import VerdictStore
from rvpo.judging.verdicts import Outcome

RUBRIC = Rubric((Criterion("a", "says rest"),))


def cut_envelope(text):
    body = envelope(text)
    body["choices"][0]["finish_reason"] = "length"
    return body


def test_half_an_emoji_in_a_reply_is_stored_and_paid_once(tmp_path):
    def script(n, body):
        return envelope(honest(body).replace("by rule", "ok \ud83d \0"))

    with RawServer(script) as server:
        settings = config(server, store=str(tmp_path / "s"))
        graded, stored = (grade(Judge(settings), items(1, size=2))[0] for _ in range(2))
        assert server.requests == 2
    assert graded.reasons() == stored.reasons()
    assert set(graded.reasons().values()) == {"ok \N{REPLACEMENT CHARACTER} \N{REPLACEMENT CHARACTER}"}


def test_a_broken_reason_costs_no_verdict_and_no_second_call():
    def script(n, body):
        return envelope(honest(body).replace("by rule", r"names \(K_\alpha\) in {braces}, see </answer>"))

    batch = items(4)
    with RawServer(script) as server:
        graded = grade(Judge(config(server, criteria_per_call=5)), batch)
        assert server.requests == 4
    assert wrong(graded, batch) == []
    assert set(graded[0].reasons().values()) == {r"names \(K_\alpha\) in {braces}, see </answer>"}


def test_a_reply_cut_in_its_last_entry_is_kept_and_only_that_asked_again():
    asked = []

    def script(n, body):
        reply = honest(body)
        asked.append(len(blocks(body)[1]))
        return envelope(reply[:-15] if n == 1 else reply)

    (item,) = items(1, size=4)
    with RawServer(script) as server:
        graded = grade(Judge(config(server, criteria_per_call=4)), [item])
    assert asked == [4, 1]
    assert wrong(graded, [item]) == []
    assert None not in graded[0].met().values()


def test_a_reply_cut_at_max_tokens_is_answered_by_fewer_criteria_and_more_tokens(tmp_path):
    """A judge that thinks for 1,024 tokens, and one more for each criterion."""
    asked = []

    def script(n, body):
        size = len(blocks(body)[1])
        asked.append((size, body["max_tokens"]))
        return envelope(honest(body)) if body["max_tokens"] > 2048 + size else cut_envelope("")

    (item,) = items(1, size=4)
    with RawServer(script) as server:
        settings = config(server, criteria_per_call=4, store=str(tmp_path / "s"))
        graded = grade(Judge(settings), [item])
        assert sorted(asked, reverse=True) == [(4, 1024), (2, 2048), (2, 2048), *[(1, 4096)] * 4]
        assert wrong(graded, [item]) == []
        asked.clear()
        grade(Judge(settings), [item])
        assert asked == [(4, 1024), (2, 2048), (2, 2048)]  # what could be read is never paid twice


def test_entries_before_a_cut_at_max_tokens_are_kept_and_found_in_the_store(tmp_path):
    asked = []

    def script(n, body):
        verdicts = json.loads(honest(body))["verdicts"]
        asked.append(len(verdicts))
        return cut_envelope(json.dumps({"verdicts": verdicts})[:-10]) if len(verdicts) > 1 else envelope(honest(body))

    (item,) = items(1, size=4)
    with RawServer(script) as server:
        for _ in range(2):
            graded = grade(Judge(config(server, criteria_per_call=4, store=str(tmp_path / "s"))), [item])
            assert wrong(graded, [item]) == []
    assert asked == [4, 1]


@pytest.mark.parametrize(("extra", "limits"), [
    ({}, [{"max_tokens": 1024}, {"max_tokens": 2048}]),
    ({"max_tokens": None, "max_completion_tokens": 9}, [{"max_completion_tokens": 9}, {"max_completion_tokens": 18}]),
    ({"max_tokens": None}, [{}, {}]),
])  # fmt: skip
def test_what_stays_cut_is_an_outcome_of_its_own(extra, limits):
    with RawServer(lambda n, body: cut_envelope("so I think")) as server:
        judge = Judge(config(server, asks=2, extra=extra))
        grade(judge, items(1, size=1))
    assert judge.counts == {Outcome.CUT: 1}
    assert judge.summary().startswith("1 cut at max_tokens; 2 calls")
    sent = [{name: body[name] for name in body if name.startswith("max_")} for body in server.bodies]
    assert sent == limits


def test_a_server_that_refuses_more_tokens_leaves_the_verdict_cut():
    def script(n, body):
        return cut_envelope("") if n == 1 else (400, {"error": {"message": "max_tokens is too large"}})

    with RawServer(script) as server:
        judge = Judge(config(server))
        grade(judge, items(1, size=1))
    assert judge.counts == {Outcome.CUT: 1}


def test_replies_swapped_between_requests_are_never_believed():
    """Every second request is answered with the reply to the one before it, as a broken proxy does."""
    before = {}

    def script(n, body):
        reply = honest(body)
        swapped, before["reply"] = before.get("reply", reply), reply
        return envelope(swapped if n % 2 else reply)

    batch = items(20, size=4)
    for size in (1, 4):
        with RawServer(script) as server:
            graded = grade(Judge(config(server, criteria_per_call=size, asks=10)), batch)
        assert wrong(graded, batch) == []
        lost = [verdict for answer in graded for verdict in answer.verdicts.values() if verdict.is_lost]
        assert lost == []


def test_ids_depend_on_a_secret_the_answer_the_criterion_and_the_sample():
    def ids(answer="x", text="t", secret=b"s", sample=(0, 0), number=2):
        return load_prompt("criteria").sheet("q", answer).messages([("", text)] * number, secret, sample)[1]

    others = [ids(answer="y"), ids(text="u"), ids(secret=b"r"), ids(sample=(0, 1)), ids(sample=(1, 0))]
    assert ids() == ids()
    assert ids()[0] != ids()[1]
    assert not set(ids()) & {name for other in others for name in other}
    assert len({name.partition("-")[2] for name in ids()}) == 1
    assert all(re.fullmatch(r"\d-[0-9a-f]{10}", name) for name in ids())


def test_two_judges_on_one_store_share_its_secret_and_two_stores_do_not(tmp_path):
    first, second, other = (Judge(JudgeConfig(model="m", store=str(tmp_path / name))) for name in ("s", "s", "t"))
    assert first.store.secret == second.store.secret != other.store.secret
    assert len(first.store.secret) == 32


def refuses_schemas(n, body):
    if "response_format" in body:
        return 400, {"error": {"message": "This response_format type is unavailable now", "type": "invalid"}}
    return envelope(honest(body))


def test_a_server_that_takes_a_schema_is_sent_one():
    with RawServer(lambda n, body: envelope(honest(body))) as server:
        grade(Judge(config(server)), items(1, size=1))
    schema = server.bodies[0]["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["verdicts"]["items"]["required"] == ["id", "reason", "met"]


def test_that_a_server_refuses_schemas_is_found_out_once_and_kept(tmp_path):
    with RawServer(refuses_schemas) as server:
        settings = config(server, store=str(tmp_path / "s"), concurrency=1)
        judge = Judge(settings)
        batch = items(3)
        assert wrong(grade(judge, batch), batch) == []
        assert ["response_format" in body for body in server.bodies] == [True, *[False] * 15]
        assert "response_format" not in judge.summary()
        grade(Judge(settings), batch)
        assert len(server.bodies) == 16  # the replies are found under the form that the server took
        grade(Judge(settings), items(4))
        assert not any("response_format" in body for body in server.bodies[1:])


def test_many_calls_at_once_find_a_refusal_of_schemas_out_together():
    batch = items(30)
    with RawServer(refuses_schemas) as server:
        assert wrong(grade(Judge(config(server)), batch), batch) == []
        assert sum("response_format" not in body for body in server.bodies) == 150
        assert len(server.bodies) <= 150 + 64


@pytest.mark.parametrize(("options", "sent"), [
    ({"structured_output": "never"}, None),
    ({"extra": {"response_format": None}}, None),
    ({"extra": {"response_format": {"type": "json_object"}}}, {"type": "json_object"}),
])  # fmt: skip
def test_the_form_of_the_reply_is_a_setting(options, sent):
    with RawServer(lambda n, body: envelope(honest(body))) as server:
        grade(Judge(config(server, **options)), items(1, size=1))
    assert server.bodies[0].get("response_format") == sent


def test_a_schema_that_must_be_sent_and_is_refused_says_which_setting_leaves_it_out():
    with RawServer(refuses_schemas) as server:
        judge = Judge(config(server, structured_output="always"))
        grade(judge, items(1, size=1))
    assert judge.counts == {Outcome.FAILED: 1}
    assert "structured_output: never leaves it out" in judge.summary()


def test_replies_under_a_schema_and_without_one_have_different_keys():
    def key(**options):
        judge = Judge(JudgeConfig(model="m", base_url="http://127.0.0.1:1/v1", **options))
        return judge._vote_call(judge.prompt.sheet("p", "a"), [Criterion("c", "t")], 0, 0)

    call = key()
    assert call.plain.key == key(structured_output="never").key != call.key == key(structured_output="always").key


def test_the_key_has_the_server_that_the_environment_names(monkeypatch):
    def key(**options):
        judge = Judge(JudgeConfig(model="m", **options))
        return judge._vote_call(judge.prompt.sheet("p", "a"), [Criterion("c", "t")], 0, 0).key

    keys = []
    for url in ("http://one:1/v1", "http://two:1/v1", None):
        monkeypatch.setenv("OPENAI_BASE_URL", url) if url else monkeypatch.delenv("OPENAI_BASE_URL")
        keys.append(key())
    assert len(set(keys)) == 3
    assert keys[0] == key(base_url="http://one:1/v1") == key(base_url="http://me:pass@one:1/v1")


def in_steps(judge, *, steps, rollouts):
    async def run():
        try:
            for step in range(steps):
                await judge.grade_many([Item("q", f"{step} {rollout}", RUBRIC) for rollout in range(rollouts)])
        finally:
            await judge.close()

    asyncio.run(run())


def rejecting(n, body):
    return 400, {"error": {"message": "this model has been retired"}}


def test_a_dead_judge_stops_the_run_over_batches_and_says_what_the_server_said():
    """16 rollouts and one criterion a step: no batch is large enough to tell."""
    with RawServer(rejecting) as server:
        judge = Judge(config(server))

        message = (
            r"is dead: 50 verdicts one after the other were lost \(64 failed so far\); .*HTTP 400: this model has"
        )
        with pytest.raises(JudgeError, match=message):
            in_steps(judge, steps=10, rollouts=16)
        assert server.requests == 64


@pytest.mark.parametrize(("successes", "dies"), [([], True), ([25], False), ([50], False), ([51], True)])
def test_one_verdict_begins_the_count_anew(successes, dies):
    def script(n, body):
        return envelope(honest(body)) if n in successes else (400, {})

    with RawServer(script) as server:
        judge = Judge(config(server, concurrency=1))
        if dies:
            with pytest.raises(JudgeError, match="is dead"):
                in_steps(judge, steps=6, rollouts=10)
        else:
            in_steps(judge, steps=6, rollouts=10)


@pytest.mark.parametrize(("world", "stops_at"), [(1, 50), (2, 25), (8, 20)])
def test_every_process_counts_its_share_of_a_dead_judges_verdicts(world, stops_at):
    with RawServer(rejecting) as server:
        for number, is_dead in ((stops_at - 1, False), (stops_at, True)):
            batch = [Item("q", str(index), RUBRIC) for index in range(number)]
            with Worker(batch, {"base_url": server.url}, {"WORLD_SIZE": str(world), "RANK": "0"}, batch=10) as worker:
                assert ("is dead" in str(worker.result()[0])) is is_dead


def test_where_missing_verdicts_never_stop_a_run_failed_ones_in_a_row_do():
    batch = [Item("q", str(number), RUBRIC) for number in range(60)]
    with FaultServer(lambda number, body: "refusal") as server:
        judge = Judge(config(server, asks=1, max_missing=1.0))
        assert len(grade(judge, batch)) == 60
        assert "60 refused" in judge.summary()
    with RawServer(rejecting) as server:
        judge = Judge(config(server, max_missing=1.0))
        with pytest.raises(JudgeError, match="is dead: 50 verdicts"):
            grade(judge, batch)
        assert len(grade(Judge(config(server, max_missing=1.0, dead_after=61)), batch)) == 60
    assert judge.summary().endswith("the first call that failed: HTTP 400: this model has been retired")


def test_too_many_missing_verdicts_say_what_the_server_said():
    with RawServer(rejecting) as server, pytest.raises(JudgeError, match=r"25 of 25 .*HTTP 400: this model has been"):
        grade(Judge(config(server, criteria_per_call=5)), items(5))


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ({}, "rest"),
        ({"thoughts": {"[THINK]": "[/THINK]"}}, "ice</think>rest"),
        ({"thoughts": {}}, "ice</think>rest"),
    ],
)
def test_which_thoughts_are_cut_is_a_setting_and_is_counted(options, shown):
    with FaultServer() as server:
        seen = []
        server.reply = lambda body: seen.append(blocks(body)[0]) or honest(body)
        judge = Judge(config(server, **options))
        grade(judge, [Item("q", "ice</think>rest", RUBRIC), Item("q", "[THINK]ice[/THINK] rest", RUBRIC)])
    assert shown in seen
    cut = {"": 1, "[THINK]": 1}.get(next(iter(options.get("thoughts", {""})), None), 0)
    assert judge.thoughts["cut"] == cut
    assert ("thoughts cut from 1 answer" in judge.summary()) == bool(cut)


def test_an_answer_that_a_template_opened_in_a_thought_and_that_was_cut_is_empty():
    with FaultServer() as server:
        judge = Judge(config(server, opens_thought=True))
        cut, whole = grade(judge, [Item("q", "Maybe rest", RUBRIC), Item("q", "Maybe.</think>rest", RUBRIC)])
        assert server.requests == 1
    assert (cut.met(), whole.met()) == ({"a": False}, {"a": True})
    assert judge.thoughts == {"cut": 2, "ended": 1}
    assert "2 answers, 1 of which ended inside one" in judge.summary()


def test_a_lost_verdict_that_an_answer_can_bring_about_may_count_as_the_worst():
    rubric = Rubric((Criterion("good", "says rest"), Criterion("bad", "says ice", polarity="negative")))

    def script(n, body):
        return envelope("I cannot say {") if blocks(body)[0] == "odd" else (400, {})

    with RawServer(script) as server:
        for lost_as, odd in (("missing", [None, None]), ("worst", [0.0, 0.0])):
            judge = Judge(config(server, lost_as=lost_as))
            unread, failed = grade(judge, [Item("q", "odd", rubric), Item("q", "plain", rubric)])
            assert list(unread.values().values()) == odd
            assert list(failed.values().values()) == [None, None]  # no answer brings that about
            assert judge.counts == {Outcome.UNPARSED: 2, Outcome.FAILED: 2}
        with pytest.raises(JudgeError, match="20 of 20"):
            grade(Judge(config(server, lost_as="worst")), [Item("q", "odd", rubric)] * 10)


@pytest.mark.parametrize(("by_answer", "size"), [(True, 1), (True, 2), (False, 1)])
def test_losses_that_come_in_whole_answers_are_warned_of_once(caplog, by_answer, size):
    """A tenth of the calls is lost: those of a tenth of the answers, or any."""

    def script(n, body):
        is_lost = int(blocks(body)[0].split()[0].removeprefix("answer")) % 10 == 0 if by_answer else n % 10 == 0
        return envelope("I cannot say {" if is_lost else honest(body))

    with RawServer(script) as server:
        judge = Judge(config(server, asks=1, criteria_per_call=size, max_missing=0.5))

        async def run():
            for seed in range(2):
                await judge.grade_many(items(100, size=4, seed=seed))
            await judge.close()

        asyncio.run(run())
    warnings = [record for record in caplog.records if "come in whole answers" in record.message]
    assert len(warnings) == by_answer


def corrupt(path):
    path.write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)


def foreign(path):
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE people (name TEXT)")


def another_version(path):
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE replies (key BLOB PRIMARY KEY, model TEXT, reply TEXT)")


def text(path):
    path.write_text("no database, only text that is long enough to be read\n" * 100)


def folder(path):
    path.mkdir()


def under_a_file(path):
    path.parent.rmdir()
    path.parent.write_text("")


def damaged_inside(path):
    store = VerdictStore(path)
    for number in range(3000):
        store.setting(f"name{number}", b"x" * 100)
    store.close()
    whole = path.read_bytes()
    path.write_bytes(whole[:20_000] + b"\xff" * 20_000 + whole[40_000:])


@pytest.mark.parametrize("damage", [corrupt, foreign, another_version, text, folder, under_a_file, damaged_inside])
def test_a_store_that_cannot_be_used_is_refused_before_a_call_is_paid(tmp_path, damage):
    path = tmp_path / "place" / "verdicts.sqlite"
    path.parent.mkdir()
    damage(path)
    with pytest.raises(ConfigError, match=r"cannot use .* as a verdict store"):
        Judge(JudgeConfig(model="m", store=str(path)))


def test_a_store_that_cannot_be_written_is_refused_before_a_call_is_paid(tmp_path):
    store = VerdictStore(tmp_path / "s")
    store.setting("a", b"b")
    store._connection().execute("PRAGMA query_only=ON")  # what a read-only file does, whoever runs the test
    with pytest.raises(ConfigError, match=r"cannot use .*readonly"):
        store.check()


def test_a_store_that_fails_later_is_one_error(tmp_path):
    with FaultServer() as server:
        judge = Judge(config(server, store=str(tmp_path / "s")))
        judge.store._connection().execute("PRAGMA max_page_count=1")
        with pytest.raises(JudgeError, match=r"the verdict store .* failed: database or disk is full"):
            grade(judge, items(20))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": 3}, "model must be text, got 3"),
        ({"model": None}, "model must be text"),
        ({"timeout": "5"}, "timeout must be a number, got '5'"),
        ({"timeout": float("inf")}, "timeout must be a finite number > 0"),
        ({"retry_minutes": True}, "retry_minutes must be a number"),
        ({"max_calls": "8"}, "max_calls must be a whole number or left out"),
        ({"max_calls": -1}, "max_calls must be a finite number >= 0"),
        ({"max_cost": "1"}, "max_cost must be a number or left out"),
        ({"price_input": -1.0}, "price_input must be a finite number >= 0"),
        ({"temperature": "warm"}, "temperature must be a number"),
        ({"temperature": -1.0}, "temperature must be >= 0"),
        ({"max_tokens": 10.5}, "max_tokens must be a whole number"),
        ({"max_tokens": "many"}, "max_tokens must be a whole number"),
        ({"extra": [1]}, "extra must be a mapping"),
        ({"extra": {"when": {1, 2}}}, "extra must hold what JSON can"),
        ({"extra": {"top_p": float("nan")}}, "extra must hold what JSON can"),
        ({"extra": {"stream": True}}, "extra cannot set 'stream'"),
        ({"prompt": 3}, "prompt must be text"),
        ({"store": 3}, "store must be text or left out"),
        ({"max_missing": "0.2"}, "max_missing must be a number"),
        ({"api_key_env": None}, "api_key_env must be text"),
        ({"base_url": 8001}, "base_url must be text or left out"),
        ({"base_url": "localhost:8001"}, "base_url must be a URL"),
        ({"structured_output": "yes"}, "unknown structured_output 'yes'"),
        ({"structured_output": False}, "structured_output must be text"),
        ({"lost_as": "zero"}, "unknown lost_as 'zero'"),
        ({"thoughts": {"<a>": None}}, "thoughts must map"),
        ({"thoughts": "<think>"}, "thoughts must be a mapping"),
        ({"dead_after": 0}, "dead_after must be a whole number from 1"),
        ({3: 4}, "unknown judge option 3"),
    ],
)
def test_odd_settings_are_one_error(options, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        JudgeConfig.from_mapping({"model": "m"} | options)


def test_settings_that_are_no_mapping_are_one_error():
    with pytest.raises(ConfigError, match="a judge is a mapping of its options"):
        JudgeConfig.from_mapping(["model"])


@pytest.mark.parametrize(
    ("plan", "settings", "message"),
    [
        (None, {}, ""),
        ("refusal", {}, ""),
        (401, {}, "refuses the key"),
        (429, {}, "HTTP 429, for 0.001 minutes: scripted"),
        (401, {"probe": "never"}, ""),
        (400, {}, ""),  # of this request, maybe: a warning
        (None, {"max_calls": 0}, "the budget of max_calls=0 calls is used up"),
    ],
)
def test_a_probe_asks_once_and_counts_no_verdict(plan, settings, message, caplog):
    with FaultServer(lambda number, body: plan) as server:
        judge = Judge(JudgeConfig(model="m", base_url=server.url, retry_minutes=0.001, **settings))

        async def probe():
            try:
                await judge.probe()
            finally:
                assert not judge.store.statistics()
                await judge.close()

        if message:
            with pytest.raises(JudgeError, match=re.escape(message)):
                asyncio.run(probe())
        else:
            asyncio.run(probe())
        assert (server.requests > 0) == (not settings)
        assert server.requests <= 1 or plan == 429
        assert ("HTTP 400: scripted; others may be answered" in caplog.text) == (plan == 400)
        assert not judge.counts
