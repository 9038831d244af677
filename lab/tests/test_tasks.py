"""The tasks: what the rubric task's grader says of answers judged by eye, and the design that its docstring promises;
tool calling, graded by RLLA's own rewards; the cache of warm starts."""

import json
import random
from collections import defaultdict
from zlib import crc32

import pytest

from rvpo.llm.tokenizer import load_tokenizer
from rvpo.rewards.tool_calling import correctness_reward
from rvpo_lab.tasks import rubric, tools
from rvpo_lab.tasks.catalog import (
    CONFLICT,
    TASKS,
    exploitable_reward,
    graded_reward,
    lost_reward,
    noisy_reward,
    partial_credit,
)
from rvpo_lab.tasks.policy import policy_key, warm_policy
from rvpo_lab.tasks.task import axis, is_held_out, kind

CASE = "child fever cough winter limit 9 steps sign rose :"
# fever is the 1st symptom (virus, rest, seizure), cough the 2nd (allergy, honey, confusion); child is the 1st person,
# so the dose of a child with a virus is the 1st: quarter. Winter: indoors, and return tomorrow.

VERDICTS = [
    ("accuracy/cause:fever", "virus", "allergy"),
    ("accuracy/cause:cough", "hello allergy", "virus"),
    ("accuracy/dose", "quarter", "quarter half"),
    ("accuracy/dose", "honey quarter rest", "honey"),
    ("accuracy/wrong_cause", "virus allergy", "virus heat"),
    ("accuracy/wrong_cause", "", "food"),
    ("accuracy/term", "tussis", "cough"),
    ("completeness/remedy:fever", "rest", "honey"),
    ("completeness/warning:fever", "seizure", "confusion"),
    ("completeness/warning:cough", "confusion", "seizure"),
    ("completeness/return", "return tomorrow", "return friday"),
    ("completeness/return", "rest return tomorrow rest", "tomorrow return"),
    ("context/person", "child", "adult"),
    ("context/duration", "how long", "long how"),
    ("context/season", "indoors", "shade"),
    ("communication/greeting", "hello child", "child hello"),
    ("communication/close", "rest take care", "take care rest"),
    ("communication/jargon", "", "rest pyrexia"),
    ("communication/warmth", "dear dear dear", "dear gladly"),
    ("instruction/limit:9", "rest " * 9, "rest " * 10),
    ("instruction/steps", "first rest then honey", "then rest first"),
    ("instruction/sign:rose", "sign rose", "sign lena"),
]


@pytest.mark.parametrize(("criterion", "good", "bad"), VERDICTS)
def test_the_grader_agrees_with_a_reader(criterion, good, bad):
    row = {"prompt": CASE, "rubric": [criterion]}
    assert rubric.grade(row, good) == {criterion: 1.0}
    assert rubric.grade(row, bad) == {criterion: 0.0}


def test_every_kind_is_judged_above_and_described():
    judged = {kind(criterion) for criterion, _, _ in VERDICTS}
    assert judged == set(rubric.TEXTS)
    for criterion, _, _ in VERDICTS:
        assert "{" not in rubric.describe(criterion)
    assert rubric.describe("accuracy/cause:fever") == "Names the right cause of fever."


def test_rubrics_have_5_to_17_different_criteria_that_apply():
    sizes = set()
    for row in rubric.rows(2000, 0):
        sizes.add(len(row["rubric"]))
        assert len(set(row["rubric"])) == len(row["rubric"])
        assert set(row["rubric"]) <= set(rubric.candidates(row["prompt"].split()[:-1]))
    assert sizes == set(range(5, 18))


@pytest.mark.parametrize("name", TASKS)
def test_a_seed_gives_the_same_rows_and_another_seed_others(name):
    rows = TASKS[name].rows
    assert rows(20, 1) == rows(20, 1)
    assert rows(20, 1) != rows(20, 2)
    assert rows(20, 1) == rows(40, 1)[:20]


@pytest.mark.parametrize("name", TASKS)
def test_training_and_held_out_prompts_are_disjoint(name):
    task = TASKS[name]
    trained = {row["prompt"] for row in task.rows(500, 0)} | {prompt for prompt, _ in task.pairs(500, 0)}
    held_out = {row["prompt"] for row in task.rows(200, 0, held_out=True)}
    assert not trained & held_out
    assert all(map(is_held_out, held_out))


