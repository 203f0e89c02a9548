"""HTML pages as the tests read them: their elements, and that nothing in them loads or runs anything."""

from html.parser import HTMLParser
from typing import NamedTuple

_EMPTY = {"meta", "img", "br", "circle", "rect"}


class Element(NamedTuple):
    tag: str
    attributes: tuple[str, ...]
    """Their names, in order."""


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.elements: list[Element] = []
        self.values: list[tuple[str, str]] = []
        self.text: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(Element(tag, tuple(name for name, _ in attrs)))
        self.values += [(name, value or "") for name, value in attrs]
        if tag not in _EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in _EMPTY:
            assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        self.text.append(data)


class ParsedPage(NamedTuple):
    elements: list[Element]
    text: str
    """Its text, each run of white space as one space."""


def parsed(html: str) -> ParsedPage:
    """Reads a page, and checks that it is well nested, and that it loads and runs nothing."""
    parser = _Parser()
    parser.feed(html)
    parser.close()
    assert parser.open == [], "elements are not closed"
    assert not {"script", "link", "iframe", "object", "embed", "form", "base"} & {e.tag for e in parser.elements}
    for name, value in parser.values:
        assert not name.startswith("on"), f"{name} would run a script"
        if name in ("src", "href", "xlink:href", "action", "data", "poster"):
            assert value.startswith(("data:image/png;base64,", "#")), f"{name} loads {value}"
        if name == "style":
            assert "url(" not in value
    style = html.split("<style>", 1)[1].split("</style>", 1)[0]
    assert "url(" not in style
    assert "@import" not in style
    return ParsedPage(parser.elements, " ".join("".join(parser.text).split()))
