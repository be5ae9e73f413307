"""Memories of mem0: JSON of what `get_all` answers, as its documentation recommends for leaving.

Read as versions 0.1 to 2.x write it: a list, or an object with it under `results` or `memories`; each with `id`,
`memory`, `metadata`, `created_at` and the scopes. Its `relations` become edges between entities.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..nodes import MEMORY, Link, Node, collected_id
from ..store.nodelink import mended
from ._chat import Group, digest, text_of, when
from ._files import only_file
from ._json_stream import elements
from .mcp_memory import entity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._files import Part, Source

__all__ = ["read"]

_SCOPES = ("user_id", "agent_id", "run_id", "app_id", "actor_id", "role", "attributed_to")
_KEPT = (*_SCOPES, "hash", "categories", "expiration_date", "immutable")


def read(source: Source) -> Iterator[Group]:
    """Yield the memories, and the relations between entities."""
    collection = source.collection or "mem0"
    part = only_file(source.path)
    with part.open() as file:
        for number, one in elements(file, part.name, "results"):
            place = f"{part.name}, memory {number}"
            if isinstance(one, dict) and "memory" not in one and isinstance(one.get("memories"), list):
                for at, inner in enumerate(one["memories"]):
                    yield from _memory(inner, collection, f"{part.name}, memory {at}", source)
            else:
                yield from _memory(one, collection, place, source)
    yield from _relations(part, collection, source)


def _memory(one: Any, collection: str, place: str, source: Source) -> Iterator[Group]:
    text = one.get("memory") or one.get("text") or one.get("data") if isinstance(one, dict) else None
    if not isinstance(text, str):
        source.log.skip("no memory with a text", place, one)
        return
    key = one["id"] if isinstance(one.get("id"), str) and one["id"] else digest(text, *(one.get(s) for s in _SCOPES))
    about: dict[str, Any] = {name: one[name] for name in _KEPT if one.get(name) is not None}
    if isinstance(one.get("metadata"), dict) and one["metadata"]:
        about["metadata"] = one["metadata"]
    about |= {"collection": collection, "key": key}
    if isinstance(one.get("actor_id"), str) and one["actor_id"]:
        about["name"] = one["actor_id"]
    for name, given in (("timestamp", "created_at"), ("updated_at", "updated_at")):
        if (time := when(one.get(given), place, source.log)) is not None:
            about[name] = time
    node = Node(collected_id(MEMORY, collection, key), MEMORY, text_of(mended(text)), mended(about))
    yield Group([node], [], place)


def _relations(part: Part, collection: str, source: Source) -> Iterator[Group]:
    """Yield the relations of an object that has some, as edges between entities."""
    with part.open() as file:
        if file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] != b"{":
            return
    with part.open() as file:
        for number, one in elements(file, part.name, "relations"):
            place = f"{part.name}, relation {number}"
            if isinstance(one, dict) and ("results" in one or "memories" in one or "memory" in one):
                return  # the whole object: it has none
            ends = [one.get("source"), one.get("target") or one.get("destination")] if isinstance(one, dict) else []
            kind = one.get("relationship") or one.get("relation") if isinstance(one, dict) else None
            if not isinstance(kind, str) or not kind or not all(isinstance(end, str) and end for end in ends):
                source.log.skip("a relation without its ends or its type", place, one)
                continue
            nodes = [entity(end, "", collection) for end in mended(ends)]
            yield Group(nodes, [Link(nodes[0].id, nodes[1].id, mended(kind))], place)