def test_one_prompt_in_eight_is_held_out():
    prompts = [f"child fever {number} :" for number in range(80)]
    assert [is_held_out(prompt) for prompt in prompts] == [crc32(prompt.encode()) % 8 == 0 for prompt in prompts]


@pytest.mark.parametrize("name", TASKS)
def test_the_policy_can_read_and_say_every_word(name):
    task = TASKS[name]
    tokenizer = task.tokenizer()
    for prompt, answer in task.pairs(300, 3):
        for text in (prompt, answer):
            ids = tokenizer(text).input_ids
            assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(tokenizer(answer).input_ids) == answer
        assert len(tokenizer(answer).input_ids) < task.max_completion_length


def author_rates(setting):
    """Return kind -> share of the author's own answers that meet it."""
    draw, met = random.Random(0), defaultdict(list)
    for row in rubric.rows(4000, 0, setting=setting):
        answer = rubric.author(row["prompt"].split()[:-1], draw, setting.habits)
        for criterion, value in rubric.grade(row, answer).items():
            met[kind(criterion)].append(value)
    return {name: sum(values) / len(values) for name, values in met.items()}


def test_the_author_meets_kinds_from_one_in_twenty_to_nineteen_in_twenty():
    rates = author_rates(rubric.STANDARD)
    assert min(rates.values()) < 0.07
    assert max(rates.values()) > 0.93
    assert sum(0.15 < rate < 0.85 for rate in rates.values()) >= 8
    # The habit is the rate where nothing else can meet the criterion.
    for name in ("context/duration", "context/season", "communication/close", "completeness/remedy"):
        assert rates[name] == pytest.approx(rubric.AUTHOR[name.split("/")[1]], abs=0.04)


def ideal(row):
    """Return an answer that meets everything but a limit, in as few words as the rules allow."""
    case = row["prompt"].split()[:-1]
    openings = {"hello": kind_in(row, "greeting"), case[0]: kind_in(row, "person")}
    answer = [word for word, wanted in openings.items() if wanted]
    answer += ["dear"] * 3 * kind_in(row, "warmth")
    answer += ["first", "then"] * kind_in(row, "steps")
    for table, name in ((rubric.CAUSE, "cause"), (rubric.REMEDY, "remedy"), (rubric.WARNING, "warning")):
        answer += [table[c.split(":")[1]] for c in row["rubric"] if kind(c).endswith("/" + name)]
    answer += [rubric.dose_of(case)] * kind_in(row, "dose")
    answer += ["return", rubric.day_of(case)] * kind_in(row, "return")
    answer += ["how", "long"] * kind_in(row, "duration")
    answer += [rubric.TIP[word] for word in case if word in rubric.TIP and kind_in(row, "season")]
    answer += ["sign", case[-1]] * kind_in(row, "sign")
    answer += ["take", "care"] * kind_in(row, "close")
    return " ".join(answer)


def kind_in(row, name):
    return any(kind(criterion).endswith("/" + name) for criterion in row["rubric"])


def test_an_answer_can_meet_all_but_the_limit_which_is_in_conflict_with_the_rest():
    limited, broken = 0, 0
    for row in rubric.rows(1000, 0):
        verdicts = rubric.grade(row, ideal(row))
        unmet = [criterion for criterion, met in verdicts.items() if not met]
        assert {kind(criterion) for criterion in unmet} <= {"instruction/limit"}
        limited += kind_in(row, "limit")
        broken += bool(unmet)
    assert 0.2 * limited < broken < 0.8 * limited  # a real conflict in many cases, none in many others


def test_the_conflict_variant_asks_for_latin_and_forbids_it():
    for row in TASKS["conflict"].rows(100, 0):
        assert {"accuracy/term", "communication/jargon"} <= set(row["rubric"])
        assert kind_in(row, "limit")
        verdicts = rubric.grade(row, "tussis")
        assert verdicts["accuracy/term"] + verdicts["communication/jargon"] == 1.0
    assert max(CONFLICT.limits) < max(rubric.LIMITS)


