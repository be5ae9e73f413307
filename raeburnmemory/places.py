"""Where a fragment of a document stands: in the link to its document, which moves when the text above it changes.

The node of a fragment says what it is, and stays as it is for as long as its text is in the document; an edit above
it moves it, and writing all that follows anew for that would leave a history of copies that nobody asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .hits import Place
from .nodes import DOCUMENT, FRAGMENT, PART_OF

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .nodes import Node
    from .store import Store

__all__ = ["name_of", "place", "places_of"]


def places_of(store: Store, namespace: str, nodes: Sequence[Node]) -> dict[str, Place]:
    """Return where those of *nodes* stand that are fragments of a document, by their ids."""
    fragments = {
        node.id: node
        for node in nodes
        if node.kind == FRAGMENT and node.namespace == namespace and isinstance(node.attributes.get("document"), str)
    }
    if not fragments:
        return {}
    links = store.links(list(fragments), namespace, relation=PART_OF)
    documents = store.get(list(dict.fromkeys(link.target for link in links)), namespace)
    return {
        link.source: place(fragments[link.source], link.data, document)
        for link in links
        if (document := documents.get(link.target)) is not None and document.kind == DOCUMENT
    }


def place(fragment: Node, data: Mapping[str, Any], document: Node) -> Place:
    """Return where *fragment* stands in *document*, to which a link with *data* leads."""
    headings = fragment.attributes.get("headings")
    return Place(
        document.id,
        str(document.attributes.get("uri") or document.id),
        name_of(document),
        str(document.attributes.get("title") or ""),
        _number(data.get("start"), 0),
        _number(data.get("end"), 0),
        _pair(data.get("lines")),
        _pair(data.get("pages")),
        tuple(map(str, headings)) if isinstance(headings, list) else (),
        str(fragment.attributes.get("content_hash") or ""),
        fragment.text or "",
    )


def name_of(document: Node) -> str:
    """Return what a document goes by: its name, title or address, or else its id."""
    names = (document.attributes.get(key) for key in ("name", "title", "uri"))
    return next((name for name in names if isinstance(name, str) and name), document.id)


def _number(value: Any, other: int) -> int:
    return value if type(value) is int else other


def _pair(value: Any) -> tuple[int, int] | None:
    if isinstance(value, list) and len(value) == 2 and all(type(one) is int for one in value):
        return value[0], value[1]
    return None
