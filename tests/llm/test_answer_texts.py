"""What of a text is its answer, text that every file can hold, and when too much is missing."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rvpo.evals.bfcl_forms import prompted_calls
from rvpo.evals.gpqa import parse_letter
from rvpo.judging.verdicts import parse_rating
from rvpo.llm.json_text import json_text
from rvpo.llm.limits import MOST_MISSING, too_many_missing
from rvpo.llm.thoughts import is_cut_in_thought, without_thoughts

HALF = st.characters(categories=("Cs",))


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("A", "A"),
        (" A\n", "A"),
        ("<think>B</think>\n\nA", "A"),
        ("B\n</think>\n\nA", "A"),
        ("<think>B</think>C</think>A", "A"),
        ("A<think>B", "A"),
        ("<think>B</think>A<think>C", "A"),
        ("C<think>B</think>A", "A"),
        ("<think>B", ""),
        ("The `<think>` tag, '</think>' and \"<think>\".", "The `<think>` tag, '</think>' and \"<think>\"."),
        ("<think>`</think>` ends it</think>A", "A"),
        ("'<think>B</think>' A", "' A"),
        ("`<think>", "`"),
        ("<think>B</think>", ""),
        ("", ""),
    ],
)
def test_the_answer_is_what_follows_the_last_thought(text, answer):
    assert without_thoughts(text) == answer


@given(st.lists(st.sampled_from(["<think>", "</think>", "a", " ", "\n", "<", "think>"]), max_size=12).map("".join))
def test_no_thought_is_left_in_an_answer(text):
    answer = without_thoughts(text)
    assert "</think>" not in answer
    assert "<think>" not in answer
    assert answer in text
    assert without_thoughts(answer) == answer
    assert is_cut_in_thought(text) == (text.rfind("<think>") > text.rfind("</think>"))


def test_every_reader_cuts_thoughts_in_the_same_way():
    assert parse_letter("Answer: B\n</think>\n\nAnswer: A") == "A"
    assert parse_rating('{"rating": 3}</think>{"rating": 7}') == 7
    assert parse_rating('{"rating": 7}<think>or') is None  # a reply that was cut may have ended otherwise
    assert prompted_calls("[g(x=1)]\n</think>\n[f(x=1)]", "Python") == [{"f": {"x": 1}}]


@given(st.text(st.characters() | HALF))
def test_json_text_can_be_written_and_is_read_back_as_it_was(value):
    text = json_text({"text": value})
    assert b"\n" not in text.encode()
    # Two halves that belong together are one character in JSON.
    assert json.loads(text) == {"text": value.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_json_does_not_have_is_no_json_text(value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_text(value)


@pytest.mark.parametrize(
    ("missing", "total", "most", "is_too_many"),
    [
        (4, 20, MOST_MISSING, False),
        (5, 20, MOST_MISSING, True),
        (19, 19, MOST_MISSING, False),
        (20, 20, 1.0, False),
        (0, 20, 0.0, False),
        (1, 20, 0.0, True),
        (29, 100, 0.29, False),  # 0.29 * 100 is a little less than 29
        (30, 100, 0.29, True),
        (0, 0, 0.0, False),
    ],
)
def test_too_many_are_missing_beyond_the_share_and_from_twenty_on(missing, total, most, is_too_many):
    assert too_many_missing(missing, total, most) is is_too_many
