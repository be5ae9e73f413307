"""XML of whatever kind, feeds and drawings among it: the text that is in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..source import Builder
from .archive import local, parsed_xml
from .tree import parse
from .web import blocks_of, without_hidden

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

    from ..source import Loaded, Source

__all__ = ["xml"]

_UNSEEN = {"script", "style"}
_ENTRIES = {"item", "entry"}


def xml(source: Source) -> Loaded:
    """Return the texts of an XML document, a paragraph for each element that has one; in feeds, entries are headed."""
    root = parsed_xml(source.data, source.name or "document", forbid_dtd=False)
    builder = Builder()
    feed = local(root.tag) in {"rss", "feed", "RDF"}
    _write(root, builder, feed=feed)
    title = next((_text(each) for each in root.iter() if local(each.tag) == "title" and _text(each)), None)
    return builder.loaded(title=title)


def _write(element: Element, builder: Builder, *, feed: bool) -> None:
    waiting: list[Element | str] = [element]
    while waiting:
        each = waiting.pop()
        if isinstance(each, str):
            builder.add(each.strip())
            continue
        name = local(each.tag)
        if not isinstance(each.tag, str) or name in _UNSEEN:
            continue
        if feed and name in _ENTRIES:
            _entry(each, builder)
            continue
        if each.text and each.text.strip():
            builder.add(each.text.strip())
        for child in reversed(each):
            if child.tail and child.tail.strip():
                waiting.append(child.tail)
            waiting.append(child)


def _entry(entry: Element, builder: Builder) -> None:
    """Append an entry of a feed: its title, and its text, which may be HTML as text."""
    title = next((_text(each) for each in entry if local(each.tag) == "title"), "")
    builder.fresh()
    builder.heading(title, 1)
    for each in entry:
        if local(each.tag) in {"description", "summary", "content", "encoded"}:
            blocks_of(without_hidden(parse("".join(each.itertext()))), builder)
        elif local(each.tag) in {"pubDate", "published", "updated", "author", "creator"}:
            builder.add(_text(each))


def _text(element: Element) -> str:
    return " ".join("".join(element.itertext()).split())
