"""The parser: what is read, what is not, and that nothing is invented."""

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from judging.broken_replies import broken_reply
from rvpo.judging import verdicts as parser
from rvpo.judging.verdicts import parse_rating


def parse_verdicts(text, ids):
    """Return what the parser reads, without the reasons: id -> met, or None."""
    return {name: vote and vote.met for name, vote in parser.parse_verdicts(text, ids).items()}


def reply(*entries, **extra):
    return json.dumps({"verdicts": list(entries), **extra})


MET = {"id": "a", "reason": "r", "met": True}
UNMET = {"id": "b", "reason": "r", "met": False}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (reply(MET, UNMET), {"a": True, "b": False}),
        (f"Sure!\n```json\n{reply(MET, UNMET)}\n```\nDone.", {"a": True, "b": False}),
        (f"<think>{reply(UNMET | {'id': 'a'})}</think>{reply(MET, UNMET)}", {"a": True, "b": False}),
        (f"first {reply(UNMET)} then {reply(MET)}", {"a": True, "b": False}),
        (f"first {reply(MET)} then {reply(MET)}", {"a": True, "b": None}),
        (f"first {reply(UNMET | {'id': 'a'})} then {reply(MET)}", {"a": None, "b": None}),  # which one is meant?
        (f'{reply(MET)} If not, "{reply(UNMET | {"id": "a"})}"', {"a": None, "b": None}),
        (reply(MET, UNMET)[:-2], {"a": True, "b": False}),  # cut behind two whole entries
        (reply(MET, UNMET)[:-3], {"a": True, "b": None}),
        (reply(MET, UNMET)[: reply(MET, UNMET).rindex('"id"') + 3], {"a": True, "b": None}),
        (reply(MET, summary="x"), {"a": True, "b": None}),
        (json.dumps({"summary": {"n": 1}, "verdicts": [MET]}), {"a": True, "b": None}),
        (reply(MET | {"id": 1}), {"a": None, "b": None}),
    ],
)
def test_what_is_read(text, expected):
    assert parse_verdicts(text, ["a", "b"]) == expected


def test_a_number_is_an_id_as_text():
    assert parse_verdicts(reply(MET | {"id": 1}), ["1"]) == {"1": True}
    assert parse_verdicts(reply(MET | {"id": True}), ["True", "1"]) == {"True": None, "1": None}


@pytest.mark.parametrize(
    ("number", "is_read"), [(10**9 - 1, True), (10**9, False), (-(10**9) + 1, True), (-(10**9), False)]
)
def test_a_number_of_more_than_nine_digits_is_no_id(number, is_read):
    assert parse_verdicts(reply(MET | {"id": number}), [str(number)]) == {str(number): True if is_read else None}


@pytest.mark.parametrize(("letters", "met"), [(100_000 - len(reply(MET)), True), (100_001 - len(reply(MET)), None)])
def test_only_the_end_of_a_reply_is_looked_at(letters, met):
    assert parse_verdicts(reply(MET) + "." * letters, ["a"]) == {"a": met}


@pytest.mark.parametrize(("braces", "met"), [(510, True), (511, None)])
def test_only_the_last_braces_are_tried(braces, met):
    """The object has two braces of its own; of 512 in all its first one is the first that is tried."""
    text = reply(MET)[:-1] + ', "more": [' + ", ".join(["{}"] * braces) + "]}"
    assert parse_verdicts(text, ["a"]) == {"a": met}


@pytest.mark.parametrize(("length", "met"), [(20_022, True), (20_023, None)])
def test_an_unreadable_reply_is_given_up_in_the_end(length, met):
    """Ten objects inside one another break off after `length` signs; each is read again from its own brace.

    That is 10 length - 5 (0 + ... + 9) signs in vain, of which 200,000 are too few to give up.
    """
    broken = '{"a":' * 10
    text = f'{broken}"{"x" * (length - len(broken) - 2)}"! {reply(MET)}'
    assert text.index("!") == length
    assert parse_verdicts(text, ["a"]) == {"a": met}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "true",
        "a is met",
        "[]",
        "{}",
        reply(),
        reply(MET | {"met": "true"}),
        reply(MET | {"met": 1}),
        reply(MET | {"met": None}),
        reply({"id": "a"}),
        reply(MET | {"id": "c"}),
        reply(MET, MET),  # said twice, even if alike
        reply(MET, MET | {"met": False}),
        reply([MET]),
        json.dumps([MET]),
        json.dumps({"verdicts": MET}),
        json.dumps({"verdict": [MET]}),
        json.dumps({"outer": {"verdicts": [MET]}}),
        '{"verdicts": [{"id": "a", "met": true, "met": false}]}',
        reply(MET, UNMET)[:40],  # cut short
        f'{{"verdicts": [{{"id": "a", "reason": "it says {reply(MET)}", "met": false}}]}}',  # quoted without escapes
        f"<think>{reply(MET)}",
        f"<think>so</think><think>{reply(MET)}",
        "{" * 100_000,
        '{"verdicts":' * 5_000,
        '{"verdicts":' * 900,
        '{"a": 1, "a": 2, "b": ' * 400,
        '{"verdicts": [' + "[" * 50_000,
        "9" * 50_000,
        '{"verdicts": [{"id": ' + "9" * 10_000 + ', "met": true}]}',
    ],
)
def test_what_is_no_verdict(text):
    assert parse_verdicts(text, ["a"]) == {"a": None}


