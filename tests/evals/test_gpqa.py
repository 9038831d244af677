"""GPQA without a question of it: shuffles, letters, Wilson's interval, repeats. The rows are made up here."""

import json
import math
from collections import Counter

import pytest

from evals.scripted import Scripted, run
from rvpo.data.rows import Place
from rvpo.errors import ConfigError
from rvpo.evals.gpqa import apart_note, build, choices, parse_letter, wilson
from rvpo.evals.models import Answer


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
