"""HTML as a tree, however badly it is written; nothing is refused, and nothing nests too deeply to be walked."""

from __future__ import annotations

from collections import Counter
from html import escape
from html.parser import HTMLParser
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Node", "parse", "walk", "words"]


def words(text: str) -> frozenset[str]:
    """Return the words of *text* as a set."""
    return frozenset(text.split())


_DEEPEST = 200  # elements within each other; what is deeper belongs to that one
_VOID = words("area base br col embed hr img input link meta param source track wbr")
# What a beginning of these ends, up to where.
_CLOSES = {
    "li": ({"li"}, {"ul", "ol", "menu"}),
    "dt": ({"dt", "dd"}, {"dl"}),
    "dd": ({"dt", "dd"}, {"dl"}),
    "tr": ({"tr", "td", "th"}, {"table"}),
    "td": ({"td", "th"}, {"tr", "table"}),
    "th": ({"td", "th"}, {"tr", "table"}),
    "tbody": ({"thead", "tbody", "tfoot", "tr", "td", "th"}, {"table"}),
    "tfoot": ({"thead", "tbody", "tfoot", "tr", "td", "th"}, {"table"}),
    "option": ({"option"}, {"select"}),
}
_ENDS_PARAGRAPH = words(
    "address article aside blockquote details div dl fieldset figure footer form h1 h2 h3 h4 h5 h6 header hr main "
    "menu nav ol p pre section table ul"
)


class Node:
    """An element: its tag, its attributes, and its children, which are elements and strings."""

    __slots__ = ("attributes", "children", "tag")

    def __init__(self, tag: str, attributes: dict[str, str]) -> None:
        self.tag = tag
        self.attributes = attributes
        self.children: list[Node | str] = []

    def without(self, unwanted: Callable[[Node, Node], bool]) -> Node:
        """Return a copy without the elements of which *unwanted*, given them and what they are in, says so."""
        copy = Node(self.tag, self.attributes)
        for child in self.children:
            if isinstance(child, str):
                copy.children.append(child)
            elif not unwanted(child, self):
                copy.children.append(child.without(unwanted))
        return copy

    def serialised(self) -> str:
        """Return the tree as well-formed HTML."""
        inner = "".join(
            escape(child, quote=False) if isinstance(child, str) else child.serialised() for child in self.children
        )
        if not self.tag:
            return inner
        attributes = "".join(f' {name}="{escape(value)}"' for name, value in self.attributes.items())
        return f"<{self.tag}{attributes}>" + ("" if self.tag in _VOID else f"{inner}</{self.tag}>")


def walk(node: Node) -> Iterator[Node]:
    """Yield *node* and every element in it, parents first, as they are when they are reached."""
    waiting = [node]
    while waiting:
        each = waiting.pop()
        yield each
        waiting += [child for child in reversed(each.children) if isinstance(child, Node)]


def parse(text: str) -> Node:
    """Return the tree of *text*, in an element without a name."""
    reader = _Reader()
    reader.feed(text)
    reader.close()
    return reader.root


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Node("", {})
        self._open = [self.root]
        self._tags: Counter[str] = Counter()  # of those that are open: most ends of elements look for what is not there

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _ENDS_PARAGRAPH:
            self._close({"p"}, {"td", "th", "li", "table", "button"})
        if tag in _CLOSES:
            self._close(*_CLOSES[tag])
        # Names that a parser of XML would refuse say nothing anyway.
        named = {name: value or "" for name, value in attrs if name.replace("-", "").isalnum() and name.isascii()}
        node = Node(tag if tag.isalnum() and tag.isascii() else "span", named)
        self._open[-1].children.append(node)
        if tag not in _VOID and len(self._open) < _DEEPEST:
            self._open.append(node)
            self._tags[node.tag] += 1

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID and self._open[-1].tag == tag:
            self._cut(len(self._open) - 1)

    def handle_endtag(self, tag: str) -> None:
        if self._tags[tag] > 0:
            self._cut(max(at for at, node in enumerate(self._open) if at and node.tag == tag))

    def handle_data(self, data: str) -> None:
        self._open[-1].children.append(data)

    def unknown_decl(self, data: str) -> None:
        if data.startswith("CDATA["):
            self.handle_data(data[6:])

    def _cut(self, at: int) -> None:
        for node in self._open[at:]:
            self._tags[node.tag] -= 1
        del self._open[at:]

    def _close(self, tags: set[str], until: set[str]) -> None:
        if not any(self._tags[tag] for tag in tags):
            return
        for at in range(len(self._open) - 1, 0, -1):
            if self._open[at].tag in until:
                return
            if self._open[at].tag in tags:
                self._cut(at)
                if "tr" not in tags and "thead" not in tags:
                    return
                self._close(tags, until)
                return