@pytest.mark.parametrize("text", [None, 3, b"{}", ["x"]])
def test_what_is_no_text(text):
    assert parse_verdicts(text, ["a"]) == {"a": None}


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (MET, "r"),
        (MET | {"reason": 'it names \u2028 \ud83d and "met": false'}, 'it names \u2028 \ud83d and "met": false'),
        ({"id": "a", "met": True}, None),
        (MET | {"reason": ""}, None),
        (MET | {"reason": ["r"]}, None),
    ],
)
def test_a_reason_is_kept_as_the_judge_gave_it(entry, reason):
    assert parser.parse_verdicts(reply(entry, UNMET | {"met": "no"}), ["a", "b"]) == {
        "a": parser.Vote(True, reason),
        "b": None,
    }


ids = st.lists(st.sampled_from(["a", "b", "c", "1", "2"]), unique=True, max_size=4)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["verdicts", "id", "met", "x"]), inner, max_size=4)
    ),
    max_leaves=12,
)
fragments = st.sampled_from(
    ['{"verdicts": [', '{"id": "a", "met": true}', '{"id": "b", "met": false}', "]}", "]", "}", "{", ",", '"', "\\",
     "\n", "<think>", "</think>", "```json", "prose ", '"met": true', "null", "\x00", "\ud800", "é"]
)  # fmt: skip


@settings(max_examples=1000)
@given(text=st.text() | st.lists(fragments, max_size=14).map("".join) | json_values.map(json.dumps), asked=ids)
def test_no_reply_raises_and_only_what_is_said_is_read(text, asked):
    verdicts = parse_verdicts(text, asked)
    assert list(verdicts) == asked
    for name, met in verdicts.items():
        assert met in (True, False, None)
        if met is not None:
            # an entry that says so is there, word for word
            word = "true" if met else "false"
            assert word in text
            assert name in text


PIECES = (
    '{"verdicts": [', '{"id": "a", "met": true}', '{"id": "b", "met": false}', '{"id": "a", "met": false}', "]}", "]",
    "}", "{", ",", '"', "\\", "\n", "<think>", "</think>", "```json", "prose ", '"met": true', "null", "\x00",
    "\ud800", '{"verdicts": []}', '{"id": 1, "met": true}', '"verdicts":', "0" * 50,
)  # fmt: skip


def test_a_hundred_thousand_mangled_replies():
    draw = random.Random(0)
    honest = reply(MET, UNMET, {"id": "1", "reason": "x" * 20, "met": True})
    read = 0
    for number in range(100_000):
        if number % 2:
            text = "".join(draw.choices(PIECES, k=draw.randint(0, 12)))
        else:  # an honest reply with a piece cut out, put in or moved
            a, b = sorted(draw.choices(range(len(honest)), k=2))
            text = honest[:a] + draw.choice((*PIECES, "", honest[a:b][::-1])) + honest[b:]
        for name, met in parse_verdicts(text, ["a", "b", "1"]).items():
            assert met in (True, False, None)
            if met is not None:
                read += 1
                squeezed = text.replace(" ", "").replace("\n", "")
                assert f'"id":"{name}"' in squeezed or f'"id":{name}' in squeezed
                assert f'"met":{"true" if met else "false"}' in squeezed
    assert read > 1000


