"""GPQA without a question of it: shuffles, letters, Wilson's interval, repeats; the rows are made up here.

The embedded tasks and RLLA's rows as benchmarks: by hand, by plain loops, and on the golden vectors.
"""

import json
import math
from collections import Counter

import pytest

from evals.scripted import Scripted, run
from rvpo.data.rows import Place, raw_rows
from rvpo.errors import ConfigError
from rvpo.evals import rlla
from rvpo.evals.gpqa import apart_note, build, choices, parse_letter, wilson
from rvpo.evals.models import Answer
from rvpo_lab.tasks import task as embedded
from rvpo_lab.tasks.catalog import TASKS

# --- GPQA ---


def row(number):
    """A sum with four options; the first is right."""
    options = [str(2 * number + add) for add in (0, 1, 2, 3)]
    names = ("Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")
    domain = "Sums" if number % 2 else "Doubles"
    return {"Question": f"{number} + {number}?", "High-level domain": domain, **dict(zip(names, options, strict=True))}


def rows(number):
    return [(Place("made-up.csv", at + 1), row(at)) for at in range(number)]


def solver(share_right=1.0, form="So it is.\nAnswer: {}"):
    """Answer the first `share_right` of the questions right, by reading the options as a model would."""

    def reply(question):
        _, text, listed = question.prompt[0]["content"].split("\n\n")
        number = int(text.split()[0])
        letters = {line[3:]: line[0] for line in listed.splitlines()}
        wanted = 2 * number + (0 if number < 40 * share_right else 1)
        return form.format(letters[str(wanted)])

    return reply


def test_the_whole_benchmark_with_repeats(tmp_path):
    summary = run(build(rows(40), repeats=3), Scripted(solver(0.75)), tmp_path)
    accuracy = summary["scores"]["accuracy"]
    assert accuracy["value"] == 0.75
    assert accuracy["interval"] == pytest.approx(list(wilson(0.75, 40)))  # 40 questions, not 120 answers
    assert (summary["answers"]["asked"], summary["unparsed"]) == (120, 0)
    assert summary["scores"]["domain:Doubles"]["value"] == 0.75
    assert "39 + 39?" not in json.dumps(summary)  # hashes stand in the place of questions


def test_an_unreadable_answer_is_wrong_and_a_lost_one_missing(tmp_path):
    def reply(question):
        number = int(question.prompt[0]["content"].split("\n\n")[1].split()[0])
        return "no idea" if number < 8 else Answer(None, lost="failed") if number < 12 else solver()(question)

    summary = run(build(rows(40)), Scripted(reply), tmp_path)
    accuracy, parsed = summary["scores"]["accuracy"], summary["scores"]["accuracy_of_parsed"]
    assert accuracy["value"] == pytest.approx(28 / 36)
    assert accuracy["missing"] == 4
    assert accuracy["bounds"] == pytest.approx([28 / 40, 32 / 40])
    assert (parsed["value"], parsed["items"], parsed["missing"], summary["unparsed"]) == (1.0, 28, 12, 8)


def test_options_are_shuffled_by_the_seed_alone_and_the_right_one_is_anywhere():
    place = Place("x", 1)
    first = [choices(row(at), place, repeats=4, seed=0) for at in range(200)]
    assert first == [choices(row(at), place, repeats=4, seed=0) for at in range(200)]
    assert first != [choices(row(at), place, repeats=4, seed=1) for at in range(200)]
    assert {tuple(sorted(question.options)) for question in first[3]} == {tuple(sorted(["6", "7", "8", "9"]))}
    counts = Counter(letter for questions in first for question in questions for letter in question.correct)
    assert all(abs(counts[letter] - 200) < 4 * math.sqrt(800 * 0.25 * 0.75) for letter in "ABCD")


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("Answer: B", "B"),
        ("It could be A.\n**Answer: C**", "C"),
        (r"The final answer is $\boxed{\text{D}}$.", "D"),
        (r"the correct answer is \(A\)", "A"),
        ("Answer: b) 12", "B"),
        ("Answer: C, because D is wrong", "C"),
        ("The answer is C. Option A is out, for it is odd.", "C"),
        ("I would take option B", "B"),
        ("<think>Answer: A</think>Answer: D", "D"),
        ("Hm.\n(D)", "D"),
        (r"So the energy is lowest there.\n\n\[\boxed{C}\]", "C"),
        (r"\boxed{\text{B}}", "B"),
        (r"\boxed{\textbf{(B)}}", "B"),
        (r"$\boxed{\mathrm{B}}$", "B"),
        (r"\fbox{B}", "B"),
        ("<answer>C</answer>", "C"),
        ("First A, then more.\n<answer> (d) </answer>", "D"),
        ("Thus:\n\n**C**", "C"),
        ("It follows.\nC) 12 meters", "C"),
        ("Answer: A\nWait. \\boxed{B}", "B"),
        (r"The mass is \boxed{12}", None),
        (r"It is \boxed{A protein}", None),
        ("Answer: A or B", None),
        ("Answer: (a), (b)", None),
        ("The answer is a protein", None),
        ("Answer: Both", None),
        ("A nice question!", None),
        ("", None),
    ],
)
def test_the_letter_a_reply_settles_on(text, letter):
    assert parse_letter(text) == letter