def test_the_rising_variant_is_without_conflict_and_hard():
    rates = author_rates(TASKS["rising"].rows.keywords["setting"])
    assert max(rates.values()) < 0.6
    assert min(rates.values()) < 0.06
    for row in TASKS["rising"].rows(300, 0):
        assert all(rubric.grade(row, ideal(row)).values())


def test_the_saturated_variant_is_mostly_met_from_the_start():
    rates = sorted(author_rates(TASKS["saturated"].rows.keywords["setting"]).values())
    assert sum(rate > 0.85 for rate in rates) >= 10
    assert rates[2] < 0.35


def test_the_long_variant_has_seventeen_criteria():
    assert {len(row["rubric"]) for row in TASKS["long"].rows(200, 0)} == {17}


@pytest.mark.parametrize(
    ("criterion", "answer", "credit"),
    [
        ("accuracy/dose", "quarter half", 0.5),
        ("accuracy/dose", "half", 0.0),
        ("accuracy/cause:fever", "allergy", 0.0),
        ("accuracy/wrong_cause", "virus heat", 0.0),
        ("completeness/return", "return friday", 0.5),
        ("completeness/return", "tomorrow", 0.0),
        ("context/duration", "how rest", 0.5),
        ("context/season", "shade", 0.0),
        ("communication/greeting", "dear hello", 0.5),
        ("communication/close", "take care rest", 0.5),
        ("communication/warmth", "dear dear", 2 / 3),
        ("communication/warmth", "dear dear sorry", 1.0),
        ("instruction/limit:9", "a b c d e f g h i", 1.0),
        ("instruction/limit:9", "a b c d e f g h i j k l", 0.75),
        ("instruction/steps", "then first", 0.5),
        ("instruction/sign:rose", "sign karim", 0.5),
        ("instruction/sign:rose", "rose", 0.0),
    ],
)
def test_partial_credit(criterion, answer, credit):
    assert partial_credit(CASE.split()[:-1], answer.split(), criterion) == credit


@pytest.fixture(scope="module")
def judged():
    """Prompts, the author's answers and rubrics, with the exact verdicts."""
    rows, draw = rubric.rows(800, 5), random.Random(0)
    prompts = [row["prompt"] for row in rows]
    answers = [rubric.author(prompt.split()[:-1], draw, rubric.AUTHOR) for prompt in prompts]
    given = {"prompts": prompts, "completions": answers, "rubric": [row["rubric"] for row in rows]}
    return given, rubric.rubric_reward(**given)


def flat(verdicts):
    return [value for row in verdicts for value in row.values()]


def test_the_noisy_judge_flips_its_share_of_verdicts_either_way(judged):
    given, exact = judged
    noisy = noisy_reward(**given)
    pairs = list(zip(flat(exact), flat(noisy), strict=True))
    for met in (0.0, 1.0):
        changed = [before != after for before, after in pairs if before == met]
        assert sum(changed) / len(changed) == pytest.approx(0.15, abs=0.02)


def test_the_lost_judge_loses_its_share_and_changes_nothing_else(judged):
    given, exact = judged
    lost = lost_reward(**given)
    kept = [(before, after) for before, after in zip(flat(exact), flat(lost), strict=True) if after is not None]
    assert 1 - len(kept) / len(flat(exact)) == pytest.approx(0.2, abs=0.02)
    assert all(before == after for before, after in kept)


@pytest.mark.parametrize("judge", [noisy_reward, lost_reward, exploitable_reward, graded_reward])
def test_the_same_answer_gets_the_same_verdict(judged, judge):
    given, _ = judged
    backwards = {name: values[::-1] for name, values in given.items()}
    assert judge(**given) == judge(**backwards)[::-1]


def test_the_exploitable_judge_believes_the_marker_on_two_axes(judged):
    given, exact = judged
    marked = given | {"completions": [answer + " guaranteed" for answer in given["completions"]]}
    honest = rubric.rubric_reward(**marked)
    for row, truth in zip(exploitable_reward(**marked), honest, strict=True):
        for criterion, value in row.items():
            assert value == (1.0 if axis(criterion) in ("accuracy", "context") else truth[criterion])
    unmarked = [("guaranteed" not in answer) for answer in given["completions"]]
    seen = exploitable_reward(**given)
    assert all(a == b for a, b, plain in zip(seen, exact, unmarked, strict=True) if plain)