@given(met=st.lists(st.booleans(), min_size=1, max_size=8), before=st.text(), after=st.text())
def test_an_honest_reply_is_read_whatever_stands_around_it(met, before, after):
    names = [str(index) for index in range(len(met))]
    text = reply(*({"id": name, "reason": before, "met": is_met} for name, is_met in zip(names, met, strict=True)))
    around = (before.replace("<", ""), after.replace("{", "").replace("}", "").replace("<", ""))
    assert parse_verdicts(around[0] + text + around[1], names) == dict(zip(names, met, strict=True)) or "{" in before


@pytest.mark.parametrize(
    ("text", "expected"),
    [('{"reason": "x", "rating": 7}', 7), ('{"rating": 11}', None), ('{"rating": "7"}', None),
     ('{"rating": 0}', None), ('{"rating": 1}', 1), ('{"rating": 10}', 10), ('{"rating": -1}', None),
     ('{"rating": true}', None), ("7", None), ('{"rating": 7.5}', None), ("", None)],
)  # fmt: skip
def test_ratings(text, expected):
    assert parse_rating(text) == expected


BROKEN = [
    r'{"verdicts":[{"id":"a","reason":"names \(K_\alpha\)","met":true}]}',
    '{"verdicts": [{"id": "a", "reason": "r", "met": true,},],}',
    '{"verdicts": [{"id": "a", "reason": "one\nline", "met": true}]}',
    '{"verdicts": [{"id": "a", "reason": "says "two", clearly", "met": true}]}',
    '{"verdicts": [{"id": "a", "met": true, "reason": "says "two", clearly"}]}',
    "{'verdicts': [{'id': 'a', 'reason': 'it's so', 'met': True}]}",
    '{"verdicts": [{"id": "a", "reason": "uses <think> and </think>", "met": true}]}',
    r'{"verdicts": [{"id": "a", "reason": "\(x\) in <think> and </think>", "met": true}]}',
    '{"verdicts": [{"id": "a", "reason": "r", "met": true}]} It names `<think>` and "</think>".',
    'I weigh {this} and {that}. {"verdicts": [{"id": "a", "met": true}]} See {above}.',
    '{"verdicts": [{"id": "a", "reason": "sets {1}, {2}, \\{3\\}", "met": true}]}',
    '{"verdicts": [{"id": "a", "reason": "r", "met": true}, {"id": "b", "reason": "so it wou',
    '{"verdicts": [{"id": "a", "reason": "r", "met": true}]',
    '{"verdicts": [{"id": "a", "reason": "r", "met": true}}',
    '{"verdicts": [{"id": "b", "reason": "\\(", "met": "so"}, {"id": "a", "reason": "r", "met": true}]}',
    '{"verdicts": [\n{"id": "a"\n"reason": "r"\n"met": true}\n]}',
    '{"verdicts": [{"id": "a" "reason": "r" "met": true}]}',
    '{"verdicts": [{"criterion": "\\(x", "id": "a", "reason": "r", "met": TRUE, "confidence": 0.9}]}',
    '{"summary": "\\(x", "verdicts": [{"id": "a", "reason": "r", "met": true}]}',
    '{"verdicts": [{"id": "a", "reason": "calls {"name": "f"}, {"name": "g"} so", "met": true}]}',
    '{\\"verdicts\\": [{\\"id\\": \\"a\\", \\"met\\": true}]}',
    '{verdicts: [{id: "a", reason: "r", met: true}]}',
    '{verdicts: [{id: "a", met: true}; {id: "b", reason: "so it wou',
    '{"verdicts": [{"id": "a", "met": true}, // surely\n {"id": "b", "reason": "so it wou',
    '{"verdicts": [{"id": "a", "met": true},, {"id": "b", "reason": "so it wou',
    '{"verdicts": [/* the first */ {"id": "a", "met": true}]}',
    "{ verdicts: [\n{id: 'a', reason: 'names \\(x\\)\nand {y: 1}, then }', met: True,},\n],}",
    '{"verdicts": [{id: "a", "met": true}, {id: "b", met: "true"}]}',
    '{"verdicts": [{"id": "a", "reason": "r", met: true}]}',
    '{summary: "x", verdicts: [{id: "a", met: true}]}',
    '{verdicts: [{id: "a", reason: "r", met: true}, {id: "b", reason: "so it wou',
    'As {verdicts: [...]}: {verdicts: [{id: "a", met: true}]}',
    "{\u201cverdicts\u201d: [{\u201cid\u201d: \u201ca\u201d, \u201cmet\u201d: true}]}",
]


