"""BFCL's cases of several turns: the simulated APIs against the package's own executor, and real conversations.

The package's executor evaluates text, so that it gets expected calls and texts of this file only.
"""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from bfcl_answers import answer_text

from evals.scripted import run
from rvpo.errors import ConfigError
from rvpo.evals import bfcl
from rvpo.evals.bfcl import GROUPS
from rvpo.evals.bfcl_forms import FORMS
from rvpo.evals.bfcl_library import load_cases, module
from rvpo.evals.bfcl_turns import (
    MOST_STEPS,
    AskedCase,
    World,
    _expected,
    check_transcript,
    read_transcript,
)
from rvpo.evals.models import LocalModel, Question, Sampling
from rvpo_lab.tasks.policy import build_policy, byte_tokenizer

pytest.importorskip("bfcl_eval")

MULTI_TURN = GROUPS["multi_turn"]
UTILS = "bfcl_eval.eval_checker.multi_turn_eval.multi_turn_utils"
CHECKER = "bfcl_eval.eval_checker.multi_turn_eval.multi_turn_checker"


def expected_calls(case):
    """The expected calls, turn by turn, with all arguments by name."""
    every = [*case["function"], *(function for some in case["missed_function"].values() for function in some)]
    parameters = {function["name"]: function["parameters"]["properties"] for function in every}
    result = []
    for turn in case["truth"]:
        calls = [_expected(text) for text in turn]
        result.append([(name, dict(zip(parameters[name], places)) | values) for name, values, places in calls])  # noqa: B905
    return result


def transcript(form, case, turns):
    """One answer with calls in each turn that has any, and one without."""
    return json.dumps([[*([answer_text(form, case, calls, "Python")] if calls else []), "Done."] for calls in turns])


def why_wrong(form, category, case, turns):
    setting = AskedCase(case, category, FORMS[form])
    return check_transcript(case, category, read_transcript(setting, transcript(form, case, turns)))


def the_package(case, category, turns, run):
    """The package's own verdict on calls in its own notation; `run` names the state that it keeps for ever."""
    decoded = [[[f"{name}({', '.join(f'{k}={v!r}' for k, v in values.items())})" for name, values in calls]]
               if calls else [] for calls in turns]  # fmt: skip
    result = module(CHECKER).multi_turn_checker(decoded, case["truth"], case, category, run)
    return None if result["valid"] else result["error_type"]


@pytest.mark.parametrize("category", MULTI_TURN)
def test_expected_calls_are_right_and_others_are_judged_as_the_package_judges_them(category):
    for place, case in enumerate(load_cases(category)[3::25]):
        turns = expected_calls(case)
        for form in FORMS:
            assert why_wrong(form, category, case, turns) is None, case["id"]
        last = max(at for at, calls in enumerate(turns) if calls)
        name, values = turns[last][-1]
        changed = {
            "nothing": [[] for _ in turns],
            "no last turn": [*turns[:last], [], *turns[last + 1 :]],
            "spoiled": [*turns[:last], [*turns[last][:-1], (name, dict.fromkeys(values, "qqq"))], *turns[last + 1 :]],
            "twice": [calls * 2 for calls in turns],
            "unknown": [*turns[:last], [*turns[last], ("no_such_function", {"a": 1})], *turns[last + 1 :]],
        }
        for what, other in changed.items():
            why = why_wrong("rlla", category, case, other)
            assert why == the_package(case, category, other, f"{what} {place}".replace(" ", "_")), (case["id"], what)
        assert why_wrong("rlla", category, case, changed["nothing"]) == "multi_turn:empty_turn_model_response"
        assert why_wrong("rlla", category, case, turns[:-1]) == "multi_turn:force_terminated"


@pytest.mark.parametrize("category", MULTI_TURN)
def test_calls_give_what_the_packages_executor_gives(category):
    for case in load_cases(category)[1::40]:
        ours = World(case, category)
        calls = [call for turn in case["truth"] for call in turn]
        odd = ["no_such_function(a=1)", f"{calls[0].partition('(')[0]}(no_such_parameter=1)"]
        theirs, _ = module(UTILS).execute_multi_turn_func_call(
            [*calls, *odd], case["initial_config"], case["involved_classes"], "peer", case["id"],
            long_context="long_context" in category,
        )  # fmt: skip
        assert [ours.run(*_expected(text)) for text in [*calls, *odd]] == theirs


