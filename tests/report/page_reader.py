"""A page as a browser's parser sees it: its elements, attributes and text. Raises where elements are not closed in order."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "br", "link", "img", "input", "hr", "base"}


@dataclass
class Element:
    tag: str
    attributes: dict[str, str]
    children: list[Element | str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The text inside, white space folded."""
        return " ".join("".join(self._pieces()).split())

    @property
    def raw_text(self) -> str:
        return "".join(self._pieces())

    def _pieces(self) -> list[str]:
        return [piece for child in self.children for piece in ([child] if isinstance(child, str) else child._pieces())]

    def all(self, tag: str | None = None, **attributes: str) -> list[Element]:
        """The elements below this one with that tag and those attributes (`class_` for class), in order."""
        found = []
        for child in self.children:
            if isinstance(child, Element):
                wanted = {name.rstrip("_"): value for name, value in attributes.items()}
                if tag in (None, child.tag) and all(
                    child.attributes.get(name) == value for name, value in wanted.items()
                ):
                    found.append(child)
                found += child.all(tag, **attributes)
        return found


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("", {})
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open[-1].children.append(Element(tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].tag == tag, f"</{tag}> closes <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def read_page(html: str) -> Element:
    reader = _Reader()
    reader.feed(html)
    reader.close()
    assert reader.open == [reader.root], f"left open: {[element.tag for element in reader.open]}"
    return reader.root


def section(page: Element, link: str) -> Element:
    """The section of the page that a link leads to."""
    (found,) = page.all("section", id=link)
    return found


def table(part: Element, at: int = 0) -> dict[str, list[str]]:
    """A table of a task's own section: the first cells by name, what stands below a value behind " / "; heads under ''."""
    head, *rows = part.all("table")[at].all("tr")
    found = {row.all("th")[0].text: [_cell(cell) for cell in row.all("td")] for row in rows}
    return found | {"": [cell.text for cell in head.all("th")[1:]]}


def _cell(cell: Element) -> str:
    return " / ".join(child if isinstance(child, str) else child.text for child in cell.children)
