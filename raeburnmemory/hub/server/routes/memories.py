"""What is remembered: texts that are put, looked at, changed and taken out one by one, and what stands beside them."""

from __future__ import annotations

import hashlib
import uuid
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Header, Path, Query, Response
from pydantic import Field

from ....nodes import FACT, MEMORY, OBSERVATION, PROMPT, RESPONSE, Link, Node
from ....records import new_id, utc
from ....web import Problem
from ..rules import needs
from ._shared import AGAIN, Asked, Here, OwnRoute, errors

if TYPE_CHECKING:
    from ....memory_graph import MemoryGraph

__all__ = ["router"]

router = APIRouter(prefix="/api/v1", route_class=OwnRoute, tags=["memories"])

_TEXT = 200_000  # letters
# Documents are changed where they come from, and what the hub keeps for itself by the routes that are for it: whoever
# may only write must not name another directory for a project.
_CHANGED = (MEMORY, PROMPT, RESPONSE, OBSERVATION)
_REMOVED = (*_CHANGED, FACT)
Id = Annotated[str, Path(min_length=1, max_length=512)]
Key = Annotated[str | None, Header(min_length=1, max_length=255)]


class Remembered(Asked):
    """A text to be kept, and what else is to be known of it."""

    text: str = Field(min_length=1, max_length=_TEXT)
    metadata: dict[str, Any] = Field(default_factory=dict, description="Found again by `where`: `metadata.NAME`.")


class Changed(Asked):
    """What is to be different: the text, or some of the metadata; null takes a name out."""

    text: str | None = Field(None, min_length=1, max_length=_TEXT)
    metadata: dict[str, Any] | None = None


@router.post("/remember", status_code=201, dependencies=[needs("write")], responses={**AGAIN, **errors()})
def remember(asked: Remembered, hub: Here, response: Response, idempotency_key: Key = None) -> dict[str, Any]:
    """Keep a text; sent again under the same Idempotency-Key, it is kept once, as it was sent last."""
    made = new_id() if idempotency_key is None else _id_of(idempotency_key)
    about: dict[str, Any] = {"timestamp": utc(None)} | ({"metadata": asked.metadata} if asked.metadata else {})
    if not hub.memory.put([Node(made, MEMORY, asked.text, about)]):
        response.status_code = 200
    return _shown(hub.memory, made)


@router.get("/memories/{memory_id:anything}", dependencies=[needs("read")], responses=errors(404))
def memory(memory_id: Id, hub: Here) -> dict[str, Any]:
    """Return one node of the memory, whatever its kind, with its links and how often it was changed."""
    return _shown(hub.memory, memory_id)


@router.patch("/memories/{memory_id:anything}", dependencies=[needs("write")], responses=errors(404, 409))
def change(memory_id: Id, asked: Changed, hub: Here) -> dict[str, Any]:
    """Give something that was remembered or said another text, or other metadata; the text before is its history."""
    with hub.memory.exclusive():
        node = _own(hub.memory, memory_id, _CHANGED)
        metadata = None
        if asked.metadata is not None:
            known = node.attributes.get("metadata")
            both = {**(known if isinstance(known, dict) else {}), **asked.metadata}
            metadata = {"metadata": {name: value for name, value in both.items() if value is not None}}
        hub.memory.update(memory_id, text=asked.text, metadata=metadata)
    return _shown(hub.memory, memory_id)


@router.delete("/memories/{memory_id:anything}", dependencies=[needs("write")], responses=errors(404, 409))
def forget(
    memory_id: Id, hub: Here, secure: Annotated[bool, Query(description="Also from every older copy.")] = False
) -> dict[str, Any]:
    """Forget something that was remembered, said or stated."""
    _own(hub.memory, memory_id, _REMOVED)
    gone = hub.memory.forget([memory_id], secure=secure)
    return {"ids": list(gone.ids), "links": gone.links}


@router.get("/graph/neighbors", dependencies=[needs("read")], responses=errors(404))
def neighbors(
    hub: Here,
    node_id: Annotated[str, Query(alias="id", min_length=1, max_length=512)],
    depth: Annotated[int, Query(ge=1, le=3)] = 1,
    limit: Annotated[int, Query(ge=1, le=500, description="Nodes at most, this one among them.")] = 100,
    relation: Annotated[str | None, Query(min_length=1, max_length=512)] = None,
    direction: Literal["out", "in", "both"] = "both",
) -> dict[str, Any]:
    """Return what stands around a node: nodes, the nearest first, and the links between all of them.

    `cut` says that there are more than *limit*.
    """
    with hub.memory.snapshot():
        hub.memory.get(node_id)
        seen, edge, cut = {node_id: 0}, [node_id], False
        for step in range(1, depth + 1):
            following: list[str] = []
            for link in hub.memory.links(edge, relation, direction):
                for end in (link.source, link.target):
                    if end not in seen and len(seen) < limit:
                        seen[end] = step
                        following.append(end)
                    cut = cut or end not in seen
            edge = following
        nodes = {node.id: node for node in hub.memory.get_many(list(seen))}
        links = [link for link in hub.memory.links(list(nodes), None, "out") if link.target in nodes]
    return {
        "id": node_id,
        "nodes": [{**nodes[one].to_dict(), "depth": step} for one, step in seen.items() if one in nodes],
        "links": [_link(link) for link in links],
        "cut": cut,
    }


def _own(memory: MemoryGraph, memory_id: str, kinds: tuple[str, ...]) -> Node:
    node = memory.get(memory_id)
    if node.kind not in kinds:
        other = " Its document is: DELETE /api/v1/sources/ID." if node.kind in {"document", "fragment"} else ""
        raise Problem(409, f"{memory_id!r} is a {node.kind}, which is not changed by this route.{other}", code="kind")
    return node


def _shown(memory: MemoryGraph, memory_id: str) -> dict[str, Any]:
    with memory.snapshot():
        node = memory.get(memory_id)
        links = memory.links([memory_id])
        versions = len(memory.history(memory_id))
    return {
        "id": node.id,
        "kind": node.kind,
        "text": node.text,
        "timestamp": node.timestamp,
        "metadata": node.attributes.get("metadata") or {},
        "attributes": {key: value for key, value in node.attributes.items() if key not in {"metadata", "timestamp"}},
        "links": [_link(link) for link in links],
        "versions": versions,
    }


def _link(link: Link) -> dict[str, Any]:
    return {"source": link.source, "target": link.target, "relation": link.relation, "data": dict(link.data)}


def _id_of(key: str) -> str:
    digest = hashlib.sha256(f"remember\n{key}".encode()).digest()
    return str(uuid.UUID(bytes=digest[:16], version=5))