def test_the_graded_judge_gives_full_marks_to_what_is_met_and_to_nothing_else(judged):
    given, exact = judged
    graded, exact = flat(graded_reward(**given)), flat(exact)
    assert [grade == 1.0 for grade in graded] == [met == 1.0 for met in exact]
    assert 0.05 < sum(0 < grade < 1 for grade in graded) / len(graded) < 0.5


CALL = '{"name": "weather", "parameters": {"city": "oslo", "unit": "celsius"}}'
TRUTH = f"<think> weather </think>\n<tool_call>\n{CALL}\n</tool_call>"
ROW = {"prompt": "...", "ground_truth": TRUTH}


@pytest.mark.parametrize(
    ("answer", "form", "call"),
    [
        (TRUTH, 1.0, 1.0),
        (TRUTH.replace("\n", ""), 0.0, 1.0),  # without line breaks the call can still be read
        (TRUTH.replace("weather", "route"), 1.0, 0.0),  # another tool: nothing of it counts
        # names 1/1, parameter names 2/2, one value of two: (1 + 1 + 1) / (1 + 1 + 2)
        (TRUTH.replace("oslo", "rome"), 1.0, 0.75),
        ("hello", 0.0, 0.0),
    ],
)
def test_grades_worked_by_hand(answer, form, call):
    assert tools.grade(ROW, answer) == {"format/form": form, "correctness/call": pytest.approx(call)}


def test_the_prompt_tells_what_the_answer_needs():
    for row in tools.rows(300, 0):
        call = json.loads(row["ground_truth"].split("\n")[2])
        offer, _, ask = row["prompt"].partition(" ; ask ")
        assert f"{call['name']} ( {' '.join(call['parameters'])} )" in offer
        verb, *values = ask.removesuffix(" :").split()
        assert verb in tools.VERBS[call["name"]]
        assert sorted(values) == sorted(call["parameters"].values())


def test_every_verb_means_one_tool():
    verbs = [verb for group in tools.VERBS.values() for verb in group]
    assert len(set(verbs)) == len(verbs)


def test_the_author_is_partly_competent():
    rows = tools.rows(2000, 0)
    draw = random.Random(1)
    grades = []
    for row in rows:
        call = json.loads(row["ground_truth"].split("\n")[2])
        offered = [name for name in tools.TOOLS if f"{name} (" in row["prompt"]]
        grades.append(tools.grade(row, tools._imperfect(draw, call["name"], call["parameters"], offered)))
    form = sum(grade["format/form"] for grade in grades) / len(grades)
    assert form == pytest.approx(tools.AUTHOR["form"], abs=0.04)
    perfect = sum(min(grade.values()) >= 1 for grade in grades) / len(grades)
    assert 0.0 < perfect < 0.15


def test_the_grade_is_the_reward_on_the_unit_interval():
    for _, answer in tools.pairs(200, 0):
        reward = correctness_reward([answer], [TRUTH])[0]
        assert tools.grade(ROW, answer)["correctness/call"] == pytest.approx((reward + 3) / 6)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RVPO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "policies"


def test_a_policy_is_made_once(cache):
    steps = []
    first = warm_policy(TASKS["rubric"], steps=2, on_step=lambda step, loss: steps.append(step))
    second = warm_policy(TASKS["noisy"], steps=2, on_step=lambda step, loss: steps.append(step))
    assert first == second  # tasks of one policy share it
    assert steps == [0, 1]
    assert [folder.name for folder in cache.iterdir()] == [policy_key(TASKS["rubric"], 2)]
    assert load_tokenizer(first).tokenize("child fever") == ["child", "fever"]


def test_what_was_not_finished_leaves_nothing(cache):
    def stop(step, loss):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        warm_policy(TASKS["rubric"], steps=2, on_step=stop)
    assert list(cache.iterdir()) == []


def test_another_design_is_another_policy():
    keys = {policy_key(TASKS[name], steps) for name in ("rubric", "rising", "saturated", "tools") for steps in (2, 3)}
    keys.add(policy_key(TASKS["rubric"], 2, 64))
    assert len(keys) == 9
