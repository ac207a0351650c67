"""A matplotlib figure as SVG that may stand inside a page, beside other figures."""

import io
import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from fedpace.reporting.style import PALETTE, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_VARIABLE = {light: f"var(--{name})" for name, (light, _) in PALETTE.items()}
_HEX = re.compile(r"#[0-9a-f]{6}")
_FONT_FAMILY = re.compile(r"font-family:[^;]*;? *")
_DECIMALS = re.compile(r"(\d+\.\d\d)\d+")
_REFERENCE = re.compile(r"#([\w.-]+)")


@styled
def inline_svg(figure: "Figure", name: str, title: str) -> str:
    """Return a figure as an `<svg>` element for a page.

    Identifiers are made the page's own by a prefix, or dropped where nothing refers to them;
    palette colours become CSS variables, so that the page decides between light and dark; fonts
    are the page's. Nothing in it depends on the time or the machine.

    Args:
        figure: drawn by `fedpace.reporting.plots`.
        name: of the figure, unique in the page: letters, digits, hyphens.
        title: what it shows, for those who cannot see it.
    """
    text = io.StringIO()
    figure.savefig(
        text, format="svg", transparent=True,
        metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
    )  # fmt: skip
    root = ElementTree.fromstring(text.getvalue())
    used = {
        match for e in root.iter() for v in e.attrib.values() for match in _REFERENCE.findall(v)
    }
    for element in root.iter():
        element.tag = _local(element.tag)
        for key, value in list(element.attrib.items()):
            del element.attrib[key]
            if key == "id":
                if value in used:
                    element.set("id", f"{name}-{value}")
                continue
            element.set(_local(key), _own(_local(key), value, name))
    for defs in root.findall("defs"):
        for style in defs.findall("style"):
            defs.remove(style)
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    root.set("role", "img")
    root.set("aria-label", title)
    return ElementTree.tostring(root, encoding="unicode")


def _local(tag: str) -> str:
    """A page's parser knows SVG by the element, without XML namespaces."""
    return tag.rpartition("}")[2]


def _own(key: str, value: str, name: str) -> str:
    if key == "href" and value.startswith("data:"):
        return value
    if key in ("href", "clip-path"):
        return value.replace("#", f"#{name}-")
    if key == "style":
        value = _FONT_FAMILY.sub("", value)
        value = _HEX.sub(lambda match: _VARIABLE.get(match[0], match[0]), value)
    return _DECIMALS.sub(r"\1", value) if key in ("d", "x", "y", "transform", "points") else value