def test_only_public_methods_of_the_cases_apis_can_be_called(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    case = load_cases("multi_turn_base")[0]
    world = World(case, "multi_turn_base")
    hidden = ["__init__", "_load_scenario", "__class__", "__reduce__", "pwd.__globals__", "apis", "methods", ""]
    for name in [*hidden, "print", "eval", "exec", "open", "__import__", "os.system"]:
        assert world.run(name, {}) == f"Error during execution: name {name!r} is not defined"
    before = world.run("ls", {})
    for form in FORMS:
        setting = AskedCase(case, "multi_turn_base", FORMS[form])
        effect = "__import__('pathlib').Path('ran').touch()"
        text = json.dumps([[f"[echo(content={effect})]", f"[ls(a={effect} + 1)]", effect]])
        for turn in read_transcript(setting, text):
            for calls in turn:
                world.run_all(calls)
    assert not list(tmp_path.iterdir())
    assert world.run("ls", {}) == before


def test_calls_that_would_take_for_ever_are_refused():
    case = next(candidate for candidate in load_cases("multi_turn_base") if "MathAPI" in candidate["involved_classes"])
    world = World(case, "multi_turn_base")
    assert world.run("power", {"base": 2, "exponent": 10}) == '{"result": 1024}'
    for name, values in {
        "power": {"base": 9, "exponent": 10**9},
        "logarithm": {"value": 10, "base": 2, "precision": 10**9},
        "square_root": {"number": 2, "precision": 10**9},
        "round_number": {"number": 5, "decimal_places": -(10**9)},
        "multiply": {"a": 10**40, "b": 1},
        "sum_values": {"numbers": [1, 10**40]},
    }.items():
        assert world.run(name, values).startswith("Error during execution: "), name
        assert "too large" in world.run(name, values)


def test_conversations_do_not_share_state():
    case = load_cases("multi_turn_base")[0]
    first, other = World(case, "multi_turn_base"), World(case, "multi_turn_base")
    first.run("mkdir", {"dir_name": "only_here"})
    assert "only_here" in first.run("ls", {})
    assert "only_here" not in other.run("ls", {})
    assert "only_here" not in World(case, "multi_turn_base").run("ls", {})


class ToolServer:
    """A chat server on loopback that answers BFCL's cases by their expected calls, in one of the forms.

    `plan(number, body)` may return something else: an HTTP status, or a text.
    """

    def __init__(self, form, cases, plan=lambda number, body: None):
        self.form, self.plan, self.bodies = form, plan, []
        self.cases = {case["question"][0][0]["content"]: case for case in cases}
        assert len(self.cases) == len(cases)
        # Here and not as they are asked for: before Python 3.11.8 and 3.12.2, two threads that parse fail (gh-106905).
        self.calls = {case["id"]: expected_calls(case) for case in cases}
        lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(handler):
                body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
                with lock:
                    self.bodies.append(body)
                    number = len(self.bodies)
                other = self.plan(number, body)
                is_status = isinstance(other, int)
                message = self.message(body) if other is None else {"role": "assistant", "content": other}
                usage = {"prompt_tokens": 5, "completion_tokens": 7}
                reply = {} if is_status else {"choices": [{"message": message}], "usage": usage}
                data = json.dumps(reply).encode()
                handler.send_response(other if is_status else 200)
                handler.send_header("Content-Type", "application/json")
                handler.send_header("Content-Length", str(len(data)))
                handler.end_headers()
                handler.wfile.write(data)

            def log_message(handler, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exception):
        self.server.shutdown()
        self.server.server_close()

    def where(self, messages):
        """The case, the turn, and whether its calls have been made."""
        if self.form == "rlla":
            text = messages[-1]["content"]
            (case,) = (candidate for asked, candidate in self.cases.items() if asked.strip() in text)
            return case, text.count("<user>") - 1, text.endswith("</obs>")
        users = [message["content"] for message in messages if message["role"] == "user"]
        turns = [text for text in users if not text.startswith("[{'role': 'tool'")]
        is_done = messages[-1]["role"] == "tool" or messages[-1]["content"].startswith("[{'role': 'tool'")
        return self.cases[turns[0]], len(turns) - 1, is_done

    def message(self, body):
        case, turn, is_done = self.where(body["messages"])
        calls = self.calls[case["id"]][turn]
        if is_done or not calls:
            return {"role": "assistant", "content": "Done."}
        if self.form != "native":
            return {"role": "assistant", "content": answer_text(self.form, case, calls, "Python")}
        functions = [{"name": name, "arguments": json.dumps(values)} for name, values in calls]
        listed = [{"id": f"x{at}", "type": "function", "function": function} for at, function in enumerate(functions)]
        return {"role": "assistant", "content": None, "tool_calls": listed}


SOME = {"multi_turn_base": 11, "multi_turn_miss_func": 25, "multi_turn_miss_param": 52, "multi_turn_long_context": 93}


@pytest.fixture
def few(monkeypatch):
    """Lets a build have one case of each category, and returns them."""
    cases = {name: load_cases(name)[place] for name, place in SOME.items()}
    monkeypatch.setattr(bfcl, "load_cases", lambda name: [cases[name]])
    return list(cases.values())


class Served:
    """A model of a `ToolServer`."""

    def __init__(self, server):
        registry = pytest.importorskip("rvpo.evals.tasks")
        self.api = registry.ServerAPI("m", server.url, concurrency=3, retry_minutes=0.01)

    async def answer(self, question):
        return await self.api.answer(question, Sampling(temperature=0.0))


def asked(form, server, categories=("multi_turn",), folder=None):
    return run(bfcl.build(answer_format=form, categories=categories), Served(server), folder)


@pytest.mark.parametrize("form", FORMS)
def test_a_model_that_makes_the_expected_calls_is_right(form, few, tmp_path):
    with ToolServer(form, few) as server:
        summary = asked(form, server, folder=tmp_path)
    assert summary["scores"]["accuracy"]["value"] == 1.0
    assert summary["wrong_because"] == {}
    # Each turn with calls takes two answers, one without takes one.
    steps = sum(2 if turn else 1 for case in few for turn in case["truth"])
    assert len(server.bodies) == steps
    records = map(json.loads, (tmp_path / "items.jsonl").read_text().splitlines())
    assert sum(record["tokens"] for record in records) == 7 * steps
    if form == "native":
        assert all(body["tools"] for body in server.bodies)
        conversation = max((body["messages"] for body in server.bodies), key=len)
        called = [message for message in conversation if message.get("tool_calls")]
        ids = [call["id"] for message in called for call in message["tool_calls"]]
        assert len(set(ids)) == len(ids)
        assert [message["tool_call_id"] for message in conversation if message["role"] == "tool"] == ids
        assert all(
            isinstance(call["function"]["arguments"], str) for message in called for call in message["tool_calls"]
        )
    else:
        assert not any("tools" in body for body in server.bodies)
    # The function that is held back is not told of before its turn.
    case = few[1]
    ((turn, held_back),) = case["missed_function"].items()
    for body in server.bodies:
        asked_case, at, _ = server.where(body["messages"])
        if asked_case is case:
            request = json.dumps(body)
            assert (held_back[0]["description"][-60:] in request) is (at >= int(turn))


def test_a_conversation_with_a_lost_answer_is_missing_as_a_whole(few):
    def reject(number, body):
        return 400 if few[2]["question"][0][0]["content"] in str(body) and "Done." in str(body) else None

    with ToolServer("native", few, reject) as server:
        summary = asked("native", server)
    result = summary["scores"]["accuracy"]
    assert (result["value"], result["items"], result["missing"], result["bounds"]) == (1.0, 3, 1, [0.75, 1.0])
    assert summary["answers"]["lost_because"] == {"failed: HTTP 400": 1}


def test_a_model_that_never_ends_its_turn_is_stopped(few):
    with ToolServer("prompt", few[:1], lambda number, body: "[ls()]") as server:
        summary = asked("prompt", server, ("multi_turn_base",))
    assert len(server.bodies) == MOST_STEPS + 1
    assert summary["wrong_because"] == {"multi_turn:force_terminated": 1}


def test_the_harness_holds_the_same_conversations(few, tmp_path):
    pytest.importorskip("inspect_ai")
    from inspect_ai import eval as evaluate
    from inspect_ai.model import get_model

    import rvpo.evals.tasks  # noqa: F401
    from rvpo.evals.logs import read_log
    from rvpo.evals.tasks import as_task

    with ToolServer("native", few) as server:
        benchmark = bfcl.build(answer_format="native", categories=("multi_turn",))
        model = get_model("rvpo-server/m", base_url=server.url, memoize=False, retry_minutes=0.01)
        task = as_task(benchmark, temperature=0.0, max_tokens=64)
        (log,) = evaluate(task, model=model, log_dir=str(tmp_path), display="none", log_realtime=False)
        by_harness = sorted(json.dumps(body["messages"], sort_keys=True) for body in server.bodies)
        server.bodies.clear()
        asked("native", server)
    assert log.status == "success"
    assert by_harness == sorted(json.dumps(body["messages"], sort_keys=True) for body in server.bodies)
    records = read_log(log.location).seeds[0]
    assert [record["scores"]["accuracy"] for record in records] == [1.0] * 4


TEMPLATE = (
    "{% if tools %}{% for one in tools %}{{ one.function.name }} {% endfor %}{% endif %}{{ messages[0].content }}"
)


def test_a_local_models_template_is_given_the_tools(tmp_path):
    tool = {"type": "function", "function": {"name": "find_it", "description": "", "parameters": {}}}
    question = Question("a/0", "a", [{"role": "user", "content": "say so"}], 1, [tool])
    for name, template in {"knows": TEMPLATE, "knows none": "{{ messages[0].content }}"}.items():
        build_policy(tmp_path / name, byte_tokenizer(["find_it say so"], 280, chat_template=template))
    model, sampling = LocalModel(tmp_path / "knows"), Sampling(max_tokens=2)
    _, tokenizer = model._load()
    assert tokenizer.decode(model._token_ids(tokenizer, question, sampling)) == "find_it say so"
    (answer,) = model.answers([question], sampling)
    assert answer.tokens == 2
    with pytest.raises(ConfigError, match="knows no tools"):
        LocalModel(tmp_path / "knows none").answers([question], sampling)