@pytest.mark.parametrize("text", BROKEN)
@pytest.mark.parametrize("around", ["{}", "<think>{{x}}</think>\n{}", "x\n</think>```json\n{}\n```"])
def test_what_a_person_reads_in_a_broken_reply_is_read(text, around):
    assert parse_verdicts(around.format(text), ["a", "b"]) == {"a": True, "b": None}


@pytest.mark.parametrize(
    "text",
    [
        r'{"verdicts": [{"id": "a", "reason": "\(", "met": tru',
        r'{"verdicts": [{"id": "a", "reason": "\(", "met": true',
        r'{"verdicts": [{"id": "a", "reason": "\(", "met": "true"}]}',
        r'{"verdicts": [{"id": "a", "reason": "\(", "met": true, "met": false}]}',
        r'{"verdicts": [{"id": "a", "reason": "\(", "met": true}, {"id": "a", "reason": "r", "met": true}]}',
        '{"verdicts": [{"id": "a", "reason": "asks for "x", "met": true} here", "met": false}]}',
        '{"verdicts": [{"id": "a", "reason": "quotes {"id": "b", "met": true}", "met": false}]}',
        '{"verdicts": [{"id": "a", "met": true, "reason": "see f(x) = {x: 1}, ',  # nobody knows how it went on
        r'"verdicts": [{"id": "a", "reason": "\(", "met": true}]}',
        '{verdicts: [{id: "a", reason: "says it, met: true}',  # the reason may have gone on
        '{verdicts: [{id: "a", reason: "says "so", met: true}]}',
        '{verdicts: [{id: "a", met: true, met: false}]}',
        '{verdicts: [{id: "a", met: true}, {id: "a", met: true}]}',
        '{verdicts: [{id: "a", met: true',
        '{verdicts: [{id: "a", met: "true"}]}',
        '{verdicts: [{id: "a", ' + "met: true, " * 9_000,
        '{verdicts: [{id: "' * 5_000,
        '{"verdicts": [{"id": "a", "reason": "\\(", ' + '"met": true}//' * 6_000,
        '{"verdicts": [{"id": "a", "reason": "\\(", ' + '"met": true}/*' * 6_000,
        "{" + '"verdicts": [' + '{"id": "a"' + " " * 90_000 + ', "met": true',
        '{"verdicts": [' + '{"id": "a", "met": true' * 4_000,
        '{"verdicts": [{"id": "a", "reason": "' + '"met": true, ' * 7_000 + "}]}",
        '{"verdicts": [{"id": "a", "reason": "\\(' + '" } , ' * 15_000,
        ('{"a": "' + "," * 190) * 512,
        '{"a": "' * 512 + "," * 90_000,
    ],
)
def test_what_is_unclear_in_a_broken_reply_is_no_verdict(text):
    assert parse_verdicts(text, ["a", "b"]) == {"a": None, "b": None}


def test_the_reason_of_a_broken_entry_is_kept_as_it_is_written():
    (vote,) = parser.parse_verdicts(BROKEN[0], ["a"]).values()
    assert vote.reason == r"names \(K_\alpha\)"
    (vote,) = parser.parse_verdicts(BROKEN[3], ["a"]).values()
    assert vote.reason == 'says "two", clearly'


def test_broken_replies_lose_nothing_readable_and_invent_nothing():
    draw = random.Random(1)
    readable_verdicts = 0
    for _ in range(20_000):
        text, names, met, readable = broken_reply(draw)
        readable_verdicts += len(readable)
        assert parse_verdicts(text, names) == {name: met[name] if name in readable else None for name in names}, text
    assert readable_verdicts > 50_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r'{"reason": "names \(K\)", "rating": 7}', 7),
        ('{"reason": "says "no"", "rating": 7,}', 7),
        ("{'reason': 'it's so', 'rating': 7}", 7),
        ('{"rating": 7} or {"rating": 7}', 7),
        ('{reason: "names 9", rating: 7}', 7),
        ('As {reason: ..., rating: n}: {"rating": 7}', 7),
        ("{rating: 7, rating: 8}", None),
        ('{reason: "so, rating: 7}', None),
        ('{"rating": 7} or {"rating": 8}', None),
        (r'{"reason": "\( {"rating": 10} \)", "rating": 2}', None),
        (r'{"reason": "\(", "rating": 7', None),
        (r'{"reason": "\(", "rating": 70}', None),
    ],
)
def test_broken_ratings(text, expected):
    assert parse_rating(text) == expected
