"""The file of the MCP reference server `memory`: JSON lines of entities and relations.

Read as of 2026, `memory.jsonl`, before `memory.json`: `{"type": "entity", "name", "entityType", "observations"}` and
`{"type": "relation", "from", "to", "relationType"}`. They become the nodes and edges of the MCP server here.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from ..entities import COLLECTION
from ..nodes import ENTITY, OBSERVATION, PART_OF, Link, Node, collected_id
from ..store.nodelink import mended
from ._chat import Group
from ._files import objects, only_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._files import Source

__all__ = ["entity", "read"]


def read(source: Source) -> Iterator[Group]:
    """Yield the entities with their observations, then the relations, whatever their order in the file."""
    collection = source.collection or COLLECTION
    part = only_file(source.path)
    names: set[str] = set()
    relations: list[tuple[str, dict[str, Any]]] = []
    for place, line in objects(part, source.log):
        line = mended(line)  # noqa: PLW2901
        if line.get("type") == "relation":
            relations.append((place, line))
        elif line.get("type") != "entity" or not _is_entity(line):
            source.log.skip("neither an entity nor a relation", place, line)
        else:
            names.add(line["name"])
            yield _entity(line, collection, place)
    for place, line in relations:
        ends, kind = (line.get("from"), line.get("to")), line.get("relationType")
        if not isinstance(kind, str) or not kind or not all(isinstance(end, str) for end in ends):
            source.log.skip("a relation without its ends or its type", place, line)
        elif missing := [end for end in ends if end not in names]:
            source.log.skip("a relation to an entity that is not in the file", place, missing[0])
        else:
            one, other = (collected_id(ENTITY, collection, end) for end in ends if end)
            yield Group([], [Link(one, other, kind)], place)


def _is_entity(line: dict[str, Any]) -> bool:
    told = line.get("observations")
    named = isinstance(line.get("name"), str) and line["name"] and isinstance(line.get("entityType"), str)
    return bool(named) and isinstance(told, list) and all(isinstance(each, str) for each in told)


def _entity(line: dict[str, Any], collection: str, place: str) -> Group:
    made = entity(line["name"], line["entityType"], collection)
    nodes, links = [made], []
    for told in dict.fromkeys(line["observations"]):
        # As `Entities` has it: the same for whoever observes the same.
        own = f"{line['name']}/{hashlib.blake2b(told.encode(), digest_size=10).hexdigest()}"
        about = {"collection": collection, "name": line["name"]}
        nodes.append(Node(collected_id(OBSERVATION, collection, own), OBSERVATION, told, about))
        links.append(Link(nodes[-1].id, made.id, PART_OF))
    return Group(nodes, links, place)


def entity(name: str, kind: str, collection: str) -> Node:
    """Return the node of an entity."""
    about = {"collection": collection, "key": name, "entity_type": kind}
    return Node(collected_id(ENTITY, collection, name), ENTITY, f"{name} ({kind})" if kind else name, about)