def test_wilsons_interval_agrees_with_scipy_and_has_the_width_of_198_questions():
    stats = pytest.importorskip("scipy.stats")
    for hits, number in ((0, 5), (5, 5), (70, 198), (1, 1000)):
        theirs = stats.binomtest(hits, number).proportion_ci(0.95, method="wilson")
        assert wilson(hits / number, number) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    low, high = wilson(0.35, 198)
    assert (high - low) / 2 == pytest.approx(0.065, abs=0.001)


def test_two_accuracies_are_held_against_the_interval():
    scores = {name: {"value": value, "interval": wilson(value, 198)} for name, value in (("a", 0.35), ("b", 0.40))}
    half = 50 * (scores["a"]["interval"][1] - scores["a"]["interval"][0])
    assert apart_note("b", "a", scores) == f"b against a: 5.0 points apart, not more than the +-{half:.1f} of one " + (
        "accuracy (Wilson)"
    )
    scores["b"]["value"] = 0.45
    assert "10.0 points apart, more than" in apart_note("b", "a", scores)


def test_rows_that_cannot_be_used_are_told_without_their_text():
    secret = row(3) | {"Correct Answer": " "}
    with pytest.raises(ConfigError, match=r"made-up\.csv, row 7.*Correct Answer is absent") as caught:
        build([(Place("made-up.csv", 7), secret)])
    assert "3 + 3" not in str(caught.value)
    with pytest.raises(ConfigError, match="a second time"):
        build([*rows(2), (Place("made-up.csv", 3), row(1))])


def test_a_text_that_stands_twice_among_the_options_is_right_at_both_letters():
    (question,) = choices(row(1) | {"Incorrect Answer 2": "2"}, Place("x", 1), repeats=1, seed=0)
    assert len(question.correct) == 2
    assert json.dumps(sorted(question.options)) == '["2", "2", "3", "5"]'


# --- The embedded tasks and RLLA ---


CALL = '<think> t </think>\n<tool_call>\n{"name": "f", "parameters": {"x": 1, "y": 2}}\n</tool_call>'
ANSWER = "<think> t </think>\n<response> hello </response>"


def test_the_tools_task_by_hand(tmp_path):
    task = TASKS["tools"]
    rows = {row["prompt"]: row for row in task.rows(8, 0, held_out=True)}

    def reply(question):
        truth = rows[question.prompt]["ground_truth"]
        number = list(rows).index(question.prompt)
        # right; the right call without a thought: form 0, and correctness as it is; nothing; lost
        return [truth, truth.split("\n", 1)[1], "", Answer(None, lost="failed")][number % 4]

    summary = run(embedded.build(task, number=8), Scripted(reply), tmp_path)
    scores = summary["scores"]
    assert scores["channel:format/form"]["value"] == pytest.approx(1 / 3)
    assert scores["channel:correctness/call"]["value"] == pytest.approx((1 + 1 + 0) / 3)
    assert scores["prompt_mean"]["value"] == pytest.approx((1 + 0.5 + 0) / 3)
    assert scores["prompt_mean"]["missing"] == 2
    assert scores["prompt_mean"]["bounds"] == pytest.approx([3 / 8, 5 / 8])
    assert scores["all_met"]["value"] == pytest.approx(1 / 3)
    assert scores["lowest"]["value"] == pytest.approx(1 / 3)  # one of two channels
    assert scores["neglected"]["value"] == 0.0
    assert scores["channel_mean"]["value"] == pytest.approx(0.5)


