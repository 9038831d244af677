"""The page and the notebook's view: complete, escaped, and without anything that runs or loads."""

import json
from html.parser import HTMLParser

import numpy as np
import pytest
from made_up import channel, forecast, log, method, rewards
from made_up import result as made_up_result

from rvpo.audit import audit_groups, audit_page, compare
from rvpo.audit.page import MOST_DRAWN, heat_map, points
from rvpo.errors import ConfigError
from rvpo.text import interval, shown

HOSTILE = ["<script>alert(1)</script>", "[bold red]x[/]", "a\x1b[31m\nb", '"><img src=x onerror=y>', "{{ 7 * 7 }}"]
VOID = {"meta", "polyline", "br", "wbr"}


class Tags(HTMLParser):
    """Collects tags and texts, and checks that tags are closed in order."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.texts, self.open = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data.strip())


@pytest.fixture(scope="module")
def result():
    return audit_groups([log(rewards(np.random.default_rng(0)))], HOSTILE, draws=50, source="<b>here</b>")


def test_the_page_says_everything_and_runs_nothing(result):
    text = audit_page(result, compare(result, result))
    tags = Tags(text)
    assert {"script", "img", "link", "iframe", "b"} & set(tags.tags) == set()
    assert not any(name.startswith("on") or name in ("src", "href") for name, _ in tags.attributes)
    assert "http" not in text
    assert "\x1b" not in text
    for name in HOSTILE:
        assert shown(name) in tags.texts
    for head in ("Channels", "Forecast", "Weight in the advantage", "Methods", "Conflict", "How the log was read"):
        assert head in tags.texts
    assert tags.texts.count("▲ ") == 0
    assert len([tag for tag in tags.tags if tag == "polyline"]) == len(HOSTILE)
    weights = tags.texts[tags.texts.index("Weight in the advantage") : tags.texts.index("Methods")]
    assert "20 %" in weights  # five channels weigh the same under gdpo
    assert interval(*result.by_outlook("gdpo")[0].forecasts["gdpo"].change) in tags.texts


def test_a_notebook_shows_the_same_without_a_page_around_it(result):
    text = audit_page(result, whole=False)
    assert "<html" not in text
    assert "Methods" in Tags(text).texts
    assert text.strip().startswith("<style>")
    assert repr(result) == f"AuditResult('<b>here</b>', {result.rollouts} rollouts: {result.headline})"


def test_many_channels_list_pairs_instead_of_a_table():
    draw = np.random.default_rng(0)
    names = [f"c{index}" for index in range(25)]
    many = audit_groups([log(rewards(draw, channels=25, prompts=20))], names, methods=["gdpo"], draws=20)
    assert any(" and c" in text for text in Tags(audit_page(many)).texts)


def test_the_finding_advice_and_pictures_come_before_the_folded_tables(result):
    text = audit_page(result, compare(result, result))
    first, _, rest = text[text.index("<h1>") :].partition("<details>")
    assert first.startswith(f"<h1>{result.headline}</h1>")
    heads = ("What to do", "Rewards by their risk under gdpo", "What each method")
    assert 0 < first.index(heads[0]) < first.index(heads[1]) < first.index(heads[2])
    assert first.count('class="level"') == len(HOSTILE)
    assert "<details open" not in text
    assert rest.count("<table>") == rest.count('<div class="scroll" tabindex="0"><table>') == 5


def test_the_heat_map_has_every_method_at_its_best_k_and_the_size_of_each_forecast():
    changes = {"gdpo": 0.4, "rvpo k=1": -0.1, "rvpo k=2": 0.2, "cvar": np.nan}
    outlooks = {"low": 0.1, "high": 0.9}
    channels = [
        channel(name, forecasts={signal: forecast(change, outlook=outlook) for signal, change in changes.items()})
        for name, outlook in reversed(outlooks.items())
    ]
    methods = [method(name, lowest=lowest) for name, lowest in zip(changes, (0.2, 0.4, 0.3, 0.5), strict=True)]
    drawn = heat_map(made_up_result(channels, methods))
    assert [row.name for row in drawn.channels] == ["low", "high"]
    assert [column.name for column in drawn.methods] == ["gdpo", "cvar", "rvpo k=1"]
    assert {drawn.depth["low", name] for name in ("gdpo", "rvpo k=1", "cvar")} == {1.0, 0.25, 0.0}


def test_of_many_channels_the_pictures_show_those_most_at_risk():
    many = made_up_result(
        [channel(f"tag {n}", forecasts={"gdpo": forecast(outlook=n / 300)}) for n in range(300)][::-1]
    )
    first, _, rest = audit_page(many).partition("<details>")
    assert MOST_DRAWN == 20
    assert (first.count("tag 19<"), first.count("tag 20<")) == (2, 0)
    assert "280 more are in the tables below" in first
    assert rest.count("tag 299<") == 3


def test_json_has_every_figure_and_nothing_that_json_lacks(result):
    stored = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert stored["headline"] == result.headline
    assert [channel["name"] for channel in stored["channels"]] == HOSTILE
    forecast = stored["channels"][0]["forecasts"]["rvpo k=2"]
    assert set(forecast["change"]) == {"value", "low", "high"}
    assert forecast["verdict"] in ("rises", "stalls", "falls", "at risk")
    assert stored["channels"][0]["length"]["value"] is None


def test_two_audits_side_by_side():
    draw = np.random.default_rng(0)
    before = rewards(draw, channels=3)
    after = before.copy()
    after[..., 0] = np.maximum(after[..., 0], draw.random(after.shape[:2]) < 0.5)
    after[..., 1] = 0.0
    names = ["up", "down", "same"]
    first, second = (audit_groups([log(values)], names, methods=["gdpo"], draws=100) for values in (before, after))
    comparison = compare(first, second)
    assert [change.name for change in comparison.changes] == ["down", "same", "up"]
    assert comparison.headline.startswith("1 of 3 rewards higher, 1 lower; the largest fall: down -")
    assert [finding.kind for finding in comparison.new] == ["dead"]
    assert comparison.gone == []
    assert compare(first, first).headline == "no reward differs: 3 compared"
    some = audit_groups([log(after[..., 1:])], ["down", "other"], methods=["gdpo"], draws=10)
    partly = compare(first, some)
    assert (partly.only_before, partly.only_after) == (("up", "same"), ("other",))
    assert "Channels here only: up, same." in Tags(audit_page(first, partly)).texts
    assert json.loads(json.dumps(partly.to_dict(), allow_nan=False))["only_after"] == ["other"]
    assert {finding.kind for finding in compare(some, first).gone} == {"dead"}
    renamed = audit_groups([log(before)], ["a", "b", "c"], methods=["gdpo"], draws=10)
    with pytest.raises(ConfigError, match="nothing to compare: up, down and same in one log, a, b and c in the other"):
        compare(first, renamed)


def test_points_of_a_course():
    assert points((0.0, float("nan"), 1.0), (0.0, 1.0), width=10, height=4) == "0.0,4.0 10.0,0.0"
