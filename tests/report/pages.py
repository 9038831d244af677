"""A page as tests read it, and the log of a made-up training run."""

import json
from html.parser import HTMLParser
from itertools import pairwise
from urllib.parse import unquote
from xml.etree import ElementTree

VOID = {"meta", "br", "link", "img", "input", "hr"}
IMAGE = "data:image/svg+xml,"


class Page(HTMLParser):
    """The elements of a page: tag, attributes and text inside, in their order; fails where tags do not match."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open = [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        if tag in ("small", "br"):
            self.handle_data(" ")
        entry = [tag, dict(attrs), ""]
        self.elements.append(entry)
        if tag not in VOID:
            self.open.append(entry)

    def handle_startendtag(self, tag, attrs):
        self.elements.append([tag, dict(attrs), ""])

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag
        if tag in ("td", "th", "dt", "dd", "small"):
            self.handle_data(" ")

    def handle_data(self, data):
        for entry in self.open:
            entry[2] += data

    def all(self, tag, **wanted):
        return [element for element in self.elements if element[0] == tag and wanted.items() <= element[1].items()]

    def texts(self, tag, **wanted):
        return [" ".join(text.split()) for _, _, text in self.all(tag, **wanted)]


def everything(page):
    """The text a reader sees."""
    return " ".join(page.texts("body"))


def check_asks_nothing_of_a_server(page):
    ids = [attributes["id"] for _, attributes, _ in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for tag, attributes, _ in page.elements:
        assert tag not in ("script", "link", "iframe", "object", "embed", "image", "base", "form")
        assert not {"srcset", "action", "background", "xlink:href"} & set(attributes)
        assert not any(name.startswith("on") for name in attributes)
        if tag == "img":
            check_image(attributes["src"])
        else:
            assert "src" not in attributes
        if "href" in attributes:
            assert attributes["href"].startswith("#")
            assert attributes["href"][1:] in ids
        assert "url(" not in attributes.get("style", "")
    assert "url(" not in page.texts("style")[0]
    assert "@import" not in page.texts("style")[0]
    (policy,) = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
    assert policy[1]["content"] == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def drawing(source):
    """The SVG in the source of an image."""
    assert source.startswith(IMAGE)
    return ElementTree.fromstring(unquote(source.removeprefix(IMAGE)))


def drawn_texts(page):
    """The texts in the images of a page."""
    return [text for _, attributes, _ in page.all("img") for text in drawing(attributes["src"]).itertext()]


def check_image(source):
    """The source of an image is an SVG that runs nothing and refers to nothing outside itself."""
    for element in drawing(source).iter():
        assert element.tag.rpartition("}")[2] not in ("script", "image", "a", "foreignObject")
        for key, value in element.items():
            name = key.rpartition("}")[2]
            assert not name.startswith("on")
            assert name != "href" or value.startswith("#")
            assert "url(" not in value.replace("url(#", "")


def check_everyone_can_read(page, figures):
    """Headings, tables and at least so many figures are as assistive technology needs them."""
    assert page.elements[0][:2] == ["html", {"lang": "en"}]
    levels = [int(tag[1]) for tag, _, _ in page.elements if tag in ("h1", "h2", "h3", "h4")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert all(attributes.get("scope") in ("col", "row", "colgroup") for _, attributes, _ in page.all("th"))
    drawings = page.all("img", **{"class": "drawing"})
    assert len(drawings) == len(page.all("figure")) >= figures
    assert all(attributes["alt"] for _, attributes, _ in drawings)
    assert all(text for text in page.texts("figcaption"))
    assert page.all("meta", name="viewport")


def write_log(folder, entries):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return folder


def logged(step, **more):
    return {"step": step, "loss": 0.1, "rvpo/k": 1.0, "channels/tone_reward/mean": 0.1 * step, **more}
