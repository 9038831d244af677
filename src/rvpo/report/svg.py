"""Figures as SVG that is the same byte for byte whenever its numbers are, and as PNG.

Inside a page a figure takes the page's ink (`currentColor`) and font, has ids of its own, a title and a description,
and refers to nothing outside. A stand-alone file brings its ink and ground for light and for dark surroundings.
"""

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from xml.etree import ElementTree

import matplotlib
from matplotlib.figure import Figure

from rvpo.report.drawing import INK, Look

__all__ = ["NamedFigure", "inline_svg", "png", "standalone_svg", "swatch"]

NAMESPACE = "http://www.w3.org/2000/svg"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
STYLE = (
    f"svg{{font-family:{FONT};color:#1f2328;background:#fff;stroke-linejoin:round}}"
    "@media (prefers-color-scheme:dark){svg{color:#e6edf3;background:#0d1117}}"
)
MARKERS = {
    "o": "M4 0A4 4 0 1 0-4 0 4 4 0 1 0 4 0Z",
    "s": "M-3.5-3.5H3.5V3.5H-3.5Z",
    "D": "M0-4.6 4.6 0 0 4.6-4.6 0Z",
    "^": "M0-4.2 4.2 3.6H-4.2Z",
    "v": "M0 4.2 4.2-3.6H-4.2Z",
    "P": "M-1.6-4.4H1.6V-1.6H4.4V1.6H1.6V4.4H-1.6V1.6H-4.4V-1.6H-1.6Z",
    "X": "M0-1.8 2.2-4 4-2.2 1.8 0 4 2.2 2.2 4 0 1.8-2.2 4-4 2.2-1.8 0-4-2.2-2.2-4Z",
}
"""Outlines of matplotlib's markers, for the legends that tables have."""


@dataclass(frozen=True)
class NamedFigure:
    """A figure and what stands for it where it is not seen."""

    name: str
    """Its own in a report: part of its ids, and the name of its files."""
    title: str
    description: str
    figure: Figure


def inline_svg(named: NamedFigure) -> str:
    """Return a figure as an `svg` element for a page."""
    root = _drawn(named)
    root.set("class", "drawing")
    return ElementTree.tostring(root, encoding="unicode")


def standalone_svg(named: NamedFigure) -> str:
    """Return a figure as an SVG file."""
    root = _drawn(named)
    _, _, width, height = root.get("viewBox", "").split()
    style = ElementTree.Element("style")
    style.text = STYLE
    root.insert(0, style)
    for key, value in (("xmlns", NAMESPACE), ("width", width), ("height", height)):
        root.set(key, value)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def png(named: NamedFigure, pixels_per_unit: float = 2.0) -> bytes:
    """Return a figure as PNG on white."""
    target = io.BytesIO()
    with _any_letter():
        named.figure.savefig(
            target, format="png", dpi=72 * pixels_per_unit, facecolor="white", metadata={"Software": None}
        )
    return target.getvalue()


def swatch(look: Look) -> str:
    """Return a method's line and marker as a small `svg` element; the method's name stands beside it."""
    colour = look.colour.replace(INK, "currentColor")
    dashes = "" if isinstance(look.dashes, str) else " ".join(f"{1.5 * part:g}" for part in look.dashes[1])
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    return (
        f'<svg class="swatch" viewBox="0 0 28 12" aria-hidden="true"><g transform="translate(14 6)" fill="{colour}" '
        f'stroke="{colour}"><path d="M-14 0H14" stroke-width="2"{dashed}/>'
        f'<path d="{MARKERS[look.marker]}" stroke="none"/></g></svg>'
    )


@contextmanager
def _any_letter() -> Iterator[None]:
    """Letters that matplotlib's font lacks are the reader's font's business in SVG, and boxes in PNG."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        yield


def _drawn(named: NamedFigure) -> ElementTree.Element:
    """Return the figure as an element tree without namespaces, with its own ids, in currentColor and without font."""
    target, name = io.StringIO(), named.name
    with _any_letter(), matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        named.figure.savefig(target, format="svg", transparent=True, metadata={"Date": None})
    drawn = ElementTree.fromstring(target.getvalue())
    for element in drawn.iter():
        _clean(element, name)
    _keep_used_ids(drawn)
    _drop_empty(drawn)
    labels = {"role": "img", "aria-labelledby": f"{name}-title {name}-description"}
    root = ElementTree.Element("svg", {"viewBox": drawn.get("viewBox", ""), **labels})
    for tag, key, text in (("title", "title", named.title), ("desc", "description", named.description)):
        label = ElementTree.SubElement(root, tag, {"id": f"{name}-{key}"})
        label.text = _printable(text)
    root.extend(drawn)
    return root


def _clean(element: ElementTree.Element, name: str) -> None:
    """Take out of an element what would clash on a page, and what nobody sees."""
    element.tag = element.tag.rpartition("}")[2]
    if element.tag == "defs":
        for style in element.findall(f"{{{NAMESPACE}}}style"):
            element.remove(style)  # a rule for every element of the page
    if element.tag == "g" and element.get("id", "").startswith("QuadMesh"):
        element.set("shape-rendering", "crispEdges")
        for cell in element:
            cell.attrib.pop("clip-path", None)  # a cell ends where its axes end
    element.text, element.tail = (element.text if element.tag == "text" else None), None
    for key in list(element.attrib):
        value = element.attrib.pop(key)
        key = key.rpartition("}")[2]
        element.set(key, _attribute(key, value, name))
    if element.get("transform", "").startswith("rotate(-0 "):
        del element.attrib["transform"]


def _attribute(key: str, value: str, name: str) -> str:
    """Return an attribute's value as the page needs it."""
    if key == "id":
        return f"{name}-{value}"
    if key == "href":
        return value.replace("#", f"#{name}-")
    value = value.replace("url(#", f"url(#{name}-").replace(INK, "currentColor")
    if key == "style":
        value = re.sub(r"\s*font-family:[^;]*;?", "", value).replace("; ", ";").replace(": ", ":")
    if key in ("d", "x", "y", "width", "height", "transform") or key.startswith("points"):
        value = re.sub(r"-?\d+\.\d{3,}", lambda match: f"{float(match[0]):.2f}".rstrip("0").rstrip("."), value)
        value = re.sub(r"\s*([A-Za-z])\s+(?=[-\d])", r"\1", value) if key == "d" else value
    return " ".join(value.split())


def _keep_used_ids(root: ElementTree.Element) -> None:
    """Drop the ids that nothing refers to; matplotlib gives one to every group."""
    values = [value for element in root.iter() for key, value in element.items() if key != "id"]
    used = {match for value in values for match in re.findall(r"#([^)]+)", value)}
    for element in root.iter():
        if element.get("id") is not None and element.get("id") not in used:
            del element.attrib["id"]


def _drop_empty(element: ElementTree.Element) -> None:
    """Drop what matplotlib writes about the file, groups with nothing in them, and groups that only wrap one thing."""
    for child in list(element):
        _drop_empty(child)
        if child.tag == "metadata" or (child.tag in ("g", "defs") and len(child) == 0):
            element.remove(child)
        elif child.tag == "g" and len(child) == 1 and not child.attrib:
            element[list(element).index(child)] = child[0]


def _printable(text: str) -> str:
    """Return a text without the characters that XML has no way to write."""
    return re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]", " ", text)
