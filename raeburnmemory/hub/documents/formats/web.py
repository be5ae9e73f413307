"""Web pages: what a reader sees of them, without menus, scripts and what is hidden.

With trafilatura (Apache-2.0, https://github.com/adbar/trafilatura) installed, that decides what of a page is its
content; without it, the elements that HTML has for everything else are left out. A page that a browser's extension
saved as the plain text of its body is that text, with its line breaks.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ...._optional import installed
from ..encoding import decode
from ..source import Builder, Loaded, tidy
from .tree import Node, parse, walk, words

if TYPE_CHECKING:
    from ..source import Source

__all__ = ["blocks_of", "html", "without_hidden"]

_SUBSET = re.compile(r"<!DOCTYPE[^<>\[]{0,500}\[.*?\]\s*>", re.IGNORECASE | re.DOTALL)  # of XML; HTML has none
_BODY = re.compile(r"</head\s*>\s*<body\b[^>]*>|<body\b[^>]*>", re.IGNORECASE)
_TAG = re.compile(r"</?([a-zA-Z][a-zA-Z0-9]*)(?:[\s/][^<>]*)?>")
_ELEMENTS = words(
    "a abbr address area article aside audio b base bdi bdo blockquote br button canvas caption center cite code "
    "col colgroup data datalist dd del details dfn dialog div dl dt em embed fieldset figcaption figure font "
    "footer form frame frameset h1 h2 h3 h4 h5 h6 header hgroup hr i iframe img input ins kbd label legend li "
    "link main map mark menu meta meter nav noscript object ol optgroup option output p picture pre progress q rp "
    "rt ruby s samp script section select slot small source span strong style sub summary sup svg table tbody td "
    "template textarea tfoot th thead time tr track u ul var video wbr"
)
_UNSEEN = words("script style noscript template iframe object embed svg math canvas audio video map head")
_AROUND = words("nav footer aside form button select dialog menu")
_AROUND_ROLES = words("navigation banner contentinfo complementary search dialog alertdialog menu toolbar")
_HIDING = re.compile(
    r"display\s*:\s*none|visibility\s*:\s*(?:hidden|collapse)|opacity\s*:\s*0(?:\.0+)?\s*(?:;|!|$)|"
    r"font-size\s*:\s*0(?:\.0+)?\s*(?:[a-z%]{0,3})?\s*(?:;|!|$)|(?:left|top|text-indent)\s*:\s*-\d{4,}",
    re.IGNORECASE,
)
_RULES = re.compile(r"([^{}]{1,500})\{([^{}]{0,2000})\}")
_SIMPLE = re.compile(r"([.#])([\w-]+)")
_BLOCKS = words(
    "address article aside blockquote body center dd details dialog div dl dt fieldset figcaption figure footer "
    "form header hgroup hr html legend li main menu nav ol p section summary table tbody td tfoot th thead tr ul"
)

_ARTICLE = 500  # characters


def html(source: Source) -> Loaded:
    """Return the content of a web page."""
    text = _SUBSET.sub("", decode(source.data, source.charset, markup=True, uri=source.uri), count=1)
    title, metadata = _head(text)
    plain = _plain_body(text)
    if plain is not None:
        return Loaded(tidy(plain).strip("\n"), (), title, {**metadata, "extractor": "verbatim"})
    tree = without_hidden(parse(text), _hidden_names(text))
    found, extractor = _own(tree), "own"
    if installed("trafilatura"):
        other = _trafilatura(tree)
        # It was made for articles: of what is none it keeps next to nothing, or everything in one lump.
        if (
            other is not None
            and other.length >= _ARTICLE
            and other.length * 4 >= found.length
            and len(other.blocks) > 1
        ):
            found, extractor = other, "trafilatura"
    return found.loaded(title=title, metadata={**metadata, "extractor": extractor})


def without_hidden(tree: Node, names: frozenset[str] = frozenset()) -> Node:
    """Return *tree* without what a reader does not see: scripts, and elements that a style or an attribute hides."""
    return tree.without(lambda node, _: _unseen(node, names))


def blocks_of(tree: Node, builder: Builder) -> None:
    """Append what a tree shows to *builder*: headings, paragraphs, lists, tables and code."""
    _Writer(builder).write(tree)


def _head(text: str) -> tuple[str | None, dict[str, str]]:
    head = text[: found.start() if (found := _BODY.search(text)) else 20_000]
    tree = parse(head[:200_000])
    metadata: dict[str, str] = {}
    title = None
    for node in walk(tree):
        if node.tag == "title" and title is None:
            title = " ".join(_inline(node).split()) or None
        elif node.tag == "html" and node.attributes.get("lang"):
            metadata["language"] = node.attributes["lang"]
        elif node.tag == "meta" and node.attributes.get("name", "").lower() in {"description", "author"}:
            if value := tidy(node.attributes.get("content", "")).strip():
                metadata[node.attributes["name"].lower()] = value
        elif node.tag == "link" and node.attributes.get("rel", "").lower() == "canonical":
            metadata["canonical"] = node.attributes.get("href", "")
    return (tidy(title) if title else None), metadata


def _plain_body(text: str) -> str | None:
    """Return the body of a page that has no elements in it; None where it has, or where there is no body."""
    found = _BODY.search(text)
    if not found:
        return None
    body = re.sub(r"\s*(?:</body\s*>)?\s*(?:</html\s*>)?\s*\Z", "", text[found.end() :], flags=re.IGNORECASE)
    tags = {match[1].lower() for match in _TAG.finditer(body)} & _ELEMENTS
    if not tags and "<!--" not in body:
        return body
    # An article about HTML shows tags as text, and one that is taken for a script would swallow the rest.
    if not tags - {"script", "style", "template", "noscript"} and not re.search("</", body):
        return body
    return None


def _hidden_names(text: str) -> frozenset[str]:
    """Return the classes (`.x`) and ids (`#x`) that a style of the page itself hides, as far as plain rules say so."""
    names: set[str] = set()
    for style in re.findall(r"<style\b[^>]*>(.*?)</style", text, re.IGNORECASE | re.DOTALL):
        for selectors, rules in _RULES.findall(style[:200_000]):
            if _HIDING.search(rules):
                for selector in selectors.split(","):
                    if simple := _SIMPLE.fullmatch(selector.strip()):
                        names.add(simple[1] + simple[2])
    return frozenset(names)


def _unseen(node: Node, names: frozenset[str]) -> bool:
    attributes = node.attributes
    if node.tag in _UNSEEN or "hidden" in attributes or attributes.get("type", "").lower() == "hidden":
        return True
    if _HIDING.search(attributes.get("style", "")):
        return True
    if not names:
        return False
    return f"#{attributes.get('id', '')}" in names or any(
        f".{name}" in names for name in attributes.get("class", "").split()
    )


def _own(tree: Node) -> Builder:
    """Return the content of a page by the elements that HTML has for what is none."""
    content = [node for node in walk(tree) if node.tag == "main" or node.attributes.get("role") == "main"][:1]
    content = content or [node for node in walk(tree) if node.tag == "article"]
    content = [node for node in content if not any(node is not other and _within(node, other) for other in content)]
    builder = _without_surroundings(content or [tree])
    if not builder.length:  # a page of nothing but what usually stands around
        builder = Builder()
        blocks_of(tree, builder)
    return builder


def _within(node: Node, other: Node) -> bool:
    return any(each is node for each in walk(other))


def _without_surroundings(content: list[Node]) -> Builder:
    builder = Builder()
    menus = {identity for tree in content for identity in _menus(tree)}
    for tree in content:
        blocks_of(tree.without(lambda node, parent: _around(node, parent, menus)), builder)
    return builder


def _around(node: Node, parent: Node, menus: set[int]) -> bool:
    if node.tag in _AROUND or node.attributes.get("role", "").lower() in _AROUND_ROLES:
        return True
    if node.tag == "header":  # that of an article holds its title
        return parent.tag in {"body", "html", ""}
    return id(node) in menus


def _menus(tree: Node) -> set[int]:
    """Return which elements are menus, by identity: several links, and next to nothing else."""
    found: set[int] = set()

    def measure(node: Node, *, linked: bool) -> tuple[int, int, int]:
        """Return the number of links in an element, of its letters, and of those that are links."""
        links = letters = through = 0
        for child in node.children:
            if isinstance(child, str):
                count = len("".join(child.split()))
                letters, through = letters + count, through + count * linked
            else:
                inner = measure(child, linked=linked or child.tag == "a")
                links += inner[0] + (child.tag == "a")
                letters, through = letters + inner[1], through + inner[2]
        if node.tag in {"ul", "ol", "div"} and links >= 4 and through >= 0.9 * letters and letters < 30 * links:
            found.add(id(node))
        return links, letters, through

    measure(tree, linked=False)
    return found


def _trafilatura(tree: Node) -> Builder | None:
    try:
        import trafilatura
    except ImportError:  # one of the many packages that it needs; `extractor` says that it did not help
        return None
    from defusedxml.ElementTree import ParseError, fromstring

    found = trafilatura.extract(
        tree.serialised(), output_format="xml", include_comments=False, include_tables=True, favor_recall=True
    )
    if not found:
        return None
    try:
        main = fromstring(found).find("main")
    except ParseError:
        return None
    builder = Builder()
    if main is not None:
        blocks_of(_renamed(main), builder)
    return builder if builder.length else None


_NAMES = {"list": "ul", "item": "li", "row": "tr", "cell": "td", "quote": "blockquote", "lb": "br", "ref": "a"}


def _renamed(element: object) -> Node:
    """Return what trafilatura found with the names of HTML instead of those of TEI."""
    from xml.etree.ElementTree import Element

    assert isinstance(element, Element)
    tag = _NAMES.get(str(element.tag), str(element.tag))
    if tag == "head":
        level = element.get("rend", "h2")
        tag = level if re.fullmatch("h[1-6]", level) else "h2"
    elif tag == "code" and "\n" in "".join(element.itertext()):
        tag = "pre"
    node = Node(tag, {})
    if element.text:
        node.children.append(element.text)
    for child in element:
        node.children.append(_renamed(child))
        if child.tail:
            node.children.append(child.tail)
    return node


class _Writer:
    """Walks a tree and gives its blocks to a builder; text between blocks is gathered until the next one."""

    def __init__(self, builder: Builder) -> None:
        self._builder = builder
        self._pending: list[str] = []

    def write(self, node: Node) -> None:
        self._children(node)
        self._flush()

    def _children(self, node: Node) -> None:
        for child in node.children:
            if isinstance(child, str):
                self._pending.append(child)
            else:
                self._element(child)

    def _element(self, node: Node) -> None:
        if re.fullmatch("h[1-6]", node.tag):
            self._flush()
            self._builder.heading(_inline(node), int(node.tag[1]))
        elif node.tag == "br":
            self._pending.append(_BREAK)
        elif node.tag == "pre":
            self._flush()
            self._builder.add(_inline(node, keep=True), "code")
        elif node.tag in {"ul", "ol"} and not any(each.tag in _RICH for each in walk(node)):
            self._flush()
            self._builder.add("\n".join(_items(node, 0)), "list")
        elif node.tag == "table" and (rows := _rows(node)):
            self._flush()
            self._builder.table(rows)
        elif node.tag in _BLOCKS:
            self._flush()
            self._children(node)
            self._flush()
        else:
            self._children(node)

    def _flush(self) -> None:
        text = _spaced("".join(self._pending))
        self._pending.clear()
        self._builder.add(text)


_BREAK = "\x0b"  # stands for <br>: text has no such character
_RICH = words("h1 h2 h3 h4 h5 h6 table pre")


def _spaced(text: str) -> str:
    """Return text as HTML shows it: blanks are one space, and only a break ends a line."""
    return "\n".join(" ".join(line.split()) for line in text.split(_BREAK)).strip("\n")


def _inline(node: Node, *, keep: bool = False) -> str:
    """Return the text of an element and what is in it."""
    parts: list[str] = []

    def gather(each: Node) -> None:
        for child in each.children:
            if isinstance(child, str):
                parts.append(child)
            elif child.tag == "br":
                parts.append("\n" if keep else _BREAK)
            else:
                inner = child.tag in _BLOCKS
                parts.append(" " if inner and not keep else "")
                gather(child)
                parts.append(" " if inner and not keep else "")

    gather(node)
    text = "".join(parts)
    return text if keep else _spaced(text)


def _items(node: Node, depth: int) -> list[str]:
    lines: list[str] = []
    number = 0
    for child in node.children:
        if isinstance(child, str):
            if child.strip():
                lines.append("  " * depth + _spaced(child))
        elif child.tag in {"ul", "ol"}:
            lines += _items(child, depth + 1)
        else:
            number += 1
            inner = [each for each in child.children if isinstance(each, Node) and each.tag in {"ul", "ol"}]
            own = Node("", {})
            own.children = [each for each in child.children if not any(each is other for other in inner)]
            if text := _inline(own).replace("\n", " ").strip():
                lines.append("  " * depth + (f"{number}. " if node.tag == "ol" else "- ") + text)
            for each in inner:
                lines += _items(each, depth + 1)
    return lines


def _rows(node: Node) -> list[list[str]]:
    """Return the cells of a table; nothing if it is one for layout."""
    if any(each.tag in {"table", "h1", "h2", "h3", "ul", "ol", "pre"} and each is not node for each in walk(node)):
        return []
    found = [
        [_inline(cell) for cell in row.children if isinstance(cell, Node) and cell.tag in {"td", "th"}]
        for row in walk(node)
        if row.tag == "tr"
    ]
    return found if any(len(row) > 1 for row in found) else []
