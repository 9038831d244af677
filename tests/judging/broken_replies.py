"""Valid replies of a judge, broken in the ways in which models break them, with what a person still reads in them."""

import json
import re

REASONS = (
    "It names the dose.", "", "names \\(K_\\alpha\\) and \\frac{a}{b}", "line one\nline two\n\n- a point",
    'says "two tablets", clearly', "it's the patient's own", "sets {1}, {2} and [3], all of them",
    "uses <think> and </answer> as words", "C:\\temp\\new, 5 \\% of \\{x\\}", "caf\u00e9 \U0001f600 \u2028 \u4e2d",
    'he writes: "met": nothing', "true, false, null", "see f(x) = {x: 1}, then }", "`code` and ```fences```", "id: 7",
)  # fmt: skip
PROSE = (
    "", "Here is my verdict:\n", "Let me see {of course}. ", "The set {1, 2} is meant.\n", "I thought [a] {b: 1} ",
    "<note>fine</note>\n", 'He said "met" and {"id"}. ', "Reply: ", "{}\n", 'As asked, {"verdicts": [...]}:\n',
)  # fmt: skip
AFTER = ("", "\nI hope that helps.", "\nNote {see above}.", "</answer>", "\n{}", ' {"confidence": 0.9}', "\n[end]")
THOUGHTS = (
    "", "", "", "<think>Is it so? {maybe}</think>\n", "Is it so?\n</think>\n\n", "<think>a</think> <think>b</think>",
)  # fmt: skip


def entry(draw, name):
    pairs = [("id", name), ("reason", draw.choice(REASONS)), ("met", draw.random() < 0.5)]
    if draw.random() < 0.2:
        pairs = [pairs[0], pairs[2], pairs[1]]
    return dict(pairs)


def lone_backslashes(text, draw):
    return text.replace("\\\\", "\\")


def raw_line_breaks(text, draw):
    return text.replace("\\n", "\n")


def raw_quotes(text, draw):
    return text.replace('\\"', '"')


def trailing_commas(text, draw):
    return re.sub(r'(true|false|"|\})([}\]])', r"\1, \2" if draw.random() < 0.5 else r"\1,\2", text)


def single_quotes(text, draw):
    """As Python prints it; half of the time with the words of JSON."""
    shown = repr(json.loads(text))
    return (
        shown
        if draw.random() < 0.5
        else shown.replace("'met': True", "'met': true").replace("'met': False", "'met': false")
    )


def single_quotes_raw(text, draw):
    """Every quotation mark of JSON as a single one; those in the reasons as they are."""
    return re.sub(r'(?<=[{,:\[ ])"|"(?=[,:}\]])', "'", text.replace('\\"', '"'))


def bare_keys(text, draw):
    """Keys without quotation marks; half of the time ids without them, too."""
    text = re.sub(r'(?<=[{\s])"(verdicts|id|reason|met)"(?=: )', r"\1", text)
    return re.sub(r'\bid: "([\w-]+)"', r"id: \1", text) if draw.random() < 0.5 else text


BREAKS = (lone_backslashes, raw_line_breaks, raw_quotes, trailing_commas)


def broken_reply(draw):
    """Return a reply, ids, what its entries say by id, and the ids that a person still reads in it.

    Nobody reads an entry that the end of the reply cuts: it may have gone on otherwise.
    """
    names = [f"{number}-{draw.getrandbits(40):010x}" for number in range(1, draw.randint(1, 8) + 1)]
    entries = [entry(draw, name) for name in names]
    met = {item["id"]: item["met"] for item in entries}
    indent = draw.choice([None, None, None, 2])
    text = json.dumps({"verdicts": entries}, ensure_ascii=draw.random() < 0.5, indent=indent)
    kind = draw.random()
    if kind < 0.1:
        text = bare_keys(text, draw)
        for breaks in draw.sample((lone_backslashes, raw_line_breaks, trailing_commas), draw.randint(0, 2)):
            text = breaks(text, draw)
    elif kind < 0.25 and indent is None:
        text = draw.choice([single_quotes, single_quotes_raw])(text, draw)
    elif kind < 0.9:
        for breaks in draw.sample(BREAKS, draw.randint(1, 2)):
            text = breaks(text, draw)
    if draw.random() < 0.3:
        text = f"```json\n{text}\n```"
    before = draw.choice(THOUGHTS) + draw.choice(PROSE)
    after = draw.choice(AFTER)
    readable = set(names)
    if draw.random() < 0.3:
        ends = [text.index(name) for name in names[1:]] + [len(text)]
        cut = draw.randrange(len(text))
        text, after = text[:cut], ""
        readable = {
            name
            for name, end in zip(names, ends, strict=True)
            if cut > text.rfind("}", 0, min(end, cut)) >= 0 and text.find(name) >= 0 and is_whole(text, name, end)
        }
    return before + text + after, names, met, readable


def is_whole(text, name, end):
    """Tell whether an entry's closing brace stands in a text that was cut: right behind its last value."""
    body = text[text.index(name) : end]
    return (
        re.search(r"(?:(?:[tT]rue|[fF]alse)|(?:[tT]rue|[fF]alse),\s*.reason.*[\"'])\s*,?\s*\}", body, re.S) is not None
    )