def test_every_criterion_counts_once_in_its_channel(tmp_path):
    task = TASKS["rubric"]
    rows = task.rows(30, 3, held_out=True)
    replies = {row["prompt"]: f"dear patient {at}" for at, row in enumerate(rows)}
    summary = run(
        embedded.build(task, number=30, seed=3), Scripted(lambda question: replies[question.prompt]), tmp_path
    )
    by_kind = {}
    for row in rows:
        for criterion, value in task.grade(row, replies[row["prompt"]]).items():
            by_kind.setdefault(criterion.split(":")[0], []).append(value)
    means = sorted(sum(values) / len(values) for values in by_kind.values())
    third = means[: -(-len(means) // 3)]
    assert summary["scores"]["lowest"]["value"] == pytest.approx(sum(third) / len(third))
    assert summary["scores"]["neglected"]["value"] == sum(mean < 0.3 for mean in means) / len(means)
    assert summary["scores"]["channel_mean"]["value"] == pytest.approx(sum(means) / len(means))
    for name, values in by_kind.items():
        assert summary["scores"][f"channel:{name}"]["value"] == pytest.approx(sum(values) / len(values))


def test_a_channel_without_any_value_leaves_no_score_made_of_channels(tmp_path):
    task = TASKS["tools"]
    summary = run(embedded.build(task, number=2), Scripted(lambda question: Answer(None, lost="x")), tmp_path)
    assert {name: summary["scores"][name]["value"] for name in ("prompt_mean", "lowest", "neglected")} == {
        "prompt_mean": None, "lowest": None, "neglected": None
    }  # fmt: skip


def test_golden_vectors_through_the_benchmark(shared_data):
    places = raw_rows(str(shared_data / "rlla_4k_test80.parquet"), "test")
    calls = [rlla.read_row(row, place) for place, row in places]
    lines = (shared_data / "rlla_reward_golden.jsonl").read_text().splitlines()
    question = rlla.build(places).questions[0]
    seen = 0
    for line in map(json.loads, lines):
        call = calls[line["row"]]
        scores = rlla.record(question, call, Answer(line["response"]))["scores"]
        assert scores["format"] == pytest.approx(line["format"])
        assert scores["correctness"] == pytest.approx(line["correctness"])
        assert ("correct_calls" in scores) == ("<tool_call>" in call.truth)
        seen += 1
    assert seen == 967


def test_rows_that_call_a_tool_are_also_scored_by_themselves(tmp_path):
    truths = (CALL, CALL, ANSWER)
    rows = [(Place("r", at), {"prompt": f"q{at}", "ground_truth": truth}) for at, truth in enumerate(truths)]
    wrong = CALL.replace("2}}", "3}}")
    replies = {"q0": CALL, "q1": wrong, "q2": ANSWER}
    summary = run(rlla.build(rows), Scripted(lambda question: replies[question.prompt[0]["content"]]), tmp_path)
    scores = {name: entry["value"] for name, entry in summary["scores"].items()}
    # the wrong value: names 1, parameter names 1, one of two values equal: (1 + 1 + 1) / (1 + 1 + 2) of the way
    close = 6 * 3 / 4 - 3
    assert scores["format"] == 1.0
    assert scores["correctness"] == pytest.approx((3 + close + 0) / 3)
    assert scores["correctness_of_calls"] == pytest.approx((3 + close) / 2)
    assert scores["correct_calls"] == 0.5


def test_lost_answers_to_rlla_lie_between_the_ends_of_the_reward(tmp_path):
    rows = [(Place("r", 1), {"prompt": "q", "ground_truth": CALL})]
    summary = run(rlla.build(rows), Scripted(lambda question: Answer(None, lost="x")), tmp_path)
    assert summary["scores"]["correctness"]["bounds"] == [-3.0, 3.0]
    assert summary["scores"]["format"]["bounds"] == [0.0, 1.0]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "q"}, "r, row 4: a row needs prompt"),
        ({"ground_truth": CALL}, "r, row 4: a row needs prompt"),
        ({"prompt": "q", "ground_truth": CALL.replace('"name"', "name")}, "r, row 4"),
    ],
)
def test_rows_of_another_schema_are_told_with_their_place(row, message):
    with pytest.raises(ConfigError, match=message):
        rlla.build([(Place("r", 4), row)])
