"""Nodes and edges as tuples of plain values.

A memory of 100,000 messages that keeps an object and a dict for each makes Python's garbage collector walk over all of
them, again and again, and stop the program meanwhile. It passes over tuples that hold nothing but strings and numbers,
which are also half as large.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..nodes import PLAIN, Link, Node, copied

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "EXPIRES",
    "ID",
    "KIND",
    "NAMESPACE",
    "ROW",
    "TEXT",
    "LinkKey",
    "NodeKey",
    "PackedLink",
    "PackedNode",
    "attributes_of",
    "link_of",
    "link_row",
    "node_of",
    "pack_link",
    "pack_node",
]

NodeKey = tuple[str, str]  # (namespace, id)
LinkKey = tuple[str, str, str, str]  # (namespace, source, target, relation)
# Ends with the names of the attributes and their values; with None and a dict, if one of them is a list or an object.
PackedNode = tuple[Any, ...]
ROW, ID, KIND, TEXT, NAMESPACE, EXPIRES, _NAMES, _VALUES = range(8)
PackedLink = int | tuple[Any, ...]  # its row; if it has data, with these in the same way

_SHARED = 1024  # sets of names that are kept once for all nodes that have them
_names: dict[tuple[str, ...], tuple[str, ...]] = {}


def _flat(values: Mapping[str, Any]) -> tuple[Any, ...]:
    if type(values) is dict and PLAIN.issuperset(map(type, values.values())):
        names = tuple(values)
        names = _names.get(names) or (_names.setdefault(names, names) if len(_names) < _SHARED else names)
        return (names, *values.values())
    return None, copied(values)


def _named(packed: tuple[Any, ...], at: int) -> dict[str, Any]:
    names = packed[at]
    # They were packed together; asking whether they are as many would take as long as the rest.
    return copied(packed[at + 1]) if names is None else dict(zip(names, packed[at + 1 :]))  # noqa: B905


def pack_node(node: Node, key: NodeKey, row: int) -> PackedNode:
    """Return what is kept of *node* under *key* and *row*; it shares no list and no dict with it."""
    return (row, key[1], node.kind, node.text, key[0], node.expires_at, *_flat(node.attributes))


def node_of(packed: PackedNode) -> Node:
    """Return a node that its reader may do with as it likes."""
    attributes = _named(packed, _NAMES)
    return Node(packed[ID], packed[KIND], packed[TEXT], attributes, packed[NAMESPACE], packed[EXPIRES], packed[ROW])


def attributes_of(packed: PackedNode) -> Mapping[str, Any]:
    """Return the attributes of a node; not to be changed."""
    return packed[_VALUES] if packed[_NAMES] is None else _named(packed, _NAMES)


def pack_link(data: Mapping[str, Any], row: int) -> PackedLink:
    """Return what is kept of a link besides its key; it shares no list and no dict with *data*."""
    return (row, *_flat(data)) if data else row


def link_of(key: LinkKey, packed: PackedLink) -> Link:
    """Return a link that its reader may do with as it likes."""
    data = {} if isinstance(packed, int) else _named(packed, 1)
    return Link(key[1], key[2], key[3], data, key[0], link_row(packed))


def link_row(packed: PackedLink) -> int:
    """Return the row of a link."""
    return packed if isinstance(packed, int) else packed[0]
